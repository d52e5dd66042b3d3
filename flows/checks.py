"""What ``rlhf doctor`` looks at on the machine itself: software, GPU, disk, limits."""

import datetime
import importlib.metadata
import os
import re
import resource
import shutil
import subprocess
import sys
import tomllib
import zoneinfo
from collections.abc import Iterator
from typing import Any, NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from flows.environment import CHECKOUT, has_gpu_driver
from stages.core.artifacts import data_root

GOOD, BAD, NOTE = "✓", "✗", "–"
TIMED_OUT = 124
IMPORT_TIMEOUT_SECONDS = 90.0
MIN_FREE_BYTES = 500 * 2**20
ROOMY_FREE_BYTES = 5 * 2**30
MIN_OPEN_FILES = 1024
REINSTALL = "install again with the versions of requirements.lock: make -B .venv/.installed"


class Finding(NamedTuple):
    """A line of the report: what was found, and where it is bad, how to mend it."""

    mark: str
    subject: str
    text: str
    cure: str = ""


# ----------------------------------------------------------------------------------- software


def python_version() -> Finding:
    """Whether this Python is one that pyproject.toml allows."""
    version = ".".join(map(str, sys.version_info[:3]))
    wanted = str(_project()["requires-python"])
    if SpecifierSet(wanted).contains(version):
        return Finding(GOOD, "Python", version)
    return Finding(BAD, "Python", f"{version}, needs {wanted}", "make PYTHON=python3.12")


def packages() -> Finding:
    """Whether the installed versions are those that this project and its packages ask for."""
    clashes = sorted(set(_clashes()))
    if not clashes:
        return Finding(GOOD, "Packages", "fit each other")
    return Finding(BAD, "Packages", "; ".join(clashes[:5]), REINSTALL)


def _clashes() -> Iterator[str]:
    waiting = [("this project", text) for text in _project()["dependencies"]]
    seen = set()
    while waiting:
        asker, text = waiting.pop()
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            yield f"{wanted.name} is missing, {asker} needs it"
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            yield f"{wanted.name} {version}, {asker} needs {wanted.specifier}"
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if name not in seen:
            seen.add(name)
            waiting += [(name, item) for item in importlib.metadata.requires(wanted.name) or ()]


def prefect_server() -> Finding:
    """Whether the server can be imported, which a FastAPI that is too new prevents."""
    return _imports("Prefect", "import prefect.server.api.server")


def mlflow() -> Finding:
    """Whether MLflow, and its accounts where a password is set, can be imported."""
    accounts = "; import flask_wtf" if os.environ.get("MLFLOW_TRACKING_PASSWORD") else ""
    return _imports("MLflow", f"import mlflow{accounts}")


def _imports(subject: str, code: str) -> Finding:
    done = run_python("-c", code)
    if done.returncode == 0:
        return Finding(GOOD, subject, "can be imported")
    return Finding(BAD, subject, last_line(done.stderr), REINSTALL)


def lora() -> Finding:
    """Whether a LoRA adapter that is saved comes back as it was."""
    done = run_python("-m", "stages.core.lora_round_trip")
    if done.returncode == 0:
        return Finding(GOOD, "LoRA", "an adapter that is saved comes back as it was")
    text = last_line(done.stdout) if done.stdout.strip() else last_line(done.stderr)
    if done.returncode == TIMED_OUT:
        return Finding(NOTE, "LoRA", f"not tried: {text}")
    return Finding(BAD, "LoRA", f"an adapter that is saved comes back changed: {text}", REINSTALL)


# ------------------------------------------------------------------------------------ machine


def gpu() -> Finding:
    """Whether torch reaches the GPU, where there is one."""
    if not has_gpu_driver():
        return Finding(NOTE, "GPU", "no NVIDIA driver: stages run on the CPU")
    code = (
        "import torch\n"
        "assert torch.cuda.is_available(), f'torch {torch.__version__} does not see it'\n"
        "free, total = torch.cuda.mem_get_info()\n"
        "torch.ones(1, device='cuda').sum().item()\n"
        "print(torch.cuda.get_device_name(), f'{free / 2**30:.1f} of {total / 2**30:.1f} GiB free')"
    )
    done = run_python("-c", code)
    if done.returncode == 0:
        return Finding(GOOD, "GPU", last_line(done.stdout))
    cure = "install the torch build for this driver: https://pytorch.org/get-started/locally"
    return Finding(BAD, "GPU", f"there is a driver, but {last_line(done.stderr)}", cure)


def data_folder() -> Finding:
    """Whether results can be written, and how many."""
    root = data_root()
    cure = "correct its permissions, or set RLHF_DATA_ROOT to another folder"
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".doctor-{os.getpid()}"
        probe.write_text("x", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        return Finding(BAD, "Data root", f"{root}: {error.strerror}", cure)
    free = shutil.disk_usage(root).free
    text = f"{root}: writable, {free / 2**30:.1f} GiB free"
    if free < MIN_FREE_BYTES:
        return Finding(BAD, "Data root", text, "free some, or set RLHF_DATA_ROOT to another disk")
    if free < ROOMY_FREE_BYTES:
        return Finding(NOTE, "Data root", f"{text}, enough for the demo only")
    return Finding(GOOD, "Data root", text)


def open_files() -> Finding:
    """Whether a process may open as many files as data sets and servers need."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= MIN_OPEN_FILES:
        return Finding(GOOD, "Open files", f"up to {limit} a process")
    return Finding(BAD, "Open files", f"only {limit} a process", "ulimit -n 4096")


def time_zone() -> Finding:
    """Whether the machine's time zone is known, by which people read schedules."""
    name = os.environ.get("TZ", "").lstrip(":")
    if name and not name.startswith("/"):
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError):
            return Finding(BAD, "Time zone", f"TZ={name} is unknown", "set TZ=Europe/Berlin or so")
    now = datetime.datetime.now().astimezone()
    return Finding(GOOD, "Time zone", f"{now.tzname()}, now {now:%Y-%m-%d %H:%M %z}")


# ------------------------------------------------------------------------------------ helpers


def _project() -> dict[str, Any]:
    text = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    return dict(tomllib.loads(text)["project"])


def run_python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own: what is imported there, or crashes, does not matter here."""
    try:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=CHECKOUT,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=IMPORT_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        text = f"no answer within {IMPORT_TIMEOUT_SECONDS:.0f} s"
        return subprocess.CompletedProcess(arguments, TIMED_OUT, "", text)


def last_line(output: str) -> str:
    """The last line of a process's output, which says what an exception was."""
    lines = [line for line in output.splitlines() if line.strip() and "sqlalche.me" not in line]
    return lines[-1].strip()[:300] if lines else "no output"
