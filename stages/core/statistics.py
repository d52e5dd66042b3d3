"""Estimates with 95 % intervals, win rates and diversity. Pure functions of numbers and texts.

Every function that draws at random takes a seed and gives equal results for equal arguments.
"""

from collections.abc import Sequence
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


def bootstrap_mean(values: ArrayLike, *, num_samples: int, seed: int) -> Estimate:
    """Mean with the percentile bootstrap's 95 % interval (Efron & Tibshirani 1993, chapter 13).

    Args:
        values: shape (N,), N ≥ 1, any unit.
        num_samples: resamples drawn.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    array = _finite(values)
    rng = np.random.default_rng(seed)
    at_once = max(1, MAX_RESAMPLED_CELLS // len(array))
    means = np.empty(num_samples)
    for start in range(0, num_samples, at_once):
        part = means[start : start + at_once]
        part[:] = array[rng.integers(0, len(array), (len(part), len(array)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Estimate(float(array.mean()), float(low), float(high))


def paired_difference(
    first: ArrayLike, second: ArrayLike, *, num_samples: int, seed: int
) -> Estimate:
    """Mean of ``first - second`` over the same items, with its bootstrap 95 % interval.

    Pairing takes out the variation between items (hard prompts are hard for both), so the interval
    is narrower than that of two independent means.

    Args:
        first, second: shape (N,) each, item by item.

    Raises:
        ValueError: different lengths, no values, or one that is not finite.
    """
    return bootstrap_mean(_difference(first, second), num_samples=num_samples, seed=seed)


def win_outcomes(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """1 where ``first`` is greater, 0 where ``second`` is, one half for a tie; shape (N,).

    Raises:
        ValueError: different lengths, no values, or one that is not finite.
    """
    difference = _difference(first, second)
    return np.where(difference > 0, 1.0, np.where(difference < 0, 0.0, 0.5))


def win_rate(first: ArrayLike, second: ArrayLike, *, num_samples: int, seed: int) -> Estimate:
    """Share of items on which ``first`` scores above ``second``, ties counted half, with its
    bootstrap 95 % interval; both of shape (N,)."""
    return bootstrap_mean(win_outcomes(first, second), num_samples=num_samples, seed=seed)


def accuracy(chosen: ArrayLike, rejected: ArrayLike) -> Estimate:
    """Share of pairs whose chosen side is the greater, ties counted half, with Wilson's 95 %
    interval.

    Wilson's interval (Brown, Cai & DasGupta 2001, section 3.1.1) keeps its width at an accuracy of
    0 or 1, where the bootstrap's would shrink to a point.

    Args:
        chosen, rejected: scores or lengths, shape (N,) each, pair by pair.
    """
    outcomes = win_outcomes(chosen, rejected)
    count, share = len(outcomes), float(outcomes.mean())
    denominator = 1 + Z_95**2 / count
    centre = (share + Z_95**2 / (2 * count)) / denominator
    half_width = Z_95 * np.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2))
    half_width = float(half_width) / denominator
    return Estimate(share, max(0.0, centre - half_width), min(1.0, centre + half_width))


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams of words over all n-grams of all texts (Li et al. 2016, section 5.3), in
    0..1; low values mean that the texts repeat themselves or each other.

    Words are separated by white space and compared in lower case. Texts shorter than ``n`` words
    have no n-gram; where none has one the result is 0.
    """
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        words = text.lower().split()
        grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else 0.0


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"expected one or more values, got an array of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"value {int(np.argmin(np.isfinite(array)))} is not a finite number")
    return array


def _difference(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    left, right = _finite(first), _finite(second)
    if len(left) != len(right):
        raise ValueError(f"the sides have {len(left)} and {len(right)} values")
    return left - right
