"""From answers to figures: rows of tasks and of suites, and the differences between models.

Two models answer the same questions, so the standard error of their difference is that of the mean
of the questions' differences: narrower than that of two independent figures. Where a figure has no
such parts (the F1 of three classes), the two are compared as if independent, which errs on the wide
side.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from lm_eval.api.metrics import (
    aggregate_subtask_metrics,
    pooled_sample_stderr,
    unweighted_mean_stderr,
)

from stages.benchmarks.classification import METRICS, bootstrap_stderr
from stages.benchmarks.measure import Answers
from stages.benchmarks.tasks import BenchmarkTask, Problem

PERPLEXITIES = ("word_perplexity", "byte_perplexity")
SUITE_AVERAGE = "average"
SEED = 0
"""Of the bootstrap."""
Row = dict[str, Any]


def rows(
    tasks: Sequence[BenchmarkTask],
    problems: Sequence[Problem],
    answers: Mapping[str, Mapping[str, Answers]],
    suites: Sequence[str],
) -> list[Row]:
    """A row for each task and metric, averages before the tasks that they are of, and a row with
    its problem for each task that was not measured; in the order of ``suites``."""
    result: list[Row] = []
    for suite in suites:
        measured = [row for task in tasks if task.suite == suite for row in _task(task, answers)]
        missing = [
            _problem_row(suite, problem.name, problem.reason)
            for problem in problems
            if problem.suite == suite
        ]
        unmeasured = len({row["task"] for row in (*measured, *missing) if row["problem"]})
        averages: list[Row] = []
        if suite == "mmlu":
            averages = _mmlu(measured, unmeasured)
        elif suite in ("glue", "super_glue"):
            averages = _average(suite, measured, unmeasured)
        result += [*averages, *measured, *missing]
    for row in result:
        row["differences"] = _differences(row)
        row.pop("parts")
    return result


def contrasts(models: Sequence[str]) -> list[tuple[str, str]]:
    """Which models are compared: each with the one before it, and the last with the first."""
    pairs = [(later, earlier) for earlier, later in pairwise(models)]
    return [*pairs, (models[-1], models[0])] if len(models) > 2 else pairs


def flat_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Every figure under a name of its own, MMLU's single subjects left out."""
    metrics = {}
    for row in rows:
        for model, figure in row["values"].items():
            if row["suite"] != "mmlu" or row["is_average"]:
                name = f"benchmark_{row['task']}_{row['metric']}"
                metrics[f"{name}_{model}"] = figure["value"]
                if figure["stderr"] is not None:
                    metrics[f"{name}_{model}_stderr"] = figure["stderr"]
    return metrics


# ------------------------------------------------------------------------------------ helpers


def _task(task: BenchmarkTask, answers: Mapping[str, Mapping[str, Answers]]) -> list[Row]:
    """A row for each metric of a task."""
    of_models = {model: by_task[task.name] for model, by_task in answers.items()}
    failed = {model: item["problem"] for model, item in of_models.items() if "problem" in item}
    said = "; ".join(f"{model}: {problem}" for model, problem in failed.items())
    if len(failed) == len(of_models):
        return [_problem_row(task.suite, task.name, said)]
    notes = [task.note] if task.note else []
    for model, item in of_models.items():
        if count := item.get("num_truncated"):
            notes.append(f"{model}: {count} prompts cut to the model's length")
        if task.baselines.majority and len(_choices(item)) == 1 < task.num_questions:
            notes.append(f"{model}: the same answer to every question")
    result = []
    for metric, is_better in task.task.higher_is_better().items():
        row = _row(task.suite, task.name, metric, task.num_questions)
        row |= {
            "higher_is_better": is_better,
            "chance": task.baselines.chance.get(metric),
            "majority": task.baselines.majority.get(metric),
            "num_fewshot": task.num_fewshot,
            "category": task.category,
            "note": "; ".join(notes),
            "problem": said,
        }
        for model, item in of_models.items():
            figure = item.get("metrics", {}).get(metric, {})
            if figure.get("value") is None:
                if model not in failed:
                    row["problem"] = f"{model}: {metric} is not a finite number"
                continue
            questions = item["questions"][metric]
            parts, stderr = _influence(task, questions, metric), figure["stderr"]
            if isinstance(parts, list):
                stderr = bootstrap_stderr(metric, parts, seed=SEED)
            elif stderr is None and parts is not None and len(parts) > 1:
                stderr = _stderr(parts)
            row["values"][model] = {"value": figure["value"], "stderr": stderr}
            row["parts"][model] = parts
        result.append(row)
    return result


def _choices(item: Answers) -> set[int]:
    """Which options the model took, by their numbers."""
    return {int(np.argmax(values)) for values in item.get("logprobs", ())}


def _influence(
    task: BenchmarkTask, questions: Sequence[Any], metric: str
) -> np.ndarray | list[Any] | None:
    """What each question adds to the figure, so that the standard error of the figure is that of
    their mean; for F1 and MCC of two classes the right and the given answers; else None.

    For perplexities, which are functions of a ratio of sums over texts, the linear part (the delta
    method for ratio estimators).
    """
    if isinstance(questions[0], float):
        return np.array(questions)
    if metric in METRICS:  # CB's F1 is a mean over three classes, whichever of them occur
        return list(questions) if len(task.task.config.doc_to_choice) == 2 else None
    if metric not in (*PERPLEXITIES, "bits_per_byte"):
        return None
    logprobs, sizes = np.array(questions).T
    ratio = -logprobs.sum() / sizes.sum()
    linear = (-logprobs - ratio * sizes) / sizes.mean()
    return linear / math.log(2) if metric == "bits_per_byte" else linear * math.exp(ratio)


def _stderr(parts: np.ndarray) -> float | None:
    with np.errstate(over="ignore", invalid="ignore"):  # a perplexity may be close to any limit
        stderr = float(parts.std(ddof=1) / math.sqrt(len(parts)))
    return stderr if math.isfinite(stderr) else None


def _mmlu(measured: Sequence[Row], unmeasured: int) -> list[Row]:
    """The accuracy over all subjects and over each category's, by their numbers of questions, as
    the harness averages them."""
    categories = sorted({row["category"] for row in measured if row["category"]})
    result = []
    for name in ("mmlu", *categories):
        of_it = [row for row in measured if name in ("mmlu", row["category"]) and row["values"]]
        if of_it:
            missing = unmeasured if name == "mmlu" else 0
            result.append(_combined("mmlu", name, "acc", of_it, missing, by_size=True))
    return result


def _average(suite: str, measured: Sequence[Row], unmeasured: int) -> list[Row]:
    """The mean over the tasks of each task's first metric, all tasks counting the same."""
    first = {row["task"]: row for row in reversed(measured) if row["values"]}
    ordered = [row for row in measured if first.get(row["task"]) is row]
    if len(ordered) < 2:
        return []
    return [_combined(suite, suite, SUITE_AVERAGE, ordered, unmeasured, by_size=False)]


def _combined(
    suite: str, name: str, metric: str, of_it: Sequence[Row], unmeasured: int, *, by_size: bool
) -> Row:
    sizes = [row["num_questions"] for row in of_it]
    row = _row(suite, name, metric, sum(sizes))
    models = [model for model in of_it[0]["values"] if all(model in r["values"] for r in of_it)]
    for model in models:
        values = [item["values"][model]["value"] for item in of_it]
        errors = [item["values"][model]["stderr"] for item in of_it]
        row["values"][model] = {
            "value": float(aggregate_subtask_metrics(values, sizes, by_size)),
            "stderr": _combined_stderr(errors, sizes, by_size),
        }
    # That of MMLU's letters would be a mean over as many best letters as there are subjects.
    for level in ("chance",) if by_size else ("chance", "majority"):
        levels = [item[level] for item in of_it]
        if None not in levels:
            row[level] = float(aggregate_subtask_metrics(levels, sizes, by_size))
    shots = {item["num_fewshot"] for item in of_it}
    row |= {
        "is_average": True,
        "higher_is_better": True,
        "num_fewshot": shots.pop() if len(shots) == 1 else None,
        "parts": {"of": (list(of_it), sizes, by_size)},
        "note": f"{unmeasured} of {len(of_it) + unmeasured} tasks not measured"
        if unmeasured
        else "",
    }
    return row


def _combined_stderr(
    errors: Sequence[float | None], sizes: Sequence[int], by_size: bool
) -> float | None:
    known = [error for error in errors if error is not None]
    if len(known) < len(errors):
        return None
    if not by_size:
        return float(unweighted_mean_stderr(known))
    return float(pooled_sample_stderr(known, list(sizes))) if sum(sizes) > len(sizes) else None


def _differences(row: Row) -> dict[str, dict[str, float | None]]:
    """Of each pair of models: later minus earlier, with its standard error."""
    result = {}
    for later, earlier in contrasts(list(row["values"])):
        value = row["values"][later]["value"] - row["values"][earlier]["value"]
        stderr = _difference_stderr(row, later, earlier)
        result[f"{later}-{earlier}"] = {"value": value, "stderr": stderr}
    return result


def _difference_stderr(row: Row, later: str, earlier: str) -> float | None:
    if row["is_average"]:
        of_it, sizes, by_size = row["parts"]["of"]
        errors = [_difference_stderr(item, later, earlier) for item in of_it]
        return _combined_stderr(errors, sizes, by_size)
    first, second = row["parts"][later], row["parts"][earlier]
    if isinstance(first, list) and isinstance(second, list):
        return bootstrap_stderr(row["metric"], first, second, seed=SEED)
    if first is not None and second is not None:
        return _stderr(first - second) if len(first) > 1 else None
    errors = [row["values"][name]["stderr"] for name in (later, earlier)]
    return None if None in errors else math.hypot(*errors)


def _problem_row(suite: str, task: str, problem: str) -> Row:
    return _row(suite, task, "", 0) | {"problem": problem}


def _row(suite: str, task: str, metric: str, num_questions: int) -> Row:
    return {
        "suite": suite,
        "task": task,
        "metric": metric,
        "higher_is_better": None,
        "chance": None,
        "majority": None,
        "num_questions": num_questions,
        "num_fewshot": None,
        "is_average": False,
        "category": "",
        "values": {},
        "differences": {},
        "problem": "",
        "note": "",
        "parts": {},
    }
