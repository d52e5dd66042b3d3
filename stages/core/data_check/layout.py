"""How a file's records are laid out: their kind, and how they become rows of ours."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from stages.core import formats
from stages.core.formats.format import unchanged
from stages.core.formats.recognition import FORMATS
from stages.core.schemas import DATA_KINDS, DataKind, columns
from stages.core.usual_names import USUAL_NAMES

FIRST_RECORDS = 20
"""By so many records a format is recognised, as in the stage collect."""

NEEDED: tuple[tuple[DataKind, tuple[str, ...]], ...] = (
    ("preferences", ("chosen", "rejected")),
    ("sft", ("messages",)),
    ("sft", ("prompt", "completion")),
    ("labelled", ("text", "label")),
    ("documents", ("text",)),
    ("prompts", ("prompt",)),
)
"""The columns by which a kind is known, the most telling first."""

Fields = dict[str, Any]
Convert = Callable[[Fields], list[Fields]]


class Layout(NamedTuple):
    """How records become rows."""

    kind: DataKind
    mapping: Mapping[str, str]
    """Our columns → the file's, where they differ."""
    format: str = ""
    """Name of the known format."""

    @property
    def is_plain(self) -> bool:
        """Records are rows, but for the names of their columns."""
        return not self.format or FORMATS[self.format].rows[self.kind] is unchanged

    @property
    def is_gathered(self) -> bool:
        """Several records of the file make one."""
        return bool(self.format) and FORMATS[self.format].gather is not None

    def converter(self) -> Convert:
        """From a record of the file to rows for ``parse_row``; a ValueError says why not."""
        if not self.is_plain:
            return lambda fields: formats.convert(self.format, self.kind, fields)
        taken = [(name, self.mapping.get(name, name)) for name in columns(self.kind)]
        return lambda fields: [{ours: fields.get(theirs) for ours, theirs in taken}]


def layout(
    records: Sequence[Fields], kind: str = "", mapping: Mapping[str, str] | None = None
) -> Layout | None:
    """The layout of a file with these first ``records``; None: they mean nothing.

    Args:
        kind: of the records, if known.
        mapping: our columns → the file's, as configured; taken at its word.
    """
    given = dict.fromkeys(name for fields in records for name in fields)
    if mapping:
        ours = [*given, *(name for name, theirs in mapping.items() if theirs in given)]
        found = _exact_kind(kind) or _first_kind(ours, NEEDED) or _first_kind(ours, NEEDED, False)
        return found and Layout(found, mapping)
    first = records[:FIRST_RECORDS]
    if known := _exact_kind(kind):
        name = formats.recognise(known, first)
        return Layout(known, {} if name else _mapping(known, given), name or "")
    return _guess(first, given)


def _guess(first: Sequence[Fields], given: Collection[str]) -> Layout | None:
    sure = _first_kind(given, NEEDED[:4])
    if sure and (name := formats.recognise(sure, first)):
        return Layout(sure, {}, name)
    kinds: tuple[DataKind, ...] = () if sure else ("preferences", "sft")
    for kind in kinds:
        if name := formats.recognise(kind, first):
            return Layout(kind, {}, name)
    found = sure or _first_kind(given, NEEDED[4:5]) or _first_kind(given, NEEDED, exactly=False)
    if found is None:
        return None
    return Layout(found, _mapping(found, given), formats.recognise(found, first) or "")


def _exact_kind(kind: str) -> DataKind | None:
    return next((name for name in DATA_KINDS if name == kind), None)


def _first_kind(
    given: Collection[str],
    needed: Sequence[tuple[DataKind, tuple[str, ...]]],
    exactly: bool = True,
) -> DataKind | None:
    """The first kind of which all columns are there, or others with usual names for them."""
    for kind, names in needed:
        # Documents too have a category or class, which is not there to be learned.
        is_sure = kind != "labelled" or "label" in given
        if is_sure and all(_match(name, given, exactly) for name in names):
            return kind
    return None


def _mapping(kind: DataKind, given: Collection[str]) -> dict[str, str]:
    """Our columns of this kind → those ``given`` that are usual for them, where they differ."""
    for name, needed in NEEDED:
        mapping = {column: _match(column, given, exactly=False) for column in needed}
        if name == kind and all(mapping.values()):
            if kind == "preferences":
                mapping["prompt"] = _match("prompt", given, exactly=False)
            return {ours: theirs for ours, theirs in mapping.items() if theirs and ours != theirs}
    return {}


def _match(name: str, given: Collection[str], exactly: bool) -> str:
    if name in given or exactly:
        return name if name in given else ""
    usual = (name, *USUAL_NAMES.get(name, ()))
    return next((other for other in given if other.lower() in usual), "")
