"""How well a classifier labels held-out texts. Pure functions of labels and probabilities."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_curve,
    precision_recall_fscore_support,
)

from stages.core.statistics import Estimate, accuracy

Probabilities = NDArray[np.float64]
"""Shape (number of texts, number of labels), each row sums to 1."""

BY_LABEL = ("precision", "recall", "f1", "average_precision")
MAX_CURVES = 8
MAX_NUMBERED = 15
"""Labels up to which the cells of the confusion matrix have room for a number."""
SHOWN_CHARACTERS = 300
# Okabe & Ito's, told apart also by colour-blind readers.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442")


class Figures(NamedTuple):
    """What was measured. Figures that are not defined are absent."""

    labels: tuple[str, ...]
    accuracy: Estimate
    """Share of the texts given their own label, with Wilson's 95 % interval."""
    majority_accuracy: float
    """Share of the texts with the label that is the commonest in training."""
    macro: dict[str, float]
    """Means over the labels that have the figure, by its name."""
    by_label: dict[str, dict[str, float]]
    """Name of the figure, then label."""
    counts: dict[str, int]
    """Held-out texts of each label."""
    confusion: NDArray[np.int64]
    """Texts by true label (rows) and given label (columns)."""
    undefined: list[str]
    """Which figures are absent and why, as lines for people."""


def measure(
    labels: Sequence[str], truth: Sequence[int], probabilities: Probabilities, majority: int
) -> Figures:
    """Every figure of the held-out texts.

    Precision of a label that is never given, and recall, F1 and average precision of one that no
    text has, are not defined: they are absent, rather than 0, and not part of the means.

    Args:
        truth: number of each text's own label.
        majority: number of the label that is the commonest in training.
    """
    true = np.asarray(truth)
    given = probabilities.argmax(axis=1)
    numbers = range(len(labels))
    precision, recall, f1, _ = precision_recall_fscore_support(
        true, given, labels=list(numbers), zero_division=np.nan
    )
    counts = np.bincount(true, minlength=len(labels))
    average_precision = [
        average_precision_score(true == number, probabilities[:, number])
        if counts[number]
        else np.nan
        for number in numbers
    ]
    f1 = np.where(counts > 0, f1, np.nan)
    values = dict(zip(BY_LABEL, (precision, recall, f1, average_precision), strict=True))
    by_label = {
        name: {
            label: float(value)
            for label, value in zip(labels, column, strict=True)
            if not np.isnan(value)
        }
        for name, column in values.items()
    }
    return Figures(
        labels=tuple(labels),
        # A right label counts 1, which lies above one half, a wrong one 0, which lies below.
        accuracy=accuracy((true == given).astype(float), np.full(len(true), 0.5)),
        majority_accuracy=float((true == majority).mean()),
        macro={name: float(np.mean([*row.values()])) for name, row in by_label.items() if row},
        by_label=by_label,
        counts={label: int(count) for label, count in zip(labels, counts, strict=True)},
        confusion=confusion_matrix(true, given, labels=list(numbers)),
        undefined=_undefined(labels, counts, np.bincount(given, minlength=len(labels))),
    )


def _undefined(
    labels: Sequence[str], counts: NDArray[np.int64], given: NDArray[np.int64]
) -> list[str]:
    absent = [label for label, count in zip(labels, counts, strict=True) if not count]
    never = [label for label, count in zip(labels, given, strict=True) if not count]
    lines = []
    if absent:
        names = ", ".join(map(repr, absent))
        lines.append(f"no text has the label {names}: no recall, F1 and average precision of it")
    if never:
        names = ", ".join(map(repr, never))
        lines.append(f"no text is given the label {names}: no precision of it")
    return lines


def flat(figures: Figures) -> dict[str, float]:
    """The figures under the names of metrics, in which labels lose what metrics cannot carry."""
    value, low, high = figures.accuracy
    names = _metric_names(figures.labels)
    return {
        "accuracy": value,
        "accuracy_low": low,
        "accuracy_high": high,
        "majority_accuracy": figures.majority_accuracy,
        **{f"macro_{name}": value for name, value in figures.macro.items()},
        **{
            f"{name}_{names[label]}": value
            for name, row in figures.by_label.items()
            for label, value in row.items()
        },
    }


def _metric_names(labels: Sequence[str]) -> dict[str, str]:
    names = {label: re.sub(r"[^A-Za-z0-9_.-]+", "_", label) for label in labels}
    times = Counter(name.casefold() for name in names.values())
    return {
        label: name if times[name.casefold()] == 1 else f"{name}_{number}"
        for number, (label, name) in enumerate(names.items())
    }


def as_json(figures: Figures) -> dict[str, Any]:
    """The figures for a file: those of a label under its full name."""
    return {
        **figures._asdict(),
        "accuracy": figures.accuracy._asdict(),
        "confusion": figures.confusion.tolist(),
    }


def worst_errors(
    labels: Sequence[str],
    texts: Sequence[str],
    truth: Sequence[int],
    probabilities: Probabilities,
    limit: int,
) -> list[dict[str, Any]]:
    """The wrongly labelled texts as rows of a table, those with the least probability of their own
    label first."""
    given = probabilities.argmax(axis=1)
    wrong = [number for number, label in enumerate(truth) if given[number] != label]
    wrong.sort(key=lambda number: probabilities[number, truth[number]])
    return [
        {
            "text": texts[number][:SHOWN_CHARACTERS],
            "label": labels[truth[number]],
            "given": labels[given[number]],
            "probability_of_label": round(float(probabilities[number, truth[number]]), 4),
        }
        for number in wrong[:limit]
    ]


def confusion_plot(figures: Figures) -> Figure:
    """The confusion matrix: numbers of texts, coloured by their share of the row."""
    count = len(figures.labels)
    side = min(12.0, 2.2 + 0.55 * count)
    figure = Figure(figsize=(side + 1, side))
    axes = figure.subplots()
    rows = figures.confusion.sum(axis=1, keepdims=True)
    shares = figures.confusion / np.maximum(rows, 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the label's texts")
    names = [label if len(label) <= 20 else f"{label[:19]}…" for label in figures.labels]
    axes.set_xticks(range(count), names, rotation=45, ha="right")
    axes.set_yticks(range(count), names)
    axes.set(xlabel="given label", ylabel="true label", title="Held-out texts")
    if count <= MAX_NUMBERED:
        for (row, column), number in np.ndenumerate(figures.confusion):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(number), ha="center", va="center", color=colour)
    return figure


def precision_recall_plot(
    labels: Sequence[str], truth: Sequence[int], probabilities: Probabilities
) -> Figure:
    """Precision over recall as the threshold falls, for the commonest labels, each against the
    rest."""
    true = np.asarray(truth)
    figure = Figure(figsize=(5.5, 4.2))
    axes = figure.subplots()
    commonest = [number for number, _ in Counter(truth).most_common(MAX_CURVES)]
    for number, colour in zip(sorted(commonest), COLOURS, strict=False):
        scores = probabilities[:, number]
        precision, recall, _ = precision_recall_curve(true == number, scores)
        area = average_precision_score(true == number, scores)
        name = labels[number][:30]
        axes.step(recall, precision, where="post", color=colour, label=f"{name} (AP {area:.3f})")
    axes.set(xlabel="recall", ylabel="precision", title="Held-out texts", ylim=(0, 1.03))
    axes.legend(loc="lower left", fontsize="small")
    return figure
