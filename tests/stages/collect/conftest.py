"""One run of the stage over one kind of data."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stages import collect
from stages.core.artifacts import make_artifact
from stages.core.config import CollectConfig, Compute, DataSource
from stages.core.contracts import CollectInputs, Datasets
from stages.core.schemas import read_jsonl

Rows = list[dict[str, Any]]


class Collected(NamedTuple):
    """What a run left behind."""

    train: Rows
    held_out: Rows
    rejects: Rows
    metrics: Mapping[str, float]
    outputs: Datasets
    folder: Path


@pytest.fixture
def collected(tmp_path: Path) -> Callable[..., Collected]:
    """A function (kind, files…, held_out=files, max_reject_share, name of the folder, settings of
    the data source) that runs the stage; nothing is held out by default."""

    def run(
        kind: str,
        *files: Path,
        held_out: Iterable[Path] = (),
        max_reject_share: float = 1.0,
        name: str = "out",
        **source: Any,
    ) -> Collected:
        out_dir = tmp_path / name
        out_dir.mkdir(exist_ok=True)
        inputs = {
            kind: tuple(make_artifact("source", file) for file in files),
            f"{kind}_held_out": tuple(make_artifact("source", file) for file in held_out),
        }
        source = {"held_out_share": 0.0} | source
        config = CollectConfig(max_reject_share=max_reject_share, **{kind: DataSource(**source)})
        outputs, metrics = collect.run(config, CollectInputs(**inputs), Compute(), out_dir)
        folder = getattr(outputs, kind).locate()
        train, held = (list(read_jsonl(folder / f"{part}.jsonl")) for part in ("train", "held_out"))
        rejects = list(read_jsonl(out_dir / "rejects.jsonl"))
        return Collected(train, held, rejects, metrics, outputs, out_dir)

    return run
