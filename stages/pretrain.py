"""Causal language modelling on packed documents, from scratch or from a given model."""

import difflib
import math
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from stages.core import tracking
from stages.core.artifacts import make_artifact
from stages.core.chat import encode_document, encode_text
from stages.core.config import Compute, PretrainConfig
from stages.core.contracts import ModelOutputs, PretrainInputs
from stages.core.errors import UserError
from stages.core.generation import generate
from stages.core.models import (
    check_length,
    load_model,
    load_tokenizer,
    padding_id,
    pick_device,
    save_model,
    supports_bf16,
)
from stages.core.schemas import read_jsonl
from stages.core.training import train, trainer_settings

IGNORED_LABEL = -100
SAMPLE_TOKENS = 48


def run(
    config: PretrainConfig, inputs: PretrainInputs, compute: Compute, out_dir: Path
) -> tuple[ModelOutputs, dict[str, float]]:
    """Train on ``documents/train.jsonl``, measuring bits per byte on ``held_out.jsonl``.

    Raises:
        UserError: unknown architecture or field, or sequences longer than the model's positions.
    """
    set_seed(config.seed)
    device = pick_device(compute)
    if inputs.model is not None:
        tokenizer = load_tokenizer(inputs.model.locate())
        model = load_model(inputs.model.locate(), device)
    elif inputs.tokenizer is not None:
        tokenizer = load_tokenizer(inputs.tokenizer.locate())
        model = _model_from_scratch(config, tokenizer).to(device)
    else:
        raise UserError("pretrain needs a tokenizer (from scratch) or a model (continued)")
    check_length(model, config.sequence_length, "pretrain.sequence_length")

    documents = inputs.documents.locate()
    train_data, _ = _packed(documents / "train.jsonl", tokenizer, config.sequence_length)
    held_out, held_out_bytes = _packed(
        documents / "held_out.jsonl", tokenizer, config.sequence_length
    )
    held_out_tokens = sum(label != IGNORED_LABEL for row in held_out["labels"] for label in row)
    tokens_per_byte = held_out_tokens / held_out_bytes
    print(
        f"{model.num_parameters():,} parameters, {len(train_data):,} sequences of "
        f"{config.sequence_length} tokens",
        flush=True,
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            **trainer_settings(config, compute, out_dir),
            max_steps=config.max_steps or -1,
        ),
        train_dataset=train_data,
        eval_dataset=held_out,
        callbacks=[
            MeasureSpeed(model, config, device),
            BitsPerByte(tokens_per_byte),
            SampleTexts(tokenizer, config.num_samples, config.seed),
        ],
    )
    # A cache would make the model take the packed documents for one.
    model.config.use_cache = False
    train(trainer, out_dir)
    loss = trainer.evaluate()["eval_loss"]
    model.config.use_cache = True
    folder = out_dir / "model"
    save_model(model, tokenizer, folder)
    metrics = {
        "held_out_loss": loss,
        "bits_per_byte": loss * tokens_per_byte / math.log(2),
        "num_parameters": float(model.num_parameters()),
        "train_tokens": float(trainer.state.global_step * _tokens_per_step(config)),
    }
    return ModelOutputs(model=make_artifact("model", folder)), metrics


def _model_from_scratch(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    try:
        known = AutoConfig.for_model(config.model_type)
    except ValueError as error:
        raise UserError(
            f"pretrain.model_type = {config.model_type}: unknown to transformers"
        ) from error
    # transformers keeps unknown fields silently.
    for name in config.model_overrides:
        if not hasattr(known, name):
            near = difflib.get_close_matches(name, known.to_dict(), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(
                f"pretrain.model_overrides: {config.model_type} has no field {name}{hint}"
            )
    architecture = AutoConfig.for_model(
        config.model_type,
        **{
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": padding_id(tokenizer),
        }
        | config.model_overrides,
    )
    try:
        return AutoModelForCausalLM.from_config(architecture)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"pretrain.model_type = {config.model_type}: {reason}") from error


def _packed(path: Path, tokenizer: PreTrainedTokenizerBase, length: int) -> tuple[Dataset, int]:
    """Documents laid end to end in sequences of ``length`` tokens, and their size in bytes.

    ``position_ids`` restart with each document, from which transformers' attention masks keep
    documents apart; a document's first token has no label, since nothing before it belongs to it.
    """
    ids: list[int] = []
    positions: list[int] = []
    num_bytes = 0
    for row in read_jsonl(path):
        document = encode_document(tokenizer, row["text"])
        ids += document
        positions += range(len(document))
        num_bytes += len(row["text"].encode())
    if not ids:
        raise UserError(f"{path}: no documents left after cleaning; see its report.md")
    rest = -len(ids) % length
    ids += [padding_id(tokenizer)] * rest
    positions += [0] * rest
    labels = [
        IGNORED_LABEL if position == 0 else token
        for token, position in zip(ids, positions, strict=True)
    ]
    rows = {
        "input_ids": _cut(ids, length),
        "labels": _cut(labels, length),
        "position_ids": [
            _restart(positions[start : start + length]) for start in range(0, len(ids), length)
        ],
    }
    return Dataset.from_dict(rows), num_bytes


def _cut(values: list[int], length: int) -> list[list[int]]:
    return [values[start : start + length] for start in range(0, len(values), length)]


def _restart(positions: list[int]) -> list[int]:
    """Positions of one sequence, the document cut by its beginning counted from 0 again."""
    head = next((i for i, position in enumerate(positions) if position == 0), len(positions))
    return [*range(head), *positions[head:]]


def _tokens_per_step(config: PretrainConfig) -> int:
    return config.global_batch_size * config.sequence_length


class MeasureSpeed(TrainerCallback):
    """Logs tokens a second and the model FLOPs utilisation: the arithmetic that training needs a
    second (6 a parameter and token, 12 · layers · width · length for attention; PaLM, appendix B)
    over what large matrix products reach on this device, measured at the start."""

    def __init__(
        self, model: PreTrainedModel, config: PretrainConfig, device: torch.device
    ) -> None:
        text_config = model.config.get_text_config()
        embeddings = model.get_input_embeddings().weight.numel()
        parameters = model.num_parameters()
        if not text_config.tie_word_embeddings:
            parameters -= embeddings  # a look-up costs no arithmetic; a tied output layer does
        attention = 12 * text_config.num_hidden_layers * text_config.hidden_size
        self._flops_per_token = 6 * parameters + attention * config.sequence_length
        self._tokens_per_step = _tokens_per_step(config)
        self._reachable = _matmul_flops_per_second(device)
        self._since: tuple[float, int] | None = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        now = time.monotonic()
        if self._since is None:
            self._since = (now, state.global_step)
        elif control.should_log:
            seconds, steps = now - self._since[0], state.global_step - self._since[1]
            speed = steps * self._tokens_per_step / seconds
            mfu = speed * self._flops_per_token / self._reachable / args.world_size
            tracking.log_metrics({"tokens_per_second": speed, "mfu": mfu}, state.global_step)
            self._since = (now, state.global_step)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._since = None  # evaluation is not training time


class BitsPerByte(TrainerCallback):
    """Logs the held-out loss in bits per byte of text, which tokenizers cannot flatter."""

    def __init__(self, tokens_per_byte: float) -> None:
        self._bits_per_nat = tokens_per_byte / math.log(2)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        value = (metrics or {})["eval_loss"] * self._bits_per_nat
        tracking.log_metrics({"eval_bits_per_byte": value}, state.global_step)


class SampleTexts(TrainerCallback):
    """Prints and logs a few sampled texts at each evaluation."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, num_samples: int, seed: int) -> None:
        self._tokenizer = tokenizer
        self._num_samples = num_samples
        self._seed = seed

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **kwargs: Any,
    ) -> None:
        if model is None or not self._num_samples or not state.is_world_process_zero:
            return
        tokenizer = self._tokenizer
        start = tokenizer.bos_token_id
        prompt = [start] if start is not None else encode_text(tokenizer, "The")
        was_training = model.training
        model.eval()
        replies = generate(
            model,
            [prompt] * self._num_samples,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=padding_id(tokenizer),
            temperature=0.8,
            uniforms=torch.rand(
                self._num_samples,
                SAMPLE_TOKENS,
                generator=torch.Generator().manual_seed(self._seed),
            ),
            batch_size=self._num_samples,
        )
        model.train(was_training)
        texts = [tokenizer.decode(reply, skip_special_tokens=True) for reply in replies.ids]
        for text in texts:
            print(f"sample at step {state.global_step}: {text}", flush=True)
        rows = [{"step": state.global_step, "text": text} for text in texts]
        tracking.log_table(rows, "samples")


def _matmul_flops_per_second(device: torch.device, seconds: float = 0.3) -> float:
    """Floating-point operations a second of a large matrix product in the training precision."""
    size = 4096 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if supports_bf16(device) else torch.float32
    a = torch.zeros(size, size, dtype=dtype, device=device)
    rounds = 0
    (a @ a).sum().item()
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        (a @ a).sum().item()
        rounds += 1
    return rounds * 2 * size**3 / (time.perf_counter() - start)
