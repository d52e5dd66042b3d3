"""The card's tables: where the reward model is right, and where it is most wrong."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.core.chat import prompt_text
from stages.core.statistics import Estimate, share
from stages.reward_model_card.figures import outcomes, percent, reliability
from stages.reward_model_card.pairs import Floats, Judged

NUM_MARGIN_GROUPS = 10
NUM_LENGTH_GROUPS = 5
PAIRS_PER_GROUP = 5
"""Fewer make a group's accuracy meaningless."""
MAX_SOURCES = 12


class Table(NamedTuple):
    """Cells are texts, ready to be shown."""

    title: str
    explanation: str
    columns: list[str]
    rows: list[list[str]]


class Group(NamedTuple):
    """Pairs that are alike in something."""

    low: float
    median: float
    high: float
    size: int
    accuracy: Estimate
    longer_wins: Estimate
    """Accuracy of always preferring the longer reply."""


def tables(judged: Judged) -> list[Table]:
    """Every table; where pairs are too few or too alike, the explanation says so."""
    return [_by_margin(judged), _by_length(judged), _calibration(judged), *_by_source(judged)]


def margin_groups(judged: Judged) -> list[Group]:
    """Equal groups of pairs by the distance of both scores, ten where the pairs are enough; none
    where they are fewer than two groups' or all distances are equal."""
    distances = np.abs(judged.scores.margin)
    return _groups(judged, distances, NUM_MARGIN_GROUPS)


def length_groups(judged: Judged) -> list[Group]:
    """The same by the preferred reply's length less the other's, five groups."""
    return _groups(judged, judged.lengths.margin, NUM_LENGTH_GROUPS)


def worst_pairs(judged: Judged, count: int) -> list[dict[str, Any]]:
    """The pairs in which the rejected reply's score is furthest above the chosen one's, the worst
    first; none in which it is not."""
    margins = judged.scores.margin
    order = [index for index in np.argsort(margins, kind="stable") if margins[index] < 0]
    return [
        {
            "prompt": prompt_text(judged.prompts[index]),
            "chosen": judged.chosen[index],
            "rejected": judged.rejected[index],
            "score_chosen": round(float(judged.scores.chosen[index]), 3),
            "score_rejected": round(float(judged.scores.rejected[index]), 3),
            "margin": round(float(margins[index]), 3),
            "length_chosen": int(judged.lengths.chosen[index]),
            "length_rejected": int(judged.lengths.rejected[index]),
            **(
                {"guard_margin": round(float(judged.guard.margin[index]), 3)}
                if judged.guard
                else {}
            ),
        }
        for index in order[:count]
    ]


def interval(estimate: Estimate) -> str:
    """The ends of a share's interval."""
    return f"{percent(estimate.low)} to {percent(estimate.high)}"


# ------------------------------------------------------------------------------------ helpers


def _groups(judged: Judged, values: Floats, most: int) -> list[Group]:
    """Groups of about equal size; equal values stay together."""
    number = min(most, len(values) // PAIRS_PER_GROUP)
    if number < 2 or values.min() == values.max():
        return []
    cuts = np.unique(np.quantile(values, np.arange(1, number) / number))
    places = np.searchsorted(cuts, values)
    return [_group(judged, values, places == place) for place in np.unique(places)]


def _group(judged: Judged, values: Floats, inside: NDArray[np.bool_]) -> Group:
    return Group(
        low=float(values[inside].min()),
        median=float(np.median(values[inside])),
        high=float(values[inside].max()),
        size=int(inside.sum()),
        accuracy=share(outcomes(judged.scores.margin)[inside]),
        longer_wins=share(outcomes(judged.lengths.margin)[inside]),
    )


def _by_margin(judged: Judged) -> Table:
    groups = margin_groups(judged)
    explanation = (
        "Pairs in equal groups (deciles where they are enough) by how far both scores lie apart. A "
        "reward model that knows when it knows is near 50 % at the top and high at the bottom."
    )
    if not groups:
        explanation = _why_no_groups(judged.scores.margin, "both scores lie equally far apart")
    return Table(
        "Accuracy by score difference",
        explanation,
        ["score difference", "pairs", "accuracy", "95 % interval"],
        [
            [_span(group, 2), str(group.size), percent(group.accuracy.value),
             interval(group.accuracy)]
            for group in groups
        ],
    )  # fmt: skip


def _by_length(judged: Judged) -> Table:
    groups = length_groups(judged)
    explanation = (
        "Pairs in groups of about equal size by the preferred reply's length less the other's, "
        "tokens. A reward model that only likes long replies is wrong at the top and right at the "
        "bottom."
    )
    if not groups:
        explanation = _why_no_groups(judged.lengths.margin, "the lengths differ equally")
    return Table(
        "Accuracy by length difference",
        explanation,
        ["length difference", "pairs", "accuracy", "95 % interval", "longer reply wins"],
        [
            [_span(group, 0), str(group.size), percent(group.accuracy.value),
             interval(group.accuracy), percent(group.longer_wins.value)]
            for group in groups
        ],
    )  # fmt: skip


def _calibration(judged: Judged) -> Table:
    return Table(
        "Calibration",
        "How often it is right, by the chance that it gives its own preference.",
        ["chance", "pairs", "mean chance", "right"],
        [
            [f"{100 * part.low:.0f} to {100 * part.high:.0f} %", str(part.size),
             percent(part.confidence), percent(part.outcome.value)]
            for part in reliability(judged)
        ],
    )  # fmt: skip


def _by_source(judged: Judged) -> Iterable[Table]:
    commonest = Counter(judged.sources).most_common(MAX_SOURCES)
    if len(commonest) < 2:
        return
    sources = np.array(judged.sources)
    rows = []
    for source, count in commonest:
        group = _group(judged, judged.scores.margin, sources == source)
        words = None if judged.words is None else outcomes(judged.words)[sources == source].mean()
        rows.append(
            [source or "(not said)", str(count), percent(group.accuracy.value),
             interval(group.accuracy), percent(group.longer_wins.value),
             "–" if words is None else percent(words)]
        )  # fmt: skip
    yield Table(
        "Accuracy by source",
        f"The commonest {len(rows)} by the column source of the pairs.",
        ["source", "pairs", "accuracy", "95 % interval", "longer reply wins", "bag of words"],
        rows,
    )


def _why_no_groups(values: Sequence[float] | Floats, alike: str) -> str:
    if len(values) < 2 * PAIRS_PER_GROUP:
        return f"Left out: {len(values)} pairs are too few to be grouped."
    return f"Left out: in all pairs {alike}."


def _span(group: Group, digits: int) -> str:
    low, high = (f"{value:.{digits}f}".replace("-", "−") for value in (group.low, group.high))
    return low if low == high else f"{low} to {high}"
