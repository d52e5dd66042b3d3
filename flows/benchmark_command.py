"""``rlhf evaluate``: benchmarks of one model, outside any pipeline run."""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from flows import plan, progress
from flows.environment import STAGE_ENVIRONMENT
from flows.places import find_file, setting_files
from stages.core.artifacts import Artifact, StageResult, make_artifact
from stages.core.config import (
    BaseModelConfig,
    BenchmarksConfig,
    Compute,
    Frozen,
    StageConfig,
    Suite,
)
from stages.core.contracts import BaseModelInputs, BenchmarksInputs
from stages.core.errors import UserError
from stages.core.launch import WARNING_PREFIX, run_stage, stage_folder

SUITES: tuple[str, ...] = get_args(Suite)
DEFAULT_SUITES = "glue,super_glue,mmlu,hellaswag,truthfulqa,arc"
OTHER_NAMES = {"superglue": "super_glue", "truthful_qa": "truthfulqa", "crows": "crows_pairs"}
HARNESS_SEED = 1234
"""With which lm-evaluation-harness's own command chooses worked examples."""
MODEL = "model"
AGAIN = "with --fresh"
ADAPTER = "adapter_config.json"


def add_parser(commands: Any) -> None:
    """The options of ``rlhf evaluate``."""
    command = commands.add_parser("evaluate", help="benchmarks of one model, as a table")
    help_model = "model folder, adapter folder, .gguf file, or an alias: rlhf-policy@champion"
    command.add_argument("model", metavar="MODEL", help=help_model)
    help_suite = f"of {', '.join(SUITES)} (default: %(default)s)"
    command.add_argument("--suite", default=DEFAULT_SUITES, metavar="NAME,…", help=help_suite)
    help_limit = "questions of each task, from its beginning (default: all)"
    command.add_argument("--limit", type=whole_number, default=0, metavar="N", help=help_limit)
    help_local = "folder with the benchmarks' data in the Hub's columns (default: the Hub)"
    command.add_argument("--local", default="", metavar="FOLDER", help=help_local)
    help_fewshot = "worked examples before each question (default: each task's own number)"
    command.add_argument("--fewshot", type=whole_number, default=-1, metavar="N", help=help_fewshot)
    help_template = "ask each question as a user's message"
    command.add_argument("--chat-template", action="store_true", help=help_template)
    help_base = "what an adapter is an adapter on (default: what its base.json names)"
    command.add_argument("--base", default="", metavar="FOLDER", help=help_base)
    help_text = "text file for the suite perplexity; may be given often"
    command.add_argument("--text", action="append", default=[], metavar="FILE", help=help_text)
    command.add_argument("--fresh", action="store_true", help="measure again what is known already")


def evaluate(options: argparse.Namespace, console: Console) -> None:
    """Measure the model, with a progress bar, and print the table.

    Raises:
        UserError: the model, a suite or the harness is not there, or nothing could be measured.
    """
    suites = _suites(options)
    config = BenchmarksConfig.model_validate(
        {
            "suites": suites,
            "num_fewshot": options.fewshot,
            "limit": options.limit,
            "apply_chat_template": options.chat_template,
            "seed": HARNESS_SEED,
        }
    )
    plan.check_harness()
    folder = find_file(options.local)
    if options.local and (folder is None or not folder.is_dir()):
        raise UserError(f"--local {options.local}: no such folder")
    texts = setting_files(tuple(options.text), "--text")
    with progress.reporting(console) as reporter:
        model, base = _model(options, reporter)
        inputs = BenchmarksInputs(
            models={MODEL: model},
            bases={MODEL: base} if base else {},
            folder=make_artifact("source", folder) if folder else None,
            texts=tuple(make_artifact("source", text) for text in texts),
        )
        _run(config, inputs, reporter, fresh=options.fresh)
    results = stage_folder(config, inputs) / "benchmarks"
    content = json.loads((results / "benchmarks.json").read_text(encoding="utf-8"))
    _check_measured(options.model, content["rows"])
    _print_table(console, content)
    console.print(f"\n{results}", soft_wrap=True, highlight=False, markup=False)


def whole_number(text: str) -> int:
    """An option's value that counts something.

    Raises:
        argparse.ArgumentTypeError: it is no whole number from 0 on.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


# ------------------------------------------------------------------------------------ helpers


def _suites(options: argparse.Namespace) -> tuple[str, ...]:
    given = [name.strip().lower().replace("-", "_") for name in options.suite.split(",")]
    suites = tuple(dict.fromkeys(OTHER_NAMES.get(name, name) for name in given if name))
    unknown = [name for name in suites if name not in SUITES]
    if unknown or not suites:
        wrong = ", ".join(unknown) or "empty"
        raise UserError(f"--suite {wrong}: choose from {', '.join(SUITES)}")
    if "perplexity" in suites and not options.text:
        raise UserError("--suite perplexity: give text files with --text FILE")
    if options.text and "perplexity" not in suites:
        raise UserError(
            "--text is for the suite perplexity: add it to --suite, or leave --text out"
        )
    return suites


def _model(
    options: argparse.Namespace, reporter: progress.Reporter
) -> tuple[Artifact, Artifact | None]:
    """The model, and its base where it is an adapter."""
    path = find_file(options.model)
    if path is None and "@" not in options.model:
        raise UserError(
            f"{options.model}: no such file or folder; give a model folder, an adapter folder, a "
            ".gguf file or a registered alias such as rlhf-policy@champion"
        )
    if options.base and not (path and (path / ADAPTER).exists()):
        raise UserError(f"--base is for adapters, and {options.model} is none: leave --base out")
    if path is None:
        return _registered(options.model), None
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(f"{path}: is neither a folder nor a .gguf file")
        config = BaseModelConfig(source=str(path))
        result = _run(config, BaseModelInputs(source=make_artifact("model", path)), reporter)
        return Artifact.model_validate(result.outputs["model"]), None
    if not (path / ADAPTER).exists():
        if not (path / "config.json").exists():
            raise UserError(f"{path}: holds no model (no config.json, no {ADAPTER})")
        return make_artifact("model", path), None
    return make_artifact("adapter", path), make_artifact("model", _base(path, options.base))


def _base(adapter: Path, given: str) -> Path:
    """What an adapter is an adapter on."""
    place = find_file(given) if given else _noted_base(adapter / "base.json")
    if place is None or not place.is_dir():
        raise UserError(
            f"{adapter}: is an adapter, and its base {given or place or ''} is not here; "
            "give it with --base FOLDER"
        )
    return place


def _noted_base(note: Path) -> Path | None:
    if not note.exists():
        return None
    try:
        return Artifact.model_validate_json(note.read_bytes()).locate()
    except (OSError, ValueError):
        raise UserError(f"{note}: is damaged; give the adapter's base with --base FOLDER") from None


def _registered(alias: str) -> Artifact:
    """The policy of the run that made a registered version, fetched where it is not here."""
    from stages.core import tracking  # brings mlflow

    tracking.set_up()
    result = tracking.earlier_run(alias).results.get("ppo")
    if result is None or tracking.fetch("ppo", result.key) is None:
        raise UserError(f"{alias}: the run that made it has no policy in the store any more")
    return Artifact.model_validate(result.outputs["model"])


def _run(
    config: StageConfig, inputs: Frozen, reporter: progress.Reporter, *, fresh: bool = False
) -> StageResult:
    """The stage's result, with its progress shown."""
    stage = config.stage

    def on_line(line: str) -> None:
        if line.startswith(WARNING_PREFIX):
            reporter.warn(stage, line)

    reporter.start(stage)
    began, state = time.monotonic(), "failed"
    try:
        result = run_stage(
            config,
            inputs,
            Compute(),
            on_line=on_line,
            on_progress=lambda event: reporter.advance(stage, event),
            environment=STAGE_ENVIRONMENT,
            fresh=fresh,
        )
        state = "done"
        return result
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        reporter.end(stage, state, time.monotonic() - began, {})


def _check_measured(model: str, rows: Sequence[Mapping[str, Any]]) -> None:
    if any(row["values"] for row in rows):
        return
    first, *others = dict.fromkeys(row["problem"] for row in rows)
    more = f" (and {len(others)} more)" if others else ""
    raise UserError(
        f"{model}: no benchmark could be measured: {first}{more}; once mended, run again {AGAIN}"
    )


def _print_table(console: Console, content: Mapping[str, Any]) -> None:
    """The figures, MMLU's single subjects left out, and what was not measured."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("benchmark", "metric"):
        table.add_column(name, no_wrap=True)
    for name in ("value", "± stderr", "chance", "questions"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in content["rows"]:
        if not row["values"] or (row["suite"] == "mmlu" and not row["is_average"]):
            continue
        figure = row["values"][MODEL]
        cells = [_number(figure[name]) for name in ("value", "stderr")]
        style = "bold" if row["is_average"] else ""
        chance, count = _number(row["chance"]), f"{row['num_questions']:,}"
        table.add_row(row["task"], row["metric"], *cells, chance, count, style=style)
    console.print()
    console.print(table)
    missing = [row for row in content["rows"] if row["problem"]]
    for row in missing:
        text = f"{row['task']}: not measured: {row['problem']}"
        console.print(text, style="yellow", soft_wrap=True, markup=False)
    if missing:
        text = f"What was not measured is tried again {AGAIN}."
        console.print(text, style="yellow", soft_wrap=True, markup=False)
    for row in content["rows"]:
        if row["note"] and row["is_average"]:
            console.print(f"{row['task']}: {row['note']}", style="dim", markup=False)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
