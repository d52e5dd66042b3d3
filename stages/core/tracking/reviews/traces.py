"""Pairs as traces: what is shown, and which file of which run holds the rest of a pair.

A trace has tags alone that a reviewer may see. Which model replied, why a pair was chosen and what
a gold pair's answer is stay in a file among the artifacts of a run that reviewers cannot open.
"""

import base64
import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stages.core.feedback.pairs import CandidatePair
from stages.core.tracking.client import PatientClient, mlflow, set_up
from stages.core.tracking.reviews.api import ask_traces, find, pages
from stages.core.tracking.reviews.rendering import (
    LONG_ANSWERS,
    LONG_QUESTION,
    SHORT,
    answers,
    has_turns,
    question,
    span_attributes,
)

PAIR_TAG = "rlhf.pair_id"
FILE_TAG = "rlhf.pairs"
QUEUE_TAG = "rlhf.queue"
COPY_TAG = "rlhf.copy"
FOLDER = "review"
"""Of the run's artifacts."""
TRACES_PER_REQUEST = 50
TOO_LONG = ("too long", "truncat")
"""In the messages of databases whose columns are as short as they say."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewTrace:
    """A pair about to be published."""

    pair: CandidatePair
    file: str
    """``RUN_ID/PATH`` of the file that ``store_pairs`` wrote."""
    queue: str
    """Name of the round; empty for what nobody is asked about."""
    copy: int
    """0, and 1 for the second reviewer's."""
    place: int
    """In the order of asking."""

    experiment_id: str
    annotator: tuple[str, ...] = ()
    """Kind and name of whose judgment is recorded with it."""

    @property
    def trace_id(self) -> str:
        """The same whenever the same pair is published in the same place."""
        where = (self.experiment_id, self.pair.pair_id, self.queue, self.copy)
        return name_trace(*where, *self.annotator)


@dataclass(frozen=True)
class PublishedTrace:
    """A trace that shows a pair, with what people said about it."""

    experiment_id: str
    trace_id: str
    pair_id: str
    file: str
    queue: str
    copy: int
    assessments: tuple[Any, ...]
    tags: Mapping[str, str]


def name_trace(*where: str | int) -> str:
    """An id that follows from the experiment, the pair, the queue, the copy, and the annotator if
    nobody was asked."""
    return f"tr-{hashlib.sha256(json.dumps(where).encode()).hexdigest()[:32]}"


def find_experiment(name: str) -> str:
    """The id of an experiment; empty where there is none, or in the trash."""
    experiment = PatientClient().get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage == "deleted":
        return ""
    return str(experiment.experiment_id)


def store_pairs(pairs: Sequence[CandidatePair], run_id: str) -> str:
    """Write pairs among a run's artifacts, once, and return ``RUN_ID/PATH`` of their file, which is
    named after its content."""
    text = "".join(pair.model_dump_json() + "\n" for pair in pairs)
    path = f"{FOLDER}/pairs-{hashlib.sha256(text.encode()).hexdigest()[:12]}.jsonl"
    client = PatientClient()
    if path not in [file.path for file in client.list_artifacts(run_id, FOLDER)]:
        client.log_text(run_id, text, path)
    return f"{run_id}/{path}"


def pairs_of(traces: Iterable[PublishedTrace]) -> dict[str, CandidatePair]:
    """The pairs that traces show, by trace id. Those whose run is gone are left out, and said."""
    shown, missing = {}, set()
    for trace in traces:
        pair = read_pairs(set_up(), trace.file).get(trace.pair_id)
        if pair is None:
            missing.add(trace.file.partition("/")[0])
        else:
            shown[trace.trace_id] = pair
    if missing:
        log.warning(
            "warning: the pairs of %d runs are gone, and judgments of them are not read: restore "
            "them in MLflow (%s)",
            len(missing),
            ", ".join(sorted(missing)[:5]),
        )
    return shown


@lru_cache(maxsize=256)
def read_pairs(_uri: str, file: str) -> Mapping[str, CandidatePair]:
    """The pairs in a file of ``store_pairs`` by their ids; none where the run or file is gone."""
    run_id, _, path = file.partition("/")
    client = PatientClient()
    try:
        if path not in [there.path for there in client.list_artifacts(run_id, FOLDER)]:
            return {}
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    with tempfile.TemporaryDirectory() as folder:
        local = client.download_artifacts(run_id, path, folder)
        lines = Path(local).read_text(encoding="utf-8").splitlines()
    pairs = [CandidatePair.model_validate_json(line) for line in lines]
    return MappingProxyType({pair.pair_id: pair for pair in pairs})


def publish(traces: Sequence[NewTrace]) -> None:
    """Log traces, those that are there already to no effect."""
    now = time.time_ns()
    for start in range(0, len(traces), TRACES_PER_REQUEST):
        some = traces[start : start + TRACES_PER_REQUEST]
        _preview(some, now)
        # Tags come with the spans: a trace that has them is complete.
        ask_traces("log_spans", some[0].experiment_id, [_span(trace, now) for trace in some])


def published(experiment_id: str) -> Iterator[PublishedTrace]:
    """All traces that show pairs, in the order of their making."""
    if not experiment_id:
        return
    for trace in pages(
        partial(ask_traces, "search_traces"),
        locations=[experiment_id],
        filter_string=f"tag.`{PAIR_TAG}` LIKE '%'",
        # The oldest first: a trace that is logged meanwhile does not move the pages.
        order_by=["timestamp_ms ASC"],
        include_spans=False,
    ):
        tags = trace.info.tags
        yield PublishedTrace(
            experiment_id=experiment_id,
            trace_id=trace.info.trace_id,
            pair_id=tags[PAIR_TAG],
            file=tags.get(FILE_TAG, ""),
            queue=tags.get(QUEUE_TAG, ""),
            copy=int(tags.get(COPY_TAG, "0")),
            assessments=tuple(trace.info.assessments),
            tags=tags,
        )


def _preview(traces: Sequence[NewTrace], now: int) -> None:
    """Give traces the previews that the page shows. MLflow makes those of short texts itself; of
    long ones it would show answer A alone."""
    takes_long = True
    for trace in traces:
        long = question(trace.pair, LONG_QUESTION), answers(trace.pair, LONG_ANSWERS)
        fits = max(map(len, long)) <= SHORT.characters
        if fits and not has_turns(trace.pair):
            continue
        if takes_long or fits:
            try:
                ask_traces("start_trace", _info(trace, now, *long))
                continue
            except mlflow.exceptions.MlflowException as error:
                if not any(sign in str(error).lower() for sign in TOO_LONG):
                    raise
                takes_long = False
        short = question(trace.pair, SHORT), answers(trace.pair, SHORT)
        ask_traces("start_trace", _info(trace, now, *short))


def _info(trace: NewTrace, now: int, request: str, response: str) -> Any:
    entities = mlflow.entities
    return entities.TraceInfo(
        trace_id=trace.trace_id,
        trace_location=entities.TraceLocation.from_experiment_id(trace.experiment_id),
        request_time=_time(trace, now) // 10**6,
        state=entities.TraceState.OK,
        execution_duration=0,
        request_preview=request,
        response_preview=response,
    )


def _time(trace: NewTrace, now: int) -> int:
    """The page shows the newest trace first."""
    return now - trace.place * 10**6


def _span(trace: NewTrace, now: int) -> Any:
    time_ns = _time(trace, now)
    hexadecimal = trace.trace_id.removeprefix("tr-")
    attributes = {
        "mlflow.traceRequestId": trace.trace_id,
        **span_attributes(trace.pair),
        f"mlflow.traceTag.{PAIR_TAG}": trace.pair.pair_id,
        f"mlflow.traceTag.{FILE_TAG}": trace.file,
        f"mlflow.traceTag.{QUEUE_TAG}": trace.queue,
        f"mlflow.traceTag.{COPY_TAG}": str(trace.copy),
    }
    return find("Span.from_dict")(
        {
            "name": "Which answer is better?",
            "trace_id": _base64(hexadecimal),
            "span_id": _base64(hexadecimal[-16:]),
            "parent_span_id": "",
            "start_time_unix_nano": time_ns,
            "end_time_unix_nano": time_ns,
            "attributes": {key: json.dumps(value) for key, value in attributes.items()},
            "status": {"code": "STATUS_CODE_OK", "message": ""},
        }
    )


def _base64(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()
