"""Intervals, win rates and diversity against values worked out by hand and by simulation."""

import math

import numpy as np
import pytest

from stages.core.statistics import (
    accuracy,
    bootstrap_mean,
    distinct_n,
    paired_difference,
    win_outcomes,
    win_rate,
)

DRAW = {"num_samples": 1000, "seed": 0}


def test_bootstrap_of_two_values_has_the_exact_interval() -> None:
    # The resampled means of (0, 1) are 0, 1/2, 1 with chances 1/4, 1/2, 1/4.
    assert bootstrap_mean([0.0, 1.0], **DRAW) == (0.5, 0.0, 1.0)


def test_bootstrap_of_equal_values_is_a_point() -> None:
    assert bootstrap_mean([0.25] * 7, **DRAW) == (0.25, 0.25, 0.25)


def test_bootstrap_agrees_with_the_normal_interval_for_many_values() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 2000)
    value, low, high = bootstrap_mean(values, num_samples=4000, seed=0)
    half_width = 1.96 * values.std() / math.sqrt(len(values))
    assert value == pytest.approx(values.mean())
    assert low == pytest.approx(value - half_width, abs=0.01)
    assert high == pytest.approx(value + half_width, abs=0.01)


def test_bootstrap_is_seeded() -> None:
    values = np.random.default_rng(1).normal(size=50)
    assert bootstrap_mean(values, **DRAW) == bootstrap_mean(values, **DRAW)
    assert bootstrap_mean(values, **DRAW) != bootstrap_mean(values, num_samples=1000, seed=1)


def test_bootstrap_in_several_parts_draws_every_resample(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(size=50)
    monkeypatch.setattr("stages.core.statistics.MAX_RESAMPLED_CELLS", 170)
    _, low, high = bootstrap_mean(values, **DRAW)
    assert low < values.mean() < high


@pytest.mark.parametrize("skewed", [False, True])
def test_bootstrap_interval_covers_the_true_mean_as_often_as_it_says(skewed: bool) -> None:
    rng = np.random.default_rng(2)
    num_trials, covered = 400, 0
    for trial in range(num_trials):
        values = rng.exponential(1.0, 100) if skewed else rng.normal(1.0, 1.0, 100)
        _, low, high = bootstrap_mean(values, num_samples=500, seed=trial)
        covered += low <= 1.0 <= high
    # 95 % less the bootstrap's known shortfall at 100 values, and three standard errors.
    assert 0.90 <= covered / num_trials <= 0.98


def test_paired_difference_ignores_what_both_sides_share() -> None:
    prompt_effect = np.random.default_rng(3).normal(0, 100, 40)
    value, low, high = paired_difference(prompt_effect + 1, prompt_effect, **DRAW)
    assert (value, low, high) == pytest.approx((1.0, 1.0, 1.0))


def test_ties_count_half() -> None:
    assert win_outcomes([1, 2, 3], [0, 2, 4]).tolist() == [1.0, 0.5, 0.0]
    assert win_rate([1, 2, 3, 9], [0, 2, 4, 0], **DRAW).value == 0.625


def test_win_rate_of_certain_winner() -> None:
    assert win_rate([1, 1, 1], [0, 0, 0], **DRAW) == (1.0, 1.0, 1.0)


def test_accuracy_has_wilsons_interval() -> None:
    # 8 of 10: Wilson's 95 % interval is 0.4902 to 0.9433 (Agresti & Coull 1998).
    chosen, rejected = [1.0] * 8 + [0.0] * 2, [0.0] * 8 + [1.0] * 2
    assert accuracy(chosen, rejected) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)


def test_accuracy_keeps_an_interval_at_the_ends() -> None:
    value, low, high = accuracy([1.0] * 10, [0.0] * 10)
    assert (value, high) == pytest.approx((1.0, 1.0))
    assert low == pytest.approx(0.7225, abs=1e-4)


def test_distinct_n() -> None:
    assert distinct_n(["a b a", "A b"], 1) == pytest.approx(2 / 5)
    assert distinct_n(["a b a", "A b"], 2) == pytest.approx(2 / 3)
    assert distinct_n(["a", ""], 2) == 0.0


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "one or more"), ([1.0, math.nan], "value 1 is not"), ([[1.0]], "shape")],
)
def test_unusable_values_are_refused(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values, **DRAW)


def test_sides_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 1"):
        paired_difference([1, 2], [1], **DRAW)
