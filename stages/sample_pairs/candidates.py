"""The pairs that a prompt's replies allow."""

from collections.abc import Collection, Sequence
from itertools import combinations
from typing import NamedTuple

from stages.core.chat import Prompt
from stages.core.feedback.pairs import CandidatePair, pair_id
from stages.core.schemas import normalize


class Reply(NamedTuple):
    """One model's reply to a prompt."""

    model: str
    text: str
    score: float | None = None
    """Of the reward model, in standard deviations of its scores."""
    guard_score: float | None = None
    """Of the guard model, likewise."""


def candidate_pairs(
    prompt: Prompt, replies: Sequence[Reply], known: Collection[str] = ()
) -> list[CandidatePair]:
    """The pairs of different replies to one prompt, each once: those of different models, or, where
    these have none, those of one model's samples.

    Args:
        known: ids of pairs that were asked about before.
    """
    different = list(_distinct(replies))
    pairs = [
        _pair(prompt, first, second)
        for first, second in combinations(different, 2)
        if first.model != second.model
    ] or [_pair(prompt, first, second) for first, second in combinations(different, 2)]
    return [pair for pair in pairs if pair.pair_id not in known]


def num_equal(replies: Sequence[Reply]) -> int:
    """How many of the replies say no more than another one."""
    return len(replies) - len(list(_distinct(replies)))


# ------------------------------------------------------------------------------------ helpers


def _distinct(replies: Sequence[Reply]) -> list[Reply]:
    """The replies that say something, each once: letter case and white space are no difference
    that a person should be asked about."""
    by_text: dict[str, Reply] = {}
    for reply in replies:
        if text := normalize(reply.text):
            by_text.setdefault(text, reply)
    return list(by_text.values())


def _pair(prompt: Prompt, a: Reply, b: Reply) -> CandidatePair:
    margin = _difference(a.score, b.score)
    guard_margin = _difference(a.guard_score, b.guard_score)
    both = margin is not None and guard_margin is not None
    return CandidatePair(
        pair_id=pair_id(prompt, a.text, b.text),
        prompt=prompt,
        reply_a=a.text,
        reply_b=b.text,
        model_a=a.model,
        model_b=b.model,
        margin=margin,
        disagreement=abs(margin - guard_margin) if both else None,
    )


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second
