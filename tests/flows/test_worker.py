"""``rlhf worker`` as a whole: it survives kill -9, and keeps to the limit of its pool."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows import access, servers, worker
from flows.environment import CHECKOUT, LEASE_STORAGE
from flows.recovery import RUN_VARIABLE
from stages.core.config import PipelineConfig

pytestmark = pytest.mark.slow

TIMEOUT_SECONDS = 600.0
NUM_QUEUED = 4
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def restart_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], None]]:
    """A Prefect server with all deployments; kills it and starts it again."""
    root, port = tmp_path_factory.mktemp("worker"), servers.free_port()
    started: list[servers.Server] = []

    def restart() -> None:
        if started:
            started[-1].process.kill()
            started[-1].process.wait()
        started.append(servers.start_prefect(port, standing=True))
        servers.wait_until_healthy(started[-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHF_DATA_ROOT", str(root))
        patch.setenv("PREFECT_HOME", str(root / "prefect"))
        patch.setenv("PREFECT_API_URL", f"http://{servers.HOST}:{port}/api")
        patch.setenv("PREFECT_WORKER_QUERY_SECONDS", "1")
        patch.setenv("PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", LEASE_STORAGE)
        restart()
        deploy = [sys.executable, "-m", "flows", "deploy"]
        subprocess.run(deploy, cwd=CHECKOUT, check=True, capture_output=True, timeout=300)
        yield restart
    for server in started:
        servers.stop(server.process)


@pytest.fixture(scope="module")
def environment(restart_server: Callable[[], None]) -> dict[str, str]:
    """Of the worker."""
    return dict(os.environ)


@pytest.fixture
def call(environment: dict[str, str]) -> Call:
    """Calls the Prefect server."""

    def call(method: str, path: str, body: Any = None) -> Any:
        with access.prefect_client(environment["PREFECT_API_URL"]) as client:
            answer = client.request(method, path, json=body, timeout=60.0)
        return answer.raise_for_status().json() if answer.content else None

    return call


@pytest.fixture
def start_worker(environment: dict[str, str], tmp_path: Path) -> Iterator[Call]:
    """Starts ``rlhf worker cpu``, in its own process group."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> psutil.Process:
        command = [sys.executable, "-m", "flows", "worker", "cpu"]
        with (tmp_path / "worker.log").open("ab") as log:
            started.append(
                subprocess.Popen(
                    command, cwd=CHECKOUT, env=environment, stdout=log, stderr=log,
                    start_new_session=True,
                )
            )  # fmt: skip
        return psutil.Process(started[-1].pid)

    yield start
    for process in started:
        servers.stop(process)


@pytest.fixture
def trigger(call: Call, tiny_config: PipelineConfig) -> Callable[[], str]:
    """Starts a run of prepare-data on a few documents; returns its id."""
    config = tiny_config.model_dump(mode="json")

    def trigger() -> str:
        deployment = call("GET", "/deployments/name/prepare-data/on-cpu")["id"]
        parameters = {"collect": config["collect"], "clean": config["clean"]}
        path = f"/deployments/{deployment}/create_flow_run"
        return str(call("POST", path, {"parameters": parameters})["id"])

    return trigger


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(1.0)
    return found


def stage_process(flow_run_id: str) -> psutil.Process | None:
    """The run's stage at work."""
    for process in psutil.process_iter():
        try:
            ours = process.environ().get(RUN_VARIABLE) == flow_run_id
            if ours and "stages" in process.cmdline():
                return process
        except (psutil.Error, OSError):
            continue
    return None


def test_a_run_outlives_a_kill_of_its_process_and_its_worker(
    call: Call, start_worker: Call, trigger: Callable[[], str]
) -> None:
    worker = start_worker()
    flow_run_id = trigger()
    stage = wait_for(lambda: stage_process(flow_run_id))
    flow = stage.parent()
    (prefects_worker,) = worker.children()
    for process in (worker, prefects_worker, flow):
        process.send_signal(signal.SIGKILL)
    assert stage.wait(20) != 0  # nobody is left to take its result
    start_worker()
    read = f"/flow_runs/{flow_run_id}"
    wait_for(lambda: call("GET", read)["state_type"] in servers.TERMINAL_STATES - {"CRASHED"})
    run = call("GET", read)
    assert run["state_type"] == "COMPLETED"
    assert run["run_count"] == 2
    assert run["labels"]["rlhf.recoveries"] == 1
    of_run = {"flow_runs": {"id": {"any_": [flow_run_id]}}}
    ended = [["clean", "COMPLETED"], ["collect", "COMPLETED"], ["collect", "CRASHED"]]
    wait_for(
        lambda: (
            ended
            == sorted(
                [task["name"], task["state_type"]]
                for task in call("POST", "/task_runs/filter", of_run)
            )
        )
    )


def test_a_killed_prefect_worker_is_started_again_and_its_run_goes_on(
    call: Call, start_worker: Call, trigger: Callable[[], str]
) -> None:
    worker = start_worker()
    flow_run_id = trigger()
    wait_for(lambda: stage_process(flow_run_id))
    (prefects_worker,) = worker.children()
    prefects_worker.kill()
    read = f"/flow_runs/{flow_run_id}"
    wait_for(lambda: call("GET", read)["state_type"] == "COMPLETED")
    assert call("GET", read)["run_count"] == 1
    (another,) = wait_for(worker.children)
    assert another.pid != prefects_worker.pid


def test_queued_runs_of_a_full_pool_run_one_at_a_time(
    call: Call, start_worker: Call, trigger: Callable[[], str]
) -> None:
    call("PATCH", "/work_pools/cpu", {"concurrency_limit": 1})
    ids = [trigger() for _ in range(NUM_QUEUED)]
    start_worker()
    body = {"flow_runs": {"id": {"any_": ids}}, "sort": "START_TIME_ASC"}
    wait_for(
        lambda: all(
            run["state_type"] in servers.TERMINAL_STATES
            for run in call("POST", "/flow_runs/filter", body)
        )
    )
    runs = call("POST", "/flow_runs/filter", body)
    assert [run["state_type"] for run in runs] == ["COMPLETED"] * NUM_QUEUED
    for run, following in itertools.pairwise(runs):
        assert run["end_time"] <= following["start_time"]


def test_a_place_in_a_limited_deployment_outlives_a_killed_server(
    call: Call, restart_server: Callable[[], None]
) -> None:
    call("POST", "/v2/concurrency_limits/", {"name": "place", "limit": 1})
    path = "/v2/concurrency_limits/increment-with-lease"
    place = {"names": ["place"], "slots": 1, "mode": "concurrency", "lease_duration": 300}
    lease = call("POST", path, place)["lease_id"]
    restart_server()
    # A run whose lease cannot be renewed is ended by Prefect.
    renewed = {"lease_duration": 300}
    assert call("POST", f"/v2/concurrency_limits/leases/{lease}/renew", renewed) is None


def test_a_second_worker_of_one_name_waits_for_the_end_of_the_first(
    data_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served = threading.Event()

    def serve() -> None:
        with worker._only_one("cpu"):
            served.set()

    second = threading.Thread(target=serve)
    with worker._only_one("cpu"), worker._only_one("gpu"):
        second.start()
        assert not served.wait(0.5)
    assert served.wait(10)
    second.join()
    assert "another worker of this name is at work" in caplog.text
