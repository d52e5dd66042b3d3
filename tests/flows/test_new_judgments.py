"""How many judgments are new, counted against the run that was the last to learn from them."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from flows.new_judgments import new_judgments
from stages.core import tracking
from stages.core.config import PipelineConfig
from stages.core.feedback.judgments import Judgment
from stages.core.feedback.pairs import CandidatePair, pair_id
from stages.core.tracking import lineage

pytestmark = pytest.mark.usefixtures("data_root")

MONDAY = datetime(2026, 11, 2, 8, tzinfo=UTC)


@pytest.fixture
def judge(request: pytest.FixtureRequest) -> Callable[..., str]:
    """A function that records a judgment about the pair of a number; returns the experiment."""
    run_id = tracking.start_pipeline_run(PipelineConfig(profile="pairs"), "pairs")

    def record(number: int, at: datetime, verdict: str = "a") -> str:
        prompt, replies = f"Question {number}?", ("One.", "Another.")
        pair = CandidatePair(
            pair_id=pair_id(prompt, *replies), prompt=prompt, reply_a=replies[0], reply_b=replies[1]
        )
        row = {
            "judgment_id": "", "trace_id": "", "queue": "", "verdict": verdict,
            "annotator": "anna", "created_at": at, "pair": pair,
        }  # fmt: skip
        tracking.record_judgments(request.node.name, [Judgment.model_validate(row)], run_id)
        return str(request.node.name)

    return record


def _learn(experiment: str, until: datetime, seen: int) -> None:
    run_id = tracking.start_pipeline_run(PipelineConfig(profile="counted"), "retrain")
    tags = {
        lineage.FEEDBACK_UNTIL: until.isoformat(),
        lineage.FEEDBACK_SEEN: json.dumps({experiment: {"human": seen, "ai": 0}}),
        lineage.POLICY_VERSION: "4",
    }
    tracking.tag_run(run_id, tags)
    tracking.end_pipeline_run(run_id, "FINISHED", {})


def test_new_are_later_ones_changed_ones_and_imported_ones(judge: Callable[..., str]) -> None:
    experiment = judge(1, MONDAY)
    judge(2, MONDAY + timedelta(hours=1))
    found = new_judgments(experiment, ["human"], "counted")
    assert (found.count, found.last) == (2, None)
    assert found.text.startswith(f"2 new judgments of {experiment!r}, in all; queue: ")
    _learn(experiment, MONDAY + timedelta(hours=1), 2)
    assert new_judgments(experiment, ["human"], "counted").count == 0
    assert new_judgments(experiment, ["human"], "another pipeline").count == 2
    judge(1, MONDAY + timedelta(hours=2), verdict="b")
    assert new_judgments(experiment, ["human"], "counted").count == 1
    judge(3, MONDAY - timedelta(days=900))  # imported, and given long ago
    judge(4, MONDAY - timedelta(days=900))
    found = new_judgments(experiment, ["human"], "counted")
    assert found.count == 2
    assert "since 2026-11-02 09:00 UTC, when the last was given that version 4" in found.text
    assert new_judgments(experiment, ["ai"], "counted").count == 0
