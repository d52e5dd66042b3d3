"""The only module that imports mlflow: runs, metrics, tables, plots, data sets, model registry.

One parent run a pipeline run, one nested run a stage. Metrics also go to ``metrics.jsonl`` in the
stage's folder; progress goes, line by line, to the flow that started the stage.
"""

import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

import psutil

from stages.core.artifacts import Artifact, StageResult, data_root
from stages.core.config import Frozen, PipelineConfig
from stages.core.launch import PROGRESS_PREFIX

if TYPE_CHECKING:
    import mlflow
    from matplotlib.figure import Figure
elif "mlflow" in sys.modules:
    import mlflow
else:
    # Loaded at its first use: 2 seconds and 100 MB that a stage without tracking does not need.
    _spec = importlib.util.find_spec("mlflow")
    _spec.loader = importlib.util.LazyLoader(_spec.loader)
    mlflow = sys.modules["mlflow"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(mlflow)

PARENT_RUN_VARIABLE = "RLHF_TRACKING_PARENT_RUN"
FLOW_RUN_VARIABLE = "RLHF_PREFECT_FLOW_RUN"
METRICS_FILE = "metrics.jsonl"
MAX_PARAM_CHARACTERS = 6000

_current: dict[str, Any] = {"metrics_path": None, "active": False}


# ---------------------------------------------------------------------------- the flow's side


def set_up() -> str:
    """Point mlflow at ``$MLFLOW_TRACKING_URI``, by default SQLite below the data root; return the
    URI."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        folder = data_root() / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        os.environ["MLFLOW_TRACKING_URI"] = uri
    mlflow.set_tracking_uri(uri)
    return uri


def start_pipeline_run(profile: str, config: PipelineConfig, flow_run_id: str = "") -> str:
    """Open the parent run of one pipeline run in the profile's experiment and return its id."""
    set_up()
    client = mlflow.MlflowClient()
    _end_abandoned_runs(client)
    experiment_id = _experiment(client, profile)
    tags = {**_process_tags(), "prefect_flow_run": flow_run_id, "git_commit": git_commit()}
    name = f"{profile} seed {config.seed}"
    run_id: str = client.create_run(experiment_id, tags=tags, run_name=name).info.run_id
    _log_params(client, run_id, _flatten(config.model_dump(mode="json")))
    return run_id


def end_pipeline_run(run_id: str, status: str, metrics: Mapping[str, float]) -> None:
    """Close the parent run as FINISHED, FAILED or KILLED, with the figures of the whole chain, and
    as KILLED the stage runs whose process could not close them itself."""
    client = mlflow.MlflowClient()
    experiment_id = client.get_run(run_id).info.experiment_id
    running = f"tags.mlflow.parentRunId = '{run_id}' and attributes.status = 'RUNNING'"
    for run in client.search_runs([experiment_id], running):
        client.set_terminated(run.info.run_id, "KILLED")
    for name, value in metrics.items():
        client.log_metric(run_id, name, value)
    client.set_terminated(run_id, status)


def log_reused(parent_run_id: str, result: StageResult) -> None:
    """Show a reused stage as a nested run that names the run which made it."""
    client = mlflow.MlflowClient()
    experiment_id = client.get_run(parent_run_id).info.experiment_id
    tags = {
        "mlflow.parentRunId": parent_run_id,
        "stage_key": result.key,
        "reused_from": result.tracking_run_id,
        "git_commit": result.git_commit,
    }
    run = client.create_run(experiment_id, tags=tags, run_name=result.stage)
    for name, value in result.metrics.items():
        client.log_metric(run.info.run_id, name, value)
    client.set_terminated(run.info.run_id, "FINISHED")


def log_report(run_id: str, folder: Path) -> None:
    """Attach the report to the parent run as well, where people look first."""
    mlflow.MlflowClient().log_artifacts(run_id, str(folder), "report")


def run_page(run_id: str) -> str:
    """Path of the run's page below the address of the MLflow UI."""
    experiment_id = mlflow.MlflowClient().get_run(run_id).info.experiment_id
    return f"/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def register_policy(run_id: str, source: Path, tags: Mapping[str, str]) -> str:
    """Register the policy as a version of ``rlhf-policy`` with the alias ``challenger``.

    The model is logged as an external model: its folder as artifacts, its origin as tags. A policy
    whose tag ``policy_digest`` is registered already gets no new version, only the new tags.

    Returns:
        The version's number.
    """
    set_up()
    client = mlflow.MlflowClient()
    for known in client.search_model_versions("name = 'rlhf-policy'"):
        if tags.get("policy_digest", "") == known.tags.get("policy_digest"):
            for name, value in tags.items():
                client.set_model_version_tag("rlhf-policy", known.version, name, value)
            client.set_registered_model_alias("rlhf-policy", "challenger", known.version)
            return str(known.version)
    experiment_id = client.get_run(run_id).info.experiment_id
    logged = mlflow.create_external_model(
        name="policy", source_run_id=run_id, tags=dict(tags), experiment_id=experiment_id
    )
    client.log_model_artifacts(logged.model_id, str(source))
    client.finalize_logged_model(logged.model_id, "READY")
    with contextlib.redirect_stderr(io.StringIO()):  # it announces itself on the terminal
        version = mlflow.register_model(
            f"models:/{logged.model_id}", "rlhf-policy", tags=dict(tags)
        )
    client.set_registered_model_alias("rlhf-policy", "challenger", version.version)
    return str(version.version)


# --------------------------------------------------------------------------- the stage's side


@contextlib.contextmanager
def stage_run(
    stage: str, key: str, config: Frozen, inputs: Frozen, *, enabled: bool = True
) -> Iterator[str]:
    """The stage's nested run, ended FAILED or KILLED with the process. Yields its id.

    Without a parent run in the environment (a stage run directly, as tests do) nothing is tracked
    but ``metrics.jsonl``.
    """
    _current["metrics_path"] = (
        data_root() / "runs" / stage / key / METRICS_FILE if enabled else None
    )
    parent = os.environ.get(PARENT_RUN_VARIABLE)
    if not parent or not enabled:
        yield ""
        return
    set_up()
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.sources import LocalArtifactDatasetSource

    client = mlflow.MlflowClient()
    experiment_id = client.get_run(parent).info.experiment_id
    tags = {
        **_process_tags(),
        "stage_key": key,
        "git_commit": git_commit(),
        "prefect_flow_run": os.environ.get(FLOW_RUN_VARIABLE, ""),
    }
    run = mlflow.start_run(
        experiment_id=experiment_id,
        run_name=stage,
        nested=True,
        parent_run_id=parent,
        tags=tags,
        log_system_metrics=True,
    )
    _current["active"] = True
    try:
        _log_params(client, run.info.run_id, _flatten(config.model_dump(mode="json")))
        for context, artifact in _data_inputs(inputs.model_dump()):
            source = LocalArtifactDatasetSource(uri=artifact.path)
            mlflow.log_input(
                MetaDataset(source, name=context, digest=artifact.digest[:32]), context=context
            )
        yield run.info.run_id
    except BaseException as error:
        ended_by_signal = isinstance(error, KeyboardInterrupt | SystemExit)
        mlflow.end_run("KILLED" if ended_by_signal else "FAILED")
        raise
    else:
        mlflow.end_run("FINISHED")
    finally:
        _current["active"] = False


def log_result(out_dir: Path, result: StageResult) -> None:
    """Store the finished stage's folder and its ``result.json`` in the run."""
    if not _current["active"]:
        return
    mlflow.log_metrics(result.metrics)
    mlflow.log_artifacts(str(out_dir), "stage")
    mlflow.log_dict(result.model_dump(mode="json"), "stage/result.json")


def log_metrics(metrics: Mapping[str, float], step: int) -> None:
    """Record step metrics: in ``metrics.jsonl`` always, in the stage's run where there is one."""
    path = _current["metrics_path"]
    if path is not None and path.parent.is_dir():
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
    if _current["active"]:
        mlflow.log_metrics(dict(metrics), step=step, synchronous=False)


def restart_metrics(rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
    """Begin with the metrics (step, figures) of an earlier, interrupted attempt: the file then has
    no step twice, and this attempt's run shows the whole curve."""
    path = _current["metrics_path"]
    if path is not None:
        path.unlink(missing_ok=True)
    for step, metrics in rows:
        log_metrics(metrics, step)


def report_progress(step: int, total: int, **metrics: float | str) -> None:
    """Tell the flow how far the stage is: ``step`` of ``total`` and a few figures to show."""
    if os.environ.get("RLHF_PARENT_PID") and int(os.environ.get("RANK", "0")) == 0:
        event = {"step": step, "total": total, "metrics": metrics, "time": time.time()}
        print(PROGRESS_PREFIX + json.dumps(event), flush=True)


def log_figure(figure: "Figure", name: str, out_dir: Path) -> None:
    """Save a plot as ``plots/<name>.png`` in the stage's folder and in its run."""
    path = out_dir / "plots" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    # No software version inside the file: equal plots give equal bytes.
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    if _current["active"]:
        mlflow.log_artifact(str(path), "plots")


def log_table(rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """Append rows to the table ``<name>.json`` of the run, which MLflow shows in its evaluation
    view. All rows have the same columns."""
    if _current["active"] and rows:
        columns = {column: [row[column] for row in rows] for column in rows[0]}
        mlflow.log_table(columns, f"{name}.json")


# ------------------------------------------------------------------------------------ helpers


@cache
def git_commit() -> str:
    """The checkout's commit, with ``-dirty`` when files differ; empty outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(
            [*command, "--abbrev=40", "--exclude=*"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _process_tags() -> dict[str, str]:
    process = psutil.Process()
    return {
        "host": os.uname().nodename if sys.platform != "win32" else "",
        "process": f"{process.pid}@{process.create_time():.2f}",
    }


def _process_is_gone(tags: Mapping[str, str]) -> bool:
    """Whether a run's process ran on this machine and is no more; a number may have been reused,
    so the start time counts too."""
    if tags.get("host") != _process_tags()["host"] or "@" not in tags.get("process", ""):
        return False
    pid, started = tags["process"].split("@")
    try:
        return bool(abs(psutil.Process(int(pid)).create_time() - float(started)) > 1.0)
    except psutil.NoSuchProcess:
        return True


def _end_abandoned_runs(client: "mlflow.MlflowClient") -> None:
    """End as KILLED the runs whose process was killed before it could say so itself."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    running = mlflow.entities.RunStatus.to_string(mlflow.entities.RunStatus.RUNNING)
    for run in client.search_runs(experiments, f"attributes.status = '{running}'"):
        if _process_is_gone(run.data.tags):
            client.set_terminated(run.info.run_id, "KILLED")


def _experiment(client: "mlflow.MlflowClient", name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        if experiment.lifecycle_stage == "deleted":  # in the UI; its name stays taken
            client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)
    is_local = os.environ["MLFLOW_TRACKING_URI"].startswith("sqlite")
    location = (data_root() / "mlflow" / "artifacts").as_uri() if is_local else None
    return str(client.create_experiment(name, artifact_location=location))


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict) and item:
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat


def _log_params(client: "mlflow.MlflowClient", run_id: str, params: Mapping[str, Any]) -> None:
    entries = [
        mlflow.entities.Param(key, str(value)[:MAX_PARAM_CHARACTERS])
        for key, value in params.items()
    ]
    for start in range(0, len(entries), 100):  # the server takes 100 a request
        client.log_batch(run_id, params=entries[start : start + 100])


def _data_inputs(value: Any, name: str = "") -> Iterator[tuple[str, Artifact]]:
    """The data sets among a stage's inputs, with the names of their fields."""
    if isinstance(value, dict) and {"kind", "path", "digest"} <= value.keys():
        if value["kind"] in ("source", "documents", "sft", "preferences", "prompts"):
            yield name, Artifact.model_validate(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _data_inputs(item, key)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _data_inputs(item, name)
