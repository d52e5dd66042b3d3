"""The words of texts as numbers: what near duplicates, overlaps and repetitions are found by.

A word is a longest run of letters, marks, digits and underscores, lower-cased. In scripts that set
no spaces between words, each character is a word. Everything works on the flat UTF-8 bytes of a
column with numpy, since Python objects for each word would take ten times as long.
"""

import itertools
import unicodedata
from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Offsets = NDArray[np.int64]

BLOCK_BYTES = 1 << 18
"""Texts are read in blocks of about so many bytes, which stay in the processor's cache."""
LONG_WORD_BYTES = 64
"""Longer words (encoded data) are hashed one by one."""
LAST_CHARACTER = 0x33480
"""Above the last letter of Unicode 17 but those for private use."""

# Each character of these blocks is a word of its own: (first, last).
UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x19E0, 0x19FF),  # Khmer symbols
    (0x2E80, 0x2FDF),  # Han radicals
    (0x3005, 0x3007),  # Han iteration mark, closing mark and zero
    (0x3021, 0x3029),  # Hangzhou numerals
    (0x3038, 0x30FF),  # Hangzhou numerals, Hiragana, Katakana
    (0x31F0, 0x31FF),  # Katakana extensions
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),  # Han
    (0xA9E0, 0xA9FF),  # Myanmar
    (0xAA60, 0xAA7F),  # Myanmar
    (0xF900, 0xFAFF),  # Han, for compatibility
    (0xFF66, 0xFF9F),  # Katakana of half width
    (0x1AFF0, 0x1B16F),  # Hiragana and Katakana extensions
    (0x20000, LAST_CHARACTER),  # Han
)

# Of bytes: in no word; in a word of several characters; first of a character that is a word;
# further one of such a word.
NONE, SPACED, ALONE, FURTHER = range(4)

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, of 2^64 / golden ratio
SECOND_MULTIPLIER = np.uint64(0xC2B2AE3D27D4EB4F)  # odd, of xxHash
HIGH_BITS = np.uint64(0x8080808080808080)
# How many bytes of eight belong to the word.
MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64)


class Words(NamedTuple):
    """The words of n texts."""

    hashes: Hashes
    """Of all words, text after text."""
    offsets: Offsets
    """Of the texts' first words, and the number of all words: n + 1 numbers."""
    characters: NDArray[np.int64]
    """Number of characters in words of each text: n numbers."""


class Grams(NamedTuple):
    """The n-grams of n texts, laid out like `Words`."""

    hashes: Hashes
    offsets: Offsets


# ------------------------------------------------------------------------------------------ words


def words(texts: pl.Series) -> Words:
    """The words of the texts, of which null ones have none.

    A word's hash is the same in any process, on any machine and beside any other texts. Different
    words of up to eight bytes have different hashes, others are as unlikely to share one as 64 bits
    allow. (Python's Unicode tables decide about letters that are newer than they are.)
    """
    hashes = [np.zeros(0, np.uint64)]
    counts = [np.zeros(1, np.int64)]
    characters = [np.zeros(0, np.int64)]
    for data, starts in blocks(texts.fill_null("")):
        block = _block_words(data, starts)
        hashes.append(block.hashes)
        counts.append(np.diff(block.offsets))
        characters.append(block.characters)
    offsets = np.cumsum(np.concatenate(counts))
    return Words(np.concatenate(hashes), offsets, np.concatenate(characters))


def blocks(texts: pl.Series) -> Iterator[tuple[NDArray[np.uint8], Offsets]]:
    """The bytes of some texts, and where in them each begins and the last ends."""
    ends = np.cumsum(texts.str.len_bytes().to_numpy().astype(np.int64))
    row = 0
    while row < len(texts):
        done = ends[row - 1] if row else 0
        end = max(row + 1, int(np.searchsorted(ends, done + BLOCK_BYTES, side="right")))
        yield _flat_bytes(texts[row:end])
        row = end


def _flat_bytes(texts: pl.Series) -> tuple[NDArray[np.uint8], Offsets]:
    array = texts.to_arrow()
    _, starts, data = array.buffers()
    offsets = np.frombuffer(starts, np.int64)[array.offset : array.offset + len(array) + 1]
    if data is None or not data.size:
        return np.zeros(0, np.uint8), offsets - offsets[0]
    return np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]], offsets - offsets[0]


def _block_words(data: NDArray[np.uint8], starts: Offsets) -> Words:
    # Zeros behind the text end its last word and fill the last eight bytes.
    padded = np.zeros((len(data) + 23) // 8 * 8, np.uint8)
    padded[: len(data)] = data
    classes = _ascii_classes().take(padded)
    leads = np.flatnonzero(padded >= 0xC0)
    if len(leads) and not _read_other_characters(padded, classes, leads):
        texts = [data[first:end].tobytes().decode() for first, end in itertools.pairwise(starts)]
        return _block_words(*_flat_bytes(_lower_resized(texts)))
    firsts, ends = _word_borders(classes, starts[:-1], is_ascii=not len(leads))
    offsets = np.searchsorted(firsts, starts)
    offsets[-1] = len(firsts)
    lengths = ends - firsts
    hashes = _hash(padded, firsts, lengths)
    sizes = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
    characters = np.diff(sizes[offsets])
    if len(leads):
        further = np.flatnonzero((padded & 0xC0 == 0x80) & (classes != NONE))
        characters -= np.diff(np.searchsorted(further, starts))
    return Words(hashes, offsets.astype(np.int64), characters)


def _lower_resized(texts: list[str]) -> pl.Series:
    table = _resized_lower()
    column = pl.Series(texts, dtype=pl.String)
    return column.str.replace_many(list(table), list(table.values()))


def _read_other_characters(
    data: NDArray[np.uint8], classes: NDArray[np.uint8], leads: NDArray[np.int64]
) -> bool:
    """Set the classes of the characters outside ASCII and lower them, both in place; whether all
    could be, since the small letters of few have another length."""
    first = data[leads]
    sizes = (first >= 0xE0).astype(np.uint8)
    sizes += first >= 0xF0
    table_classes, table_lower = _tables()
    for size in (0, 1, 2):
        places = leads[sizes == size] if sizes.any() else leads[: len(leads) * (size == 0)]
        if not len(places):
            continue
        points = (data[places] & (0x1F >> size)).astype(np.int32)
        for step in range(1, size + 2):
            points <<= 6
            points |= data[places + step] & 0x3F
        np.minimum(points, LAST_CHARACTER, out=points)
        found = table_classes[points]
        classes[places] = found
        inner = np.where(found == ALONE, np.uint8(FURTHER), found)
        for step in range(1, size + 2):
            classes[places + step] = inner
        lower = table_lower[points]
        changed = np.flatnonzero(lower)
        if not len(changed):
            continue
        lower, places = lower[changed], places[changed]
        if (lower < 0).any():
            return False
        for step in range(size + 1, 0, -1):
            data[places + step] = 0x80 | lower & 0x3F
            lower >>= 6
        data[places] = (0xC0, 0xE0, 0xF0)[size] | lower
    return True


def _word_borders(
    classes: NDArray[np.uint8], starts: Offsets, *, is_ascii: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each word begins, and where it ends (the place of the byte behind it)."""
    before = np.zeros_like(classes)
    before[1:] = classes[:-1]
    if is_ascii:
        is_first = classes > before
        is_border = classes != before
    else:
        is_first = (classes == ALONE) | (classes == SPACED) & (before != SPACED)
        is_first |= (classes == FURTHER) & (before == NONE)
        is_border = is_first | (classes == NONE) & (before != NONE)
    starts = starts[classes[starts] != NONE]
    is_first[starts] = True
    is_border[starts] = True
    borders = np.flatnonzero(is_border)
    at = np.flatnonzero(is_first[borders])
    return borders[at], borders[at + 1]


def _hash(data: NDArray[np.uint8], firsts: Offsets, lengths: Offsets) -> Hashes:
    """One step mixes the next eight bytes of all words that have them."""
    # Both neighbours of any eight bytes, since numpy reads aligned numbers only at full speed.
    eights = data.view("<u8").astype(np.uint64, copy=False)
    hashes = _mix(_eight_bytes(eights, firsts, lengths))
    longer = np.flatnonzero(lengths > 8)
    for done in range(8, LONG_WORD_BYTES, 8):
        if not len(longer):
            return hashes
        further = _eight_bytes(eights, firsts[longer] + done, lengths[longer] - done)
        hashes[longer] = _mix((hashes[longer] + SECOND_MULTIPLIER) ^ further)
        longer = longer[lengths[longer] > done + 8]
    for index in longer.tolist():
        first = int(firsts[index])
        word = data[first : first + int(lengths[index])].tobytes().lower()
        hashes[index] = int.from_bytes(blake2b(word, digest_size=8).digest(), "little")
    return hashes


def _eight_bytes(eights: Hashes, firsts: Offsets, lengths: Offsets) -> Hashes:
    """The bytes from ``firsts`` on that belong to the words, with ASCII letters lowered."""
    at = firsts >> 3
    shift = ((firsts & 7) << 3).astype(np.uint64)
    found = eights[at] >> shift
    # By 64 bits, which gives 0, where the first number has all.
    found |= eights[at + 1] << (np.uint64(64) - shift)
    found &= MASKS[np.minimum(lengths, 8)]
    # Bit 5 makes A to Z small, digits have it already, and "_" becomes what is in no word.
    found |= (~found & HIGH_BITS) >> np.uint64(2)
    return np.asarray(found, np.uint64)


def _mix(hashes: Hashes) -> Hashes:
    """One to one: no two numbers become one."""
    hashes = hashes * MULTIPLIER
    hashes ^= hashes >> np.uint64(32)
    hashes *= SECOND_MULTIPLIER
    hashes ^= hashes >> np.uint64(29)
    return hashes


# ------------------------------------------------------------------------------------------ grams


def ngrams(words: Words, n: int) -> Grams:
    """The runs of ``n`` words within a text; of a text with fewer words, all its words as one."""
    counts = np.diff(words.offsets)
    firsts = words.offsets[:-1]
    total = len(words.hashes)
    hashes = np.zeros(total, np.uint64)
    hashes[: max(total - n + 1, 0)] = runs(words.hashes, n)
    is_kept = np.ones(total, np.bool_)
    for back in range(1, n):
        long_enough = counts >= back
        is_kept[words.offsets[1:][long_enough] - back] = False
        short = firsts[counts == back]
        hashes[short] = run_at(words.hashes, short, back)
    short = firsts[(counts > 0) & (counts < n)]
    is_kept[short] = True
    gram_counts = np.where(counts >= n, counts - n + 1, counts > 0)
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(gram_counts)))
    return Grams(_mix(hashes[is_kept]), offsets)


def runs(hashes: Hashes, n: int) -> Hashes:
    """A number of each ``n`` (or fewer than that: of none) neighbours: a polynomial, put together
    from those of half as many."""
    if len(hashes) < n:
        return hashes[:0]
    result, size = hashes, 1
    for digit in f"{n:b}"[1:]:
        power = np.uint64(pow(int(MULTIPLIER), size, 2**64))
        result = result[: len(result) - size] * power + result[size:]
        size *= 2
        if digit == "1":
            result = result[:-1] * MULTIPLIER + hashes[size : size + len(result) - 1]
            size += 1
    return result


def run_at(hashes: Hashes, firsts: Offsets, n: int) -> Hashes:
    """The numbers that `runs` gives to the runs of ``n`` at some places alone."""
    result = np.zeros(len(firsts), np.uint64)
    for step in range(n):
        result = result * MULTIPLIER + hashes[firsts + step]
    return result


# ----------------------------------------------------------------------------------- characters


@cache
def _ascii_classes() -> NDArray[np.uint8]:
    """The class of each byte below 128; the others are set by character."""
    classes = np.zeros(256, np.uint8)
    for byte in range(128):
        classes[byte] = SPACED if chr(byte).isalnum() or chr(byte) == "_" else NONE
    return classes


@cache
def _tables() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The class of each code point; and its small letter, 0 if it is none that has another, -1 if
    that has another length in UTF-8."""
    classes = np.zeros(LAST_CHARACTER + 1, np.uint8)
    lower = np.zeros(LAST_CHARACTER + 1, np.int32)
    resized = _resized_lower()
    for point in range(128, LAST_CHARACTER):
        character = chr(point)
        category = unicodedata.category(character)
        # No enclosing marks and variation selectors: they are parts of emoji.
        if category[0] in "LN" or category in ("Mn", "Mc", "Pc"):
            classes[point] = SPACED
        small = character.lower()
        if small != character:
            lower[point] = -1 if character in resized else ord(small)
    for first, last in UNSPACED:
        block = classes[first : last + 1]
        for index in np.flatnonzero(block).tolist():
            is_mark = unicodedata.category(chr(first + index))[0] == "M"
            block[index] = FURTHER if is_mark else ALONE
    classes[0xFE00:0xFE10] = NONE  # variation selectors
    lower[ord("ς")] = ord("σ")  # whichever the place in the word
    return classes, lower


@cache
def _resized_lower() -> dict[str, str]:
    characters = map(chr, (*range(128, 0xD800), *range(0xE000, LAST_CHARACTER)))
    pairs = {character: character.lower() for character in characters}
    return {
        character: small
        for character, small in pairs.items()
        if len(small.encode()) != len(character.encode())
    }
