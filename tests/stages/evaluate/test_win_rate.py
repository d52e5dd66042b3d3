"""The length-controlled win rate against scikit-learn's regression, and by simulation."""

import re

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from stages.core.statistics import Estimate, Unmeasured, bootstrap_mean
from stages.evaluate.win_rate import SLOPE_PENALTY, length_controlled_win_rate

DRAW = {"num_samples": 200, "seed": 0}


def lengths(rng, count, mean=20.0):
    """Lengths of both models' replies; the first model's are longer by ``mean`` tokens."""
    second = rng.integers(80, 120, count).astype(float)
    return second + rng.normal(mean, 30, count).round(), second


def drawn(rng, chance):
    return (rng.random(len(chance)) < chance).astype(float)


def logistic(value):
    return 1 / (1 + np.exp(-np.asarray(value)))


def with_sklearn(outcomes, first, second):
    """The same regression, ties as a win and a loss of half weight."""
    difference = first - second
    feature = np.tanh(difference / difference.std())[:, None]
    count = len(outcomes)
    model = LogisticRegression(C=1 / SLOPE_PENALTY, tol=1e-10, max_iter=10_000).fit(
        np.vstack([feature, feature]),
        np.repeat([1, 0], count),
        sample_weight=np.concatenate([outcomes, 1 - outcomes]),
    )
    return model.predict_proba([[0.0]])[0, 1]


@pytest.mark.parametrize("count", [25, 60, 400])
@pytest.mark.parametrize("slope", [0.0, 2.0, 50.0])
def test_it_is_the_regressions_prediction_at_equal_lengths(count, slope):
    rng = np.random.default_rng(count)
    first, second = lengths(rng, count, mean=5.0)
    outcomes = drawn(rng, logistic(0.5 + slope * np.tanh((first - second) / 30)))
    outcomes[:3] = 0.5
    estimate = length_controlled_win_rate(outcomes, first, second, **DRAW)
    assert estimate.value == pytest.approx(with_sklearn(outcomes, first, second), abs=1e-4)
    assert estimate.low <= estimate.value <= estimate.high


@pytest.mark.parametrize("noise", [0.0, 10.0])
def test_a_scorer_that_only_likes_length_prefers_nobody_at_equal_lengths(noise):
    rng = np.random.default_rng(0)
    values = []
    for _ in range(20):
        first, second = lengths(rng, 200)
        liked = first + rng.normal(0, noise, 200) if noise else first
        outcomes = np.where(liked > second, 1.0, np.where(liked < second, 0.0, 0.5))
        assert outcomes.mean() > 0.6
        values.append(length_controlled_win_rate(outcomes, first, second, **DRAW).value)
    assert np.mean(values) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("mean", [0.0, 20.0])
def test_quality_that_has_nothing_to_do_with_length_keeps_its_win_rate(mean):
    rng = np.random.default_rng(1)
    raw, controlled = [], []
    for _ in range(20):
        first, second = lengths(rng, 200, mean)
        outcomes = drawn(rng, np.full(200, 0.7))
        raw.append(outcomes.mean())
        controlled.append(length_controlled_win_rate(outcomes, first, second, **DRAW).value)
    assert np.mean(controlled) == pytest.approx(np.mean(raw), abs=0.02)
    assert np.mean(controlled) == pytest.approx(0.7, abs=0.03)


def test_of_quality_and_length_only_quality_remains():
    rng = np.random.default_rng(2)
    first, second = lengths(rng, 5000)
    outcomes = drawn(rng, logistic(0.8 + 2 * np.tanh((first - second) / 30)))
    assert outcomes.mean() > 0.75
    estimate = length_controlled_win_rate(outcomes, first, second, **DRAW)
    assert estimate.value == pytest.approx(logistic(0.8), abs=0.03)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(150):
        first, second = lengths(rng, 120)
        outcomes = drawn(rng, logistic(0.8 + 2 * np.tanh((first - second) / 30)))
        _, low, high = length_controlled_win_rate(
            outcomes, first, second, num_samples=200, seed=trial
        )
        covered += low <= logistic(0.8) <= high
    assert 0.87 <= covered / 150 <= 0.99


def test_swapping_the_models_gives_one_minus_the_figure():
    rng = np.random.default_rng(4)
    first, second = lengths(rng, 50)
    outcomes = rng.choice([0.0, 0.5, 1.0], 50)
    there = length_controlled_win_rate(outcomes, first, second, **DRAW)
    back = length_controlled_win_rate(1 - outcomes, second, first, **DRAW)
    assert there == pytest.approx((1 - back.value, 1 - back.high, 1 - back.low), abs=1e-5)


def test_it_is_seeded_and_the_same_in_several_parts(monkeypatch):
    rng = np.random.default_rng(5)
    first, second = lengths(rng, 50)
    outcomes = rng.choice([0.0, 0.5, 1.0], 50)
    whole = length_controlled_win_rate(outcomes, first, second, **DRAW)
    monkeypatch.setattr("stages.evaluate.win_rate.MAX_RESAMPLED_CELLS", 170)
    assert length_controlled_win_rate(outcomes, first, second, **DRAW) == whole
    assert length_controlled_win_rate(outcomes, first, second, num_samples=200, seed=1) != whole


# --------------------------------------------------------------------------- degenerate cases

NEAR = np.tile([90.0, 110.0], 10)
EQUAL = np.full(20, 100.0)


@pytest.mark.parametrize(("outcome", "rate"), [(1.0, 1.0), (0.0, 0.0), (0.5, 0.5)])
def test_all_wins_losses_or_ties_stay_what_they_are(outcome, rate):
    estimate = length_controlled_win_rate([outcome] * 20, NEAR, EQUAL, **DRAW)
    assert estimate == pytest.approx((rate, rate, rate))


def test_equal_lengths_give_the_raw_win_rate():
    first, second = np.arange(20.0), np.tile([4.0, 9.0], 10)
    outcomes = np.where(first > second, 1.0, np.where(first < second, 0.0, 0.5))
    estimate = length_controlled_win_rate(outcomes, EQUAL, EQUAL, **DRAW)
    assert estimate == bootstrap_mean(outcomes, **DRAW)
    assert length_controlled_win_rate([1.0], [5], [5], **DRAW) == Estimate(1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (EQUAL + 7, EQUAL, "the first model's reply is the longer one in all but 0 of 20 pairs"),
        (EQUAL, EQUAL + 7, "the second model's reply is the longer one in all but 0 of 20 pairs"),
        (np.r_[NEAR[:4], EQUAL[:16] + 9], EQUAL, "the first model's .* in all but 2 of 20 pairs"),
        (NEAR[:1], EQUAL[:1], "the second model's .* in all but 0 of 1 pairs"),
    ],
)
def test_lengths_that_tell_nothing_about_equal_ones_are_no_ground_for_a_figure(
    first, second, reason
):
    result = length_controlled_win_rate(np.ones(len(first)), first, second, **DRAW)
    assert isinstance(result, Unmeasured)
    assert re.match(reason, result.reason)


@pytest.mark.parametrize(
    ("outcomes", "first", "message"),
    [
        ([], [], "one or more"),
        ([1.0, 0.0], [1.0], "2 outcomes for 1"),
        ([1.5], [1.0], "not between 0 and 1"),
        ([np.nan], [1.0], "value 0 is not"),
    ],
)
def test_unusable_values_are_refused(outcomes, first, message):
    with pytest.raises(ValueError, match=message):
        length_controlled_win_rate(outcomes, first, [1.0] * len(first), **DRAW)
