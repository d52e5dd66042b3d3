"""Preferences as files that other tools, and we, read back."""

import json
import os

import pytest

from stages.core import data_check, formats
from stages.core.errors import UserError
from stages.core.feedback.exports import export_rows, write_export
from stages.core.schemas import encode_row, parse_row

ROW = {
    "prompt": "Why is the sky blue?",
    "chosen": "Because air scatters short waves more.",
    "rejected": "It is.",
    "annotator": "annotator-1a2b3c4d",
    "created_at": "2026-11-01T08:00:00Z",
    "margin": 2.0,
    "source": "feedback:human",
}
TALK = ROW | {
    "prompt": [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello, what is it?"},
        {"role": "user", "content": "Two\n\nparagraphs"},
    ]
}
BY_MODEL = ROW | {"source": "feedback:ai", "annotator": "some-judge", "prompt": "How?"}
NAMES = ("jsonl", "hh", "argilla")


def read_back(records):
    known = formats.recognise("preferences", records)
    found = [formats.convert(known, "preferences", record) for record in records]
    return known, [parse_row("preferences", row) for rows in found for row in rows]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_exported_is_read_back_as_the_same_pairs(name):
    records, left_out = export_rows([ROW, TALK, BY_MODEL], name)
    known, rows = read_back(records)
    texts = ("prompt", "chosen", "rejected")
    assert [[row[text] for text in texts] for row in rows] == [
        [row[text] for text in texts] for row in (ROW, TALK, BY_MODEL)
    ]
    assert left_out == {}
    wanted = {"jsonl": "TRL preference", "hh": "HH-RLHF dialogues", "argilla": "Argilla"}
    assert known == wanted[name]


def test_our_own_format_keeps_everything():
    assert export_rows([ROW], "jsonl")[0] == [ROW]


def test_hh_dialogues():
    (record,) = export_rows([TALK], "hh")[0]
    asked = "\n\nHuman: Hello\n\nAssistant: Hello, what is it?\n\nHuman: Two\n\nparagraphs"
    assert record == {
        "chosen": f"{asked}\n\nAssistant: {ROW['chosen']}",
        "rejected": f"{asked}\n\nAssistant: It is.",
    }


def test_argilla_tells_people_from_models():
    human, model = export_rows([ROW, BY_MODEL], "argilla")[0]
    assert human["fields"] == {
        "prompt": ROW["prompt"],
        "response_a": ROW["chosen"],
        "response_b": "It is.",
    }
    answer = {"value": "response_a", "user_id": "annotator-1a2b3c4d", "status": "submitted"}
    assert (human["responses"], human["suggestions"]) == ({"preference": [answer]}, {})
    assert human["metadata"]["margin"] == 2.0
    assert model["responses"] == {}
    assert model["suggestions"]["preference"]["agent"] == "some-judge"
    swapped = ROW | {"chosen": ROW["rejected"], "rejected": ROW["chosen"]}
    (other,) = export_rows([swapped], "argilla")[0]
    assert (other["id"], other["fields"]) == (human["id"], human["fields"])
    assert other["responses"]["preference"][0]["value"] == "response_b"


def test_what_a_format_has_no_place_for_is_left_out_and_counted():
    system = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    marked = ROW | {"chosen": "Say:\n\nHuman: I know.\n\nAssistant: Well."}
    records, left_out = export_rows([ROW | {"prompt": system}, marked, ROW], "hh")
    assert len(records) == 1
    assert left_out == {
        "has a system message, which the format does not know": 1,
        "would be read as another pair: its text holds the format's marks": 1,
    }
    assert len(export_rows([ROW | {"prompt": system}, marked], "argilla")[0]) == 2


@pytest.mark.parametrize("name", NAMES)
def test_rlhf_check_finds_nothing_wrong_with_an_export(name, tmp_path):
    rows = [ROW | {"prompt": f"Why is the sky {word}?"} for word in ("blue", "grey", "red")]
    path = tmp_path / "export.jsonl"
    write_export(path, export_rows(rows, name)[0])
    report = data_check.check_files([str(path)], "preferences")
    assert [finding.code for finding in report.findings if finding.level == "error"] == []
    assert report.as_json()["files"][0]["records"] == 3


def test_a_file_that_is_there_is_only_replaced_by_force(tmp_path):
    path = tmp_path / "export.jsonl"
    write_export(path, [{"a": 1}])
    with pytest.raises(UserError, match="export.jsonl: exists; --force replaces it"):
        write_export(path, [{"a": 2}])
    assert json.loads(path.read_text()) == {"a": 1}
    write_export(path, [{"a": 2}], force=True)
    assert path.read_bytes() == encode_row({"a": 2})
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["export.jsonl"]


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def records():
        yield {"a": 1}
        raise RuntimeError("killed here")

    with pytest.raises(RuntimeError):
        write_export(tmp_path / "export.jsonl", records())
    assert os.listdir(tmp_path) == []
    with pytest.raises(UserError, match="cannot be written: No such file"):
        write_export(tmp_path / "nowhere" / "export.jsonl", [])
