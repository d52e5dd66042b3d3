"""Patience with an MLflow that is away for a while, and none with what waiting does not mend."""

import contextlib
import logging
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from stages.core.errors import UserError
from stages.core.tracking import client as tracking_client
from stages.core.tracking.client import PatientClient, mlflow, patiently

WARNING = "warning: MLflow does not answer, waiting for it"


def test_a_process_that_tracks_nothing_does_not_load_mlflow():
    code = "import sys, stages.__main__, stages.ppo; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def raiser(*errors):
    """A call that raises these errors, one a time, and then returns how often it was called."""
    calls = []

    def call():
        calls.append(1)
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return len(calls)

    return call


def http_error(code):
    response = requests.Response()
    response.status_code = code
    return requests.exceptions.HTTPError(f"{code} for url", response=response)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(tracking_client, "SECONDS_BETWEEN_TRIES", 0.0)


@pytest.mark.parametrize(
    "error",
    [
        requests.exceptions.ConnectionError("refused"),
        requests.exceptions.ReadTimeout("slow"),
        http_error(503),
        mlflow.exceptions.MlflowException("API request to x failed with exception refused"),
        mlflow.exceptions.MlflowException("(sqlite3.OperationalError) database is locked"),
    ],
)
def test_what_may_pass_is_tried_again(error, quick, caplog):
    assert patiently(raiser(error, error)) == 3
    assert [record.message.partition(": http")[0][: len(WARNING)] for record in caplog.records] == [
        WARNING  # once a minute, not at each try
    ]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a defect"),
        http_error(403),
        mlflow.exceptions.MlflowException("Run with id=x not found", error_code=1001),
    ],
)
def test_what_waiting_does_not_mend_is_raised_at_once(error, quick):
    with pytest.raises(type(error)):
        patiently(raiser(error))


def test_patience_ends(quick, monkeypatch):
    monkeypatch.setattr(tracking_client, "PATIENCE_SECONDS", -1.0)
    with pytest.raises(requests.exceptions.ConnectionError):
        patiently(raiser(requests.exceptions.ConnectionError("refused")))


def test_an_impatient_block_gives_up_at_once_in_one_line(quick, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@tracking.example")
    away = raiser(requests.exceptions.ConnectionError("refused\n"))
    with pytest.raises(UserError) as raised, tracking_client.impatiently():
        patiently(away)
    assert "secret" not in str(raised.value)
    assert str(raised.value).endswith("tracking.example) does not do what is asked: refused")
    assert patiently(away) == 2


def test_the_password_of_the_address_is_not_in_the_warning(quick, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@tracking.example")
    patiently(raiser(requests.exceptions.ConnectionError("refused")))
    assert "tracking.example" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.slow
def test_a_call_outlives_a_killed_server(mlflow_server, caplog):
    client = PatientClient()
    experiment = client.create_experiment("outlives")
    mlflow_server.kill()
    with ThreadPoolExecutor() as pool, caplog.at_level(logging.WARNING):
        call = pool.submit(client.create_run, experiment)
        time.sleep(2.0)
        assert not call.done()
        mlflow_server.start()
        assert call.result(timeout=60).info.status == "RUNNING"
    assert sum(WARNING in record.message for record in caplog.records) == 1


@pytest.mark.slow
def test_a_call_waits_for_a_locked_database(client, parent):
    path = client.tracking_uri.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, check_same_thread=False)) as other:
        other.execute("begin immediate")
        began = time.monotonic()
        threading.Timer(25.0, other.rollback).start()
        PatientClient().log_metric(parent, "loss", 1.0)
        assert time.monotonic() - began > 20
    assert client.get_run(parent).data.metrics == {"loss": 1.0}
