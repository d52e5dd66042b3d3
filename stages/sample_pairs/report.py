"""What the choice of pairs came to: figures, a report and a plot. Colours are Okabe & Ito's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.figure import Figure

from stages.core.config import SamplePairsConfig
from stages.core.feedback.pairs import CandidatePair, Purpose
from stages.core.markdown_text import escape
from stages.sample_pairs.choice import Choice

PLOT = "candidates"
CANDIDATE, CHOSEN, RANDOM = "#999999", "#d55e00", "#0072b2"
NUM_BINS = 40
MAX_POINTS = 5000
"""Points of a scatter plot: more only cover each other."""
WANTED_BY = {
    "disagreement": "about whose margin reward model and guard model differ most",
    "margin": "that the reward model scores most alike",
    "random": "drawn at random",
}


@dataclass(frozen=True)
class Outcome:
    """What was sampled and selected."""

    config: SamplePairsConfig
    choice: Choice
    """What decided, which may be less than was wished for."""
    candidates: Sequence[CandidatePair]
    selected: Mapping[Purpose, Sequence[CandidatePair]]
    counts: Mapping[str, int]
    """What there was and what was left out."""
    models: Sequence[str]
    notes: Sequence[str]
    """What the reader should know, such as why there are fewer pairs than wished for."""


def metrics(outcome: Outcome) -> dict[str, float]:
    """Every figure under a flat name."""
    found: dict[str, float] = {name: float(count) for name, count in outcome.counts.items()}
    found["num_candidates"] = float(len(outcome.candidates))
    found["num_pairs"] = float(sum(map(len, outcome.selected.values())))
    for purpose, pairs in outcome.selected.items():
        found[f"num_{purpose}"] = float(len(pairs))
    groups = {"candidates": outcome.candidates, **outcome.selected}
    for name, pairs in groups.items():
        margins = [abs(pair.margin) for pair in pairs if pair.margin is not None]
        found |= {f"mean_margin_{name}": fmean(margins)} if margins else {}
        differences = [pair.disagreement for pair in pairs if pair.disagreement is not None]
        found |= {f"mean_disagreement_{name}": fmean(differences)} if differences else {}
    return found


def markdown(outcome: Outcome, figures: Mapping[str, float], has_plot: bool) -> str:
    """The report as Markdown."""
    config = outcome.config
    lines = [
        "# Pairs to ask about",
        "",
        f"{figures['num_pairs']:.0f} pairs of replies by {escape(', '.join(outcome.models))} to "
        f"{figures['num_prompts']:.0f} prompts at temperature "
        f"{', '.join(f'{value:g}' for value in config.temperatures)}.",
        "",
        "| purpose | pairs | mean margin | mean disagreement | |",
        "|---|---|---|---|---|",
    ]
    about = {
        "candidates": "all different pairs that were not asked about before",
        "chosen": f"{WANTED_BY[outcome.choice]}; to learn from",
        "random": "from prompts set apart; for evaluation alone",
        "gold": "the answer is known; they tell how careful a reviewer is",
    }
    for name, text in about.items():
        cells = [_number(figures.get(f"mean_{kind}_{name}")) for kind in ("margin", "disagreement")]
        lines.append(f"| {name} | {figures[f'num_{name}']:.0f} | {' | '.join(cells)} | {text} |")
    lines += [
        "",
        "A margin is the distance of both replies' scores by the reward model, a disagreement that "
        "of the margins by both reward models, in standard deviations of the scores.",
        "",
        *(f"- {name.removeprefix('num_').replace('_', ' ')}: {count}"
          for name, count in outcome.counts.items()),
        *(f"- {escape(note)}" for note in outcome.notes),
    ]  # fmt: skip
    if has_plot:
        lines += ["", f"![Margins of the candidates](plots/{PLOT}.png)"]
    return "\n".join(lines) + "\n"


def draw(outcome: Outcome) -> Figure | None:
    """The candidates by their margins, with the pairs that are asked about; None without scores."""
    scored = [pair for pair in outcome.candidates if pair.margin is not None]
    if not scored:
        return None
    figure = Figure(figsize=(5.6, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    groups = (
        (scored, CANDIDATE, ".", "candidates"),
        (outcome.selected["random"], RANDOM, "s", "random share"),
        (outcome.selected["chosen"], CHOSEN, "o", "chosen"),
    )
    if all(pair.disagreement is not None for pair in scored):
        for pairs, colour, marker, label in groups:
            shown = pairs[:MAX_POINTS]
            margins = [abs(pair.margin) for pair in shown]
            disagreements = [pair.disagreement for pair in shown]
            size = 9 if marker == "." else 16
            axes.scatter(margins, disagreements, s=size, c=colour, marker=marker, label=label)
        axes.set_ylabel("disagreement of both reward models")
    else:
        longest = max(abs(pair.margin) for pair in scored)
        for pairs, colour, _, label in groups:
            margins = [abs(pair.margin) for pair in pairs]
            axes.hist(margins, NUM_BINS, (0, longest or 1.0), color=colour, label=label)
        axes.set(ylabel="pairs", yscale="log")
    axes.set_xlabel("margin by the reward model (standard deviations)")
    figure.legend(loc="outside upper center", ncols=len(groups), frameon=False)
    return figure


# ------------------------------------------------------------------------------------ helpers


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
