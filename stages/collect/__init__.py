"""Read the user's files into JSON Lines of one shape for each kind of data, train and held out.

Files are streamed: memory does not grow with their size.
"""

from pathlib import Path
from typing import Any

from stages.collect.checking import write_check
from stages.collect.manifest import split_entry, write_manifest
from stages.collect.progress import Progress, make_progress
from stages.collect.reading import Reader
from stages.collect.splitting import take_subset, write_splits
from stages.core.artifacts import Artifact, make_artifact
from stages.core.config import CollectConfig, Compute, DataSource
from stages.core.contracts import CollectInputs, Datasets
from stages.core.errors import UserError
from stages.core.rejects import Rejects
from stages.core.schemas import DATA_KINDS, DataKind, columns, write_jsonl
from stages.core.sources import DOCUMENT_FORMATS, file_format


def run(
    config: CollectConfig, inputs: CollectInputs, compute: Compute, out_dir: Path
) -> tuple[Datasets, dict[str, float]]:
    """Write ``<kind>/train.jsonl`` and ``<kind>/held_out.jsonl`` for each kind that has files,
    ``rejects.jsonl`` with every record that could not be used, ``manifest.json`` with what became
    of each file, and ``check.md`` with what is wrong with the records.

    Metrics: ``<kind>_train``, ``<kind>_held_out`` and ``<kind>_rejected``, in records.

    Raises:
        UserError: a file cannot be read, changed meanwhile or holds no records, too many of its
            records are unusable, or a split would be empty.
    """
    datasets: dict[str, Artifact] = {}
    metrics: dict[str, float] = {}
    manifest: dict[str, dict[str, Any]] = {}
    progress = make_progress(
        artifact for name in CollectInputs.model_fields for artifact in getattr(inputs, name)
    )
    write_check(config, inputs, out_dir)
    with Rejects(out_dir) as rejects:
        for kind in DATA_KINDS:
            files = getattr(inputs, kind), getattr(inputs, f"{kind}_held_out")
            if not any(files):
                continue
            source: DataSource = getattr(config, kind)
            _check_settings(kind, source, *files)
            folder = out_dir / kind
            folder.mkdir(exist_ok=True)
            manifest[kind] = _collect(kind, config, files, folder, rejects, progress)
            for split, entry in manifest[kind].items():
                metrics[f"{kind}_{split}"] = float(entry["rows"])
            metrics[f"{kind}_rejected"] = float(rejects.count(kind))
            datasets[kind] = make_artifact(kind, folder)
    write_manifest(out_dir, manifest)
    return Datasets(**datasets), metrics


def _check_settings(
    kind: DataKind,
    source: DataSource,
    train: tuple[Artifact, ...],
    held_out: tuple[Artifact, ...],
) -> None:
    for column in source.columns:
        if column not in columns(kind):
            raise UserError(
                f"collect.{kind}.columns: {column!r} is no column of ours; the keys must be among "
                f"{', '.join(columns(kind))}, the values the files' names for them"
            )
    if not train:
        raise UserError(f"collect.{kind}.paths: held-out files only; name training files as well")
    for artifact in (*train, *held_out):
        if file_format(artifact.locate()) in DOCUMENT_FORMATS and kind != "documents":
            raise UserError(
                f"{artifact.path}: plain text can only be documents; "
                f"give collect.{kind}.paths records, such as .jsonl or .csv"
            )


def _collect(
    kind: DataKind,
    config: CollectConfig,
    files: tuple[tuple[Artifact, ...], tuple[Artifact, ...]],
    folder: Path,
    rejects: Rejects,
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Write both splits of one kind and return what the manifest says of each."""
    source: DataSource = getattr(config, kind)
    paths = folder / "train.jsonl", folder / "held_out.jsonl"
    hints: dict[str, str] = {}
    train, held_out = (
        Reader(kind, split, source, rejects, hints, progress) for split in ("train", "held_out")
    )
    if files[1]:
        counts = (
            write_jsonl(paths[0], (keyed.row for keyed in train.rows(files[0]))),
            write_jsonl(paths[1], (keyed.row for keyed in held_out.rows(files[1]))),
        )
    else:
        counts = write_splits(train.rows(files[0]), source.held_out_share, paths)
    total = sum(counts) + rejects.count(kind)
    rejects.check_share("collect.max_reject_share", kind, total, config.max_reject_share, hints)
    for name, count in zip(("training", "held-out"), counts, strict=True):
        if count == 0 and (name == "training" or files[1] or source.held_out_share > 0):
            kept_together = f"groups ({source.group_column})" if source.group_column else "prompts"
            unusable = rejects.count(kind)
            which = f", of which {unusable} were unusable (see {rejects.path})" if unusable else ""
            raise UserError(
                f"collect.{kind}: no {name} record among {total}{which}; "
                f"give more records of different {kept_together}"
            )
    return {
        "train": split_entry(take_subset(paths[0], counts[0], source.max_records), train.files),
        "held_out": split_entry(
            take_subset(paths[1], counts[1], source.max_held_out_records), held_out.files
        ),
    }
