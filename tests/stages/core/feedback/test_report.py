"""What a snapshot says of itself, and what it does not say."""

import datetime

import pytest

from stages.core.config import FeedbackSource
from stages.core.errors import UserError
from stages.core.feedback.preferences import feedback_data
from stages.core.feedback.report import log_lines, make_report, read_report

PSEUDONYMS = {"anna": "annotator-2", "ben": "annotator-1"}


def report_on(judgments, **settings):
    source = FeedbackSource(annotators="all", **settings)
    return make_report(feedback_data(judgments, source, PSEUDONYMS), source, PSEUDONYMS)


def test_the_figures_of_a_round(judge):
    judgments = [
        judge("anna", "a", "p", queue="round 1"),
        judge("ben", "b", "p", queue="round 1"),
        judge("anna", "a", "q", purpose="random", queue="round 1"),
        judge("ben", "a", "q", purpose="random", queue="round 2"),
        judge("ben", "tie", "r", queue="round 2"),
        judge("gpt", "b", "s", kind="ai"),
        judge("gpt", "b", "q", kind="ai"),
        judge("anna", "a", "g", purpose="gold", expected="a", queue="round 1"),
    ]
    report = report_on(judgments)
    assert (report.experiment, report.num_judgments) == ("feedback", 8)
    assert report.by_kind == {"human": 6, "ai": 2}
    assert report.by_queue == {"": 2, "round 1": 4, "round 2": 2}
    assert report.by_annotator == {"annotator-1": 3, "annotator-2": 3, "gpt": 2}
    assert [(one.kind, one.annotator) for one in report.annotators] == [
        ("ai", "gpt"),
        ("human", "annotator-1"),
        ("human", "annotator-2"),
    ]
    assert report.pairs == {"dropped": 1, "held_out": 1, "tie": 1, "train": 1}
    assert (report.num_conflicts, report.num_shared, report.num_reserved_prompts) == (1, 2, 1)
    # Two people, pairs (x, y) and (x, x): Do = 1/2, of 4 values 3 x and 1 y: De = 1/2.
    assert report.alpha == {"human": pytest.approx(0.0), "ai": None}
    assert report.first_at == datetime.datetime(2026, 11, 1, 1, tzinfo=datetime.UTC)
    assert report.last_at == datetime.datetime(2026, 11, 1, 8, tzinfo=datetime.UTC)
    assert {one.judgment_id: one.use for one in report.judgments} == {
        "a-001": "dropped",
        "a-002": "dropped",
        "a-003": "held_out",
        "a-004": "held_out",
        "a-005": "tie",
        "a-006": "train",
        "a-007": "overruled",
        "a-008": "gold",
    }
    assert report.judgments[4].trace_id == "tr-005"
    assert not {"anna", "ben"} & set(report.model_dump_json().replace('"', " ").split())


def test_who_is_left_out_is_named_by_pseudonym_with_the_reason(judge):
    careless = [judge("ben", "a", f"g{n}", purpose="gold", expected="b") for n in range(5)]
    report = report_on([*careless, judge("ben", "a", "p"), judge("anna", "a", "p")])
    (one,) = (one for one in report.annotators if one.left_out)
    assert one.annotator == "annotator-1"
    assert one.left_out == "0 of 5 gold pairs as expected, below min_gold_accuracy=0.6"
    assert report.alpha == {"human": None}  # ben's do not count there either


def test_the_log_shows_pairs_agreement_and_annotators(judge):
    careless = [judge("ben", "a", f"g{n}", purpose="gold", expected="b") for n in range(5)]
    shared = [judge(name, "a", "p") for name in ("anna", "carl")]
    shared += [judge(name, "b", "q") for name in ("anna", "carl")]
    source = FeedbackSource()
    names = PSEUDONYMS | {"carl": "annotator-3"}
    report = make_report(feedback_data([*careless, *shared], source, names), source, names)
    assert log_lines(report) == [
        "9 judgments of pairs: 2 train; 2 of them judged by several, alpha of people 1.00",
        "annotator-1: 5 judgments, 0\u00a0% of 5 gold pairs as expected, A in 100\u00a0%, left out "
        "(0 of 5 gold pairs as expected, below min_gold_accuracy=0.6)",
        "annotator-2: 2 judgments, with the majority on 100\u00a0% of 2 pairs, A in 50\u00a0%",
        "annotator-3: 2 judgments, with the majority on 100\u00a0% of 2 pairs, A in 50\u00a0%",
    ]


def test_a_report_survives_its_file_and_a_damaged_one_is_named(judge, tmp_path):
    report = report_on([judge()])
    path = tmp_path / "feedback.json"
    path.write_text(report.model_dump_json())
    assert read_report(path) == report
    path.write_text("{}")
    with pytest.raises(UserError, match="feedback.json: damaged; remove its folder"):
        read_report(path)
    with pytest.raises(UserError, match="No such file"):
        read_report(tmp_path / "gone.json")
