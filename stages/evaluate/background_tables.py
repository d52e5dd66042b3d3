"""The tables on what is behind the models: reward model, benchmarks, data, stages, settings."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from stages.core.config import EvaluateConfig
from stages.core.personal_data import KINDS
from stages.core.wording import number, percent
from stages.evaluate.earlier import Benchmark, BenchmarkValue, Card, CardRow, alignment_tax
from stages.evaluate.held_out import MAX_CONTEXT
from stages.evaluate.lineage import Lineage
from stages.evaluate.measurements import Measurements
from stages.evaluate.tables import NAMES, NOTHING, Cell, Table

NUM_WORST_PAIRS = 5
WORST_PAIR_COLUMNS = ("prompt", "chosen", "rejected", "score_chosen", "score_rejected")
MAX_CHARACTERS = 300
CHANGES = ("repaired", "notices", *KINDS, "contradictory")
"""Of cleaning's counts, those that drop no record."""
ONE_HOUR, ONE_MINUTE = 3600, 60


# ----------------------------------------------------------------------------------- reward model


def card_figures(card: Card) -> Table:
    """The card's headline figures."""
    return Table(
        [f"on {card.num_pairs} held-out pairs", ""],
        [[Cell(row.label, row.explanation, is_bold=True), _card_cell(row)] for row in card.rows],
    )


def card_tables(card: Card) -> list[tuple[str, str, Table]]:
    """The card's further tables, each with title and explanation."""
    return [
        (
            table.title,
            table.explanation,
            Table(table.columns, [[Cell(str(value)) for value in row] for row in table.rows]),
        )
        for table in card.tables
        if table.rows
    ]


def worst_pairs(card: Card) -> Table | None:
    """The pairs that the reward model ranks most wrongly; None where it ranks none wrongly."""
    if not card.worst_pairs:
        return None
    columns = [name for name in WORST_PAIR_COLUMNS if name in card.worst_pairs[0]]
    return Table(
        [column.replace("_", " ") for column in columns],
        [
            [Cell(_cut(_plain(pair.get(column, "")))) for column in columns]
            for pair in card.worst_pairs[:NUM_WORST_PAIRS]
        ],
        has_figures=False,
    )


# ------------------------------------------------------------------------------------- benchmarks


def benchmarks(rows: Sequence[Benchmark]) -> Table | None:
    """Every benchmark with chance level, models and the tax; None where there is none."""
    models = [name for name in NAMES if any(row.value(name) for row in rows)]
    if not models:
        return None
    return Table(
        ["", "chance", *(NAMES[name] for name in models), "policy − SFT"],
        [
            [
                Cell(row.task, _about(row), is_bold=True),
                Cell(NOTHING if row.chance is None else number(row.chance, 3)),
                *(_benchmark_cell(row.value(name)) for name in models),
                _difference_cell(row.difference("policy", "sft")),
            ]
            for row in rows
        ],
    )


def taxes(rows: Sequence[Benchmark]) -> list[str]:
    """What each step of the training changed, on average over the benchmarks of abilities."""
    lines = []
    for first, second in (("policy", "sft"), ("sft", "base"), ("policy", "base")):
        tax = alignment_tax(rows, first, second)
        if tax is not None:
            error = "" if tax.error is None else f" ± {number(100 * tax.error, 1)}"
            lines.append(
                f"{NAMES[first]} − {NAMES[second]}: {number(100 * tax.difference, 1, signed=True)}"
                f"{error} points, mean of {tax.num_benchmarks} benchmarks"
            )
    return lines


_BETTER = {True: "higher", False: "lower"}


def _about(row: Benchmark) -> str:
    questions = f", {row.num_questions:,} questions" if row.num_questions else ""
    better = "" if row.higher_is_better is None else f", {_BETTER[row.higher_is_better]} is better"
    problem = f". Problem: {row.problem}" if row.problem else ""
    return f"{row.metric}{better}{questions}{problem}".removeprefix(", ").removeprefix(". ")


def _benchmark_cell(found: BenchmarkValue | None) -> Cell:
    if found is None:
        return Cell(NOTHING)
    error = "" if found.stderr is None else f"± {number(found.stderr, 3)}"
    return Cell(number(found.value, 3), error)


def _difference_cell(found: BenchmarkValue | None) -> Cell:
    if found is None:
        return Cell(NOTHING)
    error = "" if found.stderr is None else f"± {number(found.stderr, 3)}"
    return Cell(number(found.value, 3, signed=True), error)


# ---------------------------------------------------------------------------------------- lineage


def stages(lineage: Lineage, judge_dollars: float | None) -> Table:
    """Time and code of every stage behind the report."""
    rows = [
        [
            Cell(stage.name, stage.key, is_bold=True),
            Cell(_duration(stage.seconds)),
            Cell(stage.device),
            Cell(stage.git_commit[:10] or NOTHING),
        ]
        for stage in lineage.stages
    ]
    total = sum(stage.seconds for stage in lineage.stages)
    cost = "" if judge_dollars is None else f"and {judge_dollars:.2f} US dollars for the judge"
    rows.append(
        [Cell("all", cost, is_bold=True), Cell(_duration(total)), Cell(NOTHING), Cell(NOTHING)]
    )
    return Table(["stage", "time", "processes × device", "code"], rows)


def data(lineage: Lineage) -> Table | None:
    """Every data set with its digest, and what cleaning did to it; None without data."""
    rows = []
    for kind, digest in lineage.data.items():
        splits = {name: row for name, row in lineage.counts.items() if name.split("/")[0] == kind}
        if not splits:
            rows.append([Cell(kind, digest[:12], is_bold=True), *(Cell(NOTHING) for _ in range(4))])
        for name, counts in splits.items():
            split = name.partition("/")[2].replace("_", "-")
            dropped = {
                rule: count
                for rule, count in counts.items()
                if rule not in ("read", "kept", *CHANGES)
            }
            changed = {rule: counts.get(rule, 0) for rule in CHANGES}
            rows.append(
                [
                    Cell(f"{kind}, {split}", digest[:12], is_bold=True),
                    Cell(f"{counts.get('read', 0):,}"),
                    Cell(f"{counts.get('kept', 0):,}"),
                    Cell(_listed(dropped)),
                    Cell(_listed(changed)),
                ]
            )
    columns = ["data, digest", "read", "kept", "dropped by rule", "changed or noted"]
    return Table(columns, rows) if rows else None


def settings(lineage: Lineage, config: EvaluateConfig, changed: Mapping[str, object]) -> Table:
    """What differs from the defaults, stage by stage."""
    everything = [(stage.name, stage.changed_settings) for stage in lineage.stages]
    rows = [
        [Cell(name, is_bold=True), Cell(_settings(values))]
        for name, values in (*everything, (config.stage, changed))
    ]
    return Table(["stage", "settings other than the defaults"], rows, has_figures=False)


def notes(config: EvaluateConfig, measured: Measurements, card: Card | None) -> list[str]:
    """How the figures came about."""
    notes = [
        "Replies are pure samples at the stated temperature (no top-k or top-p), with the same "
        "random numbers for each model. KL is the sum over a reply's tokens of "
        "log p(model) − log p(SFT model) at that temperature.",
        f"Intervals are 95\u00a0%: {config.num_bootstrap_samples} bootstrap resamples of the "
        "prompts, differences paired by prompt; Wilson's for win rates (ties count half) and for "
        "the shares of toxic or refusing replies.",
    ]
    if measured.num_bytes:
        notes.append(
            f"Bits per byte over {measured.num_bytes:,} bytes of held-out documents, in chunks of "
            f"at most {MAX_CONTEXT} tokens or the model's limit."
        )
    if measured.num_demonstrations:
        notes.append(
            f"Loss over the replies (not the prompts) of {measured.num_demonstrations} held-out "
            "demonstrations."
        )
    for (first, second), judged in measured.judged.items():
        notes.append(f"The judge on {NAMES[first]} and {NAMES[second]}: {judged.note}")
    if card is not None:
        notes += [f"Reward model: {note}" for note in card.notes]
    return notes


# ------------------------------------------------------------------------------------ helpers


def _card_cell(row: CardRow) -> Cell:
    if not row.is_share:
        return _card_interval(row, partial(number, digits=3))
    if "minus" in row.name:
        return _card_interval(row, lambda value: number(100 * value, 1, signed=True), " points")
    return _card_interval(row, percent)


def _card_interval(row: CardRow, show: Callable[[float], str], unit: str = "") -> Cell:
    if row.low is None or row.high is None:
        return Cell(show(row.value) + unit)
    return Cell(show(row.value) + unit, f"{show(row.low)} to {show(row.high)}")


def _listed(counts: Mapping[str, int]) -> str:
    shown = [f"{rule.replace('_', ' ')} {count:,}" for rule, count in counts.items() if count]
    return ", ".join(shown) or NOTHING


def _settings(values: Mapping[str, object]) -> str:
    shown = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
    return "\n".join(shown) or "all defaults"


def _duration(seconds: float) -> str:
    if seconds >= ONE_HOUR:
        return f"{seconds / ONE_HOUR:.1f} h"
    return f"{seconds / ONE_MINUTE:.1f} min" if seconds >= ONE_MINUTE else f"{seconds:.0f} s"


def _plain(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + "…"
