"""Prefect and MLflow servers on this machine: start, wait, find again, stop."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from flows import access
from flows.environment import CHECKOUT, mlflow_folder, prefect_folder
from stages.core.artifact_root import artifact_root
from stages.core.errors import UserError

HOST = "127.0.0.1"
START_TIMEOUT_SECONDS = 120.0
STOP_TIMEOUT_SECONDS = 10.0
RECORD_TIMEOUT_SECONDS = 30.0
PREFECT_PORT = 4200
MLFLOW_PORT = 5000
STANDING_FILE = "server.json"
TERMINAL_STATES = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

# Nothing is scheduled, triggered or late on a server that lives for one run.
NO_NEEDLESS_SERVICES = {
    f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false"
    for service in ("SCHEDULER", "LATE_RUNS", "FOREMAN", "TRIGGERS", "PAUSE_EXPIRATIONS",
                    "CANCELLATION_CLEANUP", "REPOSSESSOR")
}  # fmt: skip


@dataclass(frozen=True)
class Server:
    """A server that this process started."""

    name: str
    url: str
    health_path: str
    log: Path
    process: subprocess.Popen[bytes]


@dataclass(frozen=True)
class Standing:
    """The servers of a running ``rlhf up``, as it recorded them."""

    pid: int
    started: float
    prefect_url: str
    mlflow_url: str
    tracking_uri: str = ""
    """Where runs are to be tracked; empty for the database below the data root."""


# -------------------------------------------------------------------------------------- start


def start_prefect(port: int = 0, *, host: str = HOST, standing: bool = False) -> Server:
    """Start a Prefect server; call ``wait_until_healthy`` before using it.

    Args:
        port: the port to listen on; a free one when 0.
        host: the address to listen on.
        standing: with all services, such as the scheduler; else only what one run needs.

    Raises:
        UserError: the password that it is to ask for is not ``user:password``.
    """
    port = port or free_port()
    environment = {
        "PREFECT_HOME": str(prefect_folder()),
        # Without these two the UI calls port 4200, and its files go to the installed package.
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(prefect_folder() / "ui"),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
        # The process serves one app, so the framework may skip copies of its route tables.
        "PREFECT__SERVER_FINAL": "1",
        **access.prefect_rules(host, port),
        **({} if standing else NO_NEEDLESS_SERVICES),
    }
    # uvicorn directly: Prefect's command line would cost another two seconds of imports.
    app = ["--factory", "flows.prefect_app:create_app", "--log-level", "warning"]
    # An open UI page must not hold the server up when it is to stop.
    app += ["--timeout-graceful-shutdown", "3"]
    command = ["-m", "uvicorn", *app, "--host", host, "--port", str(port), "--lifespan", "on"]
    log = prefect_folder() / "server.log"
    process = spawn(command, log, environment, without=("PREFECT_API_URL",))
    url = f"http://{access.own_name(host)}:{port}"
    return Server("Prefect", url, "/api/health", log, process)


def start_mlflow(port: int = 0, *, host: str = HOST) -> Server:
    """Start an MLflow server on the database that ``mlflow_store`` names.

    Raises:
        UserError: the account that it is to ask for is incomplete.
    """
    port = port or free_port()
    rules = access.mlflow_rules(host, port)
    environment = {
        # Not on the command line, which everybody on the machine sees: it may hold a password.
        "MLFLOW_BACKEND_STORE_URI": mlflow_store(),
        "MLFLOW_ARTIFACTS_DESTINATION": artifact_root(mlflow_store()),
        # Background jobs are for judges; they would be two more processes.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **rules,
    }
    command = ["-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    if "MLFLOW_AUTH_ADMIN_PASSWORD" in rules:
        command += ["--app-name", "basic-auth"]
    log = mlflow_folder() / "server.log"
    process = spawn(command, log, environment, without=("MLFLOW_TRACKING_URI",))
    return Server("MLflow", f"http://{access.own_name(host)}:{port}", "/health", log, process)


def mlflow_store() -> str:
    """The database of an MLflow server started here: the user's, or SQLite below the data root."""
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    given = os.environ.get("MLFLOW_BACKEND_STORE_URI")
    if not given and not access.server_address(tracking):
        given = tracking
    return given or _default_store()


def tracks_locally() -> bool:
    """Whether runs on this machine write that database and its artifacts themselves, beside the
    server: both lie where other commands look for them without being told."""
    elsewhere = os.environ.get("MLFLOW_ARTIFACTS_DESTINATION")
    return mlflow_store() == _default_store() and not elsewhere


def _default_store() -> str:
    return f"sqlite:///{mlflow_folder() / 'mlflow.db'}"


def spawn(
    arguments: list[str],
    log: Path,
    environment: Mapping[str, str],
    without: tuple[str, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start Python with ``arguments`` in a process group of its own that dies with this process.

    Call it from the main thread: Linux ties the death signal to the thread that starts.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if name not in without}
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=CHECKOUT,
            env={**inherited, "PYTHONUNBUFFERED": "1", **environment},
            start_new_session=True,
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
        )


def wait_until_healthy(server: Server, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
    """Wait for the server's first healthy answer.

    Raises:
        UserError: it ended or did not answer in time; names its log.
    """
    deadline = time.monotonic() + timeout_seconds
    while not (is_healthy(server.url + server.health_path) and _listens(server)):
        if server.process.poll() is not None:
            last = last_line(server.log)
            raise UserError(
                f"the {server.name} server ended at its start: {last}; see {server.log}"
            )
        if time.monotonic() > deadline:
            raise UserError(
                f"the {server.name} server did not answer within {timeout_seconds:.0f} s; "
                f"see {server.log}"
            )
        time.sleep(0.1)


def _listens(server: Server) -> bool:
    """Whether it is this server that answers, and not one that was quicker to take the port."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(server.process.pid)
        for part in (process, *process.children(recursive=True)):
            for connection in part.net_connections("tcp"):
                is_listener = connection.status == psutil.CONN_LISTEN
                if is_listener and connection.laddr.port == urlsplit(server.url).port:
                    return True
    return False


def last_line(log: Path) -> str:
    """The last line that was written to a log, which mostly says why a process ended."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return "no output"
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "no output")


def is_healthy(url: str) -> bool:
    """Whether ``url`` answers with success within two seconds."""
    try:
        return httpx.get(url, timeout=2.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def free_port(wanted: int = 0, host: str = HOST) -> int:
    """``wanted`` where it is free on ``host``, else a free port.

    Raises:
        UserError: this machine does not have the address ``host``, or all ports are in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in (wanted, 0):
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            # As the servers do: a port whose last connections linger is free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                listener.bind((host, port))
                return int(listener.getsockname()[1])
    raise UserError(f"{host}: no program can listen there; is it an address of this machine?")


# --------------------------------------------------------------------------------------- stop


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and its whole group: kindly first, then for certain."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def stopped_at_exit(server: Server) -> Iterator[Server]:
    """Stop the server when the block is left."""
    try:
        yield server
    finally:
        stop(server.process)


def wait_until_recorded(api_url: str, flow_run_id: str, num_task_runs: int) -> bool:
    """Wait until the server has stored the final states of the flow run's task runs.

    They arrive as events and are kept in memory first: a server stopped too early loses them.

    Returns:
        Whether all were stored in time.
    """
    deadline = time.monotonic() + RECORD_TIMEOUT_SECONDS
    body = {"flow_runs": {"id": {"any_": [flow_run_id]}}}
    while time.monotonic() < deadline:
        try:
            with access.prefect_client(api_url) as client:
                runs = client.post("/task_runs/filter", json=body).raise_for_status().json()
        except httpx.HTTPError:
            runs = []
        ended = sum(run["state_type"] in TERMINAL_STATES for run in runs)
        if ended >= num_task_runs and ended == len(runs):
            return True
        time.sleep(0.2)
    return False


# ------------------------------------------------------------------------------ find again


def standing_servers() -> Standing | None:
    """The servers of an ``rlhf up`` that is alive, else None."""
    try:
        record = json.loads((prefect_folder() / STANDING_FILE).read_text(encoding="utf-8"))
        standing = Standing(**record)
        # A process number may have been given to another process since.
        age_matches = abs(psutil.Process(standing.pid).create_time() - standing.started) < 1.0
    except (OSError, ValueError, TypeError, psutil.Error):
        return None
    alive = age_matches and is_healthy(f"{standing.prefect_url}/api/health")
    return standing if alive else None


@contextlib.contextmanager
def recorded(prefect_url: str, mlflow_url: str, tracking_uri: str = "") -> Iterator[Standing]:
    """Record this process's servers for others to find, until the block is left."""
    path = prefect_folder() / STANDING_FILE
    started = psutil.Process().create_time()
    urls = map(access.without_password, (prefect_url, mlflow_url, tracking_uri))
    standing = Standing(os.getpid(), started, *urls)
    access.write_private(path, json.dumps(asdict(standing)))
    try:
        yield standing
    finally:
        path.unlink(missing_ok=True)


def mlflow_address() -> str:
    """Address of the MLflow UI for links: as the user gives it, that of the user's server, that of
    ``rlhf up``, or where that would be."""
    if public := os.environ.get("RLHF_MLFLOW_PUBLIC_URL"):
        return public.rstrip("/")
    given = access.server_address(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if given:
        return access.without_password(given)
    standing = standing_servers()
    return standing.mlflow_url if standing else f"http://{HOST}:{MLFLOW_PORT}"


def die_with_parent(how: signal.Signals = signal.SIGTERM) -> None:
    """Ask Linux to end this process when the thread that started it is gone; for ``preexec_fn``."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, how)
