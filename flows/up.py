"""``rlhf up``: both servers, the deployments and the workers, until Ctrl-C."""

import contextlib
import functools
import os
import subprocess
import time
from collections.abc import Callable, Iterator

import psutil
from filelock import FileLock, Timeout
from rich.console import Console

from flows import access, servers, supervisor
from flows.environment import has_gpu_driver, prefect_folder
from flows.supervisor import Child
from stages.core.errors import UserError

SECONDS_BETWEEN_LOOKS = 0.5
DEPLOY_TIMEOUT_SECONDS = 180.0
DEPLOY = ("-m", "flows", "deploy")
WORKER = ("-m", "flows", "worker")


def up(
    console: Console, host: str = servers.HOST, prefect_port: int = 0, mlflow_port: int = 0
) -> None:
    """Start everything, show the addresses, start again what dies, and wait until interrupted.

    Where ``PREFECT_API_URL`` or ``MLFLOW_TRACKING_URI`` names a server, that one is used.

    Args:
        console: where to say what happens.
        host: the address on which the servers listen.
        prefect_port: 0 for 4200, or any free one where that is in use.
        mlflow_port: 0 for 5000, or any free one where that is in use.

    Raises:
        UserError: a part could not be started, or ends again and again; other machines reach
            ``host`` and no password is set.
    """
    api_url, mlflow_url = _elsewhere()
    access.require_passwords(host, prefect=not api_url, mlflow=not mlflow_url)
    standing = servers.standing_servers()
    if standing is not None:
        console.print(f"Running already (process {standing.pid}).")
        _show(console, standing.prefect_url, standing.mlflow_url)
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(_alone())
        supervisor.end_leftovers()
        os.environ[supervisor.MARK] = supervisor.mark()
        stack.callback(os.environ.pop, supervisor.MARK, None)
        workers: list[Child] = []
        started: list[Child] = []
        waiting: list[servers.Server] = []
        stack.callback(lambda: supervisor.end(workers, started))
        if not api_url:
            port = _port(console, host, prefect_port, "Prefect", servers.PREFECT_PORT)
            start = functools.partial(servers.start_prefect, port, host=host, standing=True)
            waiting.append(_start(start, started))
            api_url = f"{waiting[-1].url}/api"
        tracking_uri = mlflow_url
        if not mlflow_url:
            port = _port(console, host, mlflow_port, "MLflow", servers.MLFLOW_PORT)
            start = functools.partial(servers.start_mlflow, port, host=host)
            waiting.append(_start(start, started))
            mlflow_url = waiting[-1].url
            tracking_uri = "" if servers.tracks_locally() else mlflow_url
        console.print("Starting; the first start takes up to a minute.")
        for server in waiting:
            servers.wait_until_healthy(server)
            _check_password(server)
        environment = {"PREFECT_API_URL": api_url}
        if tracking_uri and not os.environ.get("MLFLOW_TRACKING_URI"):
            environment["MLFLOW_TRACKING_URI"] = tracking_uri
        _deploy(environment)
        pools = ("cpu", "gpu") if has_gpu_driver() else ("cpu",)
        workers.extend(_worker(pool, environment) for pool in pools)
        prefect_url = api_url.removesuffix("/api")
        shown = [access.public_address(url, host) for url in (prefect_url, mlflow_url)]
        stack.enter_context(servers.recorded(prefect_url, shown[1], tracking_uri))
        _show(console, *shown)
        console.print("Ctrl-C ends everything.")
        say = functools.partial(console.print, soft_wrap=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                supervisor.look_after([*started, *workers], say)
                time.sleep(SECONDS_BETWEEN_LOOKS)
        console.print("Stopping.")


def _elsewhere() -> tuple[str, str]:
    """The API and the MLflow server that the user names, both asked whether they let us in."""
    api_url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    mlflow_url = access.server_address(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if api_url:
        access.check_prefect(api_url)
    if mlflow_url:
        access.check_mlflow(mlflow_url)
    return api_url, mlflow_url


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One ``rlhf up`` a data root: two would write the same databases."""
    try:
        lock = FileLock(prefect_folder() / "up.lock").acquire(timeout=0)
    except Timeout:
        raise UserError("another rlhf up is starting or stopping here; wait a moment") from None
    with lock:
        yield


def _port(console: Console, host: str, wanted: int, name: str, default: int) -> int:
    """The wanted port, or where none is wanted the default one or a free one.

    Raises:
        UserError: the wanted one is in use.
    """
    option = f"--{name.lower()}-port"
    port = servers.free_port(wanted or default, host)
    if port == (wanted or default):
        return port
    if wanted:
        raise UserError(f"{option} {wanted}: in use{_user_of(wanted)}; end that, or choose another")
    console.print(
        f"Port {default} is in use{_user_of(default)}, so {name} listens on {port}; "
        f"{option} chooses another."
    )
    return port


def _user_of(port: int) -> str:
    """The program that listens on a port, as far as we may see it."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            if listens and connection.pid:
                name = psutil.Process(connection.pid).name()
                return f" by {name} (process {connection.pid})"
    return ""


def _start(start: Callable[[], servers.Server], started: list[Child]) -> servers.Server:
    server = start()
    name = f"The {server.name} server"
    started.append(Child(name, lambda: start().process, server.log, server.process))
    return server


def _check_password(server: servers.Server) -> None:
    """Whether a server started here lets us in.

    Raises:
        UserError: MLflow's administrator has another password, that of the first start.
    """
    if server.name == "Prefect":
        access.check_prefect(f"{server.url}/api")
        return
    try:
        access.check_mlflow(server.url)
    except UserError as error:
        raise UserError(
            f"{error}; the account keeps the password that it was made with, and it was made at "
            "the first start with that user name"
        ) from None


def _worker(pool: str, environment: dict[str, str]) -> Child:
    log = prefect_folder() / f"worker-{pool}.log"
    start = functools.partial(servers.spawn, [*WORKER, pool], log, environment)
    return Child(f"The worker of the pool {pool}", start, log, start())


def _deploy(environment: dict[str, str]) -> None:
    """Register work pools and deployments.

    Raises:
        UserError: that ended with an error or took too long.
    """
    log = prefect_folder() / "deploy.log"
    process = servers.spawn(list(DEPLOY), log, environment)
    try:
        code = process.wait(DEPLOY_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"the deployments were not registered within {DEPLOY_TIMEOUT_SECONDS:.0f} s; see {log}"
        ) from None
    finally:
        servers.stop(process)
    if code:
        last = servers.last_line(log)
        raise UserError(f"the deployments could not be registered: {last}; see {log}")


def _show(console: Console, prefect_url: str, mlflow_url: str) -> None:
    console.print(f"Prefect  {prefect_url}  flows, runs, the run form", highlight=False)
    console.print(f"MLflow   {mlflow_url}  figures, plots, models", highlight=False)
