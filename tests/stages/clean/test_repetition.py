"""How much a text repeats itself."""

import numpy as np
import polars as pl
import pytest

from stages.clean import repetition
from stages.clean.repetition import repeated_lines, repeated_ngrams, take, top_ngram
from stages.core.words import words


def of(function, *texts):
    return function(words(pl.Series(texts, dtype=pl.String))).tolist()


def test_lines_that_come_again():
    lines = pl.DataFrame(
        {
            "text": [0, 0, 0, 1, 1, 3],
            "line": ["one", "two", "one", "one", "five", "x"],
            "length": [3, 3, 3, 3, 4, 1],
        }
    )
    shares = repeated_lines(lines, np.array([11, 8, 0, 1]))
    assert shares.tolist() == pytest.approx([3 / 11, 0, 0, 0])


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("a b a b a b c", 4 / 7),  # "a b" comes twice again
        ("one two three four", 0),
        ("one two. One two!", 2 / 4),  # neither case nor punctuation matters
        ("buy now today " * 4, 9 / 12),  # "buy now today" three times again
        ("点击这里" * 5, 16 / 20),
        ("ha " * 50, 1),
        ("word", 0),
        ("", 0),
    ],
)
def test_the_commonest_short_ngram(text, share):
    assert of(top_ngram, text) == pytest.approx([share])


def ngrams_of_words(counted):
    return repeated_ngrams(counted, np.zeros(len(counted.characters), np.bool_))


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("a b c d e f g a b c d e f", 6 / 13),
        ("a b c d e f g a b c d e x", 0),  # five words
        ("a b c d e f g " * 3, 14 / 21),
        ("a b", 0),
        ("", 0),
    ],
)
def test_words_in_long_ngrams_that_come_again(text, share):
    assert of(ngrams_of_words, text) == pytest.approx([share])


def test_of_characters_twelve_make_a_long_ngram():
    texts = ["天地玄黄宇宙洪荒" * 2, "天地玄黄宇宙洪荒日月盈昃" * 2, "a b c d e f g " * 2]
    counted = words(pl.Series(texts))
    shares = repeated_ngrams(counted, np.array([True, True, False]))
    assert shares.tolist() == pytest.approx([0, 12 / 24, 7 / 14])
    assert ngrams_of_words(counted).tolist() == pytest.approx([8 / 16, 12 / 24, 7 / 14])


def test_texts_do_not_see_each_other(monkeypatch):
    texts = [
        "a b c d e f g",
        "a b c d e f g",
        "",
        "x y x y x y",
        "!",
        "a b c d e f g a b c d e f g",
    ]
    for function, expected in ((top_ngram, [0, 0, 0, 4 / 6, 0]), (ngrams_of_words, [0] * 5)):
        together = of(function, *texts)
        assert together[:5] == pytest.approx(expected)
        assert together == [of(function, text)[0] for text in texts]
        assert of(function, *reversed(texts)) == together[::-1]
        monkeypatch.setattr(repetition, "CHUNK_WORDS", 3)
        assert of(function, *texts) == together
        monkeypatch.undo()
    assert of(top_ngram) == []


def test_taking_some_texts():
    some = take(words(pl.Series(["a b", "", "c", "d e f"])), np.array([3, 1, 0]))
    again = words(pl.Series(["d e f", "", "a b"]))
    assert some.hashes.tolist() == again.hashes.tolist()
    assert some.offsets.tolist() == again.offsets.tolist()
    assert some.characters.tolist() == again.characters.tolist()
