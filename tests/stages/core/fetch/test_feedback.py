"""Judgments in a real MLflow store become snapshots."""

import datetime

import pytest
from pydantic import ValidationError

from stages.core import tracking
from stages.core.config import CollectConfig, DataSource, FeedbackSource, ReviewQueueConfig
from stages.core.errors import UserError
from stages.core.feedback.judgments import Judgment
from stages.core.feedback.pairs import CandidatePair, pair_id
from stages.core.feedback.report import read_report
from stages.core.fetch import cache_folder
from stages.core.fetch.__main__ import fetch_all
from stages.core.fetch.sources import fetch, source_name
from stages.core.schemas import read_jsonl
from stages.core.tracking.client import PatientClient, experiment_id

ALL = FeedbackSource(annotators="all")


def quiet(done, total, unit):
    """No progress is looked at."""


@pytest.fixture(scope="module")
def made_store(tmp_path_factory):
    """A store with its tables, which take seconds to make."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        PatientClient().search_experiments()
    return path


@pytest.fixture
def run_id(made_store, tmp_path, monkeypatch):
    """A run for the pairs' file, in a store of the test's own."""
    path = tmp_path / "mlflow.db"
    path.write_bytes(made_store.read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    return PatientClient().create_run(experiment_id(PatientClient(), "pipelines")).info.run_id


def pair(prompt, purpose="chosen"):
    return CandidatePair(
        pair_id=pair_id(prompt, "x", "y"),
        prompt=prompt,
        reply_a="x",
        reply_b="y",
        purpose=purpose,
    )


def judged(of, verdict="a", annotator="anna@example.org", kind="human", day=2, **said):
    return Judgment(
        judgment_id="",
        trace_id="",
        queue="",
        pair=of,
        verdict=verdict,
        annotator=annotator,
        annotator_kind=kind,
        created_at=datetime.datetime(2026, 11, day, tzinfo=datetime.UTC),
        **said,
    )


ROUND = [
    judged(pair("How?"), "a", better_answer="Like this."),
    judged(pair("Why?"), "tie"),
    judged(pair("Who?", "random"), "b", day=4),
    judged(pair("When?"), "b", "gpt", "ai", day=3),
]


def rows(snapshot, name):
    path = cache_folder() / snapshot.folder / name
    return list(read_jsonl(path)) if path.exists() else None


def test_a_snapshot_holds_rows_prompts_kept_out_and_a_report(run_id):
    tracking.record_judgments("feedback", ROUND, run_id)
    snapshot = fetch(ALL, cache_folder(), quiet)
    assert [(row["prompt"], row["source"]) for row in rows(snapshot, "preferences.jsonl")] == [
        (prompt, source)
        for _, prompt, source in sorted(
            (pair(prompt).pair_id, prompt, source)
            for prompt, source in (("How?", "feedback:human"), ("When?", "feedback:ai"))
        )
    ]
    (held_out,) = rows(snapshot, "preferences_held_out.jsonl")
    assert (held_out["prompt"], held_out["chosen"]) == ("Who?", "y")
    assert rows(snapshot, "sft.jsonl") == [{"prompt": "How?", "completion": "Like this."}]
    assert rows(snapshot, "sft_held_out.jsonl") is None
    assert rows(snapshot, "reserved.jsonl") == [{"prompt": "who?"}]
    report = read_report(cache_folder() / snapshot.folder / "feedback.json")
    assert report.by_kind == {"human": 3, "ai": 1}
    assert len({one.trace_id for one in report.judgments}) == 4
    assert snapshot.records == 4
    assert snapshot.version == {
        "judgments": "4",
        "annotators": "2",
        "since": "2026-11-02T00:00:00+00:00",
        "until": "2026-11-04T00:00:00+00:00",
    }


def test_no_name_is_in_a_snapshot_or_the_log(run_id, capfd):
    tracking.record_judgments("feedback", ROUND, run_id)
    snapshot = fetch(ALL, cache_folder(), quiet)
    name = tracking.pseudonym("feedback", "anna@example.org")
    folder = cache_folder() / snapshot.folder
    assert rows(snapshot, "preferences_held_out.jsonl")[0]["annotator"] == name
    for path in folder.iterdir():
        assert "anna" not in path.read_text(), path
    log = capfd.readouterr().out
    assert "4 judgments of pairs: " in log
    assert f"{name}: 3 judgments, A in 50" in log
    assert "anna" not in log


def test_equal_judgments_are_the_same_snapshot_and_a_changed_one_is_not(run_id):
    tracking.record_judgments("feedback", ROUND, run_id)
    first = fetch(ALL, cache_folder(), quiet)
    assert fetch(ALL, cache_folder(), quiet).digest == first.digest
    tracking.record_judgments("feedback", [judged(pair("Why?"), "a", day=5)], run_id)
    second = fetch(ALL, cache_folder(), quiet)
    assert second.digest != first.digest
    assert len(rows(second, "preferences.jsonl")) == 3
    assert len(rows(first, "preferences.jsonl")) == 2  # results that were made of it keep it


def test_prompts_that_are_only_asked_about_are_kept_out_of_training(run_id):
    queue = ReviewQueueConfig(name="round 1")
    tracking.open_queue(queue, [pair("Where?", "random"), pair("What?")], run_id)
    tracking.record_judgments("feedback", ROUND, run_id)
    snapshot = fetch(ALL, cache_folder(), quiet)
    assert rows(snapshot, "reserved.jsonl") == [{"prompt": "where?"}, {"prompt": "who?"}]


def test_nobody_has_judged_yet(run_id):
    opened = tracking.open_queue(ReviewQueueConfig(name="round 1"), [pair("What?")], run_id)
    with pytest.raises(UserError, match="nobody has judged a pair yet: open the queue") as refusal:
        fetch(FeedbackSource(), cache_folder(), quiet)
    assert f"/#/experiments/{opened.experiment_id}/review-queue" in str(refusal.value)
    with pytest.raises(UserError, match="no MLflow experiment is called 'gone'"):
        fetch(FeedbackSource(experiment="gone"), cache_folder(), quiet)


def test_settings_that_leave_no_judgment_are_named(run_id):
    tracking.record_judgments("feedback", ROUND, run_id)
    with pytest.raises(UserError, match="4 judgments, but none with annotators=human, since=2027"):
        fetch(FeedbackSource(since="2027-01-01"), cache_folder(), quiet)
    with pytest.raises(UserError, match="no review queue called 'round 9'"):
        fetch(FeedbackSource(queues=("round 9",)), cache_folder(), quiet)


def test_no_login_may_stand_in_the_settings():
    with pytest.raises(ValidationError, match="name the round alone"):
        FeedbackSource(queues=("round 1 · anna@example.org",))


def test_all_kinds_of_a_run_take_the_same_snapshot(run_id, capfd):
    tracking.record_judgments("feedback", ROUND, run_id)
    source = DataSource(feedback=(ALL,))
    inputs = fetch_all(CollectConfig(preferences=source, sft=source, prompts=source))
    names = {
        field: [artifact.path.rsplit("/", 1)[1] for artifact in artifacts]
        for field, artifacts in inputs
        if artifacts
    }
    assert names == {
        "preferences": ["preferences.jsonl"],
        "preferences_held_out": ["preferences_held_out.jsonl"],
        "sft": ["sft.jsonl"],
        "prompts": ["prompts.jsonl"],
        "prompts_held_out": ["prompts_held_out.jsonl"],
        "reserved": ["reserved.jsonl"],
    }
    assert capfd.readouterr().out.count("judgments in feedback: fetched") == 1


def test_a_kind_that_judgments_do_not_give_is_said(run_id, capfd):
    tracking.record_judgments("feedback", ROUND[2:3], run_id)
    source = DataSource(feedback=(FeedbackSource(),))
    inputs = fetch_all(CollectConfig(preferences=source, sft=source))
    assert (inputs.preferences, inputs.sft) == ((), ())
    assert len(inputs.preferences_held_out) == 1
    log = capfd.readouterr().out
    assert "warning: collect.preferences.feedback.0: the judgments give no pair to learn" in log
    assert "warning: collect.sft.feedback.0: the judgments give no better answer" in log


def test_a_refusal_names_the_setting(run_id):
    with pytest.raises(UserError, match=r"^collect.sft.feedback.0: no MLflow experiment"):
        fetch_all(CollectConfig(sft=DataSource(feedback=(FeedbackSource(),))))
    assert source_name(FeedbackSource()) == "judgments in feedback"
