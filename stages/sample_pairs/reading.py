"""The prompts and gold pairs of the user's files."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from stages.core import formats
from stages.core.artifacts import Artifact
from stages.core.errors import UserError
from stages.core.launch import WARNING_PREFIX
from stages.core.schemas import DataKind, columns, parse_row
from stages.core.sources import Record, read_records

FIRST_RECORDS = 20
"""By so many records of a file its format is recognised."""


def read_rows(kind: DataKind, artifacts: tuple[Artifact, ...]) -> Iterator[dict[str, Any]]:
    """The rows of files, in our columns or a known format. Records that cannot be used are counted
    in a warning, which names the first.

    Raises:
        UserError: a file cannot be read, or holds nothing of this kind.
    """
    for artifact in artifacts:
        num_rows, faults = 0, list[str]()
        for row in _rows(kind, _records(artifact), faults):
            num_rows += 1
            yield row
        first = f"{len(faults)} records cannot be used, the first in {faults[0]}" if faults else ""
        if not num_rows:
            names = ", ".join(columns(kind)[:3])
            raise UserError(
                f"{artifact.path}: holds no {kind}: {first or 'it is empty'}; "
                f"give records with {names}"
            )
        if faults:
            print(f"{WARNING_PREFIX}{artifact.path}: {first}", flush=True)


# ------------------------------------------------------------------------------------ helpers


def _records(artifact: Artifact) -> Iterator[Record]:
    path = artifact.locate()
    try:
        with path.open("rb") as file:
            yield from read_records(path, file)
    except OSError as error:
        raise UserError(f"{artifact.path}: {error.strerror}; mend the path") from error


def _rows(kind: DataKind, records: Iterator[Record], faults: list[str]) -> Iterator[dict[str, Any]]:
    """The usable rows; why the other records are none is added to ``faults``."""
    first = list(islice(records, FIRST_RECORDS))
    known = formats.recognise(kind, [record.fields for record in first if record.fields])
    records = chain(first, records)
    for record in formats.gather(known, records) if known else records:
        try:
            if record.fields is None:
                raise ValueError(record.reason)
            found = formats.convert(known, kind, record.fields) if known else [record.fields]
            rows = [
                parse_row(kind, {name: row.get(name) for name in columns(kind)}) for row in found
            ]
        except ValueError as error:
            faults.append(f"line {record.line}: {error}")
        else:
            yield from rows
