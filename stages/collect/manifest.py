"""``manifest.json``: where each split's rows came from, and what became of every record."""

import json
from pathlib import Path
from typing import Any

from stages.collect.judged import is_judged
from stages.collect.reading import FileCounts
from stages.core.artifacts import write_atomically
from stages.core.fetch import snapshot_of

MANIFEST_FILE = "manifest.json"


def split_entry(rows: int, files: list[FileCounts]) -> dict[str, Any]:
    """What the manifest says of one split.

    Args:
        rows: in the split's file, after a subset was taken.
        files: those that were read for it.
    """
    return {"rows": rows, "files": [_file_entry(counts) for counts in files]}


def _file_entry(counts: FileCounts) -> dict[str, Any]:
    path = counts.artifact.locate()
    entry: dict[str, Any] = {
        "path": counts.artifact.path,
        "sha256": counts.artifact.digest,
        "bytes": path.stat().st_size,
        "format": counts.format,
        "records": {
            "read": counts.read,
            "used": counts.used,
            "rejected": counts.rejected,
            "empty": counts.empty,
        },
        "rows": counts.rows,
    }
    if counts.reserved:
        entry["reserved"] = counts.reserved
    return entry | _origin(path)


def _origin(path: Path) -> dict[str, Any]:
    """Of a file that was fetched: where from, in which state, and under which licence."""
    snapshot = snapshot_of(path)
    if snapshot is None:
        return {}
    # Judgments have no version of their own: the snapshot's digest is it.
    digest = {"digest": snapshot.digest} if is_judged(path) else {}
    return {
        "source": snapshot.source,
        "version": snapshot.version | digest,
        "licence": snapshot.licence,
        "fetched_at": snapshot.fetched_at,
    }


def write_manifest(folder: Path, kinds: dict[str, dict[str, Any]]) -> None:
    """Write what ``split_entry`` says of each kind of data and split."""
    text = json.dumps(kinds, indent=2, ensure_ascii=False, default=str)
    write_atomically(folder / MANIFEST_FILE, text + "\n")
