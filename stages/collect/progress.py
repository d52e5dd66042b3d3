"""How far the reading of all files is."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from stages.core import tracking
from stages.core.artifacts import Artifact

Progress = Callable[[Path, Callable[[], int]], None]
"""Is told the file being read and how to ask for the position in it."""
PROGRESS_SECONDS = 1.0


def make_progress(artifacts: Iterable[Artifact]) -> Progress:
    """A function that reports the bytes read of all files, not more often than once a second."""
    paths = [artifact.locate() for artifact in artifacts]
    total = sum(path.stat().st_size for path in paths if path.exists())
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
