"""One line of JSON Lines, read with care: what exactly is wrong with it."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic_core import from_json

from stages.core.sources import MAX_RECORD_BYTES

KEY = re.compile(rb'(?<!\\)"\s*:')
"""The end of an object's key: inside a string the quotation mark would be escaped."""
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
NOT_FINITE = re.compile(rb"[:,\[]\s*-?(?:NaN|Infinity)\b")


class Line(NamedTuple):
    """A line's fields, or the code of what makes it unreadable, and other faults."""

    fields: dict[str, Any] | None
    fault: str = ""
    remarks: tuple[str, ...] = ()
    """Codes of faults that leave the record readable."""


def read_line(line: bytes) -> Line:
    """Parse one line that is not blank."""
    if len(line) > MAX_RECORD_BYTES:
        return Line(None, "huge")
    try:
        fields = from_json(line)
    except ValueError as error:
        return Line(None, _fault(line, str(error)))
    if not isinstance(fields, dict):
        return Line(None, "not-object")
    remarks = []
    num_keys = _num_keys(fields)
    at_most = line.count(b'":') + line.count(b'" ') + line.count(b'"\t')
    if at_most > num_keys and len(KEY.findall(line)) > num_keys and _has_duplicate_keys(line):
        remarks.append("duplicate-keys")
    if may_be_not_finite(line) and not all(map(math.isfinite, _floats(fields))):
        remarks.append("not-finite")
    return Line(fields, remarks=tuple(remarks))


def may_be_not_finite(data: bytes) -> bool:
    """Is there something that looks like NaN or Infinity outside a string?"""
    return (b"NaN" in data or b"Infinity" in data) and bool(NOT_FINITE.search(data))


def _fault(line: bytes, error: str) -> str:
    try:
        line.decode()
    except UnicodeDecodeError:
        return "utf8"
    if b"\0" in line:
        return "nul"
    if "recursion" in error:
        return "nested"
    return "surrogate" if _has_lone_surrogate(line) else "json"


def _has_lone_surrogate(line: bytes) -> bool:
    """Is a lone surrogate all that is wrong with the line?"""
    if not SURROGATE.search(line):
        return False
    try:
        json.loads(line)  # unlike ours, this parser takes them
    except (ValueError, RecursionError):
        return False
    return True


def _num_keys(value: object) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_num_keys, value.values()))
    return sum(map(_num_keys, value)) if isinstance(value, list) else 0


def _has_duplicate_keys(line: bytes) -> bool:
    found = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found = found or len(pairs) != len(dict(pairs))

    try:
        json.loads(line, object_pairs_hook=look)
    except (ValueError, RecursionError):
        return False
    return found


def _floats(value: object) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _floats(item)
