"""Repair, redact, filter and deduplicate the collected records."""

import hashlib
import itertools
import json
import re
import shutil
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from stages.clean.repair import repair_text
from stages.core import personal_data, tracking
from stages.core.artifacts import Artifact, make_artifact
from stages.core.config import CleanConfig, Compute
from stages.core.contracts import CleanInputs, Datasets
from stages.core.errors import UserError
from stages.core.personal_data import PersonalData, find, redact
from stages.core.rejects import Rejects
from stages.core.schemas import (
    DATA_KINDS,
    DataKind,
    normalize,
    parse_row,
    prompt_key,
    read_jsonl,
    write_jsonl,
)

SPLITS = ("held_out", "train")
"""In the order of cleaning: training records that are also held out are removed."""
TEXT_FIELDS = ("text", "prompt", "completion", "chosen", "rejected", "meta")
PROGRESS_SECONDS = 1.0

REMOVED = ("too_short", "too_long", "junk", "unusable", "duplicate", "in_held_out")
COLUMNS = (
    "read", "repaired", *personal_data.KINDS, *REMOVED, "contradictory", "guard", "kept",
)  # fmt: skip
"""Of the table of counts, in records; the redacted ones in placeholders. Contradictory pairs (A
over B and B over A) are kept: people do disagree. Of a text with two labels the first is kept.
Guard: pairs set aside for the guard model."""

HINTS = {
    "too_short": "lower clean.quality.min_characters if such short documents are meant",
    "too_long": "raise clean.max_record_characters if such long records are meant",
    "junk": "raise clean.quality.max_symbol_share if this is the text to train on",
    "duplicate": "set clean.remove_duplicates=false if the repetitions are meant",
    "in_held_out": "hold out records that are not in the training data",
}

PERSONAL_DATA_FILE = "personal_data.txt"

Counts = Counter[str]


def run(
    config: CleanConfig, inputs: CleanInputs, compute: Compute, out_dir: Path
) -> tuple[Datasets, dict[str, float]]:
    """Write ``<kind>/train.jsonl`` and ``<kind>/held_out.jsonl`` for each kind given, the removed
    records to ``rejects.jsonl``, and the table of counts to ``counts.json`` and ``counts.md``.

    With ``guard_share``, ``guard_preferences/`` takes its share of the training pairs. Of the
    personal data in the training records that stay, redacted or not, the digests go to
    ``personal_data.txt``, so that a model's replies can be searched for it.

    Metrics, in records: ``<kind>_<split>_read`` and ``_kept``; ``<kind>_removed``, ``_repaired``,
    ``_contradictory``; in placeholders: ``<kind>_redacted``.

    Raises:
        UserError: too large a share of a kind is removed, or the whole of a split.
    """
    datasets: dict[str, Artifact] = {}
    table: dict[DataKind, dict[str, Counts]] = {}
    digests: set[str] = set()
    with Rejects(out_dir) as rejects:
        for kind in DATA_KINDS:
            artifact: Artifact | None = getattr(inputs.datasets, kind)
            if artifact is None:
                continue
            folder = out_dir / kind
            folder.mkdir(exist_ok=True)
            table[kind] = _clean_kind(config, kind, artifact, folder, rejects, digests)
            if kind == "preferences" and config.guard_share:
                guard_folder = out_dir / "guard_preferences"
                _set_aside_for_guard(config, folder, guard_folder, table[kind]["train"])
                datasets["guard_preferences"] = make_artifact(kind, guard_folder)
            datasets[kind] = make_artifact(kind, folder)
    if digests:
        path = out_dir / PERSONAL_DATA_FILE
        path.write_text("".join(f"{digest}\n" for digest in sorted(digests)), encoding="utf-8")
        datasets["personal_data"] = make_artifact("personal_data", path)
    _write_table(table, out_dir)
    return Datasets(**datasets), _metrics(table)


def _clean_kind(
    config: CleanConfig,
    kind: DataKind,
    artifact: Artifact,
    folder: Path,
    rejects: Rejects,
    digests: set[str],
) -> dict[str, Counts]:
    seen: dict[bytes, str] = {}
    table: dict[str, Counts] = {}
    for split in SPLITS:
        table[split] = Counter()
        # Models are trained on the training records alone.
        noted = digests if split == "train" else set()
        rows = _clean_rows(config, kind, split, artifact, seen, table[split], rejects, noted)
        write_jsonl(folder / f"{split}.jsonl", rows)
    total = sum(counts["read"] for counts in table.values())
    rejects.check_share("clean.max_reject_share", kind, total, config.max_reject_share, HINTS)
    for split, counts in table.items():
        if counts["read"] and not counts["kept"]:
            raise UserError(
                f"{kind}: cleaning removes all {counts['read']} records of {split}; "
                f"give more data or relax the settings of clean (reasons in {rejects.path})"
            )
    return table


def _set_aside_for_guard(
    config: CleanConfig, folder: Path, guard_folder: Path, counts: Counts
) -> None:
    """Move the guard model's training pairs to a folder of its own; both have the same held-out
    pairs.

    Raises:
        UserError: one of the two is left without training pairs.
    """
    guard_folder.mkdir(exist_ok=True)
    train, guard_train = folder / "train.jsonl", guard_folder / "train.jsonl"

    def is_guards(row: Mapping[str, Any]) -> bool:
        return _guard_place(prompt_key("preferences", row)) < config.guard_share

    counts["guard"] = write_jsonl(guard_train, filter(is_guards, read_jsonl(train)))
    counts["kept"] = write_jsonl(train, itertools.filterfalse(is_guards, read_jsonl(train)))
    if not counts["guard"] or not counts["kept"]:
        raise UserError(
            f"preferences: clean.guard_share={config.guard_share:g} gives the guard model "
            f"{counts['guard']} training pairs and the reward model {counts['kept']}; "
            "give pairs of more prompts, change the share, or set it to 0 for no guard model"
        )
    shutil.copyfile(folder / "held_out.jsonl", guard_folder / "held_out.jsonl")


def _guard_place(key: str) -> float:
    """A place in [0, 1) of a prompt that has nothing to do with whether it is held out."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"guard").digest()
    return int.from_bytes(digest) / 2**64


def _clean_rows(
    config: CleanConfig,
    kind: DataKind,
    split: str,
    artifact: Artifact,
    seen: dict[bytes, str],
    counts: Counts,
    rejects: Rejects,
    digests: set[str],
) -> Iterator[dict[str, Any]]:
    """The cleaned rows that stay. ``seen`` holds the digest of each row so far and its split;
    ``digests`` takes those of the personal data."""
    path = artifact.locate() / f"{split}.jsonl"
    with path.open("rb") as file:
        total = sum(1 for _ in file)
    not_redacted = tuple(kind for kind in personal_data.KINDS if kind not in config.redact)
    reported = time.monotonic()
    for number, row in enumerate(read_jsonl(path), 1):
        counts["read"] += 1
        if time.monotonic() - reported > PROGRESS_SECONDS:
            reported = time.monotonic()
            tracking.report_progress(number, total, data=f"{kind}/{split}")
        cleaned = row
        if config.repair_text:
            cleaned = map_texts(cleaned, repair_text)
            counts["repaired"] += cleaned != row
        found: list[PersonalData] = []
        cleaned = map_texts(cleaned, partial(redact, kinds=config.redact, found=found))
        counts.update(kind for kind, _ in found)
        column, reason = _fault(config, kind, cleaned)
        digest = _digest(kind, cleaned)
        is_sound = not column
        if is_sound and config.remove_duplicates and digest in seen:
            column = reason = "duplicate" if seen[digest] == split else "in_held_out"
        if is_sound and kind == "labelled":
            labelled_digest = _digest(kind, cleaned, cleaned["label"])
            counts["contradictory"] += digest in seen and labelled_digest not in seen
            seen.setdefault(labelled_digest, split)
        if column:
            counts[column] += 1
            rejects.add(kind, split, f"{artifact.path}/{path.name}", number, reason, row)
            continue
        seen.setdefault(digest, split)
        counts["kept"] += 1
        left = [item for text in _texts(cleaned) for item in find(text, not_redacted)]
        digests.update(map(personal_data.digest, [*found, *left]))
        if kind == "preferences":
            swapped = {"chosen": cleaned["rejected"], "rejected": cleaned["chosen"]}
            counts["contradictory"] += _digest(kind, cleaned | swapped) in seen
        yield cleaned


# ------------------------------------------------------------------------------- texts of a row


def map_texts(row: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The row with every text changed, those in messages and in ``meta`` included."""
    return {
        name: _map_value(value, change) if name in TEXT_FIELDS else value
        for name, value in row.items()
    }


def _map_value(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_value(item, change) for item in value]
    if isinstance(value, dict):
        return {
            name: item if name == "role" else _map_value(item, change)
            for name, item in value.items()
        }
    return value


def _texts(row: Mapping[str, Any]) -> list[str]:
    """The texts that models are trained on, in order."""
    values = [row[name] for name in TEXT_FIELDS if name in row and name != "meta"]
    return [
        text
        for value in values
        for text in ([value] if isinstance(value, str) else [turn["content"] for turn in value])
    ]


def _digest(kind: DataKind, row: Mapping[str, Any], label: str = "") -> bytes:
    """Equal for rows whose texts differ in case and white space only."""
    key = "\0".join((kind, *map(normalize, _texts(row)), *filter(None, [label])))
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


# ----------------------------------------------------------------------------------- filtering

SYMBOL = re.compile(r"[^\w\s]|_")


def _fault(config: CleanConfig, kind: DataKind, row: dict[str, Any]) -> tuple[str, str]:
    """The column of the counts and the reason under which a row is removed; empty if it stays."""
    try:
        parse_row(kind, row)
    except ValueError as error:
        return "unusable", f"{error} after cleaning"
    length = sum(map(len, _texts(row)))
    if length > config.max_record_characters:
        return "too_long", "too_long"
    if kind != "documents":
        return "", ""
    if len(row["text"].strip()) < config.quality.min_characters:
        return "too_short", "too_short"
    if symbol_share(row["text"]) > config.quality.max_symbol_share:
        return "junk", "junk"
    return "", ""


def symbol_share(text: str) -> float:
    """Share of the characters that are neither letters, digits nor white space. Vowel signs and
    other combining marks belong to their letters."""
    symbols = SYMBOL.findall(text)
    if not text.isascii():
        symbols = [symbol for symbol in symbols if not unicodedata.category(symbol).startswith("M")]
    return len(symbols) / max(len(text), 1)


# ------------------------------------------------------------------------------------ reporting


def _write_table(table: Mapping[DataKind, Mapping[str, Counts]], out_dir: Path) -> None:
    rows = {
        f"{kind}/{split}": {column: counts[column] for column in COLUMNS}
        for kind, splits in table.items()
        for split, counts in splits.items()
    }
    (out_dir / "counts.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    lines = [
        f"| data | {' | '.join(column.replace('_', ' ') for column in COLUMNS)} |",
        f"|---|{'---:|' * len(COLUMNS)}",
        *(f"| {name} | {' | '.join(map(str, row.values()))} |" for name, row in rows.items()),
    ]
    (out_dir / "counts.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _metrics(table: Mapping[DataKind, Mapping[str, Counts]]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for kind, splits in table.items():
        both: Counts = Counter()
        for split, counts in splits.items():
            both += counts
            metrics[f"{kind}_{split}_read"] = float(counts["read"])
            metrics[f"{kind}_{split}_kept"] = float(counts["kept"])
        metrics[f"{kind}_removed"] = float(sum(both[column] for column in REMOVED))
        metrics[f"{kind}_redacted"] = float(sum(both[column] for column in personal_data.KINDS))
        metrics[f"{kind}_repaired"] = float(both["repaired"])
        if kind in ("preferences", "labelled"):
            metrics[f"{kind}_contradictory"] = float(both["contradictory"])
        if both["guard"]:
            metrics["guard_preferences_train_kept"] = float(both["guard"])
    return metrics
