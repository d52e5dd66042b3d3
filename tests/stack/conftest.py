"""The stack of docker-compose.yml on real servers, without Docker.

Commands, environments, health checks and dependencies are those of the file. What a container would
give is mapped: a host name to the loopback address, a port to a free one, a folder of a volume or
of the image to a temporary one. PostgreSQL and Redis are those of this machine, set up as their
images do it.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
import yaml

from flows.servers import free_port

CHECKOUT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 600  # a busy machine takes minutes
PORTS = {"postgres": "5432", "redis": "6379", "prefect-server": "4200", "mlflow": "5000"}
FOLDERS = ("/data", "/artifacts", "/tmp", "/etc/mlflow")
# With paths of a proxy, and characters that a URL would have to escape.
VARIABLES = {
    "POSTGRES_PASSWORD": "post/gres@1'%",
    "PREFECT_DATABASE_PASSWORD": "pre/fect@2'%",
    "MLFLOW_DATABASE_PASSWORD": "ml/flow@3'%",
    "PREFECT_PASSWORD": "prefect:password 4",
    "MLFLOW_PASSWORD": "mlflow:password 5",
    "MLFLOW_SECRET_KEY": "secret key 6",
    "PREFECT_PATH": "/prefect",
    "MLFLOW_PATH": "/mlflow",
    "PUBLIC_HOST": "rlhf.example",
}


@dataclass(frozen=True)
class Stack:
    """The services of the file that run on this machine, and where."""

    services: dict[str, Any]
    root: Path
    ports: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def client(self, service: str, path: str = "") -> httpx.Client:
        """A client for what lies below ``path``, with the right password."""
        address = f"http://127.0.0.1:{self.ports[service]}{path}"
        right = {"prefect-server": "PREFECT_PASSWORD", "mlflow": "MLFLOW_PASSWORD"}[service]
        auth = ("admin", VARIABLES[right])
        return httpx.Client(base_url=address, auth=auth, trust_env=False, timeout=60)

    def logs(self) -> str:
        texts = {path.stem: path.read_text("utf-8", "replace") for path in self.root.glob("*.log")}
        return "".join(f"\n--- {name}\n{text[-3000:]}" for name, text in sorted(texts.items()))


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The running stack; all of it ends with the tests."""
    if not shutil.which("redis-server") or not postgres_programs().is_dir():
        missing("PostgreSQL or Redis is not installed (apt-get install postgresql redis-server)")
    # Not below pytest's folder, into which PostgreSQL's user may not look.
    root = Path(tempfile.mkdtemp(prefix="rlhf-stack-"))
    root.chmod(0o711)
    file = read_compose_file()
    (root / "etc/mlflow").mkdir(parents=True)
    ports = {host: str(free_port()) for host in PORTS}
    stack = Stack(file["services"], root, ports)
    try:
        write_configs(stack, file)
        start_all(stack, without={"worker-gpu"})
        yield stack
    finally:
        stop_all(stack)
        shutil.rmtree(root)


@pytest.fixture
def prefect(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client("prefect-server", "/prefect/api") as client:
        token = client.get("/csrf-token", params={"client": "test"}).raise_for_status().json()
        client.headers.update({"Prefect-Csrf-Client": "test", "Prefect-Csrf-Token": token["token"]})
        yield client


@pytest.fixture
def mlflow(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client("mlflow", "/mlflow") as client:
        yield client


# ---------------------------------------------------------------------------- a file, read


def read_compose_file() -> dict[str, Any]:
    """The file with ``VARIABLES`` in their places, as Compose reads it."""

    def value(match: re.Match[str]) -> str:
        name, operator, alternative = match["name"], match["operator"], match["alternative"]
        if match["dollar"]:
            return "$"
        assert name in VARIABLES or operator == ":-", f"{name} has neither a value nor a default"
        return VARIABLES.get(name, alternative)

    variable = r"\$\{(?P<name>\w+)(?P<operator>:[-?])(?P<alternative>[^}]*)\}"
    pattern = re.compile(rf"(?P<dollar>\$\$)|{variable}")

    def interpolated(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: interpolated(item) for key, item in node.items()}
        if isinstance(node, list):
            return [interpolated(item) for item in node]
        return pattern.sub(value, node) if isinstance(node, str) else node

    return interpolated(yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text("utf-8")))


def mapped(stack: Stack, text: str) -> str:
    """What ``text`` of the file means on this machine."""
    for host, port in PORTS.items():
        text = text.replace(f"{host}:{port}", f"127.0.0.1:{port}")
        text = re.sub(rf"(?<!\w){port}(?!\w)", stack.ports[host], text)
    if text == "0.0.0.0":
        return "127.0.0.1"
    in_folder = any(text == folder or text.startswith(f"{folder}/") for folder in FOLDERS)
    return f"{stack.root}{text}" if in_folder else text


def environment(stack: Stack, service: str) -> dict[str, str]:
    """The service's variables; of this process's no more than the search path."""
    folders = [Path(sys.executable).parent, postgres_programs(), os.environ["PATH"]]
    given = stack.services[service].get("environment", {})
    values = {name: mapped(stack, value) for name, value in given.items() if value is not None}
    values |= {name: "127.0.0.1" for name, value in values.items() if value in PORTS}
    return {"PATH": os.pathsep.join(map(str, folders)), **values}


def write_configs(stack: Stack, file: dict[str, Any]) -> None:
    """The init script of the databases, and what the image holds for MLflow."""
    (stack.root / "databases.sql").write_text(file["configs"]["databases"]["content"], "utf-8")
    dockerfile = stack.services["prefect-server"]["build"]["dockerfile_inline"]
    (ini,) = re.findall(r"COPY <<INI /etc/mlflow/auth.ini\n(.*?)^INI$", dockerfile, re.S | re.M)
    ini = ini.replace("postgres:5432", f"127.0.0.1:{stack.ports['postgres']}")
    (stack.root / "etc/mlflow/auth.ini").write_text(ini, "utf-8")


# ---------------------------------------------------------------------------- services, started


def start_all(stack: Stack, without: set[str]) -> None:
    """Start each service once those that it needs are healthy or, one-shot, have succeeded."""
    starts = {"postgres": start_postgres, "redis": start_redis}
    waiting, well = set(stack.services) - without, set()
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while waiting or set(stack.processes) - well:
        assert time.monotonic() < deadline, f"only {well} are well{stack.logs()}"
        for service in sorted(waiting):
            if well >= set(stack.services[service].get("depends_on", ())):
                starts.get(service, start)(stack, service)
                waiting.remove(service)
        well |= {service for service in set(stack.processes) - well if is_well(stack, service)}
        time.sleep(0.2)


def start(stack: Stack, service: str, *options: str, **process_options: Any) -> None:
    """Run the service's command in a process group of its own."""
    for folder in FOLDERS:
        (stack.root / folder[1:] / ".tmp").mkdir(parents=True, exist_ok=True)
    command = [mapped(stack, word) for word in stack.services[service]["command"]]
    with (stack.root / f"{service}.log").open("wb") as log:
        stack.processes[service] = subprocess.Popen(
            [*command, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=stack.root / "tmp",
            env=environment(stack, service),
            start_new_session=True,
            **process_options,
        )


def start_redis(stack: Stack, service: str) -> None:
    """The image's working folder is that of the volume."""
    start(stack, service, "--port", stack.ports[service], "--bind", "127.0.0.1")


def start_postgres(stack: Stack, service: str) -> None:
    """What the image's entry point does: make a cluster, run the init script, serve."""
    folder = stack.root / "postgres"
    folder.mkdir()
    password = stack.root / "postgres.password"
    password.write_text(VARIABLES["POSTGRES_PASSWORD"], "utf-8")
    options: dict[str, Any] = {}
    if os.geteuid() == 0:  # which PostgreSQL refuses
        for path in (folder, password):
            shutil.chown(path, "postgres", "postgres")
        options = {"user": "postgres", "group": "postgres", "extra_groups": []}
    cluster = ["--username=postgres", f"--pwfile={password}", "--auth=scram-sha-256"]
    cluster += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
    variables = environment(stack, service)
    make = ["initdb", f"--pgdata={folder}", *cluster]
    subprocess.run(make, env=variables, check=True, capture_output=True, cwd="/", **options)
    stack.services[service]["command"] = ["postgres"]  # as in the image
    place = ["-D", str(folder), "-h", "127.0.0.1", "-p", stack.ports[service], "-k", "", "-F"]
    start(stack, service, *place, **options)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not is_well(stack, service):
        assert time.monotonic() < deadline, stack.logs()
        time.sleep(0.2)
    script = ["psql", "--file", str(stack.root / "databases.sql"), "--set=ON_ERROR_STOP=1"]
    address = ["--host=127.0.0.1", f"--port={stack.ports[service]}", "--username=postgres"]
    variables["PGPASSWORD"] = VARIABLES["POSTGRES_PASSWORD"]
    subprocess.run([*script, *address], env=variables, check=True, capture_output=True)


def is_well(stack: Stack, service: str) -> bool:
    """Whether the service's health check succeeds; where it has none, whether its work is done."""
    process = stack.processes[service]
    if "healthcheck" not in stack.services[service]:
        assert process.poll() in (None, 0), f"{service} failed{stack.logs()}"
        return process.poll() == 0
    assert process.poll() is None, f"{service} ended{stack.logs()}"
    command = [mapped(stack, word) for word in stack.services[service]["healthcheck"]["test"][1:]]
    try:
        check = {"env": environment(stack, service), "capture_output": True, "timeout": 30}
        return subprocess.run(command, **check, cwd="/").returncode == 0
    except subprocess.TimeoutExpired:
        return False


def stop_all(stack: Stack) -> None:
    """End the services, those first that others do not need."""
    for process in reversed(stack.processes.values()):
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# ------------------------------------------------------------------------------------ helpers


def missing(reason: str) -> NoReturn:
    if os.environ.get("RLHF_REQUIRE_SYSTEM_PACKAGES"):
        pytest.fail(reason)
    pytest.skip(reason)


def postgres_programs() -> Path:
    """Debian keeps them out of the search path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    initdb = shutil.which("initdb")
    return found[-1] if found else Path(initdb).parent if initdb else Path("/nonexistent")
