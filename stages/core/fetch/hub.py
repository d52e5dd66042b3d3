"""Data sets of the Hugging Face Hub."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from stages.core.artifacts import write_atomically
from stages.core.config import HubSource
from stages.core.errors import UserError
from stages.core.fetch.records import RECORDS_FILE, write_records
from stages.core.fetch.snapshots import Progress, Snapshot, keep, part_folder, snapshots, use
from stages.core.fetch.variables import without_secrets

STATE_FILE = "records.state"


def fetch_hub(source: HubSource, cache: Path, progress: Progress) -> Snapshot:
    """The split's records. The commit is pinned, so that an earlier snapshot is taken unasked.

    Raises:
        UserError: the Hub cannot be reached, or has no such data set, commit or split.
    """
    earlier = snapshots(cache, source)
    if earlier:
        return use(cache, earlier[0])
    dataset = _call(source, lambda: _load(source))
    part = part_folder(cache, source)
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
    dataset = datasets.load_dataset(
        source.name,
        source.config_name or None,
        split=source.split,
        revision=source.revision,
        streaming=source.streaming,
    )
    # Pictures and sounds stay what is stored of them, so that the message names the column.
    return dataset.decode(False) if source.streaming else dataset


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
    from datasets import exceptions
    from huggingface_hub import errors

    try:
        return call()
    except UserError as error:
        raise UserError(f"{source.name}: {error}") from None
    except errors.GatedRepoError:
        cure = "accept its terms on its page, and set $HF_TOKEN to a token of that account"
        raise UserError(f"{source.name}: is gated: {cure}") from None
    except errors.RevisionNotFoundError:
        raise UserError(
            f"{source.name}: has no commit {source.revision}; take one from its history"
        ) from None
    except (errors.RepositoryNotFoundError, exceptions.DatasetNotFoundError) as error:
        if _is_offline(error):
            raise _unreachable(source, error) from None
        raise UserError(
            f"{source.name}: the hub has no such data set for this account (commit "
            f"{source.revision[:10]}); correct the name or commit, or set $HF_TOKEN where it is "
            "private"
        ) from None
    except Exception as error:
        if _is_offline(error):
            raise _unreachable(source, error) from None
        if isinstance(error, ValueError | RuntimeError | exceptions.DatasetsError):
            raise UserError(f"{source.name}: {_line(error)}") from None
        raise


def _is_offline(error: BaseException | None) -> bool:
    """Whether the network is at the root of an error, or was switched off."""
    import httpx
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    kinds = (httpx.TransportError, ConnectionError, LocalEntryNotFoundError, OfflineModeIsEnabled)
    while error is not None:
        if isinstance(error, kinds):
            return True
        error = error.__cause__ or error.__context__
    return False


def _unreachable(source: HubSource, error: Exception) -> UserError:
    offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("HF_DATASETS_OFFLINE")
    why = "HF_HUB_OFFLINE is set" if offline else f"{_line(error)}"
    return UserError(
        f"{source.name}: the hub cannot be reached ({why}); with a network, run again (what has "
        "come is kept), else download it elsewhere and give its files with paths=…"
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
