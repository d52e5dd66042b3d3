"""A file that comes over the network: gone on with after a break, tried again, never cut short."""

import contextlib
import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from stages.core.artifacts import write_atomically
from stages.core.errors import UserError
from stages.core.fetch.snapshots import Progress

RETRY_SECONDS = (1.0, 3.0, 8.0)
"""Pauses between tries that brought nothing; each byte that is new begins the count anew."""
MAX_PAUSE_SECONDS = 60.0
"""A server that asks for more patience is not waited for."""


class TransientError(Exception):
    """Worth another try: a broken connection, a server that is busy or away."""

    def __init__(self, message: str, pause_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.pause_seconds = pause_seconds


@dataclasses.dataclass
class Answer:
    """A server's answer to the question for the rest of a file."""

    chunks: Iterator[bytes]
    """The bytes, beginning with ``start``; may raise a TransientError."""
    start: int
    """Place of the first byte in the file: what was asked for, or 0."""
    total: int
    """Bytes of the whole file; 0 where the server does not say."""
    tag: str
    """By which the server can tell whether the file is still the same; empty: it cannot."""


OpenAt = Callable[[int, str], AbstractContextManager[Answer]]
"""Asks for a file from a byte on, if it still has the given tag; else, for the whole file."""


def download(part: Path, open_at: OpenAt, progress: Progress) -> None:
    """Write the file into ``part``, from where an earlier try stopped.

    Raises:
        TransientError: it did not come, in as many tries as there are pauses and one.
        UserError: the disk has too little space left, or what ``open_at`` raises.
    """
    state = part.with_name(f"{part.name}.state")
    failures = furthest = 0
    while True:
        tag = _tag(state)
        start = part.stat().st_size if tag and part.exists() else 0
        try:
            with open_at(start, tag) as answer:
                if answer.start == 0:  # before the new tag: it is not that of an older part
                    part.unlink(missing_ok=True)
                write_atomically(state, json.dumps({"tag": answer.tag}))
                _write(part, answer, progress)
            state.unlink()
            return
        except TransientError as error:
            reached = part.stat().st_size if part.exists() else 0
            failures = 0 if reached > max(furthest, start) else failures + 1
            furthest = max(furthest, reached)
            if failures > len(RETRY_SECONDS) or error.pause_seconds > MAX_PAUSE_SECONDS:
                raise
            time.sleep(max(error.pause_seconds, RETRY_SECONDS[max(failures - 1, 0)]))


def caused_by(error: BaseException | None, *kinds: type[BaseException]) -> bool:
    """Whether an error of these kinds is at the root of another one, or is it itself."""
    while error is not None:
        if isinstance(error, kinds):
            return True
        error = error.__cause__ or error.__context__
    return False


# ------------------------------------------------------------------------------------ helpers


def _tag(state: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(state.read_text(encoding="utf-8"))["tag"])
    return ""


def _write(part: Path, answer: Answer, progress: Progress) -> None:
    free = shutil.disk_usage(part.parent).free
    if answer.total - answer.start > free:
        raise UserError(
            f"{(answer.total - answer.start) / 1e9:.1f} GB are to come, and the disk of "
            f"{part.parent} has {free / 1e9:.1f} GB left; free some or set RLHF_DATA_ROOT"
        )
    with part.open("ab") as file:
        done = answer.start
        for chunk in answer.chunks:
            file.write(chunk)
            done += len(chunk)
            progress(done, answer.total, "bytes")
    if answer.total and done < answer.total:
        raise TransientError(f"the connection ended after {done} of {answer.total} bytes")
