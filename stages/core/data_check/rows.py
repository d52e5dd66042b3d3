"""Some records of a file: a table of the usable ones, and what is wrong with the others."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import polars as pl

from stages.core.data_check.columns import MARK_COLUMNS, TEXTS
from stages.core.data_check.findings import excerpt
from stages.core.schemas import DataKind, columns, parse_row

Fields = dict[str, Any]
Convert = Callable[[Fields], Fields]
"""From a known format to our columns.

Raises:
    ValueError: the record is not of that format; why, as in ``parse_row``.
"""


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
    num_bytes: int
    notes: dict[str, int]
    """Code → lines, of what concerns lines without making them unusable."""


def parsed_rows(
    records: Iterable[tuple[int, Fields]],
    kind: DataKind,
    mapping: Mapping[str, str],
    convert: Convert | None,
) -> tuple[pl.DataFrame, list[Fault]]:
    """Records by the schema: a table of the good ones, the faults of the others."""
    names = ("line", *TEXTS[kind], *(("label",) if kind == "labelled" else ()))
    values: dict[str, list[Any]] = {name: [] for name in names}
    faults: list[Fault] = []
    taken = [(name, mapping.get(name, name)) for name in columns(kind)]
    for line, given in records:
        try:
            fields = convert(given) if convert else given
            row = parse_row(kind, {ours: fields.get(theirs) for ours, theirs in taken})
        except ValueError as error:
            reason = str(error)
            code = reason_code(reason)
            shown = json.dumps(
                {n: v for n, v in given.items() if v is not None}, ensure_ascii=False, default=str
            )[:400]
            faults.append(Fault(line, code, reason, excerpt(shown)))
            continue
        values["line"].append(line)
        for name in names[1:]:
            value = row[name]
            if isinstance(value, list):
                if not alternates(value):
                    faults.append(Fault(line, "turns-not-alternating", "", excerpt(_roles(value))))
                value = "\n\n".join(message["content"] for message in value)
            values[name].append(value)
    schema = {name: pl.UInt32 if name == "line" else pl.String for name in names}
    return pl.DataFrame(values, schema=schema), faults


def reason_code(reason: str) -> str:
    """The code of a finding for a reason of ``parse_row``."""
    if reason.endswith("is empty"):
        return "empty"
    if reason.endswith("is not valid UTF-8"):
        return "surrogate"
    if reason == "chosen and rejected are equal":
        return "identical"
    if re.search(r"end with|system message|none of system|several messages", reason):
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
