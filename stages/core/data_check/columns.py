"""What a file's columns say about the kind of its records, and how they map to ours."""

from collections.abc import Collection, Mapping

from stages.core.schemas import DataKind
from stages.core.usual_names import USUAL_NAMES

NEEDED: tuple[tuple[DataKind, tuple[str, ...]], ...] = (
    ("preferences", ("chosen", "rejected")),
    ("sft", ("messages",)),
    ("sft", ("prompt", "completion")),
    ("labelled", ("text", "label")),
    ("documents", ("text",)),
    ("prompts", ("prompt",)),
)
"""The columns by which a kind is known, the most telling first."""

TEXTS: dict[DataKind, tuple[str, ...]] = {
    "documents": ("text",),
    "sft": ("prompt", "completion"),
    "preferences": ("prompt", "chosen", "rejected"),
    "prompts": ("prompt",),
    "labelled": ("text",),
}
"""The texts of a record in the shape that ``parse_row`` returns; the first is what was asked."""

MARK_COLUMNS = {
    "template", "template_name", "task", "task_name", "source", "dataset", "dataset_name",
    "subset", "origin", "config",
}  # fmt: skip
"""Columns that say where a record comes from."""


def known_kind(given: Collection[str]) -> tuple[DataKind, dict[str, str]] | None:
    """The kind of records with the columns ``given``, and our columns → theirs where they differ;
    None: they mean nothing."""
    for kind, needed in NEEDED:
        mapping = {name: _match(name, given) for name in needed}
        # Documents too have a category or class, which is not there to be learned.
        is_sure = kind != "labelled" or "label" in given
        if all(mapping.values()) and is_sure:
            return kind, _with_prompt(kind, mapping, given)
    return None


def known_mapping(kind: DataKind, given: Collection[str]) -> dict[str, str]:
    """Our columns of this kind → those ``given`` that are usual for them, where they differ."""
    for name, needed in NEEDED:
        mapping = {column: _match(column, given) for column in needed}
        if name == kind and all(mapping.values()):
            return _with_prompt(kind, mapping, given)
    return {}


def _with_prompt(
    kind: DataKind, mapping: Mapping[str, str], given: Collection[str]
) -> dict[str, str]:
    """The mapping without columns of the same name; a preference's prompt may be elsewhere too."""
    whole = dict(mapping)
    if kind == "preferences":
        whole["prompt"] = _match("prompt", given)
    return {ours: theirs for ours, theirs in whole.items() if theirs and ours != theirs}


def _match(name: str, given: Collection[str]) -> str:
    if name in given:
        return name
    usual = USUAL_NAMES.get(name, ())
    return next((other for other in given if other.lower() in usual), "")
