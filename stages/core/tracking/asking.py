"""Requests to ask people about pairs, so that one that was killed half-way is finished and not made
a second time: by then its own pairs count as asked about, and it would choose others."""

from stages.core.artifacts import StageResult
from stages.core.tracking.client import PatientClient, all_experiments
from stages.core.tracking.earlier_results import earlier_run, fetch
from stages.core.tracking.pipeline_runs import tag_run

STAGE = "sample_pairs"
REQUEST = "pairs_request"
"""Tag of a run: the digest of what was asked for."""
ASKED = "review_queue"
"""Tag of the run that made the pairs: the queue's page, once all of them are in it."""


def note_request(run_id: str, request: str) -> None:
    """Say on a run what it is asked for, before it begins."""
    tag_run(run_id, {REQUEST: request})


def unasked_pairs(request: str) -> StageResult | None:
    """The pairs that were chosen for the same request, but are not all in a queue yet."""
    client = PatientClient()
    for run in client.search_runs(all_experiments(client), f"tags.{REQUEST} = '{request}'"):
        result = earlier_run(run.info.run_id).results.get(STAGE)
        if result is None:
            continue
        if ASKED not in client.get_run(result.tracking_run_id).data.tags:
            return fetch(STAGE, result.key)
    return None


def note_asked(result: StageResult, page: str) -> None:
    """Say that all pairs of the stage's result are in a queue.

    Args:
        page: of the queue.
    """
    tag_run(result.tracking_run_id, {ASKED: page})
