"""Toxic records, by a scorer of the user's: a classifier or a Python function."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
from pydantic_core import from_json

from stages.clean.rows import content
from stages.clean.shards import Shard, write_table
from stages.core import tracking
from stages.core.artifacts import Artifact
from stages.core.config import CleanConfig, Compute
from stages.core.errors import UserError

KINDS = ("documents", "sft")
"""What a model learns to say. Pairs need toxic replies on the rejected side, and prompts the
questions that such a reply could be given to."""
WINDOW_CHARACTERS = 500
"""Classifiers read a few hundred tokens; a text is as toxic as the worst of its windows."""


def mark_toxic(
    shards: list[Shard], config: CleanConfig, scorer: Artifact, compute: Compute
) -> None:
    """Mark the rows of the shards' tables whose score is above ``max_toxicity``.

    Raises:
        UserError: the scorer cannot be loaded, or fails.
    """
    if not shards or shards[0].kind not in KINDS:
        return
    if "toxicity" in config.skip.get(shards[0].kind, ()):
        return
    score = _load(config.toxicity_scorer, scorer.locate(), compute)
    for number, shard in enumerate(shards, 1):
        table = pl.read_parquet(shard.table)
        lines = shard.read()
        sound = table.with_row_index("index").filter(pl.col("rule").is_null())
        scores: dict[int, float] = {}
        for index, row, start, end in sound.select("index", "row", "start", "end").iter_rows():
            text = content(from_json(row or lines[start:end]))
            windows = [
                text[at : at + WINDOW_CHARACTERS] for at in range(0, len(text), WINDOW_CHARACTERS)
            ]
            scores[index] = max(score([""] * len(windows), windows))
        worst = pl.Series([scores.get(index) for index in range(len(table))], dtype=pl.Float32)
        is_toxic = (worst > config.max_toxicity).fill_null(False)
        name = pl.lit("toxicity")
        marked = table.with_columns(
            pl.when(is_toxic).then(name).otherwise("rule").alias("rule"),
            pl.when(is_toxic).then(name).otherwise("reason").alias("reason"),
            pl.when(is_toxic).then(worst).otherwise("score").alias("score"),
        )
        write_table(shard.table, marked)
        tracking.report_progress(number, len(shards), data=f"toxicity of {shard.kind}")


def _load(
    place: str, path: Path, compute: Compute
) -> Callable[[list[str], list[str]], list[float]]:
    from stages.core.models import pick_device
    from stages.core.scorer_places import scorer_folder_kind
    from stages.core.scorers import load_function_scorer, load_scorer

    if not path.is_dir():
        return load_function_scorer(path, place.rpartition(":")[2])
    if scorer_folder_kind(path) == "reward_model":
        raise UserError(
            f"clean.toxicity_scorer: {place} is a reward model, which rates replies to prompts; "
            "name a classifier or file.py:function"
        )
    device = pick_device(compute)
    return load_scorer(place, path, device, tokenizer=None, normalize=False)
