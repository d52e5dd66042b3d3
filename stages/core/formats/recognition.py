"""Which known format a file is in, and its records as rows of ours."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stages.core.formats import (
    argilla,
    compared,
    dialogues,
    instructions,
    openassistant,
    trl,
    ultrafeedback,
)
from stages.core.formats.format import Format
from stages.core.schemas import DataKind
from stages.core.sources import Record

FORMATS: dict[str, Format] = {
    known.name: known
    for module in (argilla, openassistant, ultrafeedback, compared, dialogues, instructions, trl)
    for known in module.FORMATS
}
"""By name, the special ones before the general: the first that fits is taken."""

COLUMNS: dict[DataKind, str] = {
    "sft": "prompt, completion",
    "preferences": "prompt, chosen, rejected",
    "prompts": "prompt",
}


def recognise(kind: DataKind, records: Sequence[Mapping[str, Any]]) -> str | None:
    """The name of the known format that most of a file's first ``records`` are in, as far as it
    holds data of this kind; None: it is in none."""
    for name, known in FORMATS.items():
        fitting = sum(map(known.matches, records)) if kind in known.rows else 0
        if 2 * fitting > len(records):
            return name
    return None


def convert(name: str, kind: DataKind, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows, for ``parse_row``, that a record in the named format holds; none where it holds
    nothing of this kind, such as a ranking of equals.

    Raises:
        ValueError: why the record cannot be read so, in words that are equal for equal mistakes.
    """
    return FORMATS[name].rows[kind](fields)


def gather(name: str, records: Iterator[Record]) -> Iterator[Record]:
    """The records that ``convert`` takes: in some formats several of a file's make one."""
    known = FORMATS[name]
    return known.gather(records) if known.gather else records


def group_column(name: str) -> str:
    """The column of the rows whose equal values belong into one split; "": the prompt decides."""
    return FORMATS[name].group


def describe(name: str, kind: DataKind) -> str:
    """The format and what becomes of it, for a log."""
    return f"{name} ({FORMATS[name].columns}) → {COLUMNS[kind]}"
