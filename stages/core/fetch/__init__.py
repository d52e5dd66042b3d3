"""Data from URLs, the Hub, databases and S3 as snapshots below ``cache/sources``.

They are fetched in a process of their own (``python -m stages.core.fetch``), before collect reads
the files. What is imported here is light: flows and collect look snapshots up.
"""

from stages.core.fetch.snapshots import (
    SNAPSHOT_FILE,
    Progress,
    Snapshot,
    SnapshotFile,
    cache_folder,
    read_snapshot,
    snapshot_of,
)

__all__ = [
    "SNAPSHOT_FILE",
    "Progress",
    "Snapshot",
    "SnapshotFile",
    "cache_folder",
    "read_snapshot",
    "snapshot_of",
]
