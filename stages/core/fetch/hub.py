"""Data sets of the Hugging Face Hub."""

import contextlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from stages.core.artifacts import write_atomically
from stages.core.config import HubSource
from stages.core.errors import UserError
from stages.core.fetch.download import caused_by
from stages.core.fetch.records import RECORDS_FILE, write_records
from stages.core.fetch.snapshots import Progress, Snapshot, keep, part_folder, snapshots, use
from stages.core.fetch.variables import without_secrets

STATE_FILE = "records.state"
MEDIA = ("Image", "Audio", "Video", "Pdf", "Nifti")
BYTES = ("binary", "large_binary")


def fetch_hub(source: HubSource, cache: Path, progress: Progress) -> Snapshot:
    """The split's records. The commit is pinned, so that an earlier snapshot is taken unasked.

    Raises:
        UserError: the Hub cannot be reached, or has no such data set, commit or split.
    """
    earlier = next(snapshots(cache, source), None)
    if earlier is not None:
        return use(cache, earlier)
    part = part_folder(cache, source)
    with contextlib.chdir(part):  # a folder of the same name would be taken for the data set
        dataset = _call(source, lambda: _load(source))
    written = _call(source, lambda: write_dataset(dataset, part, progress, source.max_records))
    if written == 0:
        raise UserError(f"{source.name}: split {source.split} has no records; take another one")
    (part / STATE_FILE).unlink(missing_ok=True)
    version = {"revision": source.revision}
    return keep(
        cache,
        source,
        [part / RECORDS_FILE],
        records=written,
        licence=_licence(source),
        version=version,
    )


def write_dataset(dataset: Any, part: Path, progress: Progress, max_records: int = 0) -> int:
    """Write a ``Dataset`` or ``IterableDataset`` into the folder ``part``, from where an earlier
    try stopped; return its number of records.

    The streaming data set's own state, saved behind each frame, says where it goes on.
    """
    dataset = _text_columns(dataset)
    path, state_path = part / RECORDS_FILE, part / STATE_FILE
    is_stream = hasattr(dataset, "state_dict")
    written = _resume(dataset, path, state_path) if is_stream else 0
    if not written:
        path.unlink(missing_ok=True)

    def save(written: int) -> None:
        state = {"written": written, "size": path.stat().st_size, "state": dataset.state_dict()}
        write_atomically(state_path, json.dumps(state))

    total = max_records or (0 if is_stream else len(dataset))
    rows: Iterable[Any] = dataset
    if max_records:
        rows = (row for _, row in zip(range(max_records - written), dataset, strict=False))
    return write_records(
        path,
        rows,
        progress,
        total=total,
        written=written,
        at_frame=save if is_stream else lambda written: None,
    )


# ------------------------------------------------------------------------------------ helpers


def _load(source: HubSource) -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset(
        source.name,
        source.config_name or None,
        split=source.split,
        revision=source.revision,
        streaming=source.streaming,
    )


def _text_columns(dataset: Any) -> Any:
    """The data set without columns of pictures, sounds and other bytes."""
    features = dataset.features or {}
    others = [
        name
        for name, feature in features.items()
        if type(feature).__name__ in MEDIA or getattr(feature, "dtype", "") in BYTES
    ]
    if not others:
        return dataset
    print(f"no text, and so left out: column {', '.join(others)}", flush=True)
    return dataset.remove_columns(others)


def _resume(dataset: Any, path: Path, state_path: Path) -> int:
    """Put the data set behind the records that are in ``path`` already; returns their number."""
    try:
        saved = json.loads(state_path.read_text(encoding="utf-8"))
        if path.stat().st_size < saved["size"]:
            return 0
        dataset.load_state_dict(saved["state"])
        os.truncate(path, saved["size"])
        return int(saved["written"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _call(source: HubSource, call: Callable[[], Any]) -> Any:
    """What ``call`` returns, the libraries' errors as one line with the cure."""
    try:
        return call()
    except UserError as error:
        raise UserError(f"{source.name}: {error}") from None
    except Exception as error:
        message = _message(source, error)
        if not message:
            raise
        raise UserError(f"{source.name}: {message}") from None


def _message(source: HubSource, error: Exception) -> str:
    """What an error is to the user, with the cure; empty where it is a defect."""
    import httpx
    from datasets import exceptions
    from huggingface_hub import errors

    if caused_by(error, errors.GatedRepoError):
        return "is gated: accept its terms on its page, and set $HF_TOKEN to that account's token"
    if caused_by(error, errors.RevisionNotFoundError):
        return f"has no commit {source.revision}; take one from the history on its page"
    away = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)
    if caused_by(error, httpx.TransportError, ConnectionError, *away):
        return _unreachable(error)
    if caused_by(error, errors.RepositoryNotFoundError, exceptions.DatasetNotFoundError):
        return (
            "the hub has no such data set for this account; correct the name, or set $HF_TOKEN "
            "where it is private"
        )
    if isinstance(error, ValueError | RuntimeError | exceptions.DatasetsError):
        return _line(error)
    return ""


def _unreachable(error: Exception) -> str:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    why = "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else _line(error)
    return (
        f"the hub cannot be reached ({why}); with a network, run again (what has come is kept), "
        "else download it elsewhere and give its files with paths=…"
    )


def _line(error: Exception) -> str:
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return without_secrets(line, "")[:300]


def _licence(source: HubSource) -> str:
    """As the data set's card names it."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().dataset_info(source.name, revision=source.revision)
    except Exception:  # no reason to lose the records
        return ""
    given = getattr(info.card_data, "license", None)
    return ", ".join(given) if isinstance(given, list) else str(given or "")
