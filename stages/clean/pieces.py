"""Long documents cut between paragraphs, or else lines, sentences or words."""

import re
from bisect import bisect_left

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

WHITE_SPACE = re.compile(r"\s*")
FENCE = re.compile("```")


def pieces(text: str, limit: int) -> list[str]:
    """The text in pieces of at most ``limit`` characters, each as long as the breaks allow. Only
    white space around the cuts is lost; a fenced block of code is not cut where it fits."""
    text, found, start = text.strip(), list[str](), 0
    while len(text) - start > limit:
        window = text[start : start + limit + 1]
        end = _cut(window)
        found.append(window[:end].rstrip())
        after = WHITE_SPACE.match(text, start + end)
        assert after is not None
        start = after.end()
    return [*found, text[start:]]


def _cut(window: str) -> int:
    """Where a piece ends that is one character shorter than the window: at the last break of the
    best kind in its second half."""
    limit = len(window) - 1
    fences = [match.start() for match in FENCE.finditer(window)]
    for pattern in BREAKS:
        # White space does not count at the end of a piece.
        ends = [
            match.end()
            for match in pattern.finditer(window, limit // 2)
            if match.end() <= limit or window[limit].isspace()
        ]
        outside = (end for end in reversed(ends) if bisect_left(fences, end) % 2 == 0)
        last = next(outside, None)
        if last is None and ends and pattern is not BREAKS[0]:
            last = ends[-1]
        if last is not None:
            return last
    return limit
