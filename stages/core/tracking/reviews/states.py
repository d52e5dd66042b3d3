"""How far the review queues are."""

from collections import Counter
from dataclasses import dataclass

from stages.core.tracking.reviews.queues import all_queues, items
from stages.core.tracking.reviews.traces import find_experiment, published


@dataclass(frozen=True)
class QueueState:
    """A queue, and how much is left in it."""

    name: str
    """May hold a reviewer's login: not to be recorded."""
    page: str
    """Path below the address of MLflow's UI."""
    pending: int
    """Traces that wait for an answer."""
    finished: int
    """Those that were answered, or declined."""
    users: tuple[str, ...]
    """Logins of those who are asked."""


def queue_states(experiment: str) -> list[QueueState]:
    """The queues of an experiment, the newest first; none where there is no such experiment."""
    found = find_experiment(experiment)
    if not found:
        return []
    attached = items(found)
    count = Counter((item.queue_id, item.status == "pending") for item in attached)
    return [
        QueueState(
            name=queue.name,
            page=f"/#/experiments/{found}/review-queue?selectedQueueId={queue.queue_id}",
            pending=count[queue.queue_id, True],
            finished=count[queue.queue_id, False],
            users=tuple(queue.users),
        )
        for queue in all_queues(found)
    ]


def annotators(experiment: str) -> Counter[str]:
    """By name, on how many traces somebody, or a model, has said something, whether it counts as a
    judgment or not."""
    count = Counter[str]()
    for trace in published(find_experiment(experiment)):
        count.update({assessment.source.source_id for assessment in trace.assessments})
    return count
