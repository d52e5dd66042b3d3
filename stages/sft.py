"""Supervised fine-tuning: LoRA on demonstrations, with the loss on the completions only."""

from itertools import islice
from pathlib import Path

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import SFTConfig as TRLSFTConfig
from trl import SFTTrainer

from stages.core import tracking
from stages.core.artifacts import make_artifact
from stages.core.chat import (
    decode_completion,
    encode_completion,
    encode_prompt,
    prompt_text,
)
from stages.core.config import Compute, SFTConfig
from stages.core.contracts import SFTInputs, SFTOutputs
from stages.core.errors import UserError
from stages.core.generation import generate
from stages.core.models import (
    check_length,
    load_model,
    load_tokenizer,
    padding_id,
    peft_config,
    pick_device,
    save_adapter,
    save_model,
)
from stages.core.schemas import read_jsonl
from stages.core.training import stop_early, train, trainer_settings

IGNORED_LABEL = -100
NUM_SAMPLES = 32
SAMPLE_TOKENS = 64


def run(
    config: SFTConfig, inputs: SFTInputs, compute: Compute, out_dir: Path
) -> tuple[SFTOutputs, dict[str, float]]:
    """Train a LoRA adapter, keep the one with the best held-out loss, and merge it.

    Raises:
        UserError: too many records exceed ``max_length``, or none is left.
    """
    set_seed(config.seed)
    device = pick_device(compute)
    tokenizer = load_tokenizer(inputs.model.locate())
    model = load_model(inputs.model.locate(), device)
    check_length(model, config.max_length, "sft.max_length")
    data = inputs.sft.locate()
    train_data, train_long = tokenize(data / "train.jsonl", tokenizer, config)
    held_out, held_out_long = tokenize(data / "held_out.jsonl", tokenizer, config)

    best_settings, callbacks = stop_early(config, config.early_stopping_patience)
    trainer = SFTTrainer(
        model=model,
        args=TRLSFTConfig(
            **trainer_settings(config, compute, out_dir),
            **best_settings,
            max_length=None,  # nothing is cut behind our back: tokenize() decided
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=train_data,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=peft_config(config.lora, task_type="CAUSAL_LM"),
        callbacks=callbacks,
    )
    train(trainer, out_dir)
    loss = trainer.evaluate()["eval_loss"]
    adapted = trainer.accelerator.unwrap_model(trainer.model)
    assert isinstance(adapted, PeftModel)
    adapted.eval()
    save_adapter(adapted, "default", inputs.model, out_dir / "adapter")
    merged = adapted.merge_and_unload()
    save_model(merged, tokenizer, out_dir / "model")
    metrics = {
        "held_out_loss": loss,
        "over_length": float(train_long + held_out_long),
        "steps": float(trainer.state.global_step),
        **_sample(merged, tokenizer, data / "held_out.jsonl", config.seed),
    }
    outputs = SFTOutputs(
        adapter=make_artifact("adapter", out_dir / "adapter"),
        model=make_artifact("model", out_dir / "model"),
    )
    return outputs, metrics


def tokenize(
    path: Path, tokenizer: PreTrainedTokenizerBase, config: SFTConfig
) -> tuple[Dataset, int]:
    """Token ids and labels of a file's demonstrations, and how many were over-long.

    Prompt tokens carry no label. A truncated record keeps its prompt and loses the end of its
    completion; one whose prompt fills ``max_length`` would teach nothing and is dropped.

    Raises:
        UserError: more than ``max_over_length_share`` are over-long, or none is left.
    """
    rows: list[dict[str, list[int]]] = []
    num_all = num_long = 0
    for record in read_jsonl(path):
        num_all += 1
        prompt_ids = encode_prompt(tokenizer, record["prompt"])
        ids = prompt_ids + encode_completion(tokenizer, record["completion"])
        if len(ids) > config.max_length:
            num_long += 1
            if config.over_length == "drop" or len(prompt_ids) >= config.max_length:
                continue
            ids = ids[: config.max_length]
        labels = [IGNORED_LABEL] * len(prompt_ids) + ids[len(prompt_ids) :]
        rows.append({"input_ids": ids, "labels": labels})
    if num_long > config.max_over_length_share * num_all:
        raise UserError(
            f"{path.name}: {num_long} of {num_all} demonstrations exceed sft.max_length = "
            f"{config.max_length} tokens; raise it, shorten the data, or allow more with "
            "sft.max_over_length_share"
        )
    if not rows:
        raise UserError(f"{path}: no demonstrations left after cleaning; see its report.md")
    if num_long:
        print(f"{path.name}: {num_long} of {num_all} over-long: {config.over_length}", flush=True)
    return Dataset.from_list(rows), num_long


def _sample(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path, seed: int
) -> dict[str, float]:
    """Answer a few held-out prompts: does the model end its replies?"""
    prompts = [record["prompt"] for record in islice(read_jsonl(path), NUM_SAMPLES)]
    replies = generate(
        model,
        [encode_prompt(tokenizer, prompt) for prompt in prompts],
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=padding_id(tokenizer),
        temperature=1.0,
        uniforms=torch.rand(
            len(prompts), SAMPLE_TOKENS, generator=torch.Generator().manual_seed(seed)
        ),
        batch_size=NUM_SAMPLES,
    ).ids
    rows = [
        {"prompt": prompt_text(prompt), "response": decode_completion(tokenizer, reply)}
        for prompt, reply in zip(prompts, replies, strict=True)
    ]
    tracking.log_table(rows, "samples")
    for row in rows[:3]:
        print(f"sample: {row['prompt']!r} -> {row['response']!r}", flush=True)
    ended = [reply[-1] == tokenizer.eos_token_id for reply in replies]
    return {"eos_rate": sum(ended) / len(ended)}
