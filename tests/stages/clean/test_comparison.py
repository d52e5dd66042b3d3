import numpy as np
import polars as pl
import pytest

from stages.clean.comparison import RULES, compare
from stages.clean.shard import SCHEMA, ShardSettings
from stages.clean.shards import Shard
from stages.core.config import CleanConfig


@pytest.fixture
def compared(tmp_path):
    """What comparing says of each row of tables, given as (split, rows); of their signatures the
    first ``same`` numbers are equal."""

    def run(*tables, kind="documents", **settings):
        shards = []
        for number, (split, rows) in enumerate(tables):
            table = pl.DataFrame(
                {name: [row.get(name) for row in rows] for name in SCHEMA}, schema=SCHEMA
            )
            marks = [signature(row.get("same", 0), row["fingerprint"]) for row in rows]
            path = tmp_path / f"{number}.parquet"
            table.with_columns(
                pl.Series("signature", np.stack(marks), pl.Array(pl.UInt32, 128))
            ).write_parquet(path)
            shards.append(Shard(kind, split, path, 0, 0, 1, path))
        config = CleanConfig(**settings)
        result = compare(shards, ShardSettings(config, kind, "train"), tmp_path, 1.0)
        return [[RULES[verdict] for verdict in part] for part in result.verdicts], result

    return run


def signature(same, seed):
    numbers = np.random.default_rng(seed).integers(0, 2**32, 128, np.uint32)
    numbers[:same] = np.arange(same)
    return numbers


def test_the_first_of_equal_rows_stays_in_the_order_of_the_shards(compared):
    rules, _ = compared(
        ("held_out", [{"fingerprint": 1}, {"fingerprint": 1}]),
        ("train", [{"fingerprint": 2}, {"fingerprint": 1}]),
        ("train", [{"fingerprint": 3}, {"fingerprint": 2}]),
    )
    assert rules == [[None, "duplicate"], [None, "in_held_out"], [None, "duplicate"]]


def test_the_twin_of_a_removed_row_is_the_one_that_stays(compared):
    _, result = compared(
        ("held_out", [{"fingerprint": 1, "line": 4}]),
        ("train", [{"fingerprint": 2, "line": 0}, {"fingerprint": 3, "line": 0, "same": 128}]),
        ("train", [{"fingerprint": 1}, {"fingerprint": 2}, {"fingerprint": 4, "same": 128}]),
    )
    assert result.twins[2].tolist() == [[0, 4], [1, 0], [1, 0]]


def test_near_rows_go_by_the_share_of_equal_numbers(compared):
    near, far = {"fingerprint": 2, "same": 110}, {"fingerprint": 3, "same": 60}
    rules, _ = compared(("train", [{"fingerprint": 1, "same": 128}, near, far]))
    assert rules == [[None, "near_duplicate", None]]
    rules, _ = compared(("held_out", [{"fingerprint": 1, "same": 128}]), ("train", [near, far]))
    assert rules == [[None], ["in_held_out", None]]


def test_rows_that_another_rule_removes_take_none_with_them(compared):
    first = {"fingerprint": 1, "same": 128, "rule": "too_short"}
    rules, _ = compared(("train", [first, {"fingerprint": 1}, {"fingerprint": 2, "same": 128}]))
    assert rules == [[None, None, None]]


@pytest.mark.parametrize(
    ("skipped", "expected"),
    [
        ("duplicate", [[None], [None, None, "in_held_out"]]),
        ("in_held_out", [[None], [None, "duplicate", None]]),
    ],
)
def test_a_skipped_rule_removes_nothing(compared, skipped, expected):
    rows = [{"fingerprint": 2}, {"fingerprint": 2}, {"fingerprint": 1}]
    skip = {"documents": (skipped, "near_duplicate")}
    rules, _ = compared(("held_out", [{"fingerprint": 1}]), ("train", rows), skip=skip)
    assert rules == expected


def test_where_a_rule_is_skipped_the_others_still_hold(compared):
    equal = [{"fingerprint": 1, "same": 128}, {"fingerprint": 1, "same": 128}]
    near = {"fingerprint": 2, "same": 120}
    rules, _ = compared(("train", [*equal, near]), skip={"documents": ("duplicate",)})
    assert rules == [[None, None, "near_duplicate"]]
    held_out = ("held_out", equal[:1])
    rules, _ = compared(held_out, ("train", [*equal, near]), skip={"documents": ("in_held_out",)})
    assert rules == [[None], [None, "duplicate", "near_duplicate"]]


def test_there_may_be_no_row_at_all(compared):
    rules, result = compared()
    assert rules == []
    assert result.contradictory == {"train": 0, "held_out": 0}


def test_opposites_are_counted_in_their_split(compared):
    pairs = [
        {"fingerprint": 1, "swapped_fingerprint": 2},
        {"fingerprint": 2, "swapped_fingerprint": 1},
        {"fingerprint": 3, "swapped_fingerprint": 4},
    ]
    rules, result = compared(("held_out", pairs[:1]), ("train", pairs[1:]), kind="preferences")
    assert rules == [[None], [None, None]]
    assert result.contradictory == {"train": 1, "held_out": 0}


def test_fingerprints_stay_whole_numbers_beside_missing_ones(compared):
    large = 2**62 + 1
    rows = [
        {"fingerprint": large, "swapped_fingerprint": None, "rule": "unusable"},
        {"fingerprint": large + 1, "swapped_fingerprint": 1},
        {"fingerprint": large + 2, "swapped_fingerprint": 2},
    ]
    rules, _ = compared(("train", rows), kind="preferences")
    assert rules == [[None, None, None]]
