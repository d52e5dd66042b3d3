"""What training data has in common with data that models are measured on."""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.core.data_check.findings import excerpt
from stages.core.data_check.repeats import Hashes
from stages.core.evaluation_overlap import EvaluationIndex
from stages.core.words import words

WINDOW = 16
"""Pieces between spaces, of which some may be signs alone: enough to hold a run of 13 words."""
MAX_WINDOWS = 5000


def is_among(hashes: Hashes, known: Hashes) -> npt.NDArray[np.bool_]:
    """Which of the hashes are in ``known``, which increases."""
    if not len(known):
        return np.zeros(len(hashes), np.bool_)
    places = np.searchsorted(known, hashes).clip(max=len(known) - 1)
    return np.asarray(known[places] == hashes)


def overlaps(
    index: EvaluationIndex, rows: pl.DataFrame, fields: Sequence[str]
) -> list[tuple[str, pl.DataFrame]]:
    """For each evaluation set the rows that hold something of it, as ``line`` and ``text``."""
    texts = rows.select("line", pl.concat_str(fields, separator="\n\n").alias("text"))
    hits = index.hits(words(texts["text"]))
    return [
        (str(name), texts[found["index"]])
        for (name,), found in hits.group_by("set", maintain_order=True)
    ]


def shared_piece(index: EvaluationIndex, name: str, text: str) -> str:
    """An excerpt of ``text`` from where its words are those of the evaluation set of this name."""
    pieces = [match.span() for match in re.finditer(r"\S+", text)][: MAX_WINDOWS + WINDOW]
    last = max(len(pieces) - WINDOW, 0)
    windows = [
        text[pieces[at][0] : pieces[min(at + WINDOW, len(pieces)) - 1][1]] for at in range(last + 1)
    ]
    hits = index.hits(words(pl.Series(windows, dtype=pl.String)))
    places = hits.filter(pl.col("set") == name)["index"]
    return excerpt(windows[places[0]] if len(places) else text)
