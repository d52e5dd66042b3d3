"""The win rate that two models would have if their replies were equally long.

Scorers and judges like long replies, and a policy learns to write them. The length-controlled win
rate (Dubois et al. 2024, section 3) explains the wins by a logistic regression on the difference in
length, and takes the prediction at no difference.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.core.statistics import (
    MAX_RESAMPLED_CELLS,
    Estimate,
    Unmeasured,
    bootstrap_mean,
    checked_values,
    estimate,
)

SLOPE_PENALTY = 0.01
"""Of half the squared slope, against the summed log-likelihood. Just enough for a finite slope
where length alone decides; at 0.1 and 50 pairs it leaves a win rate of 0.55 where 0.5 is true."""
MIN_PAIRS_EACH_WAY = 5
"""Pairs in which the first reply is the longer (or an equal) one, and in which the second is: with
fewer, equal lengths lie outside what was observed, and the prediction would be a guess."""
MAX_STEPS = 100
MAX_STEP = 1.0
"""Of a coefficient: Newton's full step overshoots where nearly all outcomes are alike."""
TOLERANCE = 1e-6


def length_controlled_win_rate(
    outcomes: ArrayLike,
    first_lengths: ArrayLike,
    second_lengths: ArrayLike,
    *,
    num_samples: int,
    seed: int,
) -> Estimate | Unmeasured:
    """Win rate of the first model at equal lengths, with its bootstrap 95 % interval over pairs.

    The model is logit P(win) = quality + slope * tanh(difference / standard deviation of the
    differences): that of the paper for one pair of models. Left out is its term for the difficulty
    of the instruction, which takes many models to estimate. A tie is half a win and half a loss.
    As in the paper, swapping the models gives one minus the figure, and a model has 0.5 against
    itself. That length is a fault in itself is an assumption: where longer replies are better
    because they say more, the figure takes that away too.

    Args:
        outcomes: 1 where the first model wins, 0 where the second does, one half for a tie; shape
            (N,).
        first_lengths, second_lengths: of the replies, shape (N,) each, any unit.
        num_samples: resamples drawn.

    Returns:
        The estimate, or why there is none: too few pairs in which this or that reply is the longer.

    Raises:
        ValueError: different lengths, no values, one that is not finite, an outcome beyond 0..1.
    """
    wins = checked_values(outcomes)
    first, second = checked_values(first_lengths), checked_values(second_lengths)
    if not len(wins) == len(first) == len(second):
        raise ValueError(f"{len(wins)} outcomes for {len(first)} and {len(second)} lengths")
    difference = first - second
    if wins.min() < 0 or wins.max() > 1:
        raise ValueError("an outcome is not between 0 and 1")
    if not difference.any():
        return bootstrap_mean(wins, num_samples=num_samples, seed=seed)
    each_way = int((difference >= 0).sum()), int((difference <= 0).sum())
    if min(each_way) < MIN_PAIRS_EACH_WAY:
        side = "second" if each_way[0] < each_way[1] else "first"
        return Unmeasured(
            f"the {side} model's reply is the longer one in all but {min(each_way)} of "
            f"{len(wins)} pairs, which do not tell what equal lengths would bring"
        )
    feature = np.tanh(difference / difference.std())
    rates = _bootstrap_rates(feature, wins, num_samples, seed)
    value = _rate_at_zero(feature, wins, np.ones((1, len(wins))))[0]
    low, high = np.percentile(rates, (2.5, 97.5))
    return estimate(value, low, high)


def _bootstrap_rates(
    feature: NDArray[np.float64], wins: NDArray[np.float64], num_samples: int, seed: int
) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    count = len(wins)
    at_once = max(1, MAX_RESAMPLED_CELLS // count)
    rates = np.empty(num_samples)
    for start in range(0, num_samples, at_once):
        part = rates[start : start + at_once]
        weights = rng.multinomial(count, np.full(count, 1 / count), len(part)).astype(np.float64)
        part[:] = _rate_at_zero(feature, wins, weights)
    return rates


def _rate_at_zero(
    feature: NDArray[np.float64], wins: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Logistic regressions by Newton's method, all resamples at once; the intercept is free.

    Args:
        feature: x, shape (N,).
        wins: y in 0..1, shape (N,). A tie's term of the log-likelihood is that of a win and a loss
            with half its weight each.
        weights: how often each pair is in each of B resamples, shape (B, N).

    Returns:
        The predicted win rate at x = 0, shape (B,).
    """
    share: NDArray[np.float64] = weights @ wins / weights.sum(axis=1)
    rates = share.copy()
    # With wins or losses alone, the best intercept is infinite, and the rate is 1 or 0.
    mixed = np.flatnonzero((share > 0) & (share < 1))
    intercept = np.log(share[mixed] / (1 - share[mixed]))
    slope = np.zeros_like(intercept)
    active = np.arange(len(mixed))
    for _ in range(MAX_STEPS):
        weight = weights[mixed[active]]
        logits = intercept[active, None] + slope[active, None] * feature
        predicted = 1 / (1 + np.exp(-logits))
        residual = weight * (wins - predicted)
        curvature = weight * predicted * (1 - predicted)
        gradient = residual.sum(axis=1), residual @ feature - SLOPE_PENALTY * slope[active]
        first, cross = curvature.sum(axis=1), curvature @ feature
        second = curvature @ feature**2 + SLOPE_PENALTY
        determinant = first * second - cross**2
        step = np.stack(
            [
                (second * gradient[0] - cross * gradient[1]) / determinant,
                (first * gradient[1] - cross * gradient[0]) / determinant,
            ]
        )
        size = np.abs(step).max(axis=0)
        step *= np.minimum(1, MAX_STEP / np.maximum(size, TOLERANCE))
        intercept[active] += step[0]
        slope[active] += step[1]
        active = active[size > TOLERANCE]
        if not len(active):
            break
    rates[mixed] = 1 / (1 + np.exp(-intercept))
    return rates
