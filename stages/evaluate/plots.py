"""The report's plots. Colours are Okabe & Ito's, told apart also by colour-blind readers; line
styles or markers repeat what they say."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from stages.evaluate.comparison import MODELS, REWARD_MODEL, Figures, Measurements

LABELS = {"base": "base", "sft": "SFT", "policy": "policy"}
COLOURS = {"base": "#7f7f7f", "sft": "#0072b2", "policy": "#d55e00"}
LINE_STYLES = {"base": ":", "sft": "--", "policy": "-"}
MARKERS = {"base": "s", "sft": "D", "policy": "o"}
CHOSEN, REJECTED = "#009e73", "#cc79a7"
PANEL = (4.2, 3.1)
"""Width and height of one panel, inches."""
SMALL_PANEL = (3.3, 2.9)
"""The same where there are three or more in a row."""
NUM_BINS = 30
LEGEND: dict[str, Any] = {"frameon": False, "ncols": len(MODELS)}


def draw(measured: Measurements, figures: Figures) -> Iterator[tuple[str, Figure]]:
    """Each plot that the measurements allow, with its name."""
    yield "scores", mean_scores(figures)
    yield "score_distributions", score_distributions(measured)
    if measured.pairs is not None:
        yield "reward_model", pair_scores(measured.pairs.chosen, measured.pairs.rejected)
    if measured.history:
        yield "training_curve", training_curve(measured.history)
    yield "reply_lengths", reply_lengths(measured)


def mean_scores(figures: Figures) -> Figure:
    """Proxy and true score side by side: mean of each model with its 95 % interval."""
    scorers = list(figures.models["policy"].scores)
    figure, panels = _panels(len(scorers))
    for scorer, axes in zip(scorers, panels, strict=True):
        for position, name in enumerate(MODELS):
            value, low, high = figures.models[name].scores[scorer]
            axes.errorbar(
                position,
                value,
                yerr=[[value - low], [high - value]],
                color=COLOURS[name],
                marker=MARKERS[name],
                markersize=7,
                capsize=5,
                linewidth=1.8,
            )
        axes.set_xticks(range(len(MODELS)), [LABELS[name] for name in MODELS])
        axes.set_xlim(-0.5, len(MODELS) - 0.5)
        axes.set_ylabel(f"mean {_score_label(scorer)}")
        axes.set_title(_score_title(scorer))
    return figure


def score_distributions(measured: Measurements) -> Figure:
    """Histograms of every scorer's scores, one line a model."""
    scorers = list(measured.replies["policy"].scores)
    figure, panels = _panels(len(scorers))
    for scorer, axes in zip(scorers, panels, strict=True):
        _histograms(axes, {name: measured.replies[name].scores[scorer] for name in MODELS})
        axes.set_xlabel(_score_label(scorer))
        axes.set_title(_score_title(scorer))
    _count_replies(*panels)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", **LEGEND)
    return figure


def reply_lengths(measured: Measurements) -> Figure:
    """Left: histogram of the replies' lengths, one line a model. Right: KL of the policy's replies
    to the SFT model."""
    figure, (lengths, divergence) = _panels(2)
    _histograms(lengths, {name: measured.replies[name].lengths for name in MODELS}, whole=True)
    lengths.set_xlabel("reply length (tokens)")
    lengths.set_title("Length of the replies")
    figure.legend(*lengths.get_legend_handles_labels(), loc="outside upper center", **LEGEND)
    kl = measured.replies["policy"].kl
    divergence.hist(kl, _bins(kl), color=COLOURS["policy"], alpha=0.7)
    divergence.set_xlabel("KL to the SFT model (nats a reply)")
    divergence.set_title("Distance of the policy's replies")
    _count_replies(lengths, divergence)
    return figure


def pair_scores(chosen: Sequence[float], rejected: Sequence[float]) -> Figure:
    """Left: reward-model scores of both sides of the held-out pairs. Right: their differences."""
    figure, (scores, margins) = _panels(2)
    bins = _bins([*chosen, *rejected])
    for values, colour, label, hatch in (
        (chosen, CHOSEN, "chosen", ""),
        (rejected, REJECTED, "rejected", "///"),
    ):
        scores.hist(
            values, bins, color=colour, alpha=0.25, hatch=hatch, edgecolor=colour, linewidth=0
        )
        scores.hist(values, bins, color=colour, histtype="step", linewidth=1.6, label=label)
    scores.set_xlabel("reward-model score (raw)")
    scores.legend(frameon=False)
    scores.set_title("Scores of the held-out pairs")
    difference = np.subtract(chosen, rejected)
    margins.hist(difference, _bins(difference), color=COLOURS["sft"], alpha=0.7)
    margins.axvline(0, color="black", linewidth=1, linestyle="--")
    margins.set_xlabel("score of chosen − score of rejected")
    margins.set_title("Margin: right of 0 is ranked correctly")
    _count_replies(scores)
    _count_replies(margins, what="pairs")
    return figure


def training_curve(history: Sequence[dict[str, float]]) -> Figure:
    """Score and KL over the episodes of PPO, and score against KL."""
    episodes, score, kl = (
        np.array([row[key] for row in history], dtype=float) for key in ("episodes", "score", "kl")
    )
    figure, (over_time, divergence, frontier) = _panels(3)
    for axes, values, colour, label in (
        (over_time, score, COLOURS["policy"], "reward-model score"),
        (divergence, kl, COLOURS["sft"], "KL to the SFT model (nats a reply)"),
    ):
        axes.plot(episodes, values, color=colour, alpha=0.3, linewidth=1)
        axes.plot(episodes, _smooth(values), color=colour, linewidth=2)
        axes.set_xlabel("episodes (replies learned from)")
        axes.set_ylabel(label, size="small")
    over_time.set_title("Score during PPO")
    divergence.set_title("Distance from the SFT model")
    points = frontier.scatter(kl, score, c=episodes, cmap="viridis", s=16)
    figure.colorbar(points, ax=frontier, label="episodes")
    frontier.set_xlabel("KL to the SFT model (nats a reply)")
    frontier.set_ylabel("reward-model score")
    frontier.set_title("What the distance bought")
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    width, height = PANEL if count < 3 else SMALL_PANEL
    layout = ConstrainedLayoutEngine(w_pad=0.12)
    figure = Figure(figsize=(width * count, height), layout=layout)
    panels = [figure.add_subplot(1, count, index + 1) for index in range(count)]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
        axes.title.set_fontsize("medium")
    return figure, panels


def _histograms(axes: Axes, values: Mapping[str, Sequence[float]], whole: bool = False) -> None:
    together = [value for series in values.values() for value in series]
    bins = _bins(together, whole)
    for name, series in values.items():
        axes.hist(series, bins, color=COLOURS[name], alpha=0.12)
        axes.hist(
            series,
            bins,
            histtype="step",
            color=COLOURS[name],
            linestyle=LINE_STYLES[name],
            linewidth=1.8,
            label=LABELS[name],
        )


def _count_replies(*panels: Axes, what: str = "replies") -> None:
    for axes in panels:
        axes.set_ylabel(what)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _bins(values: Sequence[float] | np.ndarray, whole: bool = False) -> list[float]:
    low, high = float(np.min(values)), float(np.max(values))
    if whole:
        step = max(1, round((high - low + 1) / NUM_BINS))
        return list(np.arange(low - 0.5, high + step + 0.5, step))
    return list(np.linspace(low, high if high > low else low + 1, NUM_BINS + 1))


def _smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving average over about a twentieth of the run."""
    reach = max(1, len(values) // 40)
    return np.array([values[max(0, i - reach) : i + reach + 1].mean() for i in range(len(values))])


def _score_label(scorer: str) -> str:
    return "reward-model score (raw)" if scorer == REWARD_MODEL else f"{_plain(scorer)} score"


def _score_title(scorer: str) -> str:
    if scorer == REWARD_MODEL:
        return "Proxy: the reward model, which PPO maximised"
    return f"{_plain(scorer)}: never seen in training"


def _plain(text: str) -> str:
    """Text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")
