"""Argilla's exports in their three shapes."""

import pytest

from stages.core.formats import convert, recognise
from stages.core.schemas import parse_row

TEXTS = {"prompt": "Why?", "response-1": "So.", "response-2": "No."}
RANKING = [{"value": "response-2", "rank": 2}, {"value": "response-1", "rank": 1}]
PAIR = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}


def nested_2(**parts):
    return {"id": "1", "status": "completed", "fields": TEXTS, "metadata": {}, "suggestions": {},
            "responses": {}, "_server_id": "x"} | parts  # fmt: skip


def pairs(record):
    assert recognise("preferences", [record]) == "Argilla"
    return [parse_row("preferences", row) for row in convert("Argilla", "preferences", record)]


@pytest.mark.parametrize(
    "value",
    [
        RANKING,
        {"value": ["response-2", "response-1"], "rank": [2, 1]},
        ["response-1", "response-2"],
        "response-1",
        "response_1",
        "1",
    ],
)
def test_rankings_and_labels_give_pairs(value):
    record = nested_2(responses={"preference": [{"value": value, "user_id": "ann"}]})
    assert pairs(record) == [PAIR | {"annotator": "ann"}]


@pytest.mark.parametrize("value", ["tie", "", "response", None, 3, ["x"], [], {"a": 1},
                                   [{"value": "response-1", "rank": 1},
                                    {"value": "response-2", "rank": 1}]])  # fmt: skip
def test_answers_that_prefer_nothing_give_no_pair(value):
    assert pairs(nested_2(responses={"preference": [{"value": value, "user_id": "ann"}]})) == []


def test_all_three_shapes_give_the_same_pairs():
    # One annotator's answer counts; a draft, a discarded one and the suggestion do not.
    other = list(reversed(["response-1", "response-2"]))
    states = [("submitted", "ann", ["response-1", "response-2"]), ("draft", "bob", other),
              ("discarded", "cy", other)]  # fmt: skip
    nested_1 = {
        "fields": TEXTS,
        "responses": [
            {"user_id": user, "status": status, "values": {"ranking": {"value": value}}}
            for status, user, value in states
        ],
        "suggestions": [{"question_name": "ranking", "value": other}],
    }
    nested = nested_2(
        responses={"ranking": [{"value": v, "user_id": u, "status": s} for s, u, v in states]},
        suggestions={"ranking": {"value": other, "score": None, "agent": "m"}},
    )
    flat_2 = {
        "id": "1", "status": "completed", "_server_id": "x", **TEXTS,
        "ranking.responses": [value for _, _, value in states],
        "ranking.responses.users": [user for _, user, _ in states],
        "ranking.responses.status": [status for status, _, _ in states],
        "ranking.suggestion": other, "ranking.suggestion.score": None,
    }  # fmt: skip
    flat_1 = {
        **TEXTS,
        "ranking": [{"user_id": u, "status": s, "value": v} for s, u, v in states],
        "ranking-suggestion": other, "ranking-suggestion-metadata": {"type": None},
        "external_id": None, "metadata": "{}",
    }  # fmt: skip
    for record in (nested_1, nested, flat_2, flat_1):
        assert pairs(record) == [PAIR | {"annotator": "ann"}]


def test_a_suggestion_counts_where_nobody_answered():
    record = nested_2(suggestions={"ranking": {"value": ["response-2", "response-1"]}})
    assert pairs(record) == [{"prompt": "Why?", "chosen": "No.", "rejected": "So."}]


def test_each_annotator_gives_pairs_of_their_own():
    given = [{"value": "response-1", "user_id": "a"}, {"value": "response-2", "user_id": "b"}]
    rows = pairs(nested_2(responses={"better": given}))
    assert [(row["chosen"], row["annotator"]) for row in rows] == [("So.", "a"), ("No.", "b")]


@pytest.mark.parametrize(
    ("record", "completion"),
    [
        (nested_2(responses={"response": [{"value": "Written.", "user_id": "a"}]}), "Written."),
        (nested_2(responses={"ranking": [{"value": RANKING, "user_id": "a"}]}), "So."),
        (nested_2(fields={"instruction": "Why?", "response": "So."}), "So."),
        (nested_2(), None),
    ],
)
def test_demonstrations(record, completion):
    assert recognise("sft", [record]) == "Argilla"
    rows = [{"prompt": "Why?", "completion": completion}] if completion else []
    assert convert("Argilla", "sft", record) == rows
    assert convert("Argilla", "prompts", record) == [{"prompt": "Why?"}]


def test_a_record_without_a_prompt_is_refused():
    with pytest.raises(ValueError, match="no field is a prompt: none is called prompt, "):
        convert("Argilla", "preferences", nested_2(fields={"text": "x"}))
