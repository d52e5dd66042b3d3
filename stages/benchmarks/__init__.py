"""Benchmarks of the field for one or more models, by lm-evaluation-harness.

The harness gives the questions, the prompts and the metrics; the models are loaded and scored here.
"""

import importlib.metadata
import os
import shutil
from pathlib import Path

from stages.core.artifacts import CHECKPOINTS, make_artifact
from stages.core.config import BenchmarksConfig, Compute
from stages.core.contracts import BenchmarksInputs, BenchmarksOutputs
from stages.core.errors import UserError
from stages.core.launch import WARNING_PREFIX

HARNESS = "0.4.13"
CURE = "pip install 'rlhf-flows[eval]'"


def run(
    config: BenchmarksConfig, inputs: BenchmarksInputs, compute: Compute, out_dir: Path
) -> tuple[BenchmarksOutputs, dict[str, float]]:
    """Ask the models every task of the suites, and write figures, table and plot.

    A task whose data is missing or of another form, or a model that cannot be loaded, is stated as
    not measured; the others go on. Where nothing is measured there are no metrics.

    Raises:
        UserError: the harness is not installed, or no benchmark is chosen.
    """
    _check_harness()
    if inputs.folder is not None:
        # Read when the libraries are imported: a wrong path must not send them to the network.
        os.environ.update({"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"})
    # The harness is an optional package, and takes seconds to import.
    from stages.benchmarks import report, table
    from stages.benchmarks.measure import measure, quiet
    from stages.benchmarks.tasks import prepare

    work = out_dir / CHECKPOINTS
    work.mkdir(exist_ok=True)
    with quiet():
        tasks, problems = prepare(
            config.suites,
            inputs.folder.locate() if inputs.folder else None,
            [text.locate() for text in inputs.texts],
            work,
            num_fewshot=config.num_fewshot,
            limit=config.limit,
        )
    for problem in problems:
        print(f"{problem.suite}: {problem.name} is not measured: {problem.reason}", flush=True)
    if not tasks and not problems:
        raise UserError("no benchmark is chosen: set benchmarks.suites")
    answers = measure(config, inputs, compute, tasks, work)
    rows = table.rows(tasks, problems, answers, config.suites)
    metrics = table.flat_metrics(rows)
    if not metrics:
        reason = next(row["problem"] for row in rows if row["problem"])
        print(f"{WARNING_PREFIX}no benchmark could be measured: {reason}", flush=True)
    folder = out_dir / "benchmarks"
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed while writing
    settings = {
        "harness": HARNESS,
        "suites": list(config.suites),
        "data": "local" if inputs.folder else "hub",
        "num_fewshot": config.num_fewshot,
        "limit": config.limit,
        "apply_chat_template": config.apply_chat_template,
        "seed": config.seed,
    }
    report.write(folder, list(inputs.models), rows, answers, settings)
    return BenchmarksOutputs(benchmarks=make_artifact("benchmarks", folder)), metrics


def _check_harness() -> None:
    try:
        installed = importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"the benchmarks need the package lm_eval: {CURE}") from None
    if installed != HARNESS:
        raise UserError(
            f"the benchmarks need lm_eval {HARNESS}, and {installed} is installed: {CURE}"
        )
