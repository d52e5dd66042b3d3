"""Records that repeat, contradict or leak: found by hashes of 8 bytes, so that millions fit."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.core.data_check.findings import EXAMPLES
from stages.core.schemas import DataKind

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.intp]
SEED = 0x9E3779B9
ODD = np.uint64(0x9E3779B97F4A7C15)


class Place(NamedTuple):
    """Where a record is."""

    file: int
    """Index among the files checked."""
    line: int


class Repeated(NamedTuple):
    """A finding about records beside others."""

    code: str
    num_records: int
    examples: list[tuple[Place, Place]]
    """The record, and the earlier one that it repeats or contradicts."""


def _hashed(column: pl.Series) -> Hashes:
    return column.hash(SEED).to_numpy()


def _joined(one: Hashes, other: Hashes) -> Hashes:
    """A hash of the two in this order."""
    mixed = one * ODD
    mixed ^= mixed >> np.uint64(29)
    return (mixed + other) * ODD


def normalized(text: pl.Expr) -> pl.Expr:
    """Text without differences of case and white space, as in ``schemas.normalize``."""
    return text.str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()


def asked_hashes(rows: pl.DataFrame, asked: str) -> Hashes:
    """Of what was asked, normalised: equal in two splits, it leaks."""
    return _hashed(rows.select(normalized(pl.col(asked))).to_series())


class Fingerprints:
    """The hashes of all records of one kind: 8 bytes of the whole, 8 of the prompt."""

    def __init__(self, kind: DataKind) -> None:
        self.kind = kind
        self._records: list[Hashes] = []
        self._asked: list[Hashes] = []
        self._swapped: list[npt.NDArray[np.bool_]] = []
        self._lines: list[npt.NDArray[np.uint32]] = []
        self._files: list[tuple[int, int]] = []

    def add(self, file: int, rows: pl.DataFrame) -> None:
        """Remember the rows of a batch."""
        if rows.height == 0:
            return
        self._files.append((file, rows.height))
        self._lines.append(rows["line"].to_numpy())
        if self.kind in ("documents", "prompts"):
            asked = "text" if self.kind == "documents" else "prompt"
            self._records.append(_hashed(rows[asked]))
        elif self.kind == "preferences":
            prompt, chosen, rejected = (
                _hashed(rows[name]) for name in ("prompt", "chosen", "rejected")
            )
            pair = _joined(np.minimum(chosen, rejected), np.maximum(chosen, rejected))
            self._records.append(_joined(prompt, pair))
            self._swapped.append(chosen > rejected)
        else:
            asked, answer = ("prompt", "completion") if self.kind == "sft" else ("text", "label")
            self._asked.append(_hashed(rows[asked]))
            self._records.append(_joined(self._asked[-1], _hashed(rows[answer])))

    def findings(self) -> Iterator[Repeated]:
        """Duplicates and contradictions among all records."""
        if not self._records:
            return
        records = np.concatenate(self._records)
        if self.kind == "preferences":
            swapped = np.concatenate(self._swapped)
            directed = records ^ (swapped.astype(np.uint64) * ODD)
            yield self._repeats("duplicate", directed)
            yield self._differing("contradiction", records, directed)
            return
        yield self._repeats("duplicate", records)
        if self._asked:
            code = "same-prompt" if self.kind == "sft" else "same-text-other-label"
            yield self._differing(code, np.concatenate(self._asked), records)

    def _differing(self, code: str, group: Hashes, whole: Hashes) -> Repeated:
        """Records with the group of an earlier record, but not the same as a whole; of equal
        records the first alone counts."""
        different = np.sort(np.unique(whole, return_index=True)[1])
        return self._repeats(code, group[different], different)

    def _repeats(self, code: str, hashes: Hashes, members: Indices | None = None) -> Repeated:
        """Records whose hash an earlier one has. ``members``: the records that the hashes are of,
        if not all."""
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        is_first = np.r_[True, ordered[1:] != ordered[:-1]]
        first = order[np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))]
        later, earlier = order[~is_first], first[~is_first]
        if members is not None:
            later, earlier = members[later], members[earlier]
        shown = np.argsort(later, kind="stable")[:EXAMPLES]
        examples = [(self.place(int(later[at])), self.place(int(earlier[at]))) for at in shown]
        return Repeated(code, len(later), examples)

    def place(self, record: int) -> Place:
        """Where the record of this index is."""
        for (file, height), lines in zip(self._files, self._lines, strict=True):
            if record < height:
                return Place(file, int(lines[record]))
            record -= height
        raise IndexError(record)
