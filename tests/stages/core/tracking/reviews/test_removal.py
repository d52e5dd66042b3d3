"""A reviewer leaves."""

import mlflow

from stages.core import tracking
from stages.core.tracking.reviews.api import ask_traces
from stages.core.tracking.reviews.questions import VERDICT
from stages.core.tracking.reviews.traces import published


def test_answers_that_were_changed_do_not_come_back(config, make_pairs, run_id, judged):
    [pair] = make_pairs(1)
    tracking.record_judgments(config.experiment, [judged(pair, annotator="Anna")], run_id)
    [row] = tracking.judgments(config.experiment)
    source = mlflow.entities.AssessmentSource("HUMAN", "Anna")
    for label in ("Tie", "B is better"):  # as the page changes an answer
        before = tracking.judgments(config.experiment)[0].judgment_id
        changed = mlflow.entities.Feedback(
            name=VERDICT, value=label, source=source, overrides=before
        )
        ask_traces("log_assessment", row.trace_id, changed)
    assert [row.verdict for row in tracking.judgments(config.experiment)] == ["b"]
    removed = tracking.remove_reviewer(config.experiment, "anna")
    assert (removed.judgments, removed.assessments) == (1, 3)
    assert tracking.judgments(config.experiment) == []
    experiment = mlflow.get_experiment_by_name(config.experiment).experiment_id
    assert [trace.assessments for trace in published(experiment)] == [()]


def test_others_stay(config, make_pairs, run_id, judged):
    [pair] = make_pairs(1)
    rows = [judged(pair, annotator=name) for name in ("anna", "annabel")]
    tracking.record_judgments(config.experiment, rows, run_id)
    assert tracking.remove_reviewer(config.experiment, "anna").judgments == 1
    assert [row.annotator for row in tracking.judgments(config.experiment)] == ["annabel"]


def test_where_there_is_no_experiment_nothing_is_removed(client):
    assert tracking.remove_reviewer("nowhere", "anna") == tracking.Removed(0, 0, 0, 0)


def test_a_pseudonym_follows_from_login_and_experiment(config, client):
    for name in (config.experiment, "another"):
        if client.get_experiment_by_name(name) is None:
            client.create_experiment(name, artifact_location="file:///nowhere")
    one = tracking.pseudonym(config.experiment, "anna")
    assert one == tracking.pseudonym(config.experiment, " Anna")
    assert one.startswith("annotator-")
    assert len(one) == len("annotator-1a2b3c4d")
    others = {tracking.pseudonym(config.experiment, "ben"), tracking.pseudonym("another", "anna")}
    assert one not in others
    assert len(others) == 2
