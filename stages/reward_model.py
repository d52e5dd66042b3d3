"""Bradley–Terry reward model: LoRA adapter and score head on the merged SFT model."""

import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from datasets import Dataset
from matplotlib.figure import Figure
from peft import PeftModel
from transformers import (
    AutoConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from trl import RewardConfig, RewardTrainer

from stages.core import tracking
from stages.core.architecture import classifier_class
from stages.core.artifacts import make_artifact
from stages.core.chat import Prompt, decode_completion, encode_completion, encode_prompt
from stages.core.config import Compute, RewardModelConfig
from stages.core.contracts import RewardModelInputs, RewardModelOutputs
from stages.core.errors import UserError
from stages.core.generation import generate
from stages.core.models import (
    autocast,
    check_length,
    load_model,
    load_tokenizer,
    padding_id,
    peft_config,
    pick_device,
    save_adapter,
    tokenizer_digest,
)
from stages.core.schemas import read_jsonl
from stages.core.scoring import (
    MANIFEST_FILE,
    Probe,
    RewardModel,
    RewardModelManifest,
    load_reward_model,
)
from stages.core.training import train, trainer_settings

NUM_PROBES = 8
MIN_SCORE_STD = 1e-3
SAMPLE_BATCH_SIZE = 32
"""Fixed, since the batch decides which random numbers a reply gets."""


class Pair(NamedTuple):
    """One comparison as token ids, replies ended by EOS."""

    prompt: Prompt
    chosen: str
    rejected: str
    margin: float
    chosen_ids: list[int]
    rejected_ids: list[int]


def run(
    config: RewardModelConfig, inputs: RewardModelInputs, compute: Compute, out_dir: Path
) -> tuple[RewardModelOutputs, dict[str, float]]:
    """Train on the pairs, then save the adapter with the head, the score's mean and standard
    deviation on the SFT model's own samples, and probes; reload all and measure it held out.

    The stage guard_model is this one with settings, pairs and a seed of its own.

    Raises:
        UserError: too many pairs exceed ``max_length``, none is left, or a margin is missing.
    """
    config = _with_own_seed(config)
    set_seed(config.seed)
    device = pick_device(compute)
    base = inputs.model.locate()
    tokenizer = load_tokenizer(base)
    data = inputs.preferences.locate()
    pairs, num_long = tokenize(data / "train.jsonl", tokenizer, config)
    held_out, num_held_out_long = tokenize(data / "held_out.jsonl", tokenizer, config)
    classifier = _classifier(base, tokenizer, config).to(device)
    check_length(classifier, config.max_length, f"{config.stage}.max_length")

    pad = padding_id(tokenizer)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    trainer = RewardTrainer(
        model=classifier,
        args=RewardConfig(
            **trainer_settings(config, compute, out_dir),
            max_length=None,  # nothing is cut behind our back: tokenize() decided
            pad_token=tokenizer.pad_token,
            center_rewards_coefficient=config.center_rewards_coefficient or None,
        ),
        train_dataset=_as_dataset(pairs, config.use_margin),
        eval_dataset=_as_dataset(held_out, config.use_margin),
        processing_class=tokenizer,
        peft_config=peft_config(config.lora, task_type="SEQ_CLS", modules_to_save=["score"]),
    )
    train(trainer, out_dir)
    trained = trainer.accelerator.unwrap_model(trainer.model).eval()
    assert isinstance(trained, PeftModel)

    tokenizer = load_tokenizer(base)  # without the padding token set above
    prompts, samples = _sft_samples(config, inputs, compute, tokenizer)
    sample_scores = _classifier_scores(trained, tokenizer, prompts, samples)
    folder = out_dir / "reward_model"
    save_adapter(trained, "default", inputs.model, folder)
    manifest = RewardModelManifest(
        base_digest=inputs.model.digest,
        tokenizer_digest=tokenizer_digest(tokenizer),
        max_length=config.max_length,
        score_mean=statistics.mean(sample_scores),
        score_std=max(statistics.pstdev(sample_scores), MIN_SCORE_STD),
        probes=_probes(trained, tokenizer, held_out, prompts, samples),
    )
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    del trainer, trained, classifier

    # From here on with what was written: what later stages load is what was measured.
    reward_model = load_reward_model(folder, base, device)
    metrics = {
        **_accuracy(reward_model, held_out, out_dir),
        "over_length": float(num_long + num_held_out_long),
        "score_mean": manifest.score_mean,
        "score_std": manifest.score_std,
    }
    outputs = RewardModelOutputs(reward_model=make_artifact("reward_model", folder))
    return outputs, metrics


def tokenize(
    path: Path, tokenizer: PreTrainedTokenizerBase, config: RewardModelConfig
) -> tuple[list[Pair], int]:
    """The pairs of a file that fit into ``max_length`` tokens, and how many do not.

    Raises:
        UserError: too many do not, none is left, or ``use_margin`` finds none.
    """
    pairs: list[Pair] = []
    num_long = 0
    for number, row in enumerate(read_jsonl(path), start=1):
        if config.use_margin and row.get("margin") is None:
            raise UserError(
                f"{path.name}:{number}: no margin; add the column or set "
                f"{config.stage}.use_margin=false"
            )
        prompt_ids = encode_prompt(tokenizer, row["prompt"])
        chosen = prompt_ids + encode_completion(tokenizer, row["chosen"])
        rejected = prompt_ids + encode_completion(tokenizer, row["rejected"])
        if max(len(chosen), len(rejected)) > config.max_length:
            num_long += 1
            continue
        texts = (row["prompt"], row["chosen"], row["rejected"])
        pairs.append(Pair(*texts, float(row.get("margin") or 0), chosen, rejected))
    num_all = len(pairs) + num_long
    if num_long > config.max_over_length_share * num_all:
        raise UserError(
            f"{path.name}: {num_long} of {num_all} pairs exceed {config.stage}.max_length = "
            f"{config.max_length} tokens; raise it, shorten the data, or allow more with "
            f"{config.stage}.max_over_length_share"
        )
    if not pairs:
        raise UserError(f"{path}: no pairs left after cleaning; see its report.md")
    if num_long:
        print(f"{path.name}: {num_long} of {num_all} pairs over-long, dropped", flush=True)
    return pairs, num_long


def _with_own_seed(config: RewardModelConfig) -> RewardModelConfig:
    """Two models from the same pipeline seed must not share their chance."""
    seed = config.seed + config.seed_offset
    return type(config).model_validate(config.model_dump() | {"seed": seed})


def _classifier(
    base: Path, tokenizer: PreTrainedTokenizerBase, config: RewardModelConfig
) -> PreTrainedModel:
    architecture = classifier_class(AutoConfig.from_pretrained(base, trust_remote_code=False))
    model: PreTrainedModel = architecture.from_pretrained(base, num_labels=1, dtype=torch.float32)
    model.config.pad_token_id = padding_id(tokenizer)
    torch.nn.init.normal_(
        model.score.weight,
        std=(model.config.get_text_config().hidden_size + 1) ** -0.5,
        generator=torch.Generator().manual_seed(config.seed),
    )
    return model


def _as_dataset(pairs: Sequence[Pair], use_margin: bool) -> Dataset:
    rows = [
        {"chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids}
        | ({"margin": pair.margin} if use_margin else {})
        for pair in pairs
    ]
    return Dataset.from_list(rows)


def _sft_samples(
    config: RewardModelConfig,
    inputs: RewardModelInputs,
    compute: Compute,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[list[Prompt], list[str]]:
    """Prompts and the SFT model's own replies to them, within ``max_length`` tokens."""
    rows = list(read_jsonl(inputs.prompts.locate() / "train.jsonl"))
    random.Random(config.seed).shuffle(rows)
    encoded = [(row["prompt"], encode_prompt(tokenizer, row["prompt"])) for row in rows]
    longest = config.max_length - config.max_completion_length - 1
    fitting = [(prompt, ids) for prompt, ids in encoded if len(ids) <= longest]
    if not fitting:
        raise UserError(
            f"no prompt has at most {longest} tokens ({config.stage}.max_length less "
            f"max_completion_length and EOS); raise {config.stage}.max_length"
        )
    fitting = fitting[: config.num_statistics_samples]
    replies = generate(
        load_model(inputs.model.locate(), pick_device(compute)),
        [ids for _, ids in fitting],
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=padding_id(tokenizer),
        temperature=1.0,
        uniforms=torch.rand(
            len(fitting),
            config.max_completion_length,
            generator=torch.Generator().manual_seed(config.seed),
        ),
        batch_size=SAMPLE_BATCH_SIZE,
    )
    texts = [decode_completion(tokenizer, reply) for reply in replies.ids]
    samples = [
        (prompt, text)
        for (prompt, ids), text in zip(fitting, texts, strict=True)
        # Encoded anew, a reply may take more tokens than were sampled.
        if len(ids) + len(encode_completion(tokenizer, text)) <= config.max_length
    ]
    return [prompt for prompt, _ in samples], [text for _, text in samples]


@torch.no_grad()
def _classifier_scores(
    classifier: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    completions: Sequence[str],
) -> list[float]:
    """Scores by transformers' own classification head, which ``RewardModel`` must reproduce."""
    scores: list[float] = []
    for prompt, completion in zip(prompts, completions, strict=True):
        ids = encode_prompt(tokenizer, prompt) + encode_completion(tokenizer, completion)
        with autocast(classifier.device):
            logits = classifier(input_ids=torch.tensor([ids], device=classifier.device)).logits
        scores.append(float(logits[0, 0]))
    return scores


def _probes(
    classifier: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Sequence[Pair],
    prompts: Sequence[Prompt],
    samples: Sequence[str],
) -> list[Probe]:
    texts: list[tuple[Prompt, str]] = [
        *((pair.prompt, text) for pair in held_out[:2] for text in (pair.chosen, pair.rejected)),
        *zip(prompts, samples, strict=True),
    ][:NUM_PROBES]
    scores = _classifier_scores(
        classifier, tokenizer, [prompt for prompt, _ in texts], [text for _, text in texts]
    )
    return [
        Probe(prompt=prompt, completion=text, score=score)
        for (prompt, text), score in zip(texts, scores, strict=True)
    ]


def _accuracy(
    reward_model: RewardModel, held_out: Sequence[Pair], out_dir: Path
) -> dict[str, float]:
    """Share of held-out pairs in which the chosen reply scores higher, beside the share in which
    it is longer (in tokens, ties count half)."""
    prompts = [pair.prompt for pair in held_out]
    chosen = reward_model.score(prompts, [pair.chosen for pair in held_out])
    rejected = reward_model.score(prompts, [pair.rejected for pair in held_out])
    correct = [a > b for a, b in zip(chosen, rejected, strict=True)]
    differences = [len(pair.chosen_ids) - len(pair.rejected_ids) for pair in held_out]
    longer = [0.5 if difference == 0 else float(difference > 0) for difference in differences]
    tracking.log_figure(_histogram(chosen, rejected), "held_out_scores", out_dir)
    return {
        "accuracy": statistics.mean(correct),
        "length_baseline_accuracy": statistics.mean(longer),
        "mean_margin": statistics.mean(a - b for a, b in zip(chosen, rejected, strict=True)),
    }


def _histogram(chosen: Sequence[float], rejected: Sequence[float]) -> Figure:
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    axes.hist(chosen, bins=30, label="chosen", color="#0072b2", alpha=0.6)
    axes.hist(rejected, bins=30, label="rejected", color="#d55e00", alpha=0.6)
    axes.set(xlabel="reward-model score", ylabel="held-out replies", title="Held-out pairs")
    axes.legend()
    return figure
