"""Which pipeline runs used which results, and the copies of results among the runs' artifacts."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stages.core.errors import UserError, without_passwords
from stages.core.tracking.client import PatientClient, mlflow, patiently, set_up
from stages.core.tracking.overview import RunLine, run_line
from stages.core.tracking.references import Key, all_runs

COPY = "stage"
"""Folder of a stage run's artifacts with the copy of its result."""


@dataclass(frozen=True)
class History:
    """What the runs in MLflow made and used."""

    pipelines: Mapping[str, RunLine]
    """The pipeline runs by id that are not deleted, the newest first."""
    users: Mapping[Key, frozenset[str]]
    """By result, the pipeline runs that made or reused it."""
    makers: Mapping[Key, tuple[str, ...]]
    """By result, the finished stage runs that made it: their artifacts have a copy, deleted
    ones' too."""


def read_history() -> History:
    """All that MLflow knows of results."""
    set_up()
    client = PatientClient()
    experiments = client.search_experiments(view_type=mlflow.entities.ViewType.ALL)
    names = {item.experiment_id: item.name for item in experiments}
    pipelines: dict[str, RunLine] = {}
    users: dict[Key, set[str]] = defaultdict(set)
    makers: dict[Key, list[str]] = defaultdict(list)
    for run in patiently(lambda: list(all_runs(mlflow.MlflowClient()))):
        tags = run.data.tags
        if "mlflow.parentRunId" not in tags:
            if run.info.lifecycle_stage != "active":
                continue
            pipelines[run.info.run_id] = run_line(run, names.get(run.info.experiment_id, ""))
        elif "stage_key" in tags:
            key = (run.info.run_name, tags["stage_key"])
            users[key].add(tags["mlflow.parentRunId"])
            if run.info.status == "FINISHED" and "reused_from" not in tags:
                makers[key].append(run.info.run_id)
    return History(
        pipelines=pipelines,
        users={key: frozenset(ids) for key, ids in users.items()},
        makers={key: tuple(ids) for key, ids in makers.items()},
    )


def stored_texts(run_id: str, folder: str) -> Iterator[str]:
    """The texts of the files in a folder of a stage run's copy of its result."""
    client = PatientClient()
    place = f"{COPY}/{folder}"
    with tempfile.TemporaryDirectory() as local:
        for file in client.list_artifacts(run_id, place):
            if not file.is_dir:
                path = client.download_artifacts(run_id, file.path, local)
                yield Path(path).read_text(encoding="utf-8")


def has_copy(run_id: str) -> bool:
    """Whether a stage run's artifacts have anything of its result."""
    return bool(PatientClient().list_artifacts(run_id, COPY))


def remove_copy(run_id: str) -> None:
    """Remove the copy of a stage's result from its run's artifacts.

    Raises:
        UserError: they cannot be removed.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    place = PatientClient().get_run(run_id).info.artifact_uri
    try:
        repository = get_artifact_repository(place, tracking_uri=set_up())
        patiently(repository.delete_artifacts, COPY)
    except (mlflow.exceptions.MlflowException, OSError, NotImplementedError) as error:
        reason = " ".join(without_passwords(str(error)).split())[:200]
        raise UserError(
            f"the copy of a result among the artifacts of MLflow run {run_id} cannot be removed: "
            f"{reason}; mend it, or remove it from {without_passwords(place)}/{COPY} yourself"
        ) from None
