"""What counts as a reviewer's; the whole way is in test_forget_command."""

import datetime
import json
from pathlib import Path

from flows import withdrawal
from stages.core.config import FeedbackSource
from stages.core.feedback.judgments import Judgment
from stages.core.feedback.pairs import CandidatePair, pair_id
from stages.core.feedback.preferences import feedback_data
from stages.core.feedback.report import make_report
from stages.core.fetch.feedback import keep_feedback
from stages.core.fetch.snapshots import PART, cache_folder


def _snapshot(annotator: str, experiment: str = "feedback") -> Path:
    """A snapshot with one judgment of somebody whose pseudonym is p-NAME."""
    pair = CandidatePair(pair_id=pair_id("q", "x", "y"), prompt="q", reply_a="x", reply_b="y")
    judgment = Judgment(
        judgment_id="a", trace_id="t", queue="", pair=pair, verdict="a", annotator=annotator,
        created_at=datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC),
    )  # fmt: skip
    source, pseudonyms = FeedbackSource(experiment=experiment), {annotator: f"p-{annotator}"}
    data = feedback_data([judgment], source, pseudonyms)
    report = make_report(data, source, pseudonyms)
    return cache_folder() / keep_feedback(cache_folder(), source, data, report).folder


def test_snapshots_are_theirs_by_pseudonym_and_experiment(data_root: Path) -> None:
    theirs = _snapshot("anna")
    _snapshot("ben")
    _snapshot("anna", "another")
    other = cache_folder() / "download" / "content"
    other.mkdir(parents=True)
    (other / "feedback.json").write_text('{"p-anna": 1}')
    (found,) = withdrawal._snapshots("feedback", {"p-anna"})
    assert found == (theirs, theirs.name)


def test_what_a_broken_off_fetch_left_is_theirs_too(data_root: Path) -> None:
    part = cache_folder() / "source" / PART
    part.mkdir(parents=True)
    (part / "preferences.jsonl").write_text(json.dumps({"annotator": "p-anna"}))
    assert list(withdrawal._snapshots("feedback", {"p-anna"})) == [(part, "")]
    assert list(withdrawal._snapshots("feedback", {"p-ben"})) == []


def test_tags_name_snapshots_and_who_withdrew() -> None:
    tags = {"feedback_snapshot": "aaa,bbb", "withdrawn_annotators": "p-anna"}
    assert withdrawal._mentions(tags, {"bbb"}, "p-ben")
    assert withdrawal._mentions(tags, set(), "p-anna")
    assert not withdrawal._mentions(tags, {"b"}, "p-ann")
    assert withdrawal._with(tags, "p-ben") == "p-anna,p-ben"
    assert withdrawal._with({}, "p-ben") == "p-ben"
