"""The running stack: closed to strangers, and it works off what a user asks for."""

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.profiles import cpu_demo, override
from flows.servers import TERMINAL_STATES

pytestmark = pytest.mark.slow

TIMEOUT_SECONDS = 600  # a busy machine takes minutes
STAGES = ("collect", "clean", "tokenizer")


@pytest.mark.parametrize("login", [None, ("admin", "wrong")])
@pytest.mark.parametrize(
    ("service", "path"),
    [
        ("prefect-server", "/prefect/api/admin/version"),
        ("mlflow", "/mlflow/api/2.0/mlflow/experiments/get?experiment_id=0"),
        ("mlflow", "/mlflow/ajax-api/2.0/mlflow/experiments/get?experiment_id=0"),
        ("mlflow", "/mlflow/api/2.0/mlflow-artifacts/artifacts"),
        # A second way to the artifacts, which MLflow serves beside its path.
        ("mlflow", "/api/2.0/mlflow-artifacts/artifacts/0"),
    ],
)
def test_strangers_are_refused(
    service: str, path: str, login: tuple[str, str] | None, stack: Any
) -> None:
    with stack.client(service) as client:
        assert client.get(path, auth=login).status_code == 401
        assert client.get(path).status_code not in (401, 403)


def test_other_web_pages_are_refused(stack: Any) -> None:
    evil = {"Origin": "http://evil.example"}
    with stack.client("prefect-server", "/prefect/api") as client:
        answer = client.get("/admin/version", headers=evil)
        assert "access-control-allow-origin" not in answer.raise_for_status().headers
        assert client.post("/flow_runs/filter", json={}).status_code == 403
    with stack.client("mlflow", "/mlflow/api/2.0/mlflow") as client:
        search = "/experiments/search"
        assert client.post(search, json={"max_results": 1}, headers=evil).status_code == 403
        known = {"Host": "rlhf.example", "Origin": "https://rlhf.example"}
        assert client.post(search, json={"max_results": 1}, headers=known).status_code == 200
        assert client.get(search, headers={"Host": "evil.example"}).status_code == 403


def test_the_pages_work_behind_a_path(prefect: httpx.Client, mlflow: httpx.Client) -> None:
    pages = prefect.base_url.copy_with(path="/prefect/v2/")
    html = httpx.get(pages, trust_env=False).raise_for_status().text
    scripts = re.findall(r'src="([^"]+\.js)"', html)
    assert scripts
    assert all(script.startswith("/prefect/v2/") for script in scripts)
    for script in scripts:
        answer = httpx.get(pages.join(script), trust_env=False).raise_for_status()
        assert "javascript" in answer.headers["content-type"]
    settings = httpx.get(pages.join("/prefect/ui-settings"), trust_env=False).json()
    assert settings["api_url"] == "/prefect/api"
    assert settings["csrf_enabled"]
    page = mlflow.get("/").raise_for_status()
    scripts = re.findall(r'src="([^"]+\.js)"', page.text)
    assert scripts
    for script in scripts:
        assert mlflow.get(page.url.join(script)).is_success, script


def test_a_run_is_worked_off_and_tracked(
    stack: Any, prefect: httpx.Client, mlflow: httpx.Client
) -> None:
    deployment = prefect.get("/deployments/name/align/cpu-demo").raise_for_status().json()
    parameters = {"config": tiny_config(stack.root), "until_stage": STAGES[-1]}
    path = f"/deployments/{deployment['id']}/create_flow_run"
    flow_run = prefect.post(path, json={"parameters": parameters}).raise_for_status().json()
    state = final_state(prefect, flow_run["id"])
    assert state["type"] == "COMPLETED", f"{state}{stack.logs()}"
    experiment = mlflow.get(
        "/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": "tiny"}
    ).raise_for_status()
    experiment_id = experiment.json()["experiment"]["experiment_id"]
    search = {"experiment_ids": [experiment_id], "max_results": 50}
    runs = mlflow.post("/api/2.0/mlflow/runs/search", json=search).raise_for_status().json()["runs"]
    assert {run["info"]["status"] for run in runs} == {"FINISHED"}
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in tags(run))
    assert tags(parent)["prefect_flow_run"] == flow_run["id"]
    stages = {run["info"]["run_name"]: run["info"]["run_id"] for run in runs if run != parent}
    assert set(stages) == set(STAGES)
    for stage, run_id in stages.items():
        (folder,) = (path for path in (stack.root / "data/runs" / stage).iterdir() if path.is_dir())
        files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
        assert files
        for file in files:
            name = file.relative_to(folder).as_posix()
            if name != "result.json":  # logged as JSON, with other white space
                assert artifact(mlflow, experiment_id, run_id, name) == file.read_bytes(), name


# ------------------------------------------------------------------------------------ helpers


def final_state(prefect: httpx.Client, flow_run_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        state = prefect.get(f"/flow_runs/{flow_run_id}").raise_for_status().json()["state"]
        if state["type"] in TERMINAL_STATES or time.monotonic() > deadline:
            return dict(state)
        time.sleep(0.5)


def tags(run: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


def artifact(mlflow: httpx.Client, experiment_id: str, run_id: str, name: str) -> bytes:
    place = f"{experiment_id}/{run_id}/artifacts/stage/{name}"
    return mlflow.get(f"/api/2.0/mlflow-artifacts/artifacts/{place}").raise_for_status().content


def tiny_config(root: Path) -> dict[str, Any]:
    """A few short documents and nothing else: enough for the first three stages."""
    documents = root / "documents.jsonl"
    texts = [f"The {n}th house in the lane has {n + 2} windows and a door." for n in range(40)]
    documents.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    settings: dict[str, Any] = {"profile": "tiny", "collect.documents.paths": [str(documents)]}
    settings["collect.documents.held_out_paths"] = []
    for kind in ("sft", "preferences", "prompts"):
        settings |= {f"collect.{kind}.paths": [], f"collect.{kind}.held_out_paths": []}
    return override(cpu_demo(), settings).model_dump(mode="json")
