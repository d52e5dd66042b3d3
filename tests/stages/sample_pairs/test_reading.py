"""Prompts and gold pairs of the user's files."""

import json

import pytest

from stages.core.artifacts import make_artifact
from stages.core.errors import UserError
from stages.sample_pairs.reading import read_rows


def _file(tmp_path, name, rows):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return make_artifact("source", path)


def test_our_columns_and_known_formats(tmp_path):
    plain = _file(tmp_path, "plain.jsonl", [{"prompt": "Who?", "note": 1}])
    alpaca = _file(tmp_path, "alpaca.jsonl", [{"instruction": "Add.", "input": "", "output": "2"}])
    assert list(read_rows("prompts", (plain, alpaca))) == [{"prompt": "Who?"}, {"prompt": "Add."}]


def test_a_bad_record_is_named_and_does_not_stop_the_rest(tmp_path, capsys):
    file = _file(tmp_path, "some.jsonl", [{"prompt": "Who?"}, {"prompt": " "}, {"question": "?"}])
    assert list(read_rows("prompts", (file,))) == [{"prompt": "Who?"}]
    assert (
        "2 records cannot be used, the first in line 2: prompt is empty" in capsys.readouterr().out
    )


def test_a_file_without_any_is_one_line(tmp_path):
    empty = _file(tmp_path, "empty.jsonl", [])
    with pytest.raises(UserError, match="empty.jsonl: holds no prompts: it is empty; give"):
        list(read_rows("prompts", (empty,)))
    wrong = _file(tmp_path, "wrong.jsonl", [{"question": "Who?"}])
    with pytest.raises(UserError, match="holds no preferences: 1 records .* prompt, chosen, rej"):
        list(read_rows("preferences", (wrong,)))
