"""Records that come one by one, written as JSON Lines: equal records give equal bytes."""

import contextlib
import datetime
import decimal
import json
import math
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow

from stages.core.errors import UserError
from stages.core.fetch.snapshots import Progress

RECORDS_FILE = "records.jsonl.zst"
RECORDS_A_FRAME = 20_000
"""Compressed together. A broken-off file can be gone on with behind each frame."""


def write_records(
    path: Path,
    rows: Iterable[Mapping[str, Any]],
    progress: Progress,
    *,
    total: int = 0,
    written: int = 0,
    at_frame: Callable[[int], None] = lambda written: None,
) -> int:
    """Append the rows to ``path`` and return how many are in it.

    Args:
        total: rows there will be, where that is known; else 0.
        written: rows that are in it already, a multiple of RECORDS_A_FRAME.
        at_frame: called when the rows so far are on the disk, with their number.

    Raises:
        UserError: a value that JSON cannot hold, naming the column.
    """
    with path.open("ab") as file:
        frame: list[bytes] = []
        for row in rows:
            frame.append(encode_record(row))
            if len(frame) == RECORDS_A_FRAME:
                written += _write_frame(file.fileno(), frame)
                at_frame(written)
                progress(written, total, "records")
                frame = []
        written += _write_frame(file.fileno(), frame) if frame else 0
    progress(written, total, "records")
    return written


def encode_record(row: Mapping[str, Any]) -> bytes:
    """A row as one line of JSON: times in ISO 8601, exact decimals as numbers, bytes as UTF-8,
    and null for what is no number.

    Raises:
        UserError: a value that JSON cannot hold, naming the column.
    """
    plain = {str(name): _plain(value, str(name)) for name, value in row.items()}
    text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate: the check of the data will name it
        return json.dumps(plain, allow_nan=False).encode() + b"\n"


# ------------------------------------------------------------------------------------ helpers


def _write_frame(file: int, lines: list[bytes]) -> int:
    compressed = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(compressed, "zstd") as stream:
        stream.write(b"".join(lines))
    view = memoryview(compressed.getvalue())
    while view:
        view = view[os.write(file, view) :]
    os.fsync(file)
    return len(lines)


def _plain(value: Any, column: str) -> Any:
    """``value`` in the types that JSON has."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(item, column) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, column) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        if not value.is_finite():
            return None
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, uuid.UUID | datetime.timedelta):
        return str(value)
    kind = type(value).__name__
    if isinstance(value, bytes | memoryview):
        with contextlib.suppress(UnicodeDecodeError):
            return bytes(value).decode()
    raise UserError(f"column {column!r} holds {kind}, which is no text; leave the column out")
