"""The rows of the user's files: known formats converted, what cannot be used set aside."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from stages.collect.progress import Progress
from stages.collect.splitting import Keyed
from stages.core import formats
from stages.core.artifacts import Artifact, file_digest
from stages.core.config import DataSource
from stages.core.errors import UserError
from stages.core.launch import WARNING_PREFIX
from stages.core.rejects import Rejects
from stages.core.schemas import DataKind, columns, encode_row, parse_row, prompt_key
from stages.core.sources import CUT_OFF, MAX_RECORD_BYTES, Record, read_records
from stages.core.usual_names import mapping_hint

FIRST_RECORDS = 20
"""By so many records of a file its format is recognised."""
FIRST_CHARACTERS = 10_000_000
"""Fewer where they are large: they are in memory together."""

RESERVED = "the prompt is of the random share of people's judgments, which is held out"

CURES = {
    "is not valid UTF-8": "convert the file to UTF-8: iconv -f CP1252 -t UTF-8, or from what it "
    "is in",
    "is not a string": 'write text there ("42", not 42)',
    "is not a list": "where it is JSON within a string, parse it (json.loads)",
    "completion does not end with an assistant's message": "take off what follows the last reply",
}
"""The end of a reason → how to have such records read."""


@dataclass
class FileCounts:
    """What came of one file."""

    artifact: Artifact
    format: str = ""
    """Name of the known format; "": our columns, or those that the configuration maps."""
    read: int = 0
    """Records found in it."""
    used: int = 0
    """Records that gave at least one row; where several are gathered into one, those."""
    rejected: int = 0
    """Records, or rows of converted ones, that were set aside."""
    empty: int = 0
    """Records that hold nothing of this kind of data, such as a ranking of equals."""
    rows: int = 0
    """Rows, of which a converted record may give several."""
    reserved: int = 0
    """Rows kept out of training, since their prompt is of people's random share."""


@dataclass
class Reader:
    """Reads the files of one kind of data and one split."""

    kind: DataKind
    split: str
    source: DataSource
    rejects: Rejects
    hints: dict[str, str]
    """Advice on the commonest reasons, shared by all files of the kind."""
    progress: Progress
    reserved: frozenset[str] = frozenset()
    """Normalised prompts that no record of this split may have."""
    files: list[FileCounts] = field(default_factory=list)
    """One for each file, in their order."""

    def rows(self, artifacts: tuple[Artifact, ...]) -> Iterator[Keyed]:
        """The usable rows of the files; the others go to ``rejects``, advice on them to ``hints``.

        Raises:
            UserError: a file holds no records, cannot be read, or changed meanwhile.
        """
        for artifact in artifacts:
            counts = FileCounts(artifact)
            self.files.append(counts)
            yield from self._file_rows(counts)
            if counts.read == 0:
                setting = f"collect.{self.kind}"
                setting += ".paths" if self.split == "train" else ".held_out_paths"
                raise UserError(f"{artifact.path}: holds no records; take it off {setting}")

    def _file_rows(self, counts: FileCounts) -> Iterator[Keyed]:
        records = self._recognised(self._records(counts), counts)
        for record in records:
            if record.fields is None:
                self._reject(counts, record, record.reason)
                # It is no record, but the place of those that are lost.
                counts.rejected -= record.reason == CUT_OFF
                continue
            try:
                found = self._convert(counts.format, record.fields)
            except ValueError as error:
                self._reject(counts, record, str(error))
                continue
            is_used = False
            for fields in found:
                try:
                    keyed = self._parse(counts.format, record.fields, fields)
                except ValueError as error:
                    self._reject(counts, record, str(error))
                    continue
                if self._is_reserved(keyed):
                    self._set_aside(counts, record)
                else:
                    is_used = True
                    counts.rows += 1
                    yield keyed
            counts.used += is_used
            counts.empty += not found

    def _records(self, counts: FileCounts) -> Iterator[Record]:
        """The file's records, counted.

        Raises:
            UserError: it cannot be read, or is not what it was when the run was planned.
        """
        artifact = counts.artifact
        path = artifact.locate()
        try:
            file = path.open("rb")
        except OSError as error:
            raise UserError(f"{artifact.path}: {error.strerror}; mend the path") from error
        with file:
            try:
                for record in read_records(path, file):
                    self.progress(path, file.tell)
                    counts.read += 1
                    if record.reason == CUT_OFF:
                        counts.read -= 1
                        self._warn_of_cut(counts, record)
                    yield record
            except UserError:
                _check_unchanged(artifact, path)  # then that is the reason
                raise
        _check_unchanged(artifact, path)

    def _warn_of_cut(self, counts: FileCounts, record: Record) -> None:
        print(
            f"{WARNING_PREFIX}{counts.artifact.path}:{record.line}: {record.reason} "
            f"({record.head}); the {counts.read:,} records before it are used; make or fetch the "
            "file again",
            flush=True,
        )

    def _recognised(self, records: Iterator[Record], counts: FileCounts) -> Iterator[Record]:
        """The records, gathered where their format asks for it; which format, by the first ones.
        Columns that the configuration maps are taken at its word."""
        if self.source.columns:
            return records
        first, size = [], 0
        for record in records:
            first.append(record)
            size += len(repr(record.fields))
            if len(first) >= FIRST_RECORDS or size > FIRST_CHARACTERS:
                break
        known = formats.recognise(self.kind, [item.fields for item in first if item.fields])
        records = chain(first, records)
        if known is None:
            return records
        counts.format = known
        print(f"{counts.artifact.path}: {formats.describe(known, self.kind)}", flush=True)
        return formats.gather(known, records)

    def _convert(self, known: str, fields: dict[str, Any]) -> list[dict[str, Any]]:
        """The record's rows in our columns, not yet checked."""
        if known:
            return formats.convert(known, self.kind, fields)
        mapping = self.source.columns
        return [{name: fields.get(mapping.get(name, name)) for name in columns(self.kind)}]

    def _parse(self, known: str, record: dict[str, Any], fields: dict[str, Any]) -> Keyed:
        """One row and what keeps it with others."""
        row = parse_row(self.kind, fields)
        if len(encode_row(row)) > MAX_RECORD_BYTES:
            raise ValueError("record is larger than 10 MB")
        column, values = self.source.group_column, record
        if not column and known:
            column, values = formats.group_column(known), fields
        if not column:
            return Keyed(row, prompt_key(self.kind, row))
        if values.get(column) is None:
            raise ValueError(f"group column {column} missing")
        return Keyed(row, str(values[column]))

    def _is_reserved(self, keyed: Keyed) -> bool:
        return bool(self.reserved) and prompt_key(self.kind, keyed.row) in self.reserved

    def _set_aside(self, counts: FileCounts, record: Record) -> None:
        """Keep a record out that nothing is wrong with."""
        counts.reserved += 1
        place, content = (counts.artifact.path, record.line), record.fields or ""
        self.rejects.add(self.kind, self.split, *place, RESERVED, content, is_fault=False)

    def _reject(self, counts: FileCounts, record: Record, reason: str) -> None:
        counts.rejected += 1
        content = record.head or record.fields or ""
        path = counts.artifact.path
        self.rejects.add(self.kind, self.split, path, record.line, reason, content)
        if record.fields and reason not in self.hints:
            hint = self._hint(counts.format, reason, record.fields)
            if hint:
                self.hints[reason] = hint

    def _hint(self, known: str, reason: str, fields: dict[str, Any]) -> str:
        """How to have such records read, or ""."""
        setting = f"collect.{self.kind}"
        if reason.startswith("group column"):
            return f"name a column that all records have as {setting}.group_column, or none"
        for end, cure in CURES.items():
            if reason.endswith(end):
                return cure
        if not reason.startswith("column"):
            return ""
        if known and not known.startswith("TRL"):
            return f"the file was read as {known}; to have it read otherwise set {setting}.columns"
        missing = [name for name in columns(self.kind) if name in reason.split()]
        return mapping_hint(self.kind, missing, list(fields), self.source.columns)


def _check_unchanged(artifact: Artifact, path: Path) -> None:
    """
    Raises:
        UserError: the file is another than that of which the run's plan took the digest.
    """
    try:
        digest = file_digest(path)
    except OSError as error:
        raise UserError(
            f"{artifact.path}: {error.strerror}; it vanished while it was read"
        ) from error
    if digest != artifact.digest:
        raise UserError(
            f"{artifact.path}: changed while it was read or since the run was planned (SHA-256 "
            f"{artifact.digest[:12]} then, {digest[:12]} now); run again when nothing writes to it"
        )
