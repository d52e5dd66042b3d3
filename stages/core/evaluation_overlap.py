"""Which texts hold items of evaluation sets: runs of 13 words in common.

Thirteen words in a row are what GPT-3 was decontaminated by (Brown et al. 2020, appendix C). Case,
punctuation and white space do not count (see `stages.core.words`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.core.errors import UserError
from stages.core.sources import read_records
from stages.core.words import Hashes, Offsets, Words, run_at, runs, words

RUN_WORDS = 13
SHORT_WORDS = 8
"""Texts of at least so many words, but too few for a run, are looked for as a whole. Shorter ones
are not: seven words in a row are found in other books by chance."""
MIN_DISTINCT_WORDS = 6
"""Of a run. Rows of dashes, zeros and the like are found anywhere."""
BOILERPLATE_SHARE = 0.01
BOILERPLATE_TEXTS = 10
"""A run in more of a set's texts than either is an instruction or a frame ("Which of the following
is true about…"), which other data may have for itself."""
BITS_PER_HASH = 32
MIN_BITS = 1 << 22
WORDS_AT_ONCE = 1 << 16


class BitTable:
    """Tells fast of nearly all numbers that are not in a set that they are not (a Bloom filter,
    1970, with two bits a number)."""

    def __init__(self, hashes: Hashes) -> None:
        size = max(len(hashes) * BITS_PER_HASH, MIN_BITS)
        self._shift = np.uint64(64 - (size - 1).bit_length() + 3)
        self._bytes = np.zeros(1 << (size - 1).bit_length() - 3, np.uint8)
        for found in (hashes, self._second(hashes)):
            np.bitwise_or.at(self._bytes, found >> self._shift, self._bit(found))

    @staticmethod
    def _bit(hashes: Hashes) -> NDArray[np.uint8]:
        return np.uint8(1) << (hashes.astype(np.uint8) & np.uint8(7))

    @staticmethod
    def _second(hashes: Hashes) -> Hashes:
        return hashes << np.uint64(32) | hashes >> np.uint64(32)

    def places(self, hashes: Hashes) -> Offsets:
        """Where the numbers are that may be in the set."""
        found = np.flatnonzero(self._bytes[hashes >> self._shift] & self._bit(hashes))
        second = self._second(hashes[found])
        is_found = self._bytes[second >> self._shift] & self._bit(second) != 0
        return np.asarray(found[is_found], np.int64)


class EvaluationIndex:
    """The runs of words that are evidence of evaluation sets.

    A text with at least ``n`` words has its runs of ``n``. One with fewer is one run as a whole if
    it has 8 words: many questions are that short. One with fewer than 8 is left out, since so few
    words are found elsewhere by chance. Runs with fewer than 6 different words are left out, and
    those in more than 1 % of a set's different texts (and more than 10), with the runs of which
    these make up more than half: they are instructions and frames, not items.
    """

    def __init__(
        self,
        n: int,
        names: tuple[str, ...],
        hashes: Hashes,
        numbers: NDArray[np.int32],
        starts: Hashes,
    ) -> None:
        """``hashes`` of the runs increase; ``numbers`` are those of their sets; ``starts`` are the
        first 8 words of the runs that are shorter than ``n``."""
        self.n = n
        self.names = names
        self.hashes = hashes
        self.numbers = numbers
        self.starts = starts
        self._runs_table = BitTable(hashes)
        self._starts_table = BitTable(starts)

    @classmethod
    def build(cls, sets: Mapping[str, Iterable[str]], n: int = RUN_WORDS) -> "EvaluationIndex":
        """The index of the texts of each set."""
        parts = [_evidence(words(_different(texts)), n) for texts in sets.values()]
        hashes = np.concatenate([np.zeros(0, np.uint64), *(part[0] for part in parts)])
        numbers = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part[0]) for part in parts])
        starts = np.concatenate([np.zeros(0, np.uint64), *(part[1] for part in parts)])
        order = np.lexsort((numbers, hashes))
        return cls(n, tuple(sets), hashes[order], numbers[order], np.unique(starts))

    def hits(self, words: Words) -> pl.DataFrame:
        """Which texts hold evidence of which set.

        Returns:
            Rows of ``index`` (of the text), ``set`` (its name) and ``share`` (of the text's words,
            those in runs that it has in common with the set), by index and set.
        """
        places, starts = self._candidates(words.hashes)
        found = [self._runs_at(words, places, self.n)]
        found += [self._runs_at(words, starts, size) for size in range(SHORT_WORDS, self.n)]
        table = pl.concat(found)
        before = pl.col("end").cum_max().shift(1).over("index", "set")
        covered = (pl.col("end") - pl.max_horizontal("first", before)).clip(0)
        table = (
            table.sort("index", "set", "first", "end")
            .with_columns(covered=covered)
            .group_by("index", "set", maintain_order=True)
            .agg(pl.col("covered").sum())
        )
        index = table["index"].to_numpy()
        return pl.DataFrame(
            {
                "index": index,
                "set": pl.Series(self.names, dtype=pl.String).gather(table["set"]),
                "share": table["covered"].to_numpy() / np.diff(words.offsets)[index],
            }
        )

    def _candidates(self, hashes: Hashes) -> tuple[Offsets, Offsets]:
        """Where runs may begin: those of ``n`` words, and the shorter ones."""
        places = [np.zeros(0, np.int64)]
        starts = [np.zeros(0, np.int64)]
        for first in range(0, len(hashes), WORDS_AT_ONCE):
            block = hashes[first : first + WORDS_AT_ONCE + self.n - 1]
            places.append(first + self._runs_table.places(runs(block, self.n)))
            begins = runs(block, SHORT_WORDS)[:WORDS_AT_ONCE]
            starts.append(first + self._starts_table.places(begins))
        return np.concatenate(places), np.concatenate(starts)

    def _runs_at(self, words: Words, places: Offsets, size: int) -> pl.DataFrame:
        """The runs of this size that are in the index, once for each of their sets: in which text,
        from which word to which."""
        texts = np.searchsorted(words.offsets, places, side="right") - 1
        is_whole = places + size <= words.offsets[texts + 1]
        places, texts = places[is_whole], texts[is_whole]
        hashes = run_at(words.hashes, places, size)
        lefts = np.searchsorted(self.hashes, hashes, side="left")
        counts = np.searchsorted(self.hashes, hashes, side="right") - lefts
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        first = np.repeat(places, counts)
        return pl.DataFrame(
            {
                "index": np.repeat(texts, counts),
                "set": self.numbers[np.repeat(lefts, counts) + within],
                "first": first,
                "end": first + size,
            }
        )


def _different(texts: Iterable[str]) -> pl.Series:
    return pl.Series(list(dict.fromkeys(texts)), dtype=pl.String)


def _evidence(words: Words, n: int) -> tuple[Hashes, Hashes]:
    """The runs of a set's texts, each once, and the first 8 words of the shorter ones."""
    hashes = words.hashes
    counts = np.diff(words.offsets)
    limit = max(BOILERPLATE_TEXTS, BOILERPLATE_SHARE * len(counts))
    owners = np.repeat(np.arange(len(counts)), counts)
    places = np.arange(max(len(owners) - n + 1, 0))
    places = places[owners[places] == owners[places + n - 1]]
    long = runs(hashes, n)[places]
    places_in_common = places[_texts_with(long, owners[places]) > limit]
    is_evidence = _words_within(places_in_common, len(hashes), n)[places] <= n // 2
    is_evidence &= _distinct_words(hashes, places, n) >= MIN_DISTINCT_WORDS
    found = [long[is_evidence]]
    starts = [np.zeros(0, np.uint64)]
    for size in range(SHORT_WORDS, n):
        firsts = words.offsets[:-1][counts == size]
        firsts = firsts[_distinct_words(hashes, firsts, size) >= MIN_DISTINCT_WORDS]
        found.append(run_at(hashes, firsts, size))
        starts.append(run_at(hashes, firsts, SHORT_WORDS))
    return np.unique(np.concatenate(found)), np.concatenate(starts)


def _texts_with(hashes: Hashes, texts: Offsets) -> Offsets:
    """For each run, the number of texts that have it."""
    order = np.lexsort((texts, hashes))
    hashes, texts = hashes[order], texts[order]
    is_new_run = np.ones(len(hashes), np.bool_)
    is_new_run[1:] = hashes[1:] != hashes[:-1]
    is_new_text = is_new_run.copy()
    is_new_text[1:] |= texts[1:] != texts[:-1]
    runs_of = np.cumsum(is_new_run) - 1
    result = np.empty(len(hashes), np.int64)
    result[order] = np.bincount(runs_of, is_new_text)[runs_of]
    return result


def _words_within(places: Offsets, count: int, n: int) -> Offsets:
    """For each run of ``n`` of all ``count`` words, how many of its words lie in the runs that
    begin at ``places``."""
    steps = np.zeros(count + 1, np.int64)
    np.add.at(steps, places, 1)
    np.add.at(steps, places + n, -1)
    within = np.zeros(count + 2, np.int64)
    np.cumsum(np.cumsum(steps) > 0, out=within[1:])
    return within[n : count + 1] - within[: max(count - n + 1, 0)]


def _distinct_words(hashes: Hashes, firsts: Offsets, n: int) -> Offsets:
    result = np.ones(len(firsts), np.int64)
    for at in range(0, len(firsts), WORDS_AT_ONCE):
        part = slice(at, at + WORDS_AT_ONCE)
        run = np.sort(hashes[firsts[part, None] + np.arange(n)], axis=1)
        result[part] += (run[:, 1:] != run[:, :-1]).sum(axis=1)
    return result


# -------------------------------------------------------------------------------- reading the sets

OPTION = re.compile(
    r"(^|_)(choice|ending|option|answer|hypothesis|target|solution|sol)s?\d*($|_)", re.IGNORECASE
)
"""Names of fields that hold what a question or a text may go on with."""


def evaluation_texts(path: Path) -> Iterator[str]:
    """The texts of the evaluation set's items, to be looked for in training data.

    Of each record, every string on its own but the options to choose from, which say too little
    unless they are long. They follow the longest other string where that is shorter than a run.

    Raises:
        UserError: the file, or one of its records, cannot be read.
    """
    with path.open("rb") as raw:
        for record in read_records(path, raw):
            if record.fields is None:
                raise UserError(
                    f"{path}:{record.line}: {record.reason}; mend the record, or take the file "
                    "off clean.evaluation_sets"
                )
            yield from _item_texts(record.fields)


def _item_texts(fields: Mapping[str, Any]) -> Iterator[str]:
    stems: list[str] = []
    options: list[str] = []
    for name, value in fields.items():
        (options if OPTION.search(name) else stems).extend(_strings(value))
    yield from stems
    stem = max(stems, key=len, default="")
    if len(stem.split()) < RUN_WORDS:
        yield from (f"{stem} {option}" for option in options)
    yield from (option for option in options if len(option.split()) >= RUN_WORDS)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
