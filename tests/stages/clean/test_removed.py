import json

import pyarrow as pa
import pytest

from stages.clean.removed import EXAMPLES, REJECTS_FILE, Example, Removed


def written(folder):
    with pa.OSFile(str(folder / REJECTS_FILE)) as file:
        lines = pa.CompressedInputStream(file, "zstd").read().splitlines()
    return [json.loads(line) for line in lines]


def test_every_record_can_be_had_back_with_rule_and_score(tmp_path):
    record = '{"text":"Ünï \\u0000 \\n","meta":{"a":[1]}}'
    with Removed(tmp_path) as removed:
        removed.add(
            "documents", "train", ("a.jsonl", 3), ("junk", "junk", 0.5), record.encode() + b"\n"
        )
        piece = b'{"text":"part"}\n'
        verdict = "near_duplicate", "near_duplicate", None
        removed.add("documents", "held_out", ("b.jsonl", 7), verdict, piece, 2, "b.jsonl:1")
        assert not (tmp_path / REJECTS_FILE).exists()
    first, second = written(tmp_path)
    assert first == {
        "kind": "documents", "split": "train", "file": "a.jsonl", "line": 3,
        "rule": "junk", "reason": "junk", "score": 0.5, "record": json.loads(record),
    }  # fmt: skip
    assert second["piece"] == 2
    assert (second["score"], second["like"]) == (None, "b.jsonl:1")
    (example,) = removed.examples[("documents", "near_duplicate")]
    assert example.why == "b.jsonl:1"
    assert second["record"] == {"text": "part"}


def test_counts_first_places_and_heads(tmp_path):
    pair = b'{"prompt":"%s","chosen":" c","rejected":"r","source":"x"}' % (b"p" * 100)
    with Removed(tmp_path) as removed:
        for line, reason in enumerate(("is empty", "is long", "is long"), 1):
            verdict = "unusable", reason, 2.0
            removed.add("preferences", "train", ("a.jsonl", line), verdict, pair)
    assert removed.reasons == {"preferences": {"is empty": 1, "is long": 2}}
    assert removed.rules == {"is empty": "unusable", "is long": "unusable"}
    assert removed.first_places[("preferences", "is long")] == "a.jsonl:2"
    assert removed.count("preferences") == 3
    assert removed.count("sft") == 0
    (example, *_) = removed.examples[("preferences", "unusable")]
    assert example == Example("a.jsonl:1", "2", ("p" * 53, "c", "r"))  # 160 / 3 characters each


def test_examples_are_drawn_from_all_records_alike_and_the_same_again(tmp_path):
    def draw():
        with Removed(tmp_path) as removed:
            for line in range(2000):
                removed.add("sft", "train", ("a", line), ("r", "r", None), b'{"prompt":"p"}')
        places = [int(example.place[2:]) for example in removed.examples[("sft", "r")]]
        assert len(set(places)) == EXAMPLES
        return places

    places = draw()
    assert draw() == places
    assert 600 < sum(places) / EXAMPLES < 1400  # the mean of 20 uniform ones: 1000 ± 129


def test_what_was_removed_before_an_error_is_kept(tmp_path):
    def stop_after_one():
        with Removed(tmp_path) as removed:
            removed.add("sft", "train", ("a", 1), ("r", "r", None), b'{"prompt":"p"}')
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stop_after_one()
    assert len(written(tmp_path)) == 1
