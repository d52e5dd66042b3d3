"""Words that join others, by language."""

import math

import polars as pl
import pytest

from stages.clean.function_words import FUNCTION_WORDS, known_word_shares
from stages.core.words import words


def shares(text, language=None, confidence=1.0):
    languages = None
    if language:
        languages = pl.DataFrame({"language": [language], "confidence": [confidence]})
    function, lorem = known_word_shares(words(pl.Series([text])), languages)
    return float(function[0]), float(lorem[0])


def test_shares_by_hand():
    assert shares("The house of the rising sun", "en")[0] == pytest.approx(3 / 6)
    assert shares("Das Haus in der Sonne, the end", "de")[0] == pytest.approx(4 / 7)
    assert shares("我的房子在山上", "zh")[0] == pytest.approx(4 / 7)
    assert shares("le of der", "fr")[0] == pytest.approx(2 / 3)  # its own and those of English
    assert shares("", "en") == (0, 0)


def test_single_letters_are_as_likely_noise():
    assert shares("a b c i", "en")[0] == 0


def test_unsure_languages_count_in_proportion():
    assert shares("le of der house", "fr", 0.25)[0] == pytest.approx(3 / 4 / 2)
    assert shares("le of der house", "und", 0.0)[0] == 0
    assert shares("le of der house", "eo", 0.25)[0] == pytest.approx(3 / 4 / 2)


def test_languages_without_a_list_are_not_judged():
    assert math.isnan(shares("la domo de la suno", "eo")[0])
    assert math.isnan(shares("the house")[0])


def test_lorem_ipsum():
    assert shares("Lorem ipsum dolor sit amet")[1] == pytest.approx(4 / 5)
    assert shares("Gallia est omnis divisa in partes tres")[1] == 0


def test_each_list_is_of_words():
    for language, text in FUNCTION_WORDS.items():
        listed = text.split()
        assert len(words(pl.Series([text])).hashes) == len(listed), language
        assert len(listed) >= 15
