"""Which records are held out, and random subsets. Nothing here keeps rows in memory."""

import hashlib
import math
import random
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from stages.core.schemas import encode_row, read_jsonl, write_jsonl

SUBSET_SEED = 0
PLACE = struct.Struct("<d")
SETTLED = {"held_out": -1.0, "train": 1.0}
"""Places below and above each threshold."""


class Keyed(NamedTuple):
    """A row and what keeps rows together in one split."""

    row: Mapping[str, Any]
    key: str
    split: Literal["", "train", "held_out"] = ""
    """Where this is settled, whatever the key."""


def settled(rows: Iterable[Keyed], split: Literal["train", "held_out"]) -> Iterator[Keyed]:
    """The rows, all of them in one split."""
    return (keyed._replace(split=split) for keyed in rows)


def place(key: str) -> float:
    """A place in [0, 1) that depends on nothing but the key: equal keys fall on the same side of a
    threshold, in all kinds of data."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def write_splits(
    rows: Iterable[Keyed], held_out_share: float, paths: tuple[Path, Path]
) -> tuple[int, int]:
    """Write each row to the training file, or to the held-out file where its key's place lies below
    ``held_out_share``; return the numbers of rows. Rows with a ``split`` go there.

    A few keys may all fall on one side; then the outermost one goes to the other, unless it is the
    only one or nothing is to be held out.
    """
    counts = [0, 0]
    least, most = 1.0, 0.0
    with tempfile.TemporaryFile() as places:
        with paths[0].open("wb") as train, paths[1].open("wb") as held_out:
            for row, key, split in rows:
                if split:
                    at = SETTLED[split]
                else:
                    at = place(key)
                    least, most = min(least, at), max(most, at)
                is_held_out = at < held_out_share
                (held_out if is_held_out else train).write(encode_row(row))
                counts[is_held_out] += 1
                places.write(PLACE.pack(at))
        if held_out_share > 0 and least < most and not all(counts):
            places.seek(0)
            full = 1 if counts[0] == 0 else 0
            threshold = most if full == 1 else math.nextafter(least, 1.0)
            is_held_out_now = (at < threshold for (at,) in _read_places(places))
            return _divide(paths[full], paths, is_held_out_now)
    return counts[0], counts[1]


def _read_places(file: Any) -> Iterator[tuple[float]]:
    while packed := file.read(PLACE.size * 4096):
        yield from PLACE.iter_unpack(packed)


def _divide(full: Path, paths: tuple[Path, Path], is_held_out: Iterator[bool]) -> tuple[int, int]:
    """Write all rows, which lie in the file ``full``, to both splits anew."""
    counts = [0, 0]
    parts = tuple(path.with_name(f".{path.name}.part") for path in paths)
    with parts[0].open("wb") as train, parts[1].open("wb") as held_out:
        for row, goes_out in zip(read_jsonl(full), is_held_out, strict=True):
            (held_out if goes_out else train).write(encode_row(row))
            counts[goes_out] += 1
    for part, path in zip(parts, paths, strict=True):
        part.replace(path)
    return counts[0], counts[1]


def take_subset(path: Path, count: int, limit: int, kept: range = range(0)) -> int:
    """Cut a file of ``count`` rows down to ``limit`` rows chosen at random, in their order, and
    return how many are left; 0 leaves it whole.

    Args:
        kept: numbers of rows that stay and are not counted.
    """
    others = [number for number in range(count) if number not in kept]
    if not limit or len(others) <= limit:
        return count
    chosen = {*random.Random(SUBSET_SEED).sample(others, limit), *kept}
    return write_jsonl(
        path, (row for number, row in enumerate(read_jsonl(path)) if number in chosen)
    )
