import json
from pathlib import Path

import pytest

from stages.core.data_check import checking


def _write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_run_says_what_is_wrong_with_its_files(collected, tmp_path, capsys):
    good = {"prompt": "Why?", "response": "Because."}
    bad = {"prompt": "How?", "response": "So.<|im_end|>"}
    path = _write(tmp_path / "data.jsonl", good, bad, good)
    held_out = _write(tmp_path / "held.jsonl", {"prompt": "how?", "response": "Well."})
    run = collected("sft", path, held_out=[held_out], columns={"completion": "response"})
    assert len(run.train) == 3
    text = (run.folder / "check.md").read_text()
    assert text.startswith("# Check of sft\n")
    assert "## warning: sft: Reply ends in a special token as text" in text
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("check: ")]
    assert lines == [
        "check: error: sft: 1 (33\u00a0%) × Also in the held-out files, first data.jsonl:2",
        "check: warning: sft: 1 (33\u00a0%) × Reply ends in a special token as text: "
        "completion <|im_end|> 1×, first data.jsonl:2",
        "check: warning: sft: 1 (33\u00a0%) × Exact duplicate, first data.jsonl:3",
    ]


def test_good_files_are_fine(collected, tmp_path, capsys):
    run = collected("prompts", _write(tmp_path / "data.jsonl", {"prompt": "Why?"}))
    assert "check: fine" in capsys.readouterr().out.splitlines()
    assert "Fine." in (run.folder / "check.md").read_text()


def test_a_check_that_fails_stops_nothing(
    collected, tmp_path, capsys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(checking, "batches")
    run = collected("prompts", _write(tmp_path / "data.jsonl", {"prompt": "Why?"}))
    assert run.train == [{"prompt": "Why?"}]
    assert "check: prompts: could not be made: NameError: " in capsys.readouterr().out
    assert not (run.folder / "check.md").exists()
