"""Which stages' results the runs in MLflow refer to, for whoever asks what is no longer needed."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from stages.core.artifacts import RESULT_FILE
from stages.core.errors import UserError, without_passwords
from stages.core.tracking.client import address, mlflow, set_up

Key = tuple[str, str]
"""Stage and key of a result."""
AT_WORK = ("RUNNING", "SCHEDULED")
"""A suspended run is scheduled: it will go on."""
MAX_RESULTS = 1000


@dataclass(frozen=True)
class References:
    """What MLflow knows of results."""

    needed: frozenset[Key]
    """Those of the newest pipeline runs, of all that are at work or suspended, and of the runs that
    registered models with an alias came from."""
    named: frozenset[Key]
    """Those of any run that is not deleted."""
    run_ids: frozenset[str]
    """All runs, deleted ones too."""
    makers: dict[Key, tuple[str, ...]]
    """The finished runs, not deleted, that made a result."""


def read_references(keep_runs: int) -> References:
    """What the runs in MLflow refer to. Unlike other calls it does not wait for a server.

    Args:
        keep_runs: so many pipeline runs of each experiment count as needed, the newest.

    Raises:
        UserError: MLflow cannot be read, or no longer knows the run of a model with an alias.
    """
    set_up()
    client = mlflow.MlflowClient()
    try:
        runs = list(all_runs(client))
        origins = list(_origins(client))
    except (mlflow.exceptions.MlflowException, OSError) as error:
        reason = " ".join(without_passwords(str(error)).split())[:300]
        raise UserError(
            f"MLflow ({address()}) cannot be read, so what is needed is unknown: {reason}; "
            "nothing was removed"
        ) from None
    results: dict[str, set[Key]] = defaultdict(set)
    alive: dict[str, set[Key]] = defaultdict(set)
    makers: dict[Key, tuple[str, ...]] = {}
    pipelines: dict[str, list[Any]] = defaultdict(list)
    for run in runs:  # the newest first
        tags, active = run.data.tags, run.info.lifecycle_stage == "active"
        parent = tags.get("mlflow.parentRunId")
        if parent is None and active:
            pipelines[run.info.experiment_id].append(run)
        if parent is None or "stage_key" not in tags:
            continue
        key = (run.info.run_name, tags["stage_key"])
        results[parent].add(key)
        if active:
            alive[parent].add(key)
        if active and run.info.status == "FINISHED" and "reused_from" not in tags:
            makers[key] = (*makers.get(key, ()), run.info.run_id)
    needed: set[Key] = set()
    for of_experiment in pipelines.values():
        for place, run in enumerate(of_experiment):
            if place < keep_runs or run.info.status in AT_WORK:
                needed |= alive[run.info.run_id]
    for name, alias, run_id in origins:
        if not results[run_id]:
            raise UserError(
                f"MLflow ({address()}) no longer has the run {run_id} that {name}@{alias} came "
                "from, so what this model needs is unknown: remove the alias first; nothing was "
                "removed"
            )
        needed |= results[run_id]  # of a run in the trash, too
    named = {
        key
        for of_experiment in pipelines.values()
        for run in of_experiment
        for key in alive[run.info.run_id]
    }
    run_ids = frozenset(run.info.run_id for run in runs)
    return References(frozenset(needed), frozenset(named), run_ids, makers)


def is_stored(run_ids: tuple[str, ...]) -> bool:
    """Whether the artifacts of one of these runs hold its stage's folder as a whole."""
    client = mlflow.MlflowClient()
    for run_id in run_ids:
        try:
            files = client.list_artifacts(run_id, "stage")
        except (mlflow.exceptions.MlflowException, OSError):
            continue
        if any(file.path == f"stage/{RESULT_FILE}" for file in files):  # written last
            return True
    return False


def all_runs(client: Any) -> Iterator[Any]:
    """The runs of all experiments, deleted ones too, the newest first."""
    everything, newest = mlflow.entities.ViewType.ALL, ["attributes.start_time DESC"]
    pages = _pages(client.search_experiments, view_type=everything)
    ids = [experiment.experiment_id for experiment in pages]
    yield from _pages(client.search_runs, ids, run_view_type=everything, order_by=newest)


# ------------------------------------------------------------------------------------ helpers


def _origins(client: Any) -> Iterator[tuple[str, str, str]]:
    """Name, alias and pipeline run of each registered version that has an alias."""
    for model in _pages(client.search_registered_models):
        for alias, number in model.aliases.items():
            run_id = client.get_model_version(model.name, number).tags.get("parent_run")
            if run_id:  # else it is somebody else's model
                yield model.name, alias, run_id


def _pages(search: Callable[..., Any], *arguments: Any, **named: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(*arguments, **named, max_results=MAX_RESULTS, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
