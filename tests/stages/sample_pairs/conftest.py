"""Pairs made up for the tests of their choice."""

from collections.abc import Callable
from typing import Any

import pytest

from stages.core.feedback.pairs import CandidatePair, pair_id


def _make_pair(prompt: Any = "Where is the bakery?", a: str = "Here.", b: str = "There.", **fields):
    return CandidatePair(
        pair_id=pair_id(prompt, a, b), prompt=prompt, reply_a=a, reply_b=b, **fields
    )


@pytest.fixture(scope="session")
def make_pair() -> Callable[..., CandidatePair]:
    """A function (prompt, reply A, reply B, field=…) that makes up a pair."""
    return _make_pair
