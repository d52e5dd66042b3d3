"""Records of plain text and Markdown: documents."""

import io
from collections.abc import Iterator

from stages.core.sources.records import HEAD_CHARACTERS, Record

DOCUMENT_CHARACTERS = 20_000
READ_CHARACTERS = 1_000_000


def text_records(stream: io.BufferedReader) -> Iterator[Record]:
    """One document a file; longer ones are cut between paragraphs, or else lines, or words."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")
    number, buffer = 1, ""
    while piece := text.read(READ_CHARACTERS):
        buffer += piece
        at = 0
        while len(buffer) - at > DOCUMENT_CHARACTERS:
            end = _cut(buffer, at)
            yield from _record(number, buffer[at:end])
            number += buffer.count("\n", at, end)
            at = end
        buffer = buffer[at:]
    yield from _record(number, buffer)


def _cut(text: str, start: int) -> int:
    end = start + DOCUMENT_CHARACTERS
    for separator in ("\n\n", "\n", " "):
        at = text.rfind(separator, start + DOCUMENT_CHARACTERS // 2, end)
        if at >= 0:
            return at + len(separator)
    return end


def _record(number: int, text: str) -> Iterator[Record]:
    if text.count("\0") > len(text) / 10:
        yield Record(number, None, "mostly NUL bytes: binary or UTF-16", text[:HEAD_CHARACTERS])
    elif text.strip():
        first = len(text) - len(text.lstrip())
        yield Record(number + text.count("\n", 0, first), {"text": text.strip()})
