import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from flows import servers
from flows.environment import CHECKOUT
from stages.core.errors import UserError


def _ends(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_a_prefect_server_starts_and_stops(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    server = servers.start_prefect()
    with servers.stopped_at_exit(server):
        servers.wait_until_healthy(server)
        # The UI must call this server, whatever its port.
        assert httpx.get(f"{server.url}/ui-settings").json()["api_url"] == "/api"
        answer = httpx.get(f"{server.url}/api/health", headers={"Origin": "http://evil.example"})
        assert "access-control-allow-origin" not in answer.headers
        assert (data_root / "prefect" / "prefect.db").exists()
    assert not servers.is_healthy(f"{server.url}/api/health")
    assert server.process.returncode is not None


def test_a_server_that_ends_at_its_start_names_its_log(data_root: Path) -> None:
    log = data_root / "server.log"
    process = servers.spawn(["-c", "print('no'); raise SystemExit(3)"], log, {})
    server = servers.Server("Prefect", "http://127.0.0.1:1", "/", log, process)
    with pytest.raises(UserError, match=r"ended at its start: no; see .*server\.log"):
        servers.wait_until_healthy(server)
    assert log.read_text(encoding="utf-8") == "no\n"


def test_a_server_that_never_answers_times_out(data_root: Path) -> None:
    process = servers.spawn(["-c", "import time; time.sleep(60)"], data_root / "server.log", {})
    server = servers.Server("MLflow", "http://127.0.0.1:1", "/", data_root / "server.log", process)
    with servers.stopped_at_exit(server), pytest.raises(UserError, match="did not answer"):
        servers.wait_until_healthy(server, timeout_seconds=0.2)
    assert process.returncode == -signal.SIGTERM


def test_the_answer_of_another_server_on_the_port_does_not_count(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "is_healthy", lambda url: True)
    port = servers.free_port()
    sleep = "import time; time.sleep(60)"
    listen = f"import socket; s = socket.create_server(('127.0.0.1', {port})); {sleep}"
    for program, is_ours in ((sleep, False), (listen, True)):
        log = data_root / "server.log"
        process = servers.spawn(["-c", program], log, {})
        server = servers.Server("MLflow", f"http://127.0.0.1:{port}", "/", log, process)
        with servers.stopped_at_exit(server):
            if is_ours:
                servers.wait_until_healthy(server)
            else:
                with pytest.raises(UserError, match="did not answer"):
                    servers.wait_until_healthy(server, timeout_seconds=0.5)


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_a_server_dies_with_its_parent(data_root: Path) -> None:
    program = (
        "import time; from pathlib import Path; from flows import servers\n"
        "sleep = ['-c', 'import time; time.sleep(60)']\n"
        f"child = servers.spawn(sleep, Path({str(data_root / 'x.log')!r}), {{}})\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert _ends(child)


def test_stop_ends_the_whole_group(data_root: Path) -> None:
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    log = data_root / "x.log"
    process = servers.spawn(["-c", program], log, {})
    deadline = time.monotonic() + 10
    while not log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    servers.stop(process)
    assert _ends(int(log.read_text()))


def test_a_wanted_port_is_taken_when_free() -> None:
    port = servers.free_port()
    assert servers.free_port(port) == port


def test_another_port_is_taken_when_the_wanted_one_is_occupied() -> None:
    import socket

    with socket.socket() as listener:
        listener.bind((servers.HOST, 0))
        listener.listen()
        occupied = listener.getsockname()[1]
        assert servers.free_port(occupied) not in (0, occupied)


def test_standing_servers_are_found_while_alive(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(data_root))
    monkeypatch.setattr(servers, "is_healthy", lambda url: url == "http://p/api/health")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert servers.standing_servers() is None
    with servers.recorded("http://p", "http://m") as standing:
        assert servers.standing_servers() == standing
        assert servers.mlflow_address() == "http://m"
    assert servers.standing_servers() is None
    assert servers.mlflow_address() == "http://127.0.0.1:5000"


def test_the_record_of_a_killed_process_counts_for_nothing(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(data_root))
    monkeypatch.setattr(servers, "is_healthy", lambda url: True)
    record = '{"pid": %d, "started": 1.0, "prefect_url": "http://p", "mlflow_url": "http://m"}'
    (data_root / servers.STANDING_FILE).write_text(record % os.getpid(), encoding="utf-8")
    assert servers.standing_servers() is None


def test_the_users_mlflow_server_is_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example:5000/")
    assert servers.mlflow_address() == "http://tracking.example:5000"
