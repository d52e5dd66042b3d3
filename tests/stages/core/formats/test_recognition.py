"""Known formats: recognised by the first records, converted record by record.

The fixtures are written after each data set's own description; no line of them is anybody's data.
"""

import re
from itertools import islice
from pathlib import Path

import pytest

from stages.core.formats import convert, describe, recognise
from stages.core.formats.recognition import FORMATS
from stages.core.schemas import parse_row
from stages.core.sources import read_records


def turns(*texts, keys=("role", "content"), names=("user", "assistant")):
    return [dict(zip(keys, (names[i % 2], text), strict=True)) for i, text in enumerate(texts)]


def sharegpt(*texts):
    return turns(*texts, keys=("from", "value"), names=("human", "gpt"))


DIALOGUE = turns("Hi", "Hello", "Why?")
HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:"
SFT = {"prompt": "Why?", "completion": "So."}
PAIR = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
SYSTEM = {"role": "system", "content": "Be kind."}

CASES = [
    # name, kind, record, rows after parse_row
    ("TRL prompt-completion", "sft", SFT, [SFT]),
    ("TRL conversational prompt-completion", "sft",
     {"prompt": turns("Why?"), "completion": [{"role": "assistant", "content": "So."}]}, [SFT]),
    ("TRL unpaired preference", "sft", SFT | {"label": True}, [SFT]),
    ("TRL preference", "preferences", PAIR, [PAIR]),
    ("TRL preference", "sft", PAIR, [SFT]),
    ("TRL preference", "prompts", PAIR | {"rejected": "So."}, [{"prompt": "Why?"}]),
    ("TRL conversational preference", "preferences",
     {"prompt": DIALOGUE, "chosen": turns("So.", names=("assistant",)),
      "rejected": turns("No.", names=("assistant",))},
     [{"prompt": DIALOGUE, "chosen": "So.", "rejected": "No."}]),
    ("TRL conversational preference, implicit prompt", "preferences",
     {"chosen": turns("Why?", "So."), "rejected": turns("Why?", "No.")}, [PAIR]),
    ("TRL conversational preference, implicit prompt", "sft",
     {"chosen": turns("Why?", "So."), "rejected": turns("Why?", "No.")}, [SFT]),
    ("TRL prompt-only", "prompts", {"prompt": "Why?", "id": 3}, [{"prompt": "Why?"}]),
    ("messages", "sft", {"messages": turns("Why?", "So.")}, [SFT]),
    ("messages", "sft", {"conversations": turns("Why?", "So.")}, [SFT]),
    ("messages", "sft",
     {"messages": [{"role": "developer", "content": "Be kind."},
                   {"role": "user", "content": [{"type": "text", "text": "Why?"},
                                                {"type": "text", "text": "Tell."}]},
                   {"role": "assistant", "content": "So."}]},
     [{"prompt": [SYSTEM, {"role": "user", "content": "Why?\nTell."}], "completion": "So."}]),
    ("messages", "prompts", {"messages": turns("Hi", "Hello", "Why?", "So.")},
     [{"prompt": DIALOGUE}]),
    ("ShareGPT", "sft", {"conversations": sharegpt("Hi", "Hello", "Why?", "So.")},
     [{"prompt": DIALOGUE, "completion": "So."}]),
    ("ShareGPT", "sft", {"conversations": sharegpt("Why?", "So."), "system": "Be kind."},
     [{"prompt": [SYSTEM, *turns("Why?")], "completion": "So."}]),
    ("ShareGPT", "prompts", {"conversations": sharegpt("Why?", "So.")}, [{"prompt": "Why?"}]),
    ("ShareGPT pairs", "preferences",
     {"conversations": sharegpt("Why?"), "chosen": {"from": "gpt", "value": "So."},
      "rejected": {"from": "gpt", "value": "No."}}, [PAIR]),
    ("OpenAI preferences", "preferences",
     {"input": {"messages": turns("Why?"), "tools": []},
      "preferred_output": [{"role": "assistant", "content": "So."}],
      "non_preferred_output": [{"role": "assistant", "content": "No."}]}, [PAIR]),
    ("ChatML text", "sft",
     {"text": "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nSo.<|im_end|>\n"}, [SFT]),
    ("ChatML text", "prompts",
     {"text": "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"}, [{"prompt": "Why?"}]),
    ("HH-RLHF dialogues", "preferences", {"chosen": HH + " So.", "rejected": HH + " No."},
     [{"prompt": DIALOGUE, "chosen": "So.", "rejected": "No."}]),
    ("HH-RLHF dialogues", "sft", {"chosen": HH + " So.", "rejected": HH + " No."},
     [{"prompt": DIALOGUE, "completion": "So."}]),
    ("Alpaca", "sft", {"instruction": "Add.", "input": "1 and 2", "output": "3"},
     [{"prompt": "Add.\n\n1 and 2", "completion": "3"}]),
    ("Alpaca", "sft", {"instruction": "Why?", "input": "", "output": "So."}, [SFT]),
    ("Alpaca", "sft",
     {"instruction": "Why?", "output": "So.", "system": "Be kind.", "history": [["Hi", "Hello"]]},
     [{"prompt": [SYSTEM, *DIALOGUE], "completion": "So."}]),
    ("Alpaca", "prompts", {"instruction": "Why?", "output": "So."}, [{"prompt": "Why?"}]),
    ("Alpaca pairs", "preferences", {"instruction": "Why?", "chosen": "So.", "rejected": "No."},
     [PAIR]),
    ("question pairs", "preferences",
     {"question": "Why?", "response_chosen": "So.", "response_rejected": "No.", "system": "",
      "history": []}, [PAIR]),
    ("Dolly", "sft",
     {"instruction": "Why?", "context": "Rain.", "response": "So.", "category": "qa"},
     [{"prompt": "Why?\n\nRain.", "completion": "So."}]),
    ("instruction and response", "sft", {"instruction": "Why?", "response": "So."}, [SFT]),
    ("prompt and response", "sft", {"prompt": "Why?", "response": "So."}, [SFT]),
    ("question and answer", "sft", {"question": "Why?", "answer": "So.", "n": 1}, [SFT]),
    ("question and answer", "prompts", {"question": "Why?", "answer": "So."}, [{"prompt": "Why?"}]),
    *(("two replies compared", "preferences",
       {"prompt": "Why?", "response_a": "No.", "response_b": "So.", **verdict}, [PAIR])
      for verdict in ({"winner": "model_b"}, {"winner": "B"}, {"preference": "response_b"},
                      {"score_a": 1, "score_b": 4.5}, {"rating_a": -1, "rating_b": 0})),
    *(("two replies compared", "preferences",
       {"prompt": "Why?", "response_a": "No.", "response_b": "So.", **verdict}, [])
      for verdict in ({"winner": "tie"}, {"winner": "tie (bothbad)"},
                      {"score_a": 1, "score_b": 1})),
    ("two replies compared", "preferences",
     {"prompt": "Why?", "response_0": "So.", "response_1": "No.", "better_response_id": 0}, [PAIR]),
    ("two replies compared", "preferences",
     {"question": "Why?", "answer_1": "No.", "answer_2": "So.", "preferred": 2}, [PAIR]),
    ("replies with scores", "preferences",
     {"prompt": "Why?", "responses": ["No.", "So."], "scores": [1, 4]}, [PAIR]),
    ("replies with scores", "sft",
     {"prompt": "Why?", "responses": ["No.", "So.", "?"], "scores": [1, 4, None]}, [SFT]),
    ("binarised UltraFeedback", "preferences",
     {"prompt": "Why?", "chosen": turns("Why?", "So."), "rejected": turns("Why?", "No."),
      "messages": turns("Why?", "So."), "score_chosen": 8.5, "score_rejected": 3.0}, [PAIR]),
    ("binarised UltraFeedback", "sft",
     {"prompt": "Why?", "chosen": turns("Why?", "So."), "rejected": turns("Why?", "No."),
      "chosen-rating": 5, "rejected-rating": 3}, [SFT]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "record", "rows"), CASES)
def test_each_format_is_recognised_and_converted(name, kind, record, rows):
    assert recognise(kind, [record] * 3) == name
    assert [parse_row(kind, row) for row in convert(name, kind, record)] == rows


def test_every_format_has_a_test():
    elsewhere = {"Argilla", "OpenAssistant trees", "OpenAssistant messages", "UltraFeedback"}
    assert {case[0] for case in CASES} | elsewhere == FORMATS.keys()


def test_most_of_the_first_records_decide():
    alpaca, other = {"instruction": "a", "output": "b"}, {"prompt": "a", "completion": "b"}
    assert recognise("sft", [alpaca, other, alpaca]) == "Alpaca"
    assert recognise("sft", [alpaca, other]) is None
    assert recognise("sft", []) is None
    assert recognise("documents", [alpaca]) is None
    assert recognise("preferences", [alpaca]) is None
    assert recognise("sft", [{"question": "a", "answer": 2}]) is None


def test_the_log_names_format_and_columns():
    assert describe("Alpaca", "sft") == "Alpaca (instruction, input, output) → prompt, completion"
    assert describe("HH-RLHF dialogues", "preferences").endswith("→ prompt, chosen, rejected")


@pytest.mark.parametrize(
    ("name", "kind", "record", "reason"),
    [
        ("Alpaca", "sft", {"instruction": "a"}, "column output missing"),
        ("Alpaca", "sft", {"instruction": 3, "output": "b"}, "instruction is not a string"),
        ("Alpaca", "sft", {"instruction": "a", "output": "b", "history": ["x"]},
         "history has a turn that is no pair of texts"),
        ("ShareGPT", "sft", {"prompt": "a"}, "column messages missing"),
        ("ShareGPT", "sft", {"conversations": "a"}, "the dialogue is no list of turns"),
        ("ShareGPT", "sft", {"conversations": ["a"]},
         "the dialogue has a turn that is not an object"),
        ("ShareGPT", "sft", {"conversations": [{"from": "observation", "value": "x"}]},
         "the dialogue calls a tool"),
        ("messages", "sft", {"messages": [*turns("a"), {"role": "tool", "content": "b"}]},
         "the dialogue calls a tool"),
        ("ShareGPT", "sft", {"conversations": [{"from": "narrator", "value": "x"}]},
         "the dialogue has a turn by another than user"),
        ("messages", "sft", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
         "the dialogue has a turn that is not text"),
        ("messages", "sft",
         {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]},
         "the dialogue calls a tool"),
        ("messages", "sft",
         {"messages": [*turns("a"), {"role": "assistant", "content": "b", "weight": 0}]},
         "the last message has weight 0"),
        ("TRL unpaired preference", "sft", SFT | {"label": False}, "label is not true"),
        ("UltraFeedback", "preferences", {"instruction": "a", "completions": [{"model": "x"}]},
         "completions has an entry without response"),
        ("binarised UltraFeedback", "preferences", PAIR | {"score_chosen": 2, "score_rejected": 3},
         "the rejected reply has the higher score"),
        ("two replies compared", "preferences",
         {"prompt": "a", "response_a": "b", "response_b": "c", "winner": "gpt-4"},
         "the verdict names none of the two replies"),
        ("two replies compared", "preferences",
         {"prompt": "a", "response_a": "b", "response_b": "c", "score_a": 1},
         "a reply has no score"),
        ("replies with scores", "preferences",
         {"prompt": "a", "responses": ["b", "c"], "scores": [1]}, "there are not as many scores"),
        ("ChatML text", "sft", {"text": "a"}, "the text has no <|im_start|>"),
        ("Argilla", "sft", {"prompt": "a"}, "there are neither responses nor suggestions"),
        ("OpenAssistant trees", "sft", {"prompt": "a"}, "prompt is no tree of messages"),
    ],
)  # fmt: skip
def test_records_that_do_not_fit_are_refused_with_a_reason(name, kind, record, reason):
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}"):
        convert(name, kind, record)


def test_a_system_turn_without_words_is_no_fault():
    silent = {"from": "system", "value": None}
    (row,) = convert("ShareGPT", "sft", {"conversations": [silent, *sharegpt("Hi", "Hello")]})
    assert parse_row("sft", row) == {"prompt": "Hi", "completion": "Hello"}


def test_ultrafeedback_gives_all_pairs_of_different_scores():
    scores = {"a": 6.0, "b": 8.5, "c": 6.0, "d": None}
    completions = [{"response": text, "overall_score": score} for text, score in scores.items()]
    record = {"instruction": "Why?", "source": "x", "completions": completions}
    assert recognise("preferences", [record]) == "UltraFeedback"
    rows = convert("UltraFeedback", "preferences", record)
    assert [(row["chosen"], row["rejected"]) for row in rows] == [("b", "a"), ("b", "c")]
    assert convert("UltraFeedback", "sft", record) == [{"prompt": "Why?", "completion": "b"}]
    equal = {"instruction": "Why?", "completions": completions[::2]}
    assert convert("UltraFeedback", "preferences", equal) == []
    assert convert("UltraFeedback", "prompts", equal) == [{"prompt": "Why?"}]


@pytest.mark.parametrize(
    ("file", "kind", "name"),
    [
        ("sft/t0_p3_6k", "sft", "TRL prompt-completion"),
        ("sft/gsm8k_train", "sft", "question and answer"),
        ("sft/dolly_hhrlhf_train_small", "sft", "prompt and response"),
        ("preferences/hh_harmless_raw_200", "preferences", "HH-RLHF dialogues"),
        ("preferences/hh_harmless_80", "preferences", "TRL preference"),
        ("preferences/oasst1_human", "preferences", "TRL preference"),
        ("preferences/qa_feedback_human", "preferences", "TRL preference"),
        ("preferences/ultrafeedback_train", "preferences", "TRL preference"),
    ],
)
def test_real_files_are_recognised(shared: Path, file, kind, name):
    path = shared / "data" / f"{file}.jsonl.gz"
    with path.open("rb") as raw:
        records = [record.fields for record in islice(read_records(path, raw), 20)]
    assert recognise(kind, records) == name
