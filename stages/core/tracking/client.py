"""The connection to MLflow, which waits while the server is away, and what all runs carry."""

import contextlib
import functools
import importlib
import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
# A pickled model may run anything when it is loaded.
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
# Its own patience is silent for minutes; ours says what it waits for.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

import psutil
import requests

from stages.core.artifacts import data_root
from stages.core.errors import UserError, without_passwords
from stages.core.machine import machine
from stages.core.tracking.artifact_store import LOCATION, choose_way

if TYPE_CHECKING:
    import mlflow as mlflow  # for the modules beside this one, too
else:

    class _LoadedAtFirstUse:
        """Stands for mlflow: 2 seconds and 140 MB that a stage without tracking does not need. Not
        a lazy module in ``sys.modules``: whoever looks through those (pydantic does) loads it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(importlib.import_module("mlflow"), name)

    mlflow = _LoadedAtFirstUse()

MAX_PARAM_CHARACTERS = 6000
PATIENCE_SECONDS = 30 * 60.0
"""How long a call waits for a server that cannot be reached."""
SECONDS_BETWEEN_TRIES = 5.0
SECONDS_BETWEEN_WARNINGS = 60.0
PASSING_SIGNS = ("failed with exception", "timeout exception", "database is locked", "error 5")
PASSING_CODES = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")

Result = TypeVar("Result")
_is_patient: ContextVar[bool] = ContextVar("is_patient", default=True)
log = logging.getLogger(__name__)


def set_up() -> str:
    """Point mlflow at ``$MLFLOW_TRACKING_URI``, by default SQLite below the data root; return the
    URI."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        folder = data_root() / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{folder / 'mlflow.db'}"
    uri = os.environ["MLFLOW_TRACKING_URI"] = _without_login(uri)
    mlflow.set_tracking_uri(uri)
    choose_way(uri)
    return uri


def address() -> str:
    """The tracking URI, fit to be shown."""
    return without_passwords(os.environ.get("MLFLOW_TRACKING_URI", ""))


def patiently(call: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
    """The result of ``call``, tried again while the server is away or its database is locked.

    Raises:
        Exception: what the call raised, where waiting does not help or for longer than
            ``PATIENCE_SECONDS``.
    """
    began = time.monotonic()
    next_warning = began
    while True:
        try:
            return call(*arguments, **named)
        except Exception as error:
            now = time.monotonic()
            is_over = now - began > PATIENCE_SECONDS or not _is_patient.get()
            if is_over or not _may_pass(error):
                raise
            if now >= next_warning:
                # The prefix lets the terminal show it, too (stages.core.launch).
                log.warning("warning: MLflow does not answer, waiting for it: %s", _cause(error))
                next_warning = now + SECONDS_BETWEEN_WARNINGS
        time.sleep(SECONDS_BETWEEN_TRIES)


@contextlib.contextmanager
def impatiently() -> Iterator[None]:
    """Within the block no call waits for a server that is away: somebody sits at the terminal.

    Raises:
        UserError: MLflow cannot be read.
    """
    token = _is_patient.set(False)
    try:
        yield
    except (mlflow.exceptions.MlflowException, requests.exceptions.RequestException) as error:
        reason = " ".join(without_passwords(str(error)).split())[:300]
        raise UserError(f"MLflow ({address()}) does not do what is asked: {reason}") from None
    finally:
        _is_patient.reset(token)


class PatientClient:
    """An ``MlflowClient`` each of whose calls goes through ``patiently``."""

    def __init__(self) -> None:
        set_up()
        self._client = mlflow.MlflowClient()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return functools.partial(patiently, getattr(self._client, name))


def experiment_id(client: PatientClient, name: str) -> str:
    """The experiment called ``name``, made or restored where it has to be."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        if experiment.lifecycle_stage == "deleted":  # in the UI; its name stays taken
            client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)
    is_served = os.environ["MLFLOW_TRACKING_URI"].startswith("http")
    location = None if is_served else LOCATION
    return str(client.create_experiment(name, artifact_location=location))


def all_experiments(client: PatientClient) -> list[str]:
    """The ids of all experiments that are not deleted."""
    return [experiment.experiment_id for experiment in client.search_experiments()]


def log_params(client: PatientClient, run_id: str, params: Mapping[str, Any]) -> None:
    """Record nested ``params`` by dotted keys."""
    entries = [
        mlflow.entities.Param(key, str(value)[:MAX_PARAM_CHARACTERS])
        for key, value in _flatten(params).items()
    ]
    for start in range(0, len(entries), 100):  # the server takes 100 a request
        client.log_batch(run_id, params=entries[start : start + 100])


def process_tags() -> dict[str, str]:
    """Machine, number and start time of this process, by which its death is found out later."""
    process = psutil.Process()
    return {
        "host": machine(),
        "process": f"{process.pid}@{process.create_time():.2f}",
    }


def process_is_gone(tags: Mapping[str, str]) -> bool:
    """Whether a run's process ran on this machine and is no more; a number may have been reused,
    so the start time counts too."""
    if tags.get("host") != process_tags()["host"] or "@" not in tags.get("process", ""):
        return False
    pid, started = tags["process"].split("@")
    try:
        return bool(abs(psutil.Process(int(pid)).create_time() - float(started)) > 1.0)
    except psutil.NoSuchProcess:
        return True


@cache
def git_commit() -> str:
    """The checkout's commit, with ``-dirty`` when files differ; empty outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(
            [*command, "--abbrev=40", "--exclude=*"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


# ------------------------------------------------------------------------------------ helpers


def _without_login(uri: str) -> str:
    """Hand user and password over in the variables that mlflow has for them: the address itself is
    in its messages, and so in logs, on pages and in databases."""
    parts = urlsplit(uri)
    if not parts.scheme.startswith("http") or not parts.username or not parts.password:
        return uri
    os.environ.setdefault("MLFLOW_TRACKING_USERNAME", unquote(parts.username))
    os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", unquote(parts.password))
    return without_passwords(uri)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, requests.exceptions.ConnectionError | requests.exceptions.Timeout):
        return True
    if isinstance(error, requests.exceptions.HTTPError) and error.response is not None:
        return error.response.status_code >= 500
    if not isinstance(error, mlflow.exceptions.MlflowException):
        return False
    if error.error_code in PASSING_CODES:
        return True
    return any(sign in str(error) for sign in PASSING_SIGNS)


def _cause(error: Exception) -> str:
    text = " ".join(without_passwords(str(error)).split())
    return f"{address()}: {text[:200]}"


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict) and item:
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat
