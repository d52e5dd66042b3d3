"""The check of whole files."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from stages.core.data_check.batches import batches, first_fields
from stages.core.data_check.blocks import DamagedFileError, lines_at
from stages.core.data_check.columns import TEXTS
from stages.core.data_check.findings import (
    CATALOGUE,
    CheckReport,
    Example,
    FileSummary,
    Tally,
    excerpt,
)
from stages.core.data_check.kind_check import KindCheck
from stages.core.data_check.layout import Layout, layout
from stages.core.data_check.lengths import CHARACTERS_A_TOKEN, Lengths
from stages.core.data_check.repeats import Hashes, Place, asked_hashes
from stages.core.errors import UserError
from stages.core.evaluation_overlap import EvaluationIndex, evaluation_texts
from stages.core.schemas import DATA_KINDS, DataKind
from stages.core.sources import (
    DOCUMENT_FORMATS,
    file_format,
    left_out_remarks,
    read_records,
    source_files,
)
from stages.core.usual_names import mapping_hint

Progress = Callable[[str, int], None]


def check_files(
    paths: Sequence[str | Path],
    kind: DataKind | str = "",
    *,
    columns: Mapping[str, str] | None = None,
    tokenizer: str = "",
    context: int = 0,
    evaluation: Sequence[str | Path] = (),
    held_out: Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> CheckReport:
    """Read the files once and say what is wrong with their records.

    Args:
        paths: files, globs or folders, as in ``collect.<kind>.paths``.
        kind: of all records; "" guesses it for each file from its columns.
        columns: our column → the files', as in ``collect.<kind>.columns``; columns with usual names
            are found without.
        tokenizer: folder with a ``tokenizer.json``, for lengths and special tokens; "": lengths are
            estimated by characters.
        context: tokens that a record may have; 0 does not look at lengths.
        evaluation: files of evaluation data, of which no 13 words in a row may be in the records.
        held_out: files of which no prompt (or text) may be in the records.
        progress: is told the file being read and the number of its records so far.

    Raises:
        UserError: a path, the tokenizer, or the kind is none.
    """
    if kind and kind not in DATA_KINDS:
        raise UserError(f"--kind {kind}: must be one of {', '.join(DATA_KINDS)}")
    files = source_files(tuple(map(str, paths)))
    others = source_files(tuple(map(str, held_out)))
    overlap_index = (
        evaluation_index(source_files(tuple(map(str, evaluation)))) if evaluation else None
    )
    check = _Check(files, Lengths(tokenizer), context, dict(columns or {}), overlap_index)
    for file in others:
        check.read_held_out(file, kind)
    for index in range(len(files)):
        check.read(index, kind, progress)
    return check.report(left_out_remarks(tuple(map(str, paths))))


def evaluation_index(files: Sequence[Path]) -> EvaluationIndex:
    """The index of these files, each a set of its own."""
    names = _short_names(files)
    sets = zip(names, map(evaluation_texts, files), strict=True)
    return EvaluationIndex.build(dict(sets))


class _Check:
    """The state of one check."""

    def __init__(
        self,
        files: Sequence[Path],
        lengths: Lengths,
        context: int,
        columns: dict[str, str],
        evaluation: EvaluationIndex | None,
    ) -> None:
        self.files = files
        self.names = _short_names(files)
        self.lengths = lengths
        self.context = context
        self.columns = columns
        self.evaluation = evaluation
        self.tally = Tally()
        self.kinds: dict[DataKind, KindCheck] = {}
        self.held_out: dict[DataKind, list[Hashes]] = {}
        self.summaries: list[FileSummary] = []

    def read_held_out(self, path: Path, kind: str) -> None:
        """Remember the prompts of a held-out file."""
        known = self._known(path, kind)
        if known is None:
            raise UserError(f"--held-out {path}: its columns mean nothing here; give --kind")
        found = known.kind
        try:
            for batch in batches(path, known):
                hashes = asked_hashes(batch.rows, TEXTS[found][0])
                self.held_out.setdefault(found, []).append(hashes)
        except DamagedFileError as error:
            self.tally.add(found, "unreadable", 1, [Example(path.name, "")], group=str(error))

    def read(self, index: int, kind: str, progress: Progress | None) -> None:
        """Check one file."""
        path, name = self.files[index], self.names[index]
        known = self._known(path, kind)
        if known is None:
            self._give_up(path, name)
            return
        found, mapping = known.kind, known.mapping
        check = self.kinds.get(found) or self._kind_check(found)
        num_records = num_usable = num_bytes = 0
        try:
            for batch in batches(path, known):
                num_records += batch.num_records
                num_usable += batch.num_usable
                num_bytes += batch.num_bytes
                check.add(index, name, batch)
                if progress:
                    progress(name, num_records)
        except DamagedFileError as error:
            place = Example(name, f"{num_records:,} records before were readable")
            self.tally.add(found, "unreadable", 1, [place], group=str(error))
        unasked = {ours: theirs for ours, theirs in mapping.items() if ours not in self.columns}
        if unasked:
            shown = ", ".join(f"{ours} ← {theirs}" for ours, theirs in unasked.items())
            setting = ", ".join(f'"{ours}": "{theirs}"' for ours, theirs in mapping.items())
            place = Example(name, f"collect.{found}.columns={{{setting}}}")
            self.tally.add(found, "columns-mapped", 1, [place], group=shown)
        self.summaries.append(
            FileSummary(name, found, known.format, num_records, num_usable, num_bytes, mapping)
        )

    def _known(self, path: Path, kind: str) -> Layout | None:
        """How the file's records are laid out."""
        if file_format(path) in DOCUMENT_FORMATS:
            return Layout("documents", {})
        return layout(first_fields(path), kind, self.columns)

    def _give_up(self, path: Path, name: str) -> None:
        """The file has no record of a known kind."""
        fields = first_fields(path)
        given = list(dict.fromkeys(name for item in fields for name in item))
        if given:
            detail = f"columns {', '.join(map(excerpt, given[:12]))}"
            hint = mapping_hint("sft", ["prompt", "completion"], given, {})
            example = Example(f"{name}:1", excerpt(f"for instance {hint.split('instance ')[-1]}"))
            self.tally.add("", "columns-unknown", 1, [example], group=detail)
        else:
            code, reason = _no_record_reason(path)
            self.tally.add("", code, 1, [Example(name, "")], group=reason)
        self.summaries.append(FileSummary(name, "", "", 0, 0, 0))

    def _kind_check(self, kind: DataKind) -> KindCheck:
        held_out = self.held_out.get(kind)
        self.kinds[kind] = KindCheck(
            kind,
            self.tally,
            lengths=self.lengths,
            context=self.context,
            held_out=np.unique(np.concatenate(held_out)) if held_out else None,
            evaluation=self.evaluation,
        )
        return self.kinds[kind]

    def report(self, left_out: Sequence[str] = ()) -> CheckReport:
        """All findings, when all files have been read, and remarks on what was ``left_out``."""
        facts: dict[str, float] = {}
        for check in self.kinds.values():
            facts |= check.finish(self.names, self._show)
        records: dict[str, int] = {}
        for file in self.summaries:
            records[file.kind] = records.get(file.kind, 0) + file.records
        remarks = [f"{remark}." for remark in left_out]
        if unused := sorted(set(self.held_out) - set(self.kinds)):
            remarks.append(f"The held-out files hold {', '.join(unused)}, the others do not.")
        if self.context and not self.lengths.tokenizer and set(self.kinds) - {"documents"}:
            remarks.append(
                f"Lengths are estimated as {CHARACTERS_A_TOKEN} characters a token; --tokenizer "
                "FOLDER counts them."
            )
        return CheckReport(
            tuple(self.summaries), self.tally.findings(records), facts, tuple(remarks)
        )

    def _show(self, place: Place) -> str:
        """An excerpt of a record, read for a second time."""
        path = self.files[place.file]
        if file_format(path) == "jsonl":
            line = lines_at(path, [place.line]).get(place.line, b"")
            return excerpt(line[:400].decode("utf-8", errors="replace"))
        with path.open("rb") as file:
            try:
                for record in read_records(path, file):
                    if record.line == place.line:
                        return excerpt(str(record.fields)[:400])
            except UserError:
                pass
        return ""


def _no_record_reason(path: Path) -> tuple[str, str]:
    """The code of the finding that a file without any readable record makes, and its detail."""
    name = file_format(path)
    try:
        for batch in batches(path, Layout("documents", {})):
            for fault in batch.faults:
                what = f"{CATALOGUE[fault.code].title} in line {fault.line}"
                return "no-records", f"{what}: {fault.detail}" if fault.detail else what
    except DamagedFileError as error:
        return "unreadable", str(error)
    return "no-records", "it has a header alone" if name in ("csv", "tsv") else "it is blank"


def _short_names(files: Sequence[Path]) -> list[str]:
    """The files' names, with as much of their folders as tells them apart."""
    if len({file.name for file in files}) == len(files):
        return [file.name for file in files]
    root = os.path.commonpath([file.parent for file in files])
    return [os.path.relpath(file, root) for file in files]
