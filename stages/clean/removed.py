"""The records that are removed: all of them in rejects.jsonl.zst, with the rule and its score."""

import json
import random
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import pyarrow as pa
from pydantic_core import from_json

from stages.clean.rows import learnt_texts

REJECTS_FILE = "rejects.jsonl.zst"
EXAMPLES = 20
EXAMPLE_CHARACTERS = 160


class Example(NamedTuple):
    """One of the records that a rule removes."""

    place: str
    why: str
    """Its score, or the place of the record that it is a twin of."""
    heads: tuple[str, ...]
    """The beginnings of its texts."""


class Removed:
    """Writes the removed records; use as a context manager.

    A line holds kind, split, file and line of the collected record, ``rule``, ``reason`` (which for
    unusable records says more), ``score`` and the whole ``record`` as it was before cleaning. Of a
    document cut into pieces, each line is one of them, with its number (``piece``, from 1).
    Of equal and near-equal records, ``like`` is the place of an earlier or held-out one.
    """

    def __init__(self, out_dir: Path) -> None:
        self.path = out_dir / REJECTS_FILE
        self.reasons: dict[str, Counter[str]] = {}
        """Removed records by kind of data and reason."""
        self.first_places: dict[tuple[str, str], str] = {}
        """Where the first record of a kind lies that goes for a reason."""
        self.rules: dict[str, str] = {}
        """The rule of each reason."""
        self.examples: dict[tuple[str, str], list[Example]] = {}
        """At most ``EXAMPLES`` of each kind and rule, each record equally likely to be among them.
        """
        self._seen: Counter[tuple[str, str]] = Counter()
        self._random = random.Random(0)

    def __enter__(self) -> Self:
        self._part = self.path.with_name(f".{self.path.name}.part")
        self._file = pa.CompressedOutputStream(pa.OSFile(str(self._part), "wb"), "zstd")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._part.replace(self.path)

    def add(
        self,
        kind: str,
        split: str,
        place: tuple[str, int],
        verdict: tuple[str, str, float | None],
        record: bytes,
        piece: int = 0,
        like: str = "",
    ) -> None:
        """Set one record aside.

        Args:
            place: the collected file and line.
            verdict: rule, reason and score.
            record: its line of JSON, or that of its piece.
            like: place of the record that it is a twin of.
        """
        rule, reason, score = verdict
        head = {
            "kind": kind, "split": split, "file": place[0], "line": place[1],
            "rule": rule, "reason": reason, "score": score,
        }  # fmt: skip
        if piece:
            head["piece"] = piece
        if like:
            head["like"] = like
        text = json.dumps(head, ensure_ascii=False)[:-1].encode()
        self._file.write(b'%s, "record": %s}\n' % (text, record.strip()))
        self.rules[reason] = rule
        self.reasons.setdefault(kind, Counter())[reason] += 1
        shown = f"{place[0]}:{place[1]}"
        self.first_places.setdefault((kind, reason), shown)
        self._sample((kind, rule), shown, like if like or score is None else f"{score:.3g}", record)

    def count(self, kind: str) -> int:
        """Removed records of one kind of data so far."""
        return self.reasons.get(kind, Counter()).total()

    def _sample(self, key: tuple[str, str], place: str, why: str, record: bytes) -> None:
        """Reservoir sampling (Vitter's algorithm R)."""
        self._seen[key] += 1
        examples = self.examples.setdefault(key, [])
        at = len(examples) if len(examples) < EXAMPLES else self._random.randrange(self._seen[key])
        if at < EXAMPLES:
            examples[at : at + 1] = [Example(place, why, _heads(record))]


def _heads(record: bytes) -> tuple[str, ...]:
    """The beginning of each text that a record teaches."""
    texts = learnt_texts(from_json(record))
    return tuple(text.strip()[: EXAMPLE_CHARACTERS // len(texts)] for text in texts)
