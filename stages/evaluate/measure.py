"""Let the three models answer, and measure replies, predictions and the reward model.

Models are in memory one at a time, the SFT model last: it also rates the other models' replies,
which gives their KL to it.
"""

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedTokenizerBase

from stages.core import tracking
from stages.core.chat import Prompt, decode_completion, encode_prompt
from stages.core.config import Compute, EvaluateConfig
from stages.core.contracts import EvaluateInputs
from stages.core.errors import UserError
from stages.core.generation import generate
from stages.core.models import (
    check_same_tokenizer,
    load_model,
    load_tokenizer,
    padding_id,
    pick_device,
    tokenizer_digest,
)
from stages.core.scoring import RewardModel, Scorer, load_reward_model
from stages.evaluate import held_out
from stages.evaluate.comparison import MODELS, REWARD_MODEL, Measurements, PairScores, Replies
from stages.evaluate.data import held_out_rows, read_history
from stages.evaluate.held_out import Encoded, encode_demonstrations, encode_documents

REPLIES_AT_ONCE = 32
"""Replies sampled together. Not the micro batch: which random numbers a reply gets depends on the
batch, and one configuration should give the same replies on every machine."""
SCORES_AT_ONCE = 64
"""Scored replies between two progress events."""
SAMPLING_STEPS = 8
"""A sampled reply takes about as long as this many scored ones; for the time left."""
RATINGS = 5
"""Passes over all replies for KL: each model over its own, the SFT model over the others' too."""
ORDER = ("base", "policy", "sft")


@dataclass(frozen=True)
class Task:
    """What every model is asked, encoded once with the SFT model's tokenizer."""

    tokenizer: PreTrainedTokenizerBase
    prompts: list[Prompt]
    prompt_ids: list[list[int]]
    documents: Encoded
    num_bytes: int
    demonstrations: Encoded


@dataclass
class Progress:
    """Steps done of all steps, told to the flow."""

    total: int
    done: int = 0
    doing: str = ""

    def advance(self, count: int) -> None:
        self.done += count
        tracking.report_progress(self.done, self.total, doing=self.doing)


@dataclass(frozen=True)
class Answers:
    """What one model gave."""

    replies: list[list[int]]
    """Token ids, EOS at the end of replies that the model ended itself."""
    logprobs: dict[str, list[torch.Tensor]]
    """By the name of the model that sampled them: log-probabilities of the replies' tokens under
    this model, at the sampling temperature."""
    bits_per_byte: float | None
    sft_loss: float | None


def measure(
    config: EvaluateConfig,
    inputs: EvaluateInputs,
    compute: Compute,
    scorers: Mapping[str, Scorer],
) -> Measurements:
    """Everything that the report needs, before averaging.

    Raises:
        UserError: no held-out prompts, tokenizers that differ, a scorer that fails, a reward model
            that does not fit the SFT model.
    """
    folders = {name: getattr(inputs, name).locate() for name in MODELS}
    tokenizer = load_tokenizer(folders["sft"])
    for name in ("base", "policy"):
        digest = tokenizer_digest(load_tokenizer(folders[name]))
        check_same_tokenizer(tokenizer, digest, f"the {name} model {folders[name]}")
    history = read_history(inputs.history)
    task = _prepare(config, inputs, tokenizer, folders["sft"])
    pairs = held_out_rows(inputs.datasets.preferences, config.max_held_out_records, config.seed)
    num_predicted = len(task.documents.targets) + len(task.demonstrations.targets)
    num_rated = len(task.prompts) * (3 * SAMPLING_STEPS + RATINGS + 3)
    progress = Progress(3 * num_predicted + num_rated + 2 * len(pairs))

    answers: dict[str, Answers] = {}
    for name in ORDER:
        others = {other: answers[other].replies for other in answers} if name == "sft" else {}
        answers[name] = _ask(name, folders[name], others, task, config, compute, progress)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    texts = {
        name: [decode_completion(tokenizer, ids) for ids in answers[name].replies]
        for name in MODELS
    }
    scores: dict[str, dict[str, list[float]]] = {name: {} for name in MODELS}
    reward_model = load_reward_model(
        inputs.reward_model.locate(), folders["sft"], pick_device(compute)
    )
    for name in MODELS:
        progress.doing = f"reward model scores {name}"
        scores[name][REWARD_MODEL] = _score(reward_model, task.prompts, texts[name], progress)
    progress.doing = "reward model on held-out pairs"
    pair_scores = _score_pairs(reward_model, pairs, progress) if pairs else None
    for scorer, score in scorers.items():
        for name in MODELS:
            scores[name][scorer] = score(task.prompts, texts[name])
    return Measurements(
        prompts=task.prompts,
        replies={
            name: Replies(
                texts[name],
                [len(ids) - (ids[-1] == tokenizer.eos_token_id) for ids in answers[name].replies],
                [ids[-1] == tokenizer.eos_token_id for ids in answers[name].replies],
                _kl(answers[name].logprobs[name], answers["sft"].logprobs[name]),
                scores[name],
            )
            for name in MODELS
        },
        score_mean=reward_model.score_mean,
        score_std=reward_model.score_std,
        scorers=tuple(scorers),
        bits_per_byte=_present({name: answers[name].bits_per_byte for name in MODELS}),
        num_bytes=task.num_bytes,
        sft_loss=_present({name: answers[name].sft_loss for name in MODELS}),
        num_demonstrations=len(task.demonstrations.targets),
        pairs=pair_scores,
        history=history,
    )


def _prepare(
    config: EvaluateConfig,
    inputs: EvaluateInputs,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
) -> Task:
    """Choose and encode the held-out records; prompts and demonstrations too long for the model are
    left out."""
    datasets, limit, seed = inputs.datasets, config.max_held_out_records, config.seed
    model_config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    positions = getattr(model_config, "max_position_embeddings", None)
    max_length = int(positions or 2**31)
    rows = held_out_rows(datasets.prompts, config.num_prompts, seed)
    encoded = [(row["prompt"], encode_prompt(tokenizer, row["prompt"])) for row in rows]
    room = max_length - config.max_completion_length
    fitting = [(prompt, ids) for prompt, ids in encoded if len(ids) <= room]
    if not fitting:
        raise UserError(
            f"evaluate: none of {len(rows)} held-out prompts leaves room for a reply of "
            f"{config.max_completion_length} tokens within the model's {max_length}; "
            "give held-out prompts (collect.prompts) or lower evaluate.max_completion_length"
        )
    if len(fitting) < len(rows):
        print(f"{len(rows) - len(fitting)} of {len(rows)} prompts are too long and left out")
    texts = [row["text"] for row in held_out_rows(datasets.documents, limit, seed)]
    documents, num_bytes = encode_documents(tokenizer, texts, min(max_length, held_out.MAX_CONTEXT))
    rows = held_out_rows(datasets.sft, limit, seed)
    demonstrations = [(row["prompt"], row["completion"]) for row in rows]
    return Task(
        tokenizer=tokenizer,
        prompts=[prompt for prompt, _ in fitting],
        prompt_ids=[ids for _, ids in fitting],
        documents=documents,
        num_bytes=num_bytes,
        demonstrations=encode_demonstrations(
            tokenizer, demonstrations, min(max_length, held_out.MAX_CONTEXT)
        ),
    )


def _ask(
    name: str,
    folder: Path,
    others: Mapping[str, list[list[int]]],
    task: Task,
    config: EvaluateConfig,
    compute: Compute,
    progress: Progress,
) -> Answers:
    """Load one model, let it predict, reply, and rate its own and the ``others``' replies."""
    model = load_model(folder, pick_device(compute))
    pad_token_id = padding_id(task.tokenizer)

    def logprobs(encoded: Encoded, temperature: float) -> list[torch.Tensor]:
        return held_out.logprobs(
            model,
            encoded,
            temperature=temperature,
            micro_batch_size=compute.micro_batch_size,
            pad_token_id=pad_token_id,
            advance=progress.advance,
        )

    progress.doing = f"{name} predicts held-out text"
    documents = logprobs(task.documents, 1.0)
    demonstrations = logprobs(task.demonstrations, 1.0)
    progress.doing = f"{name} replies"
    before = progress.done
    replies = generate(
        model,
        task.prompt_ids,
        eos_token_id=task.tokenizer.eos_token_id,
        pad_token_id=pad_token_id,
        temperature=config.temperature,
        uniforms=torch.rand(
            len(task.prompt_ids),
            config.max_completion_length,
            generator=torch.Generator().manual_seed(config.seed),
        ),
        batch_size=REPLIES_AT_ONCE,
        on_batch=lambda count: progress.advance(before + SAMPLING_STEPS * count - progress.done),
    ).ids
    progress.doing = f"{name} rates replies"
    rated = {name: replies, **others}
    return Answers(
        replies,
        {
            sampler: logprobs(Encoded(task.prompt_ids, ids), config.temperature)
            for sampler, ids in rated.items()
        },
        held_out.bits_per_byte(documents, task.num_bytes) if task.num_bytes else None,
        held_out.loss_per_token(demonstrations) if demonstrations else None,
    )


def _score(
    reward_model: RewardModel, prompts: list[Prompt], texts: list[str], progress: Progress
) -> list[float]:
    scores: list[float] = []
    for start in range(0, len(prompts), SCORES_AT_ONCE):
        part = slice(start, start + SCORES_AT_ONCE)
        scores += reward_model.score(prompts[part], texts[part])
        progress.advance(len(scores) - start)
    return scores


def _score_pairs(
    reward_model: RewardModel, pairs: list[dict[str, Any]], progress: Progress
) -> PairScores:
    prompts = [pair["prompt"] for pair in pairs]
    chosen = [pair["chosen"] for pair in pairs]
    rejected = [pair["rejected"] for pair in pairs]
    return PairScores(
        _score(reward_model, prompts, chosen, progress),
        _score(reward_model, prompts, rejected, progress),
        list(map(len, chosen)),
        list(map(len, rejected)),
    )


def _kl(model: list[torch.Tensor], sft: list[torch.Tensor]) -> list[float]:
    """Sum over each reply's tokens of log p_model - log p_sft, nats: over replies of the model an
    unbiased estimate of its KL divergence from the SFT model."""
    return [
        (own.double() - other.double()).sum().item() for own, other in zip(model, sft, strict=True)
    ]


def _present(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
