"""Records in known formats with anything in the place of any value: refused, never a crash."""

import copy

import pytest

from stages.core.formats import convert, describe, gather, group_column, recognise
from stages.core.formats.recognition import FORMATS
from stages.core.schemas import parse_row
from stages.core.sources import Record

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 1}]
REPLY = {"message_id": "2", "parent_id": "1", "role": "assistant", "text": "b", "rank": 0}
RECORDS = {
    "Argilla": [
        {"fields": {"prompt": "a", "response-1": "b", "response-2": "c"},
         "responses": {"q": [{"value": [{"value": "response-1", "rank": 1}], "user_id": "u"}]},
         "suggestions": {"q": {"value": "response-1"}}},
        {"fields": {"prompt": "a", "response-1": "b"},
         "responses": [{"values": {"q": {"value": "x"}}, "status": "submitted", "user_id": "u"}],
         "suggestions": [{"question_name": "q", "value": {"value": ["a"], "rank": [1]}}]},
        {"prompt": "a", "response_1": "b", "response_2": "c", "q.responses": ["response_1"],
         "q.responses.users": ["u"], "q.responses.status": ["submitted"], "q.suggestion": "b"},
        {"prompt": "a", "r": [{"value": "x", "user_id": "u", "status": "draft"}],
         "response": "b", "r-suggestion": ["response"], "r-suggestion-metadata": None},
    ],
    "OpenAssistant trees": [
        {"message_tree_id": "1", "prompt": {"text": "a", "role": "prompter", "replies": [
            REPLY | {"replies": [{"text": "c", "role": "prompter", "replies": []}]}, REPLY]}}],
    "UltraFeedback": [
        {"instruction": "a", "completions": [{"response": "b", "overall_score": 1.0},
                                             {"response": "c", "overall_score": 2}]}],
    "binarised UltraFeedback": [
        {"prompt": "a", "chosen": TURNS, "rejected": TURNS, "score_chosen": 2,
         "score_rejected": 1}],
    "OpenAI preferences": [
        {"input": {"messages": TURNS[:1]}, "preferred_output": TURNS[1:],
         "non_preferred_output": TURNS[1:]}],
    "ShareGPT pairs": [
        {"conversations": [{"from": "human", "value": "a"}],
         "chosen": {"from": "gpt", "value": "b"}, "rejected": {"from": "gpt", "value": "c"}}],
    "HH-RLHF dialogues": [{"chosen": "\n\nHuman: a\n\nAssistant: b",
                           "rejected": "\n\nHuman: a\n\nAssistant: c"}],
    "ShareGPT": [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
                  "system": "s"}],
    "messages": [{"messages": [*TURNS, {"role": "user", "content": [{"text": "a"}]}, TURNS[1]]}],
    "ChatML text": [{"text": "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>"}],
    "Alpaca": [{"instruction": "a", "input": "b", "output": "c", "system": "s",
                "history": [["d", "e"]]}],
    "Alpaca pairs": [{"instruction": "a", "chosen": "b", "rejected": "c", "history": []}],
    "question pairs": [{"question": "a", "response_chosen": "b", "response_rejected": "c"}],
    "Dolly": [{"instruction": "a", "context": "b", "response": "c"}],
    "TRL unpaired preference": [{"prompt": "a", "completion": "b", "label": True}],
    "TRL preference": [{"prompt": "a", "chosen": "b", "rejected": "c"}],
    "TRL conversational preference": [{"prompt": TURNS[:1], "chosen": TURNS[1:],
                                       "rejected": TURNS[1:]}],
    "TRL conversational preference, implicit prompt": [{"chosen": TURNS, "rejected": TURNS}],
    "TRL prompt-completion": [{"prompt": "a", "completion": "b"}],
    "TRL conversational prompt-completion": [{"prompt": TURNS[:1], "completion": TURNS[1:]}],
    "TRL prompt-only": [{"prompt": "a"}],
}  # fmt: skip
JUNK = (None, True, 0, -1.5, float("nan"), 10**400, "", "x", "\ud800", [], [None], ["x"], [[]],
        [3, "x"], {}, {"a": 1}, {"value": None}, {"role": "user"}, [{"role": []}], [{"from": 1}],
        {"role": "user", "content": {}}, [{}])  # fmt: skip


def places(value, path=()):
    """The paths to all values within a record."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def replaced(record, path, junk):
    damaged = copy.deepcopy(record)
    inner = damaged
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = copy.deepcopy(junk)
    return damaged


def check(name, kind, record):
    """Whatever a record holds, it becomes rows or a reason of one line."""
    reason = ""
    try:
        for row in convert(name, kind, record):
            parse_row(kind, row)
    except ValueError as error:
        reason = str(error)
    assert "\n" not in reason


@pytest.mark.parametrize("name", FORMATS)
def test_a_value_of_any_type_is_refused_or_read(name):
    for kind in FORMATS[name].rows:
        for record in RECORDS.get(name, RECORDS["OpenAssistant trees"]):
            for path in list(places(record))[1:]:
                for junk in JUNK:
                    damaged = replaced(record, path, junk)
                    check(name, kind, damaged)
                    FORMATS[name].matches(damaged)


def test_message_rows_with_values_of_any_type_become_trees_or_reasons():
    root = REPLY | {"message_id": "1", "parent_id": None, "message_tree_id": "1"}
    rows = [root] + [
        record | {name: junk}
        for record in (root, REPLY | {"message_tree_id": "1"})
        for name in record
        for junk in JUNK
    ]
    records = [Record(line, row) for line, row in enumerate(rows, 1)]
    found = list(gather("OpenAssistant messages", iter(records)))
    assert len(found) > len(JUNK)
    for tree in found:
        assert tree.reason or tree.fields
        if tree.fields:
            check("OpenAssistant messages", "preferences", tree.fields)


@pytest.mark.parametrize("kind", ["sft", "preferences", "prompts"])
def test_every_format_survives_the_records_of_all_others(kind):
    records = [record for given in RECORDS.values() for record in given]
    for name, known in FORMATS.items():
        if kind in known.rows:
            for record in [*records, {}]:
                check(name, kind, record)
            assert describe(name, kind)
            assert isinstance(group_column(name), str)


def test_each_record_here_is_recognised():
    for name, known in FORMATS.items():
        for record in RECORDS.get(name, ()):
            assert recognise(next(iter(known.rows)), [record]) == name, name
