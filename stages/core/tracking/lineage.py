"""From a judgment to the models that learned from it: the tags that say so, and what is new since.

| tag | on | what it says |
|---|---|---|
| ``feedback_snapshot`` | run, version | digests of the snapshots of preferences, joined by commas |
| ``feedback_judgments`` | run, version | how many judgments they hold |
| ``feedback_annotators`` | run, version | how many people and models gave them |
| ``feedback_until`` | run, version | when the last judgment read was given: ISO 8601, UTC |
| ``feedback_seen`` | run | how many judgments there were, as JSON: {"feedback": {"human": 9}} |
| ``started_from`` | run | the run whose SFT model a retraining started from |
| ``started_from_version`` | run | the version of the policy that this run had made |
| ``rlhf.used_in_run`` | trace of a pair | the last pipeline run that read its judgment |
| ``rlhf.used_in_version`` | trace of a pair | the version of ``rlhf-policy`` that this run made |
| ``rlhf.used_in_page`` | trace of a pair | address of this run's page |

The descriptions of run and version link to the judged pairs, and to one another. A run here is a
pipeline run, a version one of ``rlhf-policy``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from stages.core.tracking.client import PatientClient, experiment_id
from stages.core.tracking.registry import POLICY

FEEDBACK_SNAPSHOT = "feedback_snapshot"
FEEDBACK_JUDGMENTS = "feedback_judgments"
FEEDBACK_ANNOTATORS = "feedback_annotators"
FEEDBACK_UNTIL = "feedback_until"
FEEDBACK_SEEN = "feedback_seen"
STARTED_FROM = "started_from"
STARTED_FROM_VERSION = "started_from_version"
USED_IN_RUN = "rlhf.used_in_run"
USED_IN_VERSION = "rlhf.used_in_version"
USED_IN_PAGE = "rlhf.used_in_page"
NOTE = "mlflow.note.content"
"""Tag that MLflow shows as a run's description."""
POLICY_VERSION = "policy_version"
"""Tag of a pipeline run: the version of ``rlhf-policy`` that its policy became."""
MAX_RUNS = 1000


@dataclass(frozen=True)
class Learned:
    """A finished pipeline run whose policy learned from judgments."""

    run_id: str
    name: str
    pipeline: str
    """Its MLflow experiment, which is called as the profile."""
    until: datetime
    """When the last judgment was given that it has read."""
    seen: Mapping[str, int]
    """How many judgments there were, by who gave them: human, ai."""
    version: str
    """Of ``rlhf-policy``."""


def last_learned(feedback: str, pipeline: str = "") -> Learned | None:
    """The finished run that has read the judgments of the experiment ``feedback`` up to the latest
    time; None where none has.

    Args:
        pipeline: only runs of this experiment; empty: of any.
    """
    client = PatientClient()
    names = {item.experiment_id: item.name for item in client.search_experiments()}
    ids = [number for number, name in names.items() if pipeline in ("", name)]
    if not ids:
        return None
    wanted = (
        "attributes.status = 'FINISHED' and tags.mlflow.parentRunId IS NULL"
        f" and tags.{FEEDBACK_UNTIL} IS NOT NULL and tags.{POLICY_VERSION} IS NOT NULL"
    )
    newest = ["attributes.start_time DESC"]
    runs = client.search_runs(ids, wanted, max_results=MAX_RUNS, order_by=newest)
    learned = []
    for run in runs:
        tags = run.data.tags
        seen = json.loads(tags.get(FEEDBACK_SEEN, "{}")).get(feedback)
        if seen is None:
            continue
        learned.append(
            Learned(
                run_id=run.info.run_id,
                name=run.info.run_name,
                pipeline=names[run.info.experiment_id],
                until=datetime.fromisoformat(tags[FEEDBACK_UNTIL]).astimezone(UTC),
                seen=seen,
                version=tags[POLICY_VERSION],
            )
        )
    return max(learned, key=lambda run: run.until, default=None)


def describe(run_id: str, version: str, text: str) -> None:
    """Add a line of Markdown to the descriptions of a run and of its policy's version, unless they
    have it. Links below the MLflow UI's address begin with #."""
    client = PatientClient()
    note = client.get_run(run_id).data.tags.get(NOTE, "")
    if text not in note:
        client.set_tag(run_id, NOTE, f"{note}\n\n{text}".strip())
    described = client.get_model_version(POLICY, version).description or ""
    if text not in described:
        client.update_model_version(POLICY, version, f"{described}\n\n{text}".strip())


def run_tags(run_id: str) -> Mapping[str, str]:
    """The tags of a run."""
    return dict(PatientClient().get_run(run_id).data.tags)


def experiment_page(name: str, part: str = "runs") -> str:
    """Path of an experiment's page below the address of the MLflow UI; empty where there is no
    such experiment."""
    experiment = PatientClient().get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage == "deleted":
        return ""
    return f"/#/experiments/{experiment.experiment_id}/{part}"


def experiment_tags(name: str) -> Mapping[str, str]:
    """The tags of an experiment; none where there is no such experiment."""
    experiment = PatientClient().get_experiment_by_name(name)
    return dict(experiment.tags) if experiment is not None else {}


def tag_experiment(name: str, tags: Mapping[str, str]) -> None:
    """Add tags to the experiment, which is made where it is not there."""
    client = PatientClient()
    number = experiment_id(client, name)
    for key, value in tags.items():
        client.set_experiment_tag(number, key, value)
