"""Words and n-grams as hashes."""

import random
import unicodedata

import numpy as np
import polars as pl
import pytest

from stages.core import words as words_module
from stages.core.words import ngrams, words

UNSPACED_NAMES = ("CJK ", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "HALFWIDTH K")


def slow_words(text):
    """The definition, character by character."""
    found, previous = [], ""
    for character in text.replace("\ufe0f", " "):  # half of an emoji
        category = unicodedata.category(character)
        is_alone = unicodedata.name(character, "").startswith(UNSPACED_NAMES)
        is_word = category[0] in "LN" or category in ("Mn", "Mc", "Pc")
        kind = "alone" if is_word and is_alone else "spaced" if is_word else ""
        is_mark = category[0] == "M"
        goes_on = is_mark if kind == "alone" else kind == previous
        if kind and previous and goes_on:
            found[-1] += character.lower()
        elif kind:
            found.append(character.lower())
        previous = kind
    return found


def hashes_of(*texts):
    found = words(pl.Series(texts, dtype=pl.String))
    return [
        found.hashes[a:b].tolist()
        for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" .,;", []),
        ("word", ["word"]),
        ("Don't PANIC, snake_case x2!", ["don", "t", "panic", "snake_case", "x2"]),
        ("Größe — ÀÉÎ naïve", ["größe", "àéî", "naïve"]),
        ("漢字とカナ。abc漢1", ["漢", "字", "と", "カ", "ナ", "abc", "漢", "1"]),
        ("กินข้าว now", ["กิ", "น", "ข้", "า", "ว", "now"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("ΣΊΣΥΦΟΣ σίσυφος", ["σίσυφοσ", "σίσυφοσ"]),
        ("\u212aelvin \u212bngström", ["kelvin", "ångström"]),
        ("İstanbul", ["i\u0307stanbul"]),
        ("a❤\ufe0fb 😀", ["a", "b"]),
        ("x" * 8 + " " + "Y" * 9 + " " + "z" * 500, ["x" * 8, "y" * 9, "z" * 500]),
    ],
)
def test_words_are_the_runs_of_letters_lowered(text, expected):
    (found,) = hashes_of(text)
    assert found == [hashes_of(word)[0][0] for word in expected]
    assert len(set(found)) == len(set(expected))
    assert words(pl.Series([text])).characters.tolist() == [sum(map(len, expected))]


def test_hashes_never_change():
    """Stored signatures and indexes hold them."""
    text = "the Über 漢 internationalisation " + "Q" * 65
    assert hashes_of(text)[0] == [
        5133891804661732472,
        8337493206344921848,
        14907496596360285767,
        3904701258651218104,
        3405263903102325946,
    ]


@pytest.mark.parametrize("block_bytes", [1, 50, 1 << 18])
def test_a_text_has_the_same_words_beside_any_others(monkeypatch, block_bytes):
    monkeypatch.setattr(words_module, "BLOCK_BYTES", block_bytes)
    rng = random.Random(0)
    alphabet = "abzABZ09_ .-'éÉßñİςΣ漢かカ。กิ\u0e49\u0301\u200d\ufe0f😀\0\n"
    texts = ["".join(rng.choices(alphabet, k=rng.randrange(30))) for _ in range(300)]
    together = hashes_of(*texts)
    distinct = {}
    for text, found in zip(texts, together, strict=True):
        assert found == hashes_of(text)[0]
        expected = [word.replace("ς", "σ") for word in slow_words(text)]
        assert len(found) == len(expected), text
        for word, number in zip(expected, found, strict=True):
            assert distinct.setdefault(word, number) == number, (text, word)
    assert len(set(distinct.values())) == len(distinct)


def test_null_and_empty_texts_have_no_words():
    found = words(pl.Series([None, "a", "", None, "b c"], dtype=pl.String))
    assert found.offsets.tolist() == [0, 0, 1, 1, 1, 3]
    assert found.characters.tolist() == [0, 1, 0, 0, 2]
    nothing = words(pl.Series([], dtype=pl.String))
    assert (nothing.offsets.tolist(), len(nothing.hashes), len(nothing.characters)) == ([0], 0, 0)


def test_a_slice_of_a_column_is_read_from_where_it_begins():
    texts = pl.Series(["one two", "three", "four five"])
    assert words(texts[1:]).offsets.tolist() == [0, 1, 3]
    assert words(texts[1:]).hashes.tolist() == words(texts).hashes[2:].tolist()
    pieces = texts[:1].append(texts[1:])
    assert words(pieces).hashes.tolist() == words(texts).hashes.tolist()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13])
def test_grams_are_the_runs_of_words_within_a_text(n):
    rng = random.Random(n)
    texts = [" ".join(rng.choices("abc", k=size)) for size in (0, 1, 2, 4, 5, 13, 40, 0, 12, 14)]
    grams = ngrams(words(pl.Series(texts)), n)
    distinct = {}
    for text, first, end in zip(texts, grams.offsets[:-1], grams.offsets[1:], strict=True):
        parts = text.split()
        expected = [tuple(parts[at : at + n]) for at in range(max(len(parts) - n + 1, 0))]
        if parts and not expected:
            expected = [tuple(parts)]
        assert end - first == len(expected)
        for gram, number in zip(expected, grams.hashes[first:end].tolist(), strict=True):
            assert distinct.setdefault(gram, number) == number
    assert len(set(distinct.values())) == len(distinct)


def test_the_order_of_words_tells_grams_apart():
    grams = ngrams(words(pl.Series(["a b c", "c b a", "b a c", "A  b, c!"])), 3)
    assert len(set(grams.hashes.tolist())) == 3
    assert grams.hashes[0] == grams.hashes[3]


def test_hashes_of_many_words_do_not_collide():
    texts = pl.Series([f"{index} identifier{index} {index:x}word" for index in range(100_000)])
    found = words(texts).hashes
    expected = len({word for text in texts for word in text.split()})
    assert len(np.unique(found)) == expected
    # All bits are used, the lowest too, by which tables are addressed.
    assert len(np.unique(found & np.uint64(0xFFFF))) > 60_000
