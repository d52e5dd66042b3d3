"""Intervals, win rates and diversity against values worked out by hand and by simulation."""

import math

import numpy as np
import pytest

from stages.core.statistics import (
    accuracy,
    bootstrap,
    bootstrap_mean,
    brier_score,
    calibration_bins,
    calibration_error_by_chance,
    distinct_n,
    expected_calibration_error,
    mean_of_group_means,
    paired_difference,
    repetition_rate,
    share,
    signed_rank_correlation,
    win_outcomes,
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


def test_clusters_are_resampled_whole() -> None:
    # Two clusters, all 0 and all 1: their resampled means are 0, 1/2, 1, however many values.
    values, clusters = [0.0] * 50 + [1.0] * 50, [7] * 50 + [3] * 50
    assert bootstrap_mean(values, clusters=clusters, **DRAW) == (0.5, 0.0, 1.0)


def test_clusters_of_different_sizes_count_by_their_values() -> None:
    # Cluster 0 has three zeros, cluster 1 a one: drawn once each the mean is 1/4.
    value, low, high = bootstrap_mean([0, 0, 0, 1], clusters=[0, 0, 0, 1], **DRAW)
    assert (value, low, high) == (0.25, 0.0, 1.0)


def test_clusters_of_one_value_change_nothing() -> None:
    values = np.random.default_rng(1).normal(size=50)
    alone = bootstrap_mean(values, clusters=np.arange(50), **DRAW)
    assert alone == pytest.approx(bootstrap_mean(values, **DRAW))


@pytest.mark.parametrize("clustered", [False, True])
def test_interval_of_dependent_values_covers_the_true_mean_only_with_clusters(
    clustered: bool,
) -> None:
    rng = np.random.default_rng(4)
    clusters = np.repeat(np.arange(60), 5)
    num_trials, covered = 300, 0
    for trial in range(num_trials):
        values = np.repeat(rng.normal(1.0, 1.0, 60), 5) + rng.normal(0.0, 0.3, 300)
        _, low, high = bootstrap_mean(
            values, num_samples=400, seed=trial, clusters=clusters if clustered else None
        )
        covered += low <= 1.0 <= high
    assert covered / num_trials == pytest.approx(0.94 if clustered else 0.60, abs=0.08)


def test_groups_count_alike_whatever_their_size() -> None:
    estimate = mean_of_group_means([[1.0] * 99, [0.0]], **DRAW)
    assert estimate == (0.5, 0.5, 0.5)
    wide = mean_of_group_means([[0.0, 1.0], [1.0]], **DRAW)
    assert wide == (0.75, 0.5, 1.0)


def test_groups_have_clusters_of_their_own() -> None:
    groups = [[0.0, 0.0, 1.0, 1.0], [1.0, 1.0]]
    estimate = mean_of_group_means(groups, clusters=[[5, 5, 9, 9], [5, 9]], **DRAW)
    assert estimate == (0.75, 0.5, 1.0)


def test_bootstrap_of_any_statistic_agrees_with_that_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(size=80)
    ours = bootstrap(lambda indices: float(values[indices].mean()), np.arange(80), **DRAW)
    assert ours == pytest.approx(bootstrap_mean(values, **DRAW), abs=0.03)
    clusters = np.repeat(["a", "b"], 40)
    whole = bootstrap(lambda indices: float(np.mean(indices >= 40)), clusters, **DRAW)
    assert whole == (0.5, 0.0, 1.0)


def test_paired_difference_ignores_what_both_sides_share() -> None:
    prompt_effect = np.random.default_rng(3).normal(0, 100, 40)
    value, low, high = paired_difference(prompt_effect + 1, prompt_effect, **DRAW)
    assert (value, low, high) == pytest.approx((1.0, 1.0, 1.0))


def test_ties_count_half() -> None:
    assert win_outcomes([1, 2, 3], [0, 2, 4]).tolist() == [1.0, 0.5, 0.0]
    assert share(win_outcomes([1, 2, 3, 9], [0, 2, 4, 0])).value == 0.625


def test_accuracy_has_wilsons_interval() -> None:
    # 8 of 10: Wilson's 95 % interval is 0.4902 to 0.9433 (Agresti & Coull 1998).
    chosen, rejected = [1.0] * 8 + [0.0] * 2, [0.0] * 8 + [1.0] * 2
    assert accuracy(chosen, rejected) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)


def test_accuracy_keeps_an_interval_at_the_ends() -> None:
    value, low, high = accuracy([1.0] * 10, [0.0] * 10)
    assert (value, high) == pytest.approx((1.0, 1.0))
    assert low == pytest.approx(0.7225, abs=1e-4)


def test_shares_have_wilsons_interval_with_ties_too() -> None:
    assert share([1.0] * 8 + [0.0] * 2) == accuracy([1.0] * 8 + [0.0] * 2, [0.0] * 8 + [1.0] * 2)
    assert share([0.5, 0.5]).value == 0.5


def test_signed_rank_correlation_by_hand() -> None:
    # Signed ranks of (1, -2, 3) among them and their negatives: ±0.5, ±1.5, ±2.5.
    assert signed_rank_correlation([1, -2, 3], [10, -20, 30]) == pytest.approx(1.0)
    assert signed_rank_correlation([1, -2, 3], [-10, 20, -30]) == pytest.approx(-1.0)
    # (0.5, -1.5, 2.5) with (2.5, 1.5, 0.5): 0.25 of 8.75.
    assert signed_rank_correlation([1, -2, 3], [3, 2, 1]) == pytest.approx(0.25 / 8.75)


def test_signed_rank_correlation_does_not_depend_on_which_side_comes_first() -> None:
    rng = np.random.default_rng(5)
    first, second, signs = rng.normal(size=30), rng.normal(size=30), rng.choice([-1, 1], 30)
    assert signed_rank_correlation(first * signs, second * signs) == pytest.approx(
        signed_rank_correlation(first, second)
    )


def test_signed_rank_correlation_without_any_difference_is_nought() -> None:
    assert signed_rank_correlation([0, 0], [1, 2]) == 0.0


EDGES = (0.5, 0.75, 1.0)
CONFIDENCES, CAME_TRUE = [0.5, 0.7, 0.75, 0.9, 1.0], [1, 0, 0.5, 1, 1]


def test_calibration_bins_by_hand() -> None:
    low, high = calibration_bins(CONFIDENCES, CAME_TRUE, EDGES)
    assert (low.low, low.high, low.size) == (0.5, 0.75, 3)
    assert (low.confidence, low.outcome.value) == pytest.approx((0.65, 0.5))
    assert (high.low, high.high, high.size) == (0.75, 1.0, 2)
    assert (high.confidence, high.outcome.value) == pytest.approx((0.95, 1.0))


def test_calibration_bins_without_predictions_are_left_out() -> None:
    (only,) = calibration_bins([0.9], [1], EDGES)
    assert (only.low, only.size) == (0.75, 1)


def test_expected_calibration_error_by_hand() -> None:
    # (3 x |0.5 - 0.65| + 2 x |1 - 0.95|) / 5
    bins = calibration_bins(CONFIDENCES, CAME_TRUE, EDGES)
    assert expected_calibration_error(bins) == pytest.approx(0.11)


def test_chance_alone_makes_a_calibration_error_that_falls_with_the_square_root() -> None:
    few = calibration_error_by_chance([0.75] * 25, (0.5, 1.0), num_samples=4000, seed=0)
    many = calibration_error_by_chance([0.75] * 2500, (0.5, 1.0), num_samples=4000, seed=0)
    # Mean absolute deviation of a binomial share: sqrt(2 / pi x 0.75 x 0.25 / N).
    assert few == pytest.approx(math.sqrt(2 / math.pi * 0.1875 / 25), rel=0.05)
    assert many == pytest.approx(few / 10, rel=0.05)


def test_brier_score_by_hand() -> None:
    assert brier_score([0.8, 0.4, 1.0], [1, 1, 0], **DRAW).value == pytest.approx(1.4 / 3)
    assert brier_score([0.5] * 4, [1, 0, 0, 1], **DRAW) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 66])
@pytest.mark.parametrize("outcome", [0.0, 0.1, 1.0])
def test_an_interval_holds_its_figure(count: int, outcome: float) -> None:
    outcomes = [outcome] * count
    for found in (share(outcomes), bootstrap_mean(outcomes, **DRAW)):
        assert found.low <= found.value <= found.high


def test_distinct_n() -> None:
    assert distinct_n(["a b a", "A b"], 1) == pytest.approx(2 / 5)
    assert distinct_n(["a b a", "A b"], 2) == pytest.approx(2 / 3)
    assert distinct_n(["a", ""], 2) is None


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


@pytest.mark.parametrize("num_ties", [0, 20])
def test_intervals_of_a_win_rate_cover_the_truth_as_often_as_they_say(num_ties: int) -> None:
    # Of 100 pairs, as many ties on average; the others are won with a chance of 0.7.
    rng = np.random.default_rng(4)
    chances = np.array([0.7, 0.3, 0.0]) * (1 - num_ties / 100) + (0, 0, num_ties / 100)
    truth = chances @ (1.0, 0.0, 0.5)
    num_trials, by_bootstrap, by_wilson = 400, 0, 0
    for trial in range(num_trials):
        first = rng.choice([1.0, -1.0, 0.0], 100, p=chances)
        outcomes = win_outcomes(first, np.zeros(100))
        _, low, high = bootstrap_mean(outcomes, num_samples=500, seed=trial)
        by_bootstrap += low <= truth <= high
        _, low, high = share(outcomes)
        by_wilson += low <= truth <= high
    assert 0.90 <= by_bootstrap / num_trials <= 0.98
    # With ties, Wilson's interval is wider than it need be.
    assert 0.92 <= by_wilson / num_trials <= (1.0 if num_ties else 0.98)


def test_repetition_rate() -> None:
    # Windows of four words: abab baba abab baba of which the last two occurred before.
    assert repetition_rate(["a b A b a b a"]) == pytest.approx(2 / 4)
    assert repetition_rate(["a b a", "a b c d e", "x x x x x"]) == pytest.approx((0 + 1 / 2) / 2)
    assert repetition_rate(["a b a b"], n=2) == pytest.approx(1 / 3)


def test_repetition_in_one_text_is_not_repetition_between_texts() -> None:
    assert repetition_rate(["a b c d e"] * 9) == 0.0


def test_texts_too_short_to_repeat_have_no_repetition_rate() -> None:
    assert repetition_rate(["a b c", ""]) is None
    assert repetition_rate([]) is None
