"""Measurements made up for the tests of the report, and the tiny models of the end-to-end test."""

import random
from collections.abc import Callable

import pytest

from stages.evaluate.comparison import Measurements, PairScores, Replies

GAIN = {"base": 0.0, "sft": 1.0, "policy": 2.0}
KL = {"base": 8.0, "sft": 0.0, "policy": 3.0}


def _make_measurements(
    *, prompt: str = "What is 1 + 1?", reply: str = "It is two.", count: int = 40
) -> Measurements:
    """Every prompt and reply the same text; scores rise from model to model with some noise."""
    rng = random.Random(0)

    def replies(name: str) -> Replies:
        return Replies(
            texts=[reply] * count,
            lengths=[rng.randint(4, 20) for _ in range(count)],
            ended=[True] * count,
            kl=[KL[name]] * count,
            scores={
                scorer: [GAIN[name] + rng.gauss(0, 0.5) for _ in range(count)]
                for scorer in ("reward_model", "oracle")
            },
        )

    return Measurements(
        prompts=[prompt] * count,
        replies={name: replies(name) for name in GAIN},
        score_mean=1.0,
        score_std=0.5,
        scorers=("oracle",),
        bits_per_byte={"base": 1.1, "sft": 1.2, "policy": 1.3},
        num_bytes=12_345,
        sft_loss={"base": 3.0, "sft": 1.5, "policy": 1.6},
        num_demonstrations=30,
        pairs=PairScores(
            chosen=[rng.gauss(1, 1) for _ in range(100)],
            rejected=[rng.gauss(-1, 1) for _ in range(100)],
            chosen_length=[rng.randint(10, 60) for _ in range(100)],
            rejected_length=[rng.randint(10, 60) for _ in range(100)],
        ),
        history=[
            {"episodes": 64.0 * n, "update": n, "score": 0.1 * n, "kl": 0.02 * n * n}
            for n in range(1, 33)
        ],
    )


@pytest.fixture(scope="session")
def make_measurements() -> Callable[..., Measurements]:
    """A function (prompt=, reply=, count=) that makes up measurements."""
    return _make_measurements
