import pytest

from stages.core.data_check import check_files
from stages.core.data_check.layout import layout

TURNS = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hello."}]
HH = "\n\nHuman: Hello?\n\nAssistant:"


@pytest.mark.parametrize(
    ("record", "kind", "name", "mapping"),
    [
        ({"prompt": "a", "completion": "b"}, "sft", "TRL prompt-completion", {}),
        ({"prompt": "a", "response": "b"}, "sft", "prompt and response", {}),
        ({"query": "a", "reply": "b"}, "sft", "", {"prompt": "query", "completion": "reply"}),
        ({"instruction": "a", "input": "", "output": "b"}, "sft", "Alpaca", {}),
        ({"conversations": TURNS}, "sft", "ShareGPT", {}),
        ({"chosen": HH + " a", "rejected": HH + " b"}, "preferences", "HH-RLHF dialogues", {}),
        ({"question": "a", "chosen": "b", "rejected": "c"}, "preferences", "",
         {"prompt": "question"}),
        ({"text": "a", "label": 1}, "labelled", "", {}),
        ({"review": "a", "label": 1}, "labelled", "", {"text": "review"}),
        ({"text": "a", "category": "news"}, "documents", "", {}),
        ({"content": "a"}, "documents", "", {"text": "content"}),
        ({"prompt": "a"}, "prompts", "TRL prompt-only", {}),
    ],
)  # fmt: skip
def test_kind_format_and_columns_are_told_by_the_first_records(record, kind, name, mapping):
    assert layout([record]) == (kind, mapping, name)


def test_what_is_configured_is_taken_at_its_word():
    record = {"instruction": "a", "output": "b", "text": "c"}
    mapping = {"prompt": "instruction", "completion": "output"}
    assert layout([record], "sft", mapping) == ("sft", mapping, "")
    assert layout([record], "", mapping) == ("sft", mapping, "")
    assert layout([record], "documents") == ("documents", {}, "")
    assert layout([{"foo": 1}]) is None


def test_converted_records_are_checked_as_rows(write, found):
    records = [
        {"instruction": "Add.", "input": "1 2", "output": "3</s>"},
        {"instruction": "Add.", "input": "1 2", "output": "3</s>"},
        {"instruction": "Add.", "input": "2 2", "output": ""},
    ]
    report = check_files([write(records)])
    assert report.files[0].format == "Alpaca"
    assert found(report) == {
        "empty": (1, "completion is empty", ["data.jsonl:3"]),
        "special-token-end": (2, "completion </s> 2×", ["data.jsonl:1", "data.jsonl:2"]),
        "duplicate": (1, "", ["data.jsonl:2"]),
    }
    assert (report.records, report.usable) == (3, 2)


def test_turns_of_other_names_are_checked_for_their_order(write, found):
    records = [{"conversations": TURNS}, {"conversations": [*TURNS, *TURNS[1:]]}]
    report = check_files([write([*records, {"conversations": TURNS[:1]}])])
    assert report.files[0].format == "ShareGPT"
    places = {code: places for code, (_, _, places) in found(report).items()}
    assert {place for some in places.values() for place in some} >= {"data.jsonl:3"}
    assert "role-order" in places


def test_a_record_may_give_several_pairs(write):
    replies = [
        {"text": f"reply {rank}", "role": "assistant", "rank": rank, "replies": []}
        for rank in range(3)
    ]
    tree = {
        "message_tree_id": "1",
        "prompt": {"text": "Hello?", "role": "prompter", "replies": replies},
    }
    report = check_files([write([tree])], "preferences")
    assert report.files[0].format == "OpenAssistant trees"
    assert (report.records, report.usable) == (1, 1)
