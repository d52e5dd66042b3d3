"""Reading and recording judgments."""

from datetime import UTC, datetime

import pytest

from stages.core import tracking
from stages.core.errors import UserError


def test_recorded_judgments_are_read_as_they_were_given(config, make_pairs, run_id, judged):
    pairs = make_pairs(2)
    given = [
        judged(pairs[0], "b", reason="Shorter.", strength=2, better_answer="Best."),
        judged(pairs[1], "both_bad", "gpt", annotator_kind="ai"),
    ]
    assert tracking.record_judgments(config.experiment, given, run_id) == 2
    read = tracking.judgments(config.experiment)
    assert sorted(read, key=lambda row: row.annotator) == [
        row.model_copy(
            update={
                "judgment_id": found.judgment_id,
                "trace_id": found.trace_id,
            }
        )
        for row, found in zip(given, sorted(read, key=lambda row: row.annotator), strict=True)
    ]
    assert all(row.judgment_id and row.trace_id for row in read)


def test_recording_again_doubles_nothing_and_replaces_what_changed(
    config, make_pairs, run_id, judged
):
    [pair] = make_pairs(1)
    tracking.record_judgments(config.experiment, [judged(pair, "a")], run_id)
    assert tracking.record_judgments(config.experiment, [judged(pair, "a")], run_id) == 0
    assert tracking.record_judgments(config.experiment, [judged(pair, "tie")], run_id) == 1
    assert [row.verdict for row in tracking.judgments(config.experiment)] == ["tie"]


def test_judgments_are_counted_from_a_time_on(config, make_pairs, run_id, judged):
    pairs = make_pairs(3)
    rows = [
        judged(pair, created_at=datetime(2026, 11, day, tzinfo=UTC))
        for pair, day in zip(pairs, (1, 2, 3), strict=True)
    ]
    tracking.record_judgments(config.experiment, rows, run_id)
    assert tracking.count_judgments(config.experiment) == 3
    since = datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert tracking.count_judgments(config.experiment, since) == 2


def test_pairs_are_pending_until_somebody_of_that_kind_judged_them(
    config, make_pairs, run_id, judged
):
    pairs = make_pairs(3)
    tracking.open_queue(config, pairs, run_id)
    tracking.record_judgments(
        config.experiment, [judged(pairs[0], annotator="gpt", annotator_kind="ai")], run_id
    )
    assert tracking.pending_pairs(config.experiment) == pairs
    assert tracking.pending_pairs(config.experiment, kind="ai") == pairs[1:]


def test_an_experiment_that_is_not_there_has_no_judgments(client):
    assert tracking.count_judgments("nowhere") == 0
    assert tracking.published_pairs("nowhere") == []
    assert tracking.pending_pairs("nowhere") == []
    with pytest.raises(UserError, match="no MLflow experiment is called 'nowhere'"):
        tracking.judgments("nowhere")


def test_a_queue_that_is_not_there_is_named(config, make_pairs, run_id):
    tracking.open_queue(config, make_pairs(1), run_id)
    with pytest.raises(UserError, match="'round 2'; there are: round 1"):
        tracking.judgments(config.experiment, ["round 2"])
    assert tracking.judgments(config.experiment, ["round 1"]) == []
