"""One shard of collected rows in, one Parquet table of verdicts out.

A pure function of its arguments: a process pool on one machine and the tasks of a Ray cluster run
the same one, and the table says the same of a row whatever shard it is in.
"""

import io
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from pydantic_core import from_json

from stages.clean import language, quality
from stages.clean.near_duplicates import EMPTY, SIGNATURE_NUMBERS, signatures
from stages.clean.notices import remove_notices
from stages.clean.pieces import pieces
from stages.clean.repair import repair
from stages.clean.rows import content, fingerprint, learnt_texts, texts_of, with_texts
from stages.core import personal_data
from stages.core.config import CleanConfig
from stages.core.evaluation_overlap import EvaluationIndex
from stages.core.schemas import DataKind, encode_row, parse_row
from stages.core.words import Words, words

SIGNATURE_SHARES = {
    "sft": {"prompt": 64, "completion": 64},
    "preferences": {"prompt": 42, "chosen": 43, "rejected": 43},
    "labelled": {"text": 120, "label": 8},
}
"""How many of a signature's 128 numbers are of which field. All fields must be alike: other replies
to the same prompt are no near duplicates, nor is B over A one of A over B."""

SIGNATURE = pl.Array(pl.UInt32, SIGNATURE_NUMBERS)

SCHEMA = {
    "line": pl.UInt32,
    "start": pl.UInt32,
    "end": pl.UInt32,
    "row": pl.Binary,
    "rule": pl.String,
    "reason": pl.String,
    "score": pl.Float32,
    "is_repaired": pl.Boolean,
    "has_notices": pl.Boolean,
    "found": pl.List(pl.Struct({"kind": pl.String, "digest": pl.String})),
    "fingerprint": pl.Int64,
    "swapped_fingerprint": pl.Int64,
    "label_fingerprint": pl.Int64,
    "characters": pl.UInt32,
    "language": pl.String,
    "symbol_share": pl.Float32,
}
"""Of the table, one row a record (or piece of one): its line and bytes in the shard, from 0; the
cleaned row where it differs from them; the rule that removes it, with reason and score; what was
mended and found, in the whole record; what it is compared by (``signature`` besides, where near
duplicates are looked for); what the report shows."""


class ShardSettings(NamedTuple):
    """What a shard's verdicts depend on beside its rows."""

    config: CleanConfig
    kind: DataKind
    split: str

    def applies(self, rule: str) -> bool:
        """Whether a rule is not skipped for this kind of data."""
        return rule not in self.config.skip.get(self.kind, ())

    @property
    def similarity(self) -> float:
        """From which on two of these records are near duplicates; 0 where none are looked for."""
        if not (self.config.remove_duplicates and self.applies("near_duplicate")):
            return 0.0
        if self.kind == "documents":
            return self.config.near_duplicate_similarity
        return self.config.near_duplicate_prompt_similarity


def clean_shard(
    lines: bytes, settings: ShardSettings, evaluation: EvaluationIndex | None = None
) -> bytes:
    """The verdicts on JSON Lines of one kind of data, as Parquet (see ``SCHEMA``)."""
    records = _Records(lines)
    texts = pl.Series("text", [text for row in records.rows for text in texts_of(row)], pl.String)
    owners = np.repeat(np.arange(len(records.rows)), [len(texts_of(row)) for row in records.rows])
    mended, is_repaired, has_notices = _mended(texts, settings)
    redacted, found = _redacted(mended, settings)
    changed = (redacted != texts).to_numpy()
    is_changed = np.zeros(len(records.rows), bool)
    is_changed[owners[changed]] = True
    rows, reasons = _rebuilt(records.rows, redacted, is_changed, settings.kind)
    table = pl.DataFrame(
        {
            "line": pl.Series(range(len(rows)), dtype=pl.UInt32),
            "start": pl.Series(records.starts, dtype=pl.UInt32),
            "end": pl.Series(records.ends, dtype=pl.UInt32),
            "is_repaired": _any(is_repaired, owners, len(rows)),
            "has_notices": _any(has_notices, owners, len(rows)),
            "found": _found_by_row(found, owners, len(rows)),
        }
    )
    if settings.kind == "documents" and settings.config.max_piece_characters:
        table, rows, reasons, is_changed = _cut_into_pieces(
            table, rows, reasons, is_changed, settings.config.max_piece_characters
        )
    table = _judged(table, rows, reasons, settings, evaluation)
    new_rows = [
        encode_row(row) if row is not None and changed else None
        for row, changed in zip(rows, is_changed, strict=True)
    ]
    table = table.with_columns(pl.Series("row", new_rows, pl.Binary))
    order = [*SCHEMA, *({"signature"} & set(table.columns))]
    file = io.BytesIO()
    table.select(order).write_parquet(file, compression="lz4", statistics=False)
    return file.getvalue()


class DamagedRowError(Exception):
    """A collected line is no JSON any more."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line
        """In the shard, from 0."""


class _Records:
    """The rows of JSON Lines and where each lies in them."""

    def __init__(self, lines: bytes) -> None:
        self.rows: list[dict[str, Any]] = []
        self.starts: list[int] = []
        self.ends: list[int] = []
        start = 0
        while start < len(lines):
            end = lines.find(b"\n", start) + 1 or len(lines)
            try:
                self.rows.append(from_json(lines[start:end]))
            except ValueError:
                raise DamagedRowError(len(self.rows)) from None
            self.starts.append(start)
            self.ends.append(end)
            start = end


# ------------------------------------------------------------------------------- changing texts


def _mended(texts: pl.Series, settings: ShardSettings) -> tuple[pl.Series, np.ndarray, np.ndarray]:
    """The texts repaired and without notices, and masks of those that each of the two changed."""
    repaired = (
        repair(texts) if settings.config.repair_text and settings.applies("repair") else texts
    )
    is_repaired = (repaired != texts).to_numpy()
    if settings.kind != "documents" or not settings.config.remove_notices:
        return repaired, is_repaired, np.zeros(len(texts), bool)
    bare = remove_notices(repaired) if settings.applies("notices") else repaired
    return bare, is_repaired, (bare != repaired).to_numpy()


def _redacted(texts: pl.Series, settings: ShardSettings) -> tuple[pl.Series, pl.DataFrame]:
    """The texts with placeholders, and all personal data found: that which stays as well."""
    kinds = settings.config.redact if settings.applies("redact") else ()
    others = tuple(kind for kind in personal_data.KINDS if kind not in kinds)
    redacted, found = personal_data.redact_series(texts, kinds)
    if others:
        found = pl.concat([found, personal_data.redact_series(redacted, others)[1]])
    return redacted, found


def _rebuilt(
    rows: list[dict[str, Any]], texts: pl.Series, is_changed: np.ndarray, kind: DataKind
) -> tuple[list[dict[str, Any] | None], list[str | None]]:
    """The rows with their new texts, None where one cannot be used any more, and then why."""
    new_texts: Iterator[str] = iter(texts)
    rebuilt: list[dict[str, Any] | None] = []
    reasons: list[str | None] = []
    for row, changed in zip(rows, is_changed, strict=True):
        row, reason = with_texts(row, new_texts), None
        if changed:
            try:
                parse_row(kind, row)
            except ValueError as error:
                row, reason = None, f"{error} after cleaning"
        rebuilt.append(row)
        reasons.append(reason)
    return rebuilt, reasons


def _any(mask: np.ndarray, owners: np.ndarray, count: int) -> pl.Series:
    """Of each row whether any of its texts is marked."""
    marked = np.zeros(count, bool)
    marked[owners[mask]] = True
    return pl.Series(marked)


def _found_by_row(found: pl.DataFrame, owners: np.ndarray, count: int) -> pl.Series:
    """Kind and digest of the personal data of each row; null where there is none."""
    digests = [
        personal_data.digest(personal_data.PersonalData(kind, value))
        for kind, value in found.select("kind", "value").iter_rows()
    ]
    by_row = (
        found.select(
            "kind",
            row=pl.Series(owners[found["index"].to_numpy()]),
            digest=pl.Series(digests, dtype=pl.String),
        )
        .group_by("row", maintain_order=True)
        .agg(pl.struct("kind", "digest").alias("found"))
    )
    rows = pl.DataFrame({"row": np.arange(count)})
    return rows.join(by_row, on="row", how="left", maintain_order="left")["found"]


def _cut_into_pieces(
    table: pl.DataFrame,
    rows: list[dict[str, Any] | None],
    reasons: list[str | None],
    is_changed: np.ndarray,
    limit: int,
) -> tuple[pl.DataFrame, list[dict[str, Any] | None], list[str | None], np.ndarray]:
    """A row for each piece of a long document."""
    of_row = [pieces(row["text"], limit) if row else [""] for row in rows]
    sources = np.repeat(np.arange(len(rows)), list(map(len, of_row)))
    cut: list[dict[str, Any] | None] = []
    for row, parts in zip(rows, of_row, strict=True):
        cut += [row and row | {"text": part} for part in parts]
    lengths = np.array(list(map(len, of_row)))
    changed = is_changed[sources] | (lengths[sources] > 1)
    return table[sources], cut, [reasons[source] for source in sources], changed


# ------------------------------------------------------------------------------------- judging


class _Verdicts:
    """The first rule that each row breaks, with the reason and the score."""

    def __init__(self, count: int) -> None:
        self.rules = np.full(count, None, object)
        self.reasons = np.full(count, None, object)
        self.scores = np.full(count, np.nan, np.float32)

    def add(self, is_broken: np.ndarray, rules: Any, reasons: Any, scores: Any) -> None:
        """Note what rows break that break no earlier rule; all arguments are arrays over the rows,
        or one value for all."""
        first = is_broken & np.equal(self.rules, None)
        for kept, new in ((self.rules, rules), (self.reasons, reasons), (self.scores, scores)):
            kept[first] = new[first] if isinstance(new, np.ndarray) else new

    def columns(self) -> dict[str, pl.Series]:
        return {
            "rule": pl.Series(self.rules.tolist(), dtype=pl.String),
            "reason": pl.Series(self.reasons.tolist(), dtype=pl.String),
            "score": pl.Series(self.scores).fill_nan(None),
        }


def _judged(
    table: pl.DataFrame,
    rows: list[dict[str, Any] | None],
    reasons: list[str | None],
    settings: ShardSettings,
    evaluation: EvaluationIndex | None,
) -> pl.DataFrame:
    """The table with the first rule that each row breaks, and what rows are compared by."""
    config, kind = settings.config, settings.kind
    texts = pl.Series("text", [content(row) if row else "" for row in rows], pl.String)
    counted = words(texts)
    spoken = language.identify(texts)
    verdicts = _Verdicts(len(rows))
    why = np.array(reasons, object)
    verdicts.add(np.not_equal(why, None), "unusable", why, np.nan)
    lengths = texts.str.len_chars().to_numpy()
    if settings.applies("too_long"):
        is_over = lengths > config.max_record_characters
        verdicts.add(is_over, "too_long", "too_long", lengths.astype(np.float32))
    if config.languages and settings.applies("language"):
        names = ("language " + spoken["language"]).to_numpy()
        is_other = language.is_other(spoken, lengths, config.languages)
        verdicts.add(is_other, "language", names, spoken["confidence"].to_numpy())
    shares = pl.lit(None, pl.Float32)
    if kind == "documents":
        scores = quality.scores(texts, counted, spoken)
        faults = quality.faults(scores, config.quality, config.skip.get(kind, ()))
        broken = faults["rule"].to_numpy()
        is_broken = faults["rule"].is_not_null().to_numpy()
        verdicts.add(is_broken, broken, broken, faults["score"].to_numpy())
        shares = scores["symbol_share"]
    if evaluation is not None and settings.split == "train" and settings.applies("evaluation"):
        _note_hits(verdicts, evaluation.hits(counted))
    table = table.with_columns(
        **verdicts.columns(),
        **_fingerprints(rows, kind),
        characters=pl.Series(lengths, dtype=pl.UInt32),
        language=spoken["language"],
        symbol_share=shares,
    )
    if settings.similarity:
        marks = pl.Series("signature", _signatures(rows, counted, kind), SIGNATURE)
        table = table.with_columns(marks)
    return table


def _note_hits(verdicts: _Verdicts, hits: pl.DataFrame) -> None:
    """Of several sets that a row overlaps with, the first by name is its reason."""
    count = len(verdicts.rules)
    is_hit, names, shares = np.zeros(count, bool), np.full(count, None, object), np.zeros(count)
    for index, name, share in hits.sort("set", descending=True).iter_rows():
        is_hit[index], names[index], shares[index] = True, f"evaluation set {name}", share
    verdicts.add(is_hit, "evaluation", names, shares.astype(np.float32))


def _fingerprints(rows: list[dict[str, Any] | None], kind: DataKind) -> dict[str, pl.Series]:
    """What equal rows have in common; of pairs also with the replies swapped, of labelled texts
    also with the label."""

    def of(take: Callable[[dict[str, Any]], list[str]]) -> pl.Series:
        return pl.Series([row and fingerprint(take(row)) for row in rows], dtype=pl.Int64)

    none = pl.Series([None] * len(rows), dtype=pl.Int64)
    swapped = labelled = none
    if kind == "preferences":
        swapped = of(
            lambda row: learnt_texts(row | {"chosen": row["rejected"], "rejected": row["chosen"]})
        )
    if kind == "labelled":
        labelled = of(lambda row: [row["text"], row["label"]])
    return {
        "fingerprint": of(learnt_texts),
        "swapped_fingerprint": swapped,
        "label_fingerprint": labelled,
    }


def _signatures(rows: list[dict[str, Any] | None], counted: Words, kind: DataKind) -> np.ndarray:
    """Of the whole text, or field by field (see ``SIGNATURE_SHARES``): (N, 128)."""
    if kind not in SIGNATURE_SHARES:
        return signatures(counted)
    parts = []
    for field, numbers in SIGNATURE_SHARES[kind].items():
        texts = [content({"text": row[field]}) if row else "" for row in rows]
        part = signatures(words(pl.Series("text", texts, pl.String)), numbers)
        # A field without words (an emoji) is equal to itself alone.
        wordless = np.flatnonzero((part == EMPTY).all(axis=1))
        marks = [fingerprint([texts[row]]) & 0xFFFFFFFF for row in wordless]
        part[wordless] = np.array(marks, np.uint32)[:, None]
        parts.append(part)
    return np.hstack(parts)
