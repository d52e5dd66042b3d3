"""Text as its author meant it: mojibake, Unicode's normal form, line ends, control characters.

Each step looks first, with a regular expression in Rust, which texts it concerns; Python touches
those alone. Clean text is read once and copied never.
"""

import re
import unicodedata

import ftfy
import polars as pl

# What the bytes of UTF-8 look like when read as Windows-1252 or Latin-1: a lead byte (Â to ô), then
# a continuation byte; and the control characters that either leaves behind.
MOJIBAKE = re.compile(
    "[\u00c2-\u00f4][\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160"
    "\u2039\u0152\u017d\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153"
    "\u017e\u0178]|[\u0080-\u009f]"
)
LINE_BREAK = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# C0 and C1 controls but tab and line feed; byte order marks; noncharacters.
UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")

# Every character that NFC changes, moves or joins to the one before it, with a few of their
# neighbours: marks, vowels and final consonants of Hangul, and those that Unicode has twice.
NOT_ALWAYS_NFC = (
    r"[\p{M}\u0374\u037e\u0387\u0958-\u095f\u09dc-\u09df\u0a33-\u0a5e\u0b5c\u0b5d\u0f43-\u0f69"
    r"\u1161-\u1175\u11a8-\u11c2\u1f70-\u1fff\u2000\u2001\u2126\u212a\u212b\u2329\u232a\u2adc"
    r"\uf900-\ufaff\ufb1d-\ufb4e\U0001d15e-\U0001d1c0\U0002f800-\U0002fa1d]"
)
SUSPECT = "|".join((MOJIBAKE.pattern, LINE_BREAK.pattern, UNWANTED.pattern, NOT_ALWAYS_NFC))


def repair(texts: pl.Series) -> pl.Series:
    """The texts with mojibake mended, in NFC, with LF line ends and without control characters."""
    suspect = texts.str.contains(SUSPECT)
    if not suspect.any():
        return texts
    mended = texts.filter(suspect).map_elements(repair_text, return_dtype=pl.String)
    return replaced(texts, suspect, mended)


def repair_text(text: str) -> str:
    """The same for one text."""
    if not text.isascii():
        if MOJIBAKE.search(text):  # ftfy alone reads 5 MB/s
            # By the line, since ftfy leaves alone a text that also has characters set rightly.
            text = "\n".join(map(_mend_line, text.split("\n")))
            # A closing quotation mark of which Windows-1252 lost the third byte, 9D.
            text = text.replace("\u00e2\u20ac", "\u201d")
        text = unicodedata.normalize("NFC", text)
    elif text.isprintable():
        return text
    return UNWANTED.sub("", LINE_BREAK.sub("\n", text))


def _mend_line(line: str) -> str:
    return ftfy.fix_encoding(line) if MOJIBAKE.search(line) else line


def replaced(texts: pl.Series, chosen: pl.Series, others: pl.Series) -> pl.Series:
    """The texts with the ``chosen`` ones (booleans) taken, in order, from ``others``."""
    place = chosen.cum_sum() + (len(texts) - 1)
    place = place.zip_with(chosen, pl.int_range(len(texts), dtype=place.dtype, eager=True))
    return pl.concat([texts, others]).gather(place).alias(texts.name)
