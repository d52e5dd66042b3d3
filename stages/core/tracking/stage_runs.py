"""A stage's side of tracking: its nested run, metrics, plots, tables, and its folder at the end.

Metrics also go to ``metrics.jsonl`` in the stage's folder; progress goes, line by line, to the flow
that started the stage.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core.artifacts import RESULT_FILE, Artifact, StageResult, data_root
from stages.core.config import Frozen
from stages.core.launch import PROGRESS_PREFIX
from stages.core.tracking.client import (
    PatientClient,
    git_commit,
    log_params,
    mlflow,
    patiently,
    process_tags,
    set_up,
)
from stages.core.tracking.sender import Sender

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARENT_RUN_VARIABLE = "RLHF_TRACKING_PARENT_RUN"
FLOW_RUN_VARIABLE = "RLHF_PREFECT_FLOW_RUN"
METRICS_FILE = "metrics.jsonl"
SIGNAL_WAIT_SECONDS = 3.0
FAILURE_WAIT_SECONDS = 30.0
"""How long records may take to be delivered when the stage does not end well."""

_current: dict[str, Any] = {"metrics_path": None, "sender": None}


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

    client = PatientClient()
    tags = {
        **process_tags(),
        "stage_key": key,
        "git_commit": git_commit(),
        "prefect_flow_run": os.environ.get(FLOW_RUN_VARIABLE, ""),
    }
    run = patiently(
        mlflow.start_run,
        experiment_id=client.get_run(parent).info.experiment_id,
        run_name=stage,
        nested=True,
        parent_run_id=parent,
        tags=tags,
        log_system_metrics=True,
    )
    run_id: str = run.info.run_id
    _current["sender"] = sender = Sender(client, run_id)
    try:
        log_params(client, run_id, config.model_dump(mode="json"))
        for context, artifact in _data_inputs(inputs.model_dump()):
            source = LocalArtifactDatasetSource(uri=artifact.path)
            dataset = MetaDataset(source, name=context, digest=artifact.digest[:32])
            patiently(mlflow.log_input, dataset, context=context)
        yield run_id
    except BaseException as error:
        ended_by_signal = isinstance(error, KeyboardInterrupt | SystemExit)
        sender.close(SIGNAL_WAIT_SECONDS if ended_by_signal else FAILURE_WAIT_SECONDS)
        with contextlib.suppress(mlflow.exceptions.MlflowException):  # swept up later
            mlflow.end_run("KILLED" if ended_by_signal else "FAILED")
        raise
    else:
        sender.close()
        client.set_terminated(run_id, "FINISHED")
        mlflow.end_run("FINISHED")
    finally:
        _current["sender"] = None


def log_result(out_dir: Path, result: StageResult) -> None:
    """Store the finished stage's folder and its ``result.json`` in the run."""
    sender = _current["sender"]
    if sender is None:
        return
    client, run_id = sender.client, sender.run_id
    for name, value in result.metrics.items():
        client.log_metric(run_id, name, value)
    client.log_artifacts(run_id, str(out_dir), "stage")
    client.log_dict(run_id, result.model_dump(mode="json"), f"stage/{RESULT_FILE}")


def log_metrics(metrics: Mapping[str, float], step: int) -> None:
    """Record step metrics: in ``metrics.jsonl`` always, in the stage's run where there is one.

    The run's metrics are sent in the background: training goes on while MLflow is away.
    """
    path = _current["metrics_path"]
    if path is not None and path.parent.is_dir():
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
    if _current["sender"] is not None:
        _current["sender"].metrics(metrics, step)


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
    sender = _current["sender"]
    if sender is not None:
        sender.call(lambda: sender.client.log_artifact(sender.run_id, str(path), "plots"))


def log_table(rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """Append rows to the table ``<name>.json`` of the run, which MLflow shows in its evaluation
    view. All rows have the same columns."""
    sender = _current["sender"]
    if sender is not None and rows:
        columns = {column: [row[column] for row in rows] for column in rows[0]}
        sender.call(lambda: sender.client.log_table(sender.run_id, columns, f"{name}.json"))


# ------------------------------------------------------------------------------------ helpers


def _data_inputs(value: Any, name: str = "") -> Iterator[tuple[str, Artifact]]:
    """The data sets among a stage's inputs, with the names of their fields."""
    if isinstance(value, dict) and {"kind", "path", "digest"} <= value.keys():
        if value["kind"] in ("source", "documents", "sft", "preferences", "prompts", "labelled"):
            yield name, Artifact.model_validate(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _data_inputs(item, key)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _data_inputs(item, name)
