"""Records of CSV and TSV files with a header, and of Parquet."""

import csv
import io
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stages.core.sources.records import (
    HEAD_CHARACTERS,
    MAX_RECORD_BYTES,
    TOO_LARGE,
    BrokenFileError,
    Record,
)

if TYPE_CHECKING:
    import pyarrow

PARQUET_ROWS = 256
BROKEN = 'broken CSV: a quotation mark inside a quoted cell is written twice ("")'
DELIMITERS = "\t;,|"
"""Excel writes a semicolon where a comma is the decimal sign, and copies cells with tabs."""
HEADER_BYTES = 4096
UTF8_MARK = b"\xef\xbb\xbf"
EXCEL_HINT = "sep="
"""With this and the delimiter, tables for Excel may begin, in a line of their own."""


class _LineTooLongError(Exception):
    """A line that is larger than any record may be; it has been skipped."""


class _Lines:
    """The lines of a table, none of them larger than a record may be: what the csv module gets it
    takes into memory."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.number = 0
        """Lines read so far."""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_RECORD_BYTES + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > MAX_RECORD_BYTES:
            while line and not line.endswith(("\n", "\r")):
                line = self._text.readline(MAX_RECORD_BYTES)
            raise _LineTooLongError
        return line


def _delimiter(stream: io.BufferedReader, usual: str) -> str:
    """The delimiter of the table's header: the ``usual`` one where it is in it."""
    head = stream.peek(HEADER_BYTES)[:HEADER_BYTES].removeprefix(UTF8_MARK)
    header = head.decode(errors="replace").splitlines()[:1] or [""]
    if header[0].lower().startswith(EXCEL_HINT):
        return header[0][len(EXCEL_HINT) :][:1] or usual
    found = [sign for sign in (usual, *DELIMITERS) if sign in header[0]]
    return found[0] if found else usual


def table_records(stream: io.BufferedReader, delimiter: str) -> Iterator[Record]:
    """A record a row below the header.

    Args:
        stream: the table.
        delimiter: what is between cells, unless the header shows another.

    Raises:
        BrokenFileError: a quotation mark is never closed.
    """
    csv.field_size_limit(MAX_RECORD_BYTES)
    delimiter = _delimiter(stream, delimiter)
    # Bytes that are no UTF-8 become lone surrogates, which the row types refuse by field.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    lines = _Lines(text)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        number = lines.number + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except _LineTooLongError:
            yield Record(number, None, TOO_LARGE)
            continue
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise BrokenFileError(
                    number,
                    "a quotation mark is never closed, which swallows the rest of the file; "
                    "mend that line",
                ) from None
            too_large = "field larger" in str(error)
            yield Record(number, None, TOO_LARGE if too_large else BROKEN)
            continue
        if header is None:
            is_hint = number == 1 and cells and cells[0].lower().startswith(EXCEL_HINT)
            header = None if is_hint else [cell.strip() for cell in cells]
        elif cells and len(cells) != len(header):
            head = delimiter.join(cells)[:HEAD_CHARACTERS]
            yield Record(number, None, "other number of cells than the header", head)
        elif cells:
            yield Record(number, dict(zip(header, cells, strict=True)))


def parquet_records(stream: io.BufferedReader, *, is_compressed: bool) -> Iterator[Record]:
    """A record a row, taken from the file by a few hundred."""
    import pyarrow.parquet

    with tempfile.TemporaryFile() as plain:
        if is_compressed:  # Parquet is read from its end
            shutil.copyfileobj(stream, plain)
        file = pyarrow.parquet.ParquetFile(plain if is_compressed else stream)
        number = 1
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            try:
                rows = batch.to_pylist()
            except (ValueError, OverflowError):
                yield from _single_rows(batch, number)
            else:
                for offset, fields in enumerate(rows):
                    yield Record(number + offset, fields)
            number += batch.num_rows


def _single_rows(batch: "pyarrow.RecordBatch", first: int) -> Iterator[Record]:
    """The rows of a batch of which some hold what Python cannot represent."""
    for offset in range(batch.num_rows):
        try:
            (fields,) = batch.slice(offset, 1).to_pylist()
        except UnicodeDecodeError:
            yield Record(first + offset, None, "invalid UTF-8")
        except (ValueError, OverflowError):
            yield Record(first + offset, None, "a date or number is out of range")
        else:
            yield Record(first + offset, fields)
