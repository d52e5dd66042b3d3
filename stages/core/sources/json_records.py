"""Records of JSON Lines, and of one JSON array."""

import io
import json
from collections.abc import Iterator
from itertools import islice

from pydantic_core import from_json

from stages.core.sources.records import (
    HEAD_CHARACTERS,
    MAX_RECORD_BYTES,
    TOO_LARGE,
    BrokenFileError,
    Record,
    show,
)

READ_CHARACTERS = 1_000_000
BROKEN = "broken JSON"
UTF8_MARK = b"\xef\xbb\xbf"


def jsonl_records(stream: io.BufferedReader) -> Iterator[Record]:
    """A record a line. No more than one of the largest records is in memory, however long a line
    is."""
    number = 0
    while line := stream.readline(MAX_RECORD_BYTES + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(UTF8_MARK)
        if len(line) > MAX_RECORD_BYTES:
            head = line[:HEAD_CHARACTERS]
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_RECORD_BYTES)
            yield Record(number, None, TOO_LARGE, show(head))
        elif line.strip():
            yield _parse(number, line)


def _parse(number: int, line: bytes) -> Record:
    try:
        fields = from_json(line)
    except ValueError as error:
        return Record(number, None, _reason(line, str(error)), show(line))
    if not isinstance(fields, dict):
        return Record(number, None, "not a JSON object", show(line))
    return Record(number, fields)


def _reason(line: bytes, error: str) -> str:
    try:
        line.decode()
    except UnicodeDecodeError:
        return "invalid UTF-8"
    if b"\0" in line:
        return "NUL byte"
    if "recursion" in error:
        return "nested too deeply"
    habit = json_habit(line)
    return f"{BROKEN}: {habit}" if habit else BROKEN


def json_habit(line: bytes) -> str:
    """Which habit of other languages and formats makes a line no JSON, with its cure; ""."""
    content = line.strip()
    if content in (b"[", b"]", b"],", b"[{"):
        return "the file is an array; name it .json"
    if content.endswith(b"},"):
        return "a comma follows the record; remove it, or name an array .json"
    if content.startswith(b"{'"):
        return "single quotes, as Python prints; write it by json.dumps"
    return ""


def json_records(stream: io.BufferedReader) -> Iterator[Record]:
    """A .json file holds one array, or in fact JSON Lines.

    Raises:
        BrokenFileError: it holds neither, the array is broken or one of its records too large.
    """
    start = stream.peek(4096).removeprefix(UTF8_MARK).lstrip()
    if not start.startswith(b"["):
        yield from _lines_of_json(stream)
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
            raise BrokenFileError(number, "nested too deeply; take that record out") from None
        # What ends with the buffer may go on in the file.
        if end == len(buffer):
            more = text.read(READ_CHARACTERS)
            if at_end or len(buffer) - at > MAX_RECORD_BYTES:
                raise BrokenFileError(
                    number,
                    "the array is broken here or its record larger than 10 MB; "
                    "mend it, or convert the file to .jsonl, of which single bad lines are skipped",
                )
            buffer, at, at_end = buffer[at:] + more, 0, not more
            continue
        if isinstance(fields, dict):
            yield Record(number, fields)
        else:
            yield Record(number, None, "not a JSON object", buffer[at:end][:HEAD_CHARACTERS])
        number += buffer.count("\n", at, end)
        at = end


def _lines_of_json(stream: io.BufferedReader) -> Iterator[Record]:
    """JSON Lines in a .json file.

    Raises:
        BrokenFileError: it rather looks like an object that is printed over several lines.
    """
    records = jsonl_records(stream)
    first = list(islice(records, 2))
    if len(first) == 2 and all(record.reason.startswith(BROKEN) for record in first):
        raise BrokenFileError(
            first[0].line,
            "neither a record a line nor an array of records; convert the file: jq -c . for "
            "records over several lines, jq -c '.NAME[]' for an array within an object",
        )
    yield from first
    yield from records


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at
