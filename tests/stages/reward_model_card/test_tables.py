"""Groups of pairs, their tables, and the worst pairs."""

from collections.abc import Callable

import numpy as np

from stages.reward_model_card.pairs import Judged, Sides
from stages.reward_model_card.tables import length_groups, margin_groups, tables, worst_pairs

MakeJudged = Callable[..., Judged]


def test_deciles_of_the_score_difference(make_judged: MakeJudged) -> None:
    # Wrong in the closest ten of a hundred pairs, right elsewhere.
    judged = make_judged([-float(n) if n <= 10 else float(n) for n in range(1, 101)])
    groups = margin_groups(judged)
    assert [group.size for group in groups] == [10] * 10
    assert [group.accuracy.value for group in groups] == [0.0] + [1.0] * 9
    assert (groups[0].low, groups[0].median, groups[0].high) == (1.0, 5.5, 10.0)


def test_equal_values_stay_in_one_group(make_judged: MakeJudged) -> None:
    lengths = Sides(np.array([1.0] * 30 + [5.0] * 10 + [8.0] * 10), np.full(50, 5.0))
    groups = length_groups(make_judged([1.0] * 50, lengths=lengths))
    assert [(group.low, group.high) for group in groups] == [(-4, -4), (0, 0), (3, 3)]
    assert [group.size for group in groups] == [30, 10, 10]
    assert [group.longer_wins.value for group in groups] == [0.0, 0.5, 1.0]


def test_few_or_equal_pairs_are_not_grouped_and_the_table_says_why(make_judged: MakeJudged) -> None:
    few, alike, *_ = tables(make_judged([1.0, 2.0, 3.0]))
    assert few.rows == []
    assert few.explanation == "Left out: 3 pairs are too few to be grouped."
    by_margin, by_length, *_ = tables(make_judged([1.0, -1.0] * 20))
    assert by_margin.explanation == "Left out: in all pairs both scores lie equally far apart."
    assert by_length.explanation == "Left out: in all pairs the lengths differ equally."
    assert by_margin.rows == by_length.rows == alike.rows == []


def test_every_row_is_as_wide_as_its_head(many_judged: Judged) -> None:
    found = tables(many_judged)
    assert [table.title for table in found] == [
        "Accuracy by score difference",
        "Accuracy by length difference",
        "Calibration",
        "Accuracy by source",
    ]
    for table in found:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.columns)}
    assert sum(int(row[1]) for row in found[0].rows) == many_judged.num_pairs
    assert sum(int(row[1]) for row in found[2].rows) == many_judged.num_pairs


def test_the_worst_pairs_come_first_and_none_that_is_right(make_judged: MakeJudged) -> None:
    judged = make_judged([1.0, -0.5, -2.0, 0.0, -1.0])
    worst = worst_pairs(judged, 2)
    assert [pair["margin"] for pair in worst] == [-2.0, -1.0]
    assert worst[0]["prompt"] == "What is 2?"
    assert worst[0]["chosen"] == "chosen 2"
    assert "guard_margin" not in worst[0]
    assert len(worst_pairs(judged, 20)) == 3
    assert worst_pairs(judged, 0) == []
    assert worst_pairs(make_judged([1.0]), 5) == []
    guard = Sides(np.full(5, 0.25), np.zeros(5))
    with_guard = make_judged([1.0, -0.5, -2.0, 0.0, -1.0], guard=guard)
    assert worst_pairs(with_guard, 1)[0]["guard_margin"] == 0.25
