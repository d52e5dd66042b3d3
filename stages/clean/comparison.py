"""Which rows are kept of those that are equal or nearly so, over all shards of one kind of data."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from stages.clean.near_duplicates import SIGNATURE_NUMBERS, clusters
from stages.clean.shard import SCHEMA, SIGNATURE_SHARES, ShardSettings
from stages.clean.shards import Shard

SIGNATURES_FILE = "signatures.npy"
STAYS, DUPLICATE, NEAR_DUPLICATE, IN_HELD_OUT = range(4)
RULES = (None, "duplicate", "near_duplicate", "in_held_out")


class Comparison(NamedTuple):
    """What comparing all rows says, by shard."""

    verdicts: list[np.ndarray]
    """Index into ``RULES`` for each row of the shard's table."""
    contradictory: dict[str, int]
    """Rows by split that say the opposite of an earlier one: pairs with the replies swapped, equal
    texts under another label."""


def compare(
    shards: list[Shard], settings: ShardSettings, folder: Path, max_memory_gb: float
) -> Comparison:
    """Compare the rows that no other rule removes, in the order of the shards: the first stays, so
    that held-out rows must come first to be kept out of training.

    Args:
        folder: where the table of signatures lies if it needs more than ``max_memory_gb``.
    """
    sizes, rows = _read(shards)
    is_train = np.repeat([shard.split == "train" for shard in shards], sizes).astype(bool)
    verdicts = np.zeros(len(rows), np.int8)
    left = np.flatnonzero(~rows["is_removed"].to_numpy())
    keys = rows["fingerprint"].fill_null(0).to_numpy()
    if settings.config.remove_duplicates:
        is_later = _firsts(keys[left], is_train[left]) != np.arange(len(left))
        is_leaked = _leaked(keys[left], is_train[left])
        _mark(verdicts, left, is_later, is_leaked, DUPLICATE, settings)
        left = left[verdicts[left] == STAYS]
    if settings.similarity and len(left) > 1:
        shares = SIGNATURE_SHARES.get(settings.kind, {"": SIGNATURE_NUMBERS})
        fields = tuple(shares.values())
        table = _signatures(shards, sizes, left, folder, max_memory_gb)
        likes = clusters(table, settings.similarity, fields)
        # Equal rows are here only where their own rule is skipped.
        is_later = keys[left[_firsts(likes, is_train[left])]] != keys[left]
        is_leaked = _leaked(likes, is_train[left])
        _mark(verdicts, left, is_later, is_leaked, NEAR_DUPLICATE, settings)
        left = left[verdicts[left] == STAYS]
    contradictory = _contradictory(rows, left, is_train, settings)
    by_shard = np.split(verdicts, np.cumsum(sizes))[: len(shards)]
    return Comparison(by_shard, contradictory)


def _read(shards: list[Shard]) -> tuple[list[int], pl.DataFrame]:
    """The number of rows of each shard, and what all rows are compared by."""
    columns = pl.selectors.ends_with("fingerprint")
    is_removed = pl.col("rule").is_not_null().alias("is_removed")
    tables = [
        pl.scan_parquet(shard.table).select(is_removed, columns).collect() for shard in shards
    ]
    none = pl.DataFrame(schema=SCHEMA).select(is_removed, columns)
    return list(map(len, tables)), pl.concat([none, *tables])


def _firsts(likes: np.ndarray, is_train: np.ndarray) -> np.ndarray:
    """For each row, the number of the first of its split with the same number of ``likes``, of
    which 63 bits count."""
    keys = likes.astype(np.uint64) << np.uint64(1) | is_train
    firsts, inverse = np.unique(keys, return_index=True, return_inverse=True)[1:]
    return np.asarray(firsts[inverse])


def _leaked(likes: np.ndarray, is_train: np.ndarray) -> np.ndarray:
    """Whether each row is one of training that has its like among the held-out ones."""
    return np.asarray(is_train & np.isin(likes, likes[~is_train]))


def _mark(
    verdicts: np.ndarray,
    rows: np.ndarray,
    is_later: np.ndarray,
    is_leaked: np.ndarray,
    code: int,
    settings: ShardSettings,
) -> None:
    """Mark the ``rows`` that have their like among the earlier ones of their split, or among the
    held-out ones."""
    if settings.applies(RULES[code] or ""):
        verdicts[rows[is_later]] = code
    if settings.applies("in_held_out"):
        verdicts[rows[is_leaked]] = IN_HELD_OUT


def _signatures(
    shards: list[Shard], sizes: list[int], rows: np.ndarray, folder: Path, max_memory_gb: float
) -> np.ndarray:
    """The signatures of the rows, (N, 128); in a file where they are too many for the memory."""
    shape = (len(rows), SIGNATURE_NUMBERS)
    if 4 * len(rows) * SIGNATURE_NUMBERS > max_memory_gb * 1e9:
        path = folder / SIGNATURES_FILE
        table = np.lib.format.open_memmap(path, "w+", np.uint32, shape)
    else:
        table = np.empty(shape, np.uint32)
    starts = np.cumsum([0, *sizes])
    for shard, start, end in zip(shards, starts[:-1], starts[1:], strict=True):
        lower, upper = np.searchsorted(rows, (start, end))
        if lower < upper:
            marks = pl.read_parquet(shard.table, columns=["signature"])["signature"].to_numpy()
            table[lower:upper] = marks[rows[lower:upper] - start]
    return table


def _contradictory(
    rows: pl.DataFrame, left: np.ndarray, is_train: np.ndarray, settings: ShardSettings
) -> dict[str, int]:
    """Kept pairs of which an earlier one is the opposite; texts with a second label, removed as
    duplicates or not."""
    if settings.kind == "preferences":
        keys = rows["fingerprint"].fill_null(0).to_numpy()[left]
        swapped = rows["swapped_fingerprint"].fill_null(0).to_numpy()[left]
        first_of = dict(zip(keys[::-1].tolist(), left[::-1].tolist(), strict=True))
        found = [
            row
            for row, key in zip(left.tolist(), swapped.tolist(), strict=True)
            if first_of.get(key, row) < row
        ]
    elif settings.kind == "labelled":
        sound = rows.with_row_index("row").filter(~pl.col("is_removed"))
        labels = sound.unique("label_fingerprint", keep="first", maintain_order=True)
        found = labels.filter(~pl.col("fingerprint").is_first_distinct())["row"].to_list()
    else:
        found = []
    in_train = int(is_train[found].sum())
    return {"train": in_train, "held_out": len(found) - in_train}
