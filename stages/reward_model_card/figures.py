"""The card's headline figures: what each is called, means and shows."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.core.config import RewardModelCardConfig
from stages.core.statistics import (
    CalibrationBin,
    Estimate,
    bootstrap,
    bootstrap_mean,
    brier_score,
    calibration_bins,
    calibration_error_by_chance,
    expected_calibration_error,
    mean_of_group_means,
    paired_difference,
    share,
    signed_rank_correlation,
    win_outcomes,
)
from stages.reward_model_card.pairs import Floats, Judged

CONFIDENCE_EDGES = tuple(np.linspace(0.5, 1.0, 11).tolist())
"""Of the calibration's bins: the more likely side's probability is never below one half."""


Draw = dict[str, Any]
"""What every bootstrap needs: resamples, seed, and which pairs share a prompt."""


class Row(NamedTuple):
    """One headline figure."""

    name: str
    """Of the metric."""
    label: str
    explanation: str
    value: float
    low: float | None = None
    """Ends of the 95 % interval; none where there is no sound one."""
    high: float | None = None
    is_share: bool = True
    """Whether it is a share, or a difference of shares."""


def headline(judged: Judged, *, num_samples: int, seed: int) -> list[Row]:
    """Every figure that these pairs allow.

    Args:
        num_samples: resamples behind each bootstrap interval.
    """
    draw: Draw = {"num_samples": num_samples, "seed": seed, "clusters": judged.clusters}
    model = outcomes(judged.scores.margin)
    return [
        _row(
            clustered_share(model, draw),
            "reward_model_accuracy",
            "Accuracy",
            "pairs whose preferred reply scores higher, ties counted half",
        ),
        *_previous(judged, model, draw),
        *_baselines(judged, model, draw),
        *_lengths(judged, model, draw),
        *_calibration(judged, model, draw),
        *_guard(judged, model, draw),
        _row(
            bootstrap_mean(judged.scores.margin, **draw),
            "mean_margin",
            "Mean margin",
            "score of the preferred reply minus score of the other",
            is_share=False,
        ),
    ]


def flat_metrics(judged: Judged, rows: Sequence[Row]) -> dict[str, float]:
    """Every figure and the ends of its interval, by name."""
    metrics = {
        "num_pairs": float(judged.num_pairs),
        "over_length": float(judged.num_over_length),
    }
    for row in rows:
        metrics[row.name] = row.value
        if row.low is not None and row.high is not None:
            metrics |= {f"{row.name}_low": row.low, f"{row.name}_high": row.high}
    return metrics


def outcomes(margins: Floats) -> Floats:
    """1 where a judge prefers the side that people preferred, 0 where the other, one half for a
    tie; shape (N,)."""
    return win_outcomes(margins, np.zeros_like(margins))


def clustered_share(outcomes: Floats, draw: Draw) -> Estimate:
    """Wilson's interval, or the bootstrap's over prompts where that reaches further: pairs of one
    prompt tell less than as many pairs of different ones."""
    wilson, clustered = share(outcomes), bootstrap_mean(outcomes, **draw)
    return Estimate(wilson.value, min(wilson.low, clustered.low), max(wilson.high, clustered.high))


def confidences(judged: Judged) -> tuple[Floats, Floats]:
    """What the reward model gives as the chance of its own preference, and whether people shared
    it (one half for a tie); shape (N,) each."""
    margins = judged.scores.margin
    return sigmoid(np.abs(margins)), outcomes(margins)


def reliability(judged: Judged) -> list[CalibrationBin]:
    """Its preferences by confidence."""
    return calibration_bins(*confidences(judged), CONFIDENCE_EDGES)


def sigmoid(values: Floats) -> Floats:
    """Bradley and Terry's chance of the side that is ahead by so much."""
    result: Floats = 0.5 * (1.0 + np.tanh(0.5 * values))  # exp would overflow
    return result


def percent(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.1f} %"


def notes(judged: Judged, config: RewardModelCardConfig) -> list[str]:
    """How the figures were made, and why some are not there."""
    num_prompts = len(np.unique(judged.clusters))
    found = [
        f"The {judged.num_pairs} pairs have {num_prompts} different prompts. Intervals come from "
        f"{config.num_bootstrap_samples} bootstrap resamples of the prompts; that of a share is "
        "Wilson's where it is the wider, and in the tables below always. Scores are raw. Lengths "
        "are the replies' tokens with EOS.",
        "Length-controlled accuracy: the mean of the accuracy on the pairs whose preferred reply "
        "is the longer one and of that on those whose preferred reply is the shorter one (pairs of "
        "equal length left out), a balanced accuracy (Brodersen et al. 2010) over the sign of the "
        "length difference. Whatever looks at the length alone gets one half.",
        "Calibration: by Bradley and Terry's model the reward model gives the reply that it "
        "prefers the chance sigmoid(score difference). The calibration error compares it with the "
        f"share in which people agreed, in {len(CONFIDENCE_EDGES) - 1} bins of equal width from "
        "50 % to 100 % (Guo et al. 2017). It has no interval, since resampling inflates it.",
    ]
    if judged.num_over_length:
        found.append(
            f"{judged.num_over_length} held-out pairs with a side above the {judged.max_length} "
            "tokens that the reward model was trained on are left out."
        )
    if judged.words is not None:
        found.append(
            "Bag of words: a logistic regression (L2, C = 1) on the difference of both replies' "
            f"TF-IDF vectors, trained on {judged.num_training_pairs} training pairs, each in both "
            "orders. It reads no prompt."
        )
    else:
        found.append("No bag of words: the training replies hold no word.")
    margins, lengths = judged.scores.margin, judged.lengths.margin
    if not (lengths > 0).any() or not (lengths < 0).any():
        found.append(
            "No length-controlled accuracy: "
            + ("no preferred reply is longer" if not (lengths > 0).any() else
               "no preferred reply is shorter") + " than the other."
        )  # fmt: skip
    if not lengths.any():
        found.append("No correlation with the length: all pairs' replies are equally long.")
    if not margins.any():
        found.append(
            "The reward model gives both replies of every pair the same score: no correlation "
            "with the length."
        )
    if judged.why_no_previous:
        found.append(f"No comparison with the champion's reward model: {judged.why_no_previous}.")
    if judged.guard is None:
        found.append(
            "No agreement with a guard model: the chain has none (clean.guard_share is 0)."
        )
    return found


# ------------------------------------------------------------------------------------ helpers


def _row(
    estimate: Estimate, name: str, label: str, explanation: str, *, is_share: bool = True
) -> Row:
    return Row(name, label, explanation, *estimate, is_share)


def _previous(judged: Judged, model: Floats, draw: Draw) -> list[Row]:
    if judged.previous is None:
        return []
    previous = outcomes(judged.previous.margin)
    return [
        _row(
            clustered_share(previous, draw),
            "previous_accuracy",
            "Champion's accuracy",
            "the reward model of the present champion, on the same SFT model",
        ),
        _row(
            paired_difference(model, previous, **draw),
            "reward_model_minus_previous",
            "Reward model − champion's",
            "on the same pairs",
        ),
    ]


def _baselines(judged: Judged, model: Floats, draw: Draw) -> list[Row]:
    longer = outcomes(judged.lengths.margin)
    rows = [
        _row(
            clustered_share(longer, draw),
            "length_baseline_accuracy",
            "Longer reply wins",
            "accuracy of always preferring the longer reply, ties counted half",
        ),
        _row(
            paired_difference(model, longer, **draw),
            "reward_model_minus_length",
            "Reward model − longer reply",
            "on the same pairs",
        ),
    ]
    if judged.words is None:
        return rows
    words = outcomes(judged.words)
    return [
        *rows,
        _row(
            clustered_share(words, draw),
            "bag_of_words_accuracy",
            "Bag of words",
            "accuracy of a logistic regression that sees which words the replies hold",
        ),
        _row(
            paired_difference(model, words, **draw),
            "reward_model_minus_bag_of_words",
            "Reward model − bag of words",
            "on the same pairs",
        ),
    ]


def _lengths(judged: Judged, model: Floats, draw: Draw) -> list[Row]:
    lengths, margins = judged.lengths.margin, judged.scores.margin
    sides = lengths > 0, lengths < 0
    rows = []
    if all(side.any() for side in sides):
        rows.append(
            _row(
                mean_of_group_means(
                    [model[side] for side in sides],
                    **draw | {"clusters": [judged.clusters[side] for side in sides]},
                ),
                "length_controlled_accuracy",
                "Length-controlled accuracy",
                "pairs whose preferred reply is longer and those where it is shorter counted "
                "alike; the length alone gets 50 %",
            )
        )
    if not lengths.any() or not margins.any():
        return rows

    def correlation(indices: NDArray[np.int64]) -> float:
        return signed_rank_correlation(margins[indices], lengths[indices])

    rows.append(
        _row(
            bootstrap(correlation, **draw),
            "score_length_correlation",
            "Correlation of score and length",
            "rank correlation of the differences within the pairs; "
            f"people's choice has {_people_and_length(lengths):.2f}".replace("-", "−"),
            is_share=False,
        )
    )
    return rows


def _people_and_length(lengths: Floats) -> float:
    """The same correlation of people's preference, a difference of 1 in each pair."""
    return signed_rank_correlation(np.ones_like(lengths), lengths)


def _calibration(judged: Judged, model: Floats, draw: Draw) -> list[Row]:
    confidence, _ = confidences(judged)
    chance = calibration_error_by_chance(
        confidence, CONFIDENCE_EDGES, num_samples=draw["num_samples"], seed=draw["seed"]
    )
    probabilities = sigmoid(judged.scores.margin)
    return [
        Row(
            "ece",
            "Expected calibration error",
            "distance of the chance that it gives its preferences from how often it is right",
            expected_calibration_error(reliability(judged)),
        ),
        Row(
            "ece_of_calibrated",
            "… of a calibrated model",
            "what chance alone gives on so many pairs",
            chance,
        ),
        _row(
            brier_score(probabilities, np.ones_like(model), **draw),
            "brier",
            "Brier score",
            "mean squared error of its chances; 0 is perfect, always saying 50 % gives 0.25",
            is_share=False,
        ),
    ]


def _guard(judged: Judged, model: Floats, draw: Draw) -> list[Row]:
    if judged.guard is None:
        return []
    guard = outcomes(judged.guard.margin)
    first, second = float(model.mean()), float(guard.mean())
    by_chance = first * second + (1 - first) * (1 - second)
    return [
        _row(
            clustered_share(guard, draw),
            "guard_model_accuracy",
            "Guard model's accuracy",
            "a second reward model, from other pairs and another seed",
        ),
        _row(
            paired_difference(model, guard, **draw),
            "reward_model_minus_guard",
            "Reward model − guard model",
            "on the same pairs",
        ),
        _row(
            clustered_share(1 - np.abs(model - guard), draw),
            "guard_agreement",
            "Agreement with the guard model",
            "pairs that both rank alike, a tie of one counted half; if they erred independently "
            f"of each other: {percent(by_chance)}",
        ),
    ]
