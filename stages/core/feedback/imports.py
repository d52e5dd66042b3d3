"""Judgments from files: preferences in any format that ``stages.core.formats`` recognises."""

import datetime
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from stages.core import formats
from stages.core.feedback.judgments import AnnotatorKind, Judgment
from stages.core.feedback.pairs import CandidatePair, pair_id
from stages.core.schemas import DataKind, parse_row
from stages.core.sources import Record, read_records

KIND: DataKind = "preferences"
FIRST_RECORDS = 100
"""By so many a file's format is recognised."""
STRENGTHS = (1.0, 2.0, 3.0)
BY_MODEL = "feedback:ai"
"""Column ``source`` of what a language model judged, as exports write it."""


class Refused(NamedTuple):
    """A record that gives no judgment."""

    line: int
    reason: str


class JudgmentFile(NamedTuple):
    """What a file holds."""

    judgments: list[Judgment]
    refused: list[Refused]
    empty: int
    """Records that prefer neither reply, such as ties."""
    format: str
    """Name of the known format; "": our own columns."""


def read_judgments(path: Path, annotator: str, now: datetime.datetime) -> JudgmentFile:
    """The judgments in a file. Equal files give equal ones.

    The reply that comes first in the order of texts is A, so that opposite judgments are about the
    same pair. A margin of 1, 2 or 3 is a strength; any other is in somebody else's unit.

    Args:
        annotator: who judged where a record does not say so.
        now: when, where it does not say so.

    Raises:
        UserError: the file cannot be read at all.
    """
    judgments: list[Judgment] = []
    refused: list[Refused] = []
    num_empty = 0
    with path.open("rb") as raw:
        records = read_records(path, raw)
        first = list(islice(records, FIRST_RECORDS))
        known = formats.recognise(KIND, [item.fields for item in first if item.fields])
        everything: Iterator[Record] = chain(first, records)
        for record in formats.gather(known, everything) if known else everything:
            if record.fields is None:
                refused.append(Refused(record.line, record.reason))
                continue
            try:
                rows = formats.convert(known, KIND, record.fields) if known else [record.fields]
            except ValueError as error:
                refused.append(Refused(record.line, str(error)))
                continue
            num_empty += not rows
            for row in rows:
                try:
                    judgments.append(_judgment(parse_row(KIND, row), annotator, now))
                except ValueError as error:
                    refused.append(Refused(record.line, str(error)))
    return JudgmentFile(judgments, refused, num_empty, known or "")


def without_known(
    judgments: Sequence[Judgment], known: Sequence[Judgment], pseudonyms: dict[str, str]
) -> list[Judgment]:
    """The judgments but those that were exported from here: their annotators are pseudonyms of
    people, or models, whose judgments of the same pair are there. What was imported itself does not
    count: a corrected file replaces it.

    Args:
        pseudonyms: of each person's login.
    """
    there = {
        (pseudonyms[judgment.annotator], judgment.pair.pair_id)
        for judgment in known
        if judgment.annotator in pseudonyms
    } | {
        (judgment.annotator, judgment.pair.pair_id)
        for judgment in known
        if judgment.annotator_kind == "ai" and judgment.pair.purpose != "imported"
    }
    return [
        judgment
        for judgment in judgments
        if not all(
            (name, judgment.pair.pair_id) in there for name in judgment.annotator.split(", ")
        )
    ]


# ------------------------------------------------------------------------------------ helpers


def _judgment(row: dict[str, Any], annotator: str, now: datetime.datetime) -> Judgment:
    first, second = sorted((row["chosen"], row["rejected"]))
    number = pair_id(row["prompt"], first, second)
    margin = row.get("margin")
    kind: AnnotatorKind = "ai" if row.get("source") == BY_MODEL else "human"
    pair = CandidatePair(
        pair_id=number, prompt=row["prompt"], reply_a=first, reply_b=second, purpose="imported"
    )
    return Judgment(
        judgment_id="",
        trace_id="",
        queue="",
        pair=pair,
        verdict="a" if row["chosen"] == first else "b",
        strength=int(margin) if margin in STRENGTHS else 0,
        annotator=row.get("annotator") or annotator,
        annotator_kind=kind,
        created_at=_moment(row.get("created_at")) or now,
    )


def _moment(text: str | None) -> datetime.datetime | None:
    if not text:
        return None
    given = datetime.datetime.fromisoformat(text)
    return given if given.tzinfo else given.replace(tzinfo=datetime.UTC)
