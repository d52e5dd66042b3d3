"""Both servers, the deployments and a worker of the pool cpu, as a user starts them.

A switch to ``rlhf up`` needs a change of ``running_stack`` only.
"""

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows import access, servers
from tests.e2e.browser import TIMEOUT_SECONDS, wait


@dataclass(frozen=True)
class Stack:
    """Addresses of the running servers, and where their data lie."""

    root: Path
    prefect: str
    mlflow: str
    environment: dict[str, str] = field(repr=False)

    def api(self, path: str, body: Any = None) -> Any:
        """Call Prefect's API, with a POST where there is a body; again while its database is
        locked or it does not answer, as Prefect's own client does."""

        def answered() -> httpx.Response | None:
            try:
                with access.prefect_client(f"{self.prefect}/api") as client:
                    answer = client.get(path) if body is None else client.post(path, json=body)
            except httpx.ReadTimeout:
                return None
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer

        return wait(answered, f"an answer of {path}").raise_for_status().json()

    def tracked(self, experiment: str) -> dict[str, Any]:
        """The newest MLflow run of each name in an experiment."""
        api = f"{self.mlflow}/api/2.0/mlflow"
        named = {"experiment_name": experiment}
        found = httpx.get(f"{api}/experiments/get-by-name", params=named, trust_env=False)
        number = found.raise_for_status().json()["experiment"]["experiment_id"]
        body = {"experiment_ids": [number], "order_by": ["start_time ASC"]}
        answer = httpx.post(f"{api}/runs/search", json=body, trust_env=False)
        return {run["info"]["run_name"]: run for run in answer.json()["runs"]}

    def aliases(self) -> dict[str, str]:
        """The version of the registered policy that each alias points to."""
        address = f"{self.mlflow}/api/2.0/mlflow/registered-models/get"
        answer = httpx.get(address, params={"name": "rlhf-policy"}, trust_env=False)
        aliases = answer.raise_for_status().json()["registered_model"]["aliases"]
        return {alias["alias"]: alias["version"] for alias in aliases}

    def command(self, *arguments: str) -> None:
        """Run ``rlhf`` with these arguments; it must succeed."""
        python(["-m", "flows", *arguments], self.environment)

    def start(self, deployment: str, **parameters: Any) -> str:
        """Start a run of a deployment; returns its id."""
        deployed = self.api(f"/deployments/name/{deployment}")["id"]
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        body["idempotency_key"] = str(uuid.uuid4())  # one run, however often it is asked
        return str(self.api(f"/deployments/{deployed}/create_flow_run", body)["id"])

    def state(self, run: str) -> str:
        return str(self.api(f"/flow_runs/{run}")["state_name"])

    def story(self, run: str) -> str:
        """The states that the run went through, with their reasons, and its log."""
        states = self.api(f"/flow_run_states/?flow_run_id={run}")
        told = [f"{state['timestamp']} {state['name']}: {state['message']}" for state in states]
        asked = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"}
        logged = [
            f"{line['timestamp']} {line['message']}" for line in self.api("/logs/filter", asked)
        ]
        return "\n".join([*told, *logged])

    def wait_for_state(self, run: str, *states: str) -> str:
        """Wait until the run is in one of ``states``; a run that ended otherwise fails the test."""

        def reached() -> str | None:
            state = self.state(run)
            if state in ("Failed", "Crashed", "Cancelled"):
                assert state in states, self.story(run)
            return state if state in states else None

        return wait(reached, f"{run} in state {' or '.join(states)}")


@contextlib.contextmanager
def running_stack(root: Path, deploy: Sequence[str]) -> Iterator[Stack]:
    """Servers and a worker with the data root ``root``, and the deployments, with the options
    ``deploy`` of ``rlhf deploy``."""
    with contextlib.ExitStack() as cleanup:
        variables = cleanup.enter_context(pytest.MonkeyPatch.context())
        variables.setenv("RLHF_DATA_ROOT", str(root))
        variables.setenv("PREFECT_HOME", str(root / "prefect"))
        variables.delenv("PREFECT_API_URL", raising=False)
        prefect, mlflow = servers.start_prefect(standing=True), servers.start_mlflow()
        for server in (prefect, mlflow):
            cleanup.enter_context(servers.stopped_at_exit(server))
        for server in (prefect, mlflow):
            servers.wait_until_healthy(server, TIMEOUT_SECONDS)
        addresses = {
            "PREFECT_API_URL": f"{prefect.url}/api",
            "MLFLOW_TRACKING_URI": mlflow.url,
            "PREFECT_WORKER_QUERY_SECONDS": "2",
        }
        environment = {**os.environ, **addresses}
        python(["-m", "flows", "deploy", *deploy], environment)
        worker = servers.spawn(["-m", "flows", "worker", "cpu"], root / "worker.log", addresses)
        cleanup.callback(servers.stop, worker)
        yield Stack(root, prefect.url, mlflow.url, environment)


def python(arguments: Sequence[str], environment: dict[str, str]) -> None:
    """Run Python with these arguments; it must succeed."""
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=servers.CHECKOUT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
