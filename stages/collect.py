"""Read the user's files into JSON Lines of one shape for each kind of data, train and held out.

Files are streamed: memory does not grow with their size.
"""

import hashlib
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.core import tracking
from stages.core.artifacts import Artifact, make_artifact
from stages.core.config import CollectConfig, Compute, DataSource
from stages.core.contracts import CollectInputs, Datasets
from stages.core.errors import UserError
from stages.core.rejects import Rejects
from stages.core.schemas import (
    DATA_KINDS,
    DataKind,
    columns,
    encode_row,
    parse_row,
    prompt_key,
    read_jsonl,
    write_jsonl,
)
from stages.core.sources import MAX_RECORD_BYTES, Record, file_format, read_records
from stages.core.usual_names import mapping_hint

Progress = Callable[[Path, Callable[[], int]], None]
SUBSET_SEED = 0
PROGRESS_SECONDS = 1.0


def run(
    config: CollectConfig, inputs: CollectInputs, compute: Compute, out_dir: Path
) -> tuple[Datasets, dict[str, float]]:
    """Write ``<kind>/train.jsonl`` and ``<kind>/held_out.jsonl`` for each kind that has files, and
    ``rejects.jsonl`` with every record that could not be used.

    Metrics: ``<kind>_train``, ``<kind>_held_out`` and ``<kind>_rejected``, in records.

    Raises:
        UserError: a file cannot be read or holds no records, too many of its records are unusable,
            or a split would be empty.
    """
    datasets: dict[str, Artifact] = {}
    metrics: dict[str, float] = {}
    progress = _progress(inputs)
    with Rejects(out_dir) as rejects:
        for kind in DATA_KINDS:
            train, held_out = getattr(inputs, kind), getattr(inputs, f"{kind}_held_out")
            if not train and not held_out:
                continue
            source: DataSource = getattr(config, kind)
            _check_settings(kind, source, train, held_out)
            folder = out_dir / kind
            folder.mkdir(exist_ok=True)
            counts = _collect(kind, source, config, (train, held_out), folder, rejects, progress)
            metrics[f"{kind}_train"], metrics[f"{kind}_held_out"] = map(float, counts)
            metrics[f"{kind}_rejected"] = float(rejects.count(kind))
            datasets[kind] = make_artifact(kind, folder)
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
        if file_format(artifact.locate()) == "text" and kind != "documents":
            raise UserError(
                f"{artifact.path}: plain text can only be documents; "
                f"give collect.{kind}.paths records, such as .jsonl or .csv"
            )


def _collect(
    kind: DataKind,
    source: DataSource,
    config: CollectConfig,
    files: tuple[tuple[Artifact, ...], tuple[Artifact, ...]],
    folder: Path,
    rejects: Rejects,
    progress: Progress,
) -> tuple[int, int]:
    """Write both splits of one kind and return their numbers of records."""
    paths = folder / "train.jsonl", folder / "held_out.jsonl"
    hints: dict[str, str] = {}
    train_rows = _rows(kind, "train", source, files[0], rejects, hints, progress)
    if files[1]:
        held_out_rows = _rows(kind, "held_out", source, files[1], rejects, hints, progress)
        counts = write_jsonl(paths[0], train_rows), write_jsonl(paths[1], held_out_rows)
        least_place = most_place = 0.0
    else:
        counts, least_place, most_place = _write_splits(
            kind, train_rows, source.held_out_share, paths
        )
    total = sum(counts) + rejects.count(kind)
    rejects.check_share("collect.max_reject_share", kind, total, config.max_reject_share, hints)
    if least_place < most_place and source.held_out_share > 0:
        counts = _move_a_prompt_to_empty_split(kind, paths, counts, least_place, most_place)
    for name, count in zip(("training", "held-out"), counts, strict=True):
        if count == 0 and (name == "training" or files[1] or source.held_out_share > 0):
            raise UserError(
                f"collect.{kind}: no {name} record among {total}, of which {rejects.count(kind)} "
                f"were unusable; give more records of different prompts (see {rejects.path})"
            )
    return (
        _take_subset(paths[0], counts[0], source.max_records),
        _take_subset(paths[1], counts[1], source.max_held_out_records),
    )


# ------------------------------------------------------------------------------------- reading


def _rows(
    kind: DataKind,
    split: str,
    source: DataSource,
    artifacts: tuple[Artifact, ...],
    rejects: Rejects,
    hints: dict[str, str],
    progress: Progress,
) -> Iterator[dict[str, Any]]:
    """The usable rows of the files; the others go to ``rejects``, advice on them to ``hints``."""
    for artifact in artifacts:
        path, is_empty = artifact.locate(), True
        for record in _records(artifact, path, progress):
            is_empty = False
            try:
                row = _parse(kind, source, record)
            except ValueError as error:
                reason = str(error)
                content = record.head or record.fields or ""
                rejects.add(kind, split, artifact.path, record.line, reason, content)
                if reason.startswith("column") and record.fields and reason not in hints:
                    hints[reason] = _mapping_hint(kind, source, reason, record.fields)
            else:
                yield row
        if is_empty:
            setting = f"collect.{kind}.{'paths' if split == 'train' else 'held_out_paths'}"
            raise UserError(f"{artifact.path}: holds no records; take it off {setting}")


def _records(artifact: Artifact, path: Path, progress: Progress) -> Iterator[Record]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{artifact.path}: {error.strerror}; mend the path") from error
    with file:
        for record in read_records(path, file):
            progress(path, file.tell)
            yield record


def _parse(kind: DataKind, source: DataSource, record: Record) -> dict[str, Any]:
    if record.fields is None:
        raise ValueError(record.reason)
    fields = {name: record.fields.get(source.columns.get(name, name)) for name in columns(kind)}
    row = parse_row(kind, fields)
    if len(encode_row(row)) > MAX_RECORD_BYTES:
        raise ValueError("record is larger than 10 MB")
    return row


def _mapping_hint(
    kind: DataKind, source: DataSource, reason: str, fields: Mapping[str, Any]
) -> str:
    """How to map the file's columns to ours, with the likeliest of them."""
    missing = [name for name in columns(kind) if name in reason.split()]
    return mapping_hint(kind, missing, list(fields), source.columns)


def _progress(inputs: CollectInputs) -> Progress:
    """A function that reports the bytes read of all files, not more often than once a second."""
    artifacts = [
        artifact for name in CollectInputs.model_fields for artifact in getattr(inputs, name)
    ]
    total = sum(
        path.stat().st_size for artifact in artifacts if (path := artifact.locate()).exists()
    )
    current, done = Path(), 0  # the file being read, and the size of those before it
    reported = time.monotonic()

    def report(path: Path, position: Callable[[], int]) -> None:
        nonlocal current, done, reported
        if path != current:
            done += current.stat().st_size if current.is_file() else 0
            current = path
        if time.monotonic() - reported >= PROGRESS_SECONDS:
            reported = time.monotonic()
            tracking.report_progress(done + position(), total, unit="bytes")

    return report


# ----------------------------------------------------------------------------------- splitting


def _place(key: str) -> float:
    """A place in [0, 1) that depends on nothing but the key: equal prompts fall on the same side of
    a threshold, in all kinds of data."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _write_splits(
    kind: DataKind,
    rows: Iterable[Mapping[str, Any]],
    held_out_share: float,
    paths: tuple[Path, Path],
) -> tuple[tuple[int, int], float, float]:
    """Write each row to train or held out by its prompt; return the numbers of rows, and the least
    and the greatest place of a prompt."""
    counts = [0, 0]
    least, most = 1.0, 0.0
    with paths[0].open("wb") as train, paths[1].open("wb") as held_out:
        for row in rows:
            place = _place(prompt_key(kind, row))
            least, most = min(least, place), max(most, place)
            is_held_out = place < held_out_share
            (held_out if is_held_out else train).write(encode_row(row))
            counts[is_held_out] += 1
    return (counts[0], counts[1]), least, most


def _move_a_prompt_to_empty_split(
    kind: DataKind, paths: tuple[Path, Path], counts: tuple[int, int], least: float, most: float
) -> tuple[int, int]:
    """Few prompts may all fall on one side; then the outermost one goes to the other."""
    if all(counts):
        return counts
    threshold = most if counts[0] == 0 else math.nextafter(least, 1.0)
    is_full, is_empty = (1, 0) if counts[0] == 0 else (0, 1)

    def belongs(row: Mapping[str, Any], split: int) -> bool:
        return (_place(prompt_key(kind, row)) < threshold) == (split == 1)

    moved = [row for row in read_jsonl(paths[is_full]) if belongs(row, is_empty)]
    kept = (row for row in read_jsonl(paths[is_full]) if belongs(row, is_full))
    kept_count = write_jsonl(paths[is_full], kept)
    moved_count = write_jsonl(paths[is_empty], moved)
    return (moved_count, kept_count) if is_full == 1 else (kept_count, moved_count)


def _take_subset(path: Path, count: int, limit: int) -> int:
    """Cut a file down to ``limit`` rows chosen at random, in their order; 0 leaves it whole."""
    if not limit or count <= limit:
        return count
    chosen = set(random.Random(SUBSET_SEED).sample(range(count), limit))
    return write_jsonl(
        path, (row for number, row in enumerate(read_jsonl(path)) if number in chosen)
    )
