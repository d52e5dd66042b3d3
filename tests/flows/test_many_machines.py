"""Two workers that share the addresses of Prefect and MLflow, and nothing else."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import access, servers
from stages.core.artifacts import read_result

FLOW_RUN_SECONDS = 300.0
TINY = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture
def prefect_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Prefect and MLflow on a machine of their own; ``MLFLOW_TRACKING_URI`` is set."""
    for name in list(os.environ):
        if name.startswith(("PREFECT_", "RLHF_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RLHF_DATA_ROOT", str(tmp_path / "servers"))
    with contextlib.ExitStack() as stack:
        started = [servers.start_prefect(standing=True), servers.start_mlflow()]
        for server in started:
            stack.enter_context(servers.stopped_at_exit(server))
        for server in started:
            servers.wait_until_healthy(server)
        prefect, mlflow = started
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.url)
        monkeypatch.setenv("PREFECT_API_URL", f"{prefect.url}/api")
        yield f"{prefect.url}/api"


@pytest.fixture
def worker(tmp_path: Path) -> Callable[..., contextlib.AbstractContextManager[Path]]:
    """A function that runs a worker of a pool with a data root of its own."""

    @contextlib.contextmanager
    def work(pool: str) -> Iterator[Path]:
        root = tmp_path / f"machine-{pool}"
        environment = {
            "RLHF_DATA_ROOT": str(root),
            "PREFECT_HOME": str(root / "prefect"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }
        arguments = ["-m", "flows", "worker", pool]
        process = servers.spawn(arguments, root / "worker.log", environment)
        try:
            yield root
        finally:
            servers.stop(process)

    return work


def _run(api_url: str, deployment: str, parameters: dict[str, Any]) -> None:
    """Trigger the deployment and wait until its run has completed."""
    with access.prefect_client(api_url) as api:
        found = api.get(f"/deployments/name/{deployment}").raise_for_status().json()
        path = f"/deployments/{found['id']}/create_flow_run"
        run = api.post(path, json={"parameters": parameters}).raise_for_status().json()
        deadline = time.monotonic() + FLOW_RUN_SECONDS
        while (state := run["state"])["type"] not in servers.TERMINAL_STATES:
            assert time.monotonic() < deadline, state
            time.sleep(0.5)
            run = api.get(f"/flow_runs/{run['id']}").raise_for_status().json()
        assert state["type"] == "COMPLETED", state["message"]


@pytest.mark.slow
def test_a_stage_runs_on_a_machine_that_has_none_of_its_inputs(
    prefect_url: str,
    worker: Callable[..., contextlib.AbstractContextManager[Path]],
    tmp_path: Path,
) -> None:
    log = tmp_path / "deploy.log"
    deploy = servers.spawn(["-m", "flows", "deploy"], log, {})
    assert deploy.wait(timeout=120) == 0, log.read_text(encoding="utf-8")
    documents = tmp_path / "documents.jsonl"
    texts = [f"The {n}th house in the lane has {n + 2} windows and a door." for n in range(40)]
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    documents.write_text(rows, encoding="utf-8")

    source = {"paths": [str(documents)], "held_out_share": 0.2}
    with worker("cpu") as first:
        _run(prefect_url, "prepare-data/on-cpu", {"collect": {"documents": source}})
    away = first.rename(tmp_path / "gone")
    documents.unlink()
    pretrain = {
        "model_overrides": TINY, "sequence_length": 32, "global_batch_size": 4, "max_steps": 2,
        "num_samples": 1,
    }  # fmt: skip
    parameters = {
        "tokenizer": {"vocab_size": 300},
        "pretrain": pretrain,
        "compute": {"device": "cpu", "micro_batch_size": 4},
        "earlier_run": "clean seed 0",
    }
    with worker("gpu") as second:
        _run(prefect_url, "pretrain/on-gpu", parameters)

    made = {stage: _results(away, stage) for stage in ("collect", "clean")}
    assert made == {stage: _results(second, stage) for stage in made}
    assert all(len(results) == 1 for results in made.values())
    assert len(_results(second, "tokenizer")) == len(_results(second, "pretrain")) == 1
    assert not first.exists()
    assert not (second / "mlflow" / "mlflow.db").exists()


def _results(root: Path, stage: str) -> dict[str, dict[str, str]]:
    """The files' digests of each complete and sound result."""
    results = [read_result(path) for path in (root / "runs" / stage).iterdir() if path.is_dir()]
    return {result.key: result.files for result in results if result is not None}
