"""The records of a file, whatever its format and compression, up to where it breaks off."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stages.core.errors import UserError
from stages.core.sources.json_records import json_records, jsonl_records
from stages.core.sources.records import CUT_OFF, BrokenFileError, Record
from stages.core.sources.signatures import HEAD_BYTES, disguise
from stages.core.sources.suffixes import file_compression, file_format
from stages.core.sources.table_records import parquet_records, table_records
from stages.core.sources.text_records import text_records

if TYPE_CHECKING:  # the command line, which only looks for files, starts without these libraries
    from stages.core.sources.compression import Decompressed

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
ENCODED_FORMATS = ("jsonl", "json", "csv", "tsv", "text")
"""Formats that are UTF-8 from their first byte on."""


def read_records(path: Path, raw: io.BufferedReader) -> Iterator[Record]:
    """The records of the file at ``path``, opened as ``raw``, whose position shows the progress.

    Of a file that is cut off or damaged in the middle, the records before that place are given, and
    behind them a last one without fields and with the reason ``CUT_OFF``.

    Raises:
        UserError: nothing of the file can be read, or it is not what its suffix says; it is UTF-16;
            or it is a plain file that is broken so that the rest has no meaning.
    """
    import pyarrow

    from stages.core.sources.compression import Decompressed

    name, compression = file_format(path), file_compression(path)
    if other := disguise(path, raw.peek(HEAD_BYTES)[:HEAD_BYTES]):
        raise UserError(f"{path}: {other}")
    packed = Decompressed(raw, compression) if compression else None
    stream: io.BufferedReader = io.BufferedReader(packed) if packed else raw
    count, held, fault = 0, None, ""
    try:
        if name in ENCODED_FORMATS and stream.peek(2)[:2] in UTF16_MARKS:
            raise UserError(f"{path}: is UTF-16; convert it: iconv -f UTF-16 -t UTF-8")
        for record in _records(name, stream, is_compressed=packed is not None):
            if held is not None:
                yield held
                count += 1
            held = record
    except BrokenFileError as error:
        if packed is None or not packed.fault:
            if name != "warc":
                raise UserError(f"{path}:{error.line}: {error.problem}") from None
            fault = error.problem
    except (OSError, pyarrow.ArrowException) as error:
        fault = " ".join(str(error).split())[:200]
    fault = packed.fault if packed and packed.fault else fault
    if not fault:
        if held is not None:
            yield held
        return
    if held is not None and not _is_part(name, held, packed):
        yield held
        count += 1
    if count == 0:
        raise UserError(
            f"{path}: cannot be read as {' '.join(filter(None, (compression, name)))}: "
            f"{fault}; it may be cut off: make or fetch it again"
        )
    yield Record(held.line if held else 1, None, CUT_OFF, fault)


def _records(name: str, stream: io.BufferedReader, *, is_compressed: bool) -> Iterator[Record]:
    if name == "jsonl":
        return jsonl_records(stream)
    if name == "json":
        return json_records(stream)
    if name == "parquet":
        return parquet_records(stream, is_compressed=is_compressed)
    if name == "text":
        return text_records(stream)
    if name == "html":
        from stages.core.sources.html import html_records

        return html_records(stream)
    if name == "warc":
        from stages.core.sources.warc import warc_records

        return warc_records(stream)
    return table_records(stream, "\t" if name == "tsv" else ",")


def _is_part(name: str, last: Record, packed: "Decompressed | None") -> bool:
    """Whether the last record before the damage is only the beginning of one. A table's last cell
    may be cut off without any other sign."""
    if last.fields is None:
        return True
    return name in ("csv", "tsv") and packed is not None and packed.last_byte not in b"\r\n"
