"""The parent run of a pipeline run: what it holds, how it goes on, and what a killed one leaves."""

import os
import subprocess
import sys
import time

from stages.core import tracking
from stages.core.config import PipelineConfig
from stages.core.tracking.client import process_tags

KEY = "0123456789ab"


def test_the_default_store_lies_below_the_data_root(tmp_path):
    assert tracking.set_up() == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/mlflow/mlflow.db"


def test_the_users_store_is_honoured(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert tracking.set_up() == store


def test_a_pipeline_run_holds_every_setting(client, parent, request):
    run = client.get_run(parent)
    assert run.info.status == "RUNNING"
    assert run.info.run_name.endswith(" seed 3")
    assert run.data.params["seed"] == run.data.params["ppo.seed"] == "3"
    assert run.data.params["sft.lora.rank"] == "16"
    assert len(run.data.params) > 100  # more than one request takes
    assert run.data.tags["prefect_flow_run"] == request.node.name


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
    again = tracking.start_pipeline_run(PipelineConfig(profile=name), "again")
    assert client.get_run(again).info.experiment_id == experiment


def test_a_reused_stage_is_shown_with_its_figures_and_origin(client, parent, children, result):
    tracking.log_reused(parent, result(tracking_run_id="run-that-made-it", git_commit="abc"))
    (run,) = children(parent)
    assert (run.info.run_name, run.info.status) == ("clean", "FINISHED")
    assert run.data.tags["reused_from"] == "run-that-made-it"
    assert run.data.tags["stage_key"] == KEY
    assert run.data.metrics == {"kept": 9.0}


def test_the_page_of_a_run_names_run_and_experiment(client, parent):
    experiment = client.get_run(parent).info.experiment_id
    assert tracking.run_page(parent).startswith(f"/#/experiments/{experiment}/runs/{parent}")


def test_runs_of_dead_processes_are_swept_and_those_of_living_ones_are_not(client, parent):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    experiment = client.get_run(parent).info.experiment_id
    here = client.get_run(parent).data.tags["host"]
    own = process_tags()["process"]

    def run(**tags):
        return client.create_run(experiment, tags=tags).info.run_id

    runs = {
        run(host=here, process=f"{gone.pid}@{time.time():.2f}"): "KILLED",
        run(host=here, process=f"{os.getpid()}@1.00"): "KILLED",  # its number was given anew
        run(host=here, process=own): "RUNNING",
        run(host="another machine", process=f"{gone.pid}@1.00"): "RUNNING",
        run(): "RUNNING",  # somebody else's
    }
    tracking.end_abandoned_runs()
    assert {run_id: client.get_run(run_id).info.status for run_id in runs} == runs
    assert client.get_run(parent).info.status == "RUNNING"
    for run_id in runs:
        client.set_terminated(run_id)


def test_suspended_runs_end_with_their_flow_run(client, parent, request):
    tracking.suspend_pipeline_run(parent)
    tracking.end_suspended_runs(lambda flow_run_id: False)
    assert client.get_run(parent).info.status == "SCHEDULED"
    tracking.end_suspended_runs(lambda flow_run_id: flow_run_id == request.node.name)
    assert client.get_run(parent).info.status == "KILLED"
