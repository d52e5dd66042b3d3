"""Ask every model every task. What is finished is kept: a killed stage goes on from there."""

import contextlib
import gc
import io
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from lm_eval.evaluator import evaluate

from stages.benchmarks.harness_model import HarnessModel, load_harness_model
from stages.benchmarks.tasks import BenchmarkTask
from stages.core import tracking
from stages.core.artifacts import write_atomically
from stages.core.config import BenchmarksConfig, Compute
from stages.core.contracts import BenchmarksInputs
from stages.core.errors import UserError
from stages.core.launch import WARNING_PREFIX

HARNESS_RESAMPLES = 2
"""The fewest that it takes. They are for F1 and MCC alone, whose standard errors are ours."""

Answers = dict[str, Any]
"""What a model reached in one task: ``metrics`` (name to value and stderr), ``questions`` (each
question's contribution to each metric), ``num_truncated``, ``seconds``, or a ``problem``."""


def measure(
    config: BenchmarksConfig,
    inputs: BenchmarksInputs,
    compute: Compute,
    tasks: Sequence[BenchmarkTask],
    work: Path,
) -> dict[str, dict[str, Answers]]:
    """The answers of each model by task; one model is in memory at a time.

    Args:
        work: finished answers are kept here.

    Raises:
        MemoryError, torch.OutOfMemoryError: the stage is to be tried with less at once.
    """
    total = sum(task.cost for task in tasks) * len(inputs.models)
    answers: dict[str, dict[str, Answers]] = {}
    done = 0
    for name in inputs.models:
        folder = work / "answers" / name
        folder.mkdir(parents=True, exist_ok=True)
        answers[name] = {}
        model: HarnessModel | None = None
        unusable: Answers = {}
        for task in tasks:
            kept = folder / f"{task.name}.json"
            if kept.exists():
                answers[name][task.name] = json.loads(kept.read_text(encoding="utf-8"))
            else:
                if model is None and not unusable:
                    model, unusable = _load(name, inputs, compute)
                if model is None:
                    result = unusable  # not kept: the next try may find the model
                else:
                    model.advance = _Advance(done, total, task, f"{name}: {task.name}")
                    result = ask(model, task, config)
                    write_atomically(kept, json.dumps(result))
                answers[name][task.name] = result
            done += task.cost
            tracking.report_progress(done, total, doing=f"{name}: {task.name}", unit="tokens")
        del model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return answers


def ask(model: HarnessModel, task: BenchmarkTask, config: BenchmarksConfig) -> Answers:
    """One model's answers to one task, or why there are none.

    Raises:
        MemoryError, torch.OutOfMemoryError: the stage is to be tried with less at once.
    """
    try:
        return _ask(model, task, config)
    except Exception as error:  # of the definition's code, on data that it was not made for
        return _problem(error)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the harness's bars and notes off the stage's output."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    # The harness's bootstrap would fork this process, with all its threads, for each core.
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        nowhere = io.StringIO()
        with contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
            yield
    finally:
        logger.setLevel(level)


# ------------------------------------------------------------------------------------ helpers


def _load(
    name: str, inputs: BenchmarksInputs, compute: Compute
) -> tuple[HarnessModel | None, Answers]:
    """The model, or why it cannot be asked anything."""
    try:
        base = inputs.bases.get(name)
        with quiet():
            place = inputs.models[name].locate()
            return load_harness_model(place, base.locate() if base else None, compute), {}
    except Exception as error:
        unusable = _problem(error)
    print(f"{WARNING_PREFIX}{name} is not measured: {unusable['problem']}", flush=True)
    return None, unusable


def _ask(model: HarnessModel, task: BenchmarkTask, config: BenchmarksConfig) -> Answers:
    model.num_truncated = 0
    task.task.set_fewshot_seed(seed=config.seed)  # the same worked examples for each model
    began = time.monotonic()
    with quiet():
        results = evaluate(
            lm=model,
            task_dict={"tasks": {task.name: task.task}},
            limit=task.num_questions,
            bootstrap_iters=HARNESS_RESAMPLES,
            apply_chat_template=config.apply_chat_template,
            fewshot_as_multiturn=True,
        )
    assert results is not None
    samples = results["samples"][task.name]
    figures = results["results"][task.name]
    logprobs = [_logprobs(sample) for sample in samples]
    if not all(math.isfinite(value) for values in logprobs for value in values):
        return {"problem": "the model's log-probabilities are not finite"}
    metrics = {
        name: {
            "value": _number(figures[f"{name},none"]),
            "stderr": _number(figures[f"{name}_stderr,none"]),
        }
        for name in task.task.higher_is_better()
    }
    questions = {name: [_contribution(sample[name]) for sample in samples] for name in metrics}
    return {
        "metrics": metrics,
        "questions": questions,
        "logprobs": logprobs,
        "num_truncated": model.num_truncated,
        "seconds": round(time.monotonic() - began, 2),
    }


class _Advance:
    """Turns answered requests of one task into steps of the whole stage."""

    def __init__(self, done: int, total: int, task: BenchmarkTask, doing: str) -> None:
        self._done, self._total, self._cost, self._doing = done, total, task.cost, doing
        self._num_requests = max(task.baselines.num_requests, 1)
        self._answered, self._output = 0, sys.stdout

    def __call__(self, count: int) -> None:
        self._answered += count
        share = min(self._answered / self._num_requests, 1.0)
        step = self._done + int(self._cost * share)
        with contextlib.redirect_stdout(self._output):
            tracking.report_progress(step, self._total, doing=self._doing, unit="tokens")


def _problem(error: Exception) -> Answers:
    """What is stated in place of figures; raises ``error`` again where memory was not enough."""
    is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if is_memory or "can't allocate memory" in str(error):  # torch on the CPU
        raise error
    text = " ".join(str(error).split())[:300]
    kind = type(error).__name__
    return {"problem": text if isinstance(error, UserError) else f"{kind}: {text}".rstrip(": ")}


def _logprobs(sample: dict[str, Any]) -> list[float]:
    """One number an option, or that of the whole text."""
    return [
        float(response[0] if isinstance(response, tuple | list) else response)
        for response in sample["filtered_resps"]
    ]


def _contribution(value: Any) -> Any:
    """A question's part in a metric: a number, or a pair of them."""
    if isinstance(value, tuple | list):
        return [float(item) for item in value]
    return float(value)


def _number(value: Any) -> float | None:
    """None for what the harness could not compute."""
    if value == "N/A" or not math.isfinite(value):
        return None
    return float(value)
