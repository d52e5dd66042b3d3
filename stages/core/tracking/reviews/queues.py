"""Review queues: who is asked about which pairs."""

import datetime
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from stages.core.artifacts import json_digest
from stages.core.config import ReviewQueueConfig
from stages.core.errors import UserError
from stages.core.feedback.pairs import CandidatePair
from stages.core.tracking.client import PatientClient, experiment_id
from stages.core.tracking.reviews.accounts import admit
from stages.core.tracking.reviews.api import ask, pages
from stages.core.tracking.reviews.questions import ensure_questions
from stages.core.tracking.reviews.traces import (
    NewTrace,
    PublishedTrace,
    publish,
    published,
    store_pairs,
)

BETWEEN = " · "
"""Between the name of a round and that of the reviewer, in a queue's name."""
ITEMS_PER_REQUEST = 500


@dataclass(frozen=True)
class OpenedQueue:
    """What people can now review."""

    experiment_id: str
    name: str
    """Of the round; queues of reviewers are called NAME · REVIEWER."""
    names: tuple[str, ...]
    """Of the queues. Those of reviewers hold logins: not to be recorded."""
    page: str
    """Path below the address of MLflow's UI."""
    num_pairs: int
    num_new: int
    """Pairs that had not been in the queue before."""
    num_traces: int
    """Pairs to judge, each as often as reviewers are asked about it."""


@dataclass(frozen=True)
class Item:
    """A trace in a queue."""

    queue_id: str
    queue: str
    trace_id: str
    status: str
    """pending, complete or declined."""
    completed_by: str


def open_queue(
    queue: ReviewQueueConfig, pairs: Sequence[CandidatePair], run_id: str
) -> OpenedQueue:
    """Ask people about pairs. Called again with the same, it changes nothing; with more pairs under
    the same name, it adds them.

    Args:
        run_id: of the MLflow run whose artifacts shall hold the pairs, in an experiment that
            reviewers cannot read.

    Raises:
        UserError: no pairs, a reviewer without an account, guidelines that are too long, or an
            MLflow without review queues.
    """
    if not pairs:
        raise UserError("there are no pairs to ask about: sample some first")
    client = PatientClient()
    experiment = experiment_id(client, queue.experiment)
    reviewers = admit(experiment, queue.reviewers)
    file = store_pairs(pairs, run_id)
    schemas = ensure_questions(experiment, queue)
    before = list(published(experiment))
    name = queue.name.strip() or _usual_name(pairs, before)
    known = {(trace.pair_id, trace.copy): trace for trace in before if trace.queue == name}

    shares = deal(
        list({pair.pair_id: pair for pair in pairs}.values()), reviewers, queue.overlap_share
    )
    new, members = [], defaultdict(list)
    for reviewer, share in shares.items():
        for place, (pair, copy) in enumerate(share):
            if (there := known.get((pair.pair_id, copy))) is not None:
                members[reviewer].append(there.trace_id)
                continue
            trace = NewTrace(pair, file, name, copy, place, experiment)
            new.append(trace)
            members[reviewer].append(trace.trace_id)
    publish(new)
    opened = {}
    attached = {item.trace_id for item in items(experiment)}
    by_name = {there.name: there for there in all_queues(experiment)}
    for reviewer in shares:
        called = f"{name}{BETWEEN}{reviewer}" if reviewer in queue.reviewers else name
        users = [reviewer] if reviewer else []
        opened[called] = _ensure_queue(experiment, by_name.get(called), called, users, schemas)
        loose = [trace for trace in members[reviewer] if trace not in attached]
        _attach(opened[called], loose)
    page = f"/#/experiments/{experiment}/review-queue"
    if len(opened) == 1:
        page += f"?selectedQueueId={next(iter(opened.values()))}"
    old_ids = {pair_id for pair_id, _ in known}
    return OpenedQueue(
        experiment_id=experiment,
        name=name,
        names=tuple(opened),
        page=page,
        num_pairs=len({pair.pair_id for pair in pairs}),
        num_new=len({trace.pair.pair_id for trace in new} - old_ids),
        num_traces=sum(map(len, members.values())),
    )


def deal(
    pairs: Sequence[CandidatePair], reviewers: Sequence[str], overlap_share: float
) -> dict[str, list[tuple[CandidatePair, int]]]:
    """Which pairs each reviewer is asked about: in turn, and every so many to two of them, evenly
    over the list. More pairs at the end change nothing about those before.

    Returns:
        By reviewer, the pairs in their order, with 0 for the first copy and 1 for the second. With
        less than two reviewers no pair has a second.
    """
    names = list(reviewers) or [""]
    shares: dict[str, list[tuple[CandidatePair, int]]] = {name: [] for name in names}
    load = Counter(dict.fromkeys(names, 0))
    for number, pair in enumerate(pairs):
        twice = int((number + 1) * overlap_share) > int(number * overlap_share)
        asked = sorted(names, key=lambda name: load[name])[: 2 if twice else 1]
        for copy, name in enumerate(asked):
            shares[name].append((pair, copy))
            load[name] += 1
    return shares


def all_queues(experiment: str) -> list[Any]:
    """The queues of an experiment, the newest first."""
    return list(pages(partial(ask, "list_review_queues"), experiment_id=experiment))


def items(experiment: str) -> list[Item]:
    """All traces in queues of an experiment."""
    return [
        Item(queue.queue_id, queue.name, row.item_id, str(row.status), row.completed_by or "")
        for queue in all_queues(experiment)
        for row in pages(partial(ask, "list_review_queue_items", queue.queue_id))
    ]


def _usual_name(pairs: Sequence[CandidatePair], before: Sequence[PublishedTrace]) -> str:
    """Of the day and the pairs; the same pairs keep the day on which they were first published."""
    digest = json_digest([pair.pair_id for pair in pairs])[:6]
    for trace in before:
        if trace.queue.endswith(f" {digest}"):
            return trace.queue
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d} {digest}"


def _ensure_queue(
    experiment: str, there: Any, name: str, users: list[str], schemas: list[str]
) -> str:
    if there is None:
        there = ask(
            "create_review_queue",
            name,
            queue_type="custom",
            users=users,
            schema_ids=schemas,
            experiment_id=experiment,
        )
    return str(there.queue_id)


def _attach(queue_id: str, trace_ids: Sequence[str]) -> None:
    """The page lists what was attached last first, and what was attached together by id."""
    for start in reversed(range(0, len(trace_ids), ITEMS_PER_REQUEST)):
        some = trace_ids[start : start + ITEMS_PER_REQUEST]
        ask("add_items_to_review_queue", queue_id, item_ids=list(some))
