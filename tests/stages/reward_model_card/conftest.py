"""Judged pairs made up for the tests of the card."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from stages.reward_model_card.pairs import Judged, Sides


def _make_judged(margins: Sequence[float], **changes: Any) -> Judged:
    """Pairs with these score differences, all replies equally long, each with its own prompt."""
    count = len(margins)
    rejected = np.zeros(count)
    given: dict[str, Any] = {
        "prompts": [f"What is {n}?" for n in range(count)],
        "chosen": [f"chosen {n}" for n in range(count)],
        "rejected": [f"rejected {n}" for n in range(count)],
        "sources": [""] * count,
        "lengths": Sides(np.full(count, 9.0), np.full(count, 9.0)),
        "scores": Sides(rejected + margins, rejected),
        "guard": None,
        "previous": None,
        "why_no_previous": "",
        "words": None,
        "num_training_pairs": 100,
        "max_length": 128,
        "num_over_length": 0,
    }
    return Judged(**given | changes)


@pytest.fixture(scope="session")
def make_judged() -> Callable[..., Judged]:
    """A function (score differences, field=…) that makes up judged pairs."""
    return _make_judged


@pytest.fixture(scope="session")
def many_judged() -> Judged:
    """200 pairs of a good judge, with everything that a card can show."""
    rng = np.random.default_rng(0)
    quality = rng.normal(0.8, 1.0, 200)
    guard = quality + rng.normal(0, 0.5, 200)
    return _make_judged(
        quality,
        sources=["town", "harbour"] * 100,
        lengths=Sides(
            rng.integers(3, 40, 200).astype(float), rng.integers(3, 40, 200).astype(float)
        ),
        guard=Sides(guard, np.zeros(200)),
        words=rng.normal(0.2, 1.0, 200),
        num_over_length=3,
    )
