"""What the gate before PPO lets pass, and what it says of the rest."""

import math

import pytest

from stages.core.config import RewardModelGate
from stages.core.reward_model_gate import reward_model_refusals

GOOD = {
    "num_pairs": 400.0,
    "reward_model_accuracy": 0.72,
    "reward_model_accuracy_low": 0.674,
    "reward_model_accuracy_high": 0.762,
    "length_baseline_accuracy": 0.6,
}


def test_a_good_reward_model_passes() -> None:
    assert reward_model_refusals(RewardModelGate(), GOOD) == []


def test_low_accuracy_is_named_with_both_figures() -> None:
    gate = RewardModelGate(min_accuracy=0.75)
    assert reward_model_refusals(gate, GOOD) == [
        "it ranks 72.0 % of 400 held-out pairs as people did, less than min_accuracy = 75.0 %"
    ]


def test_an_interval_that_holds_one_half_may_be_chance() -> None:
    few = GOOD | {"num_pairs": 12.0, "reward_model_accuracy_low": 0.5}
    (reason,) = reward_model_refusals(RewardModelGate(), few)
    assert reason == (
        "its accuracy's 95 % interval on 12 held-out pairs, 50.0 % to 76.2 %, does not lie above "
        "50 %, which is chance"
    )


@pytest.mark.parametrize(("least", "refused"), [(0.0, False), (0.12, False), (0.125, True)])
def test_the_length_is_to_be_beaten(least: float, refused: bool) -> None:
    gate = RewardModelGate(min_length_advantage=least)
    metrics = GOOD | {"reward_model_accuracy": 0.75, "length_baseline_accuracy": 0.6296875}
    reasons = reward_model_refusals(gate, metrics)
    assert bool(reasons) == refused
    if refused:
        assert "always preferring the longer reply 63.0 %" in reasons[0]
        assert "an advantage of +12.0 points, less than min_length_advantage = +12.5" in reasons[0]


def test_chance_fails_on_every_count() -> None:
    chance = GOOD | {"reward_model_accuracy": 0.497, "reward_model_accuracy_low": 0.448}
    assert len(reward_model_refusals(RewardModelGate(), chance)) == 3


def test_what_is_no_number_does_not_pass() -> None:
    nothing = dict.fromkeys(GOOD, math.nan)
    assert len(reward_model_refusals(RewardModelGate(), nothing)) == 3
