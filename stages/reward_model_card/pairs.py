"""The held-out pairs, and what each judge says of both their sides."""

import gc
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.core import tracking
from stages.core.chat import Prompt, encode_completion, encode_prompt
from stages.core.config import Compute, RewardModelCardConfig
from stages.core.contracts import RewardModelCardInputs
from stages.core.errors import UserError
from stages.core.models import load_tokenizer, pick_device
from stages.core.schemas import prompt_key, read_jsonl
from stages.core.scoring import RewardModel, load_reward_model, read_manifest
from stages.reward_model_card.bag_of_words import word_margins

PAIRS_AT_ONCE = 256
"""Pairs scored between two reports of progress."""
MAX_TRAINING_PAIRS = 50_000
"""Of more, the bag of words learns from this many, chosen at random: more add minutes, not
accuracy."""

Floats = NDArray[np.float64]


class Sides(NamedTuple):
    """One number for each side of each pair; shape (N,) each."""

    chosen: Floats
    rejected: Floats

    @property
    def margin(self) -> Floats:
        """How far the chosen side is ahead."""
        return self.chosen - self.rejected


@dataclass(frozen=True)
class Judged:
    """Pairs and judgements, in the same order."""

    prompts: list[Prompt]
    chosen: list[str]
    rejected: list[str]
    sources: list[str]
    """Where each pair comes from; empty where the data do not say."""
    lengths: Sides
    """Tokens of the replies, EOS included."""
    scores: Sides
    """Of the reward model, raw."""
    guard: Sides | None
    """Of the guard model, raw; none where the chain has none."""
    previous: Sides | None
    """Of the champion's reward model, raw; none where there is nothing to compare with."""
    why_no_previous: str
    """Why the champion's is left out though there is one; else empty."""
    words: Floats | None
    """Log-odds of the bag of words that people prefer the chosen side, shape (N,)."""
    num_training_pairs: int
    """Pairs that the bag of words learned from."""
    max_length: int
    """Longest prompt and reply that the reward model was trained on, tokens."""
    num_over_length: int
    """Pairs left out since a side is longer."""

    @property
    def num_pairs(self) -> int:
        return len(self.prompts)

    @cached_property
    def clusters(self) -> NDArray[np.int64]:
        """A number for each pair's prompt, shape (N,): pairs of one prompt are not independent."""
        keys = [prompt_key("preferences", {"prompt": prompt}) for prompt in self.prompts]
        return np.unique(keys, return_inverse=True)[1]


def judge(config: RewardModelCardConfig, inputs: RewardModelCardInputs, compute: Compute) -> Judged:
    """Score the held-out pairs with the reward model, the guard model and the bag of words.

    Raises:
        UserError: see ``run``.
    """
    data, base = inputs.preferences.locate(), inputs.model.locate()
    tokenizer, folder = load_tokenizer(base), inputs.reward_model.locate()
    max_length = read_manifest(folder).max_length
    everything = list(read_jsonl(data / "held_out.jsonl"))
    if not everything:
        raise UserError(
            "no held-out pairs to test the reward model on; give collect.preferences.held_out_paths"
            " or a collect.preferences.held_out_share above 0"
        )
    rows, lengths = [], []
    for row in everything:
        prompt_length = len(encode_prompt(tokenizer, row["prompt"]))
        sides = [len(encode_completion(tokenizer, row[side])) for side in ("chosen", "rejected")]
        if prompt_length + max(sides) <= max_length:
            rows.append(row)
            lengths.append(sides)
    if not rows:
        raise UserError(
            f"all {len(everything)} held-out pairs are longer than the reward model's {max_length} "
            "tokens; raise reward_model.max_length or hold out shorter pairs"
        )
    previous, why_no_previous = _previous(inputs, compute, rows)
    words, num_training_pairs = _words(data / "train.jsonl", rows, config.seed)
    return Judged(
        prompts=[row["prompt"] for row in rows],
        chosen=[row["chosen"] for row in rows],
        rejected=[row["rejected"] for row in rows],
        sources=[row.get("source") or "" for row in rows],
        lengths=Sides(*np.array(lengths, dtype=np.float64).T),
        scores=_scores(folder, base, compute, rows, "reward model"),
        guard=_scores(inputs.guard_model.locate(), base, compute, rows, "guard model")
        if inputs.guard_model
        else None,
        previous=previous,
        why_no_previous=why_no_previous,
        words=words,
        num_training_pairs=num_training_pairs,
        max_length=max_length,
        num_over_length=len(everything) - len(rows),
    )


# ------------------------------------------------------------------------------------ helpers


def _scores(
    folder: Path, base: Path, compute: Compute, rows: Sequence[dict[str, Any]], name: str
) -> Sides:
    model = load_reward_model(folder, base, pick_device(compute))
    sides = Sides(*(_side_scores(model, rows, side, name) for side in Sides._fields))
    del model
    gc.collect()  # before the next one is loaded
    return sides


def _previous(
    inputs: RewardModelCardInputs, compute: Compute, rows: Sequence[dict[str, Any]]
) -> tuple[Sides | None, str]:
    """The champion's scores, or why there are none. A comparison that fails costs the card
    nothing else."""
    if inputs.previous is None:
        return None, ""
    folder = inputs.previous.locate()
    try:
        if read_manifest(folder).base_digest != inputs.model.digest:
            return None, "it belongs to another SFT model"
        return _scores(folder, inputs.model.locate(), compute, rows, "previous reward model"), ""
    except UserError as error:
        return None, str(error)


def _side_scores(
    model: RewardModel, rows: Sequence[dict[str, Any]], side: str, name: str
) -> Floats:
    scores: list[float] = []
    for start in range(0, len(rows), PAIRS_AT_ONCE):
        part = rows[start : start + PAIRS_AT_ONCE]
        scores += model.score([row["prompt"] for row in part], [row[side] for row in part])
        tracking.report_progress(len(scores), len(rows), judge=f"{name}, {side}")
    array = np.array(scores, dtype=np.float64)
    if not np.isfinite(array).all():
        raise UserError(
            f"the {name} gives scores that are no numbers; train it again with a lower "
            "learning_rate"
        )
    return array


def _words(train: Path, rows: Sequence[dict[str, Any]], seed: int) -> tuple[Floats | None, int]:
    training = [(row["chosen"], row["rejected"]) for row in read_jsonl(train)]
    if len(training) > MAX_TRAINING_PAIRS:
        training = random.Random(seed).sample(training, MAX_TRAINING_PAIRS)
    margins = word_margins(training, [(row["chosen"], row["rejected"]) for row in rows])
    return margins, len(training)
