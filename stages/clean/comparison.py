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
    twins: list[np.ndarray]
    """For each row that ``RULES`` remove, the shard (by its number) and the line in it, from 0, of
    the record that it is like: (N, 2)."""
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
    twins = np.arange(len(rows))
    left = np.flatnonzero(~rows["is_removed"].to_numpy())
    keys = rows["fingerprint"].fill_null(0).to_numpy()
    if settings.config.remove_duplicates:
        _mark(verdicts, twins, left, keys[left], is_train, DUPLICATE, settings)
        left = left[verdicts[left] == STAYS]
    if settings.similarity and len(left) > 1:
        shares = SIGNATURE_SHARES.get(settings.kind, {"": SIGNATURE_NUMBERS})
        fields = tuple(shares.values())
        table = _signatures(shards, sizes, left, folder, max_memory_gb)
        likes = clusters(table, settings.similarity, fields)
        # Equal rows are here only where their own rule is skipped.
        _mark(verdicts, twins, left, likes, is_train, NEAR_DUPLICATE, settings, unless_equal=keys)
        left = left[verdicts[left] == STAYS]
    contradictory = _contradictory(rows, left, is_train, settings)
    ends = np.cumsum(sizes)
    shard_of = np.searchsorted(ends, twins, side="right")
    places = np.stack((shard_of, rows["line"].to_numpy()[twins]), axis=1)
    by_shard = [np.split(values, ends)[: len(shards)] for values in (verdicts, places)]
    return Comparison(by_shard[0], by_shard[1], contradictory)


def _read(shards: list[Shard]) -> tuple[list[int], pl.DataFrame]:
    """The number of rows of each shard, and what all rows are compared by."""
    columns = pl.selectors.ends_with("fingerprint") | pl.selectors.by_name("line")
    is_removed = pl.col("rule").is_not_null().alias("is_removed")
    tables = [
        pl.scan_parquet(shard.table).select(is_removed, columns).collect() for shard in shards
    ]
    none = pl.DataFrame(schema=SCHEMA).select(is_removed, columns)
    return list(map(len, tables)), pl.concat([none, *tables])


def _firsts(likes: np.ndarray, parts: np.ndarray | bool) -> np.ndarray:
    """For each row, the number of the first in its part with the same number of ``likes``, of which
    63 bits count."""
    keys = likes.astype(np.uint64) << np.uint64(1) | parts
    firsts, inverse = np.unique(keys, return_index=True, return_inverse=True)[1:]
    return np.asarray(firsts[inverse])


def _mark(
    verdicts: np.ndarray,
    twins: np.ndarray,
    rows: np.ndarray,
    likes: np.ndarray,
    is_train: np.ndarray,
    code: int,
    settings: ShardSettings,
    unless_equal: np.ndarray | None = None,
) -> None:
    """Mark the ``rows`` that have their like among the earlier ones of their split, or among the
    held-out ones, and note in ``twins`` which it is.

    Args:
        likes: of the rows, a number that those have in common which are alike.
        unless_equal: numbers of all rows; within a split, those with their twin's stay.
    """
    first = rows[_firsts(likes, is_train[rows])]
    is_later = first != rows
    if unless_equal is not None:
        is_later &= unless_equal[first] != unless_equal[rows]
    _note(verdicts, twins, rows, first, is_later & settings.applies(RULES[code] or ""), code)
    first = rows[_firsts(likes, parts=False)]
    is_leaked = is_train[rows] & ~is_train[first] & settings.applies("in_held_out")
    _note(verdicts, twins, rows, first, is_leaked, IN_HELD_OUT)


def _note(
    verdicts: np.ndarray,
    twins: np.ndarray,
    rows: np.ndarray,
    first: np.ndarray,
    chosen: np.ndarray,
    code: int,
) -> None:
    verdicts[rows[chosen]] = code
    twins[rows[chosen]] = first[chosen]


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
