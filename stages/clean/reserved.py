"""Training records with a prompt of the random share of people's judgments, which is held out.

Collect has taken out those whose prompt is equal as it came; here are those which cleaning makes
equal, since people are asked about cleaned prompts.
"""

import polars as pl
from pydantic_core import from_json

from stages.clean.shards import Shard, write_table
from stages.core.artifacts import Artifact
from stages.core.config import CleanConfig
from stages.core.contracts import RESERVED_FILE
from stages.core.schemas import prompt_key, read_jsonl

RULE = "reserved"


def mark_reserved(shards: list[Shard], config: CleanConfig, collected: Artifact) -> None:
    """Mark the training rows of the shards' tables whose cleaned prompt is a reserved one."""
    path = collected.locate() / RESERVED_FILE
    if not path.exists():
        return
    prompts = {prompt_key("prompts", row) for row in read_jsonl(path)}
    for shard in shards:
        if shard.split != "train" or RULE in config.skip.get(shard.kind, ()):
            continue
        table, lines = pl.read_parquet(shard.table), shard.read()
        rows = table.select("row", "start", "end").iter_rows()
        keys = (prompt_key(shard.kind, from_json(row or lines[start:end]))
                for row, start, end in rows)  # fmt: skip
        is_reserved = pl.Series([key in prompts for key in keys], dtype=pl.Boolean)
        is_marked = is_reserved & table["rule"].is_null()
        write_table(
            shard.table,
            table.with_columns(
                pl.when(is_marked).then(pl.lit(RULE)).otherwise(name).alias(name)
                for name in ("rule", "reason")
            ),
        )
