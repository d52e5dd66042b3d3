"""A real MLflow store for all tests here, since making its tables takes seconds; each test has an
experiment of its own."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from flows import servers
from stages.core import tracking
from stages.core.artifacts import Artifact, StageResult
from stages.core.config import CleanConfig, PipelineConfig
from stages.core.contracts import CleanInputs, Datasets
from stages.core.tracking.client import mlflow

KEY = "0123456789ab"


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """URI of one SQLite store, its tables made."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@dataclass(frozen=True)
class RestartedServer:
    """A real server that can be killed, and started again on the same port and database."""

    start: Callable[[], None]
    kill: Callable[[], None]


@pytest.fixture
def mlflow_server(tmp_path, monkeypatch):
    port, started = servers.free_port(), []

    def start():
        started.append(servers.start_mlflow(port))
        servers.wait_until_healthy(started[-1])

    def kill():
        os.killpg(started[-1].process.pid, signal.SIGKILL)
        started[-1].process.wait()

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{servers.HOST}:{port}")
    start()
    yield RestartedServer(start, kill)
    for server in started:
        servers.stop(server.process)


@pytest.fixture
def client(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    tracking.set_up()
    return mlflow.MlflowClient()


@pytest.fixture
def parent(client, request):
    """A pipeline run in an experiment named as the test."""
    config = PipelineConfig(profile=request.node.name, seed=3)
    return tracking.start_pipeline_run(config, "demo seed 3", request.node.name)


@pytest.fixture
def inputs():
    return CleanInputs(
        datasets=Datasets(sft=Artifact(kind="sft", path="runs/collect/x/sft", digest="d" * 64))
    )


@pytest.fixture
def stage(parent, inputs, out_dir, monkeypatch, request):
    """A function that opens the run of the stage clean below the pipeline run."""
    monkeypatch.setenv(tracking.PARENT_RUN_VARIABLE, parent)
    monkeypatch.setenv(tracking.FLOW_RUN_VARIABLE, request.node.name)
    return lambda: tracking.stage_run("clean", KEY, CleanConfig(max_reject_share=0.25), inputs)


@pytest.fixture
def out_dir(tmp_path):
    folder = tmp_path / "runs" / "clean" / KEY
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def children(client):
    """A function: the nested runs of a pipeline run, in the order of their making."""

    def find(parent):
        experiment = client.get_run(parent).info.experiment_id
        runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
        return sorted(runs, key=lambda run: run.info.start_time)

    return find


@pytest.fixture
def result():
    """A function that makes the result of the stage clean."""

    def make(**changes):
        fields = {"stage": "clean", "key": KEY, "outputs": {}, "metrics": {"kept": 9.0}}
        return StageResult(**fields | {"files": {}} | changes)

    return make
