"""Training records that hold items of evaluation sets."""

import json

import pyarrow as pa
import pytest

from stages import clean
from stages.clean.removed import REJECTS_FILE
from stages.core.artifacts import make_artifact
from stages.core.config import CleanConfig, Compute
from stages.core.contracts import CleanInputs, Datasets
from stages.core.schemas import read_jsonl, write_jsonl

QUESTION = "Which of these four metals is liquid at the temperature of an ordinary warm room"


@pytest.fixture
def cleaned(tmp_path, monkeypatch):
    """The training and held-out completions that stay, and the reasons of the removed ones."""
    monkeypatch.setenv("RLHF_DATA_ROOT", str(tmp_path))

    def run(train, held_out, sets, **settings):
        folder = tmp_path / "collected" / "sft"
        folder.mkdir(parents=True, exist_ok=True)
        for split, texts in (("train", train), ("held_out", held_out)):
            rows = ({"prompt": "Tell me.", "completion": text} for text in texts)
            write_jsonl(folder / f"{split}.jsonl", rows)
        paths = [tmp_path / name for name in sets]
        for path, item in zip(paths, sets.values(), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_jsonl(path, [{"question": item, "answer": "mercury"}])
        inputs = CleanInputs(
            datasets=Datasets(sft=make_artifact("sft", folder)),
            evaluation=tuple(make_artifact("source", path) for path in paths),
        )
        out_dir = tmp_path / "out"
        out_dir.mkdir(exist_ok=True)
        clean.run(CleanConfig(max_reject_share=1, **settings), inputs, Compute(), out_dir)
        kept = [
            [row["completion"] for row in read_jsonl(out_dir / "sft" / f"{split}.jsonl")]
            for split in ("train", "held_out")
        ]
        with pa.OSFile(str(out_dir / REJECTS_FILE)) as file:
            lines = pa.CompressedInputStream(file, "zstd").read().splitlines()
        return *kept, [(row["rule"], row["reason"]) for row in map(json.loads, lines)]

    return run


def test_training_records_with_an_item_go_and_held_out_ones_stay(cleaned):
    texts = [f"Answer this. {QUESTION}?", "Which metal is liquid?"]
    train, held_out, removed = cleaned(
        texts, [f"{QUESTION}!"], {"eval/chemistry/t.jsonl": QUESTION}
    )
    assert train == texts[1:]
    assert held_out == [f"{QUESTION}!"]
    assert removed == [("evaluation", "evaluation set chemistry/t.jsonl")]


def test_sets_of_the_same_name_count_both(cleaned):
    other = "Who was the first of all those old men that went over the hill today"
    sets = {"x/data/t.jsonl": QUESTION, "y/data/t.jsonl": other}
    train, _, removed = cleaned([QUESTION, other, "So."], [], sets)
    assert train == ["So."]
    assert [reason for _, reason in removed] == [f"evaluation set {name}" for name in sets]


def test_the_rule_can_be_skipped(cleaned):
    sets = {"x/t.jsonl": QUESTION}
    assert cleaned([QUESTION], [], sets, skip={"sft": ("evaluation",)})[0] == [QUESTION]
