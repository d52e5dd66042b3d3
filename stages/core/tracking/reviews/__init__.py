"""MLflow's review queues: the only place that knows their experimental API.

``queues`` opens them, ``traces`` and ``rendering`` make what they show, ``questions`` what they
ask; ``answers`` reads and records judgments, ``removal`` takes a reviewer's back, ``states`` says
what is left; ``accounts`` is
about servers with accounts, and every call goes through ``api``.
"""

from stages.core.tracking.reviews.answers import (
    count_judgments,
    judged_at,
    judgments,
    pending_pairs,
    published_pairs,
    record_judgments,
    tag_pairs,
)
from stages.core.tracking.reviews.queues import OpenedQueue, open_queue
from stages.core.tracking.reviews.removal import Removed, pseudonym, remove_reviewer
from stages.core.tracking.reviews.states import QueueState, annotators, queue_states

__all__ = [
    "OpenedQueue",
    "QueueState",
    "Removed",
    "annotators",
    "count_judgments",
    "judged_at",
    "judgments",
    "open_queue",
    "pending_pairs",
    "pseudonym",
    "published_pairs",
    "queue_states",
    "record_judgments",
    "remove_reviewer",
    "tag_pairs",
]
