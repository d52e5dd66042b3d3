"""What one process of the cleaning benchmark is asked to do, what it answers, how it is measured.

Both sides import this module, each in an environment of its own, so it needs nothing but Python's
standard library.
"""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SAMPLE_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """One cleaning of one corpus."""

    corpus: str
    """Folder of ``train.jsonl`` and ``held_out.jsonl``."""
    out: str
    """Folder that the run may fill."""
    workers: int = 1
    evaluation: tuple[str, ...] = ()
    """Files that hold evaluation sets, JSON Lines in gzip."""
    word_splitter: str = "regex"
    """Of datatrove: regex (``\\w+``) or default (spaCy)."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of our configuration of cleaning, where not the default."""


@dataclass(frozen=True)
class Measured:
    """What a run took, without the start of Python and the imports."""

    cpu_seconds: float
    """Of the process and all its children."""
    wall_seconds: float
    peak_mb: float
    """Largest sum over the process tree of the memory that is a process's own or its share of what
    several have (proportional set size); 0 where the kernel does not tell."""
    steps: dict[str, float] = field(default_factory=dict)
    """CPU-seconds by step."""
    metrics: dict[str, float] = field(default_factory=dict)


class Clock:
    """Of a side's process: CPU-seconds of its steps."""

    def __init__(self) -> None:
        self.began = cpu_seconds()
        self.began_wall = time.monotonic()
        self.steps: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        before = cpu_seconds()
        yield
        self.steps[name] = self.steps.get(name, 0.0) + cpu_seconds() - before


def cpu_seconds() -> float:
    """Of this process and its children that have ended, user and system."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def read_job() -> Job:
    """The job on the command line."""
    if len(sys.argv) != 2:
        raise SystemExit("one side of the benchmark; run tests/benchmarks/cleaning.py instead")
    return Job(**json.loads(sys.argv[1]))


def write_answer(job: Job, clock: Clock, metrics: Mapping[str, float] | None = None) -> None:
    """Note when the measured part began and what its steps took."""
    answer = {
        "began": clock.began,
        "wall_seconds": time.monotonic() - clock.began_wall,
        "steps": clock.steps,
        "metrics": dict(metrics or {}),
    }
    Path(job.out, "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def run_job(command: Sequence[Any], job: Job, environment: Mapping[str, str]) -> Measured:
    """Run a side's process to its end and say what it took.

    Raises:
        SystemExit: it failed; with the end of its output.
    """
    out = Path(job.out)
    out.mkdir(parents=True, exist_ok=True)
    log = out / "log.txt"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [*map(str, command), json.dumps(asdict(job))],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        peak = Peak(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        peak.stop()
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        tail = "\n".join(f"    {line[:200]}" for line in lines[-15:])
        raise SystemExit(f"{command[1]} failed with code {process.returncode}; see {log}\n{tail}")
    answer = json.loads((out / "answer.json").read_text(encoding="utf-8"))
    return Measured(
        cpu_seconds=usage.ru_utime + usage.ru_stime - answer["began"],
        wall_seconds=answer["wall_seconds"],
        peak_mb=peak.megabytes,
        steps=answer["steps"],
        metrics=answer["metrics"],
    )


# ---------------------------------------------------------------------------------------- memory


class Peak:
    """Watches the memory of a process and all below it."""

    def __init__(self, pid: int, read: Callable[[int], int] | None = None) -> None:
        self.megabytes = 0.0
        self.curve: list[tuple[float, float]] = []
        """Seconds since the start and MB."""
        self._read = read or proportional_bytes
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(SAMPLE_SECONDS):
            total = sum(map(self._read, family(self._pid))) / 1e6
            self.curve.append((time.monotonic() - began, total))
            self.megabytes = max(self.megabytes, total)


def family(pid: int) -> list[int]:
    """The process and its descendants."""
    found = [pid]
    for parent in found:
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, path.read_text().split())
            except (OSError, ValueError):  # it has just ended
                continue
    return found


def proportional_bytes(pid: int) -> int:
    """A process's proportional set size."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    except (OSError, ValueError):  # it has just ended
        return 0
