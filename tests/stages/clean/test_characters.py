"""Counts of characters by kind."""

import unicodedata

import numpy as np
import polars as pl
import pytest

from stages.clean.characters import BLOB, RUN, count_characters, sums


def counts(text):
    return {name: int(values[0]) for name, values in zip(*_counted([text]), strict=True)}


def _counted(texts):
    found = count_characters(pl.Series(texts, dtype=pl.String))
    return found._fields, found


def test_each_kind_by_hand():
    # A b 3 … n é ! 中 文 ไ ท ย with its mark, a replacement character, and two spaces.
    found = counts("Ab3 …né! 中文ไทย้\ufffd")
    assert found == {
        "all": 16,
        "letters": 4,
        "unspaced": 6,
        "digits": 1,
        "symbols": 3,
        "broken": 1,
        "words": 2,
        "in_runs": 0,
        "in_blobs": 0,
    }


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("हिन्दी में लिखा", 0),
        ("العربيّة", 0),
        ("e\u0301", 0),
        ("a_b", 1),
        ("€5 – “no”", 4),
        ("👩‍👧", 3),
        ("½ ² ٣", 0),
    ],
)
def test_symbols_are_neither_letters_marks_digits_nor_spaces(text, symbols):
    assert counts(text)["symbols"] == symbols


def test_words_are_runs_of_letters_and_digits_in_scripts_with_spaces():
    assert counts("It’s x2—no…way, 3.5 naïve; слово-за-словом")["words"] == 11
    assert counts("房子 บ้าน いえ")["words"] == 0
    assert counts("用Python写")["words"] == 1


def test_runs_of_one_letter():
    assert RUN == 5
    assert counts("aaaa bbbbb ccccccc")["in_runs"] == 12
    assert counts("----- 00000 .....")["in_runs"] == 0
    found = count_characters(pl.Series(["xaaa", "aaay", "aaaaa", "aaaaa"]))
    assert found.in_runs.tolist() == [0, 0, 5, 5]


def test_runs_that_look_encoded():
    assert BLOB == 40
    assert counts("x " + "a1B+" * 10)["in_blobs"] == 40
    assert counts("a1B+" * 9 + "a1B ")["in_blobs"] == 0
    assert counts("0f" * 30 + "\n" + "9c" * 32 + "!")["in_blobs"] == 124
    assert counts("/usr/share/doc/package/examples/file.txt")["in_blobs"] == 0
    parts = ["a" * 30, "b" * 30, "c" * 41, "d" * 40, "e"]
    assert count_characters(pl.Series(parts)).in_blobs.tolist() == [0, 0, 41, 40, 0]


def test_broken_characters():
    assert counts("a\ufffd\ue000\u0378\U0010fffd")["broken"] == 4
    assert counts("a\U0001faf8 \u200d\ufe0f")["broken"] == 0


def test_every_character_that_is_assigned_has_the_class_of_its_category():
    points = [*range(32, 0xD800, 7), *range(0xF900, 0x2FA1D, 13)]
    texts = [chr(point) for point in points if unicodedata.category(chr(point))[0] != "C"]
    found = count_characters(pl.Series(texts))
    for row, text in enumerate(texts):
        kind = unicodedata.category(text)[0]
        assert (found.letters[row] + found.unspaced[row] == 1) == (kind in "LM"), text
        assert (found.digits[row] == 1) == (kind == "N"), text


def test_texts_do_not_see_each_other():
    texts = ["abc", "", "ééé", "aaaaa", "b" * 50, "中", " ", "x"]
    together = np.stack(_counted(texts)[1])
    alone = np.stack([np.stack(_counted([text])[1])[:, 0] for text in texts], axis=1)
    assert together.tolist() == alone.tolist()
    assert np.stack(_counted([])[1]).shape == (9, 0)


def test_sums_of_parts_with_empty_ones():
    assert sums(np.array([1, 2, 3]), np.array([0, 0, 2, 2, 3, 3])).tolist() == [0, 3, 0, 3, 0]
    assert sums(np.array([], np.uint8), np.array([0, 0])).tolist() == [0]
