"""The fast path: a block of JSON Lines that Arrow reads as it is.

Arrow refuses whatever is not plain: wrong types, duplicate keys, broken lines. A block that it
refuses is left to be read line by line, with care.
"""

from collections.abc import Mapping

import polars as pl
import pyarrow as pa
import pyarrow.json
from pydantic_core import from_json

from stages.core.data_check.blocks import BOM, Block
from stages.core.data_check.columns import MARK_COLUMNS, TEXTS
from stages.core.data_check.dialogue_columns import NOT_BLANK, dialogue_texts
from stages.core.data_check.layout import Fields, Layout
from stages.core.data_check.lines import may_be_not_finite
from stages.core.data_check.rows import Batch, parsed_rows
from stages.core.schemas import DataKind, columns
from stages.core.sources import MAX_RECORD_BYTES

HH_PROMPT_END = "\n\nAssistant:"
"""Prompts that end so are dialogues in one string, for ``parse_row`` to take apart."""

SPACES = "".join(filter(str.isspace, map(chr, range(0x3001))))
"""All that Python takes for white space."""
WHITE_SPACE = r"[\s\x1c-\x1f]+"


def plain_batch(block: Block, layout: Layout) -> Batch | None:
    """The batch of a block without faults in its lines, else None."""
    data, kind, mapping = block.data, layout.kind, layout.mapping
    if not data or len(data) > MAX_RECORD_BYTES or data.startswith(BOM):
        return None
    table = _arrow_table(data, kind, mapping)
    if table is None:
        return None
    if "line" in table.column_names:
        if "line" in mapping.values():
            return None
        table = table.drop_columns("line")
    first = block.first_line
    line = pl.Series("line", range(first, first + table.num_rows), dtype=pl.UInt32)
    try:
        frame = pl.DataFrame(pl.from_arrow(table)).with_columns(line)
    except (pl.exceptions.PolarsError, TypeError, ValueError):
        return None
    if any(map(_holds_floats, frame.dtypes)) and may_be_not_finite(data):
        return None  # Arrow takes them for numbers
    texts = _texts(frame, layout)
    if texts is None:
        return None
    is_simple = texts["is_simple"]
    # As they are in the file: Arrow gives each record all columns of the block.
    try:
        others = _records_at(data, first, line.filter(~is_simple).to_list())
    except ValueError:
        return None
    rows = texts.filter(is_simple).drop("is_simple")
    parsed = parsed_rows(others, kind, layout.converter())
    num_usable = rows.height + parsed.num_usable
    if parsed.table.height:
        rows = pl.concat([rows, parsed.table]).sort("line")
    notes = {"crlf": data.count(b"\r\n")}
    marks = _frame_marks(frame)
    return Batch(rows, marks, parsed.faults, table.num_rows, num_usable, len(data), notes)


def _texts(frame: pl.DataFrame, layout: Layout) -> pl.DataFrame | None:
    """``line``, the texts of each row, its label, and whether it ``is_simple``: as ``parse_row``
    would return it. None: that is not told by the columns."""
    kind, mapping = layout.kind, layout.mapping
    if not layout.is_plain:
        dialogues = dialogue_texts(frame)
        if dialogues is None:
            return None
        return dialogues.with_columns(is_simple=pl.col("prompt").is_not_null())
    if any(_dtype(frame, mapping.get(name, name)).is_temporal() for name in columns(kind)):
        return None  # Arrow takes text such as 2020-01-01 for more than it is
    is_simple = _simple_rows(frame, kind, mapping).fill_null(value=False).alias("is_simple")
    texts = [pl.col(mapping.get(name, name)).alias(name) for name in TEXTS[kind]]
    name = mapping.get("label", "label")
    label = [_label(name, _dtype(frame, name))] if kind == "labelled" else []
    return frame.select("line", *texts, *label, is_simple)


def _dtype(frame: pl.DataFrame, column: str) -> pl.DataType:
    return frame.schema.get(column, pl.Null())


def _records_at(data: bytes, first: int, numbers: list[int]) -> list[tuple[int, Fields]]:
    if not numbers:
        return []
    lines = data.split(b"\n")
    return [(number, from_json(lines[number - first])) for number in numbers]


def _arrow_table(data: bytes, kind: DataKind, mapping: Mapping[str, str]) -> pa.Table | None:
    try:
        if not data.isascii():
            data.decode()
        texts = [(mapping.get(name, name), pa.large_string()) for name in TEXTS[kind]]
        table = pyarrow.json.read_json(
            pa.BufferReader(data),
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pyarrow.json.ParseOptions(explicit_schema=pa.schema(texts)),
        )
    except (pa.ArrowException, ValueError):
        return None
    return table if table.num_rows == _num_objects(data) else None


def _num_objects(data: bytes) -> int:
    """Lines, if each ends as an object does, and so none is blank; else -1."""
    if not data.endswith(b"\n"):
        data += b"\n"
    num_lines = data.count(b"\n")
    num_ends = data.count(b"}\n") or data.count(b"}\r\n")
    return num_lines if num_ends == num_lines else -1


def _holds_floats(dtype: object) -> bool:
    if isinstance(dtype, pl.List):
        return _holds_floats(dtype.inner)
    if isinstance(dtype, pl.Struct):
        return any(_holds_floats(field.dtype) for field in dtype.fields)
    return isinstance(dtype, pl.Float64 | pl.Float32)


def _simple_rows(frame: pl.DataFrame, kind: DataKind, mapping: Mapping[str, str]) -> pl.Expr:
    """Which rows are as ``parse_row`` would return them; the others it has to judge."""
    texts = [pl.col(mapping.get(name, name)) for name in TEXTS[kind]]
    simple = pl.all_horizontal([text.str.contains(NOT_BLANK) for text in texts])
    if kind in ("sft", "prompts"):
        simple &= ~texts[0].str.contains(HH_PROMPT_END, literal=True)
    if kind == "preferences":
        simple &= ~texts[0].str.contains(HH_PROMPT_END, literal=True)
        simple &= texts[1].str.strip_chars(SPACES) != texts[2].str.strip_chars(SPACES)
    for name in columns(kind):
        column = mapping.get(name, name)
        if name not in TEXTS[kind] and column in frame.columns:
            simple &= _simple_extra(name, frame.schema[column], pl.col(column))
    return simple


def _simple_extra(name: str, dtype: pl.DataType, column: pl.Expr) -> pl.Expr:
    if dtype == pl.Null:
        return pl.lit(value=name != "label")
    if name == "label":
        is_text = column.str.contains(NOT_BLANK) if dtype == pl.String else column.is_not_null()
        return is_text if dtype in (pl.String, pl.Boolean) or dtype.is_integer() else pl.lit(False)
    plain = {
        "id": dtype == pl.String or dtype.is_numeric(),
        "annotator": dtype == pl.String or dtype.is_numeric(),
        "source": dtype == pl.String or dtype.is_numeric(),
        "margin": dtype.is_numeric(),
        "meta": dtype == pl.Struct,
    }
    return pl.lit(value=True) if plain.get(name, False) else column.is_null()


def _label(column: str, dtype: pl.DataType) -> pl.Expr:
    """As the schema writes labels: 1 → 1, true → true, white space collapsed; null where all rows
    have one that is no label."""
    if dtype.is_nested() or dtype.is_float():
        return pl.lit(None, pl.String).alias("label")
    text = pl.col(column).cast(pl.String)
    return text.str.replace_all(WHITE_SPACE, " ").str.strip_chars(" ").alias("label")


def _frame_marks(frame: pl.DataFrame) -> pl.DataFrame:
    names = [
        name
        for name, dtype in frame.schema.items()
        if name.lower() in MARK_COLUMNS and dtype == pl.String
    ]
    return frame.select("line", *names)
