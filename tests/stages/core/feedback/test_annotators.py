"""Gold pairs, agreement and position bias, counted by hand."""

import pytest

from stages.core.config import FeedbackSource
from stages.core.feedback.annotators import qualities


def by_name(judgments, **settings):
    return {one.annotator: one for one in qualities(judgments, FeedbackSource(**settings))}


def gold(judge, annotator, verdicts):
    """Judgments of gold pairs that expect A, then B, in turn."""
    return [
        judge(annotator, verdict, f"gold {n}", purpose="gold", expected="ab"[n % 2])
        for n, verdict in enumerate(verdicts)
    ]


def test_gold_pairs_tell_who_is_careful(judge):
    careful = gold(judge, "anna", "ababa")
    hasty = gold(judge, "ben", "aaaaa")  # 3 of 5
    few = gold(judge, "carl", ["b", "tie", "b", "both_bad"])  # 0 of 4: one too few to leave out
    found = by_name([*careful, *hasty, *few], min_gold_accuracy=0.7)
    assert [found[name].gold_accuracy for name in ("anna", "ben", "carl")] == [1.0, 0.6, 0.0]
    assert [found[name].num_gold for name in ("anna", "ben", "carl")] == [5, 5, 4]
    assert found["ben"].left_out == "3 of 5 gold pairs as expected, below min_gold_accuracy=0.7"
    assert not found["anna"].left_out
    assert not found["carl"].left_out
    assert not by_name(hasty, min_gold_accuracy=0.6)["ben"].left_out


def test_a_gold_pair_without_an_answer_says_nothing(judge):
    (only,) = qualities([judge(purpose="gold", expected=None)], FeedbackSource())
    assert (only.num_gold, only.gold_accuracy) == (0, None)


def test_agreement_is_with_the_majority_of_the_others(judge):
    votes = []
    for number in range(10):
        other = "b" if number < 7 else "a"
        votes += [judge("anna", "a", str(number)), judge("ben", "a", str(number))]
        votes += [judge("carl", other, str(number))]
    found = by_name(votes, min_agreement=0.5)
    # Of carl's ten pairs anna and ben agree on each: he is with them on three. They have a
    # majority of the others on those three alone.
    assert (found["carl"].num_compared, found["carl"].agreement) == (10, 0.3)
    assert found["carl"].left_out == "with the majority on 3 of 10 pairs, below min_agreement=0.5"
    assert (found["anna"].num_compared, found["anna"].agreement) == (3, 1.0)
    assert not found["anna"].left_out
    assert not by_name(votes)["carl"].left_out


def test_people_are_not_compared_with_language_models(judge):
    votes = [judge("anna", "a"), judge("m1", "b", kind="ai"), judge("m2", "b", kind="ai")]
    found = by_name(votes, annotators="all")
    assert (found["anna"].num_compared, found["anna"].agreement) == (0, None)
    assert (found["m1"].num_compared, found["m1"].agreement) == (1, 0.0)
    found = by_name(votes[1:], annotators="all")
    assert found["m1"].agreement == 1.0


def test_the_share_of_a_shows_a_bias_for_one_side(judge):
    votes = [
        judge("anna", verdict, str(n)) for n, verdict in enumerate(["a", "a", "a", "b", "tie"])
    ]
    assert by_name(votes)["anna"].share_of_a == 0.75
    assert by_name([judge("ben", "tie")])["ben"].share_of_a is None


def test_both_reasons_are_named(judge):
    votes = gold(judge, "carl", "bbbbb")
    for number in range(10):
        votes += [judge(name, verdict, str(number)) for name, verdict in
                  (("anna", "a"), ("ben", "a"), ("carl", "b"))]  # fmt: skip
    reason = by_name(votes, min_agreement=0.1)["carl"].left_out
    assert reason.count("below") == 2
    assert "carl" not in reason


@pytest.mark.parametrize("judgments", [[], None])
def test_nobody_has_no_quality(judgments):
    assert qualities(judgments or [], FeedbackSource()) == []
