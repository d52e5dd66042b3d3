"""Flow runs whose process was killed before it could record an end: recorded as crashed."""

import contextlib
import os

import prefect.runtime
import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Crashed

PROCESS_LABEL = "rlhf.process"
MESSAGE = "The process was killed."


def sweep(tags: list[str]) -> None:
    """Give this flow run its ``tags`` and its process's mark, and end the runs of dead processes.

    Outside a flow run nothing happens.
    """
    flow_run_id = prefect.runtime.flow_run.id
    if not flow_run_id:
        return
    with get_client(sync_client=True) as client:
        given = client.read_flow_run(flow_run_id).tags
        client.update_flow_run(flow_run_id, tags=sorted({*given, *filter(None, tags)}))
        client.update_flow_run_labels(flow_run_id, {PROCESS_LABEL: process_mark()})
        running = {"state": {"type": {"any_": [StateType.RUNNING]}}}
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(running)):
            if _is_abandoned(run):
                _end(client, run)


def _end(client: SyncPrefectClient, run: FlowRun) -> None:
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
    for task_run in client.read_task_runs(flow_run_filter=of_run):
        if task_run.state is None or not task_run.state.is_final():
            client.set_task_run_state(task_run.id, Crashed(message=MESSAGE), force=True)
    client.set_flow_run_state(run.id, Crashed(message=MESSAGE), force=True)


def process_mark() -> str:
    """Host, number and start time of this process."""
    process = psutil.Process()
    return f"{os.uname().nodename} {process.pid} {process.create_time():.2f}"


def _is_abandoned(run: FlowRun) -> bool:
    """Whether the run's process ran on this machine and is no more; its number may have been
    reused, so the start time counts too."""
    host, _, process = str(run.labels.get(PROCESS_LABEL, "")).partition(" ")
    if host != os.uname().nodename:
        return False
    number, started = process.split(" ")
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(abs(psutil.Process(int(number)).create_time() - float(started)) > 1.0)
    return True
