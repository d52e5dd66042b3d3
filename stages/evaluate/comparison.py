"""From measurements of single replies to the figures of the report: means, differences, win
rates, each with its interval."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stages.core import statistics
from stages.core.statistics import Estimate, Unmeasured
from stages.evaluate.measurements import JUDGE, REWARD_MODEL, Measure, Measurements, Replies
from stages.evaluate.references import ReferenceFigures, compare_with_references
from stages.evaluate.win_rate import length_controlled_win_rate


@dataclass(frozen=True)
class ModelFigures:
    """One model's column of the headline table."""

    scores: dict[str, Estimate]
    normalized_score: float
    """Reward-model score in standard deviations of the SFT model's samples."""
    kl: Estimate
    length: Estimate
    eos_rate: float
    distinct_1: float | None
    distinct_2: float | None
    repetition: float | None
    """None where every reply is too short to repeat itself."""


@dataclass(frozen=True)
class Contrast:
    """Two models on the same prompts, by one scorer: the first against the second."""

    win_rate: Estimate
    """Ties counted half."""
    ties: float
    """Share of the prompts on which neither wins."""
    num_prompts: int
    length_controlled: Estimate | Unmeasured
    """The win rate at equal lengths of the replies, or why there is none."""
    difference: Estimate | None = None
    """Of the mean scores; a judge gives none."""

    @property
    def is_better(self) -> bool:
        """Clearly: the interval leaves out no difference."""
        return self.win_rate.low > 0.5 if self.difference is None else self.difference.low > 0

    @property
    def is_worse(self) -> bool:
        return self.win_rate.high < 0.5 if self.difference is None else self.difference.high < 0


@dataclass(frozen=True)
class MeasureFigures:
    """Each model's share of the replies that have a property, and differences by (first, second)
    model."""

    means: dict[str, Estimate]
    differences: dict[tuple[str, str], Estimate]
    num_prompts: int


@dataclass(frozen=True)
class Figures:
    """What the report states."""

    models: dict[str, ModelFigures]
    contrasts: dict[tuple[str, str], dict[str, Contrast]]
    """By (first, second) model and scorer, the judge among them."""
    length_growth: Estimate
    """Tokens a reply by which the policy's replies are longer than the SFT model's."""
    measures: dict[str, MeasureFigures]
    """By the name of the metric."""
    references: dict[str, ReferenceFigures]
    """By model; empty without references."""


Draw = Mapping[str, int]
"""Number of resamples and seed."""


def compare(measured: Measurements, *, num_bootstrap_samples: int, seed: int) -> Figures:
    """Average, contrast and put intervals around the measurements."""
    draw = {"num_samples": num_bootstrap_samples, "seed": seed}
    replies = measured.replies
    return Figures(
        models={
            name: _model_figures(replies[name], measured.score_mean, measured.score_std, draw)
            for name in measured.models
        },
        contrasts={pair: _contrasts(measured, pair, draw) for pair in measured.contrasts()},
        length_growth=statistics.paired_difference(
            replies["policy"].lengths, replies["sft"].lengths, **draw
        ),
        measures={
            name: _measure_figures(measure, measured, draw)
            for name, measure in measured.measures.items()
        },
        references={
            name: compare_with_references(texts, measured.references, **draw)
            for name, texts in measured.replies_with_reference.items()
        },
    )


# ------------------------------------------------------------------------------------ helpers


def _model_figures(
    replies: Replies, score_mean: float, score_std: float, draw: Draw
) -> ModelFigures:
    scores = {
        scorer: statistics.bootstrap_mean(values, **draw)
        for scorer, values in replies.scores.items()
    }
    return ModelFigures(
        scores=scores,
        normalized_score=(scores[REWARD_MODEL].value - score_mean) / score_std,
        kl=statistics.bootstrap_mean(replies.kl, **draw),
        length=statistics.bootstrap_mean(replies.lengths, **draw),
        eos_rate=sum(replies.ended) / len(replies.ended),
        distinct_1=statistics.distinct_n(replies.texts, 1),
        distinct_2=statistics.distinct_n(replies.texts, 2),
        repetition=statistics.repetition_rate(replies.texts),
    )


def _contrasts(measured: Measurements, pair: tuple[str, str], draw: Draw) -> dict[str, Contrast]:
    first, second = (measured.replies[name] for name in pair)
    is_same = np.asarray(
        [one == other for one, other in zip(first.texts, second.texts, strict=True)]
    )
    contrasts: dict[str, Contrast] = {}
    for scorer in (REWARD_MODEL, *measured.scorers):
        # Equal replies, scored in batches of other company, differ by rounding.
        sides = (
            np.asarray(first.scores[scorer]),
            np.where(is_same, first.scores[scorer], second.scores[scorer]),
        )
        outcomes = statistics.win_outcomes(*sides)
        contrasts[scorer] = Contrast(
            win_rate=statistics.share(outcomes),
            ties=_ties(outcomes),
            num_prompts=len(outcomes),
            difference=statistics.paired_difference(*sides, **draw),
            length_controlled=length_controlled_win_rate(
                outcomes, first.lengths, second.lengths, **draw
            ),
        )
    if pair in measured.judged:
        judged = measured.judged[pair]
        contrasts[JUDGE] = Contrast(
            win_rate=statistics.share(judged.outcomes),
            ties=_ties(judged.outcomes),
            num_prompts=len(judged.outcomes),
            length_controlled=length_controlled_win_rate(
                judged.outcomes, judged.first_lengths, judged.second_lengths, **draw
            ),
        )
    return contrasts


def _measure_figures(measure: Measure, measured: Measurements, draw: Draw) -> MeasureFigures:
    values = measure.values
    return MeasureFigures(
        means={name: statistics.share(values[name]) for name in values},
        differences={
            (first, second): statistics.paired_difference(values[first], values[second], **draw)
            for first, second in measured.contrasts()
            if {first, second} <= values.keys()
        },
        num_prompts=len(next(iter(values.values()))),
    )


def _ties(outcomes: ArrayLike) -> float:
    return float(np.mean(np.asarray(outcomes) == 0.5))
