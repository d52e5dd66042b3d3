"""Estimates with 95 % intervals, win rates, calibration, diversity and repetition. Pure functions
of numbers and texts.

Every function that draws at random takes a seed and gives equal results for equal arguments.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""
MAX_RESAMPLED_CELLS = 4_000_000
"""Values drawn at once by the bootstrap: 32 MB of indices."""


class Estimate(NamedTuple):
    """A figure with its 95 % interval, all in the figure's own unit."""

    value: float
    low: float
    high: float


class Unmeasured(NamedTuple):
    """In the place of a figure that cannot be computed: why, as the end of a sentence."""

    reason: str


def estimate(value: float, low: float, high: float) -> Estimate:
    """A figure with an interval that holds it: rounding, and the bias of a bootstrap, may leave an
    end on the wrong side."""
    return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)))


def bootstrap_mean(
    values: ArrayLike, *, num_samples: int, seed: int, clusters: ArrayLike | None = None
) -> Estimate:
    """Mean with the percentile bootstrap's 95 % interval (Efron & Tibshirani 1993, chapter 13).

    Args:
        values: shape (N,), N ≥ 1, any unit.
        num_samples: resamples drawn.
        clusters: labels of values that belong together (answers to one prompt), shape (N,): whole
            clusters are resampled, since their values are not independent.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    array = checked_values(values)
    means = _resampled_means(array, clusters, num_samples, np.random.default_rng(seed))
    low, high = np.percentile(means, (2.5, 97.5))
    return estimate(array.mean(), low, high)


def mean_of_group_means(
    groups: Sequence[ArrayLike],
    *,
    num_samples: int,
    seed: int,
    clusters: Sequence[ArrayLike] | None = None,
) -> Estimate:
    """Mean of the groups' means, each group counted alike however large it is, with the 95 %
    interval of a bootstrap that resamples within the groups.

    Args:
        groups: one or more of shape (N_g,), N_g ≥ 1.
        clusters: group by group as in ``bootstrap_mean``.

    Raises:
        ValueError: a group without values, or a value that is not finite.
    """
    arrays = [checked_values(group) for group in groups]
    labels: Sequence[ArrayLike | None] = clusters or [None] * len(arrays)
    rng = np.random.default_rng(seed)
    resampled = [
        _resampled_means(array, own, num_samples, rng)
        for array, own in zip(arrays, labels, strict=True)
    ]
    low, high = np.percentile(np.mean(resampled, axis=0), (2.5, 97.5))
    return estimate(float(np.mean([array.mean() for array in arrays])), low, high)


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    clusters: ArrayLike,
    *,
    num_samples: int,
    seed: int,
) -> Estimate:
    """Any statistic with the percentile bootstrap's 95 % interval.

    Args:
        statistic: of the items with the given indices, which may repeat.
        clusters: each item's label, shape (N,), as in ``bootstrap_mean``.
    """
    places = _cluster_places(clusters)
    order = np.argsort(places, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(places))[:-1])
    rng = np.random.default_rng(seed)
    values = [
        statistic(
            np.concatenate([members[one] for one in rng.integers(0, len(members), len(members))])
        )
        for _ in range(num_samples)
    ]
    low, high = np.percentile(values, (2.5, 97.5))
    return estimate(statistic(np.arange(len(places))), low, high)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    num_samples: int,
    seed: int,
    clusters: ArrayLike | None = None,
) -> Estimate:
    """Mean of ``first - second`` over the same items, with its bootstrap 95 % interval.

    Pairing takes out the variation between items (hard prompts are hard for both), so the interval
    is narrower than that of two independent means.

    Args:
        first, second: shape (N,) each, item by item.
        clusters: as in ``bootstrap_mean``.

    Raises:
        ValueError: different lengths, no values, or one that is not finite.
    """
    return bootstrap_mean(
        _difference(first, second), num_samples=num_samples, seed=seed, clusters=clusters
    )


def win_outcomes(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """1 where ``first`` is greater, 0 where ``second`` is, one half for a tie; shape (N,).

    Raises:
        ValueError: different lengths, no values, or one that is not finite.
    """
    difference = _difference(first, second)
    return np.where(difference > 0, 1.0, np.where(difference < 0, 0.0, 0.5))


def accuracy(chosen: ArrayLike, rejected: ArrayLike) -> Estimate:
    """Share of pairs whose chosen side is the greater, ties counted half, with Wilson's 95 %
    interval.

    Wilson's interval (Brown, Cai & DasGupta 2001, section 3.1.1) keeps its width at an accuracy of
    0 or 1, where the bootstrap's would shrink to a point.

    Args:
        chosen, rejected: scores or lengths, shape (N,) each, pair by pair.
    """
    return share(win_outcomes(chosen, rejected))


def share(outcomes: ArrayLike) -> Estimate:
    """Mean of outcomes between 0 and 1 with Wilson's 95 % interval, as in ``accuracy``; shape (N,).

    Raises:
        ValueError: no outcomes, or one that is not finite.
    """
    array = checked_values(outcomes)
    count, mean = len(array), float(array.mean())
    denominator = 1 + Z_95**2 / count
    centre = (mean + Z_95**2 / (2 * count)) / denominator
    half_width = Z_95 * np.sqrt(mean * (1 - mean) / count + Z_95**2 / (4 * count**2))
    half_width = float(half_width) / denominator
    return estimate(mean, max(0.0, centre - half_width), min(1.0, centre + half_width))


def signed_rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation of two differences within pairs, over both orders of each pair.

    A pair's sides have no order of their own: swapping them turns both signs. With each pair in
    both orders the ranks are the signed ranks of the absolute differences, and the correlation is
    their cosine, whichever side came first. 0 where one of the two never differs.

    Args:
        first, second: shape (N,) each, pair by pair.

    Raises:
        ValueError: different lengths, no values, or one that is not finite.
    """
    left, right = checked_values(first), checked_values(second)
    if len(left) != len(right):
        raise ValueError(f"the sides have {len(left)} and {len(right)} values")
    left, right = _signed_ranks(left), _signed_ranks(right)
    norm = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / norm if norm else 0.0


class CalibrationBin(NamedTuple):
    """Predictions of similar confidence."""

    low: float
    high: float
    size: int
    confidence: float
    """Mean over its predictions."""
    outcome: Estimate
    """Share of them that came true, with Wilson's interval."""


def calibration_bins(
    confidences: ArrayLike, outcomes: ArrayLike, edges: Sequence[float]
) -> list[CalibrationBin]:
    """Predictions by confidence, a bin between each two ``edges`` (the upper one included) that
    have any.

    Args:
        confidences: probabilities, shape (N,), all within the edges.
        outcomes: 1 where a prediction came true, 0 where not, one half for a tie; shape (N,).
    """
    confidence, outcome = checked_values(confidences), checked_values(outcomes)
    places = np.clip(np.searchsorted(edges, confidence) - 1, 0, len(edges) - 2)
    bins = []
    for place in np.unique(places):
        inside = places == place
        low, high, size = edges[place], edges[place + 1], int(inside.sum())
        mean = float(confidence[inside].mean())
        bins.append(CalibrationBin(low, high, size, mean, share(outcome[inside])))
    return bins


def expected_calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Mean distance of the bins' outcome from their confidence, by their counts (Guo et al. 2017,
    equation 3); 0 is calibrated."""
    total = sum(part.size for part in bins)
    return sum(part.size * abs(part.outcome.value - part.confidence) for part in bins) / total


def calibration_error_by_chance(
    confidences: ArrayLike, edges: Sequence[float], *, num_samples: int, seed: int
) -> float:
    """Mean ``expected_calibration_error`` of a calibrated predictor with these confidences: what is
    left of the error when each outcome is drawn with the confidence as its chance. With few
    predictions it is far from 0."""
    confidence, rng = checked_values(confidences), np.random.default_rng(seed)
    errors = [
        expected_calibration_error(
            calibration_bins(confidence, rng.random(len(confidence)) < confidence, edges)
        )
        for _ in range(num_samples)
    ]
    return float(np.mean(errors))


def brier_score(
    probabilities: ArrayLike,
    outcomes: ArrayLike,
    *,
    num_samples: int,
    seed: int,
    clusters: ArrayLike | None = None,
) -> Estimate:
    """Mean squared distance of probabilities from what came true (Brier 1950), with its bootstrap
    95 % interval; 0 is perfect, always saying one half gives one quarter.

    Args:
        probabilities, outcomes: shape (N,) each, in 0..1.
        clusters: as in ``bootstrap_mean``.

    Raises:
        ValueError: different lengths, no values, or one that is not finite.
    """
    squares = _difference(probabilities, outcomes) ** 2
    return bootstrap_mean(squares, num_samples=num_samples, seed=seed, clusters=clusters)


def distinct_n(texts: Sequence[str], n: int) -> float | None:
    """Distinct n-grams of words over all n-grams of all texts (Li et al. 2016, section 5.3), in
    0..1; low values mean that the texts repeat themselves or each other.

    Words are separated by white space and compared in lower case. Texts shorter than ``n`` words
    have no n-gram; where none has one, there is no such share.
    """
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        words = text.lower().split()
        grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else None


def _resampled_means(
    array: NDArray[np.float64],
    clusters: ArrayLike | None,
    num_samples: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Means of ``num_samples`` resamples, in parts that fit into the memory."""
    places = np.arange(len(array)) if clusters is None else _cluster_places(clusters)
    sums, sizes = np.bincount(places, weights=array), np.bincount(places)
    at_once = max(1, MAX_RESAMPLED_CELLS // len(sums))
    means = np.empty(num_samples)
    for start in range(0, num_samples, at_once):
        part = means[start : start + at_once]
        drawn = rng.integers(0, len(sums), (len(part), len(sums)))
        part[:] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means


def _cluster_places(clusters: ArrayLike) -> NDArray[np.int64]:
    """Labels as whole numbers from 0 without gaps; shape (N,)."""
    return np.unique(np.asarray(clusters), return_inverse=True)[1].astype(np.int64)


def _signed_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks among values and their negatives, centred at 0; equal values share their mean rank."""
    both = np.concatenate((values, -values))
    _, place, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place] - (len(both) + 1) / 2
    return ranks[: len(values)]


def repetition_rate(texts: Sequence[str], n: int = 4) -> float | None:
    """Share of a text's n-grams of words that occurred before in the same text, in 0..1, averaged
    over the texts (seq-rep-n of Welleck et al. 2020: one less the share of distinct n-grams); high
    values mean that replies run in circles.

    Words as in ``distinct_n``. Texts shorter than ``n`` words cannot repeat and are left out; where
    all are, there is no rate.
    """
    rates = []
    for text in texts:
        words = text.lower().split()
        grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
        if grams:
            rates.append(1 - len(set(grams)) / len(grams))
    return sum(rates) / len(rates) if rates else None


def checked_values(values: ArrayLike) -> NDArray[np.float64]:
    """The values as an array of shape (N,), N ≥ 1.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"expected one or more values, got an array of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"value {int(np.argmin(np.isfinite(array)))} is not a finite number")
    return array


def _difference(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    left, right = checked_values(first), checked_values(second)
    if len(left) != len(right):
        raise ValueError(f"the sides have {len(left)} and {len(right)} values")
    return left - right
