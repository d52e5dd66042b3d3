"""Judgments, made of what a test is about."""

import datetime
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from stages.core.feedback.judgments import Judgment
from stages.core.feedback.pairs import CandidatePair, pair_id

BEGAN = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)


@pytest.fixture
def judge() -> Callable[..., Judgment]:
    """A function (annotator, verdict, prompt, replies, facts of the pair or the judgment) whose
    judgments are an hour apart. Reply A is "x" and B is "y" by default."""
    numbers = itertools.count(1)

    def make(
        annotator: str = "anna",
        verdict: str = "a",
        prompt: Any = "q",
        replies: tuple[str, str] = ("x", "y"),
        *,
        purpose: str = "chosen",
        expected: str | None = None,
        kind: str = "human",
        **facts: Any,
    ) -> Judgment:
        number = next(numbers)
        pair = {"prompt": prompt, "reply_a": replies[0], "reply_b": replies[1]}
        known = {"purpose": purpose, "expected": expected}
        defaults = {
            "judgment_id": f"a-{number:03}",
            "trace_id": f"tr-{number:03}",
            "queue": "",
            "created_at": BEGAN + datetime.timedelta(hours=number),
        }
        return Judgment(
            pair=CandidatePair(pair_id=pair_id(prompt, *replies), **pair, **known),
            verdict=verdict,
            annotator=annotator,
            annotator_kind=kind,
            **defaults | facts,
        )

    return make
