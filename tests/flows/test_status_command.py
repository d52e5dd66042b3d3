"""``rlhf status`` with a real MLflow store, and with servers that are away."""

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import cli
from stages.core import tracking
from stages.core.config import PipelineConfig, ReviewQueueConfig

Run = Callable[..., Any]


@pytest.fixture
def status(
    data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs ``rlhf status`` and returns its output; with --json as an object."""
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setenv("PREFECT_HOME", str(data_root / "prefect"))
    tracking.last_runs(1)  # makes the tables of the store, which takes seconds

    def status(*arguments: str) -> Any:
        capsys.readouterr()
        assert cli.main(["status", *arguments]) == 0
        text = capsys.readouterr().out
        return json.loads(text) if "--json" in arguments else text

    return status


def test_before_any_run_nothing_is_made(
    data_root: Path, status: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    facts = status("--json")
    assert (facts["runs"], facts["versions"], facts["next"], facts["problems"]) == (
        [],
        {},
        None,
        {},
    )
    assert not (data_root / "mlflow" / "mlflow.db").exists()
    assert "No run yet" in status()


def test_runs_and_versions_are_read_from_mlflow(
    data_root: Path, status: Run, tmp_path: Path
) -> None:
    run = tracking.start_pipeline_run(PipelineConfig(profile="status"), "status seed 0")
    (tmp_path / "policy").mkdir()
    tags = {"parent_run": run, "gate": "passed", "win_rate_policy_vs_sft": "0.75", "base": "runs/x"}
    version = tracking.register_policy(run, tmp_path / "policy", tags)
    tracking.promote(version)
    tracking.tag_run(run, {"policy_version": version, "policy_gate": "passed"})
    tracking.end_pipeline_run(run, "FINISHED", {"win_rate_policy_vs_sft": 0.75})
    facts = status("--json", "--runs", "1")
    (newest,) = facts["runs"]
    assert (newest["run_id"], newest["policy_version"]) == (run, version)
    assert newest["figures"] == {"win_rate_policy_vs_sft": 0.75}
    assert facts["versions"]["champion"]["number"] == version
    assert facts["versions"]["champion"]["figures"] == {"win_rate_policy_vs_sft": 0.75}
    assert f"version {version}, gate passed  wins against SFT 0.75" in status()


def test_judgments_are_counted_by_who_gave_them_and_since_when(
    data_root: Path, status: Run, tmp_path: Path
) -> None:
    rows = [
        {"prompt": f"{n}?", "chosen": "x", "rejected": "y", "created_at": f"2026-11-0{n}T00:00Z",
         "source": "feedback:ai" if n == 4 else "feedback:human"}
        for n in range(1, 5)
    ]  # fmt: skip
    path = tmp_path / "given.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert cli.main(["feedback", "import", str(path), "--experiment", "status-feedback"]) == 0
    learned = tracking.start_pipeline_run(PipelineConfig(profile="status"), "learned")
    tags = {"feedback_until": "2026-11-02T12:00:00+00:00", "policy_version": "9",
            "feedback_seen": '{"status-feedback": {"human": 2}}'}  # fmt: skip
    tracking.tag_run(learned, tags)
    tracking.end_pipeline_run(learned, "FINISHED", {})
    pair = tracking.published_pairs("status-feedback")[0]
    tracking.open_queue(
        ReviewQueueConfig(experiment="status-feedback", name="round"), [pair], learned
    )
    found = status("--json", "--experiment", "status-feedback")["judgments"]
    assert {name: found[name] for name in ("total", "human", "ai", "since", "pending")} == {
        "total": 4, "human": 3, "ai": 1, "since": 2, "pending": 1,
    }  # fmt: skip
    assert found["last_learned"]["version"] == "9"
    (queue,) = found["queues"]
    assert (queue["name"], queue["pending"]) == ("round", 1)
    assert "/review-queue?selectedQueueId=" in queue["page"]


def test_servers_that_are_away_or_silent_cost_seconds(
    status: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as silent:  # takes the connection and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
        began = time.monotonic()
        facts = status("--json")
    assert time.monotonic() - began < 6
    assert facts["runs"] is facts["next"] is None
    assert "does not answer; start it, or correct or unset MLFLOW" in facts["problems"]["MLflow"]
    assert "does not answer; start it, or correct or unset PREFECT" in facts["problems"]["Prefect"]
