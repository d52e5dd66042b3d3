"""``rlhf worker``: Prefect's process worker on a pool, and beside it the sweep for dead runs."""

import contextlib
import functools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx
from filelock import FileLock, Timeout

from flows import access, deployments, recovery
from flows.servers import die_with_parent
from stages.core import tracking
from stages.core.artifacts import data_root
from stages.core.errors import UserError

SECONDS_BETWEEN_SWEEPS = 10.0
SECONDS_BETWEEN_TRIES = 2.0
STOP_TIMEOUT_SECONDS = 30.0
SHORT_LIFE_SECONDS = 60.0
MAX_SHORT_LIVES = 3
"""Prefect's worker that ends so often soon after its start will not do better the next time."""

log = logging.getLogger(__name__)


def work(pool: str) -> None:
    """Serve the pool until this process is told to end.

    Raises:
        UserError: there is no such pool, or the Prefect server does not let us in.
        RuntimeError: Prefect's worker ends again and again.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if pool not in deployments.POOLS:
        raise UserError(f"no work pool {pool!r}; there are: {', '.join(deployments.POOLS)}")
    with _only_one(pool):
        _keep_serving(pool)


# ------------------------------------------------------------------------------------ helpers


@contextlib.contextmanager
def _only_one(pool: str) -> Iterator[None]:
    """Wait until no other worker has this name: each would take the runs of the other for dead,
    where it does not see their processes, as in two containers."""
    name = recovery.worker_name(pool)
    lock = FileLock(data_root() / "runs" / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning(
            "%s: another worker of this name is at work on this data root; waiting for its end. "
            "Give this one a host name or a RLHF_DATA_ROOT of its own",
            name,
        )
        lock.acquire(poll_interval=1.0)
    with lock:
        yield


def _keep_serving(pool: str) -> None:
    short_lives = 0
    while short_lives < MAX_SHORT_LIVES:
        _wait_for_server()
        began = time.monotonic()
        _serve(pool)
        short = time.monotonic() - began < SHORT_LIFE_SECONDS
        short_lives = short_lives + 1 if short else 0
    raise RuntimeError(f"Prefect's worker ended {short_lives} times soon after its start")


def _wait_for_server() -> None:
    """After a power cut all programs start at once, and the server is not the first to be ready."""
    told = False
    while True:
        try:
            return deployments.make_pools()
        except httpx.HTTPError as error:
            if isinstance(error, httpx.HTTPStatusError):
                access.check_prefect(os.environ["PREFECT_API_URL"])
            if not told:
                log.warning("waiting for the Prefect server: %s", error or type(error).__name__)
            told = True
        time.sleep(SECONDS_BETWEEN_TRIES)


def _serve(pool: str) -> None:
    """Run Prefect's worker, and sweep beside it, until it ends. Runs that it leaves go on."""
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process",
         "--name", recovery.worker_name(pool), "--install-policy", "never"],
        start_new_session=True,
        # Killed, not asked to end: it would take its runs with it, which are well.
        preexec_fn=functools.partial(die_with_parent, signal.SIGKILL)
        if sys.platform == "linux"
        else None,
    )  # fmt: skip
    next_sweep = 0.0
    try:
        while process.poll() is None:
            if time.monotonic() >= next_sweep:
                _sweep()
                next_sweep = time.monotonic() + SECONDS_BETWEEN_SWEEPS
            time.sleep(0.5)
        log.warning("Prefect's worker ended by itself with code %s", process.returncode)
    finally:
        _stop(process)


def _sweep() -> None:
    """A server that is away now is there at the next sweep."""
    gone = recovery.sweep_if_possible()
    if gone:
        # In the background: it waits for an MLflow server that is away, and sweeps must go on.
        threading.Thread(target=tracking.end_abandoned_runs, daemon=True).start()
    with contextlib.suppress(httpx.HTTPError):
        recovery.explain_waiting()


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
