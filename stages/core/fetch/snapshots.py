"""Where fetched data lie: one folder for each content that a source had.

``<cache>/<digest of the source>/<digest of the content>/`` holds the files and ``snapshot.json``.
It is built beside and renamed, so that it is whole or not there; a source that changes gets one
more folder, and results that were made from the older one keep it until ``rlhf gc``.
"""

import contextlib
import datetime
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from stages.core.artifacts import data_root, file_digest, json_digest, write_atomically
from stages.core.config import Frozen, Source

SNAPSHOT_FILE = "snapshot.json"
PART = ".part"
"""Folder below the source's in which a snapshot is built; what lies there is gone on from."""

Progress = Callable[[int, int, str], None]
"""Is told how far a source is: done, total (0 where unknown), and of what: bytes or records."""


class SnapshotFile(Frozen):
    """One file of a snapshot."""

    name: str
    """Below the snapshot's folder."""
    sha256: str
    size_bytes: int


class Snapshot(Frozen):
    """What a source held when it was fetched."""

    source: dict[str, Any]
    """The source's configuration, in which no secrets are."""
    folder: str
    """Below the cache."""
    digest: str
    """Of the files' names and contents."""
    files: tuple[SnapshotFile, ...]
    records: int | None = None
    """Where they were counted: rows that came from a query or a data set of the hub."""
    fetched_at: str
    """ISO 8601, UTC."""
    licence: str = ""
    """As the source names it; empty where it says nothing."""
    version: dict[str, str] = Field(default={})
    """What the source calls this state: etag, last_modified, revision."""

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files)


def cache_folder() -> Path:
    """Where the snapshots of all sources lie."""
    return data_root() / "cache" / "sources"


def source_folder(cache: Path, source: Source) -> Path:
    """The folder of one source. A checksum that is added to an address does not make it another."""
    facts = source.model_dump(mode="json", exclude={"sha256"})
    return cache / json_digest({"kind": type(source).__name__, **facts})[:12]


def snapshots(
    cache: Path, source: Source, wanted: Callable[[Snapshot], bool] = lambda snapshot: True
) -> Iterator[Snapshot]:
    """The source's snapshots that are ``wanted`` and sound, that which was used last first. Only
    what is taken from the iterator is compared with its digests (about a second a gigabyte)."""
    marks = source_folder(cache, source).glob(f"*/{SNAPSHOT_FILE}")
    paths = (path for path in marks if path.parent.name[0] != ".")
    for path in sorted(paths, key=_used_at, reverse=True):
        snapshot = read_snapshot(path.parent)
        if snapshot and wanted(snapshot) and _is_sound(cache, snapshot):
            yield snapshot


def read_snapshot(folder: Path) -> Snapshot | None:
    """The snapshot in ``folder``; None where there is none. Its files are not looked at."""
    try:
        return Snapshot.model_validate_json((folder / SNAPSHOT_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def snapshot_of(path: Path) -> Snapshot | None:
    """The snapshot that a file below the cache belongs to; None for any other file."""
    cache = cache_folder()
    if not path.is_relative_to(cache):
        return None
    parts = path.relative_to(cache).parts
    return read_snapshot(cache.joinpath(*parts[:2])) if len(parts) > 2 else None


@contextlib.contextmanager
def locked(cache: Path, source: Source, wait: Callable[[], None]) -> Iterator[None]:
    """Keep other runs from fetching the same source meanwhile; ``wait`` is called where one does,
    before its end is waited for."""
    folder = source_folder(cache, source)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def part_folder(cache: Path, source: Source) -> Path:
    """Where the source's next snapshot is built."""
    folder = source_folder(cache, source) / PART
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def keep(
    cache: Path,
    source: Source,
    files: Sequence[Path],
    *,
    records: int | None = None,
    licence: str = "",
    version: dict[str, str] | None = None,
) -> Snapshot:
    """Make the ``files`` in the source's part folder a snapshot; all else there is thrown away.

    Content that was fetched before keeps its folder.
    """
    part = part_folder(cache, source)
    kept = tuple(
        SnapshotFile(
            name=path.relative_to(part).as_posix(),
            sha256=file_digest(path),
            size_bytes=path.stat().st_size,
        )
        for path in sorted(files)
    )
    digest = json_digest({file.name: file.sha256 for file in kept})
    folder = part.with_name(digest[:12])
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    snapshot = Snapshot(
        source=source.model_dump(mode="json"),
        folder=folder.relative_to(cache).as_posix(),
        digest=digest,
        files=kept,
        records=records,
        fetched_at=now,
        licence=licence,
        version=version or {},
    )
    is_there = read_snapshot(folder) is not None and _is_sound(cache, snapshot)
    if not is_there:
        for path in part.rglob("*"):
            if path.is_file() and path not in files:
                path.unlink()
        _write(part, snapshot)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
        return snapshot
    shutil.rmtree(part)
    _write(folder, snapshot)
    return snapshot


def use(cache: Path, snapshot: Snapshot) -> Snapshot:
    """Take an earlier snapshot as it is. It counts as changed from now on: see ``rlhf gc``."""
    with contextlib.suppress(OSError):
        os.utime(cache / snapshot.folder / SNAPSHOT_FILE)
    return snapshot


# ------------------------------------------------------------------------------------ helpers


def _write(folder: Path, snapshot: Snapshot) -> None:
    text = json.dumps(snapshot.model_dump(mode="json"), indent=2, ensure_ascii=False)
    write_atomically(folder / SNAPSHOT_FILE, text)


def _is_sound(cache: Path, snapshot: Snapshot) -> bool:
    """Whether every file is there and as it was."""
    folder = cache / snapshot.folder
    try:
        return all(file_digest(folder / file.name) == file.sha256 for file in snapshot.files)
    except OSError:
        return False


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # rlhf gc was there
        return 0.0
