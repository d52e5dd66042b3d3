"""Which run was the last to learn from judgments, and until when it had read them."""

import json
from datetime import UTC, datetime

import pytest

from stages.core import tracking
from stages.core.config import PipelineConfig
from stages.core.tracking import lineage


@pytest.fixture
def made(client):
    """Makes a pipeline run with tags as ``flows`` sets them; returns its id."""

    def make(pipeline: str, until: str, status: str = "FINISHED", **tags: str) -> str:
        run_id = tracking.start_pipeline_run(PipelineConfig(profile=pipeline), "retrain")
        given = {
            lineage.FEEDBACK_UNTIL: until,
            lineage.FEEDBACK_SEEN: json.dumps({"people": {"human": 7}}),
            lineage.POLICY_VERSION: "3",
        }
        tracking.tag_run(run_id, given | tags)
        tracking.end_pipeline_run(run_id, status, {})
        return run_id

    return make


def test_the_last_to_learn_is_the_one_that_has_read_the_most(made):
    assert tracking.last_learned("people", "lineage-a") is None
    newest = made("lineage-a", "2026-11-02T08:00:00+00:00")
    made("lineage-a", "2026-11-01T08:00:00+00:00")  # an older configuration, run again since
    made("lineage-b", "2026-11-03T09:00:00+01:00")
    found = tracking.last_learned("people", "lineage-a")
    assert found is not None
    assert (found.run_id, found.version, found.pipeline) == (newest, "3", "lineage-a")
    assert found.seen == {"human": 7}
    assert found.until == datetime(2026, 11, 2, 8, tzinfo=UTC)
    anywhere = tracking.last_learned("people")
    assert anywhere is not None
    assert anywhere.until == datetime(2026, 11, 3, 8, tzinfo=UTC)


def test_only_finished_runs_that_made_a_policy_of_these_judgments_count(made):
    now = "2026-11-02T08:00:00+00:00"
    made("lineage-c", now, status="FAILED")
    made("lineage-c", now, **{lineage.FEEDBACK_SEEN: '{"others": {}, "people too": {}}'})
    without = tracking.start_pipeline_run(PipelineConfig(profile="lineage-c"), "prepare-data")
    tracking.tag_run(without, {lineage.FEEDBACK_UNTIL: now})
    tracking.end_pipeline_run(without, "FINISHED", {})
    assert tracking.last_learned("people", "lineage-c") is None
    assert tracking.last_learned("people too", "lineage-c") is not None


def test_an_experiment_that_is_not_there_has_no_page(made):
    assert tracking.experiment_page("nobody made this") == ""
    run_id = made("lineage-d", "2026-11-02T08:00:00+00:00")
    page = tracking.experiment_page("lineage-d", "review-queue")
    assert page.endswith("/review-queue")
    assert page.split("/")[3] in tracking.run_page(run_id)
    assert tracking.run_tags(run_id)["policy_version"] == "3"
