"""Krippendorff's alpha against values computed by hand."""

import pytest

from stages.core.feedback.agreement import krippendorff_alpha, num_shared


def test_alpha_of_four_pairs_computed_by_hand(judge):
    """Choices xx, xx, yy, xy: 4 pairs of judges, so n = 8 values, 5 of x and 3 of y. Coincidences
    of different values: the last pair's 2. Do = 2/8; De = 2*5*3 / (8*7) = 30/56;
    alpha = 1 - (1/4) / (30/56) = 8/15."""
    table = {"p": "aa", "q": "aa", "r": "bb", "s": "ab"}
    votes = [
        judge(name, verdict, prompt)
        for prompt, verdicts in table.items()
        for name, verdict in zip(("anna", "ben"), verdicts, strict=True)
    ]
    alone = judge("carl", "tie", "t")
    gold = [judge(name, "a", "g", purpose="gold", expected="a") for name in ("anna", "ben")]
    assert krippendorff_alpha([*votes, alone, *gold]) == pytest.approx(8 / 15)
    assert num_shared([*votes, alone, *gold]) == 4


def test_mirrored_pairs_are_compared_by_their_replies(judge):
    votes = [
        judge("anna", "a", "p"),
        judge("ben", "b", "p", ("y", "x")),
        judge("anna", "b", "q"),
        judge("ben", "a", "q", ("y", "x")),
    ]
    assert krippendorff_alpha(votes) == pytest.approx(1.0)


def test_alpha_is_undefined_without_shared_pairs_or_with_one_choice_alone(judge):
    assert krippendorff_alpha([]) is None
    assert krippendorff_alpha([judge("anna", "a", "p"), judge("ben", "b", "q")]) is None
    assert krippendorff_alpha([judge("anna"), judge("ben")]) is None


def test_judges_who_always_differ_have_an_alpha_below_zero(judge):
    votes = [judge("anna", "a"), judge("ben", "b")]
    assert krippendorff_alpha(votes) == pytest.approx(0.0)  # Do = De = 1 with two values
    more = [judge("anna", "b", "r"), judge("ben", "a", "r")]
    assert krippendorff_alpha([*votes, *more]) == pytest.approx(-0.5)  # 1 - 1 / (2*2*2/12)
