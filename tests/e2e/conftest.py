"""Both servers, the deployments and a worker as a user starts them, and a browser to look at them.

A switch to ``rlhf up`` needs a change of ``stack`` only.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows import access, servers
from flows.profiles import cpu_demo, override
from stages.core.config import PipelineConfig
from tests.e2e.browser import PROGRAMS, TIMEOUT_SECONDS, Page, browser, wait

REGISTER = """
import sys
from pathlib import Path
from flows.profiles import cpu_demo
from stages.core import tracking
run = tracking.start_pipeline_run(cpu_demo(), "cpu-demo seed 0", "", "")
tracking.register_policy(run, Path(sys.argv[1]), {"policy/oracle": "0.58", "parent_run": run,
    "gate": "passed", "gate_table": "| rule | figure |\\n|---|---|\\n| beats SFT | wins 71 % |"})
tracking.end_pipeline_run(run, "FINISHED", {"policy/oracle": 0.58})
"""


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
        _python(["-m", "flows", *arguments], self.environment)

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


@pytest.fixture(scope="module")
def chromium() -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        message = f"{', '.join(missing)}: not installed; apt-get install chromium chromium-driver"
        if os.environ.get("RLHF_REQUIRE_SYSTEM_PACKAGES"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="module")
def tiny() -> PipelineConfig:
    """The demo with so little data and so few steps that each stage mostly starts and ends."""
    few = {"max_records": 48, "max_held_out_records": 16}
    data = {
        f"collect.{kind}.{name}": number
        for kind in ("documents", "sft", "preferences", "prompts")
        for name, number in few.items()
    }
    settings = {
        "profile": "tiny",
        "clean.guard_share": 0.0,
        "collect.labelled.paths": [],
        "collect.labelled.held_out_paths": [],
        "reward_model_card.gate.action": "warn",
        "evaluate.gate.action": "warn",
        "tokenizer.vocab_size": 400,
        "pretrain.max_steps": 2,
        "sft.num_epochs": 0.1,
        "sft.max_over_length_share": 1.0,
        "reward_model.num_epochs": 0.1,
        "reward_model.max_over_length_share": 1.0,
        "reward_model.num_statistics_samples": 8,
        "ppo.total_episodes": 8,
        "ppo.batch_size": 8,
        "ppo.max_over_length_share": 1.0,
        "ppo.max_completion_length": 8,
    }
    return override(cpu_demo(), data | settings)


@pytest.fixture(scope="module")
def stack(
    chromium: None, tiny: PipelineConfig, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Servers, deployments, and a worker of the pool cpu."""
    root = tmp_path_factory.mktemp("stack")
    (root / "tiny.json").write_text(tiny.model_dump_json(), encoding="utf-8")
    (root / "policy").mkdir()
    (root / "policy" / "adapter_config.json").write_text("{}", encoding="utf-8")
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
        weekly = ["--name", "tiny", "--cron", "0 4 * * 0", "--config", str(root / "tiny.json")]
        _python(["-m", "flows", "deploy", *weekly], environment)
        worker = servers.spawn(["-m", "flows", "worker", "cpu"], root / "worker.log", addresses)
        cleanup.callback(servers.stop, worker)
        _python(["-c", REGISTER, str(root / "policy")], environment)
        yield Stack(root, prefect.url, mlflow.url, environment)


def _python(arguments: list[str], environment: dict[str, str]) -> None:
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=servers.CHECKOUT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# -------------------------------------------------------------------------------------- browser


@pytest.fixture(scope="module")
def page(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folders = [tmp_path_factory.mktemp("screenshots")]
    if os.environ.get("RLHF_SCREENSHOTS"):
        folders.append(Path(os.environ["RLHF_SCREENSHOTS"]))
        folders[-1].mkdir(parents=True, exist_ok=True)
    with browser(tmp_path_factory.mktemp("chromium"), folders) as opened:
        yield opened


@pytest.fixture(scope="module")
def waits() -> Callable[..., Any]:
    return wait


@pytest.fixture(scope="module")
def as_parameter() -> Callable[[PipelineConfig], dict[str, Any]]:
    """A configuration as the API takes it."""
    return lambda config: json.loads(config.model_dump_json())
