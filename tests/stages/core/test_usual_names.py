"""Suggestions for the columns of a file that are called otherwise than ours."""

import pytest

from stages.core.usual_names import mapping_hint, suggest_columns


@pytest.mark.parametrize(
    ("kind", "missing", "given", "mapping", "suggested"),
    [
        ("sft", ["prompt", "completion"], ["Question", "answer", "id"], {},
         {"prompt": "Question", "completion": "answer"}),
        ("sft", ["completion"], ["prompt", "said"], {}, {"completion": "said"}),
        ("sft", ["completion"], ["prompt", "said", "n"], {}, {"completion": "…"}),
        ("labelled", ["text", "label"], ["toxic", "x"], {"text": "x"},
         {"text": "…", "label": "toxic"}),
        ("sft", ["completion"], ["response", "answer"], {"prompt": "answer"},
         {"prompt": "answer", "completion": "response"}),
        ("documents", ["text"], ["completion"], {}, {"text": "completion"}),
    ],
)  # fmt: skip
def test_columns_are_guessed_by_their_usual_names(kind, missing, given, mapping, suggested):
    assert suggest_columns(kind, missing, given, mapping) == suggested


def test_the_hint_is_one_line_to_copy():
    assert mapping_hint("sft", ["prompt"], ["query", "completion"], {}) == (
        "the file has the columns query, completion; "
        'map them, for instance collect.sft.columns={"prompt": "query"}'
    )
