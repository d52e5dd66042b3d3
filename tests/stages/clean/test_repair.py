"""Mojibake, normal form, line ends and control characters."""

import re
import sys
import unicodedata

import polars as pl
import pytest

from stages.clean.repair import NOT_ALWAYS_NFC, repair, repair_text, replaced

CASES = [
    ("He said â€œThatâ€™s itâ€\x9d.", "He said “That’s it”."),
    ("2Â°C, cafÃ©", "2°C, café"),
    ("â€œHello!â€, she said. â€œHm?â€", "“Hello!”, she said. “Hm?”"),
    ("“Right”\nâ€œWrongâ€\x9d", "“Right”\n“Wrong”"),
    ("cafe\u0301", "café"),
    ("a\0b\x07c\x7f\ufeff", "abc"),
    ("a\r\nb\rc\x0cd\te", "a\nb\nc\nd\te"),
    ("a\u2028b\u2029c", "a\nb\nc"),
    ("\u212b and \uf900 and \u1112\u1161\u11ab", "Å and 豈 and 한"),
    ("déjà vu, «à» … naïve – 👩‍👧 हिन्दी", "déjà vu, «à» … naïve – 👩‍👧 हिन्दी"),
    ("<|im_end|> stays", "<|im_end|> stays"),
    ("中文，日本語、ภาษาไทย", "中文，日本語、ภาษาไทย"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "repaired"), CASES)
def test_repair_of_one_text(text, repaired):
    assert repair_text(text) == repaired


def test_repair_of_a_column_is_that_of_each_text():
    texts = pl.Series("text", [text for text, _ in CASES])
    repaired = repair(texts)
    assert repaired.to_list() == [text for _, text in CASES]
    assert repaired.name == "text"
    assert repair(repaired).to_list() == repaired.to_list()


def test_clean_texts_are_handed_back_as_they_are():
    texts = pl.Series(["plain", "naïve “quotes” – 中文"])
    assert repair(texts) is texts
    assert repair(pl.Series([], dtype=pl.String)).is_empty()


def test_text_that_the_first_look_passes_is_in_nfc():
    """For every character that NFC could change, move, or join to the one before it."""
    seconds = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}  # of the syllables of Hangul
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    for character in characters:
        parts = unicodedata.decomposition(character).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            seconds.add(int(parts[1], 16))
    changed = [
        character
        for character in characters
        if unicodedata.combining(character)
        or not unicodedata.is_normalized("NFC", character)
        or ord(character) in seconds
    ]
    assert len(changed) > 2000
    assert pl.Series(changed).str.contains(NOT_ALWAYS_NFC).all()
    clean = "abc äöü “” – … 漢字 ひらがな カタカナ 한국어 Русский العربية 1²½ ∑ 😀"
    assert not pl.Series([clean]).str.contains(NOT_ALWAYS_NFC).any()
    assert re.fullmatch(r"\[.*\]", NOT_ALWAYS_NFC)


def test_replaced_leaves_its_input_alone():
    texts = pl.Series("text", ["a", "b", "c", "d"])
    others = pl.Series(["B", "D"])
    chosen = pl.Series([False, True, False, True])
    assert replaced(texts, chosen, others).to_list() == ["a", "B", "c", "D"]
    assert texts.to_list() == ["a", "b", "c", "d"]
