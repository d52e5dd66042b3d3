"""Flow runs whose process was killed: found out, recorded as crashed, and begun again.

A flow run carries the mark of its process. Every worker sweeps at its start and now and then, and
every flow run sweeps once: what says Running without a process becomes Crashed, and a crashed run
of a deployment is scheduled again, to go on at its unfinished stage.
"""

import datetime
import logging
import os
from collections.abc import Sequence

import prefect.runtime
import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State, StateType, WorkerStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import AwaitingRetry, Cancelled, Completed, Crashed, Running, Scheduled

PROCESS_LABEL = "rlhf.process"
RECOVERIES_LABEL = "rlhf.recoveries"
MAX_RECOVERIES = 5
"""A run that is killed more often is left Crashed: something kills it again and again."""
FOREIGN_MINUTES = 10
"""A run that crashed on another machine is left to that machine for so long."""
LOOK_BACK_HOURS = 24
STUCK_SECONDS = 90
"""A run that a worker took, but that did not begin for so long, was lost with the worker."""
SETTLING_SECONDS = 15
"""A run has its process's mark so long after it began."""
KILLED = "The process was killed."
TERMINAL = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]
OPEN = [StateType.RUNNING, StateType.PENDING]

log = logging.getLogger(__name__)


def mark_this_run(tags: Sequence[str]) -> None:
    """Give this flow run its ``tags`` and its process's mark; nothing outside a flow run."""
    flow_run_id = prefect.runtime.flow_run.id
    if not flow_run_id:
        return
    with get_client(sync_client=True) as client:
        given = client.read_flow_run(flow_run_id).tags
        client.update_flow_run(flow_run_id, tags=sorted({*given, *filter(None, tags)}))
        client.update_flow_run_labels(flow_run_id, {PROCESS_LABEL: process_mark()})


def sweep() -> list[FlowRun]:
    """End what says that it runs and does not, and schedule crashed runs of deployments again.

    Returns:
        The runs found without a process.
    """
    with get_client(sync_client=True) as client:
        gone = [run for run in _runs(client, [StateType.RUNNING]) if _is_gone(run) is True]
        for run in gone:
            log.warning("%s: its process is gone", run.name)
            client.set_flow_run_state(run.id, Crashed(message=KILLED), force=True)
        for run in _runs(client, [StateType.CANCELLING]):
            if _is_gone(run) is True:
                client.set_flow_run_state(run.id, Cancelled(message=KILLED), force=True)
        for run in _runs(client, [StateType.PENDING]):
            if _is_stuck(run):
                _begin_again(client, run, "Its worker was killed before it began.")
        for run in _runs(client, [StateType.CRASHED], LOOK_BACK_HOURS):
            _recover(client, run)
        _end_task_runs(client)
    return gone


def explain_waiting(client: SyncPrefectClient) -> None:
    """Say in late runs whose work pool has no worker that this is why they wait."""
    pools = {pool.name: pool for pool in client.read_work_pools()}
    for run in _runs(client, [StateType.SCHEDULED]):
        state, pool = run.state, pools.get(run.work_pool_name or "")
        if state is None or state.name != "Late" or pool is None:
            continue
        workers = client.read_workers_for_work_pool(pool.name)
        if any(worker.status == WorkerStatus.ONLINE for worker in workers):
            continue
        message = f"No worker serves the work pool {pool.name}; start one: rlhf worker {pool.name}"
        if state.message != message:
            when = state.state_details.scheduled_time
            told: State[None] = Scheduled(name="Late", message=message, scheduled_time=when)
            client.set_flow_run_state(run.id, told, force=True)


def process_mark() -> str:
    """Host, number and start time of this process."""
    process = psutil.Process()
    return f"{os.uname().nodename} {process.pid} {process.create_time():.2f}"


# ------------------------------------------------------------------------------------ helpers


def _runs(
    client: SyncPrefectClient, types: Sequence[StateType], hours: float | None = None
) -> list[FlowRun]:
    wanted: dict[str, object] = {"state": {"type": {"any_": list(types)}}}
    if hours is not None:
        since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=hours)
        wanted["end_time"] = {"after_": since}
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(wanted),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
    )


def _is_gone(run: FlowRun) -> bool | None:
    """Whether the run's process is no more; None where that cannot be told: from another machine,
    or while the run begins and has its mark of an earlier try. A process's number may have been
    reused, so the start time counts too."""
    host, _, process = str(run.labels.get(PROCESS_LABEL, "")).partition(" ")
    if host != os.uname().nodename or run.state is None or _age(run.state) < SETTLING_SECONDS:
        return None
    number, started = process.split(" ")
    try:
        return bool(abs(psutil.Process(int(number)).create_time() - float(started)) > 1.0)
    except psutil.NoSuchProcess:
        return True


def _is_stuck(run: FlowRun) -> bool:
    """Whether a worker of this machine took the run and was killed before the run began."""
    host, _, number = (run.infrastructure_pid or "").rpartition(":")
    if run.state is None or _age(run.state) < STUCK_SECONDS:
        return False
    return not host or (host == os.uname().nodename and not psutil.pid_exists(int(number)))


def _age(state: State[object]) -> float:
    return (datetime.datetime.now(datetime.UTC) - state.timestamp).total_seconds()


def _recover(client: SyncPrefectClient, run: FlowRun) -> None:
    """Schedule a crashed run again, or set it right where it was declared dead but lives."""
    gone = _is_gone(run)
    if gone is False:
        client.set_flow_run_state(run.id, Running(message="The process lives."), force=True)
    elif gone is True or (run.state and _age(run.state) > FOREIGN_MINUTES * 60):
        _begin_again(client, run, KILLED)


def _begin_again(client: SyncPrefectClient, run: FlowRun, cause: str) -> None:
    recoveries = int(str(run.labels.get(RECOVERIES_LABEL, 0)))
    if run.deployment_id is None or recoveries >= MAX_RECOVERIES:
        return
    client.update_flow_run_labels(run.id, {RECOVERIES_LABEL: recoveries + 1})
    message = f"{cause} It goes on at its unfinished stage ({recoveries + 1}/{MAX_RECOVERIES})."
    client.set_flow_run_state(run.id, AwaitingRetry(message=message), force=True)
    log.warning("%s: %s", run.name, message)


def _end_task_runs(client: SyncPrefectClient) -> None:
    """End the task runs that still say Running though their flow run has ended."""
    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=LOOK_BACK_HOURS)
    ended = FlowRunFilter.model_validate(
        {"state": {"type": {"any_": TERMINAL}}, "end_time": {"after_": since}}
    )
    for task_run in client.read_task_runs(flow_run_filter=ended):
        if task_run.flow_run_id is None or (task_run.state and task_run.state.type not in OPEN):
            continue
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[task_run.flow_run_id]))
        (flow_run,) = client.read_flow_runs(flow_run_filter=of_run)
        completed = flow_run.state is not None and flow_run.state.is_completed()
        state: State[None] = (
            Completed(message="Its end was lost.") if completed else Crashed(message=KILLED)
        )
        client.set_task_run_state(task_run.id, state, force=True)
