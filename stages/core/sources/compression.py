"""Compressed files as streams that end where the file is damaged."""

import io
from typing import Any

import pyarrow

SKIPPED_BYTES = 2**20


class Decompressed(io.RawIOBase):
    """The content of a gzip or zstd file, also of several such files one behind the other.

    Where the compressed bytes are damaged or cut off, the stream ends behind the last byte that can
    be had, and ``fault`` says what was found. ``last_byte`` is the last one given so far.
    """

    def __init__(self, raw: io.BufferedReader, compression: str) -> None:
        super().__init__()
        self._raw, self._compression = raw, compression
        # Unlike zstandard's own reader, Arrow's notices a file that was cut off.
        self._stream = pyarrow.CompressedInputStream(raw, compression)
        self._position = 0
        self.fault = ""
        self.last_byte = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.fault:
            return 0
        try:
            content = self._stream.read(len(buffer))
        except (OSError, pyarrow.ArrowException) as error:
            self.fault = " ".join(str(error).split())[:200]
            content = self._readable_rest(len(buffer))
        buffer[: len(content)] = content
        self._position += len(content)
        self.last_byte = content[-1:] or self.last_byte
        return len(content)

    def _readable_rest(self, limit: int) -> bytes:
        """The bytes between those already read and the damage: a read that fails gives none of
        them, so the file is read again, byte by byte at the end."""
        self._raw.seek(0)
        stream = pyarrow.CompressedInputStream(self._raw, self._compression)
        to_skip = self._position
        while to_skip:
            to_skip -= len(stream.read(min(to_skip, SKIPPED_BYTES)))
        rest = bytearray()
        try:
            while len(rest) < limit:
                rest += stream.read(1)
        except (OSError, pyarrow.ArrowException):
            return bytes(rest)
        return bytes(rest)
