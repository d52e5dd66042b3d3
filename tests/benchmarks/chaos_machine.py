"""The machine that ``chaos.py`` torments: servers, a worker, and the manager that restarts them.

The manager does what systemd, Docker and ``rlhf up`` do: a service that ended is started again a
second later, once the rest of its process group is gone.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from flows import servers
from flows.environment import mlflow_folder
from stages.core.artifacts import data_root

START_SECONDS = 180.0
RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"

Start = Callable[[], subprocess.Popen[bytes]]


@dataclass
class Service:
    """A program that has to run, and when it ended."""

    start: Start
    process: subprocess.Popen[bytes]
    ended: float | None = None


@dataclass
class Machine:
    """One machine under ``root``. The Prefect server lives on from episode to episode; the data
    root, MLflow's database and the worker are each episode's own."""

    root: Path
    seconds_away: float
    prefect_port: int = field(default_factory=servers.free_port)
    mlflow_port: int = field(default_factory=servers.free_port)
    services: dict[str, Service] = field(default_factory=dict)

    @property
    def api(self) -> str:
        return f"http://{servers.HOST}:{self.prefect_port}/api"

    def begin(self) -> None:
        """Start the Prefect server and bring the deployments to it."""
        os.environ["PREFECT_HOME"] = str(self.root / "prefect")
        os.environ["PREFECT_API_URL"] = self.api
        os.environ["RLHF_DATA_ROOT"] = str(self.root / "begin")
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        self._add("prefect", self._start_prefect)
        self._add("mlflow", self._start_mlflow)
        self._wait_for("prefect", "/api/health")
        self._wait_for("mlflow", "/health")
        self.remove("mlflow")
        with (self.root / "deploy.log").open("wb") as log:
            deploy = [sys.executable, "-m", "flows", "deploy"]
            subprocess.run(deploy, check=True, stdout=log, stderr=log)

    def new_episode(self, name: str) -> None:
        """A data root in which nothing was ever made, and services that know of no other."""
        os.environ["RLHF_DATA_ROOT"] = str(self.root / name)
        os.environ["MLFLOW_TRACKING_URI"] = f"http://{servers.HOST}:{self.mlflow_port}"
        mlflow_folder().mkdir(parents=True)
        # Empty tables; making them takes long.
        shutil.copy(self.root / "begin" / "mlflow" / "mlflow.db", mlflow_folder())
        self._add("mlflow", self._start_mlflow)
        self._wait_for("mlflow", "/health")
        self._add("worker", self._start_worker)

    def end_episode(self) -> None:
        """Stop what is the episode's own."""
        self.remove("worker")
        self.remove("mlflow")

    def end(self) -> None:
        """Stop everything, and kill what is left over."""
        for name in list(self.services):
            self.remove(name)
        for process in self.left_over():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def manage(self) -> None:
        """Start again what has been away for long enough; to be called again and again."""
        for service in self.services.values():
            if service.process.poll() is None:
                continue
            if service.ended is None:
                service.ended = time.monotonic()
                with suppress(ProcessLookupError):
                    os.killpg(service.process.pid, signal.SIGKILL)
            elif time.monotonic() - service.ended > self.seconds_away:
                service.process, service.ended = service.start(), None

    def remove(self, name: str) -> None:
        if name in self.services:
            servers.stop(self.services.pop(name).process)

    def main_process(self, name: str) -> list[psutil.Process]:
        """The process of a service, and none while it is away."""
        process = self.services[name].process
        return [psutil.Process(process.pid)] if process.poll() is None else []

    def of_run(self, flow_run_id: str) -> tuple[list[psutil.Process], list[psutil.Process]]:
        """The processes of a flow run: that of the flow, and those of its stage."""
        flow, stage = [], []
        for process, environment, command in _processes():
            if environment.get(RUN_VARIABLE) == flow_run_id:
                (stage if "stages" in command else flow).append(process)
        return flow, stage

    def left_over(self) -> list[psutil.Process]:
        """Processes that work below this machine's root and are no service."""
        services = {service.process.pid for service in self.services.values()}
        groups = {os.getpgid(pid) for pid in services if psutil.pid_exists(pid)}
        return [
            process
            for process, environment, _ in _processes()
            if environment.get("RLHF_DATA_ROOT", "").startswith(str(self.root))
            and process.pid != os.getpid()
            and os.getpgid(process.pid) not in groups
        ]

    def _add(self, name: str, start: Start) -> None:
        self.services[name] = Service(start, start())

    def _wait_for(self, name: str, health_path: str) -> None:
        port = self.prefect_port if name == "prefect" else self.mlflow_port
        deadline = time.monotonic() + START_SECONDS
        while not servers.is_healthy(f"http://{servers.HOST}:{port}{health_path}"):
            if time.monotonic() > deadline:
                raise SystemExit(f"{name} does not answer; logs are below {self.root}")
            time.sleep(0.2)

    def _start_prefect(self) -> subprocess.Popen[bytes]:
        return servers.start_prefect(self.prefect_port, standing=True).process

    def _start_mlflow(self) -> subprocess.Popen[bytes]:
        return servers.start_mlflow(self.mlflow_port).process

    def _start_worker(self) -> subprocess.Popen[bytes]:
        return servers.spawn(["-m", "flows", "worker", "cpu"], data_root() / "worker.log", {})


def _processes() -> Iterator[tuple[psutil.Process, dict[str, str], list[str]]]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process, process.environ(), process.cmdline()
