"""From the judge's words to a verdict and its reason."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from stages.core.feedback.pairs import CandidatePair, Verdict
from stages.core.judge import Judgements
from stages.core.judge.pairwise import parse_verdict

VERDICTS: dict[float, Verdict] = {1.0: "a", 0.5: "tie", 0.0: "b"}
THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
"""What some models write before their answer."""
MAX_REASON_CHARACTERS = 1000


class JudgedPair(NamedTuple):
    """A pair with a verdict in both orders."""

    pair: CandidatePair
    verdict: Verdict
    reason: str
    answers: tuple[str, str]
    """The judge's words with reply A shown first, and with reply B; empty for equal replies."""

    def row(self) -> dict[str, Any]:
        """As ``judgments.jsonl`` has it."""
        return {
            "pair_id": self.pair.pair_id,
            "verdict": self.verdict,
            "reason": self.reason,
            "answers": [_encodable(answer) for answer in self.answers],
        }


def judged_pairs(pairs: Sequence[CandidatePair], found: Judgements) -> list[JudgedPair]:
    """The pairs that have an outcome, in their order."""
    return [
        JudgedPair(pairs[index], VERDICTS[outcome], reason(answers), answers)
        for index, outcome, answers in zip(
            found.indices, found.outcomes, found.answers, strict=True
        )
        if outcome is not None
    ]


def reason(answers: tuple[str, str]) -> str:
    """Why the judge decided so, from its words with reply A first and with reply B first. What it
    calls reply A in the first of the two is the pair's reply A."""
    straight, turned = answers
    if not straight:
        return "Both replies are equal."
    first, second = parse_verdict(straight), parse_verdict(turned)
    if first is not None and second is not None and first != 1 - second:
        return _cut(
            f"It contradicts itself. In this order: {_explanation(straight)} "
            f"In the other order: {_explanation(turned)}"
        )
    return _cut(_explanation(straight))


# ------------------------------------------------------------------------------------ helpers


def _explanation(answer: str) -> str:
    """The answer in one line, without thoughts and the verdict."""
    lines = THOUGHTS.sub("", answer).strip().splitlines()
    return " ".join(" ".join(lines[:-1]).split())


def _cut(text: str) -> str:
    text = _encodable(text)
    too_long = len(text) > MAX_REASON_CHARACTERS
    return text[: MAX_REASON_CHARACTERS - 1] + "…" if too_long else text


def _encodable(text: str) -> str:
    """Without lone surrogates, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()
