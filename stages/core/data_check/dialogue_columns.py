"""Dialogues as a column of turns: prompt and completion of all rows at once."""

import polars as pl

from stages.core.formats.dialogues import LISTS, ROLES

DIALOGUE_FORMATS = ("messages", "ShareGPT")
KEYS = ({"role", "content"}, {"from", "value"})
IN_ORDER = r"\A(?:system,)?user(?:,assistant,user)*,assistant\z"
NOT_BLANK = r"[^\s\x1c-\x1f]"
"""A character that Python does not take for white space either."""


def dialogue_texts(frame: pl.DataFrame) -> pl.DataFrame | None:
    """``line``, ``prompt`` and ``completion``, both null for a row that is not in the usual order,
    has an empty turn or anything else to judge; None: that may be so of all rows."""
    lists = [name for name in LISTS if frame.schema.get(name, pl.Null) != pl.Null]
    if len(lists) != 1 or frame.schema.get("system", pl.Null) != pl.Null:
        return None
    keys = _text_keys(frame.schema[lists[0]])
    if keys is None:
        return None
    role, content = (
        pl.col(lists[0]).list.eval(pl.element().struct.field(key)) for key in keys
    )  # fmt: skip
    roles = role.list.eval(
        pl.element().str.to_lowercase().replace_strict(ROLES, default=None, return_dtype=pl.String)
    )
    is_in_order = roles.list.join(",", ignore_nulls=False).str.contains(IN_ORDER)
    has_texts = content.list.eval(pl.element().str.contains(NOT_BLANK).fill_null(False)).list.all()
    is_usual = (is_in_order & has_texts).fill_null(value=False)
    before = content.list.head(content.list.len() - 1)
    return frame.select(
        "line",
        pl.when(is_usual).then(before.list.join("\n\n")).alias("prompt"),
        pl.when(is_usual).then(content.list.last()).alias("completion"),
    )


def _text_keys(dtype: object) -> tuple[str, str] | None:
    """Who speaks, and what: the keys of turns that have nothing else."""
    if not isinstance(dtype, pl.List) or not isinstance(dtype.inner, pl.Struct):
        return None
    fields = {field.name: field.dtype for field in dtype.inner.fields}
    if set(fields) not in KEYS or set(fields.values()) != {pl.String}:
        return None
    return ("role", "content") if "role" in fields else ("from", "value")
