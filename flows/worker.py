"""``rlhf worker``: Prefect's process worker on a pool, and beside it the sweep for dead runs."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time

import httpx
from prefect.client.orchestration import get_client

from flows import deployments, recovery
from flows.servers import die_with_parent
from stages.core import tracking
from stages.core.errors import UserError

SECONDS_BETWEEN_SWEEPS = 20.0
STOP_TIMEOUT_SECONDS = 30.0

log = logging.getLogger(__name__)


def work(pool: str) -> None:
    """Serve the pool until this process is told to end.

    Raises:
        UserError: there is no such pool, or the Prefect server does not take our calls.
        RuntimeError: Prefect's worker ended by itself.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if pool not in deployments.POOLS:
        raise UserError(f"no work pool {pool!r}; there are: {', '.join(deployments.POOLS)}")
    deployments.make_pools()
    name = f"{os.uname().nodename}-{pool}"
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process",
         "--name", name, "--install-policy", "never"],
        start_new_session=True,
        preexec_fn=die_with_parent if sys.platform == "linux" else None,
    )  # fmt: skip
    next_sweep = 0.0
    try:
        while process.poll() is None:
            if time.monotonic() >= next_sweep:
                _sweep()
                next_sweep = time.monotonic() + SECONDS_BETWEEN_SWEEPS
            time.sleep(0.5)
        raise RuntimeError(f"Prefect's worker ended by itself with code {process.returncode}")
    finally:
        _stop(process)


# ------------------------------------------------------------------------------------ helpers


def _sweep() -> None:
    """A server that is away now is there at the next sweep."""
    try:
        if recovery.sweep():
            tracking.end_abandoned_runs()
        with get_client(sync_client=True) as client:
            recovery.explain_waiting(client)
    except httpx.HTTPError as error:
        log.warning("the Prefect server does not answer: %s", error or type(error).__name__)


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
