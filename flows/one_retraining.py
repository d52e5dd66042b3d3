"""One retraining at a time: a second of the same pipeline ends, whichever deployment or command
started it."""

from collections.abc import Sequence
from uuid import UUID

import prefect.runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.concurrency.sync import concurrency

from stages.core.errors import UserError

LIMIT = "rlhf-retrain-begins"
"""Limit of Prefect's, held while a run looks for others and says that it is at work."""
LEASE_SECONDS = 60.0
TIMEOUT_SECONDS = 90.0
CLAIM = "retrain:"
"""Tag of a flow run, followed by the pipeline's name: it retrains that, as long as it has not
ended. One that waits for a person's answer, or for its next try, has not."""
ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED)


def already_at_it(pipeline: str) -> FlowRun | None:
    """The flow run that retrains ``pipeline`` already; None where there is none, and then it is
    this one from now on until it ends.

    Raises:
        UserError: the Prefect server has not let us look in time.
    """
    flow_run_id = prefect.runtime.flow_run.id
    if not flow_run_id:
        return None
    claim = f"{CLAIM}{pipeline}"
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(LIMIT, 1)
        try:
            with concurrency(LIMIT, timeout_seconds=TIMEOUT_SECONDS, lease_duration=LEASE_SECONDS):
                own = client.read_flow_run(UUID(str(flow_run_id)))
                others = [run for run in _claimed(client, claim) if run.id != own.id]
                if not others:
                    client.update_flow_run(own.id, tags=sorted({*own.tags, claim}))
        except TimeoutError:
            raise UserError(
                f"another retraining has been about to begin for {TIMEOUT_SECONDS:.0f} s; start "
                "this one again"
            ) from None
    return others[0] if others else None


# ------------------------------------------------------------------------------------ helpers


def _claimed(client: SyncPrefectClient, claim: str) -> Sequence[FlowRun]:
    """The flow runs with the claim that have not ended."""
    going_on = [kind for kind in StateType if kind not in ENDED]
    wanted = {"tags": {"all_": [claim]}, "state": {"type": {"any_": going_on}}}
    return client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(wanted))
