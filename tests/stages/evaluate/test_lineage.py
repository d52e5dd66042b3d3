"""The way back from the inputs to the raw data."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.core.artifacts import make_artifact
from stages.core.contracts import SFTInputs
from stages.evaluate.lineage import changed_settings, trace


def _finish(root: Path, stage: str, inputs: dict[str, Any], config: dict[str, Any]) -> Path:
    """A stage's folder as the stage's process leaves it."""
    folder = root / "runs" / stage / f"{stage}-key"
    folder.mkdir(parents=True)
    compute = {"device": "cpu", "num_processes": 2}
    spec = {"stage": stage, "config": config, "inputs": inputs, "compute": compute}
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    result = {"stage": stage, "key": f"{stage}-key", "seconds": 2.5, "git_commit": "abc"}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


@pytest.fixture
def inputs(tmp_path: Path) -> SFTInputs:
    """Of sft, behind which are base_model, clean and collect."""

    def artifact(kind: str, folder: Path, name: str) -> Any:
        (folder / name).mkdir()
        (folder / name / "train.jsonl").write_text(name, encoding="utf-8")
        return make_artifact(kind, folder / name)  # type: ignore[arg-type]

    raw = tmp_path / "raw.jsonl"
    raw.write_text("{}\n", encoding="utf-8")
    source = make_artifact("source", raw).model_dump()
    collect = _finish(tmp_path, "collect", {"sft": [source]}, {})
    collected = artifact("sft", collect, "sft")
    datasets = {"datasets": {"sft": collected.model_dump()}}
    clean = _finish(tmp_path, "clean", datasets, {"max_reject_share": 0.75})
    counts = {"sft/train": {"read": 3, "duplicate": 1, "kept": 2}}
    (clean / "counts.json").write_text(json.dumps(counts), encoding="utf-8")
    model = tmp_path / "brought"
    model.mkdir()
    return SFTInputs(model=make_artifact("model", model), sft=artifact("sft", clean, "sft"))


def test_stages_come_in_their_order_with_times_and_counts(inputs: SFTInputs) -> None:
    lineage = trace(inputs)
    assert [stage.name for stage in lineage.stages] == ["collect", "clean"]
    clean = lineage.stages[1]
    assert (clean.key, clean.seconds, clean.device) == ("clean-key", 2.5, "2 × cpu")
    assert clean.changed_settings == {"max_reject_share": 0.75}
    assert lineage.counts == {"sft/train": {"read": 3, "duplicate": 1, "kept": 2}}
    assert "torch" in lineage.versions


def test_what_no_stage_made_is_named(inputs: SFTInputs) -> None:
    assert trace(inputs).unknown == [f"model {inputs.model.digest[:12]}"]


def test_damaged_folders_stop_nothing(inputs: SFTInputs, tmp_path: Path) -> None:
    (tmp_path / "runs" / "clean" / "clean-key" / "spec.json").write_text("{", encoding="utf-8")
    lineage = trace(inputs)
    assert lineage.stages == []
    assert len(lineage.unknown) == 2


def test_settings_of_any_stage_are_compared_with_their_defaults() -> None:
    given = {"safety": {"toxic_label": "rude", "num_prompts": 200}, "temperature": 1.0, "new": 1}
    assert changed_settings("evaluate", given) == {"safety.toxic_label": "rude", "new": 1}
    assert changed_settings("unheard_of", {"a": {"b": 1}}) == {"a.b": 1}
