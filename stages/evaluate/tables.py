"""The tables on the models and their replies: what each row is called, means and shows."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from stages.core.chat import prompt_text
from stages.core.policy_gate import GUARD_MODEL, JUDGE, REWARD_MODEL, GateRow, scorer_words
from stages.core.statistics import Estimate
from stages.core.wording import number, percent
from stages.evaluate.comparison import Figures
from stages.evaluate.measurements import CHAMPION, Measurements

NAMES = {"base": "base", "sft": "SFT", "policy": "policy", CHAMPION: "champion"}
MAX_SHOWN_CHARACTERS = 500
"""Longer prompts and replies are cut in the samples table."""
NOTHING = "–"


class Cell(NamedTuple):
    """A figure, and what stands small below it."""

    text: str
    small: str = ""
    is_bold: bool = False


class Table(NamedTuple):
    """A table of which the columns after the first hold figures, or texts where not."""

    columns: list[str]
    rows: list[list[Cell]]
    has_figures: bool = True


def gate(rows: Sequence[GateRow]) -> Table:
    marks = {"passed": "✓ passed", "failed": "✗ failed", "not measured": "○ not measured"}
    return Table(
        ["what is asked", "outcome", "found", "limit"],
        [
            [Cell(row.rule), Cell(marks[row.outcome]), Cell(row.figure), Cell(row.limit)]
            for row in rows
        ],
        has_figures=False,
    )


def headline(measured: Measurements, figures: Figures) -> Table:
    """The models side by side."""
    models = list(figures.models.values())
    rows = [
        [
            Cell(_label(scorer), _explanation(scorer), is_bold=True),
            *(interval(model.scores[scorer]) for model in models),
        ]
        for scorer in (REWARD_MODEL, *measured.scorers)
    ]
    rows.insert(
        1,
        _row(
            "… in standard deviations",
            "the same, relative to the SFT samples seen when it was trained",
            [number(model.normalized_score, 2, signed=True) for model in models],
        ),
    )
    rows += [
        [
            Cell("KL to the SFT model", "distance, nats a reply; 0 is equal", is_bold=True),
            *(
                Cell("0") if name == "sft" else interval(model.kl, 2)
                for name, model in figures.models.items()
            ),
        ],
        [
            Cell("Reply length", "mean, tokens", is_bold=True),
            *(interval(model.length, 1) for model in models),
        ],
        _row(
            "Replies that end by themselves",
            "the rest hit the length limit",
            [percent(model.eos_rate) for model in models],
        ),
        _row(
            "Distinct words · word pairs",
            "share that occurs first, over all replies; low is repetitive",
            [f"{_share(model.distinct_1)} · {_share(model.distinct_2)}" for model in models],
        ),
        _row(
            "Repetition within a reply",
            "share of its groups of four words said before; high runs in circles",
            [_share(model.repetition) for model in models],
        ),
    ]
    if measured.sft_loss:
        rows.append(
            _row(
                "Loss on demonstrations",
                "held-out replies, nats a token; lower is better",
                [number(measured.sft_loss[name], 3) for name in figures.models],
            )
        )
    if measured.bits_per_byte:
        rows.append(
            _row(
                "Bits per byte",
                "prediction of held-out documents; lower is better, higher after training means "
                "forgetting",
                [number(measured.bits_per_byte[name], 3) for name in figures.models],
            )
        )
    return Table(["", *(NAMES[name] for name in figures.models)], rows)


def contrasts(figures: Figures) -> Table:
    """Who wins against whom, by whom."""
    rows = []
    for (first, second), by_scorer in figures.contrasts.items():
        for scorer, contrast in by_scorer.items():
            difference, controlled = contrast.difference, contrast.length_controlled
            rows.append(
                [
                    Cell(
                        f"{NAMES[first]} against {NAMES[second]}",
                        f"by {scorer_words(scorer)}, {contrast.num_prompts} prompts",
                        is_bold=True,
                    ),
                    share(contrast.win_rate),
                    Cell(percent(contrast.ties)),
                    share(controlled)
                    if isinstance(controlled, Estimate)
                    else Cell(NOTHING, controlled.reason),
                    Cell(NOTHING) if difference is None else interval(difference, signed=True),
                ]
            )
    columns = ["", "win rate", "ties", "win rate at equal length", "mean score difference"]
    return Table(columns, rows)


REFERENCE_FIGURES = {
    "exact_match": ("Exact match", "the same answer, but for case, punctuation and articles"),
    "token_f1": ("F1", "words in common with the reference, 0 to 1"),
    "rouge_l": ("ROUGE-L", "words in common in the same order, 0 to 1"),
    "bleu": ("BLEU", "groups of words in common, all replies together, 0 to 100"),
    "chrf": ("chrF", "groups of letters in common, all replies together, 0 to 100"),
}


def references(figures: Figures) -> Table | None:
    """Likeness to the replies that people gave; None without such replies."""
    if not figures.references:
        return None
    rows = []
    for name, (label, explanation) in REFERENCE_FIGURES.items():
        cells = [found.figures[name] for found in figures.references.values()]
        show = share if name == "exact_match" else partial(interval, digits=2)
        rows.append(
            [
                Cell(label, explanation, is_bold=True),
                *(
                    show(cell) if isinstance(cell, Estimate) else Cell(NOTHING, cell.reason)
                    for cell in cells
                ),
            ]
        )
    return Table(["", *(NAMES[name] for name in figures.references)], rows)


def safety(measured: Measurements, figures: Figures) -> Table | None:
    """What was measured of the replies' safety; None where nothing was."""
    rows = []
    for name, measure in measured.measures.items():
        found = figures.measures[name]
        change = found.differences.get(("policy", "sft"))
        label = f"{measure.explanation}; {found.num_prompts} replies each"
        rows.append(
            [
                Cell(measure.label, label, is_bold=True),
                *(share(found.means[model]) for model in figures.models),
                Cell(NOTHING) if change is None else share_difference(change),
            ]
        )
    for total in measured.totals.values():
        values = [number(total.values[model], 0) for model in figures.models]
        rows.append([*_row(total.label, total.explanation, values), Cell(NOTHING)])
    columns = ["", *(NAMES[name] for name in figures.models), "policy − SFT"]
    return Table(columns, rows) if rows else None


def samples(measured: Measurements, chosen: Sequence[int]) -> Table | None:
    """Some prompts with all models' replies; None where none is chosen."""
    if not chosen:
        return None
    rows = [
        [
            Cell(_cut(prompt_text(measured.prompts[index]))),
            *(_reply(measured, name, index) for name in measured.models),
        ]
        for index in chosen
    ]
    columns = ["prompt", *(NAMES[name] for name in measured.models)]
    return Table(columns, rows, has_figures=False)


# ---------------------------------------------------------------------------------------- cells


def interval(estimate: Estimate, digits: int = 3, *, signed: bool = False) -> Cell:
    """A number with its interval below."""
    value, low, high = (number(item, digits, signed=signed) for item in estimate)
    return Cell(value, f"{low} to {high}")


def share(estimate: Estimate) -> Cell:
    """A share with its interval below."""
    value, low, high = map(percent, estimate)
    return Cell(value, f"{low} to {high}")


def share_difference(estimate: Estimate) -> Cell:
    """A difference of shares in points, with its interval below."""
    value, low, high = (number(100 * item, 1, signed=True) for item in estimate)
    return Cell(f"{value} points", f"{low} to {high}")


def _row(label: str, explanation: str, values: Sequence[str]) -> list[Cell]:
    return [Cell(label, explanation, is_bold=True), *map(Cell, values)]


def _label(scorer: str) -> str:
    known = {REWARD_MODEL: "Reward-model score", GUARD_MODEL: "Guard-model score", JUDGE: "Judge"}
    return known.get(scorer, f"{scorer} score")


def _explanation(scorer: str) -> str:
    known = {
        REWARD_MODEL: "what PPO maximises, raw; only differences have a meaning",
        GUARD_MODEL: "a second reward model that PPO never saw, raw",
    }
    return known.get(scorer, "a judge of your own that PPO did not maximise")


def _reply(measured: Measurements, name: str, index: int) -> Cell:
    replies = measured.replies[name]
    figures: list[Any] = [
        f"{scorer.replace('_', ' ')} {number(values[index])}"
        for scorer, values in replies.scores.items()
    ]
    if name != "sft":
        figures.append(f"KL {number(replies.kl[index], 1)}")
    figures.append(f"{replies.lengths[index]} tokens")
    if not replies.ended[index]:
        figures.append("cut off")
    return Cell(_cut(replies.texts[index]) or "(empty)", " · ".join(figures))


def _share(value: float | None) -> str:
    return NOTHING if value is None else percent(value)


def _cut(text: str) -> str:
    rest = len(text) - MAX_SHOWN_CHARACTERS
    return text if rest <= 0 else f"{text[:MAX_SHOWN_CHARACTERS]}… ({rest} more characters)"
