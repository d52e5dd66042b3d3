"""Some records of a file: a table of the usable ones, and what is wrong with the others."""

import json
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import polars as pl

from stages.core.data_check.columns import MARK_COLUMNS, TEXTS
from stages.core.data_check.findings import excerpt
from stages.core.data_check.layout import Convert, Fields
from stages.core.schemas import DataKind, parse_row

ROLES_REASON = re.compile(
    r"end with|system message|none of system|several messages|turn by another than user"
)

ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
"""What Python makes of a byte that is no UTF-8 (PEP 383); in JSON hardly ever alone."""


class Fault(NamedTuple):
    """Something wrong with one record."""

    line: int
    code: str
    detail: str
    excerpt: str


class Batch(NamedTuple):
    """Some consecutive records of a file."""

    rows: pl.DataFrame
    """The usable records in the shape of their kind, texts alone, and ``line``. A prompt of several
    messages is their contents, joined."""
    marks: pl.DataFrame
    """``line`` and the columns that say where the records come from."""
    faults: list[Fault]
    num_records: int
    num_usable: int
    """Records that gave a row."""
    num_bytes: int
    notes: dict[str, int]
    """Code → lines, of what concerns lines without making them unusable."""


class Rows(NamedTuple):
    """What became of some records."""

    table: pl.DataFrame
    faults: list[Fault]
    num_usable: int
    """Records that gave a row."""


def parsed_rows(records: Iterable[tuple[int, Fields]], kind: DataKind, convert: Convert) -> Rows:
    """Records by the schema: a table of the good ones, the faults of the others."""
    names = ("line", *TEXTS[kind], *(("label",) if kind == "labelled" else ()))
    values: dict[str, list[Any]] = {name: [] for name in names}
    faults: list[Fault] = []
    num_usable = 0
    for line, given in records:
        before = len(values["line"])
        reasons: dict[str, str] = {}
        try:
            found = convert(given)
            if not found:
                faults.append(Fault(line, "no-row", "", _shown(given)))
            for fields in found:
                try:
                    _add_row(values, line, parse_row(kind, fields), faults)
                except ValueError as error:
                    reasons[str(error)] = reason_code(str(error), given)
        except ValueError as error:
            reasons[str(error)] = reason_code(str(error), given)
        num_usable += len(values["line"]) > before
        faults.extend(Fault(line, code, reason, _shown(given)) for reason, code in reasons.items())
    schema = {name: pl.UInt32 if name == "line" else pl.String for name in names}
    return Rows(pl.DataFrame(values, schema=schema), faults, num_usable)


def _add_row(
    values: dict[str, list[Any]], line: int, row: dict[str, Any], faults: list[Fault]
) -> None:
    values["line"].append(line)
    for name, column in values.items():
        if name == "line":
            continue
        value = row[name]
        if isinstance(value, list):
            if not alternates(value):
                faults.append(Fault(line, "turns-not-alternating", "", excerpt(_roles(value))))
            value = "\n\n".join(message["content"] for message in value)
        column.append(value)


def _shown(record: Fields) -> str:
    given = {name: value for name, value in record.items() if value is not None}
    return excerpt(json.dumps(given, ensure_ascii=False, default=str)[:400])


def reason_code(reason: str, record: Fields) -> str:
    """The code of a finding for a reason why ``parse_row`` refused the record."""
    if reason.endswith("is empty"):
        return "empty"
    if reason.endswith("is not valid UTF-8"):
        is_encoding = any(
            isinstance(value, str) and ESCAPED_BYTE.search(value) for value in record.values()
        )
        return "utf8" if is_encoding else "surrogate"
    if reason == "chosen and rejected are equal":
        return "identical"
    if ROLES_REASON.search(reason):
        return "role-order"
    return "schema"


def alternates(messages: list[dict[str, str]]) -> bool:
    """Do user and assistant take turns, after a system message at most?"""
    roles = [message["role"] for message in messages if message["role"] != "system"]
    return all(one != other for one, other in pairwise(roles))


def _roles(messages: list[dict[str, str]]) -> str:
    return ", ".join(message["role"] for message in messages)


def field_marks(records: list[tuple[int, Fields]]) -> pl.DataFrame:
    """``Batch.marks`` of these records."""
    names = {name for _, fields in records for name in fields if name.lower() in MARK_COLUMNS}
    values: dict[str, list[Any]] = {"line": [line for line, _ in records]}
    for name in sorted(names):
        given = (fields.get(name) for _, fields in records)
        values[name] = [
            value.encode(errors="replace").decode() if isinstance(value, str) else None
            for value in given
        ]
    schema = {name: pl.UInt32 if name == "line" else pl.String for name in values}
    return pl.DataFrame(values, schema=schema)
