"""The flow's side of tracking: the parent run of a pipeline run, from its start to its end."""

from collections.abc import Callable, Mapping
from pathlib import Path

from stages.core.artifacts import StageResult
from stages.core.config import Frozen, PipelineConfig
from stages.core.tracking.client import (
    PatientClient,
    all_experiments,
    experiment_id,
    git_commit,
    log_params,
    process_is_gone,
    process_tags,
)

RUNNING = "attributes.status = 'RUNNING'"


def start_pipeline_run(
    config: PipelineConfig, name: str, flow_run_id: str = "", flow_page: str = ""
) -> str:
    """As ``start_run``, in the profile's experiment."""
    return start_run(config.profile, config, name, flow_run_id, flow_page)


def start_run(
    experiment_name: str, config: Frozen, name: str, flow_run_id: str = "", flow_page: str = ""
) -> str:
    """Open the parent run of one flow run and return its id.

    A flow run that begins again, after a crash or an approval, goes on in the run that it had.

    Args:
        config: its fields become the run's parameters.
        flow_page: address of the flow run's page, shown in the run's description.
    """
    client = PatientClient()
    experiment = experiment_id(client, experiment_name)
    if flow_run_id:
        mine = f"tags.prefect_flow_run = '{flow_run_id}'"
        for run in client.search_runs([experiment], mine):
            if "mlflow.parentRunId" not in run.data.tags:
                _reopen(client, run.info.run_id)
                return str(run.info.run_id)
    tags = {**process_tags(), "prefect_flow_run": flow_run_id, "git_commit": git_commit()}
    if flow_page:
        tags["mlflow.note.content"] = f"[Prefect flow run]({flow_page})"
    run_id: str = client.create_run(experiment, tags=tags, run_name=name).info.run_id
    log_params(client, run_id, config.model_dump(mode="json"))
    return run_id


def end_pipeline_run(run_id: str, status: str, metrics: Mapping[str, float]) -> None:
    """Close the parent run as FINISHED, FAILED or KILLED, with the figures of the whole chain, and
    as KILLED what else of the flow run is open: stage runs whose process could not close them, and
    second runs, made because the server was killed before it could say that the first was."""
    client = PatientClient()
    run = client.get_run(run_id)
    flow_run_id = run.data.tags.get("prefect_flow_run")
    of_flow = f"tags.prefect_flow_run = '{flow_run_id}'" if flow_run_id else _children(run_id)
    for other in client.search_runs([run.info.experiment_id], f"{of_flow} and {RUNNING}"):
        if other.info.run_id != run_id:
            client.set_terminated(other.info.run_id, "KILLED")
    for name, value in metrics.items():
        client.log_metric(run_id, name, value)
    client.set_terminated(run_id, status)


def suspend_pipeline_run(run_id: str) -> None:
    """Show that no process works on the run, but that it will go on."""
    PatientClient().update_run(run_id, status="SCHEDULED")


def end_abandoned_runs() -> None:
    """End as KILLED the runs whose process was killed before it could say so itself."""
    client = PatientClient()
    for run in client.search_runs(all_experiments(client), RUNNING):
        if process_is_gone(run.data.tags):
            client.set_terminated(run.info.run_id, "KILLED")


def end_suspended_runs(has_ended: Callable[[str], bool]) -> None:
    """End as KILLED the suspended runs that will not go on: nobody answered in time, or somebody
    cancelled them.

    Args:
        has_ended: whether the flow run of this id is over.
    """
    client = PatientClient()
    for run in client.search_runs(all_experiments(client), "attributes.status = 'SCHEDULED'"):
        flow_run_id = run.data.tags.get("prefect_flow_run", "")
        if flow_run_id and has_ended(flow_run_id):
            client.set_terminated(run.info.run_id, "KILLED")


def log_reused(parent_run_id: str, result: StageResult) -> None:
    """Show a reused stage as a nested run that names the run which made it."""
    client = PatientClient()
    if _shown(client, parent_run_id, result):
        return
    experiment = client.get_run(parent_run_id).info.experiment_id
    tags = {
        "mlflow.parentRunId": parent_run_id,
        "stage_key": result.key,
        "reused_from": result.tracking_run_id,
        "git_commit": result.git_commit,
    }
    run = client.create_run(experiment, tags=tags, run_name=result.stage)
    for name, value in result.metrics.items():
        client.log_metric(run.info.run_id, name, value)
    client.set_terminated(run.info.run_id, "FINISHED")


def made_in(parent_run_id: str, result: StageResult) -> bool:
    """Whether a stage's result was made by this pipeline run, before it was interrupted."""
    client = PatientClient()
    experiment = client.get_run(parent_run_id).info.experiment_id
    made = [run.info.run_id for run in client.search_runs([experiment], _children(parent_run_id))]
    return result.tracking_run_id in made


def has_begun_here(parent_run_id: str, stage: str, key: str) -> bool:
    """Whether this pipeline run has begun to make this result on this machine."""
    client = PatientClient()
    experiment = client.get_run(parent_run_id).info.experiment_id
    here = f"tags.stage_key = '{key}' and tags.host = '{process_tags()['host']}'"
    begun = client.search_runs([experiment], f"{_children(parent_run_id)} and {here}")
    return any(run.info.run_name == stage for run in begun)


def log_report(run_id: str, folder: Path) -> None:
    """Attach the report to the parent run as well, where people look first."""
    PatientClient().log_artifacts(run_id, str(folder), "report")


def tag_run(run_id: str, tags: Mapping[str, str]) -> None:
    """Add tags to the run."""
    client = PatientClient()
    for name, value in tags.items():
        client.set_tag(run_id, name, value)


def measure_run(run_id: str, metrics: Mapping[str, float]) -> None:
    """Add figures to the run."""
    client = PatientClient()
    for name, value in metrics.items():
        client.log_metric(run_id, name, value)


def run_page(run_id: str) -> str:
    """Path of the run's page below the address of the MLflow UI."""
    experiment = PatientClient().get_run(run_id).info.experiment_id
    return f"/#/experiments/{experiment}/runs/{run_id}?workflowType=machine_learning"


# ------------------------------------------------------------------------------------ helpers


def _reopen(client: PatientClient, run_id: str) -> None:
    """The process first: what runs in the name of a dead one is ended by the next sweep."""
    for name, value in process_tags().items():
        client.set_tag(run_id, name, value)
    client.update_run(run_id, status="RUNNING")


def _children(run_id: str) -> str:
    return f"tags.mlflow.parentRunId = '{run_id}'"


def _shown(client: PatientClient, parent_run_id: str, result: StageResult) -> bool:
    experiment = client.get_run(parent_run_id).info.experiment_id
    of_key = f"{_children(parent_run_id)} and tags.stage_key = '{result.key}'"
    runs = client.search_runs([experiment], f"{of_key} and attributes.status = 'FINISHED'")
    return bool(runs)
