"""What the records in the stages' folders say."""

import json
from pathlib import Path

from flows.made_from import made_from, places_in, read_folders, read_json, results_in
from flows.waste import Place


def artifact(path: str) -> dict[str, str]:
    return {"kind": "model", "path": path, "digest": "d"}


def test_artifacts_below_the_data_root_are_found_wherever_they_stand(data_root: Path) -> None:
    value = {
        "inputs": [artifact("runs/sft/aaa/model"), {"deep": artifact("cache/sources/s/d/x.jsonl")}],
        "other": artifact("/elsewhere/file"),
    }
    assert list(places_in(value)) == [
        ("runs", "sft", "aaa", "model"),
        ("cache", "sources", "s", "d", "x.jsonl"),
    ]
    assert list(results_in(value)) == [("sft", "aaa")]


def test_what_was_made_from_a_result_directly_or_not(data_root: Path) -> None:
    made = {
        ("collect", "a"): "cache/sources/s/d/preferences.jsonl",
        ("clean", "b"): "runs/collect/a/preferences",
        ("sft", "c"): "runs/clean/b/sft",
        ("tokenizer", "e"): "runs/collect/other/documents",
    }
    places = {}
    for (stage, key), used in made.items():
        folder = data_root / "runs" / stage / key
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text(json.dumps({"inputs": artifact(used)}))
        places[stage, key] = Place(folder)
    found = made_from(places, {("collect", "a")})
    assert found == {("collect", "a"), ("clean", "b"), ("sft", "c")}
    assert read_folders(("collect", "a")) == {data_root / "cache" / "sources" / "s" / "d"}
    assert read_folders(("clean", "b")) == set()
    assert read_json(data_root / "nothing") is None
