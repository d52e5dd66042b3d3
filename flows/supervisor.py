"""The children of ``rlhf up``: started again when they die, ended with everything they started."""

import contextlib
import datetime
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from flows import servers
from stages.core.artifacts import data_root
from stages.core.errors import UserError

MARK = "RLHF_UP"
"""Names the supervisor in the environment of all that it starts: flow runs and stages have sessions
of their own, and outlive a killed worker."""

QUICK_SECONDS = 15.0
MAX_QUICK_ENDS = 5
MAX_DELAY_SECONDS = 30.0
FLOW_RUN_GRACE_SECONDS = 12.0
"""A little more than a flow run gives its stage."""

Say = Callable[[str], None]


@dataclass
class Child:
    """A process that is to run for as long as its supervisor."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    log: Path
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)
    quick_ends: int = 0
    """How often in a row it ended soon after its start."""
    start_at: float | None = None
    """When it is to be started again; None while it runs."""


def look_after(children: Sequence[Child], say: Say) -> None:
    """Look once whether all run; start again what died, later the more often it did.

    Raises:
        UserError: a child ends each time soon after its start.
    """
    for child in children:
        now = time.monotonic()
        if child.start_at is not None:
            if now >= child.start_at:
                child.process, child.started, child.start_at = child.start(), now, None
        elif child.process.poll() is not None:
            servers.stop(child.process)  # what is left of its group, which may hold its port
            is_quick = now - child.started < QUICK_SECONDS
            child.quick_ends = child.quick_ends + 1 if is_quick else 1
            end = f"{child.name} {ending(child.process.returncode)}"
            if child.quick_ends >= MAX_QUICK_ENDS:
                raise UserError(
                    f"{end}, {child.quick_ends} times soon after its start: "
                    f"{servers.last_line(child.log)}; see {child.log}"
                )
            delay = min(2.0 ** (child.quick_ends - 1), MAX_DELAY_SECONDS)
            child.start_at = now + delay
            clock = datetime.datetime.now().strftime("%H:%M:%S")
            say(f"{clock}  {end}; started again in {delay:.0f} s; log: {child.log}")


def ending(code: int) -> str:
    """How a process ended, from its return code, in words."""
    if code >= 0:
        return f"ended with code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def end(workers: Sequence[Child], others: Sequence[Child]) -> None:
    """End the flow runs, the workers, and then the servers, which record the ends of the runs."""
    groups = {child.process.pid for child in (*workers, *others)}
    own = _marked(_is_ours)
    runs = {process.pid: process for process in own if _group(process) not in groups}
    for process in runs.values():
        with contextlib.suppress(psutil.Error):
            if process.ppid() not in runs:  # the run itself ends the stages that it started
                process.terminate()
    psutil.wait_procs(list(runs.values()), timeout=FLOW_RUN_GRACE_SECONDS)
    for children in (workers, others):
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.process.pid, signal.SIGTERM)
        for child in children:
            servers.stop(child.process)
    _kill(_marked(_is_ours))


def end_leftovers() -> None:
    """End what a killed supervisor of this data root left behind."""
    _kill(_marked(_is_left_over))


def count_leftovers() -> int:
    """How many processes a killed supervisor of this data root left behind."""
    return len(_marked(_is_left_over))


def mark() -> str:
    """This process, and the data root that it works on."""
    return f"{os.getpid()} {psutil.Process().create_time():.2f} {data_root()}"


# ------------------------------------------------------------------------------------ helpers


def _is_ours(text: str) -> bool:
    return text == mark()


def _is_left_over(text: str) -> bool:
    number, began, root = text.split(" ", 2)
    if root != str(data_root()):
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(abs(psutil.Process(int(number)).create_time() - float(began)) > 1.0)
    return True


def _marked(belongs: Callable[[str], bool]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            text = process.environ().get(MARK, "")
            if text and process.pid != os.getpid() and belongs(text):
                found.append(process)
    return found


def _group(process: psutil.Process) -> int:
    with contextlib.suppress(OSError):
        return os.getpgid(process.pid)
    return int(process.pid)


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=servers.STOP_TIMEOUT_SECONDS)
