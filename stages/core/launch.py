"""Reuse a finished stage, or run it in a process of its own.

The flow's side of the stage contract. The child's side is ``stages/__main__.py``.
"""

import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import psutil
from filelock import FileLock, Timeout

from stages.core.artifacts import (
    RESULT_FILE,
    StageResult,
    data_root,
    json_digest,
    read_result,
    take_up,
    write_atomically,
)
from stages.core.config import Compute, Frozen, PPOConfig, StageConfig, TrainingConfig
from stages.core.errors import StageCrashedError, StageOutOfMemoryError, UserError

SPEC_FILE = "spec.json"
USER_ERROR_EXIT_CODE = 2
PROGRESS_PREFIX = "::progress "
ERROR_PREFIX = "::error "
OUT_OF_MEMORY_LINE = "::out-of-memory"
WARNING_PREFIX = "warning: "
"""Begins the lines of a stage that the terminal shows, too."""
TERMINATE_GRACE_SECONDS = 5
LOAD_INTERVAL_SECONDS = 0.3
BUSY_PERCENT = 40.0
"""Share of all cores that other processes use, from which on they count as busy."""

LineHandler = Callable[[str], None]
ProgressHandler = Callable[[dict[str, Any]], None]


def stage_key(config: StageConfig, inputs: Frozen) -> str:
    """Twelve hexadecimal digits that name a stage's result: the hash of the stage, its version, its
    configuration and the *content* of its inputs, wherever these lie."""
    recipe = {
        "stage": config.stage,
        "version": config.version,
        "config": config.model_dump(mode="json"),
        "inputs": _digests(inputs.model_dump(mode="json")),
    }
    return json_digest(recipe)[:12]


def stage_folder(config: StageConfig, inputs: Frozen) -> Path:
    """Where the stage's output lies: ``runs/<stage>/<key>`` under the data root."""
    return data_root() / "runs" / config.stage / stage_key(config, inputs)


def finished_result(config: StageConfig, inputs: Frozen) -> StageResult | None:
    """The stage's result where its folder is complete and undamaged, else None."""
    return take_up(stage_folder(config, inputs))


def run_stage(
    config: StageConfig,
    inputs: Frozen,
    compute: Compute,
    *,
    on_line: LineHandler = print,
    on_progress: ProgressHandler = lambda event: None,
    environment: Mapping[str, str] | None = None,
    fresh: bool = False,
) -> StageResult:
    """Run the stage in its own process group and return its result.

    An incomplete folder of an earlier, killed process is continued from its checkpoints; a folder
    that was once complete but is damaged is made again, and so is any folder with ``fresh``. A
    sound result that another run has finished meanwhile is returned as it is.

    Args:
        on_line: called with each line that the process prints, while it comes.
        on_progress: called with each progress event (step, total, metrics).
        environment: additional environment variables, such as the tracking run.

    Raises:
        UserError: the stage refused its data or settings, or another run is at work on it.
        StageOutOfMemoryError: the memory of the device or the machine was not enough.
        StageCrashedError: the process ended without a result.
    """
    out_dir = stage_folder(config, inputs)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(out_dir.with_suffix(".lock")).acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{config.stage}: another run is making {out_dir} right now; wait for it or cancel it"
        ) from None
    with lock:
        if not fresh and (finished := take_up(out_dir)) is not None:
            return finished
        was_complete = (out_dir / RESULT_FILE).exists()
        if out_dir.exists() and (fresh or was_complete):
            shutil.rmtree(out_dir)
        if fresh:
            # The stage's process would take up these checkpoints (stages/__main__.py).
            shutil.rmtree(out_dir.with_suffix(".checkpoints"), ignore_errors=True)
        out_dir.mkdir(exist_ok=True)
        spec = {
            "stage": config.stage,
            "config": config.model_dump(mode="json"),
            "inputs": inputs.model_dump(mode="json"),
            "compute": compute.model_dump(mode="json"),
        }
        write_atomically(out_dir / SPEC_FILE, json.dumps(spec, indent=2))
        with out_dir.with_suffix(".log").open("a", encoding="utf-8") as log:
            command = _command(config, out_dir, compute)
            run_process(config.stage, command, compute, log, on_line, on_progress, environment)
        result = read_result(out_dir)
    if result is None:
        raise StageCrashedError(f"{config.stage}: no sound result in {out_dir}")
    return result


def run_process(
    stage: str,
    command: list[str],
    compute: Compute,
    log: IO[str],
    on_line: LineHandler,
    on_progress: ProgressHandler,
    environment: Mapping[str, str] | None,
) -> None:
    """Run a program of ours in a process group of its own, which ends with this call.

    Args:
        stage: what errors call it.
        log: gets each line that the program prints.

    Raises:
        UserError: the program said with its last line what only the user can mend.
        StageOutOfMemoryError: the memory of the device or the machine was not enough.
        StageCrashedError: the process ended otherwise.
    """
    child_environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        **_waiting_policy(psutil.cpu_percent(LOAD_INTERVAL_SECONDS)),
        "PYTHONHASHSEED": "0",  # sets are written to configuration files in hash order
        "RLHF_DATA_ROOT": str(data_root()),
        "RLHF_PARENT_PID": str(os.getpid()),
        **(environment or {}),
    }
    if compute.num_threads:
        child_environment["OMP_NUM_THREADS"] = str(compute.num_threads)
    # A group of its own, so that everything the stage started can be ended with it.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=child_environment,
        cwd=Path(importlib.import_module("stages").__path__[0]).parent,
        start_new_session=True,
    )
    assert process.stdout is not None
    error, out_of_memory = "", False
    last_lines: list[str] = []
    kills_before = _out_of_memory_kills()
    try:
        for line in process.stdout:
            line = line.rstrip("\n")
            event = _progress_event(line)
            if event is not None:
                on_progress(event)
                continue
            if line.startswith(ERROR_PREFIX):
                error = line.removeprefix(ERROR_PREFIX)
                continue
            if line == OUT_OF_MEMORY_LINE:
                out_of_memory = True
                continue
            log.write(line + "\n")
            log.flush()
            last_lines = [*last_lines[-9:], line]
            on_line(line)
        code = process.wait()
    finally:
        _end_group(process)
    if code != 0 and error:  # torchrun ends with a code of its own
        raise UserError(f"{stage}: {error}")
    if code != 0 and (out_of_memory or _out_of_memory_kills() > kills_before):
        raise StageOutOfMemoryError(f"{stage} ran out of memory; whole log: {log.name}")
    if code != 0:
        raise StageCrashedError(_crash_message(stage, code, log.name, last_lines))


def _digests(value: Any) -> Any:
    """The inputs with each artifact replaced by its digest, since the path must not matter."""
    if isinstance(value, dict):
        if "digest" in value and "kind" in value:
            return value["digest"]
        return {key: _digests(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_digests(item) for item in value]
    return value


def _command(config: StageConfig, out_dir: Path, compute: Compute) -> list[str]:
    program = ["-m", "stages", str(out_dir)]
    # The ranks of a stage that does not train would all write the same files.
    if compute.num_processes == 1 or not isinstance(config, TrainingConfig | PPOConfig):
        return [sys.executable, *program]
    torchrun = ["-m", "torch.distributed.run", "--standalone"]
    return [sys.executable, *torchrun, f"--nproc_per_node={compute.num_processes}", *program]


def _out_of_memory_kills() -> int:
    """Processes that the kernel has killed for want of memory since the machine started."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _waiting_policy(load_percent: float) -> dict[str, str]:
    """How OpenMP's threads wait for each other. By default they spin: on quiet cores training is up
    to a third faster for it, but two jobs that both spin slow each other down sevenfold."""
    if load_percent < BUSY_PERCENT or {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        return {}
    return {"GOMP_SPINCOUNT": "1000"}


def _progress_event(line: str) -> dict[str, Any] | None:
    """The event in a progress line; None for any other, and where two processes' output mixed."""
    if not line.startswith(PROGRESS_PREFIX):
        return None
    try:
        event: dict[str, Any] = json.loads(line.removeprefix(PROGRESS_PREFIX))
    except ValueError:
        return None
    return event


def _crash_message(stage: str, code: int, log_name: str, last_lines: list[str]) -> str:
    if code == -signal.SIGKILL:
        cause = "was killed"
    elif code < 0:
        cause = f"was ended by {signal.Signals(-code).name}"
    else:
        cause = f"ended with code {code}"
    last = next((line for line in reversed(last_lines) if line.strip()), "no output")
    return f"{stage} {cause}; last line: {last[:300]}; whole log: {log_name}"


def _end_group(process: subprocess.Popen[str]) -> None:
    """End whatever is left of the stage's process group: kindly first, then for certain."""
    deadline = time.monotonic() + TERMINATE_GRACE_SECONDS
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
