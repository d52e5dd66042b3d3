"""Reading and recording judgments."""

import logging
from datetime import UTC, datetime

import mlflow
import pytest

from stages.core import tracking
from stages.core.errors import UserError
from stages.core.tracking.reviews.api import ask_traces
from stages.core.tracking.reviews.questions import VERDICT
from stages.core.tracking.reviews.traces import NewTrace, publish


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


def test_nobody_else_answers_in_a_recorded_judgment(config, make_pairs, run_id, judged, caplog):
    [pair] = make_pairs(1)
    tracking.record_judgments(config.experiment, [judged(pair, "a", "gpt")], run_id)
    [row] = tracking.judgments(config.experiment)
    source = mlflow.entities.AssessmentSource("HUMAN", "anna")
    ask_traces(
        "log_assessment",
        row.trace_id,
        mlflow.entities.Feedback(name=VERDICT, value="Tie", source=source),
    )
    with caplog.at_level(logging.WARNING):
        assert tracking.judgments(config.experiment) == [row]
    assert "1 answers are in another name" in caplog.text


def test_recording_does_not_mind_spaces_and_letter_case(config, make_pairs, run_id, judged):
    [pair] = make_pairs(1)
    first = judged(pair, annotator="Anna", reason=" Shorter.\n", better_answer="Best. ")
    assert tracking.record_judgments(config.experiment, [first], run_id) == 1
    again = first.model_copy(update={"annotator": "anna "})
    assert tracking.record_judgments(config.experiment, [first], run_id) == 0
    assert tracking.record_judgments(config.experiment, [again], run_id) == 0


def test_judgments_whose_run_is_gone_are_left_out_and_said(
    config, make_pairs, run_id, judged, caplog
):
    here, gone = make_pairs(2)
    tracking.record_judgments(config.experiment, [judged(here)], run_id)
    experiment = mlflow.get_experiment_by_name(config.experiment).experiment_id
    trace = NewTrace(gone, f"{'0' * 32}/review/pairs-0.jsonl", "round 0", 0, 0, experiment)
    publish([trace])
    source = mlflow.entities.AssessmentSource("HUMAN", "anna")
    verdict = mlflow.entities.Feedback(name=VERDICT, value="Tie", source=source)
    ask_traces("log_assessment", trace.trace_id, verdict)
    with caplog.at_level(logging.WARNING):
        assert [row.pair for row in tracking.judgments(config.experiment)] == [here]
    assert "the pairs of 1 runs are gone, and judgments of them are not read" in caplog.text
