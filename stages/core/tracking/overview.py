"""What MLflow knows at a glance: the last pipeline runs and the registered policies."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stages.core.tracking.client import PatientClient, process_is_gone
from stages.core.tracking.registry import POLICY

STATES = {
    "RUNNING": "running",
    "SCHEDULED": "suspended",
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "killed",
}
MAX_VERSIONS = 1000


@dataclass(frozen=True)
class RunLine:
    """A pipeline run."""

    run_id: str
    name: str
    experiment: str
    state: str
    """finished, failed, killed, running, or suspended: it waits for a person's answer."""
    started: datetime
    ended: datetime | None
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class VersionLine:
    """A version of ``rlhf-policy``."""

    number: str
    aliases: tuple[str, ...]
    """champion, challenger, previous: those that it has."""
    created: datetime
    tags: Mapping[str, str]
    """Figures, gate and origin, as ``publish`` writes them."""


def last_runs(count: int) -> list[RunLine]:
    """The newest pipeline runs of all experiments, the newest first."""
    client = PatientClient()
    names = {item.experiment_id: item.name for item in client.search_experiments()}
    runs = client.search_runs(
        list(names),
        "tags.mlflow.parentRunId IS NULL",
        max_results=count,
        order_by=["attributes.start_time DESC"],
    )
    return [run_line(run, names[run.info.experiment_id]) for run in runs]


def run_line(run: Any, experiment: str) -> RunLine:
    """What is shown of an MLflow run in the experiment of this name."""
    info, tags = run.info, dict(run.data.tags)
    state = STATES.get(info.status, info.status.lower())
    if state == "running" and process_is_gone(tags):
        state = "killed"
    return RunLine(
        run_id=info.run_id,
        name=info.run_name,
        experiment=experiment,
        state=state,
        started=_time(info.start_time),
        ended=_time(info.end_time) if info.end_time else None,
        metrics=dict(run.data.metrics),
        tags=tags,
    )


def policy_versions() -> list[VersionLine]:
    """All versions of ``rlhf-policy``, the newest first; none where nothing was registered."""
    client = PatientClient()
    found = client.search_registered_models(f"name = '{POLICY}'")
    aliases = dict(found[0].aliases) if found else {}
    versions = client.search_model_versions(f"name = '{POLICY}'", max_results=MAX_VERSIONS)
    lines = [
        VersionLine(
            number=str(version.version),
            aliases=tuple(
                sorted(
                    name for name, number in aliases.items() if str(number) == str(version.version)
                )
            ),
            created=_time(version.creation_timestamp),
            tags=dict(version.tags),
        )
        for version in versions
    ]
    return sorted(lines, key=lambda line: -int(line.number))


# ------------------------------------------------------------------------------------ helpers


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
