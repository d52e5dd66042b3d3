import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from rich.console import Console

from flows import access, servers, up
from flows.environment import CHECKOUT, prefect_folder
from stages.core.errors import UserError

# The deployments and the workers have tests of their own.
PROGRAM = (
    "import sys\n"
    "from flows import cli, up\n"
    "up.DEPLOY = ('-c', 'pass')\n"
    "up.WORKER = ('-c', 'import time; time.sleep(600)')\n"
    "sys.exit(cli.main(['up', *sys.argv[1:]]))"
)
PASSWORDS = {
    "PREFECT_SERVER_API_AUTH_STRING": "me:first secret",
    "MLFLOW_TRACKING_USERNAME": "me",
    "MLFLOW_TRACKING_PASSWORD": "second secret",
}
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(data_root: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts ``rlhf up`` on free ports; what still runs is ended after the test."""
    processes = []

    def begin(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
        kept.pop("MLFLOW_TRACKING_URI", None)
        ports = [f"--prefect-port={servers.free_port()}", f"--mlflow-port={servers.free_port()}"]
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *ports, *arguments],
            cwd=CHECKOUT,
            env={**kept, "HOME": str(tmp_path), "PYTHONUNBUFFERED": "1", **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


def _until(process: subprocess.Popen[str], text: str) -> str:
    """The lines up to the one that holds ``text``."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    pytest.fail("".join(lines))


def _answers(url: str) -> bool:
    deadline = time.monotonic() + 60
    while not servers.is_healthy(url) and time.monotonic() < deadline:
        time.sleep(0.2)
    return servers.is_healthy(url)


@pytest.mark.slow
def test_what_is_killed_comes_back_on_its_port_and_a_killed_up_leaves_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start()
    _until(process, "Ctrl-C ends everything")
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    record = prefect_folder() / servers.STANDING_FILE
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    standing = servers.standing_servers()
    assert standing is not None
    assert standing.tracking_uri == ""
    for child in psutil.Process(process.pid).children():
        child.kill()
        assert "was ended by SIGKILL; started again in 1 s; log: " in _until(process, "again")
    assert _answers(f"{standing.prefect_url}/api/health")
    assert _answers(f"{standing.mlflow_url}/health")
    # No page that the user visits elsewhere may start a run.
    body = {"limit": 1}
    refused = httpx.post(f"{standing.prefect_url}/api/flows/filter", json=body)
    assert (refused.status_code, refused.json()["detail"]) == (403, "Missing CSRF token.")
    with access.prefect_client(f"{standing.prefect_url}/api") as client:
        assert client.post("/flows/filter", json=body).is_success
    foreign = httpx.get(f"{standing.prefect_url}/api/health", headers={"Host": "evil.example"})
    assert foreign.status_code == 403
    again = start()
    assert "Running already" in _until(again, "MLflow ")
    assert again.wait(20) == 0
    if sys.platform == "linux":  # whose processes can be told to die with their parent
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 4
        process.kill()
        _, alive = psutil.wait_procs(children, timeout=15)
        assert alive == []


@pytest.mark.slow
def test_with_passwords_only_those_who_know_them_are_let_in(
    start: Start, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start("--host=0.0.0.0", **PASSWORDS)
    said = _until(process, "Ctrl-C ends everything")
    assert f"http://{socket.gethostname()}:" in said
    record = json.loads((data_root / "prefect" / servers.STANDING_FILE).read_text())
    api_url = f"{record['prefect_url']}/api"
    mlflow_url = f"http://127.0.0.1:{record['mlflow_url'].rpartition(':')[2]}"
    commands = [
        " ".join(child.cmdline()) for child in psutil.Process(process.pid).children(recursive=True)
    ]
    for name in PASSWORDS:
        monkeypatch.delenv(name, raising=False)
    for check, url in ((access.check_prefect, api_url), (access.check_mlflow, mlflow_url)):
        with pytest.raises(UserError, match="asks for a password"):
            check(url)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "me:first secret")
    access.check_prefect(api_url)
    for name, value in PASSWORDS.items():
        monkeypatch.setenv(name, value)
    access.check_mlflow(mlflow_url)
    # A run beside it that does not know the password says so before it does anything.
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "me:wrong")
    for name in ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_HOME"):
        monkeypatch.delenv(name)
    run = [sys.executable, "-m", "flows", "run", "--profile", "cpu-demo"]
    refused = subprocess.run(run, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2, refused.stderr
    assert "refuses the password in PREFECT_API_AUTH_STRING" in refused.stderr
    assert refused.stderr.count("\n") == 1
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    _, alive = psutil.wait_procs(children, timeout=1)
    assert alive == []
    assert not (data_root / "prefect" / servers.STANDING_FILE).exists()
    # Nowhere but in the environment, and as salted hashes of MLflow's accounts.
    texts = [path.read_bytes() for path in data_root.rglob("*") if path.is_file()]
    for secret in (b"first secret", b"second secret"):
        assert not [text for text in texts if secret in text]
        assert secret.decode() not in " ".join(commands)


def test_other_machines_are_not_served_without_passwords(start: Start) -> None:
    process = start("--host=0.0.0.0")
    assert process.wait(30) == 2
    assert process.stdout is not None
    text = process.stdout.read()
    assert text.count("\n") == 1
    assert "set PREFECT_SERVER_API_AUTH_STRING=user:password and MLFLOW_TRACKING_USERNAME" in text


def test_a_port_in_use_is_named(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(soft_wrap=True)
    with socket.socket() as listener:
        listener.bind((servers.HOST, 0))
        listener.listen()
        used = listener.getsockname()[1]
        with pytest.raises(UserError, match=rf"--prefect-port {used}: in use by .*another"):
            up._port(console, servers.HOST, used, "Prefect", 4200)
        other = up._port(console, servers.HOST, 0, "MLflow", used)
        assert other != used
        line = capsys.readouterr().out
        assert line.startswith(f"Port {used} is in use by ")
        assert f"so MLflow listens on {other}; --mlflow-port chooses another." in line
    assert up._port(console, servers.HOST, used, "Prefect", 4200) == used
    assert capsys.readouterr().out == ""


def test_only_one_starts_at_a_time(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(data_root))
    with up._alone(), pytest.raises(UserError, match="another rlhf up is starting"), up._alone():
        pass


def test_deployments_that_are_refused_say_why(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(data_root))
    monkeypatch.setattr(up, "DEPLOY", ("-c", "raise SystemExit('no such pool')"))
    with pytest.raises(UserError, match=r"no such pool; see .*deploy\.log"):
        up._deploy({})
    monkeypatch.setattr(up, "DEPLOY", ("-c", "import time; time.sleep(60)"))
    monkeypatch.setattr(up, "DEPLOY_TIMEOUT_SECONDS", 0.1)
    with pytest.raises(UserError, match="not registered within"):
        up._deploy({})
