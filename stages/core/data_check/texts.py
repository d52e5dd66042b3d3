"""Faults in the texts of records: special tokens, NUL characters, mojibake."""

import re
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

import polars as pl

from stages.core.data_check.findings import EXAMPLES, excerpt

USUAL_SPECIAL_TOKENS = (
    r"<\|[A-Za-z0-9_.:/-]{1,40}\|>"
    r"|<｜[^｜<>]{1,40}｜>"
    r"|\[/?INST\]|<</?SYS>>"
    r"|<(?:start|end)_of_turn>"
    r"|</?s>|<(?:bos|eos|pad|unk|mask)>"
    r"|\[(?:CLS|SEP|PAD|UNK|MASK)\]"
)
"""Of ChatML, Llama 2 and 3, DeepSeek, Gemma, SentencePiece's models and BERT."""
MOJIBAKE = (
    "Ã[\u0080-\u00bf©¨¼¶¤Ÿ±§ª«¢¡³º\u00ad]|â€[™œ\u009d\u0099\u009c“”˜¦]|â\u0080[\u0090-\u00a6]"
    "|Â[\u00a0©®°»«·]|ï¿½|\ufffd"
)
"""UTF-8 that was read as Latin-1 or Windows-1252, and the replacement character."""


REPLIES = ("completion", "chosen", "rejected")


class Hit(NamedTuple):
    """A fault in the texts of some records."""

    code: str
    num_records: int
    """Records with it in any field."""
    examples: list[tuple[int, str]]
    """Lines and excerpts."""
    found: Counter[str]
    """In which fields, and which special tokens: in how many records each."""


def special_token_pattern(tokens: Collection[str]) -> str:
    """The usual special tokens, and these of a tokenizer."""
    longest_first = sorted((token for token in tokens if token.strip()), key=len, reverse=True)
    return "|".join([*map(re.escape, longest_first), USUAL_SPECIAL_TOKENS])


def text_hits(rows: pl.DataFrame, fields: Collection[str], pattern: str) -> list[Hit]:
    """What is wrong in the texts of a batch; ``pattern``: of special tokens."""
    faulty: dict[str, list[tuple[str, pl.DataFrame, str]]] = {}
    for name in fields:
        texts = rows.select("line", pl.col(name).alias("text"))
        faulty.setdefault("nul", []).append((name, _containing(texts, "\\x00"), "\\x00"))
        faulty.setdefault("mojibake", []).append((name, _containing(texts, MOJIBAKE), MOJIBAKE))
        found = _containing(texts, pattern)
        if found.height and name in REPLIES:
            at_end = rf"(?:{pattern})\s*\z"
            ends = _containing(found, at_end)
            faulty.setdefault("special-token-end", []).append((name, ends, at_end))
            without_end = found.with_columns(pl.col("text").str.replace(at_end, ""))
            found = _containing(without_end, pattern)
        faulty.setdefault("special-token", []).append((name, found, pattern))
    return [
        _hit(code, with_fault)
        for code, places in faulty.items()
        if (with_fault := [place for place in places if place[1].height])
    ]


def _containing(texts: pl.DataFrame, pattern: str) -> pl.DataFrame:
    return texts.filter(pl.col("text").str.contains(pattern))


def _hit(code: str, places: list[tuple[str, pl.DataFrame, str]]) -> Hit:
    found: Counter[str] = Counter()
    examples: dict[int, str] = {}
    for name, texts, pattern in places:
        if code.startswith("special"):
            tokens = texts["text"].str.extract(f"({pattern})").str.strip_chars()
            counts = tokens.value_counts().iter_rows()
            found.update({f"{name} {token}": count for token, count in counts})
        else:
            found[name] += texts.height
        for line, text in texts.head(EXAMPLES).iter_rows():
            at = re.search(pattern.replace(r"\z", r"\Z"), text)
            examples.setdefault(line, excerpt(text, at.start() if at else 0))
    lines = pl.concat([texts["line"] for _, texts, _ in places])
    return Hit(code, lines.n_unique(), sorted(examples.items())[:EXAMPLES], found)
