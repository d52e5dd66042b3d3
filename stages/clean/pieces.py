"""Long documents cut between paragraphs, or else lines, sentences or words."""

import re

BREAKS = tuple(
    map(
        re.compile,
        (
            r"\n[ \t]*\n+",
            r"\n",
            r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？；])[”’」』）]*",
            r"\s+",
        ),
    )
)
"""Where a text is cut, the best first; Chinese and Japanese sentences end without a space."""


def pieces(text: str, limit: int) -> list[str]:
    """The text in pieces of at most ``limit`` characters, each as long as the breaks allow. Only
    white space around the cuts is lost; a fenced block of code is not cut where it fits."""
    left, found = text.strip(), []
    while len(left) > limit:
        end = _cut(left, limit)
        found.append(left[:end].rstrip())
        left = left[end:].lstrip()
    return [*found, left] if left or not found else found


def _cut(text: str, limit: int) -> int:
    """Where the next piece ends: at the last break of the best kind in its second half."""
    for pattern in BREAKS:
        ends = [
            match.end()
            for match in pattern.finditer(text, limit // 2, limit + 1)
            if len(text[: match.end()].rstrip()) <= limit
        ]
        outside = [end for end in ends if text.count("```", 0, end) % 2 == 0]
        if outside or (ends and pattern is not BREAKS[0]):
            return (outside or ends)[-1]
    return limit
