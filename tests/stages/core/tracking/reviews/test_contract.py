"""The contract with MLflow: a real server with accounts, and everything we ask of its experimental
API. After an upgrade of MLflow it is these tests that say what has changed."""

import logging
from datetime import UTC, datetime, timedelta

import mlflow
import pytest
import requests

from stages.core import tracking
from stages.core.errors import UserError
from stages.core.tracking.reviews.accounts import current_user
from stages.core.tracking.reviews.api import NEEDED, TESTED_VERSION, ask, look_up
from stages.core.tracking.reviews.questions import BETTER_ANSWER, STRENGTH, VERDICT
from stages.core.tracking.reviews.queues import all_queues, items

pytestmark = pytest.mark.slow


@pytest.fixture
def opened(config, make_pairs, served_run):
    """Four pairs, dealt to anna and ben; every second goes to both."""
    named = config.model_copy(update={"reviewers": ("anna", "ben"), "overlap_share": 0.5})
    return tracking.open_queue(named, make_pairs(4), served_run)


@pytest.fixture
def of(opened):
    """The items of a reviewer."""

    def find(name):
        return [item for item in items(opened.experiment_id) if item.queue.endswith(name)]

    return find


def test_this_is_the_version_that_the_page_was_looked_at_with():
    assert mlflow.__version__ == TESTED_VERSION, "look at the page Review, then change the version"
    assert look_up(NEEDED)


def test_what_reviewers_answer_is_read_back(config, opened, of, page):
    before = datetime.now(UTC) - timedelta(minutes=1)
    first, second, third = of("anna")
    anna, ben = page("anna"), page("ben")
    said = {VERDICT: "B is better", STRENGTH: "Much", BETTER_ANSWER: "Best."}
    anna.answer(first.trace_id, said, reason="Shorter.")
    anna.finish(first)
    anna.answer(second.trace_id, {VERDICT: "Both are bad"})  # not submitted yet
    anna.finish(third, "DECLINED")
    ben.answer(of("ben")[0].trace_id, {VERDICT: "Tie"})
    ben.finish(of("ben")[0])
    read = {row.annotator: row for row in tracking.judgments(config.experiment, ["round 1"])}
    assert set(read) == {"anna", "ben"}
    row = read["anna"]
    assert (row.verdict, row.strength, row.reason, row.better_answer, row.queue) == (
        ("b", 3, "Shorter.", "Best.", "round 1")
    )
    assert (row.trace_id, row.annotator_kind) == (first.trace_id, "human")
    assert before < row.created_at < datetime.now(UTC) + timedelta(minutes=1)
    assert row.pair in tracking.published_pairs(config.experiment)
    assert row.pair.model_a == "champion"
    assert read["ben"].verdict == "tie"
    own = tracking.judgments(config.experiment, ["round 1 · anna"])
    assert [row.annotator for row in own] == ["anna"]
    assert tracking.count_judgments(config.experiment) == 2


def test_a_trace_holds_nothing_that_a_reviewer_must_not_see(opened):
    client = tracking.client.PatientClient()
    for trace in client.search_traces(locations=[opened.experiment_id]):
        shown = str(trace.to_dict())
        assert "champion" not in shown
        assert "margin" not in shown


def test_which_model_answered_is_kept_from_reviewers(opened, served_run, page):
    anna = page("anna")
    for experiment, status in ((opened.experiment_id, 200), (run_experiment(served_run), 403)):
        answer = requests.get(
            f"{anna.url}/api/2.0/mlflow/experiments/get",
            params={"experiment_id": experiment},
            auth=anna.login,
            timeout=60,
        )
        assert answer.status_code == status


def run_experiment(run_id):
    return tracking.client.PatientClient().get_run(run_id).info.experiment_id


def test_a_changed_answer_replaces_the_one_before(config, opened, of, page):
    (item, *_), anna = of("anna"), page("anna")
    for label in ("A is better", "Tie"):
        anna.answer(item.trace_id, {VERDICT: label})
    anna.finish(item)
    assert [row.verdict for row in tracking.judgments(config.experiment)] == ["tie"]
    anna.finish(item, "PENDING")
    assert tracking.judgments(config.experiment) == []


def test_completed_by_decides_who_judged(config, opened, of, page, caplog):
    item, ben = of("ben")[0], page("ben")
    ben.answer(item.trace_id, {VERDICT: "Tie"}, name="anna")
    ben.finish(item, name="anna")  # the server puts ben
    assert [row.completed_by for row in of("ben") if row.status == "complete"] == ["ben"]
    with caplog.at_level(logging.WARNING):
        assert tracking.judgments(config.experiment) == []
    assert "1 answers are in another name than that of who completed the review" in caplog.text
    with pytest.raises(RuntimeError, match="403"):
        ben.finish(of("anna")[0])


def test_a_review_without_a_verdict_is_not_counted_and_said(config, opened, of, page, caplog):
    item, anna = of("anna")[0], page("anna")
    anna.answer(item.trace_id, {STRENGTH: "Much"})
    anna.finish(item)
    with caplog.at_level(logging.WARNING):
        assert tracking.judgments(config.experiment) == []
    assert "1 reviews were submitted without saying which answer is better" in caplog.text


def test_answers_outlive_their_queue(config, opened, of, page):
    item, anna = of("anna")[0], page("anna")
    anna.answer(item.trace_id, {VERDICT: "A is better"})
    anna.finish(item)
    mlflow.genai.review_queues.delete_review_queue(item.queue_id)
    (row,) = tracking.judgments(config.experiment, ["round 1"])
    assert (row.verdict, row.annotator, row.queue) == ("a", "anna", "round 1")
    removed = tracking.remove_reviewer(config.experiment, "anna")
    assert (removed.judgments, removed.assessments, removed.reopened) == (1, 1, 0)
    assert tracking.judgments(config.experiment) == []


def test_a_reviewer_leaves_and_their_pairs_wait_for_another(config, opened, of, page):
    item, anna = of("anna")[0], page("anna")
    anna.answer(item.trace_id, {VERDICT: "A is better", STRENGTH: "Clearly"})
    anna.finish(item)
    alias = tracking.pseudonym(config.experiment, "anna")
    removed = tracking.remove_reviewer(config.experiment, " Anna ")
    assert removed == tracking.Removed(judgments=1, assessments=2, reopened=1, queues=1)
    assert tracking.count_judgments(config.experiment) == 0
    assert {queue.name for queue in all_queues(opened.experiment_id)} == {
        f"round 1 · {alias}",
        "round 1 · ben",
    }
    assert all(item.status == "pending" for item in items(opened.experiment_id))
    again = tracking.remove_reviewer(config.experiment, "anna")
    assert again == tracking.Removed(judgments=0, assessments=0, reopened=0, queues=0)


def test_a_reviewer_without_an_account_is_refused(config, make_pairs, served_run):
    named = config.model_copy(update={"reviewers": ("anna", "cleo", "dan")})
    with pytest.raises(UserError, match="cleo, dan: no account on the MLflow server"):
        tracking.open_queue(named, make_pairs(1), served_run)
    assert tracking.published_pairs(config.experiment) == []


def test_without_reviewers_whoever_asks_may_answer(config, make_pairs, served_run):
    opened = tracking.open_queue(config, make_pairs(1), served_run)
    assert [queue.users for queue in all_queues(opened.experiment_id)] == [["admin"]]


def test_only_an_admin_admits_reviewers(config, make_pairs, served_run, monkeypatch):
    named = config.model_copy(update={"reviewers": ("anna",)})
    tracking.open_queue(named, make_pairs(1), served_run)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "password-of-anna")
    assert current_user() == "anna"
    named = config.model_copy(update={"reviewers": ("ben",)})
    with pytest.raises(UserError, match="by an admin of the MLflow server"):
        tracking.open_queue(named, make_pairs(1), served_run)


def test_new_guidelines_are_shown_and_the_order_of_questions_stays(config, make_pairs, served_run):
    opened = tracking.open_queue(config, make_pairs(1), served_run)
    changed = config.model_copy(update={"guidelines": "Prefer the truth."})
    tracking.open_queue(changed, make_pairs(1), served_run)
    asked = ask("list_label_schemas", experiment_id=opened.experiment_id)
    ours = [(row.name, row.instruction) for row in asked if row.name != "Feedback"]
    assert [name for name, _ in ours] == [VERDICT, STRENGTH, BETTER_ANSWER]
    assert ours[0][1] == "Prefer the truth."
