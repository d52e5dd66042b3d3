"""Which documents are not worth training on: rules on their prose, each with its score and limit.

From C4 (Raffel et al. 2020, arXiv:1910.10683), Gopher's MassiveText (Rae et al. 2021,
arXiv:2112.11446) and FineWeb (Penedo et al. 2024, arXiv:2406.17557). Those were made for web pages
in English. Here code, tables and formulas are no part of what is counted, punctuation makes no
words, scripts without spaces are counted by their characters, and a share is of the whole text: so
a manual, a README or a page in Chinese stays. C4's rule against curly brackets is not taken.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.clean.characters import CharacterCounts, count_characters
from stages.clean.function_words import known_word_shares
from stages.clean.prose import ADDRESS, prose
from stages.clean.repetition import repeated_lines, repeated_ngrams, top_ngram
from stages.core.config.data import QualityLimits
from stages.core.words import Words, words

MIN_LINES = 10
"""Of fewer lines no share is judged."""
MIN_WORDS = 20
"""Of fewer words one cannot say that none joins others."""
SHORT_LINE_BYTES = 30
"""FineWeb's 30 characters; 10 in Chinese, Japanese and Thai, of which each takes three bytes."""
MAX_UNSPACED_SHARE = 0.2
"""Of letters; where more are of scripts without spaces, the length of words says nothing."""
BULLET = r"^(?:[-*+•●○▪■□◦‣⁃·–—]|\d+[.)])\s+"
PUNCTUATED = r"[.!?…:;,–—。！？；：，、।॥؟،؛۔։።៕။-][\p{Pe}\p{Pf}\p{Pi}\"'*_`]*$"
ELLIPSIS = r"(?:\.\.\.|…)$"

Scores = NDArray[np.floating]


class Rule(NamedTuple):
    """Why a document can be removed."""

    name: str
    """Also that of the column of scores."""
    limit: str
    """The field of `QualityLimits` above which (``min_…``: below which) a score must not be."""
    reason: str
    source: str
    """Whose rule it is, and what we changed."""

    def default(self) -> float:
        """The limit unless the configuration says otherwise."""
        return float(QualityLimits.model_fields[self.limit].default)

    def is_broken(self, limit: float) -> pl.Expr:
        """By a text, of which a score that is null or at the limit breaks no rule."""
        score = pl.col(self.name)
        broken = score < limit if self.limit.startswith("min_") else score > limit
        return broken.fill_null(False)


RULES = (
    Rule("too_short", "min_characters", "fewer characters than a paragraph has", "C4: 5 sentences"),
    Rule(
        "symbol_share",
        "max_symbol_share",
        "mostly signs that are neither letters, digits nor spaces",
        "Gopher: signs per word",
    ),
    Rule("digit_share", "max_digit_share", "mostly numbers", "RefinedWeb: lines of digits"),
    Rule(
        "broken_characters",
        "max_broken_character_share",
        "characters lost in a wrong encoding",
        "ours",
    ),
    Rule("character_runs", "max_character_run_share", "one letter again and again", "ours"),
    Rule("encoded_data", "max_encoded_share", "base64 or hexadecimal data", "ours"),
    Rule("addresses", "max_address_share", "a list of links", "ours"),
    Rule(
        "mean_word_length",
        "max_mean_word_length",
        "words longer than those of any language",
        "Gopher: 3 to 10, of tokens; short ones can be formulas",
    ),
    Rule(
        "placeholder_text",
        "max_placeholder_share",
        "lorem ipsum",
        "C4: any; an article about it stays here",
    ),
    Rule(
        "function_words",
        "min_function_word_share",
        "no sentences: none of the words that join others",
        "Gopher: two of 8 English words; 38 languages here, by their share",
    ),
    Rule("bullet_lines", "max_bullet_line_share", "a list of links or titles", "Gopher"),
    Rule("ellipsis_lines", "max_ellipsis_line_share", "lines cut off", "Gopher"),
    Rule(
        "short_lines",
        "max_short_line_share",
        "a menu: short lines that end without punctuation",
        "FineWeb: two rules, of which one alone also removes verse and broken lines",
    ),
    Rule(
        "repeated_lines", "max_repeated_line_share", "the same lines again", "Gopher, by characters"
    ),
    Rule(
        "top_ngram",
        "max_top_ngram_share",
        "one phrase again and again",
        "Gopher, 2 to 4 words; what comes again, not what comes first",
    ),
    Rule(
        "repeated_ngrams",
        "max_repeated_ngram_share",
        "whole sentences again",
        "Gopher, 5 to 10 words: 6 here, which the longer ones hold, or 12 characters",
    ),
)
"""In the order in which they are applied and reported: a text is removed by the first it breaks."""


def scores(
    texts: pl.Series, text_words: Words, languages: pl.DataFrame | None = None
) -> pl.DataFrame:
    """What the rules judge: a float32 column of each rule's name, null where it does not apply.

    Args:
        texts: without nulls.
        text_words: their words (see `stages.core.words`).
        languages: their languages (see `stages.clean.language`); without them, function words are
            not looked for.
    """
    bare = prose(texts)
    is_other = bare != texts
    counts = count_characters(bare)
    total = texts.str.len_chars().to_numpy().astype(np.int64)
    columns = _by_characters(counts, total)
    columns["too_short"] = texts.str.strip_chars().str.len_chars().to_numpy()
    columns["addresses"] = _address_lengths(texts) / np.maximum(total, 1)
    columns |= _by_lines(bare, texts, is_other, total)
    is_unspaced = counts.unspaced > counts.letters
    columns |= _by_words(bare, is_other.to_numpy(), text_words, languages, is_unspaced)
    return pl.DataFrame(
        [
            pl.Series(rule.name, np.asarray(columns[rule.name], np.float32)).fill_nan(None)
            for rule in RULES
        ]
    )


def faults(
    text_scores: pl.DataFrame, limits: QualityLimits, skip: Iterable[str] = ()
) -> pl.DataFrame:
    """The first rule that each text breaks, and its score: ``rule`` and ``score``, or nulls.

    Args:
        text_scores: from `scores`.
        skip: names of rules that are not applied.
    """
    applied = [rule for rule in RULES if rule.name not in set(skip)]
    broken = [(rule, rule.is_broken(getattr(limits, rule.limit))) for rule in applied]
    names = [pl.when(is_broken).then(pl.lit(rule.name)) for rule, is_broken in broken]
    values = [pl.when(is_broken).then(pl.col(rule.name)) for rule, is_broken in broken]
    return text_scores.with_columns(
        rule=pl.coalesce(*names, pl.lit(None, pl.String)),
        score=pl.coalesce(*values, pl.lit(None, pl.Float32)),
    ).select("rule", "score")


def _by_characters(counts: CharacterCounts, total: NDArray[np.int64]) -> dict[str, Scores]:
    spaced = counts.letters + counts.digits
    lengths = spaced / np.maximum(counts.words, 1)
    is_spaced = counts.unspaced <= MAX_UNSPACED_SHARE * (spaced + counts.unspaced)
    return {
        "symbol_share": counts.symbols / np.maximum(total, 1),
        "digit_share": counts.digits / np.maximum(total, 1),
        "broken_characters": counts.broken / np.maximum(total, 1),
        "character_runs": counts.in_runs / np.maximum(total, 1),
        "encoded_data": counts.in_blobs / np.maximum(total, 1),
        "mean_word_length": np.where(is_spaced & (counts.words > 0), lengths, np.nan),
    }


def _address_lengths(texts: pl.Series) -> NDArray[np.int64]:
    lengths = np.zeros(len(texts), np.int64)
    some = texts.str.contains("://", literal=True).arg_true().to_numpy()
    if len(some):
        found = texts.gather(some).str.extract_all(ADDRESS)
        lengths[some] = found.list.eval(pl.element().str.len_chars()).list.sum().to_numpy()
    return lengths


def _by_lines(
    bare: pl.Series, texts: pl.Series, is_other: pl.Series, total: NDArray[np.int64]
) -> dict[str, Scores]:
    lines = _lines(bare)
    numbers = lines["text"].to_numpy()
    # A share is of the whole text's lines, those with code and tables as well.
    filled = np.bincount(numbers, minlength=len(texts))
    others = np.flatnonzero(is_other.to_numpy())
    if len(others):
        filled[others] = texts.gather(others).str.count_matches(r"(?m)^.*\S").to_numpy()
    line = pl.col("line")
    item = line.str.replace(BULLET, "")
    found = lines.select(
        bullet_lines=line.str.contains(BULLET),
        ellipsis_lines=line.str.contains(ELLIPSIS),
        short_lines=(item.str.len_bytes() < SHORT_LINE_BYTES) & ~item.str.contains(PUNCTUATED),
    )
    columns: dict[str, Scores] = {
        name: np.where(
            filled >= MIN_LINES,
            np.bincount(numbers, found[name], len(texts)) / np.maximum(filled, 1),
            np.nan,
        )
        for name in found.columns
    }
    columns["repeated_lines"] = repeated_lines(lines, total)
    return columns


def _lines(texts: pl.Series) -> pl.DataFrame:
    """The lines of each text that are not blank, without white space around them."""
    split = texts.str.split("\n")
    numbers = np.repeat(np.arange(len(texts)), split.list.len().to_numpy())
    lines = pl.DataFrame({"text": numbers, "line": split.explode().str.strip_chars()})
    return lines.filter(pl.col("line") != "").with_columns(length=pl.col("line").str.len_chars())


def _by_words(
    bare: pl.Series,
    is_other: NDArray[np.bool_],
    text_words: Words,
    languages: pl.DataFrame | None,
    is_unspaced: NDArray[np.bool_],
) -> dict[str, Scores]:
    totals = np.diff(text_words.offsets)
    columns = _of_words(text_words, languages, is_unspaced)
    others = np.flatnonzero(is_other)
    if len(others):
        prose_words = words(bare.gather(others))
        share = np.diff(prose_words.offsets) / np.maximum(totals[others], 1)
        spoken = None if languages is None else languages[others]
        for name, values in _of_words(prose_words, spoken, is_unspaced[others]).items():
            # Repetitions are a share of the whole text's words, the others of its prose.
            columns[name][others] = values * share if name in REPETITIONS else values
    return columns


REPETITIONS = ("top_ngram", "repeated_ngrams")


def _of_words(
    text_words: Words, languages: pl.DataFrame | None, is_unspaced: NDArray[np.bool_]
) -> dict[str, Scores]:
    function, lorem = known_word_shares(text_words, languages)
    counts = np.diff(text_words.offsets)
    return {
        "function_words": np.where(counts >= MIN_WORDS, function, np.nan),
        "placeholder_text": lorem,
        "top_ngram": top_ngram(text_words),
        "repeated_ngrams": repeated_ngrams(text_words, is_unspaced),
    }
