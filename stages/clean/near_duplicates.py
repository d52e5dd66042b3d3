"""Near duplicates: MinHash signatures of texts, and clusters of the rows whose signatures agree.

Two texts are as similar as the share of their runs of five words that both have (Jaccard). Of each
text a signature of 128 numbers is kept (Broder 1997); the share of equal numbers estimates the
similarity with a standard error of at most .044. Rows that agree in a whole band of numbers are
compared (locality-sensitive hashing, Indyk and Motwani 1998).
"""

import itertools
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import rensa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stages.core.words import MULTIPLIER, Words, ngrams

Signatures = NDArray[np.uint32]
Rows = NDArray[np.int64]
Similar = Callable[[Rows, Rows], NDArray[np.bool_]]
"""Whether the rows of each pair are similar."""

GRAM_WORDS = 5
SIGNATURE_NUMBERS = 128
SEED = 42
EMPTY = np.uint32(2**32 - 1)
"""Each number of the signature of a text without words."""

MISSED_BY_BANDS = 0.002
"""Share of the pairs at the similarity asked for that may agree in no band."""
STANDARD_ERRORS = 2.5
"""By so much may the estimate be lower than the similarity: .6 % of the pairs there are lower."""
MAX_LEADERS = 16
"""With so many rows of a bucket are its others compared: work is linear also where many texts that
are not similar share a passage."""
ROWS_AT_ONCE = 1 << 13
PAIRS_AT_ONCE = 1 << 13


# ------------------------------------------------------------------------------------ signatures


def signatures(words: Words, numbers: int = SIGNATURE_NUMBERS) -> Signatures:
    """The signatures, (n, ``numbers``), of n texts. Of a text with fewer than five words all of
    them are its one run, so that it is similar to texts with the same words only."""
    grams = ngrams(words, GRAM_WORDS)
    count = len(grams.offsets) - 1
    result = np.empty((count, numbers), np.uint32)
    # In parts, since rensa gives Python numbers, 5 KB a text.
    for first in range(0, count, ROWS_AT_ONCE):
        offsets = grams.offsets[first : first + ROWS_AT_ONCE + 1]
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            grams.hashes[offsets[0] : offsets[-1]], offsets - offsets[0], numbers, SEED
        )
        flat = itertools.chain.from_iterable(matrix.to_rows())
        part = result[first : first + ROWS_AT_ONCE]
        part[:] = np.fromiter(flat, np.uint32, part.size).reshape(part.shape)
    return result


def clusters(
    signatures: Signatures, similarity: float, fields: Sequence[int] = (SIGNATURE_NUMBERS,)
) -> Rows:
    """The cluster of each row: the number of its first row.

    Args:
        signatures: of the rows, (n, 128).
        similarity: from which on two rows are similar.
        fields: how many of the numbers are of each field of a record; all must be similar, by the
            estimate itself.

    Rows are in one cluster if a chain of similar pairs leads from one to the other. Of the pairs
    that are as similar as asked for, at least 99 % are found, and of less similar ones some, down
    to 2.5 standard errors below (.71 for .8, .95 for .98). The rows and their order decide, and
    nothing else: neither how they were cut into shards nor how many workers made them.

    Extra memory: about 50 bytes a row while one band is compared; the keys of all bands of a table
    on disk lie on disk beside it.
    """
    labels = np.arange(len(signatures))
    rows = _rows_with_words(signatures)
    # A few numbers tell little: below the similarity itself, too many others would pass.
    lowest = (
        np.floor(similarity * np.array(fields))
        if len(fields) > 1
        else SIGNATURE_NUMBERS * lowest_estimate(similarity)
    )
    starts = np.cumsum((0, *fields[:-1]))

    def is_similar(first: Rows, second: Rows) -> NDArray[np.bool_]:
        is_equal = signatures[first] == signatures[second]
        return (np.add.reduceat(is_equal, starts, axis=1, dtype=np.int64) >= lowest).all(axis=1)

    for keys in _band_keys(signatures, band_size(similarity)):
        first_rows, buckets = _buckets(keys[rows], rows)
        labels = _unite_buckets(labels, first_rows, buckets, is_similar)
    return labels


def lowest_estimate(similarity: float) -> float:
    """From which estimate on two rows count as similar."""
    error = math.sqrt(similarity * (1 - similarity) / SIGNATURE_NUMBERS)
    return similarity - STANDARD_ERRORS * error


def band_size(similarity: float) -> int:
    """How many numbers a band has: as many as let pairs of this similarity still be found."""
    for size in range(SIGNATURE_NUMBERS, 1, -1):
        missed = (1 - similarity**size) ** (SIGNATURE_NUMBERS // size)
        if missed <= MISSED_BY_BANDS:
            return size
    return 1


def _rows_with_words(signatures: Signatures) -> Rows:
    has_words = np.empty(len(signatures), np.bool_)
    for first in range(0, len(signatures), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        has_words[part] = (signatures[part] != EMPTY).any(axis=1)
    return np.flatnonzero(has_words)


def _band_keys(signatures: Signatures, size: int) -> Iterator[NDArray[np.uint64]]:
    """For each band, a number of each row: equal where the numbers of the band are."""
    bands = [slice(at, at + size) for at in range(0, SIGNATURE_NUMBERS - size + 1, size)]
    if not isinstance(signatures, np.memmap):
        yield from (_keys(signatures[:, band]) for band in bands)
        return
    # In one pass, since a band of each row lies on every page of the table.
    with tempfile.TemporaryFile(dir=Path(str(signatures.filename)).parent) as file:
        table = np.memmap(file, np.uint64, "w+", shape=(len(bands), len(signatures)))
        for first in range(0, len(signatures), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            part = np.array(signatures[rows])
            for index, band in enumerate(bands):
                table[index, rows] = _keys(part[:, band])
        yield from table


def _keys(numbers: Signatures) -> NDArray[np.uint64]:
    keys = np.zeros(len(numbers), np.uint64)
    for column in numbers.T:
        keys *= MULTIPLIER
        keys ^= keys >> np.uint64(32)
        keys += column
    return keys


def _buckets(keys: NDArray[np.uint64], rows: Rows) -> tuple[Rows, Rows]:
    """The rows that share a key with others, those of a key together and in their order, and for
    each the number of its bucket."""
    order = np.argsort(keys)
    keys = keys[order]
    is_new = np.ones(len(keys) + 1, np.bool_)
    is_new[1:-1] = keys[1:] != keys[:-1]
    is_shared = ~(is_new[:-1] & is_new[1:])
    buckets = np.cumsum(is_new[:-1])[is_shared]
    rows = rows[order[is_shared]]
    order = np.lexsort((rows, buckets))
    return rows[order], buckets[order]


def _unite_buckets(labels: Rows, rows: Rows, buckets: Rows, is_similar: Similar) -> Rows:
    """Compare each row of a bucket with the row before it, and with the bucket's first; then those
    that are like neither with the first of them, and so on."""
    goes_on = buckets[1:] == buckets[:-1]
    labels = _unite_similar(labels, rows[:-1][goes_on], rows[1:][goes_on], is_similar)
    for _ in range(MAX_LEADERS):
        if not len(rows):
            break
        is_leader = np.ones(len(rows), np.bool_)
        is_leader[1:] = buckets[1:] != buckets[:-1]
        leaders = rows[is_leader][np.cumsum(is_leader) - 1]
        labels = _unite_similar(labels, leaders, rows, is_similar)
        is_left = labels[leaders] != labels[rows]
        rows, buckets = rows[is_left], buckets[is_left]
    return labels


def _unite_similar(labels: Rows, first: Rows, second: Rows, is_similar: Similar) -> Rows:
    """The labels after the clusters of all similar pairs became one."""
    is_open = labels[first] != labels[second]
    first, second = first[is_open], second[is_open]
    is_pair = np.empty(len(first), np.bool_)
    for at in range(0, len(first), PAIRS_AT_ONCE):
        part = slice(at, at + PAIRS_AT_ONCE)
        is_pair[part] = is_similar(first[part], second[part])
    if not is_pair.any():
        return labels
    pairs = np.stack((labels[first[is_pair]], labels[second[is_pair]]))
    nodes, places = np.unique(pairs, return_inverse=True)
    places = places.reshape(pairs.shape)
    graph = coo_array((np.ones(len(places[0])), tuple(places)), shape=(len(nodes), len(nodes)))
    count, component = connected_components(graph, directed=False)
    smallest = np.full(count, len(labels))
    np.minimum.at(smallest, component, nodes)
    renamed = np.arange(len(labels))
    renamed[nodes] = smallest[component]
    return np.asarray(renamed[labels])
