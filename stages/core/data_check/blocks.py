"""A JSON Lines file as blocks of whole lines, decompressed, in bounded memory."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow

from stages.core.sources import MAX_RECORD_BYTES
from stages.core.sources.compression import Decompressed
from stages.core.sources.reading import UTF16_MARKS
from stages.core.sources.signatures import HEAD_BYTES, disguise
from stages.core.sources.suffixes import file_compression

BLOCK_BYTES = 4 << 20
PIECE_BYTES = 1 << 16
"""Read at once of a compressed file."""
BOM = b"\xef\xbb\xbf"


class Block(NamedTuple):
    """Some whole lines of a file."""

    first_line: int
    data: bytes
    """Empty where ``is_huge``."""
    is_huge: bool = False
    """The line is over ``MAX_RECORD_BYTES`` long and left out; ``head`` is its beginning."""
    head: bytes = b""


class DamagedFileError(Exception):
    """The file cannot be read further, and why; what was readable has been handed out."""


def blocks(path: Path) -> Iterator[Block]:
    """The file's lines in blocks of some ``BLOCK_BYTES``. A byte order mark is left in.

    Raises:
        DamagedFileError: when the readable lines have all been given.
    """
    line, rest, in_huge = 1, b"", False
    damage: DamagedFileError | None = None
    pieces = _gathered(path)
    while True:
        try:
            piece = next(pieces)
        except StopIteration:
            break
        except DamagedFileError as error:
            damage = error
            break
        if in_huge:
            end = piece.find(b"\n")
            if end < 0:
                continue
            line, in_huge, piece = line + 1, False, piece[end + 1 :]
        data = rest + piece
        end = data.rfind(b"\n") + 1
        if end:
            yield Block(line, data[:end])
            line += data.count(b"\n", 0, end)
        rest = data[end:]
        if len(rest) > MAX_RECORD_BYTES:
            yield Block(line, b"", is_huge=True, head=rest[:200])
            rest, in_huge = b"", True
    if damage:
        raise damage  # the last line is torn
    if rest:
        yield Block(line, rest)


def pieces(block: Block, size: int) -> Iterator[Block]:
    """The block cut between lines into pieces of at least ``size`` bytes, the last one excepted."""
    line, at = block.first_line, 0
    while at < len(block.data):
        end = block.data.find(b"\n", at + size - 1) + 1 or len(block.data)
        piece = block.data[at:end]
        yield Block(line, piece)
        line, at = line + piece.count(b"\n"), end


def _gathered(path: Path) -> Iterator[bytes]:
    """The file's content in pieces of about ``BLOCK_BYTES``; also what came before a damage."""
    parts: list[bytes] = []
    size, is_first = 0, True
    try:
        for part in _decompressed(path):
            if is_first and part[:2] in UTF16_MARKS:
                raise DamagedFileError("is UTF-16; convert it: iconv -f UTF-16 -t UTF-8")
            is_first = False
            parts.append(part)
            size += len(part)
            if size >= BLOCK_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
    except DamagedFileError:
        if parts:
            yield b"".join(parts)
        raise
    if parts:
        yield b"".join(parts)


def _decompressed(path: Path) -> Iterator[bytes]:
    compression = file_compression(path)
    try:
        with path.open("rb") as file:
            if other := disguise(path, file.peek(HEAD_BYTES)[:HEAD_BYTES]):
                raise DamagedFileError(other)
            if compression is None:
                while piece := file.read(BLOCK_BYTES):
                    yield piece
                return
            stream = Decompressed(file, compression)
            while piece := stream.read(PIECE_BYTES):
                yield piece
            if stream.fault:
                raise DamagedFileError(f"{compression}, cut off or damaged: {stream.fault}")
    except (OSError, pyarrow.ArrowException) as error:
        raise DamagedFileError(" ".join(str(error).split())[:200]) from error


def lines_at(path: Path, numbers: Collection[int]) -> dict[int, bytes]:
    """The lines of these numbers, for examples; fewer if the file has changed or is damaged."""
    found: dict[int, bytes] = {}
    last = max(numbers, default=0)
    try:
        for block in blocks(path):
            if block.first_line > last or len(found) == len(set(numbers)):
                break
            after = block.first_line + block.data.count(b"\n") + 1
            wanted = [number for number in numbers if block.first_line <= number < after]
            if wanted:
                lines = block.data.split(b"\n")
                at = block.first_line
                found |= {n: lines[n - at] for n in wanted if n - at < len(lines)}
    except DamagedFileError:
        pass
    return found
