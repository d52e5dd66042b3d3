"""The headline figures against values worked out by hand, and what is left out with a reason."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from stages.core.config import RewardModelCardConfig
from stages.reward_model_card.figures import Row, flat_metrics, headline, notes, sigmoid
from stages.reward_model_card.pairs import Judged, Sides

MakeJudged = Callable[..., Judged]


def rows_of(judged: Judged) -> dict[str, Row]:
    return {row.name: row for row in headline(judged, num_samples=200, seed=0)}


def lengths(chosen: list[int], rejected: list[int]) -> Sides:
    return Sides(np.array(chosen, dtype=float), np.array(rejected, dtype=float))


def test_accuracy_counts_ties_half(make_judged: MakeJudged) -> None:
    rows = rows_of(make_judged([1.0, 2.0, 0.0, -1.0]))
    assert rows["reward_model_accuracy"].value == 2.5 / 4
    assert rows["mean_margin"].value == 0.5


def test_baselines_and_their_differences_are_of_the_same_pairs(make_judged: MakeJudged) -> None:
    judged = make_judged(
        [1.0, 1.0, 1.0, -1.0],
        lengths=lengths([9, 2, 2, 2], [1, 5, 5, 5]),
        words=np.array([1.0, 1.0, -1.0, -1.0]),
    )
    rows = rows_of(judged)
    assert rows["length_baseline_accuracy"].value == 0.25
    assert rows["reward_model_minus_length"].value == 0.5
    assert rows["bag_of_words_accuracy"].value == 0.5
    assert rows["reward_model_minus_bag_of_words"].value == 0.25


def test_length_control_gives_the_length_alone_one_half(make_judged: MakeJudged) -> None:
    sides = lengths([9, 9, 9, 2, 5], [1, 1, 1, 5, 5])
    rows = rows_of(make_judged([8.0, 8.0, 8.0, -3.0, 1.0], lengths=sides))
    assert rows["reward_model_accuracy"].value == 0.8
    assert rows["length_controlled_accuracy"].value == 0.5
    # Right in 2 of 3 longer and the only shorter one; the pair of equal length is left out.
    rows = rows_of(make_judged([8.0, 8.0, -8.0, 3.0, -1.0], lengths=sides))
    assert rows["length_controlled_accuracy"].value == pytest.approx((2 / 3 + 1) / 2)


def test_score_and_length_correlate_within_pairs(make_judged: MakeJudged) -> None:
    sides = lengths([3, 1, 6], [1, 3, 2])  # differences 2, -2, 4
    assert rows_of(make_judged([1, -1, 5], lengths=sides))[
        "score_length_correlation"
    ].value == pytest.approx(1.0)


def test_calibration_of_a_known_case(make_judged: MakeJudged) -> None:
    # sigmoid(log 4) is 0.8: right in 4 of 5 is calibrated, in 5 of 5 is 0.2 too modest.
    four = math.log(4)
    rows = rows_of(make_judged([four] * 4 + [-four]))
    assert rows["ece"].value == pytest.approx(0.0)
    assert rows["brier"].value == pytest.approx((4 * 0.04 + 0.64) / 5)
    assert rows_of(make_judged([four] * 5))["ece"].value == pytest.approx(0.2)


def test_large_differences_do_not_overflow() -> None:
    assert sigmoid(np.array([-2000.0, 0.0, 2000.0])).tolist() == [0.0, 0.5, 1.0]


def test_agreement_with_the_guard_model(make_judged: MakeJudged) -> None:
    guard = Sides(np.array([2.0, -2.0, -2.0, 0.0]), np.zeros(4))
    rows = rows_of(make_judged([1.0, 1.0, -1.0, 1.0], guard=guard))
    assert rows["guard_agreement"].value == 2.5 / 4
    assert rows["guard_model_accuracy"].value == 1.5 / 4
    assert rows["reward_model_minus_guard"].value == 1.5 / 4
    # By chance: 0.75 x 0.375 + 0.25 x 0.625.
    assert "43.8 %" in rows["guard_agreement"].explanation


def test_the_champions_accuracy_is_of_the_same_pairs(make_judged: MakeJudged) -> None:
    previous = Sides(np.array([1.0, -1.0, -2.0, 0.0]), np.zeros(4))
    rows = rows_of(make_judged([1.0, 2.0, 3.0, -1.0], previous=previous))
    assert rows["previous_accuracy"].value == 1.5 / 4
    assert rows["reward_model_minus_previous"].value == (3 - 1.5) / 4
    left_out = make_judged([1.0], why_no_previous="it belongs to another SFT model")
    assert "previous_accuracy" not in rows_of(left_out)
    assert "No comparison with the champion's reward model: it belongs to another SFT model." in (
        notes(left_out, RewardModelCardConfig())
    )


def test_pairs_of_one_prompt_widen_the_interval(make_judged: MakeJudged) -> None:
    margins = [1.0] * 20 + [-1.0] * 10
    alone = rows_of(make_judged(margins))["reward_model_accuracy"]
    prompts = [f"What is {n // 10}?" for n in range(30)]
    together = rows_of(make_judged(margins, prompts=prompts))["reward_model_accuracy"]
    assert together.value == alone.value
    assert together.low < alone.low
    # One prompt alone would have no width at all: Wilson's interval stays.
    one = rows_of(make_judged([1.0] * 3, prompts=["What?"] * 3))["reward_model_accuracy"]
    assert one.low == pytest.approx(0.4385, abs=1e-4)


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("margin", [0.0, 1.0, -3.0])
def test_no_figure_is_ever_nan(count: int, margin: float, make_judged: MakeJudged) -> None:
    judged = make_judged([margin] * count)
    metrics = flat_metrics(judged, headline(judged, num_samples=50, seed=0))
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["num_pairs"] == count


def test_what_cannot_be_computed_is_named_with_its_reason(make_judged: MakeJudged) -> None:
    judged = make_judged([0.0, 0.0])
    assert not rows_of(judged).keys() & {
        "length_controlled_accuracy", "score_length_correlation", "guard_agreement",
        "bag_of_words_accuracy",
    }  # fmt: skip
    text = " ".join(notes(judged, RewardModelCardConfig()))
    for reason in (
        "No bag of words: the training replies hold no word",
        "No length-controlled accuracy: no preferred reply is longer",
        "all pairs' replies are equally long",
        "the same score",
        "the chain has none (clean.guard_share is 0)",
    ):
        assert reason in text
    longer = make_judged([1.0], lengths=lengths([9], [1]))
    text = " ".join(notes(longer, RewardModelCardConfig()))
    assert "no preferred reply is shorter than the other" in text


def test_results_are_equal_run_by_run(many_judged: Judged) -> None:
    assert headline(many_judged, num_samples=100, seed=3) == headline(
        many_judged, num_samples=100, seed=3
    )
