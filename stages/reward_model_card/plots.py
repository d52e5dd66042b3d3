"""The card's plots. Colours are Okabe & Ito's; markers, hatches and line styles say the same in
grey."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from stages.core.statistics import Estimate
from stages.reward_model_card.figures import (
    CONFIDENCE_EDGES,
    Row,
    confidences,
    outcomes,
    reliability,
)
from stages.reward_model_card.pairs import Judged
from stages.reward_model_card.tables import Group, length_groups, margin_groups

MODEL, OTHER, CHOSEN, REJECTED = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
PANEL = (4.2, 3.1)
"""Width and height of one panel, inches."""
NUM_BINS = 30
MAX_POINTS = 2000
"""Points of a scatter plot: more only cover each other."""
LENGTH_LABEL = "length of chosen − length of rejected (tokens)"
JUDGES = {
    "reward_model_accuracy": ("reward model", "o", MODEL),
    "length_controlled_accuracy": ("reward model,\nlength-controlled", "o", MODEL),
    "previous_accuracy": ("champion's\nreward model", "v", MODEL),
    "guard_model_accuracy": ("guard model", "D", CHOSEN),
    "bag_of_words_accuracy": ("bag of words", "s", OTHER),
    "length_baseline_accuracy": ("longer reply", "^", OTHER),
}


class Plot(NamedTuple):
    """A figure and what the card says of it: name of its file, title, caption."""

    figure: Figure
    about: dict[str, str]


def draw(judged: Judged, rows: Sequence[Row]) -> Iterator[Plot]:
    """Each plot that the pairs allow."""
    yield _plot(
        _accuracies(rows),
        "accuracies",
        "Accuracy beside the baselines",
        "Share of held-out pairs that each judge ranks as people did, with its 95 % interval. The "
        "dashed line is chance.",
    )
    yield _plot(
        _scores(judged),
        "scores",
        "Scores of the held-out pairs",
        "Left: scores of the replies that people preferred and of the others. Right: their "
        "differences; right of 0 is ranked correctly.",
    )
    yield _plot(
        _reliability(judged),
        "calibration",
        "Calibration",
        "Left: how often the reward model is right, by the chance that it gives its own "
        "preference; on the dashed line it is calibrated. Right: how many pairs there are of each.",
    )
    groups = margin_groups(judged), length_groups(judged)
    if any(groups):
        yield _plot(
            _by_group(*groups),
            "accuracy_by_group",
            "Accuracy by score and length difference",
            "Accuracy in groups of pairs of about equal size, with its 95 % interval, at each "
            "group's median.",
        )
    if judged.guard is not None:
        yield _plot(
            _guard(judged),
            "guard_agreement",
            "Reward model and guard model",
            "Score differences of each pair by both. Upper right: both right; lower left: both "
            "wrong; elsewhere they disagree.",
        )


# ------------------------------------------------------------------------------------ helpers


def _plot(figure: Figure, name: str, title: str, caption: str) -> Plot:
    return Plot(figure, {"name": name, "title": title, "caption": caption})


def _accuracies(rows: Sequence[Row]) -> Figure:
    figure, (axes,) = _panels(1, width=1.6)
    found = {row.name: row for row in rows}
    shown = [name for name in JUDGES if name in found]
    for place, name in enumerate(reversed(shown)):
        row = found[name]
        assert row.low is not None
        assert row.high is not None
        _, marker, colour = JUDGES[name]
        ends = [[row.value - row.low], [row.high - row.value]]
        axes.errorbar(row.value, place, xerr=ends, color=colour, marker=marker, capsize=5)
        axes.annotate(f"{row.value:.1%}", (row.value, place), (0, 8), textcoords="offset points",
                      ha="center", fontsize="small")  # fmt: skip
    axes.set_yticks(range(len(shown)), [JUDGES[name][0] for name in reversed(shown)])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.axvline(0.5, color="black", linewidth=1, linestyle="--")
    axes.set_xlabel("accuracy on held-out pairs")
    axes.xaxis.set_major_formatter(lambda value, position: f"{value:.0%}")
    return figure


def _scores(judged: Judged) -> Figure:
    figure, (scores, margins) = _panels(2)
    bins = _bins(np.concatenate(judged.scores))
    for values, colour, label, hatch in (
        (judged.scores.chosen, CHOSEN, "chosen", ""),
        (judged.scores.rejected, REJECTED, "rejected", "///"),
    ):
        scores.hist(
            values, bins, color=colour, alpha=0.25, hatch=hatch, edgecolor=colour, linewidth=0
        )
        line = "-" if not hatch else "--"
        scores.hist(
            values, bins, color=colour, histtype="step", linewidth=1.6, linestyle=line, label=label
        )
    scores.set(xlabel="reward-model score (raw)", ylabel="replies")
    scores.legend(frameon=False)
    difference = judged.scores.margin
    margins.hist(difference, _bins(difference), color=MODEL, alpha=0.7)
    margins.axvline(0, color="black", linewidth=1, linestyle="--")
    margins.set(xlabel="score of chosen − score of rejected", ylabel="pairs")
    for axes in (scores, margins):
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _reliability(judged: Judged) -> Figure:
    figure, (curve, counts) = _panels(2)
    confidence, _ = confidences(judged)
    curve.plot([0.5, 1], [0.5, 1], color="black", linewidth=1, linestyle="--", label="calibrated")
    for part in reliability(judged):
        _point(curve, part.confidence, part.outcome)
    curve.set(xlabel="chance that it gives its own preference", ylabel="how often it is right")
    curve.set_ylim(0, 1.03)
    curve.legend(frameon=False, loc="lower right")
    counts.hist(confidence, CONFIDENCE_EDGES, color=MODEL, alpha=0.7, edgecolor="white")
    counts.set(xlabel="chance that it gives its own preference", ylabel="pairs")
    counts.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _by_group(by_margin: Sequence[Group], by_length: Sequence[Group]) -> Figure:
    shown = [
        (groups, label)
        for groups, label in (
            (by_margin, "distance of both scores"),
            (by_length, LENGTH_LABEL),
        )
        if groups
    ]
    figure, panels = _panels(len(shown))
    for axes, (groups, label) in zip(panels, shown, strict=True):
        medians = [group.median for group in groups]
        for group in groups:
            _point(axes, group.median, group.accuracy)
        axes.plot(medians, [group.accuracy.value for group in groups], color=MODEL, linewidth=1,
                  label="reward model")  # fmt: skip
        if label == LENGTH_LABEL:
            axes.plot(medians, [group.longer_wins.value for group in groups], color=OTHER,
                      marker="^", linewidth=1, linestyle=":", label="longer reply")  # fmt: skip
            axes.legend(frameon=False)
        axes.axhline(0.5, color="black", linewidth=1, linestyle="--")
        axes.set(xlabel=label, ylabel="accuracy")
        axes.set_ylim(-0.03, 1.03)
    return figure


def _guard(judged: Judged) -> Figure:
    assert judged.guard is not None
    figure, (axes,) = _panels(1, width=1.2)
    first, second = judged.scores.margin[:MAX_POINTS], judged.guard.margin[:MAX_POINTS]
    alike = outcomes(first) == outcomes(second)
    for inside, marker, colour, label in (
        (alike, "o", MODEL, "agree"),
        (~alike, "x", OTHER, "disagree"),
    ):
        axes.scatter(first[inside], second[inside], s=14, marker=marker, color=colour, alpha=0.6,
                     label=label)  # fmt: skip
    axes.axhline(0, color="black", linewidth=1, linestyle="--")
    axes.axvline(0, color="black", linewidth=1, linestyle="--")
    axes.set(xlabel="reward model: chosen − rejected", ylabel="guard model: chosen − rejected")
    axes.legend(frameon=False)
    return figure


def _point(axes: Axes, place: float, estimate: Estimate) -> None:
    ends = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
    axes.errorbar(place, estimate.value, yerr=ends, color=MODEL, marker="o", capsize=3)


def _panels(count: int, width: float = 1.0) -> tuple[Figure, list[Axes]]:
    layout = ConstrainedLayoutEngine(w_pad=0.12)
    figure = Figure(figsize=(PANEL[0] * count * width, PANEL[1]), layout=layout)
    panels = [figure.add_subplot(1, count, index + 1) for index in range(count)]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
    return figure, panels


def _bins(values: np.ndarray) -> list[float]:
    low, high = float(values.min()), float(values.max())
    return np.linspace(low, high if high > low else low + 1, NUM_BINS + 1).tolist()
