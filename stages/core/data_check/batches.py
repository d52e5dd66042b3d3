"""A file's records in batches, of whatever format."""

import contextlib
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa

from stages.core import formats
from stages.core.data_check.blocks import BOM, Block, DamagedFileError, blocks, pieces
from stages.core.data_check.columns import TEXTS
from stages.core.data_check.dialogue_columns import DIALOGUE_FORMATS
from stages.core.data_check.findings import excerpt
from stages.core.data_check.layout import Fields, Layout
from stages.core.data_check.lines import read_line
from stages.core.data_check.plain_blocks import plain_batch
from stages.core.data_check.rows import Batch, Fault, field_marks, parsed_rows
from stages.core.errors import UserError
from stages.core.sources import CUT_OFF, Record, file_format, read_records
from stages.core.sources.json_records import json_habit

RECORDS_A_BATCH = 2000
PIECE_BYTES = 1 << 19
UNREADABLE = UserError, OSError, ValueError, MemoryError, pa.ArrowException
"""What reading a damaged file can raise."""

SOURCES_CODES = {
    "broken JSON": "json",
    "not a JSON object": "not-object",
    "invalid UTF-8": "utf8",
    "NUL byte": "nul",
    "nested too deeply": "nested",
    "record is larger than 10 MB": "huge",
}


def first_fields(path: Path, limit: int = 200) -> list[Fields]:
    """The fields of the first readable records, to tell by them what they are."""
    found: Iterator[Fields]
    if file_format(path) == "jsonl":
        lines = (line for block in blocks(path) for line in _lines(block))
        read = (read_line(line).fields for _, line in islice(lines, 10 * limit))
    else:
        read = (record.fields for record in _records(path))
    found = (fields for fields in read if fields is not None)
    kept: list[Fields] = []
    with contextlib.suppress(DamagedFileError, *UNREADABLE):
        kept.extend(islice(found, limit))
    return kept


def batches(path: Path, layout: Layout) -> Iterator[Batch]:
    """The records of the file.

    Raises:
        DamagedFileError: the file cannot be read further; what was readable has been handed out.
    """
    if file_format(path) == "jsonl" and not layout.is_gathered:
        for block in blocks(path):
            yield from _block_batches(block, layout)
        return
    some: list[Record] = []
    damage: DamagedFileError | None = None
    try:
        records = _records(path)
        for record in formats.gather(layout.format, records) if layout.is_gathered else records:
            if record.reason == CUT_OFF:
                damage = DamagedFileError(f"cut off or damaged: {record.head}")
                break
            some.append(record)
            if len(some) == RECORDS_A_BATCH:
                yield _batch_of_records(some, layout)
                some = []
    except UNREADABLE as error:
        message = re.sub(r"^:(\d+):", r"line \1:", str(error).removeprefix(f"{path}"))
        message = message.lstrip(": ")
        damage = DamagedFileError(" ".join(message.split())[:200])
    if some:
        yield _batch_of_records(some, layout)
    if damage:
        raise damage


def _block_batches(block: Block, layout: Layout) -> Iterator[Batch]:
    """The block as a whole, or where there is a fault in it in pieces, of which those with the
    fault alone take long."""
    is_dialogue = layout.kind == "sft" and layout.format in DIALOGUE_FORMATS
    if not layout.is_plain and not is_dialogue:
        yield _careful_batch(block, layout)
    elif batch := plain_batch(block, layout):
        yield batch
    elif len(block.data) <= PIECE_BYTES:
        yield _careful_batch(block, layout)
    else:
        for piece in pieces(block, PIECE_BYTES):
            yield plain_batch(piece, layout) or _careful_batch(piece, layout)


def _records(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        yield from read_records(path, file)


def _lines(block: Block) -> Iterator[tuple[int, bytes]]:
    """The lines of a block that are not blank, with their numbers."""
    for number, line in enumerate(block.data.split(b"\n"), block.first_line):
        if number == 1:
            line = line.removeprefix(BOM)
        if line.strip():
            yield number, line


def _careful_batch(block: Block, layout: Layout) -> Batch:
    faults: list[Fault] = []
    readable: list[tuple[int, Fields]] = []
    if block.is_huge:
        faults.append(Fault(block.first_line, "huge", "", _show(block.head)))
    num_records = len(faults)
    for number, line in _lines(block):
        num_records += 1
        fields, fault, remarks = read_line(line)
        codes = (fault, *remarks) if fault else remarks
        faults.extend(Fault(number, code, _detail(code, line), _show(line)) for code in codes)
        if fields is not None:
            readable.append((number, fields))
    rows, wrong, num_usable = parsed_rows(readable, layout.kind, layout.converter())
    notes = {
        "crlf": block.data.count(b"\r\n"),
        "bom": int(block.first_line == 1 and block.data.startswith(BOM)),
    }
    return Batch(
        rows, field_marks(readable), faults + wrong, num_records, num_usable, len(block.data), notes
    )


def _batch_of_records(records: list[Record], layout: Layout) -> Batch:
    readable = [(record.line, record.fields) for record in records if record.fields is not None]
    faults = []
    for record in records:
        if record.fields is None:
            what, _, detail = record.reason.partition(": ")
            code = SOURCES_CODES.get(what, "schema")
            detail = record.reason if code == "schema" else detail
            faults.append(Fault(record.line, code, detail, excerpt(record.head)))
    rows, wrong, num_usable = parsed_rows(readable, layout.kind, layout.converter())
    num_bytes = sum(rows[name].str.len_bytes().sum() for name in TEXTS[layout.kind])
    return Batch(
        rows, field_marks(readable), faults + wrong, len(records), num_usable, int(num_bytes), {}
    )


def _detail(code: str, line: bytes) -> str:
    return json_habit(line) if code == "json" else ""


def _show(line: bytes) -> str:
    return excerpt(line[:400].decode("utf-8", errors="backslashreplace"))
