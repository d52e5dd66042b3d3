"""Records of web archives: WARC, and WET with its text already extracted.

Format: ISO 28500:2017. Of a WARC the pages that a server answered with are read (``response`` with
status 200 and HTML), of a WET the ``conversion`` records; what else an archive holds is no text.
"""

import io
from collections.abc import Iterator

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from stages.core.sources.html import page_record
from stages.core.sources.records import MAX_RECORD_BYTES, TOO_LARGE, BrokenFileError, Record

HTML_TYPES = ("text/html", "application/xhtml+xml")
ANSWER_HEAD = (
    b"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http\r\n"
    b"Content-Length: %d\r\n\r\n"
)
INCOMPLETE = "the archive ends within a record"


class _Tail(io.RawIOBase):
    """A stream that knows its position and the last two bytes read from it."""

    def __init__(self, stream: io.BufferedReader) -> None:
        super().__init__()
        self._stream = stream
        self._position = 0
        self.tail = b""

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self._position += len(content)
        self.tail = (self.tail + content[-2:])[-2:]
        return content


def warc_records(stream: io.BufferedReader) -> Iterator[Record]:
    """The texts of an archive; ``line`` is the number of the record in it, ``source`` its address.

    Raises:
        BrokenFileError: the archive ends within a record.
        OSError: what follows is no record of an archive.
    """
    end = _Tail(stream)
    number, held = 0, None
    try:
        for number, item in enumerate(ArchiveIterator(end, parse_http=False), 1):
            if held is not None:
                yield held
            held = _read(number, item)
    except OSError:
        if held is not None:
            yield held
        raise
    # Where the length of a record is no proof, its end is: each is followed by empty lines.
    if number and end.tail not in (b"\r\n", b"\n\n"):
        raise BrokenFileError(number, INCOMPLETE)
    if held is not None:
        yield held


def _read(number: int, item: WarcRecord) -> Record | None:
    """The document in one record of the archive, None where it holds none.

    Raises:
        BrokenFileError: less of the content is there than the record's header says.
    """
    if item.record_type not in (WarcRecordType.response, WarcRecordType.conversion):
        return None
    block = item.reader.read(MAX_RECORD_BYTES + 1)
    if len(block) < min(item.content_length, MAX_RECORD_BYTES + 1):
        raise BrokenFileError(number, INCOMPLETE)
    url = (item.headers.get("WARC-Target-URI") or "").strip("<> ")
    if item.record_type == WarcRecordType.conversion:
        return _extracted(number, block, url)
    # The standard only asks for a type; what but HTTP answers a crawler?
    content_type = item.headers.get("Content-Type") or "application/http"
    return _answer(number, block, url) if "http" in content_type else None


def _extracted(number: int, content: bytes, url: str) -> Record | None:
    if len(content) > MAX_RECORD_BYTES:
        return Record(number, None, TOO_LARGE, url)
    # Bytes that are no UTF-8 become lone surrogates, which the row types refuse.
    text = content.decode("utf-8", "surrogateescape").strip()
    return Record(number, {"text": text, "source": url}) if text else None


def _answer(number: int, block: bytes, url: str) -> Record | None:
    """The page in a server's answer. It is parsed as an archive of its own: an answer that cannot
    be decoded would end the iteration over all others."""
    alone = io.BytesIO(ANSWER_HEAD % len(block) + block + b"\r\n\r\n")
    try:
        item = next(ArchiveIterator(alone, auto_decode="all"), None)
        if item is None:
            return None
        is_page = (item.http_content_type or "").lower() in HTML_TYPES
        if item.http_headers is None or item.http_headers.status_code != 200 or not is_page:
            return None
        if len(block) > MAX_RECORD_BYTES:
            return Record(number, None, TOO_LARGE, url)
        page = item.reader.read(MAX_RECORD_BYTES + 1)
    except (OSError, ValueError):
        return Record(number, None, "the answer's header or encoding is broken", url)
    return page_record(number, page, item.http_charset, url) if page.strip() else None
