"""The automation on the Prefect server that notices machines which are gone."""

import datetime

import prefect.runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events import EventTrigger, Posture, emit_event
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore

from flows.environment import OWN_TAG

AUTOMATION = "rlhf: runs without a heartbeat are crashed"
HEARTBEAT_SECONDS = 120
"""Four missed heartbeats (PREFECT_FLOWS_HEARTBEAT_FREQUENCY): a long, healthy run sends them."""
SUSPENDED = "rlhf.flow-run.suspended"
STATES = ("Completed", "Failed", "Crashed", "Cancelled", "Suspended", "Paused", "AwaitingRetry")


def watch_heartbeats() -> None:
    """Bring the automation to the server: runs whose machine is gone become Crashed. Those of a
    machine that is there are found sooner by its worker (``flows.recovery``)."""
    with get_client(sync_client=True) as client:
        known = client.read_automations_by_name(AUTOMATION)
        if known:
            client.update_automation(known[0].id, automation())
        else:
            client.create_automation(automation())


def say_suspended() -> None:
    """Tell the automation that no further heartbeat of this flow run comes.

    The server says so, too, but by another way than the heartbeats take: the run's last one may
    arrive after it, and a run that waits for an answer would be taken for dead.
    """
    flow_run_id = prefect.runtime.flow_run.id
    tag = {"prefect.resource.id": f"prefect.tag.{OWN_TAG}", "prefect.resource.role": "tag"}
    emit_event(SUSPENDED, {"prefect.resource.id": f"prefect.flow-run.{flow_run_id}"}, related=[tag])


def automation() -> AutomationCore:
    """It ends our runs only: others may share the server, with other heartbeats or none."""
    ends = {f"prefect.flow-run.{state}" for state in STATES}
    return AutomationCore(
        name=AUTOMATION,
        description="A machine that was switched off cannot say so itself.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", SUSPENDED, *ends},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.id": f"prefect.tag.{OWN_TAG}"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=datetime.timedelta(seconds=HEARTBEAT_SECONDS),
        ),
        actions=[
            # Not by force: it also fires for a run that has completed, where the server was killed
            # before it noted so, and would have it begun again.
            ChangeFlowRunState(
                name="Crashed",
                state=StateType.CRASHED,
                force=False,
                message=f"No sign of life for {HEARTBEAT_SECONDS} s: the machine or its network.",
            )
        ],
    )
