"""``rlhf up``: both servers and the served deployments, until Ctrl-C."""

import contextlib
import os
import subprocess
import time
from pathlib import Path

import httpx
from rich.console import Console

from flows import servers
from flows.environment import prefect_folder
from flows.profiles import PROFILES
from stages.core.errors import UserError

SECONDS_BETWEEN_CHECKS = 1.0

Processes = dict[str, tuple[subprocess.Popen[bytes], Path]]


def up(console: Console) -> None:
    """Start everything, show the addresses, and wait until interrupted.

    Raises:
        UserError: a server could not be started.
        RuntimeError: one of the processes ended by itself.
    """
    standing = servers.standing_servers()
    if standing is not None:
        console.print(f"Running already (process {standing.pid}).")
        _show(console, standing.prefect_url, standing.mlflow_url)
        return
    with contextlib.ExitStack() as stack:
        console.print("Starting the servers; the first start takes up to a minute.")
        api_url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
        mlflow_url = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
        started = []
        if not api_url:
            started.append(servers.start_prefect(servers.PREFECT_PORT, standing=True))
            api_url = f"{started[-1].url}/api"
        if not mlflow_url.startswith("http"):
            started.append(servers.start_mlflow(servers.MLFLOW_PORT))
            mlflow_url = started[-1].url
        processes: Processes = {}
        for server in started:
            stack.enter_context(servers.stopped_at_exit(server))
            processes[f"the {server.name} server"] = server.process, server.log
        for server in started:
            servers.wait_until_healthy(server)
        log = prefect_folder() / "deployments.log"
        environment = {"PREFECT_API_URL": api_url}
        serving = servers.spawn(["-m", "flows.deployments"], log, environment)
        stack.callback(servers.stop, serving)
        processes["the process that serves the deployments"] = serving, log
        _wait_for_deployments(api_url, processes)
        prefect_url = api_url.removesuffix("/api")
        stack.enter_context(servers.recorded(prefect_url, mlflow_url))
        _show(console, prefect_url, mlflow_url)
        console.print("Ctrl-C ends both.")
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                _check(processes)
                time.sleep(SECONDS_BETWEEN_CHECKS)
        console.print("Stopping.")


def _wait_for_deployments(api_url: str, processes: Processes) -> None:
    deadline = time.monotonic() + servers.START_TIMEOUT_SECONDS
    body = {"deployments": {"name": {"any_": list(PROFILES)}}}
    while True:
        _check(processes)
        answer = httpx.post(f"{api_url}/deployments/filter", json=body, trust_env=False)
        names = {row["name"] for row in answer.json() if row["status"] == "READY"}
        if answer.is_success and names >= set(PROFILES):
            return
        if time.monotonic() > deadline:
            raise UserError("the deployments were not registered in time; see deployments.log")
        time.sleep(0.2)


def _check(processes: Processes) -> None:
    for name, (process, log) in processes.items():
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended with code {process.returncode}; see {log}")


def _show(console: Console, prefect_url: str, mlflow_url: str) -> None:
    console.print(f"Prefect  {prefect_url}  flows, runs, the run form", highlight=False)
    console.print(f"MLflow   {mlflow_url}  figures, plots, models", highlight=False)
