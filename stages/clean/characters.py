"""How many characters of each kind the texts of a column have, from their flat UTF-8 bytes."""

import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.core.words import UNSPACED, blocks

Bytes = NDArray[np.uint8]
Counts = NDArray[np.int64]

# Classes: letter or mark of a script that sets spaces between words, or of one that sets none;
# digit; white space; any other sign; none that a text should have.
LETTER, UNSPACED_LETTER, DIGIT, SPACE, SYMBOL, BROKEN = range(6)

RUN = 5
"""So many equal letters in a row are no word of any language."""
BLOB = 40
"""So many signs of base64 in a row are no word either."""
BLOB_SIGNS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+="
"""Without the slash, of which base64 has one in 64 and a path many."""
EIGHT_TRUE = np.uint64(0x0101010101010101)


class CharacterCounts(NamedTuple):
    """Of n texts, n numbers each; all in characters but ``words``."""

    all: Counts
    letters: Counts
    """And marks, of scripts that set spaces between words."""
    unspaced: Counts
    """Letters and marks of scripts that do not: Chinese, Japanese, Thai, Lao, Khmer, Burmese."""
    digits: Counts
    symbols: Counts
    """Neither letters, digits nor white space; the broken ones among them."""
    broken: Counts
    """Replacement characters, code points that Unicode does not assign or leaves to private use."""
    words: Counts
    """Runs of letters and digits, of scripts that set spaces."""
    in_runs: Counts
    """ASCII letters in runs of `RUN` or more equal ones."""
    in_blobs: Counts
    """In runs of `BLOB` or more signs of base64 or hexadecimal numbers."""


def count_characters(texts: pl.Series) -> CharacterCounts:
    """The counts of each text."""
    counted = [np.zeros((len(CharacterCounts._fields), 0), np.int64)]
    for data, starts in blocks(texts):
        is_first = data & 0xC0 != 0x80
        classes = _classes(data)
        is_word = (classes == LETTER) | (classes == DIGIT)
        marks = (
            is_first,
            (classes == LETTER) & is_first,
            (classes == UNSPACED_LETTER) & is_first,
            (classes == DIGIT) & is_first,
            (classes >= SYMBOL) & is_first,
            (classes == BROKEN) & is_first,
            _begins(is_word, starts),
        )
        rows = [sums(mark.view(np.uint8), starts) for mark in marks]
        rows += [_in_runs(data, classes, starts), _in_blobs(data, starts)]
        counted.append(np.stack(rows))
    return CharacterCounts(*np.concatenate(counted, axis=1))


def sums(values: NDArray[np.generic], offsets: NDArray[np.int64]) -> Counts:
    """The sums of the parts of ``values`` between neighbours of ``offsets``."""
    result = np.zeros(len(offsets) - 1, np.int64)
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled):
        result[filled] = np.add.reduceat(values, offsets[filled], dtype=np.int32)
    return result


def _classes(data: Bytes) -> Bytes:
    """Of each byte the class of its character."""
    classes = _ascii_classes().take(data)
    leads = np.flatnonzero(data >= 0xC0)
    if not len(leads):
        return classes
    sizes = (data[leads] >= 0xE0).astype(np.uint8)
    sizes += data[leads] >= 0xF0
    for size in range(3):
        places = leads[sizes == size]
        points = (data[places] & (0x1F >> size)).astype(np.int32)
        for step in range(1, size + 2):
            points <<= 6
            points |= data[places + step] & 0x3F
        found = _table()[points]
        for step in range(size + 2):
            classes[places + step] = found
    return classes


def _begins(is_word: NDArray[np.bool_], starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The bytes of words that no byte of the same word precedes."""
    result = is_word.copy()
    result[1:] &= ~is_word[:-1]
    firsts = starts[:-1][starts[:-1] < len(is_word)]
    result[firsts] = is_word[firsts]
    return result


def _in_runs(data: Bytes, classes: Bytes, starts: NDArray[np.int64]) -> Counts:
    # Three equal bytes are rare enough to look at one by one.
    triples = np.flatnonzero((data[2:] == data[1:-1]) & (data[1:-1] == data[:-2]))
    triples = triples[(classes[triples] == LETTER) & (data[triples] < 128)]
    is_run = triples[RUN - 3 :] - triples[: len(triples) - RUN + 3] == RUN - 3
    first = triples[: len(is_run)][is_run]
    texts = _texts_of(first, starts)
    inside = first + RUN <= starts[texts + 1]
    first, texts = first[inside], texts[inside]
    # A run of RUN letters is one such place, and each further letter of it another.
    begins = np.diff(first, prepend=-2) > 1
    begins[1:] |= texts[1:] > texts[:-1]
    weights = 1 + (RUN - 1) * begins
    return np.bincount(texts, weights, len(starts) - 1).astype(np.int64)


def _in_blobs(data: Bytes, starts: NDArray[np.int64]) -> Counts:
    is_sign = _blob_signs().take(data)
    # Eight bytes at a time: of those of a blob, so many in a row are all signs.
    eights = is_sign[: len(data) // 8 * 8].view(np.uint64) == EIGHT_TRUE
    result = np.zeros(len(starts) - 1, np.int64)
    rows = BLOB // 8 - 1
    places = len(eights) - rows + 1
    if places < 1:
        return result
    candidates = eights[:places].copy()
    for step in range(1, rows):
        candidates &= eights[step : places + step]
    for text in np.unique(_texts_of(np.flatnonzero(candidates) * 8, starts)).tolist():
        signs = is_sign[starts[text] : starts[text + 1]]
        others = np.flatnonzero(~signs)
        lengths = np.diff(others, prepend=-1, append=len(signs)) - 1
        result[text] = lengths[lengths >= BLOB].sum()
    return result


def _texts_of(places: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.searchsorted(starts, places, side="right") - 1


@cache
def _blob_signs() -> NDArray[np.bool_]:
    signs = np.zeros(256, np.bool_)
    signs[list(BLOB_SIGNS)] = True
    return signs


@cache
def _ascii_classes() -> Bytes:
    """The class of each byte below 128; the first bytes of other characters are set later."""
    classes = np.zeros(256, np.uint8)
    classes[:128] = [_class(point) for point in range(128)]
    return classes


@cache
def _table() -> Bytes:
    """The class of each code point. Planes 4 to 13 have none assigned; 15 and 16 are private."""
    classes = np.full(0x110000, BROKEN, np.uint8)
    classes[:0x40000] = [_class(point) for point in range(0x40000)]
    classes[0xE0000:0xE01F0] = SYMBOL  # tags of flags, variation selectors
    for first, last in UNSPACED:
        block = classes[first : last + 1]
        block[block == LETTER] = UNSPACED_LETTER
    return classes


def _class(point: int) -> int:
    character = chr(point)
    category = unicodedata.category(character)
    if character == "\ufffd" or category in ("Co", "Cs"):
        return BROKEN
    if category == "Cn":
        # New emoji and scripts are assigned there, year by year.
        return SYMBOL if point >= 0x10000 else BROKEN
    if character.isspace():
        return SPACE
    return {"L": LETTER, "M": LETTER, "N": DIGIT}.get(category[0], SYMBOL)
