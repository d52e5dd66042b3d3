"""Which results the runs in MLflow refer to."""

import pytest

from stages.core import tracking
from stages.core.tracking import references

MINE = "fedcba987654"


@pytest.fixture
def child(client, parent):
    """A function that records a run of the stage sft below the pipeline run. No model of another
    test is registered: their runs have no stages."""
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    experiment = client.get_run(parent).info.experiment_id

    def make(key=MINE, status="FINISHED", **tags):
        tags = {"mlflow.parentRunId": parent, "stage_key": key, **tags}
        run_id = client.create_run(experiment, tags=tags, run_name="sft").info.run_id
        client.update_run(run_id, status=status)
        return run_id

    return make


def test_the_makers_of_a_result_are_the_runs_that_finished_it(child):
    made = child()
    child(reused_from=made)
    child(status="FAILED")
    found = tracking.read_references(5)
    assert found.makers["sft", MINE] == (made,)
    assert ("sft", MINE) in found.needed & found.named


def test_deleted_runs_are_known_but_refer_to_nothing(client, parent, child):
    made = child(key="0" * 12)
    client.delete_run(parent)
    found = tracking.read_references(5)
    assert parent in found.run_ids
    assert ("sft", "0" * 12) not in found.needed | found.named
    client.delete_run(made)
    assert ("sft", "0" * 12) not in tracking.read_references(5).makers


def test_more_runs_than_one_page_holds_are_all_read(child, monkeypatch):
    for number in range(5):
        child(key=f"{number:012}")
    whole = tracking.read_references(1)
    monkeypatch.setattr(references, "MAX_RESULTS", 2)
    assert len(whole.run_ids) > 5
    assert tracking.read_references(1) == whole


def test_a_stage_is_stored_when_its_mark_is(client, child):
    run_id = child()
    assert not tracking.is_stored((run_id,))
    client.log_text(run_id, "weights", "stage/weights")
    assert not tracking.is_stored((run_id,))  # the upload was cut off
    client.log_text(run_id, "{}", "stage/result.json")
    assert tracking.is_stored(("0" * 32, run_id))
