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
CODINGS = ("Transfer-Encoding", "Content-Encoding")
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
        for number, item in enumerate(ArchiveIterator(end, auto_decode="all"), 1):
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
    content = item.reader.read(MAX_RECORD_BYTES + 1)
    headers = item.http_headers
    is_encoded = headers is not None and any(headers.get(name) for name in CODINGS)
    if not is_encoded and len(content) < min(item.content_length, MAX_RECORD_BYTES + 1):
        raise BrokenFileError(number, INCOMPLETE)
    url = (item.headers.get("WARC-Target-URI") or "").strip("<> ")
    if item.record_type == WarcRecordType.conversion:
        return _extracted(number, content, url)
    if headers is None or headers.status_code != 200:
        return None
    if (item.http_content_type or "").lower() not in HTML_TYPES or not content.strip():
        return None
    return page_record(number, content, item.http_charset, url)


def _extracted(number: int, content: bytes, url: str) -> Record | None:
    if len(content) > MAX_RECORD_BYTES:
        return Record(number, None, TOO_LARGE, url)
    # Bytes that are no UTF-8 become lone surrogates, which the row types refuse.
    text = content.decode("utf-8", "surrogateescape").strip()
    return Record(number, {"text": text, "source": url}) if text else None
