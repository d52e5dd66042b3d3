"""The report's plots. Colours are Okabe & Ito's, told apart also by colour-blind readers; line
styles or markers repeat what they say."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from stages.core.policy_gate import GUARD_MODEL, JUDGE, REWARD_MODEL
from stages.evaluate.comparison import Figures
from stages.evaluate.earlier import Benchmark
from stages.evaluate.measurements import CHAMPION, Measurements

LABELS = {"base": "base", "sft": "SFT", "policy": "policy", CHAMPION: "champion"}
COLOURS = {"base": "#7f7f7f", "sft": "#0072b2", "policy": "#d55e00", CHAMPION: "#009e73"}
LINE_STYLES = {"base": ":", "sft": "--", "policy": "-", CHAMPION: "-."}
MARKERS = {"base": "s", "sft": "D", "policy": "o", CHAMPION: "^"}
PANEL = (4.2, 3.1)
"""Width and height of one panel, inches."""
SMALL_PANEL = (3.3, 2.9)
"""The same where there are three or more in a row."""
NUM_BINS = 30
MAX_BENCHMARKS = 40
"""More would not be legible; the table has all."""
MAX_NAME_CHARACTERS = 40
LEGEND: dict[str, Any] = {"frameon": False, "ncols": len(LABELS)}


def draw(
    measured: Measurements, figures: Figures, benchmarks: Sequence[Benchmark] = ()
) -> Iterator[tuple[str, Figure]]:
    """Each plot that the measurements allow, with its name."""
    yield "win_rates", win_rates(figures)
    yield "scores", mean_scores(figures)
    yield "score_distributions", score_distributions(measured)
    if measured.history:
        yield "training_curve", training_curve(measured.history)
    yield "reply_lengths", reply_lengths(measured)
    shown = [row for row in benchmarks if row.is_headline and _is_share(row)]
    if shown:
        yield "benchmarks", benchmark_figures(shown[:MAX_BENCHMARKS])


def win_rates(figures: Figures) -> Figure:
    """Win rates with their 95 % intervals, one panel a pair of models, one row a scorer."""
    pairs = list(figures.contrasts)
    scorers = list(figures.contrasts[pairs[0]])
    width, _ = PANEL if len(pairs) < 3 else SMALL_PANEL
    figure, panels = _panels(len(pairs), (width, 1.3 + 0.42 * len(scorers)))
    for (first, second), axes in zip(pairs, panels, strict=True):
        for place, scorer in enumerate(scorers):
            contrast = figures.contrasts[first, second].get(scorer)
            if contrast is None:
                continue
            value, low, high = contrast.win_rate
            axes.errorbar(
                100 * value,
                place,
                xerr=[[100 * (value - low)], [100 * (high - value)]],
                color=COLOURS[first],
                marker=MARKERS[first],
                markersize=7,
                capsize=4,
                linewidth=1.8,
            )
        axes.axvline(50, color="black", linewidth=1, linestyle="--")
        is_first = axes is panels[0]
        axes.set_yticks(range(len(scorers)), map(_scorer, scorers) if is_first else [])
        axes.set_ylim(len(scorers) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel("win rate (%), ties half")
        axes.set_title(f"{LABELS[first]} against {LABELS[second]}")
    return figure


def benchmark_figures(benchmarks: Sequence[Benchmark]) -> Figure:
    """Each benchmark a row, each model a marker with its standard error; chance a bar."""
    height = 1.4 + 0.34 * len(benchmarks)
    figure, (axes,) = _panels(1, (2 * PANEL[0], height))
    for place, row in enumerate(benchmarks):
        if row.chance is not None:
            axes.plot([row.chance] * 2, [place - 0.38, place + 0.38], color="black", linewidth=1.4)
        for name in LABELS:
            found = row.value(name)
            if found is not None:
                axes.errorbar(
                    found.value,
                    place + 0.18 * (list(LABELS).index(name) - 1),
                    xerr=found.stderr or 0,
                    color=COLOURS[name],
                    marker=MARKERS[name],
                    markersize=5,
                    linestyle="",
                    label=LABELS[name] if place == 0 else None,
                )
    names = [_plain(f"{row.task[:MAX_NAME_CHARACTERS]} ({row.metric})") for row in benchmarks]
    axes.set_yticks(range(len(benchmarks)), names)
    axes.set_ylim(len(benchmarks) - 0.5, -0.5)
    axes.set_xlabel("figure ± standard error; upright bar: chance")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", **LEGEND)
    return figure


def mean_scores(figures: Figures) -> Figure:
    """Proxy and true score side by side: mean of each model with its 95 % interval."""
    scorers = list(figures.models["policy"].scores)
    figure, panels = _panels(len(scorers))
    for scorer, axes in zip(scorers, panels, strict=True):
        for position, name in enumerate(figures.models):
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
        axes.set_xticks(range(len(figures.models)), [LABELS[name] for name in figures.models])
        axes.set_xlim(-0.5, len(figures.models) - 0.5)
        axes.set_ylabel(f"mean {_score_label(scorer)}")
        axes.set_title(_score_title(scorer))
    return figure


def score_distributions(measured: Measurements) -> Figure:
    """Histograms of every scorer's scores, one line a model."""
    scorers = list(measured.replies["policy"].scores)
    figure, panels = _panels(len(scorers))
    for scorer, axes in zip(scorers, panels, strict=True):
        _histograms(axes, {name: measured.replies[name].scores[scorer] for name in measured.models})
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
    _histograms(
        lengths, {name: measured.replies[name].lengths for name in measured.models}, whole=True
    )
    lengths.set_xlabel("reply length (tokens)")
    lengths.set_title("Length of the replies")
    figure.legend(*lengths.get_legend_handles_labels(), loc="outside upper center", **LEGEND)
    kl = measured.replies["policy"].kl
    divergence.hist(kl, _bins(kl), color=COLOURS["policy"], alpha=0.7)
    divergence.set_xlabel("KL to the SFT model (nats a reply)")
    divergence.set_title("Distance of the policy's replies")
    _count_replies(lengths, divergence)
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


def _is_share(row: Benchmark) -> bool:
    """Whether it can stand on one axis with others: perplexities cannot."""
    found = [value.value for value in map(row.value, LABELS) if value is not None]
    return bool(found) and all(0 <= value <= 1 for value in found)


def _panels(count: int, size: tuple[float, float] | None = None) -> tuple[Figure, list[Axes]]:
    """Panels side by side.

    Args:
        size: width and height of each, inches.
    """
    width, height = size or (PANEL if count < 3 else SMALL_PANEL)
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
    return "reward-model score (raw)" if scorer == REWARD_MODEL else f"{_scorer(scorer)} score"


def _score_title(scorer: str) -> str:
    if scorer == REWARD_MODEL:
        return "Reward model (PPO maximised it)"
    return f"{_scorer(scorer)} (PPO never saw it)"


def _scorer(scorer: str) -> str:
    known = {REWARD_MODEL: "reward model", GUARD_MODEL: "guard model", JUDGE: "judge"}
    return known.get(scorer, _plain(scorer))


def _plain(text: str) -> str:
    """Text in which matplotlib finds no formula."""
    return "".join(filter(str.isprintable, text)).replace("$", r"\$")
