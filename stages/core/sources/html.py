"""The main text of web pages: without menus, headers, footers and scripts."""

import io
import re
from collections.abc import Iterator

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from stages.core.sources.records import MAX_RECORD_BYTES, TOO_LARGE, Record, show

MAX_DEPTH = 2_000
"""Extraction takes time by the square of the depth (1 s at 8,000); real pages stay below 100."""
BLOCK_TAG = re.compile(
    r"<(/?)(?:div|section|article|main|aside|nav|ul|ol|li|dl|dd|table|tr|td|blockquote|form|center"
    r")\b",
    re.IGNORECASE,
)


def html_records(stream: io.BufferedReader) -> Iterator[Record]:
    """One document a file."""
    page = stream.read(MAX_RECORD_BYTES + 1)
    if page.strip():
        yield page_record(1, page, None, "")


def page_record(number: int, page: bytes, charset: str | None, url: str) -> Record:
    """The document in an HTML page.

    Args:
        number: its line.
        charset: the encoding that the server named; None: what the page itself says or looks like.
        url: where the page was, its ``source``; "": unknown.
    """
    head = url or show(page)
    if len(page) > MAX_RECORD_BYTES:
        return Record(number, None, TOO_LARGE, head)
    try:
        text = main_text(_decode(page, charset))
    except ValueError as error:
        return Record(number, None, str(error), head)
    if not text:
        return Record(number, None, "the page holds no main text", head)
    return Record(number, {"text": text, "source": url} if url else {"text": text})


def main_text(html: str) -> str:
    """The text of the page's main part, with its paragraphs; "" where there is none.

    Raises:
        ValueError: the page's elements are nested deeper than any real page's.
    """
    if _depth(html) > MAX_DEPTH:
        raise ValueError("nested too deeply")
    return str(extract_plain_text(html, main_content=True)).strip()


def _decode(page: bytes, charset: str | None) -> str:
    encoding = charset or detect_encoding(page, from_html_meta=True) or "utf-8"
    try:
        return str(bytes_to_str(page, encoding))
    except LookupError:  # a server may name anything
        return str(bytes_to_str(page, detect_encoding(page, from_html_meta=True) or "utf-8"))


def _depth(html: str) -> int:
    """An upper bound of how deep block elements are nested."""
    if html.count("<") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    for tag in BLOCK_TAG.finditer(html):
        depth = depth + 1 if not tag[1] else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest
