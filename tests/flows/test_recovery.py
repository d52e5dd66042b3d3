"""Dead runs are found and begun again, living ones are left alone: against a real Prefect server.

The process of a run is real, too, though it only sleeps; the states are set as workers set them.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import (
    AwaitingRetry,
    Cancelling,
    Completed,
    Crashed,
    Pending,
    Running,
    Scheduled,
)

from flows import recovery, servers
from flows.deployments import make_pools
from flows.environment import OWN_TAG

HERE = "this-machine-00c0ffee"
ON_THIS_MACHINE = {recovery.WORKER_LABEL: f"{HERE}-cpu"}
OURS = [OWN_TAG]
ELSEWHERE = {recovery.WORKER_LABEL: "another-machine-cpu"}
GONE = {recovery.PROCESS_LABEL: f"{HERE} 1 1.00"}
"""The mark of a process whose number another one has now."""


@pytest.fixture(scope="module")
def client(prefect_server: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture(scope="module")
def deployment(client: SyncPrefectClient) -> UUID:
    make_pools()  # unless another module has made them on this server
    flow = client.create_flow_from_name("recovered")
    return client.create_deployment(flow, "recovered", work_pool_name="cpu", tags=OURS)


@pytest.fixture
def run_in(
    client: SyncPrefectClient, deployment: UUID, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., FlowRun]]:
    """Makes a run of the deployment in a state; no other test's sweep finds it. Here states count
    as old at once."""
    monkeypatch.setattr(recovery, "machine", lambda: HERE)
    for name in ("STUCK_SECONDS", "SETTLING_SECONDS", "CANCELLING_SECONDS"):
        monkeypatch.setattr(recovery, name, -1)
    made: list[UUID] = []

    def make(state: Any, labels: dict[str, Any], of: UUID | None = deployment) -> FlowRun:
        if of is None:
            run = client.create_flow_run(_nothing, state=Pending(), tags=OURS)
        else:
            run = client.create_flow_run_from_deployment(of)
        made.append(run.id)
        client.update_flow_run_labels(run.id, labels)
        if state.is_cancelling():  # what has not begun is cancelled at once
            client.set_flow_run_state(run.id, Running(), force=True)
        client.set_flow_run_state(run.id, state, force=True)
        return client.read_flow_run(run.id)

    yield make
    for run_id in made:
        client.delete_flow_run(run_id)


@pytest.fixture
def process_of() -> Iterator[Callable[..., psutil.Process]]:
    """Starts a process as a worker starts a run's, by default that of its flow."""
    started = []

    def start(run: FlowRun, program: str = "prefect.engine") -> psutil.Process:
        command = [sys.executable, "-c", "import time; time.sleep(120)", program]
        environment = os.environ | {recovery.RUN_VARIABLE: str(run.id)}
        started.append(subprocess.Popen(command, env=environment, start_new_session=True))
        return psutil.Process(started[-1].pid)

    yield start
    for process in started:
        process.kill()
        process.wait()


@flow(name="no deployment")
def _nothing() -> None:
    """A flow that nobody deployed."""


def _mark(process: psutil.Process) -> dict[str, str]:
    return {recovery.PROCESS_LABEL: f"{HERE} {process.pid} {process.create_time():.2f}"}


def _state(client: SyncPrefectClient, run: FlowRun) -> Any:
    state = client.read_flow_run(run.id).state
    assert state is not None
    return state


# --------------------------------------------------------------------------------- killed runs


@pytest.mark.parametrize("labels", [ON_THIS_MACHINE, GONE, ON_THIS_MACHINE | GONE])
def test_a_run_without_process_crashes_and_is_scheduled_again(client, run_in, labels):
    run = run_in(Running(), labels)
    assert [found.id for found in recovery.sweep()] == [run.id]
    now = client.read_flow_run(run.id)
    assert (now.state.type, now.state.name) == ("SCHEDULED", "AwaitingRetry")
    assert now.state.message.endswith("It goes on at its unfinished stage (1/5).")
    assert now.labels[recovery.RECOVERIES_LABEL] == 1
    kinds = [state.type.value for state in client.read_flow_run_states(run.id)]
    assert kinds[-3:] == ["RUNNING", "CRASHED", "SCHEDULED"]


def test_a_run_that_its_worker_reported_as_crashed_is_scheduled_again(client, run_in):
    run = run_in(Crashed(message="Process exited with status code: -9"), ON_THIS_MACHINE)
    assert recovery.sweep() == []
    assert _state(client, run).name == "AwaitingRetry"


def test_a_run_that_is_killed_again_and_again_stays_crashed(client, run_in):
    killed_before = {recovery.RECOVERIES_LABEL: recovery.MAX_RECOVERIES - 1}
    run = run_in(Running(), ON_THIS_MACHINE | killed_before)
    recovery.sweep()
    assert _state(client, run).name == "AwaitingRetry"
    client.set_flow_run_state(run.id, Running(), force=True)
    recovery.sweep()
    assert _state(client, run).name == "Crashed"
    recovery.sweep()
    assert _state(client, run).name == "Crashed"
    assert client.read_flow_run(run.id).labels[recovery.RECOVERIES_LABEL] == recovery.MAX_RECOVERIES


def test_a_run_that_is_lost_again_and_again_before_it_begins_crashes(client, run_in):
    lost_before = {recovery.RECOVERIES_LABEL: recovery.MAX_RECOVERIES}
    run = run_in(Pending(), ON_THIS_MACHINE | lost_before)
    recovery.sweep()
    state = _state(client, run)
    assert (state.name, state.message) == (
        "Crashed",
        "Its worker was killed before it began. It was begun 5 times.",
    )


def test_a_killed_run_of_the_command_line_stays_crashed(client, run_in):
    run = run_in(Running(), GONE, of=None)
    recovery.sweep()
    assert _state(client, run).name == "Crashed"


def test_a_stage_that_outlived_its_flow_is_ended_before_the_run_begins_again(
    client, run_in, process_of
):
    run = run_in(Running(), ON_THIS_MACHINE)
    stage = process_of(run, "torch.distributed.run")
    recovery.sweep()
    assert _state(client, run).name == "AwaitingRetry"
    assert stage.wait(10) != 0


def test_a_dead_run_gives_its_place_to_the_next(client, run_in):
    flow = client.create_flow_from_name("one at a time")
    of = client.create_deployment(
        flow, "limited", work_pool_name="cpu", concurrency_limit=1, tags=OURS
    )
    first, second = (run_in(Scheduled(), ON_THIS_MACHINE, of=of) for _ in range(2))

    def begin(run):
        return client.set_flow_run_state(run.id, Pending()).state.name

    assert (begin(first), begin(second)) == ("Pending", "AwaitingConcurrencySlot")
    recovery.sweep()
    assert _state(client, first).name == "AwaitingRetry"
    assert (begin(second), begin(first)) == ("Pending", "AwaitingConcurrencySlot")


# --------------------------------------------------------------------------------- living runs


@pytest.mark.parametrize("state", [Running(), Pending()])
@pytest.mark.parametrize("earlier", [{}, GONE])
def test_a_run_whose_process_lives_is_left_alone(client, run_in, process_of, state, earlier):
    run = run_in(state, ON_THIS_MACHINE | earlier)
    process_of(run)
    assert recovery.sweep() == []
    assert _state(client, run).id == run.state.id


def test_a_run_of_the_command_line_is_known_by_its_mark(client, run_in):
    run = run_in(Running(), {recovery.PROCESS_LABEL: recovery.process_mark()}, of=None)
    assert recovery.sweep() == []
    assert _state(client, run).id == run.state.id


def test_a_living_run_that_was_declared_dead_is_set_right(client, run_in, process_of):
    run = run_in(Crashed(message="No sign of life"), ON_THIS_MACHINE)
    process_of(run)
    recovery.sweep()
    assert _state(client, run).type == "RUNNING"
    assert recovery.RECOVERIES_LABEL not in client.read_flow_run(run.id).labels


def test_a_process_that_just_said_that_it_crashed_is_given_time_to_end(
    client, run_in, process_of, monkeypatch
):
    monkeypatch.setattr(recovery, "SETTLING_SECONDS", 60)
    run = run_in(Crashed(message="Execution was interrupted"), ON_THIS_MACHINE)
    process_of(run)
    recovery.sweep()
    assert _state(client, run).id == run.state.id


def test_a_run_that_a_worker_has_taken_meanwhile_is_left_alone(client, run_in):
    stale = run_in(Crashed(), ON_THIS_MACHINE)
    client.set_flow_run_state(stale.id, AwaitingRetry(), force=True)
    client.set_flow_run_state(stale.id, Pending(), force=True)
    recovery._recover(client, stale)
    assert _state(client, stale).type == "PENDING"


# ---------------------------------------------------------------------------- other machines


@pytest.mark.parametrize("state", [Running(), Pending(), Crashed(), Cancelling()])
def test_another_machines_run_is_left_to_that_machine(client, run_in, state):
    run = run_in(state, ELSEWHERE | GONE)  # it ran here before
    assert recovery.sweep() == []
    assert _state(client, run).id == run.state.id


@pytest.mark.parametrize("state", [Pending(), Crashed()])
def test_another_machine_has_ten_minutes(client, run_in, state, monkeypatch):
    monkeypatch.setattr(recovery, "FOREIGN_MINUTES", -1)
    run = run_in(state, ELSEWHERE)
    recovery.sweep()
    assert _state(client, run).name == "AwaitingRetry"


@pytest.mark.parametrize(
    "state", [Running(), Pending(), Crashed(), Cancelling(), Scheduled(name="Late")]
)
def test_other_peoples_runs_are_left_alone(client, run_in, state):
    flow = client.create_flow_from_name("of others")
    theirs = client.create_deployment(flow, "of others", work_pool_name="cpu")
    run = run_in(state, ON_THIS_MACHINE, of=theirs)
    task_run = client.create_task_run(task(lambda: None, name="sft"), run.id, "0", state=Running())
    assert recovery.sweep() == []
    recovery.explain_waiting()
    assert _state(client, run).id == run.state.id
    client.set_flow_run_state(run.id, Completed(), force=True)
    recovery.sweep()
    assert client.read_task_run(task_run.id).state.type == "RUNNING"


# ------------------------------------------------------------------- not begun, not cancelled


def test_a_run_that_was_lost_before_it_began_is_scheduled_again(client, run_in, monkeypatch):
    labels_come_later: dict[str, str] = {}
    runs = [run_in(Pending(), labels) for labels in (ON_THIS_MACHINE, labels_come_later)]
    monkeypatch.setattr(recovery, "STUCK_SECONDS", 60)
    recovery.sweep()
    assert {_state(client, run).type for run in runs} == {"PENDING"}
    monkeypatch.setattr(recovery, "STUCK_SECONDS", -1)
    recovery.sweep()
    assert {_state(client, run).name for run in runs} == {"AwaitingRetry"}
    assert "worker was killed before it began" in _state(client, runs[0]).message


def test_a_cancelled_run_without_process_is_cancelled(client, run_in):
    run = run_in(Cancelling(), ON_THIS_MACHINE)
    assert [found.id for found in recovery.sweep()] == [run.id]
    assert _state(client, run).name == "Cancelled"


def test_a_run_that_nobody_cancels_is_ended(client, run_in, process_of, monkeypatch):
    monkeypatch.setattr(recovery, "CANCELLING_SECONDS", 60)
    monkeypatch.setattr(recovery, "SETTLING_SECONDS", 5)
    run = run_in(Cancelling(), ON_THIS_MACHINE)
    process = process_of(run)
    recovery.sweep()
    assert _state(client, run).type == "CANCELLING"
    monkeypatch.setattr(recovery, "CANCELLING_SECONDS", -1)
    recovery.sweep()
    assert _state(client, run).name == "Cancelled"
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


# ------------------------------------------------------------------------------- task runs


@pytest.mark.parametrize("left", [Running(), Pending(), AwaitingRetry()])
@pytest.mark.parametrize(
    ("tries", "end", "expected"),
    [
        (1, Completed(), ("Completed", "Its end was lost.")),
        (2, Completed(), ("Crashed", recovery.KILLED)),  # it was the first try's
        (1, Crashed(), ("Crashed", recovery.KILLED)),
    ],
)
def test_open_task_runs_of_an_ended_run_are_ended(client, run_in, left, tries, end, expected):
    run = run_in(Running(), ELSEWHERE)
    task_run = client.create_task_run(task(lambda: None, name="sft"), run.id, "0", state=Pending())
    client.set_task_run_state(task_run.id, Running())
    client.set_task_run_state(task_run.id, left, force=True)
    for _ in range(1, tries):
        client.set_flow_run_state(run.id, AwaitingRetry(), force=True)
        client.set_flow_run_state(run.id, Running(), force=True)
    recovery.sweep()
    assert client.read_task_run(task_run.id).state.name == left.name
    client.set_flow_run_state(run.id, end, force=True)
    recovery.sweep()
    state = client.read_task_run(task_run.id).state
    assert (state.name, state.message) == expected


# ------------------------------------------------------------------------- waiting, server away


def test_a_run_that_waits_for_a_worker_says_so(client, run_in):
    run = run_in(Scheduled(name="Late"), {})
    recovery.explain_waiting()
    message = "No worker serves the work pool cpu; start one: rlhf worker cpu"
    assert (_state(client, run).name, _state(client, run).message) == ("Late", message)
    told = _state(client, run).id
    recovery.explain_waiting()
    assert _state(client, run).id == told
    client.send_worker_heartbeat("cpu", recovery.worker_name("cpu"))
    late = run_in(Scheduled(name="Late"), {})
    recovery.explain_waiting()
    assert not _state(client, late).message


def test_a_server_that_is_away_puts_the_sweep_off() -> None:
    away = f"http://{servers.HOST}:{servers.free_port()}/api"
    with temporary_settings({PREFECT_API_URL: away}):
        with pytest.raises(httpx.ConnectError):
            recovery.sweep()
        assert recovery.sweep_if_possible() == []


def test_only_a_known_run_can_have_ended(run_in: Callable[..., FlowRun]) -> None:
    assert recovery.has_ended(str(run_in(Completed(), {}).id))
    assert not recovery.has_ended(str(run_in(Running(), ON_THIS_MACHINE).id))
    assert not recovery.has_ended("00000000-0000-4000-8000-000000000000")
    assert not recovery.has_ended("no flow run")
