"""Where everything came from: the stages behind the inputs, their settings, times and data.

A stage's folder holds ``spec.json`` with its settings and inputs, and ``result.json``. The inputs
lie in the folders of earlier stages: following them leads back to the raw data.
"""

import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core import config as schema
from stages.core.artifacts import RESULT_FILE, Artifact
from stages.core.config import Frozen, StageConfig
from stages.core.launch import SPEC_FILE

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "lm-eval", "mlflow")
DATA_KINDS = ("documents", "sft", "preferences", "guard_preferences", "prompts", "labelled")
COUNTS_FILE = "counts.json"


@dataclass(frozen=True)
class Stage:
    """One stage behind the report."""

    name: str
    key: str
    seconds: float
    git_commit: str
    device: str
    changed_settings: dict[str, Any]
    """What differs from the defaults, by dotted name."""


@dataclass(frozen=True)
class Lineage:
    """What is behind the report."""

    stages: list[Stage]
    """In the order in which they must have run."""
    data: dict[str, str]
    """Digest by kind of data."""
    counts: dict[str, dict[str, int]]
    """What cleaning did to each kind and split: records by rule."""
    versions: dict[str, str]
    unknown: list[str]
    """Inputs that no stage's folder explains."""


def trace(inputs: Frozen) -> Lineage:
    """Follow the inputs back to the raw data. What cannot be read is left out and named."""
    stages: dict[Path, Stage] = {}
    unknown: list[str] = []
    counts: dict[str, dict[str, int]] = {}
    given = inputs.model_dump(mode="json")
    _follow(given, stages, unknown, counts)
    datasets: Mapping[str, Any] = given.get("datasets") or {}
    return Lineage(
        stages=list(stages.values()),
        data={kind: value["digest"] for kind, value in datasets.items() if value},
        counts=counts,
        versions=dict(_versions()),
        unknown=sorted(set(unknown)),
    )


# ------------------------------------------------------------------------------------ helpers


def _follow(
    value: Any,
    stages: dict[Path, Stage],
    unknown: list[str],
    counts: dict[str, dict[str, int]],
) -> None:
    for artifact in _artifacts(value):
        folder = _stage_folder(artifact)
        if folder is None:
            if artifact.kind not in ("source", "scorer"):
                unknown.append(f"{artifact.kind} {artifact.digest[:12]}")
            continue
        if folder in stages:
            continue
        try:
            spec = json.loads((folder / SPEC_FILE).read_text(encoding="utf-8"))
            result = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
            stage = _stage(spec, result)
        except (OSError, ValueError, KeyError, TypeError):
            unknown.append(f"{artifact.kind} {artifact.digest[:12]}")
            continue
        _follow(spec["inputs"], stages, unknown, counts)
        stages[folder] = stage
        if (folder / COUNTS_FILE).is_file():
            counts |= _counts(folder / COUNTS_FILE)


def _artifacts(value: Any) -> Iterator[Artifact]:
    if isinstance(value, dict) and {"kind", "path", "digest"} <= value.keys():
        yield Artifact.model_validate(value)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _artifacts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _artifacts(item)


def _stage_folder(artifact: Artifact) -> Path | None:
    """The nearest folder around the artifact that a stage completed."""
    place = artifact.locate()
    return next((folder for folder in place.parents if (folder / RESULT_FILE).is_file()), None)


def _stage(spec: Mapping[str, Any], result: Mapping[str, Any]) -> Stage:
    compute = spec["compute"]
    return Stage(
        name=result["stage"],
        key=result["key"],
        seconds=float(result["seconds"]),
        git_commit=str(result["git_commit"]),
        device=f"{compute['num_processes']} × {compute['device']}",
        changed_settings=changed_settings(result["stage"], spec["config"]),
    )


def changed_settings(stage: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from the stage's defaults."""
    classes = [
        item
        for item in vars(schema).values()
        if isinstance(item, type) and issubclass(item, StageConfig) and item is not StageConfig
    ]
    kind = next((item for item in classes if item.stage == stage), None)
    defaults = _flat(kind().model_dump(mode="json")) if kind else {}
    return {
        name: value
        for name, value in _flat(settings).items()
        if name not in defaults or defaults[name] != value
    }


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _counts(path: Path) -> dict[str, dict[str, int]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): {str(rule): int(count) for rule, count in row.items()}
            for name, row in rows.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
