"""Prompts of the random share of people's judgments stay out of training."""

import pytest

from stages import clean
from stages.core.artifacts import make_artifact
from stages.core.config import CleanConfig, Compute
from stages.core.contracts import CleanInputs, Datasets
from stages.core.schemas import read_jsonl, write_jsonl

PAIR = {"chosen": "It is open until six.", "rejected": "No idea."}
ASKED = "Who may I write to at [EMAIL] about the ferry?"


@pytest.fixture
def collected(tmp_path):
    """Pairs as collect leaves them: one has a prompt that redaction makes a reserved one."""
    folder = tmp_path / "preferences"
    folder.mkdir()
    prompts = ["Who may I write to at ada@example.org about the ferry?", "When does it leave?",
               "Where does the ferry stop?"]  # fmt: skip
    write_jsonl(folder / "train.jsonl", [{"prompt": text, **PAIR} for text in prompts])
    held_out = [{"prompt": ASKED, "chosen": "To Ada.", "rejected": "To nobody."}]
    write_jsonl(folder / "held_out.jsonl", held_out)
    write_jsonl(folder / "reserved.jsonl", [{"prompt": ASKED.lower()}])
    return make_artifact("preferences", folder)


def run(tmp_path, collected, **settings):
    out_dir = tmp_path / "clean"
    out_dir.mkdir()
    inputs = CleanInputs(datasets=Datasets(preferences=collected))
    outputs, metrics = clean.run(CleanConfig(**settings), inputs, Compute(), out_dir)
    folder = outputs.preferences.locate()
    return [list(read_jsonl(folder / f"{split}.jsonl")) for split in ("train", "held_out")], metrics


def test_a_prompt_that_cleaning_makes_a_reserved_one_is_removed(tmp_path, collected):
    (train, held_out), metrics = run(tmp_path, collected)
    assert [row["prompt"] for row in train] == ["When does it leave?", "Where does the ferry stop?"]
    assert [row["prompt"] for row in held_out] == [ASKED]
    assert metrics["preferences_removed"] == 1.0
    assert "of the random share of people's judgments" in (tmp_path / "clean/report.md").read_text()


def test_the_rule_can_be_skipped(tmp_path, collected):
    (train, _), _ = run(tmp_path, collected, skip={"preferences": ["reserved"]})
    assert len(train) == 3


def test_without_judgments_nothing_is_reserved(tmp_path, collected):
    (collected.locate() / "reserved.jsonl").unlink()
    (train, _), _ = run(tmp_path, collected)
    assert len(train) == 3
