"""The result folder: benchmarks.json, benchmarks.md, the answers, and a plot."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from stages.benchmarks.measure import Answers
from stages.benchmarks.table import Row, contrasts
from stages.core import tracking

LABELS = {"base": "base", "sft": "SFT", "policy": "policy"}
SHARES = ("acc", "acc_norm", "average", "mcc", "f1", "em", "pct_stereotype")
"""Metrics that one axis can show."""
MARKERS = ("s", "D", "o", "^", "v")
SHADES = ("#9a9a9a", "#4d4d4d", "#000000", "#6e6e6e", "#2b2b2b")
NOTES = (
    "± is one standard error; of a difference, that of the same questions answered by both models "
    "(for CB's F1, as if they were different questions). Chance is what guessing reaches, all "
    "options being equally likely; majority what always giving the commonest answer does. GLUE and "
    "SuperGLUE: mean of each task's first metric (CoLA: MCC, others: accuracy). Perplexity: texts "
    "are cut into passages, each predicted without those before it. pct_stereotype is neutral at "
    "0.5."
)


def write(
    folder: Path,
    models: Sequence[str],
    rows: Sequence[Row],
    answers: Mapping[str, Mapping[str, Answers]],
    settings: Mapping[str, Any],
) -> None:
    """Write everything to ``folder``, and the tables and the plot to the stage's run."""
    folder.mkdir(parents=True)
    content = {"models": list(models), "rows": rows, "settings": settings}
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    (folder / "benchmarks.json").write_text(text, encoding="utf-8")
    (folder / "benchmarks.md").write_text(markdown(models, rows, settings), encoding="utf-8")
    for model, by_task in answers.items():
        with (folder / f"answers_{model}.jsonl").open("w", encoding="utf-8") as file:
            for task, item in by_task.items():
                for number, logprobs in enumerate(item.get("logprobs", ())):
                    contributions = {name: of[number] for name, of in item["questions"].items()}
                    line = {"task": task, "question": number, "logprobs": logprobs}
                    file.write(json.dumps(line | contributions) + "\n")
    tracking.log_table([_flat(row, models) for row in rows], "benchmarks")
    compared = contrasts(models)
    if compared:
        shown = [row for row in rows if row["differences"] and _is_headline(row)]
        tracking.log_table([_tax(row, compared) for row in shown], "alignment_tax")
    figure = draw(models, rows)
    if figure is not None:
        tracking.log_figure(figure, "benchmarks", folder)


def markdown(models: Sequence[str], rows: Sequence[Row], settings: Mapping[str, Any]) -> str:
    """The figures as tables, those of MMLU's single subjects last."""
    measured = [row for row in rows if row["values"]]
    names = [LABELS.get(model, model) for model in models]
    columns = ["benchmark", "metric", *names, "chance", "majority", "questions", "examples"]
    parts = ["# Benchmarks", _settings_text(settings)]
    parts.append(_table(columns, [_cells(row, models) for row in measured if _is_headline(row)]))
    compared = contrasts(models)
    if compared:
        parts.append("## Alignment tax")
        heads = [f"{_label(later)} − {_label(earlier)}" for later, earlier in compared]
        lines = [
            [_name(row), row["metric"], *(_figure(row["differences"].get(f"{a}-{b}"), sign=True)
             for a, b in compared)]
            for row in measured
            if _is_headline(row)
        ]  # fmt: skip
        parts.append(_table(["benchmark", "metric (better)", *heads], _with_direction(lines, rows)))
    missing = [f"- {row['task']}: not measured: {row['problem']}" for row in rows if row["problem"]]
    if missing:
        parts += ["## Not measured", "\n".join(missing)]
    notes = [f"- {row['task']}: {row['note']}" for row in rows if row["note"]]
    if notes:
        parts += ["## Notes", "\n".join(dict.fromkeys(notes))]
    subjects = [row for row in measured if not _is_headline(row)]
    if subjects:
        parts += ["## MMLU by subject", _table(columns, [_cells(row, models) for row in subjects])]
    return "\n\n".join([*parts, NOTES]) + "\n"


def draw(models: Sequence[str], rows: Sequence[Row]) -> Figure | None:
    """A line a benchmark: each model's figure with its standard error, and the chance level. Models
    are told apart by shape and shade, so that it reads in grey."""
    shown = [row for row in rows if row["values"] and _is_headline(row) and row["metric"] in SHARES]
    if not shown:
        return None
    figure = Figure(figsize=(7.5, 1.4 + 0.3 * len(shown)), layout=ConstrainedLayoutEngine())
    axes = figure.add_subplot()
    for number, model in enumerate(models):
        offset = (number - (len(models) - 1) / 2) * 0.2
        points = [
            (place + offset, row["values"][model])
            for place, row in enumerate(shown)
            if model in row["values"]
        ]
        axes.errorbar(
            [item["value"] for _, item in points],
            [place for place, _ in points],
            xerr=[item["stderr"] or 0.0 for _, item in points],
            fmt=MARKERS[number % len(MARKERS)],
            color=SHADES[number % len(SHADES)],
            markersize=5,
            markerfacecolor="white" if number % 3 == 0 and len(models) > 1 else None,
            capsize=2,
            linewidth=1,
            label=_label(model),
        )
    with_chance = [(place, row["chance"]) for place, row in enumerate(shown)]
    known = [(place, chance) for place, chance in with_chance if chance is not None]
    axes.plot(
        [chance for _, chance in known],
        [place for place, _ in known],
        linestyle="",
        marker="|",
        markersize=15,
        markeredgewidth=1.5,
        color="#d55e00",
        label="chance",
    )
    axes.set_yticks(range(len(shown)), [f"{_name(row)}  {row['metric']}" for row in shown])
    for label, row in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_fontweight("bold" if row["is_average"] else "normal")
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("figure ± standard error")
    figure.legend(loc="outside upper center", ncols=len(models) + 1, frameon=False)
    return figure


# ------------------------------------------------------------------------------------ helpers


def _is_headline(row: Row) -> bool:
    return row["suite"] != "mmlu" or row["is_average"]


def _name(row: Row) -> str:
    return row["task"].removesuffix("_english").replace("_", " ")


def _label(model: str) -> str:
    return LABELS.get(model, model)


def _figure(item: Mapping[str, float | None] | None, *, sign: bool = False) -> str:
    if item is None or item["value"] is None:
        return "–"
    value = f"{item['value']:+.3f}" if sign else f"{item['value']:.3f}"
    error = "" if item["stderr"] is None else f" ± {item['stderr']:.3f}"
    return (value + error).replace("-", "−")


def _level(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _cells(row: Row, models: Sequence[str]) -> list[str]:
    values = [_figure(row["values"].get(model)) for model in models]
    examples = "–" if row["num_fewshot"] is None else str(row["num_fewshot"])
    name = f"**{_name(row)}**" if row["is_average"] else _name(row)
    levels = [_level(row["chance"]), _level(row["majority"])]
    return [name, row["metric"], *values, *levels, f"{row['num_questions']:,}", examples]


def _with_direction(lines: list[list[str]], rows: Sequence[Row]) -> list[list[str]]:
    better = {(_name(row), row["metric"]): row["higher_is_better"] for row in rows}
    arrows = {True: " (higher)", False: " (lower)", None: ""}
    return [[name, metric + arrows[better[name, metric]], *rest] for name, metric, *rest in lines]


def _settings_text(settings: Mapping[str, Any]) -> str:
    limit = f"the first {settings['limit']}" if settings["limit"] else "all"
    data = "the Hub's data" if settings["data"] == "hub" else "local data"
    template = "in the chat template" if settings["apply_chat_template"] else "as plain text"
    return (
        f"lm-evaluation-harness {settings['harness']}, {data}, {limit} questions of each task, "
        f"{template}."
    )


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    head = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return "\n".join([*head, *(f"| {' | '.join(line)} |" for line in lines)])


def _flat(row: Row, models: Sequence[str]) -> dict[str, Any]:
    """One row of the tracked table."""
    flat = {name: row[name] for name in ("suite", "task", "metric", "chance", "num_questions")}
    for model in models:
        item = row["values"].get(model, {})
        flat |= {model: item.get("value"), f"{model}_stderr": item.get("stderr")}
    return flat | {"problem": row["problem"]}


def _tax(row: Row, compared: Sequence[tuple[str, str]]) -> dict[str, Any]:
    flat = {name: row[name] for name in ("task", "metric", "higher_is_better")}
    for later, earlier in compared:
        item = row["differences"].get(f"{later}-{earlier}", {})
        name = f"{later} - {earlier}"
        flat |= {name: item.get("value"), f"{name} stderr": item.get("stderr")}
    return flat
