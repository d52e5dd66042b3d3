"""What the terminal shows: a line a stage while the flow runs, and a table at the end.

The flow tells the current reporter; without one (a served deployment) nothing is shown.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

SECONDS_BETWEEN_LINES = 20.0

FIGURES = {
    "fetch": ("files", "size_mb"),
    "collect": ("documents_train", "sft_train", "preferences_train"),
    "clean": ("documents_train_kept", "sft_train_kept", "preferences_train_kept"),
    "base_model": ("num_parameters", "vocab_size"),
    "tokenizer": ("vocab_size", "bytes_per_token"),
    "pretrain": ("bits_per_byte", "eval_bits_per_byte", "loss", "eval_loss"),
    "sft": ("held_out_loss", "loss", "eval_loss"),
    "reward_model": ("accuracy", "length_baseline_accuracy", "loss", "eval_accuracy"),
    "guard_model": ("accuracy", "length_baseline_accuracy", "loss", "eval_accuracy"),
    "reward_model_card": (
        "reward_model_accuracy",
        "length_baseline_accuracy",
        "bag_of_words_accuracy",
        "judge",
    ),
    "classifier": ("accuracy", "majority_accuracy", "loss", "eval_accuracy"),
    "ppo": ("score_first", "score_last", "kl_last", "score", "kl"),
    "evaluate": (
        "oracle_base",
        "oracle_sft",
        "oracle_policy",
        "score_base",
        "score_sft",
        "score_policy",
    ),
    "judge_pairs": ("num_judged", "inconsistent_share", "gold_accuracy", "dollars"),
    "sample_pairs": ("num_pairs", "num_random", "num_gold", "doing"),
}
"""The figures worth a place on the terminal, by stage, as they are called after the last slash."""

State = str  # done, reused, fetched, failed, interrupted, running
ENDED_WELL = {"done": ("✓", "green"), "reused": ("✓", "cyan"), "fetched": ("✓", "cyan")}


@dataclass
class StageRow:
    """One line of the final table."""

    stage: str
    state: State = "running"
    seconds: float = 0.0
    metrics: Mapping[str, float | str] = field(default_factory=dict)


class Reporter:
    """Keeps the rows of the final table and shows nothing itself."""

    def __init__(self) -> None:
        self.rows: dict[str, StageRow] = {}
        self.flow_run_id = ""
        self.places: dict[str, str] = {}
        """Where to look next: what → where."""

    def start(self, stage: str) -> None:
        """A stage begins, or is tried again."""
        self.rows[stage] = StageRow(stage)

    def advance(self, stage: str, event: Mapping[str, Any]) -> None:
        """A progress event of the stage: step, total, metrics."""

    def warn(self, stage: str, text: str) -> None:
        """The stage has something to say that nobody should miss."""

    def end(self, stage: str, state: State, seconds: float, metrics: Mapping[str, float]) -> None:
        """A stage ended."""
        self.rows[stage] = StageRow(stage, state, seconds, metrics)


class Pace:
    """How fast a stage's steps come. A resumed stage begins with a later step than the first."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def text(self, stage: str, event: Mapping[str, Any], now: float) -> str:
        """Step of all steps, time left, and the stage's figures; ``now`` in seconds."""
        step, total = event["step"], max(event["total"], 1)
        if self._first is None:
            self._first = now, step
        began, first = self._first
        steps = step - first
        left = duration((now - began) * (total - step) / steps) if steps > 0 else ""
        shown = f"{step}/{total}" + (f", about {left} left" if left else "")
        return f"{shown}  {figures_text(stage, event['metrics'])}".rstrip()


class PlainReporter(Reporter):
    """Lines for a log file: start and end of each stage, and one about every 20 s between."""

    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__()
        self._write = write
        self._pace = Pace()
        self._last_line = 0.0

    def start(self, stage: str) -> None:
        tried_before = stage in self.rows
        super().start(stage)
        self._pace, self._last_line = Pace(), time.monotonic()
        self._write(f"{stage}: {'trying again' if tried_before else 'started'}")

    def advance(self, stage: str, event: Mapping[str, Any]) -> None:
        now = time.monotonic()
        text = self._pace.text(stage, event, now)
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._write(f"{stage}: {text}")

    def warn(self, stage: str, text: str) -> None:
        self._write(f"{stage}: {text}")

    def end(self, stage: str, state: State, seconds: float, metrics: Mapping[str, float]) -> None:
        super().end(stage, state, seconds, metrics)
        self._write(
            f"{stage}: {state} in {duration(seconds)}  {figures_text(stage, metrics)}".rstrip()
        )


class LiveReporter(Reporter):
    """A progress line for each stage on a terminal."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def start(self, stage: str) -> None:
        super().start(stage)
        if stage in self._tasks:
            self._progress.remove_task(self._tasks[stage])
        self._tasks[stage] = self._progress.add_task(stage, total=None, state="running", figures="")

    def advance(self, stage: str, event: Mapping[str, Any]) -> None:
        self._progress.update(
            self._tasks[stage],
            completed=event["step"],
            total=max(event["total"], 1),
            figures=figures_text(stage, event["metrics"], limit=2),
        )

    def warn(self, stage: str, text: str) -> None:
        self._progress.console.print(f"{stage}: {text}", style="yellow", markup=False)

    def end(self, stage: str, state: State, seconds: float, metrics: Mapping[str, float]) -> None:
        super().end(stage, state, seconds, metrics)
        # A finished bar stops its clock.
        figures = figures_text(stage, metrics, limit=2)
        task = self._tasks[stage]
        self._progress.update(task, state=state, figures=figures)
        if state in ENDED_WELL:
            self._progress.update(task, completed=1, total=1)
        self._progress.stop_task(task)


class _StateColumn(ProgressColumn):
    """A spinner while the stage runs, then how it ended."""

    def __init__(self) -> None:
        super().__init__()
        self._spinner = SpinnerColumn()

    def render(self, task: Task) -> Any:
        state = task.fields["state"]
        if state == "running":
            return self._spinner.render(task)
        sign, style = ENDED_WELL.get(state, ("✗", "red"))
        return Text(sign, style=style)


class _ClockColumn(ProgressColumn):
    """Time left while the stage runs, then the time it took."""

    def __init__(self) -> None:
        super().__init__()
        self._left, self._elapsed = TimeRemainingColumn(compact=True), TimeElapsedColumn()

    def render(self, task: Task) -> Text:
        state = task.fields["state"]
        if state in ("reused", "fetched"):
            return Text(state, style="cyan")
        if state == "running" and task.total:
            return self._left.render(task) + Text(" left", style="dim")
        return self._elapsed.render(task)


_current: ContextVar[Reporter] = ContextVar("reporter")


def current() -> Reporter:
    """The reporter of this run."""
    return _current.get(Reporter())


@contextlib.contextmanager
def reporting(console: Console) -> Iterator[Reporter]:
    """Show the stages of the flow that runs inside: live on a terminal, else as lines."""
    with contextlib.ExitStack() as stack:
        reporter: Reporter
        if console.is_terminal:
            columns = (
                _StateColumn(),
                TextColumn("{task.description:<17}"),
                BarColumn(bar_width=24, finished_style="green"),
                _ClockColumn(),
                TextColumn("[dim]{task.fields[figures]}"),
            )
            progress = stack.enter_context(
                Progress(*columns, console=console, refresh_per_second=4)
            )
            reporter = LiveReporter(progress)
        else:
            reporter = PlainReporter(lambda line: print(line, file=sys.stdout, flush=True))
        stack.enter_context(reporting_to(reporter))
        yield reporter


@contextlib.contextmanager
def reporting_to(reporter: Reporter) -> Iterator[None]:
    """Make ``reporter`` the current one."""
    token = _current.set(reporter)
    try:
        yield
    finally:
        _current.reset(token)


def print_summary(console: Console, reporter: Reporter) -> None:
    """The table at the end of a run and where to look next."""
    if not reporter.rows:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("stage", "state", "time"):
        table.add_column(name, justify="right" if name == "time" else "left", no_wrap=True)
    table.add_column("figures")
    for row in reporter.rows.values():
        figures = figures_text(row.stage, row.metrics)
        table.add_row(row.stage, row.state, duration(row.seconds), figures)
    console.print()
    console.print(table)
    if reporter.places:
        console.print()
        for what, where in reporter.places.items():
            console.print(f"{what:<12} {where}", soft_wrap=True, highlight=False, markup=False)


def figures_text(stage: str, metrics: Mapping[str, float | str], limit: int = 3) -> str:
    """One to three figures of a stage: the best known ones first. Texts stand for themselves."""
    last_names = {name: name.rpartition("/")[2] for name in metrics if name != "unit"}
    wanted = FIGURES.get(stage, ())
    chosen = [name for want in wanted for name, last in last_names.items() if last == want]
    shown = []
    for name in (chosen or list(last_names))[:limit]:
        value = metrics[name]
        label = last_names[name].replace("_", " ")
        shown.append(value if isinstance(value, str) else f"{label} {_number(value)}")
    return "  ".join(shown)


def duration(seconds: float) -> str:
    """``0.3 s``, ``48 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.3g}"
