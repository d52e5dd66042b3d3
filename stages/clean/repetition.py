"""How much a text repeats itself: its lines, its commonest short n-gram, its long n-grams.

After MassiveText (Rae et al. 2021, arXiv:2112.11446, table A1), with three changes. Shares are of
words instead of characters, and a character of Chinese, Japanese or Thai is a word. Only what comes
again counts, not what is there first, so that a text is not too short to be judged. And paragraphs
have no rule of their own: where they are repeated, so are their lines.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.clean.characters import sums
from stages.core.words import Words, ngrams

SHORT = (2, 3, 4)
LONG = 6
"""Words of a long n-gram. What repeats 7 to 10 words repeats 6 of them as well."""
LONG_UNSPACED = 12
"""The same in characters of a script without spaces, of which a word has about two."""
FEW = 0.05
"""Where two words in a row come again less often, three and four are not counted."""
CHUNK_WORDS = 1 << 16
"""Sorted at a time."""
HASH_BITS = np.uint64(44)
"""Of an n-gram's hash, beside the number of its text in the chunk."""

Shares = NDArray[np.float32]


def repeated_lines(lines: pl.DataFrame, characters: NDArray[np.int64]) -> Shares:
    """Share of each text's characters in lines that it has had before.

    Args:
        lines: ``text``, the text's number, in order; ``line``; and ``length`` in characters.
        characters: of each text.
    """
    again = lines.filter(~pl.struct("text", "line").is_first_distinct())
    counts = np.bincount(again["text"], again["length"], len(characters))
    return _shares(counts, characters)


def top_ngram(words: Words) -> Shares:
    """Share of each text's words that are repetitions of its commonest n-gram of 2, 3 or 4 words;
    3 and 4 only where 2 repeat at all often. At most 1."""
    counts = np.diff(words.offsets)
    shares = np.zeros(len(counts), np.float32)
    for rows, part in _chunks(words):
        for n in SHORT:
            some = np.flatnonzero(shares[rows] >= FEW) if n > SHORT[0] else np.arange(len(rows))
            if not len(some):
                break
            chosen = rows[some]
            repeats = _most_repeated(part if n == SHORT[0] else take(part, some), n)
            share = _shares(repeats * n, counts[chosen])
            shares[chosen] = np.maximum(shares[chosen], share)
    return np.minimum(shares, 1)


def repeated_ngrams(words: Words, is_unspaced: NDArray[np.bool_]) -> Shares:
    """Share of each text's words that lie in a long n-gram which the text has had before.

    Args:
        words: of the texts.
        is_unspaced: whether a text's words are mostly single characters.
    """
    counts = np.diff(words.offsets)
    covered = np.zeros(len(counts), np.int64)
    for rows, part in _chunks(words):
        covered[rows] = _covered(part, LONG)
        some = np.flatnonzero(is_unspaced[rows] & (covered[rows] > 0))
        if len(some):
            covered[rows[some]] = _covered(take(part, some), LONG_UNSPACED)
    return _shares(covered, counts)


def take(words: Words, rows: NDArray[np.int64]) -> Words:
    """The words of some of the texts."""
    counts = np.diff(words.offsets)[rows]
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
    places = np.arange(offsets[-1]) + np.repeat(words.offsets[rows] - offsets[:-1], counts)
    return Words(words.hashes[places], offsets, words.characters[rows])


def _chunks(words: Words) -> Iterator[tuple[NDArray[np.int64], Words]]:
    """Some texts at a time: their numbers and their words, those without words left out."""
    filled = np.flatnonzero(np.diff(words.offsets))
    ends = words.offsets[1:][filled]
    first = 0
    while first < len(filled):
        begin = int(words.offsets[filled[first]])
        last = max(first + 1, int(np.searchsorted(ends, begin + CHUNK_WORDS, side="right")))
        rows = filled[first:last]
        end = int(ends[last - 1])
        offsets = np.append(words.offsets[rows], end) - begin
        yield rows, Words(words.hashes[begin:end], offsets, words.characters[rows])
        first = last


def _keys(words: Words, n: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The number of its text in the high bits of each n-gram, its hash in the low; and the
    offsets."""
    grams = ngrams(words, n)
    sizes = np.diff(grams.offsets)
    texts = np.repeat(np.arange(len(sizes), dtype=np.uint64) << HASH_BITS, sizes)
    return texts | (grams.hashes >> (np.uint64(64) - HASH_BITS)), grams.offsets


def _most_repeated(words: Words, n: int) -> NDArray[np.int64]:
    """How often each text's commonest n-gram comes again."""
    keys, offsets = _keys(words, n)
    keys.sort()
    borders = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    firsts = np.concatenate((np.zeros(1, np.int64), borders))
    repeats = np.diff(firsts, append=len(keys)) - 1
    # Every text has an n-gram, so that each has a run of its own.
    return np.maximum.reduceat(repeats, np.searchsorted(firsts, offsets[:-1]))


def _covered(words: Words, n: int) -> NDArray[np.int64]:
    """How many words of each text lie in an n-gram that it has had before."""
    keys, offsets = _keys(words, n)
    in_order = np.sort(keys)
    repeated = in_order[1:][in_order[1:] == in_order[:-1]]
    # Few n-grams are repeated, so a look at some bits leaves few of the others.
    is_likely = np.zeros(1 << 16, np.bool_)
    is_likely[repeated.astype(np.uint16)] = True
    likely = np.flatnonzero(is_likely[keys.astype(np.uint16)])
    # A stable sort leaves the first of equal ones first.
    order = likely[np.argsort(keys[likely], kind="stable")]
    again = order[1:][keys[order[1:]] == keys[order[:-1]]]
    texts = (keys[again] >> HASH_BITS).astype(np.int64)
    firsts = again - offsets[texts] + words.offsets[texts]
    inside = np.zeros(len(words.hashes), np.bool_)
    for step in range(n):
        inside[firsts + step] = True
    return sums(inside.view(np.uint8), words.offsets)


def _shares(counts: NDArray[np.generic], totals: NDArray[np.int64]) -> Shares:
    return (counts / np.maximum(totals, 1)).astype(np.float32)
