"""Results of earlier runs, on this machine or another: found by run, alias or key, and fetched.

A finished stage's folder lies in the artifacts of its run under ``stage``. Machines that share the
tracking server need nothing else in common.
"""

import contextlib
import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stages.core.artifacts import (
    RESULT_FILE,
    StageResult,
    data_root,
    folder_files,
    read_result,
    take_up,
    write_result,
)
from stages.core.errors import UserError
from stages.core.tracking.client import PatientClient, all_experiments, mlflow
from stages.core.tracking.registry import find_version

RUN_ID = re.compile(r"[0-9a-f]{32}")
ALIAS = re.compile(r"(?:models:/)?(?P<name>[\w.-]+)[@/](?P<which>[\w.-]+)")
PIPELINE_PARAMETER = "profile"
"""Which only the runs of ``start_pipeline_run`` have."""
MAX_RUNS = 200
"""Runs that are looked through for a name, the newest first."""


@dataclass(frozen=True)
class EarlierRun:
    """A pipeline run and the results of its finished stages."""

    run_id: str
    name: str
    experiment: str
    results: dict[str, StageResult]


def earlier_run(reference: str) -> EarlierRun:
    """The pipeline run that ``reference`` names: a run's name (the newest one called so) or id, or
    a registered model's alias or version such as ``rlhf-policy@champion``; empty: the newest run.

    Raises:
        UserError: there is none.
    """
    client = PatientClient()
    run = _find(client, reference)
    children = client.search_runs(
        [run.info.experiment_id],
        f"tags.mlflow.parentRunId = '{run.info.run_id}' and attributes.status = 'FINISHED'",
    )
    results = {}
    for child in children:  # the newest first
        if "stage_key" in child.data.tags and child.info.run_name not in results:
            results[child.info.run_name] = _result(client, child)
    found = {stage: result for stage, result in results.items() if result is not None}
    experiment = client.get_experiment(run.info.experiment_id).name
    return EarlierRun(run.info.run_id, run.info.run_name, experiment, found)


def fetch(stage: str, key: str, of_run: str = "") -> StageResult | None:
    """The stage's result from this machine's folder, or else fetched from the artifacts of a run
    that finished it; None where no run has.

    A fetched folder appears as a whole or not at all, and only with the digests that its maker
    recorded.

    Args:
        of_run: only what this pipeline run has made, which is not in this machine's folder.
    """
    folder = data_root() / "runs" / stage / key
    if not of_run and (local := take_up(folder)) is not None:
        return local
    client = PatientClient()
    wanted = f"tags.stage_key = '{key}' and attributes.status = 'FINISHED'"
    if of_run:
        wanted += f" and tags.mlflow.parentRunId = '{of_run}'"
    for run in client.search_runs(all_experiments(client), wanted):
        if run.info.run_name == stage and "reused_from" not in run.data.tags:
            result = _download(client, run.info.run_id, folder)
            if result is not None:
                return result
    return None


# ------------------------------------------------------------------------------------ helpers


def _find(client: PatientClient, reference: str) -> Any:
    if RUN_ID.fullmatch(reference):
        return _run(client, reference, f"no MLflow run {reference}")
    if alias := ALIAS.fullmatch(reference):
        version = find_version(client, alias["name"], alias["which"])
        parent = version.tags.get("parent_run", version.run_id or "")
        return _run(client, parent, f"the run that made {reference} is gone")
    called = f"attributes.run_name = '{reference}'" if reference else ""
    if "'" in reference:
        raise UserError(f"no pipeline run is called {reference!r}: names hold no quotation marks")
    newest = ["attributes.start_time DESC"]
    runs = client.search_runs(
        all_experiments(client), called, max_results=MAX_RUNS, order_by=newest
    )
    pipelines = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    if not reference:  # the newest may have asked about pairs, or judged them
        pipelines = [run for run in pipelines if PIPELINE_PARAMETER in run.data.params]
    finished = [run for run in pipelines if run.info.status == "FINISHED"]
    if not pipelines:
        raise UserError(
            f"no pipeline run is called {reference!r} in MLflow; give the name or id of one, or an "
            "alias such as rlhf-policy@champion"
            if reference
            else "there is no earlier pipeline run in MLflow yet; run align or prepare-data first"
        )
    return (finished or pipelines)[0]


def _run(client: PatientClient, run_id: str, message: str) -> Any:
    try:
        return client.get_run(run_id)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UserError(f"{message}; give the name or id of one that is there") from None


def _result(client: PatientClient, run: Any) -> StageResult | None:
    """What a finished stage run returned: from this machine, else from its artifacts."""
    key = run.data.tags["stage_key"]
    local = read_result(data_root() / "runs" / run.info.run_name / key)
    if local is not None:
        return local
    source = run.data.tags.get("reused_from") or run.info.run_id
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = client.download_artifacts(source, f"stage/{RESULT_FILE}", folder)
        except (mlflow.exceptions.MlflowException, OSError):
            return None
        return StageResult.model_validate(json.loads(Path(path).read_text(encoding="utf-8")))


def _download(client: PatientClient, run_id: str, folder: Path) -> StageResult | None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        contextlib.suppress(Timeout),  # a run at work in the folder will finish it
        FileLock(folder.with_suffix(".lock"), timeout=0),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as place,
    ):
        try:
            got = Path(client.download_artifacts(run_id, "stage", place))
            mark = got / RESULT_FILE
            result = StageResult.model_validate(json.loads(mark.read_text(encoding="utf-8")))
            mark.unlink()
        except (mlflow.exceptions.MlflowException, OSError, ValueError):
            return None  # never uploaded whole, or removed since
        if folder_files(got) != result.files:
            return None
        write_result(got, result)
        shutil.rmtree(folder, ignore_errors=True)  # damaged or unfinished
        got.rename(folder)
        return result
    return None
