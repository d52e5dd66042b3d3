"""What every recogniser of personal data is made of."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

LETTERS = r"A-Za-z_\u00c0-\u1fff"
"""For character classes: the letters of scripts that put spaces between words. Python's ``\\w`` and
``\\b`` would take 电话13812345678 for one word."""
WORD = rf"0-9{LETTERS}"
NEAR_CHARACTERS = 60
"""How far before a number the word may stand that says what the number is."""
AFTER_CHARACTERS = 24

Span = tuple[int, int]
"""Start and end in a line."""


class Recogniser(NamedTuple):
    """Finds one kind of personal data in a line of text."""

    kind: str
    gate: str
    """Without a match of this expression a line holds none. In the syntax that Python shares with
    Rust's ``regex``, by which Polars searches columns: no lookarounds, ASCII classes."""
    spans: Callable[[str], Iterator[Span]]
    """Where the line holds some, from left to right, none overlapping."""


def surroundings(line: str, start: int, end: int) -> str:
    """What stands near a place in the line, where a word may say what a number is."""
    return f"{line[max(0, start - NEAR_CHARACTERS) : start]}\n{line[end : end + AFTER_CHARACTERS]}"


def one_of(*words: str) -> re.Pattern[str]:
    """Any of some words, in either case: whole words, but in Chinese, which does not part them."""
    whole = "|".join(word for word in words if word.isascii() or word[0] < "\u2000")
    parts = "|".join(word for word in words if not word.isascii() and word[0] >= "\u2000")
    either = rf"(?<![{LETTERS}])(?:{whole})(?![{LETTERS}])" + (f"|{parts}" if parts else "")
    return re.compile(either, re.IGNORECASE)


def without_overlaps(spans: list[Span]) -> Iterator[Span]:
    """The spans from left to right, without those that begin in an earlier one."""
    last = 0
    for start, end in sorted(spans):
        if start >= last:
            yield start, end
            last = end
