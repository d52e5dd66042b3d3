"""The user's own files: which ones a setting names, and the records in them.

The format follows from the suffix: .jsonl and .json (a record a line, or one array), .parquet,
.csv and .tsv with a header, .txt and .md (documents); each also with .gz or .zst behind it.
"""

import csv
import glob
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from stages.core.errors import UserError

MAX_RECORD_BYTES = 10_000_000
DOCUMENT_CHARACTERS = 20_000
READ_CHARACTERS = 1_000_000

FORMATS = {
    ".jsonl": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".md": "text",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Record(NamedTuple):
    """One record of a file: its fields, or why it cannot be read."""

    line: int
    """Line of the file on which it begins, from 1; in Parquet the row."""
    fields: dict[str, Any] | None
    reason: str = ""
    head: str = ""


# --------------------------------------------------------------------------------- finding files


def source_files(paths: tuple[str, ...]) -> tuple[Path, ...]:
    """The files that the paths name, each once.

    A path is a file, a glob, or a folder, of which all files of a known format are taken
    (recursively, sorted; no hidden files, READMEs and licences). A relative path is looked up in
    the current folder and then in the checkout.

    Raises:
        UserError: nothing matches a path, or a file is empty, unreadable or of no known format.
    """
    files = dict.fromkeys(file for path in paths for file in _matches(path))
    for file in files:
        file_format(file)
        if not os.access(file, os.R_OK):
            raise UserError(f"{file}: may not be read; change its permissions")
        if file.stat().st_size == 0:
            raise UserError(f"{file}: is empty (0 bytes); write it again or take it off the paths")
    return tuple(files)


def _matches(path: str) -> list[Path]:
    roots = (Path.cwd(), Path(__file__).resolve().parents[2])
    for root in roots:
        place = root / Path(path).expanduser()
        found = (
            [place] if place.exists() else sorted(map(Path, glob.glob(str(place), recursive=True)))
        )
        files = [
            file.resolve()
            for item in found
            for file in (_folder_files(item) if item.is_dir() else [item])
        ]
        if files:
            return files
        if found:
            raise UserError(
                f"{path}: the folder has no file of a known format ({_known_suffixes()})"
            )
    raise UserError(
        f"{path}: no such file or folder, and no match as a glob; looked in "
        f"{' and '.join(str(root) for root in dict.fromkeys(roots))}; mend the path"
    )


def _folder_files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and _suffixes(path)[0] in FORMATS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not path.name.lower().startswith(("readme", "license", "licence"))
    ]


def _suffixes(path: Path) -> tuple[str, str]:
    """The suffixes of the format and of the compression, either possibly empty."""
    last = path.suffix.lower()
    if last in COMPRESSIONS:
        return Path(path.stem).suffix.lower(), last
    return last, ""


def _known_suffixes() -> str:
    return f"{', '.join(FORMATS)}; each also with {' or '.join(COMPRESSIONS)}"


def file_format(path: Path) -> str:
    """The format that the file's suffix stands for.

    Raises:
        UserError: the suffix stands for none.
    """
    suffix = _suffixes(path)[0]
    if suffix not in FORMATS:
        raise UserError(
            f"{path}: unknown format {suffix or 'without a suffix'!r}; "
            f"convert or rename it to one of {_known_suffixes()}"
        )
    return FORMATS[suffix]


# --------------------------------------------------------------------------------- reading records


def read_records(path: Path, raw: io.BufferedReader) -> Iterator[Record]:
    """The records of the file at ``path``, opened as ``raw``, whose position shows the progress.

    Raises:
        UserError: the file as a whole cannot be read: another format than its suffix says, cut off,
            or UTF-16.
    """
    import pyarrow

    name = file_format(path)
    compression = COMPRESSIONS.get(_suffixes(path)[1])
    try:
        stream = raw
        if compression:
            # Unlike zstandard's own reader, Arrow's notices a file that was cut off.
            stream = io.BufferedReader(pyarrow.CompressedInputStream(raw, compression))
        if name == "parquet":
            yield from _parquet_records(stream, is_compressed=bool(compression))
            return
        if stream.peek(2)[:2] in UTF16_MARKS:
            raise UserError(f"{path}: is UTF-16; convert it: iconv -f UTF-16 -t UTF-8")
        if name == "jsonl":
            yield from _jsonl_records(stream)
        elif name == "json":
            yield from _json_records(path, stream)
        elif name == "text":
            yield from _text_records(stream)
        else:
            yield from _table_records(path, stream, "\t" if name == "tsv" else ",")
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(
            f"{path}: cannot be read as {' '.join(filter(None, (compression, name)))}: "
            f"{' '.join(str(error).split())[:200]}; it may be cut off: make or fetch it again"
        ) from error


def _jsonl_records(stream: io.BufferedReader) -> Iterator[Record]:
    number = 0
    while line := stream.readline(MAX_RECORD_BYTES + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) > MAX_RECORD_BYTES:
            head = line[:200]
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_RECORD_BYTES)
            yield Record(number, None, "record is larger than 10 MB", _show(head))
        elif line.strip():
            yield _parse_json(number, line)


def _parse_json(number: int, line: bytes) -> Record:
    try:
        fields = from_json(line)
    except ValueError as error:
        return Record(number, None, _json_reason(line, str(error)), _show(line))
    if not isinstance(fields, dict):
        return Record(number, None, "not a JSON object", _show(line))
    return Record(number, fields)


def _json_reason(line: bytes, error: str) -> str:
    try:
        line.decode()
    except UnicodeDecodeError:
        return "invalid UTF-8"
    if b"\0" in line:
        return "NUL byte"
    return "nested too deeply" if "recursion" in error else "broken JSON"


def _json_records(path: Path, stream: io.BufferedReader) -> Iterator[Record]:
    """A .json file holds one array, or in fact JSON Lines."""
    start = stream.peek(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start.startswith(b"["):
        yield from _jsonl_records(stream)
        return
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")
    decoder = json.JSONDecoder()
    buffer = text.read(READ_CHARACTERS).lstrip()[1:]
    number, at, at_end = 1, 0, False
    while True:
        after = _skip(buffer, at, " \t\r\n,")
        number += buffer.count("\n", at, after)
        at = after
        if buffer[at : at + 1] == "]":
            return
        try:
            fields, end = decoder.raw_decode(buffer, at)
        except ValueError:
            end = len(buffer)
        except RecursionError:
            raise UserError(f"{path}:{number}: nested too deeply; take that record out") from None
        # What ends with the buffer may go on in the file.
        if end == len(buffer):
            more = text.read(READ_CHARACTERS)
            if at_end or len(buffer) - at > MAX_RECORD_BYTES:
                raise UserError(
                    f"{path}:{number}: the array is broken here or its record larger than 10 MB; "
                    "mend it, or convert the file to .jsonl, of which single bad lines are skipped"
                )
            buffer, at, at_end = buffer[at:] + more, 0, not more
            continue
        if isinstance(fields, dict):
            yield Record(number, fields)
        else:
            yield Record(number, None, "not a JSON object", buffer[at:end][:200])
        number += buffer.count("\n", at, end)
        at = end


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _table_records(path: Path, stream: io.BufferedReader, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(MAX_RECORD_BYTES)
    # Bytes that are no UTF-8 become lone surrogates, which the row types refuse by field.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.reader(text, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        number = rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise UserError(
                    f"{path}:{number}: a quotation mark is never closed, which swallows the rest "
                    "of the file; mend that line"
                ) from None
            too_large = "field larger" in str(error)
            yield Record(number, None, "record is larger than 10 MB" if too_large else "broken CSV")
            continue
        if header is None:
            header = cells
        elif cells and len(cells) != len(header):
            head = delimiter.join(cells)[:200]
            yield Record(number, None, "other number of cells than the header", head)
        elif cells:
            yield Record(number, dict(zip(header, cells, strict=True)))


def _text_records(stream: io.BufferedReader) -> Iterator[Record]:
    """One document a file; longer ones are cut between paragraphs, or else lines, or words."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")
    number, buffer = 1, ""
    while piece := text.read(READ_CHARACTERS):
        buffer += piece
        at = 0
        while len(buffer) - at > DOCUMENT_CHARACTERS:
            end = _cut(buffer, at)
            yield from _text_record(number, buffer[at:end])
            number += buffer.count("\n", at, end)
            at = end
        buffer = buffer[at:]
    yield from _text_record(number, buffer)


def _cut(text: str, start: int) -> int:
    end = start + DOCUMENT_CHARACTERS
    for separator in ("\n\n", "\n", " "):
        at = text.rfind(separator, start + DOCUMENT_CHARACTERS // 2, end)
        if at >= 0:
            return at + len(separator)
    return end


def _text_record(number: int, text: str) -> Iterator[Record]:
    if text.count("\0") > len(text) / 10:
        yield Record(number, None, "mostly NUL bytes: binary or UTF-16", text[:200])
    elif text.strip():
        first = len(text) - len(text.lstrip())
        yield Record(number + text.count("\n", 0, first), {"text": text.strip()})


def _parquet_records(stream: io.BufferedReader, *, is_compressed: bool) -> Iterator[Record]:
    import pyarrow.parquet

    with tempfile.TemporaryFile() as plain:
        if is_compressed:  # Parquet is read from its end
            shutil.copyfileobj(stream, plain)
        file = pyarrow.parquet.ParquetFile(plain if is_compressed else stream)
        number = 0
        for batch in file.iter_batches(batch_size=256):
            for fields in batch.to_pylist():
                number += 1
                yield Record(number, fields)


def _show(line: bytes) -> str:
    return line[:200].decode("utf-8", errors="backslashreplace").rstrip("\r\n")
