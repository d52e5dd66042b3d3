"""Tracking with a real MLflow store: what a pipeline run leaves behind, and what a killed one does.

The store is SQLite and shared by all tests here, since making its tables takes seconds; each test
has an experiment of its own.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from stages.core import tracking
from stages.core.artifacts import Artifact, StageResult, make_artifact
from stages.core.config import (
    CleanConfig,
    CleanInputs,
    Compute,
    Datasets,
    PipelineConfig,
    TokenizerConfig,
    TokenizerInputs,
)
from stages.core.errors import StageCrashedError
from stages.core.launch import run_stage
from stages.core.schemas import write_jsonl

KEY = "0123456789ab"
INPUTS = CleanInputs(
    datasets=Datasets(sft=Artifact(kind="sft", path="runs/collect/x/sft", digest="d" * 64))
)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """URI of one SQLite store, its tables made."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def client(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    tracking.set_up()
    return tracking.mlflow.MlflowClient()


@pytest.fixture
def parent(client, request):
    """A pipeline run in an experiment named as the test."""
    return tracking.start_pipeline_run(request.node.name, PipelineConfig(seed=3), "flow-run-7")


@pytest.fixture
def stage(parent, monkeypatch, tmp_path):
    """A function that opens the run of the stage clean below the pipeline run."""
    monkeypatch.setenv(tracking.PARENT_RUN_VARIABLE, parent)
    monkeypatch.setenv(tracking.FLOW_RUN_VARIABLE, "flow-run-7")
    (tmp_path / "runs" / "clean" / KEY).mkdir(parents=True)
    return lambda: tracking.stage_run("clean", KEY, CleanConfig(max_reject_share=0.25), INPUTS)


@pytest.fixture
def out_dir(tmp_path):
    return tmp_path / "runs" / "clean" / KEY


def children(client, parent):
    """The nested runs of a pipeline run, in the order of their making."""
    experiment = client.get_run(parent).info.experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    return sorted(runs, key=lambda run: run.info.start_time)


def artifact_names(client, run_id, path=None):
    return {item.path for item in client.list_artifacts(run_id, path)}


def result(**changes):
    fields = {"stage": "clean", "key": KEY, "outputs": {}, "metrics": {"kept": 9.0}, "files": {}}
    return StageResult(**fields | changes)


# ------------------------------------------------------------------------------- the flow's side


def test_the_default_store_lies_below_the_data_root(tmp_path):
    assert tracking.set_up() == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/mlflow/mlflow.db"


def test_the_users_store_is_honoured(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert tracking.set_up() == store


def test_a_pipeline_run_holds_every_setting(client, parent):
    run = client.get_run(parent)
    assert run.info.status == "RUNNING"
    assert run.info.run_name.endswith(" seed 3")
    assert run.data.params["seed"] == run.data.params["ppo.seed"] == "3"
    assert run.data.params["sft.lora.rank"] == "16"
    assert len(run.data.params) > 100  # more than one request takes
    assert run.data.tags["prefect_flow_run"] == "flow-run-7"


def test_a_pipeline_run_ends_with_the_figures_of_the_chain(client, parent):
    tracking.end_pipeline_run(parent, "FINISHED", {"evaluate/win_rate": 0.75})
    run = client.get_run(parent)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"evaluate/win_rate": 0.75}


def test_runs_of_one_profile_share_an_experiment_even_after_its_deletion(client, parent):
    experiment = client.get_run(parent).info.experiment_id
    name = client.get_experiment(experiment).name
    tracking.end_pipeline_run(parent, "FINISHED", {})
    client.delete_experiment(experiment)
    again = tracking.start_pipeline_run(name, PipelineConfig())
    assert client.get_run(again).info.experiment_id == experiment


def test_a_reused_stage_is_shown_with_its_figures_and_origin(client, parent):
    tracking.log_reused(parent, result(tracking_run_id="run-that-made-it", git_commit="abc"))
    (run,) = children(client, parent)
    assert (run.info.run_name, run.info.status) == ("clean", "FINISHED")
    assert run.data.tags["reused_from"] == "run-that-made-it"
    assert run.data.tags["stage_key"] == KEY
    assert run.data.metrics == {"kept": 9.0}


def test_the_page_of_a_run_names_run_and_experiment(client, parent):
    experiment = client.get_run(parent).info.experiment_id
    assert tracking.run_page(parent).startswith(f"/#/experiments/{experiment}/runs/{parent}")


def test_a_registered_policy_is_the_challenger_and_keeps_its_origin(client, parent, tmp_path):
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "adapter_model.safetensors").write_bytes(b"weights")
    first = tracking.register_policy(parent, policy, {"win_rate": "0.6"})
    second = tracking.register_policy(parent, policy, {"win_rate": "0.7"})
    assert int(second) == int(first) + 1
    challenger = client.get_model_version_by_alias("rlhf-policy", "challenger")
    assert str(challenger.version) == second
    assert challenger.tags["win_rate"] == "0.7"
    logged = client.get_logged_model(challenger.source.removeprefix("models:/"))
    assert logged.source_run_id == parent
    files = {item.path for item in client.list_logged_model_artifacts(logged.model_id)}
    assert "adapter_model.safetensors" in files


# ------------------------------------------------------------------------------ the stage's side


def test_a_stage_is_a_nested_run_with_settings_data_and_tags(client, parent, stage):
    with stage() as run_id:
        assert client.get_run(run_id).info.status == "RUNNING"
    (run,) = children(client, parent)
    assert run.info.run_id == run_id
    assert (run.info.run_name, run.info.status) == ("clean", "FINISHED")
    assert run.data.params["max_reject_share"] == "0.25"
    assert run.data.tags["stage_key"] == KEY
    assert run.data.tags["prefect_flow_run"] == "flow-run-7"
    (entry,) = run.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("sft", "d" * 32)


def test_step_metrics_are_in_the_run_and_in_the_folder(client, stage, out_dir):
    with stage() as run_id:
        for step in (1, 2):
            tracking.log_metrics({"loss": 1.0 / step, "val/ratio": 1.0}, step)
    tracking.mlflow.flush_async_logging()
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
    tracking.mlflow.flush_async_logging()
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


def test_a_finished_stages_folder_is_stored_with_its_result(client, stage, out_dir):
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
def test_a_stage_that_does_not_end_well_is_not_left_running(client, parent, stage, error, status):
    with pytest.raises(error), stage():
        raise error
    assert children(client, parent)[0].info.status == status
    assert tracking.mlflow.active_run() is None


def test_without_pipeline_run_only_the_folder_is_written(tmp_path):
    folder = tmp_path / "runs" / "clean" / KEY
    folder.mkdir(parents=True)
    with tracking.stage_run("clean", KEY, CleanConfig(), INPUTS) as run_id:
        assert run_id == ""
        tracking.log_metrics({"kept": 1.0}, 0)
        tracking.log_table([{"a": 1}], "samples")
        tracking.log_result(folder, result())
    assert (folder / "metrics.jsonl").read_text() == '{"step": 0, "kept": 1.0}\n'
    assert not (tmp_path / "mlflow").exists()


def test_other_ranks_than_the_first_write_nothing(client, parent, stage, out_dir):
    with tracking.stage_run("clean", KEY, CleanConfig(), INPUTS, enabled=False) as run_id:
        tracking.log_metrics({"kept": 1.0}, 0)
    assert run_id == ""
    assert not (out_dir / "metrics.jsonl").exists()
    assert children(client, parent) == []


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


# -------------------------------------------------------------------------------- killed processes


def test_runs_of_dead_processes_are_swept_and_those_of_living_ones_are_not(client, parent):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    experiment = client.get_run(parent).info.experiment_id
    here = client.get_run(parent).data.tags["host"]
    own = tracking._process_tags()["process"]

    def run(**tags):
        return client.create_run(experiment, tags=tags).info.run_id

    runs = {
        run(host=here, process=f"{gone.pid}@{time.time():.2f}"): "KILLED",
        run(host=here, process=f"{os.getpid()}@1.00"): "KILLED",  # its number was given anew
        run(host=here, process=own): "RUNNING",
        run(host="another machine", process=f"{gone.pid}@1.00"): "RUNNING",
        run(): "RUNNING",  # somebody else's
    }
    tracking.start_pipeline_run("the next run", PipelineConfig())
    assert {run_id: client.get_run(run_id).info.status for run_id in runs} == runs
    assert client.get_run(parent).info.status == "RUNNING"
    for run_id in runs:
        client.set_terminated(run_id)


@pytest.mark.slow
def test_a_cancelled_stage_ends_its_run_itself(client, parent, tmp_path):
    """SIGTERM is what a cancelled flow sends to the stage's process group."""
    documents = tmp_path / "documents"
    documents.mkdir()
    for split in ("train", "held_out"):
        text = " ".join(f"w{number * 7919}" for number in range(100_000))
        write_jsonl(documents / f"{split}.jsonl", [{"text": text}] * 40)
    inputs = TokenizerInputs(documents=make_artifact("documents", documents))

    def cancel_once_it_runs():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not children(client, parent):
            time.sleep(0.2)
        process = children(client, parent)[0].data.tags["process"]
        os.kill(int(process.split("@")[0]), signal.SIGTERM)

    canceller = threading.Thread(target=cancel_once_it_runs)
    canceller.start()
    with pytest.raises(StageCrashedError, match="ended with code 143"):
        run_stage(
            TokenizerConfig(vocab_size=2000),
            inputs,
            Compute(),
            on_line=str,
            environment={tracking.PARENT_RUN_VARIABLE: parent},
        )
    canceller.join()
    assert children(client, parent)[0].info.status == "KILLED"
