"""Metrics reach MLflow in order and complete, and training neither waits for them nor fails."""

import time

import pytest

from stages.core.tracking.client import PatientClient
from stages.core.tracking.sender import Sender

STEPS = 40


def test_records_are_delivered_in_their_order(client, parent):
    seen = []
    sender = Sender(PatientClient(), parent)
    for step in (1, 2):
        sender.metrics({"loss": 1.0 / step, "reward": float(step)}, step)
        sender.call(lambda: seen.append(len(client.get_metric_history(parent, "loss"))))
    sender.close()
    assert seen == [1, 2]
    history = client.get_metric_history(parent, "reward")
    assert [(item.step, item.value) for item in history] == [(1, 1.0), (2, 2.0)]


def test_more_metrics_than_one_request_takes(client, parent):
    sender = Sender(PatientClient(), parent)
    for step in range(600):
        sender.metrics({"loss": 1.0, "reward": 2.0}, step)
    sender.close()
    assert len(client.get_metric_history(parent, "loss")) == 600
    assert len(client.get_metric_history(parent, "reward")) == 600


def test_a_refused_record_is_a_warning_and_the_next_ones_go_on(client, parent, caplog):
    def refused():
        client.set_tag("no-such-run", "a", "b")

    sender = Sender(PatientClient(), parent)
    sender.metrics({"loss": 1.0}, 1)
    sender.call(refused)
    sender.metrics({"loss": 2.0}, 2)
    sender.close()
    assert [item.step for item in client.get_metric_history(parent, "loss")] == [1, 2]
    (warning,) = [record.message for record in caplog.records]
    assert warning.startswith("warning: MLflow refused a record: ")
    assert "no-such-run" in warning
    assert "\n" not in warning


@pytest.mark.slow
def test_metrics_of_an_outage_all_arrive_and_nobody_waits(mlflow_server, caplog):
    client = PatientClient()
    run_id = client.create_run(client.create_experiment("outage")).info.run_id
    sender = Sender(client, run_id)
    sender.metrics({"loss": 0.0}, 0)
    mlflow_server.kill()
    began = time.monotonic()
    for step in range(1, STEPS):
        sender.metrics({"loss": float(step)}, step)
        time.sleep(0.05)
    assert time.monotonic() - began < STEPS * 0.05 + 2.0
    sender.close(timeout_seconds=0.5)  # a stage that fails does not wait for long
    assert time.monotonic() - began < STEPS * 0.05 + 4.0
    mlflow_server.start()
    sender.close()
    history = client.get_metric_history(run_id, "loss")
    assert [(item.step, item.value) for item in history] == [(n, float(n)) for n in range(STEPS)]
    assert [item.timestamp for item in history] == sorted(item.timestamp for item in history)
    assert "MLflow refused" not in caplog.text
