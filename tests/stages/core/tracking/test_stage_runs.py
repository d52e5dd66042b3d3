"""A stage's nested run: what it holds, and how it ends."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from stages.core import tracking
from stages.core.artifacts import make_artifact
from stages.core.config import CleanConfig, Compute, TokenizerConfig
from stages.core.contracts import TokenizerInputs
from stages.core.errors import StageCrashedError
from stages.core.launch import run_stage
from stages.core.schemas import write_jsonl
from stages.core.tracking.client import mlflow

KEY = "0123456789ab"


def artifact_names(client, run_id, path=None):
    return {item.path for item in client.list_artifacts(run_id, path)}


def test_a_stage_is_a_nested_run_with_settings_data_and_tags(
    client, parent, stage, children, inputs, request
):
    with stage() as run_id:
        assert client.get_run(run_id).info.status == "RUNNING"
    (run,) = children(parent)
    assert run.info.run_id == run_id
    assert (run.info.run_name, run.info.status) == ("clean", "FINISHED")
    assert run.data.params["max_reject_share"] == "0.25"
    assert run.data.tags["stage_key"] == KEY
    assert run.data.tags["prefect_flow_run"] == request.node.name
    (entry,) = run.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("sft", "d" * 32)


def test_step_metrics_are_in_the_run_and_in_the_folder(client, stage, out_dir):
    with stage() as run_id:
        for step in (1, 2):
            tracking.log_metrics({"loss": 1.0 / step, "val/ratio": 1.0}, step)
    history = client.get_metric_history(run_id, "loss")
    assert [(item.step, item.value) for item in history] == [(1, 1.0), (2, 0.5)]
    rows = [json.loads(line) for line in (out_dir / "metrics.jsonl").read_text().splitlines()]
    assert rows == [
        {"step": 1, "loss": 1.0, "val/ratio": 1.0},
        {"step": 2, "loss": 0.5, "val/ratio": 1.0},
    ]


def test_a_resumed_stage_has_each_step_once_and_its_run_the_whole_curve(client, stage, out_dir):
    with stage():  # killed; its last checkpoint was after step 2
        for step in (1, 2, 3):
            tracking.log_metrics({"loss": 1.0 / step}, step)
    with stage() as run_id:
        tracking.restart_metrics([(1, {"loss": 1.0}), (2, {"loss": 0.5})])
        tracking.log_metrics({"loss": 0.25}, 3)
    history = client.get_metric_history(run_id, "loss")
    assert [(item.step, item.value) for item in history] == [(1, 1.0), (2, 0.5), (3, 0.25)]
    rows = [json.loads(line) for line in (out_dir / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 1.0), (2, 0.5), (3, 0.25)]


def test_plots_are_equal_bytes_each_time_and_in_the_run(client, stage, out_dir):
    with stage() as run_id:
        for name in ("one", "two"):
            figure = Figure(figsize=(2, 1))
            figure.subplots().plot([1, 2, 3])
            tracking.log_figure(figure, name, out_dir)
    one, two = ((out_dir / "plots" / f"{name}.png").read_bytes() for name in ("one", "two"))
    assert one == two
    assert one.startswith(b"\x89PNG")
    assert artifact_names(client, run_id, "plots") == {"plots/one.png", "plots/two.png"}


def test_tables_grow_row_by_row(client, stage):
    with stage() as run_id:
        tracking.log_table([{"step": 1, "prompt": "a", "score": 0.5}], "samples")
        tracking.log_table([{"step": 2, "prompt": "ü", "score": 1.5}], "samples")
        tracking.log_table([], "samples")
    path = Path(client.download_artifacts(run_id, "samples.json"))
    table = json.loads(path.read_text(encoding="utf-8"))
    assert table["columns"] == ["step", "prompt", "score"]
    assert table["data"] == [[1, "a", 0.5], [2, "ü", 1.5]]


def test_a_finished_stages_folder_is_stored_with_its_result(client, stage, out_dir, result):
    (out_dir / "model").mkdir()
    (out_dir / "model" / "weights").write_bytes(b"x")
    with stage() as run_id:
        tracking.log_result(out_dir, result())
    assert {"stage/model", "stage/result.json"} <= artifact_names(client, run_id, "stage")
    assert client.get_run(run_id).data.metrics["kept"] == 9.0


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError, "FAILED"), (MemoryError, "FAILED"), (KeyboardInterrupt, "KILLED"),
     (SystemExit, "KILLED")],
)  # fmt: skip
def test_a_stage_that_does_not_end_well_is_not_left_running(
    client, parent, stage, error, status, children
):
    with pytest.raises(error), stage():
        raise error
    assert children(parent)[0].info.status == status
    assert mlflow.active_run() is None


def test_without_pipeline_run_only_the_folder_is_written(tmp_path, result, inputs):
    folder = tmp_path / "runs" / "clean" / KEY
    folder.mkdir(parents=True)
    with tracking.stage_run("clean", KEY, CleanConfig(), inputs) as run_id:
        assert run_id == ""
        tracking.log_metrics({"kept": 1.0}, 0)
        tracking.log_table([{"a": 1}], "samples")
        tracking.log_result(folder, result())
    assert (folder / "metrics.jsonl").read_text() == '{"step": 0, "kept": 1.0}\n'
    assert not (tmp_path / "mlflow").exists()


def test_other_ranks_than_the_first_write_nothing(client, parent, stage, out_dir, children, inputs):
    with tracking.stage_run("clean", KEY, CleanConfig(), inputs, enabled=False) as run_id:
        tracking.log_metrics({"kept": 1.0}, 0)
    assert run_id == ""
    assert not (out_dir / "metrics.jsonl").exists()
    assert children(parent) == []


def test_progress_is_one_line_for_the_flow_and_silence_elsewhere(monkeypatch, capsys):
    tracking.report_progress(1, 4, loss=0.5)
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RLHF_PARENT_PID", "1")
    tracking.report_progress(1, 4, loss=0.5)
    line = capsys.readouterr().out
    event = json.loads(line.removeprefix("::progress "))
    assert (event["step"], event["total"], event["metrics"]) == (1, 4, {"loss": 0.5})
    monkeypatch.setenv("RANK", "1")
    tracking.report_progress(1, 4)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_cancelled_stage_ends_its_run_itself(client, parent, tmp_path, children):
    """SIGTERM is what a cancelled flow sends to the stage's process group."""
    documents = tmp_path / "documents"
    documents.mkdir()
    for split in ("train", "held_out"):
        text = " ".join(f"w{number * 7919}" for number in range(100_000))
        write_jsonl(documents / f"{split}.jsonl", [{"text": text}] * 40)
    inputs = TokenizerInputs(documents=make_artifact("documents", documents))

    def cancel_once_it_runs():
        deadline = time.monotonic() + 60
        while not (found := children(parent)) and time.monotonic() < deadline:
            time.sleep(0.05)
        process = found[0].data.tags["process"]
        os.kill(int(process.split("@")[0]), signal.SIGTERM)

    canceller = threading.Thread(target=cancel_once_it_runs)
    canceller.start()
    with pytest.raises(StageCrashedError, match="ended with code 143"):
        run_stage(
            TokenizerConfig(vocab_size=20_000),
            inputs,
            Compute(),
            on_line=str,
            environment={tracking.PARENT_RUN_VARIABLE: parent},
        )
    canceller.join()
    assert children(parent)[0].info.status == "KILLED"
