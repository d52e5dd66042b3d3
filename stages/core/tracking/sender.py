"""Sends what a training stage records in the background, in order, however long MLflow is away."""

import functools
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from stages.core.tracking.client import PatientClient, mlflow

SECONDS_BETWEEN_SENDINGS = 1.0
MAX_METRICS = 1000
"""Metrics that the server takes in one request."""

log = logging.getLogger(__name__)
Call = Callable[[], object]


class Sender:
    """A thread that delivers metrics and other records of one run.

    Training never waits for it, nor fails with it: a record that the server refuses is warned of.
    """

    def __init__(self, client: PatientClient, run_id: str) -> None:
        self.client, self.run_id = client, run_id
        self._records: queue.SimpleQueue[list[Any] | Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Deliver step metrics."""
        now = int(time.time() * 1000)
        self._records.put(
            [mlflow.entities.Metric(name, value, now, step) for name, value in metrics.items()]
        )

    def call(self, call: Call) -> None:
        """Make a call to the server, after all that was given before."""
        self._records.put(call)

    def close(self, timeout_seconds: float | None = None) -> None:
        """Wait until all is delivered, or no longer than ``timeout_seconds``."""
        self._records.put(None)
        self._thread.join(timeout_seconds)

    def _work(self) -> None:
        ended = False
        while not ended:
            batch: list[Any] = []
            records = [self._records.get()]
            time.sleep(0 if records[0] is None else SECONDS_BETWEEN_SENDINGS)
            while not self._records.empty():
                records.append(self._records.get())
            ended = records[-1] is None
            for record in records:
                if isinstance(record, list):
                    batch += record
                elif record is not None:
                    self._try(functools.partial(self._send, batch))
                    self._try(record)
                    batch = []
            self._try(functools.partial(self._send, batch))

    def _send(self, metrics: list[Any]) -> None:
        for start in range(0, len(metrics), MAX_METRICS):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + MAX_METRICS])

    def _try(self, call: Call) -> None:
        try:
            call()
        except Exception as error:
            text = " ".join(str(error).split())
            log.warning("warning: MLflow refused a record: %s", text[:300])
