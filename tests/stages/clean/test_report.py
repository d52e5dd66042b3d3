import json
from collections import Counter

import numpy as np
import polars as pl
import pytest

from stages.clean.removed import Removed
from stages.clean.report import CHARACTER_BINS, COLUMNS, REMOVING, Histograms, write_report
from stages.core.config import CleanConfig

TABLE = pl.DataFrame(
    {
        "characters": pl.Series([1, 90, 10**7], dtype=pl.UInt32),
        "symbol_share": pl.Series([0.01, 0.99, None], dtype=pl.Float32),
        "language": ["en", "zh", "en"],
    }
)
IS_KEPT = np.array([False, True, True])


@pytest.fixture
def report(tmp_path):
    """The report on two kinds of data."""
    histograms = {"documents": Histograms(), "sft": Histograms()}
    histograms["documents"].add(TABLE, IS_KEPT)
    histograms["sft"].add(TABLE.with_columns(symbol_share=pl.lit(None, pl.Float32)), IS_KEPT)
    counts = {
        "documents/train": Counter(read=3, kept=2, email=4, too_short=1),
        "sft/train": Counter(read=3, kept=3),
    }
    with Removed(tmp_path) as removed:
        record = b'{"text":"<b>one</b>\\n| two","meta":{"k":"v"}}'
        verdict = "too_short", "too_short", 16.0
        removed.add("documents", "train", ("a_b.jsonl", 9), verdict, record)

    def write(**settings):
        write_report(CleanConfig(**settings), counts, removed, histograms, tmp_path)
        return (tmp_path / "report.md").read_text(encoding="utf-8")

    return write


def test_histograms_count_before_and_after():
    histograms = Histograms()
    histograms.add(TABLE, IS_KEPT)
    before, after = histograms.characters
    assert (before.sum(), after.sum()) == (3, 2)
    assert (before[0], after[0]) == (1, 0)
    assert before[-1] == 1  # longer ones count as the longest
    (place,) = np.flatnonzero(before[1:-1]) + 1
    assert CHARACTER_BINS[place] <= 90 < CHARACTER_BINS[place + 1]
    assert histograms.symbol_share[:, 0].tolist() == [1, 0]
    assert histograms.symbol_share[:, -1].tolist() == [1, 1]
    assert histograms.languages == ({"en": 2, "zh": 1}, {"en": 1, "zh": 1})


def test_the_table_says_what_happened_and_why(report, tmp_path):
    lines = report().splitlines()
    assert "| | documents/train | sft/train | |" in lines
    assert "| read | 3 | 3 |  |" in lines
    assert "| email | 4 |  | personal data replaced by a placeholder |" in lines
    assert f"| too short | 1 |  | {REMOVING['too_short']} |" in lines
    assert "| kept | 2 | 3 |  |" in lines
    assert not any(line.startswith("| evaluation ") for line in lines)  # nothing of it
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert list(counts["sft/train"]) == list(COLUMNS)
    assert counts["documents/train"]["email"] == 4


def test_examples_show_the_text_as_it_is(report):
    lines = report().splitlines()
    assert "## documents: too_short (1)" in lines
    shown = "&#60;b&#62;one&#60;/b&#62; &#124; two"
    assert f"| a&#95;b.jsonl:9 | 16 | {shown} |" in lines


def test_both_kinds_have_their_picture(report, tmp_path):
    for name in ("clean_documents", "clean_sft"):
        assert f"(plots/{name}.png)" in report()
        assert (tmp_path / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_dry_run_says_that_all_are_kept(report):
    assert "would be removed (dry run: all are kept as they were)" in report(dry_run=True)
    assert "dry run" not in report()
