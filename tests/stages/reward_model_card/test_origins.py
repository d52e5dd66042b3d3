"""Accuracy by origin, against values counted by hand."""

from collections.abc import Callable

import numpy as np
import pytest

from stages.reward_model_card.origins import by_origin, origin_metrics, origin_tables
from stages.reward_model_card.pairs import Judged, Sides

MakeJudged = Callable[..., Judged]
SOURCES = ["feedback:human"] * 4 + ["feedback:ai"] * 2 + ["town", ""]
MARGINS = [1.0, 2.0, 0.0, -1.0, 1.0, 1.0, -1.0, 3.0]
BEFORE = np.array([1.0, -2.0, -1.0, -1.0, 1.0, 1.0, 1.0, 3.0])


def test_people_ai_and_files_are_counted_apart(make_judged: MakeJudged) -> None:
    origins = by_origin(make_judged(MARGINS, sources=SOURCES), num_samples=100, seed=0)
    metrics = origin_metrics(origins)
    assert (metrics["num_pairs/feedback_human"], metrics["accuracy/feedback_human"]) == (4, 0.625)
    assert (metrics["num_pairs/feedback_ai"], metrics["accuracy/feedback_ai"]) == (2, 1.0)
    assert (metrics["num_pairs/files"], metrics["accuracy/files"]) == (2, 0.5)
    # Wilson's interval of 1 at n = 2 begins at 2 / (2 + 1.96²).
    assert metrics["accuracy/feedback_ai_low"] == pytest.approx(2 / (2 + 1.959964**2))
    assert not [name for name in metrics if "previous" in name]
    (table,) = origin_tables(origins)
    assert [row[:3] for row in table.rows] == [
        ["people", "4", "62.5 %"],
        ["a language model as judge", "2", "100.0 %"],
        ["files and other sources", "2", "50.0 %"],
    ]


def test_the_champions_reward_model_stands_beside_the_new_one(make_judged: MakeJudged) -> None:
    previous = Sides(BEFORE, np.zeros(8))
    judged = make_judged(MARGINS, sources=SOURCES, previous=previous)
    origins = by_origin(judged, num_samples=200, seed=0)
    metrics = origin_metrics(origins)
    assert metrics["previous_accuracy/feedback_human"] == 0.25
    assert metrics["accuracy_minus_previous/feedback_human"] == 0.375
    low, high = (
        metrics[f"accuracy_minus_previous/feedback_human_{end}"] for end in ("low", "high")
    )
    assert 0 <= low <= 0.375 <= high
    assert metrics["accuracy_minus_previous/files"] == -0.5
    (table,) = origin_tables(origins)
    assert {len(row) for row in table.rows} == {len(table.columns)} == {8}
    assert table.rows[0][4] == "25.0 %"
    assert [row[6] for row in table.rows] == ["+37.5 points", "+0.0 points", "−50.0 points"]


def test_without_feedback_there_is_nothing_to_keep_apart(make_judged: MakeJudged) -> None:
    origins = by_origin(
        make_judged([1.0, 1.0], sources=["town", "harbour"]), num_samples=50, seed=0
    )
    assert origins == []
    assert origin_metrics(origins) == {}
    assert list(origin_tables(origins)) == []


def test_one_judgment_alone_is_an_origin(make_judged: MakeJudged) -> None:
    origins = by_origin(make_judged([1.0], sources=["feedback:human"]), num_samples=50, seed=0)
    assert [(origin.name, origin.num_pairs) for origin in origins] == [("feedback_human", 1)]
