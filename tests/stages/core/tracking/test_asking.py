"""Requests that were interrupted before all of their pairs were in a queue."""

import pytest

from stages.core import tracking
from stages.core.artifacts import StageResult, data_root, folder_files, write_result
from stages.core.config import SamplePairsConfig
from stages.core.tracking.asking import STAGE

pytestmark = pytest.mark.slow


def _run(request: str, key: str, client) -> tuple[str, StageResult]:
    """A run that was asked for ``request`` and has chosen pairs."""
    parent = tracking.start_run("people-pairs", SamplePairsConfig(), "sample-pairs")
    tracking.note_request(parent, request)
    experiment = client.get_run(parent).info.experiment_id
    tags = {"mlflow.parentRunId": parent, "stage_key": key}
    child = client.create_run(experiment, tags=tags, run_name=STAGE).info.run_id
    folder = data_root() / "runs" / STAGE / key
    folder.mkdir(parents=True)
    (folder / "pairs.jsonl").write_text("")
    result = StageResult(
        stage=STAGE,
        key=key,
        outputs={},
        metrics={},
        files=folder_files(folder),
        tracking_run_id=child,
    )
    write_result(folder, result)
    client.set_terminated(child, "FINISHED")
    return parent, result


def test_pairs_are_taken_over_until_they_are_in_a_queue(client):
    assert tracking.unasked_pairs("a1") is None
    _, result = _run("a1", "0" * 12, client)
    assert tracking.unasked_pairs("a1") == result
    assert tracking.unasked_pairs("b2") is None
    # A second run, for the same request, shows the stage as reused.
    again = tracking.start_run("people-pairs", SamplePairsConfig(), "sample-pairs")
    tracking.note_request(again, "a1")
    tracking.log_reused(again, result)
    assert tracking.unasked_pairs("a1") == result
    tracking.note_asked(result, "/#/experiments/1/review-queue")
    assert tracking.unasked_pairs("a1") is None


def test_a_run_that_has_chosen_none_yet_has_nothing_to_take_over(client):
    run_id = tracking.start_run("people-pairs", SamplePairsConfig(), "sample-pairs")
    tracking.note_request(run_id, "c3")
    assert tracking.unasked_pairs("c3") is None
