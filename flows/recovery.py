"""Flow runs whose process was killed: found out, recorded as crashed, and begun again.

Every worker sweeps at its start and now and then, and every flow run sweeps once: what says Running
without a process becomes Crashed, and a crashed run of a deployment is scheduled again, to go on at
its unfinished stage. Whether a process lives is asked of the machine and not of Prefect: heartbeats
and states get lost with a server, and a run must never be begun twice.
"""

import contextlib
import datetime
import logging
from collections.abc import Iterator, Sequence
from uuid import UUID

import httpx
import prefect.runtime
import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType, WorkerStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelled, Completed, Crashed, Running, Scheduled

from flows.environment import OWN_TAG
from stages.core.machine import machine

PROCESS_LABEL = "rlhf.process"
RECOVERIES_LABEL = "rlhf.recoveries"
WORKER_LABEL = "prefect.worker.name"
RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"
"""Prefect's worker sets it in the process of a flow run, and its stages inherit it."""
MAX_RECOVERIES = 5
"""A run that is killed more often is left Crashed: something kills it again and again."""
FOREIGN_MINUTES = 10
"""A run that crashed or got stuck on another machine is left to that machine for so long."""
LOOK_BACK_HOURS = 24
STUCK_SECONDS = 60
"""A run that a worker took and that has no process for so long was lost with the worker."""
SETTLING_SECONDS = 15
"""A process that says that it crashed needs a while to end, and a worker says so twice."""
CANCELLING_SECONDS = 60
"""A worker needs so long to end a run; one that was killed, or lost its connection, never does."""
KILLED = "The process was killed."
ENDED = "The process has ended."
TERMINAL = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]

log = logging.getLogger(__name__)


def mark_this_run(tags: Sequence[str]) -> None:
    """Give this flow run its ``tags``, ours, and its process's mark; nothing outside a flow run."""
    flow_run_id = prefect.runtime.flow_run.id
    if not flow_run_id:
        return
    with get_client(sync_client=True) as client:
        given = client.read_flow_run(flow_run_id).tags
        client.update_flow_run(flow_run_id, tags=sorted({*given, OWN_TAG, *filter(None, tags)}))
        client.update_flow_run_labels(flow_run_id, {PROCESS_LABEL: process_mark()})


def sweep() -> list[FlowRun]:
    """End what says that it runs and does not, and schedule crashed runs of deployments again.

    Returns:
        The runs that were found without a process.

    Raises:
        httpx.HTTPError: the Prefect server does not answer; the next sweep does the rest.
    """
    with get_client(sync_client=True) as client:
        gone = [run for run in _runs(client, StateType.RUNNING) if _is_gone(run) is True]
        for run in gone:
            log.warning("%s: its process is gone", run.name)
            _set(client, run, Crashed(message=KILLED))
        for run in _runs(client, StateType.CANCELLING):
            gone += _end_cancelled(client, run)
        for run in _runs(client, StateType.PENDING):
            if _is_stuck(run):
                _begin_again(client, run, "Its worker was killed before it began.")
        for run in _runs(client, StateType.CRASHED, LOOK_BACK_HOURS):
            _recover(client, run)
        _end_task_runs(client)
    return gone


def sweep_if_possible() -> list[FlowRun]:
    """``sweep``, which a server that is away puts off: somebody else, or the next one, does it."""
    try:
        return sweep()
    except httpx.HTTPError as error:
        log.warning("the Prefect server does not answer: %s", error or type(error).__name__)
        return []


def explain_waiting() -> None:
    """Say in late runs whose work pool has no worker that this is why they wait.

    Raises:
        httpx.HTTPError: the Prefect server does not answer.
    """
    with get_client(sync_client=True) as client:
        pools = {pool.name: pool for pool in client.read_work_pools()}
        for run in _runs(client, StateType.SCHEDULED):
            state, pool = run.state, pools.get(run.work_pool_name or "")
            if state is None or state.name != "Late" or pool is None:
                continue
            workers = client.read_workers_for_work_pool(pool.name)
            if any(worker.status == WorkerStatus.ONLINE for worker in workers):
                continue
            message = (
                f"No worker serves the work pool {pool.name}; start one: rlhf worker {pool.name}"
            )
            if state.message != message:
                when = state.state_details.scheduled_time
                told: State[None] = Scheduled(name="Late", message=message, scheduled_time=when)
                _set(client, run, told)


def has_ended(flow_run_id: str) -> bool:
    """Whether a flow run is over. One that this server does not know is not for us to judge."""
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(flow_run_id)).state
        except (ObjectNotFound, ValueError):
            return False
    return state is not None and state.is_final()


def worker_name(pool: str) -> str:
    """The name under which this machine's worker serves ``pool``; ``_host`` reads it."""
    return f"{machine()}-{pool}"


def process_mark() -> str:
    """Machine, number and start time of this process."""
    process = psutil.Process()
    return f"{machine()} {process.pid} {process.create_time():.2f}"


# --------------------------------------------------------------------------- is it alive?


def _is_gone(run: FlowRun) -> bool | None:
    """Whether the run's process is no more; None where that cannot be told: it is, or was until
    now, another machine's."""
    if _host(run) != machine():
        return None
    return not _process(run)


def _host(run: FlowRun) -> str:
    """The machine that runs the run: its worker's, or that of ``rlhf run``."""
    worker, mark = run.labels.get(WORKER_LABEL), run.labels.get(PROCESS_LABEL)
    return str(worker).rpartition("-")[0] if worker else str(mark or "").partition(" ")[0]


def _process(run: FlowRun) -> psutil.Process | None:
    """The run's process on this machine: the one that left its mark, else one that a worker started
    for it, which has not come so far yet."""
    _, _, mark = str(run.labels.get(PROCESS_LABEL, "")).partition(" ")
    number, _, started = mark.partition(" ")
    with contextlib.suppress(psutil.Error, ValueError):
        process = psutil.Process(int(number))
        # A number may have been given to another process since.
        if abs(process.create_time() - float(started)) < 1.0 and _is_running(process):
            return process
    flows = (process for process in _processes(run) if _is_flow(process))
    return next(flows, None)


def _processes(run: FlowRun) -> Iterator[psutil.Process]:
    """What a worker of this machine started for the run: the flow, and its stages."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(RUN_VARIABLE) == str(run.id) and _is_running(process):
                yield process


def _is_flow(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(part.startswith("prefect.") for part in process.cmdline())
    return False


def _is_running(process: psutil.Process) -> bool:
    return bool(process.status() != psutil.STATUS_ZOMBIE)


def _is_stuck(run: FlowRun) -> bool:
    """Whether the worker that took the run was killed before the run had a process."""
    foreign = _host(run) not in ("", machine())
    limit = FOREIGN_MINUTES * 60 if foreign else STUCK_SECONDS
    return _age(run) > limit and not _process(run)


def _age(run: FlowRun) -> float:
    """Seconds that the run has been in its state."""
    if run.state is None:
        return 0.0
    return (datetime.datetime.now(datetime.UTC) - run.state.timestamp).total_seconds()


# -------------------------------------------------------------------------- what is done about it


def _runs(client: SyncPrefectClient, kind: StateType, hours: float | None = None) -> list[FlowRun]:
    wanted: dict[str, object] = {"state": {"type": {"any_": [kind]}}, "tags": {"all_": [OWN_TAG]}}
    if hours is not None:
        since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=hours)
        wanted["end_time"] = {"after_": since}
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(wanted),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
    )


def _set(client: SyncPrefectClient, run: FlowRun, state: State[None]) -> bool:
    """Set the state of a run that is still as it was read: a worker may have taken it meanwhile,
    and other machines sweep, too."""
    now = client.read_flow_run(run.id)
    if run.state is None or now.state is None or now.state.id != run.state.id:
        return False
    client.set_flow_run_state(run.id, state, force=True)
    return True


def _end_cancelled(client: SyncPrefectClient, run: FlowRun) -> list[FlowRun]:
    """End a run that is being cancelled by nobody."""
    if _host(run) != machine():
        return []
    process = _process(run)
    if process and _age(run) > CANCELLING_SECONDS:
        with contextlib.suppress(psutil.Error):
            process.kill()  # its stage dies with it
            process.wait(SETTLING_SECONDS)
        process = None
    if process or not _set(client, run, Cancelled(message=ENDED)):
        return []
    return [run]


def _recover(client: SyncPrefectClient, run: FlowRun) -> None:
    """Schedule a crashed run again, or set it right where it was declared dead but lives."""
    by_sweep = run.state is not None and run.state.message == KILLED
    if _age(run) < SETTLING_SECONDS and not by_sweep:
        return
    gone = _is_gone(run)
    if gone is False:
        _set(client, run, Running(message="The process lives."))
    elif gone is True or (gone is None and _age(run) > FOREIGN_MINUTES * 60):
        _begin_again(client, run, KILLED)


def _begin_again(client: SyncPrefectClient, run: FlowRun, cause: str) -> None:
    recoveries = int(str(run.labels.get(RECOVERIES_LABEL, 0))) + 1
    if run.deployment_id is None:
        return
    if recoveries > MAX_RECOVERIES:
        if run.state is not None and run.state.is_pending():
            _set(client, run, Crashed(message=f"{cause} It was begun {MAX_RECOVERIES} times."))
        return
    for process in _processes(run):  # a stage of several ranks outlives its flow
        with contextlib.suppress(psutil.Error):
            process.kill()
    message = f"{cause} It goes on at its unfinished stage ({recoveries}/{MAX_RECOVERIES})."
    if _set(client, run, AwaitingRetry(message=message)):
        client.update_flow_run_labels(run.id, {RECOVERIES_LABEL: recoveries})
        log.warning("%s: %s", run.name, message)


def _end_task_runs(client: SyncPrefectClient) -> None:
    """End the task runs that have not ended though their flow run has. Their states come as events,
    which a server that is killed forgets."""
    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=LOOK_BACK_HOURS)
    ended = {
        "state": {"type": {"any_": TERMINAL}},
        "end_time": {"after_": since},
        "tags": {"all_": [OWN_TAG]},
    }
    still_open = {"state": {"type": {"any_": [kind for kind in StateType if kind not in TERMINAL]}}}
    for task_run in client.read_task_runs(
        flow_run_filter=FlowRunFilter.model_validate(ended),
        task_run_filter=TaskRunFilter.model_validate(still_open),
    ):
        if task_run.flow_run_id is None:
            continue
        flow_run = client.read_flow_run(task_run.flow_run_id)
        if flow_run.state is None or _age(flow_run) < SETTLING_SECONDS:
            continue  # its last events are on their way
        state: State[None] = Crashed(message=KILLED)
        of_last_try = task_run.flow_run_run_count == flow_run.run_count
        if flow_run.state.is_completed() and of_last_try:
            state = Completed(message="Its end was lost.")
        client.set_task_run_state(task_run.id, state, force=True)
