"""Which judgments count."""

import datetime

from stages.core.config import FeedbackSource
from stages.core.feedback.votes import choice, counting, moment


def test_a_choice_is_the_same_whichever_side_stood_first(judge):
    assert choice(judge(verdict="a", replies=("x", "y"))) == "first"
    assert choice(judge(verdict="b", replies=("y", "x"))) == "first"
    assert choice(judge(verdict="a", replies=("y", "x"))) == "second"
    assert choice(judge(verdict="tie")) == "tie"
    assert choice(judge(verdict="both_bad")) == "both_bad"


def test_of_several_judgments_of_one_annotator_about_one_pair_the_last_counts(judge):
    early, mirrored = judge(verdict="a"), judge(verdict="a", replies=("y", "x"))
    other, by_ai = judge("ben"), judge("anna", kind="ai")
    found = counting([mirrored, other, by_ai, early], FeedbackSource(annotators="all"))
    assert {one.judgment_id for one in found} == {
        mirrored.judgment_id,
        other.judgment_id,
        by_ai.judgment_id,
    }


def test_a_login_in_another_spelling_is_the_same_annotator(judge):
    first, second = judge("Anna", "a"), judge("anna", "b")
    assert counting([first, second], FeedbackSource()) == [second]


def test_whose_judgments_count(judge):
    person, model = judge(), judge("m", kind="ai")
    for annotators, kept in (("human", [person]), ("ai", [model]), ("all", [person, model])):
        assert counting([person, model], FeedbackSource(annotators=annotators)) == kept


def test_the_time_range_begins_with_since_and_ends_before_until(judge):
    hours = [judge(prompt=str(number)) for number in range(1, 6)]  # 01:00 to 05:00 UTC
    source = FeedbackSource(since="2026-11-01T03:00+01:00", until="2026-11-01T04:00")
    assert counting(hours, source) == sorted(hours[1:3], key=lambda one: one.pair.pair_id)
    assert counting(hours, FeedbackSource(since="2026-11-02")) == []


def test_a_time_without_an_offset_is_utc():
    midnight = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
    assert moment("2026-11-01") == midnight == moment("2026-11-01T01:00+01:00")
    assert moment("") is None
