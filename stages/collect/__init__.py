"""Read the user's files into JSON Lines of one shape for each kind of data, train and held out.

Files are streamed: memory does not grow with their size.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.collect.checking import write_check
from stages.collect.judged import (
    JUDGED_KINDS,
    Files,
    judged_metrics,
    reserved_prompts,
    write_reports,
)
from stages.collect.manifest import split_entry, write_manifest
from stages.collect.progress import Progress, make_progress
from stages.collect.reading import Reader
from stages.collect.splitting import Keyed, settled, take_subset, write_splits
from stages.core.artifacts import Artifact, make_artifact
from stages.core.config import CollectConfig, Compute, DataSource
from stages.core.contracts import RESERVED_FILE, CollectInputs, Datasets
from stages.core.errors import UserError
from stages.core.rejects import Rejects
from stages.core.schemas import DATA_KINDS, DataKind, columns, prompt_key, write_jsonl
from stages.core.sources import DOCUMENT_FORMATS, file_format


def run(
    config: CollectConfig, inputs: CollectInputs, compute: Compute, out_dir: Path
) -> tuple[Datasets, dict[str, float]]:
    """Write ``<kind>/train.jsonl`` and ``<kind>/held_out.jsonl`` for each kind that has files,
    ``rejects.jsonl`` with every record that could not be used, ``manifest.json`` with what became
    of each file, and ``check.md`` with what is wrong with the records.

    Metrics: ``<kind>_train``, ``<kind>_held_out`` and ``<kind>_rejected``, in records. With
    people's judgments, whose reports go to ``feedback/``, also what ``judged`` counts.

    Raises:
        UserError: a file cannot be read, changed meanwhile or holds no records, too many of its
            records are unusable, or a split would be empty.
    """
    datasets: dict[str, Artifact] = {}
    metrics = write_reports(inputs, out_dir)
    manifest: dict[str, dict[str, Any]] = {}
    progress = make_progress(
        artifact for name in CollectInputs.model_fields for artifact in getattr(inputs, name)
    )
    reserved = reserved_prompts(inputs)
    write_check(config, inputs, out_dir)
    with Rejects(out_dir) as rejects:
        for kind in DATA_KINDS:
            files = Files.of(inputs, kind)
            if not any(files) or files.is_held_out_judgments_alone:
                continue
            source: DataSource = getattr(config, kind)
            _check_settings(kind, source, files)
            folder = out_dir / kind
            folder.mkdir(exist_ok=True)
            kept_out = reserved if kind in JUDGED_KINDS else frozenset()
            manifest[kind] = _collect(kind, config, files, kept_out, folder, rejects, progress)
            for split, entry in manifest[kind].items():
                metrics[f"{kind}_{split}"] = float(entry["rows"])
            metrics[f"{kind}_rejected"] = float(rejects.count(kind))
            if kept_out:
                write_jsonl(folder / RESERVED_FILE, ({"prompt": key} for key in sorted(kept_out)))
            metrics |= judged_metrics(kind, files, manifest[kind], folder)
            datasets[kind] = make_artifact(kind, folder)
    write_manifest(out_dir, manifest)
    return Datasets(**datasets), metrics


def _check_settings(kind: DataKind, source: DataSource, files: Files) -> None:
    for column in source.columns:
        if column not in columns(kind):
            raise UserError(
                f"collect.{kind}.columns: {column!r} is no column of ours; the keys must be among "
                f"{', '.join(columns(kind))}, the values the files' names for them"
            )
    if not files.train and not files.judged:
        raise UserError(f"collect.{kind}.paths: held-out files only; name training files as well")
    for artifact in (*files.train, *files.held_out):
        if file_format(artifact.locate()) in DOCUMENT_FORMATS and kind != "documents":
            raise UserError(
                f"{artifact.path}: plain text can only be documents; "
                f"give collect.{kind}.paths records, such as .jsonl or .csv"
            )


def _collect(
    kind: DataKind,
    config: CollectConfig,
    files: Files,
    reserved: frozenset[str],
    folder: Path,
    rejects: Rejects,
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Write both splits of one kind and return what the manifest says of each."""
    source: DataSource = getattr(config, kind)
    paths = folder / "train.jsonl", folder / "held_out.jsonl"
    hints: dict[str, str] = {}
    ours = DataSource()  # what the settings say of columns is about the user's files
    train, judged = (
        Reader(kind, "train", settings, rejects, hints, progress, reserved)
        for settings in (source, ours)
    )
    held_out, judged_held_out = (
        Reader(kind, "held_out", settings, rejects, hints, progress) for settings in (source, ours)
    )
    rows = itertools.chain(
        _training_rows(files, train, judged),
        settled(held_out.rows(files.held_out), "held_out"),
        settled(judged_held_out.rows(files.judged_held_out), "held_out"),
    )
    held_out_share = 0.0 if files.held_out else source.held_out_share
    counts = write_splits(rows, held_out_share, paths)
    total = sum(counts) + rejects.count(kind)
    rejects.check_share("collect.max_reject_share", kind, total, config.max_reject_share, hints)
    must_hold_out = files.held_out or files.judged_held_out or held_out_share > 0
    for name, count in zip(("training", "held-out"), counts, strict=True):
        if count == 0 and (name == "training" or must_hold_out):
            kept_together = f"groups ({source.group_column})" if source.group_column else "prompts"
            unusable = rejects.count(kind)
            which = f", of which {unusable} were unusable (see {rejects.path})" if unusable else ""
            raise UserError(
                f"collect.{kind}: no {name} record among {total}{which}; "
                f"give more records of different {kept_together}"
            )
    # The limits are the files': people's judgments stay. In training they come first, else last.
    num_judged = [sum(file.rows for file in read.files) for read in (judged, judged_held_out)]
    kept = range(min(num_judged[0], counts[0])), range(counts[1] - num_judged[1], counts[1])
    return {
        "train": split_entry(
            take_subset(paths[0], counts[0], source.max_records, kept[0]),
            judged.files + train.files,
        ),
        "held_out": split_entry(
            take_subset(paths[1], counts[1], source.max_held_out_records, kept[1]),
            held_out.files + judged_held_out.files,
        ),
    }


def _training_rows(files: Files, train: Reader, judged: Reader) -> Iterator[Keyed]:
    """The rows of the training files. Judged ones come first, so that cleaning keeps them of equal
    ones, and are all trained on: of their kind the random share is held out. So are the files' rows
    with their prompts. Only where nothing else could be held out, a share of them is."""
    of_judgments = list(judged.rows(files.judged))
    if not files.train and not files.held_out and not files.judged_held_out:
        yield from of_judgments
        return
    yield from settled(of_judgments, "train")
    prompts = {prompt_key(train.kind, keyed.row) for keyed in of_judgments}
    for keyed in train.rows(files.train):
        is_judged = bool(prompts) and prompt_key(train.kind, keyed.row) in prompts
        yield keyed._replace(split="train") if is_judged else keyed
