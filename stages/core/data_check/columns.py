"""The columns that are looked at."""

from stages.core.schemas import DataKind

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
