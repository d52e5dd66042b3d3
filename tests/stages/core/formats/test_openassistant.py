"""OpenAssistant's trees: best replies, ranked pairs, and trees made of message rows."""

import random

import pytest

from stages.core.formats import convert, gather, group_column, recognise
from stages.core.sources import Record

# A question with three ranked replies; the best one is followed by a question with one reply.
ROWS = [
    ("q", None, "prompter", "Why?", None),
    ("a0", "q", "assistant", "best", 0),
    ("a1", "q", "assistant", "good", 1),
    ("a2", "q", "assistant", "poor", 2),
    ("q2", "a0", "prompter", "Really?", None),
    ("b", "q2", "assistant", "Yes.", None),
]
MESSAGES = [
    {"message_id": own, "parent_id": parent, "role": role, "text": text, "rank": rank,
     "message_tree_id": "q", "deleted": False, "review_result": True, "lang": "en"}
    for own, parent, role, text, rank in ROWS
]  # fmt: skip
USER = {"role": "user", "content": "Why?"}
LATER = [USER, {"role": "assistant", "content": "best"}, {"role": "user", "content": "Really?"}]


def nested(own="q"):
    (node,) = [dict(message) for message in MESSAGES if message["message_id"] == own]
    node["replies"] = [nested(m["message_id"]) for m in MESSAGES if m["parent_id"] == own]
    return node


def tree():
    return {"message_tree_id": "q", "tree_state": "ready_for_export", "prompt": nested()}


def numbered(messages):
    return [Record(line, message) for line, message in enumerate(messages, 1)]


def test_trees_give_best_replies_pairs_and_prompts():
    assert recognise("sft", [tree()]) == "OpenAssistant trees"
    group = {"message_tree_id": "q"}
    assert convert("OpenAssistant trees", "sft", tree()) == [
        {"prompt": [USER], "completion": "best", **group},
        {"prompt": LATER, "completion": "Yes.", **group},
    ]
    pairs = convert("OpenAssistant trees", "preferences", tree())
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in pairs] == [
        ([USER], "best", "good"), ([USER], "best", "poor"), ([USER], "good", "poor")
    ]  # fmt: skip
    prompts = convert("OpenAssistant trees", "prompts", tree())
    assert [row["prompt"] for row in prompts] == [[USER], LATER]
    assert group_column("OpenAssistant trees") == "message_tree_id"


@pytest.mark.parametrize("seed", range(3))
def test_message_rows_become_the_same_trees_in_any_order(seed):
    assert recognise("preferences", MESSAGES) == "OpenAssistant messages"
    others = [
        message | {"message_id": "x" + message["message_id"], "message_tree_id": "x",
                   "parent_id": message["parent_id"] and "x" + message["parent_id"]}
        for message in MESSAGES
    ]  # fmt: skip
    rows = MESSAGES + others
    random.Random(seed).shuffle(rows)
    found = list(gather("OpenAssistant messages", iter(numbered(rows))))
    assert len(found) == 2
    assert {record.fields["message_tree_id"] for record in found} == {"q", "x"}
    for record in found:
        assert rows[record.line - 1]["parent_id"] is None
        pairs = convert("OpenAssistant messages", "preferences", record.fields)
        assert [row["chosen"] for row in pairs] == ["best", "best", "good"]
        assert {row["message_tree_id"] for row in pairs} == {record.fields["message_tree_id"]}


def test_what_is_no_message_or_has_lost_its_parent_is_named():
    rows = [MESSAGES[0], {"text": "x"}, {"message_id": "y"}, *MESSAGES[2:]]
    records = [*numbered(rows), Record(99, None, "broken JSON", "{")]
    found = list(gather("OpenAssistant messages", iter(records)))
    assert [(record.line, record.reason) for record in found if record.fields is None] == [
        (2, "column message_id missing"),
        (3, "column text missing"),
        (99, "broken JSON"),
        (6, "the message that it replies to is not in the file"),
        (7, "the message that it replies to is not in the file"),
    ]
    (whole,) = [record for record in found if record.fields]
    assert whole.line == 1
    pairs = convert("OpenAssistant messages", "preferences", whole.fields)
    assert [(row["chosen"], row["rejected"]) for row in pairs] == [("good", "poor")]


def test_deleted_and_failed_messages_are_left_out():
    rows = [dict(message) for message in MESSAGES]
    rows[1]["deleted"], rows[2]["review_result"] = True, False
    (record,) = gather("OpenAssistant messages", iter(numbered(rows)))
    assert [
        row["completion"] for row in convert("OpenAssistant messages", "sft", record.fields)
    ] == ["poor"]
    assert convert("OpenAssistant messages", "preferences", record.fields) == []


def test_messages_in_a_circle_and_endless_threads_end():
    circle = [
        MESSAGES[0] | {"message_id": "1", "parent_id": "2"},
        MESSAGES[0] | {"message_id": "2", "parent_id": "1"},
    ]
    assert [r.fields for r in gather("OpenAssistant messages", iter(numbered(circle)))] == [
        None
    ] * 2
    thread = [
        MESSAGES[0] | {"message_id": str(n), "parent_id": str(n - 1) if n else None}
        for n in range(5000)
    ]
    (record,) = gather("OpenAssistant messages", iter(numbered(thread)))
    with pytest.raises(ValueError, match="nested too deeply"):
        convert("OpenAssistant messages", "sft", record.fields)


def test_a_tree_with_foreign_nodes_is_refused():
    for bad, reason in (
        ("x", "no list of messages"),
        ({"role": "assistant"}, "message without text"),
        ({"text": "x", "role": "moderator"}, "another than prompter"),
        ({"text": "x", "role": "assistant", "replies": 3}, "no list"),
    ):
        record = tree()
        record["prompt"]["replies"].append(bad)
        with pytest.raises(ValueError, match=reason):
            convert("OpenAssistant trees", "prompts", record)
