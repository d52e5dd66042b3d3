"""A reviewer leaves: their answers are taken back, and their name with them."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from stages.core.tracking.client import PatientClient
from stages.core.tracking.reviews.api import ask, ask_traces
from stages.core.tracking.reviews.queues import BETWEEN, all_queues, items
from stages.core.tracking.reviews.traces import find_experiment, published

SALT_TAG = "rlhf.salt"


@dataclass(frozen=True)
class Removed:
    """What a reviewer's removal took away."""

    judgments: int
    """Traces on which they had said something."""
    assessments: int
    """Single answers deleted."""
    reopened: int
    """Items that wait for another reviewer."""
    queues: int
    """Queues that they were taken out of."""


def pseudonym(experiment: str, annotator: str) -> str:
    """The name under which an annotator is recorded: annotator-1a2b3c4d. It follows from the login
    and a salt that the experiment keeps, so it stays the same and cannot be looked up elsewhere."""
    found = find_experiment(experiment)
    login = annotator.strip().lower()
    salt = _salt(found) if found else ""
    digest = hmac.new(salt.encode(), login.encode(), hashlib.sha256).hexdigest()
    return f"annotator-{digest[:8]}"


def remove_reviewer(experiment: str, reviewer: str) -> Removed:
    """Delete what a reviewer answered, reopen the items that they completed, and take them out of
    the queues; a queue of their own is renamed after their pseudonym. Called again it does what is
    left to do."""
    found = find_experiment(experiment)
    if not found:
        return Removed(0, 0, 0, 0)
    login = reviewer.strip().lower()
    reopened = _reopen(found, login)
    num_judgments, num_assessments = _delete_answers(found, login)
    num_queues = _leave_queues(found, login, pseudonym(experiment, reviewer))
    return Removed(num_judgments, num_assessments, reopened, num_queues)


# ------------------------------------------------------------------------------------ helpers


def _salt(experiment_id: str) -> str:
    client = PatientClient()
    tags = client.get_experiment(experiment_id).tags
    if SALT_TAG not in tags:
        client.set_experiment_tag(experiment_id, SALT_TAG, secrets.token_hex(16))
        tags = client.get_experiment(experiment_id).tags
    return str(tags[SALT_TAG])


def _reopen(experiment_id: str, login: str) -> int:
    theirs = [item for item in items(experiment_id) if item.completed_by.lower() == login]
    for item in theirs:
        ask("set_review_queue_item_status", item.queue_id, item_id=item.trace_id, status="pending")
    return len(theirs)


def _delete_answers(experiment_id: str, login: str) -> tuple[int, int]:
    traces = assessments = 0
    for trace in list(published(experiment_id)):
        theirs = [one for one in trace.assessments if one.source.source_id.lower() == login]
        for assessment in theirs:
            ask_traces("delete_assessment", trace.trace_id, assessment.assessment_id)
        traces += bool(theirs)
        assessments += len(theirs)
    return traces, assessments


def _leave_queues(experiment_id: str, login: str, alias: str) -> int:
    left = 0
    for queue in all_queues(experiment_id):
        users = [user for user in queue.users if user.lower() != login]
        name = queue.name
        if name.lower().endswith(f"{BETWEEN}{login}"):
            name = f"{name[: -len(login)]}{alias}"
        if users != list(queue.users) or name != queue.name:
            ask("update_review_queue", queue.queue_id, name=name, users=users)
            left += 1
    return left
