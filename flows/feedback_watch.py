"""The flow ``watch-feedback``: it says when enough has been judged, and an automation on the
Prefect server then starts a retraining."""

import datetime
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events import EventTrigger, Posture, emit_event
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed

from flows.lineage import kinds
from flows.new_judgments import new_judgments
from flows.refusals import refusals_as_states
from stages.core import tracking
from stages.core.config.base import PositiveInt
from stages.core.form import parameter

READY = "rlhf.feedback.ready"
"""The event: enough new judgments. Payload: experiment, new (how many)."""
RESOURCE = "rlhf.feedback"
AUTOMATION = "rlhf: retrain on new judgments"
NAME = "watch-feedback"
DEPLOYMENT = f"{NAME}/{NAME}"
AGAIN_AFTER = datetime.timedelta(days=1)
"""Judgments that were announced and that nothing has learned from since are announced again."""
ANNOUNCED, WATCHED = "rlhf.announced", "rlhf.watched"
"""Tags of the experiment: what was announced last, and that watching was switched on once."""


@flow(name=NAME, flow_run_name="watch {experiment}", persist_result=False)
@refusals_as_states
def watch_feedback(
    experiment: Annotated[str, parameter("Experiment")] = "feedback",
    min_new_judgments: Annotated[PositiveInt, parameter("Min new judgments")] = 50,
    annotators: Annotated[Literal["human", "ai", "all"], parameter("Annotators")] = "human",
) -> Any:
    """Count the judgments that no policy has learned from yet, and announce when there are enough.

    The automation "rlhf: retrain on new judgments" waits for that event and starts a retraining.
    After a day without one that finished, the judgments are announced again.

    Args:
        experiment: MLflow experiment that holds the review queues.
        min_new_judgments: Announce when so many are new, and again with each so many more; at
            least 1.
        annotators: Whose judgments count.
    """
    found = new_judgments(experiment, kinds(annotators))
    if found.count < min_new_judgments:
        message = f"{found.text}. Announced at {min_new_judgments}"
        return Completed(name="Nothing new", message=message)
    since = found.last.run_id if found.last else ""
    if not _is_due(experiment, since, found.count, min_new_judgments):
        message = f"{found.text}. Announced already"
        return Completed(name="Announced already", message=message)
    emit_event(
        READY,
        {"prefect.resource.id": f"{RESOURCE}.{experiment}", "prefect.resource.name": experiment},
        payload={"experiment": experiment, "new": found.count},
    )
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    tracking.tag_experiment(experiment, {ANNOUNCED: f"{found.count} {now} {since}"})
    return Completed(name="Announced", message=found.text)


def retrain_on_new_judgments(deployment: str, *, instead: bool) -> None:
    """Bring the automation to the server: the event runs the deployment.

    Args:
        instead: whether an automation that is there shall run this deployment from now on; else it
            is left as somebody may have changed it.
    """
    with get_client(sync_client=True) as client:
        known = client.read_automations_by_name(AUTOMATION)
        made = automation(client.read_deployment_by_name(deployment).id)
        if not known:
            client.create_automation(made)
        elif instead or not _runs_something(client, known[0].actions):
            made.enabled = known[0].enabled
            client.update_automation(known[0].id, made)


def automation(deployment_id: UUID) -> AutomationCore:
    """Each announcement starts one run of the deployment, which refuses a second at a time."""
    return AutomationCore(
        name=AUTOMATION,
        description="Starts a retraining when watch-feedback has counted enough new judgments.",
        trigger=EventTrigger(
            expect={READY},
            match={"prefect.resource.id": f"{RESOURCE}.*"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[RunDeployment.model_validate({"deployment_id": deployment_id})],
    )


def begin_watching(experiment: str) -> bool:
    """Switch on the schedule of ``watch-feedback`` when the experiment gets its first queue. Who
    pauses it afterwards is left alone. Returns whether it was switched on.

    Raises:
        httpx.HTTPError: the Prefect server does not answer.
    """
    if WATCHED in tracking.experiment_tags(experiment):
        return False
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:  # no rlhf up, no rlhf deploy: nobody would run it
            return False
        for schedule in deployment.schedules:
            client.update_deployment_schedule(deployment.id, schedule.id, active=True)
    tracking.tag_experiment(experiment, {WATCHED: "true"})
    return True


# ------------------------------------------------------------------------------------ helpers


def _is_due(experiment: str, since: str, count: int, step: int) -> bool:
    """Whether so many are to be announced: since the last retraining none were, or so many less, or
    it is long ago, so that the retraining it started must have failed."""
    announced = tracking.experiment_tags(experiment).get(ANNOUNCED, "")
    if not announced:
        return True
    number, at, announced_since = announced.split(" ")
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(at)
    return announced_since != since or count >= int(number) + step or age >= AGAIN_AFTER


def _runs_something(client: SyncPrefectClient, actions: Sequence[Any]) -> bool:
    """Whether a deployment that the actions run is still there."""
    for action in actions:
        number = getattr(action, "deployment_id", None)
        if number is None:
            return True
        try:
            client.read_deployment(number)
        except ObjectNotFound:
            continue
        return True
    return False
