"""Repair, redact, filter and deduplicate the collected records.

Personal data is found by patterns and then checked: card numbers by issuer and Luhn sum, addresses
by ``ipaddress``, telephone numbers by ``phonenumbers``. Presidio's recognisers check the same way,
but take 7 seconds to import, torch and spaCy among it.
"""

import hashlib
import ipaddress
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

import ftfy
import phonenumbers

from stages.core import tracking
from stages.core.artifacts import Artifact, make_artifact
from stages.core.config import CleanConfig, Compute
from stages.core.contracts import CleanInputs, Datasets
from stages.core.errors import UserError
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
REDACTED = ("email", "phone", "ip_address", "credit_card")
COLUMNS = ("read", "repaired", *REDACTED, *REMOVED, "contradictory", "guard", "kept")
"""Of the table of counts, in records; the redacted ones in placeholders. Contradictory pairs (A
over B and B over A) are kept: people do disagree. Guard: pairs set aside for the guard model."""

HINTS = {
    "too_short": "lower clean.min_document_characters if such short documents are meant",
    "too_long": "raise clean.max_record_characters if such long records are meant",
    "junk": "raise clean.max_symbol_share if this is the text to train on",
    "duplicate": "set clean.remove_duplicates=false if the repetitions are meant",
    "in_held_out": "hold out records that are not in the training data",
}

Counts = Counter[str]


def run(
    config: CleanConfig, inputs: CleanInputs, compute: Compute, out_dir: Path
) -> tuple[Datasets, dict[str, float]]:
    """Write ``<kind>/train.jsonl`` and ``<kind>/held_out.jsonl`` for each kind given, the removed
    records to ``rejects.jsonl``, and the table of counts to ``counts.json`` and ``counts.md``.

    With ``guard_share``, ``guard_preferences/`` takes its share of the training pairs.

    Metrics, in records: ``<kind>_<split>_read`` and ``_kept``; ``<kind>_removed``, ``_repaired``,
    ``_contradictory``; in placeholders: ``<kind>_redacted``.

    Raises:
        UserError: too large a share of a kind is removed, or the whole of a split.
    """
    datasets: dict[str, Artifact] = {}
    table: dict[DataKind, dict[str, Counts]] = {}
    with Rejects(out_dir) as rejects:
        for kind in DATA_KINDS:
            artifact: Artifact | None = getattr(inputs.datasets, kind)
            if artifact is None:
                continue
            folder = out_dir / kind
            folder.mkdir(exist_ok=True)
            table[kind] = _clean_kind(config, kind, artifact, folder, rejects)
            if kind == "preferences" and config.guard_share:
                guard_folder = out_dir / "guard_preferences"
                _set_aside_for_guard(config, folder, guard_folder, table[kind]["train"])
                datasets["guard_preferences"] = make_artifact(kind, guard_folder)
            datasets[kind] = make_artifact(kind, folder)
    _write_table(table, out_dir)
    return Datasets(**datasets), _metrics(table)


def _clean_kind(
    config: CleanConfig, kind: DataKind, artifact: Artifact, folder: Path, rejects: Rejects
) -> dict[str, Counts]:
    seen: dict[bytes, str] = {}
    table: dict[str, Counts] = {}
    for split in SPLITS:
        table[split] = Counter()
        rows = _clean_rows(config, kind, split, artifact, seen, table[split], rejects)
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
) -> Iterator[dict[str, Any]]:
    """The cleaned rows that stay. ``seen`` holds the digest of each row so far and its split."""
    path = artifact.locate() / f"{split}.jsonl"
    with path.open("rb") as file:
        total = sum(1 for _ in file)
    reported = time.monotonic()
    for number, row in enumerate(read_jsonl(path), 1):
        counts["read"] += 1
        if time.monotonic() - reported > PROGRESS_SECONDS:
            reported = time.monotonic()
            tracking.report_progress(number, total, data=f"{kind}/{split}")
        cleaned = row
        if config.repair_text:
            cleaned = map_texts(cleaned, repair)
            counts["repaired"] += cleaned != row
        cleaned = map_texts(cleaned, partial(redact, kinds=config.redact, counts=counts))
        column, reason = _fault(config, kind, cleaned)
        digest = _digest(kind, cleaned)
        if not column and config.remove_duplicates and digest in seen:
            column = reason = "duplicate" if seen[digest] == split else "in_held_out"
        if column:
            counts[column] += 1
            rejects.add(kind, split, f"{artifact.path}/{path.name}", number, reason, row)
            continue
        seen.setdefault(digest, split)
        counts["kept"] += 1
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


def _digest(kind: DataKind, row: Mapping[str, Any]) -> bytes:
    """Equal for rows whose texts differ in case and white space only."""
    key = "\0".join((kind, *map(normalize, _texts(row))))
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


# ----------------------------------------------------------------------------------- repairing

# What the bytes of UTF-8 look like when read as Windows-1252 or Latin-1: a lead byte (Â to ô), then
# a continuation byte; and the control characters that either leaves behind.
MOJIBAKE = re.compile(
    "[\u00c2-\u00f4][\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160"
    "\u2039\u0152\u017d\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153"
    "\u017e\u0178]|[\u0080-\u009f]"
)
LINE_BREAK = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# C0 and C1 controls but tab and line feed; byte order marks; noncharacters.
UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")


def repair(text: str) -> str:
    """The text with mojibake mended, in NFC, with LF line ends and without control characters."""
    if not text.isascii():
        if MOJIBAKE.search(text):  # ftfy alone reads 5 MB/s
            # By the line, since ftfy leaves alone a text that also has characters set rightly.
            text = "\n".join(map(ftfy.fix_encoding, text.split("\n")))
            # A closing quotation mark of which Windows-1252 lost the third byte, 9D.
            text = text.replace("\u00e2\u20ac", "\u201d")
        text = unicodedata.normalize("NFC", text)
    elif text.isprintable():
        return text
    return UNWANTED.sub("", LINE_BREAK.sub("\n", text))


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
    if len(row["text"].strip()) < config.min_document_characters:
        return "too_short", "too_short"
    if symbol_share(row["text"]) > config.max_symbol_share:
        return "junk", "junk"
    return "", ""


def symbol_share(text: str) -> float:
    """Share of the characters that are neither letters, digits nor white space. Vowel signs and
    other combining marks belong to their letters."""
    symbols = SYMBOL.findall(text)
    if not text.isascii():
        symbols = [symbol for symbol in symbols if not unicodedata.category(symbol).startswith("M")]
    return len(symbols) / max(len(text), 1)


# ----------------------------------------------------------------------------------- redacting

EMAIL = re.compile(
    r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-])"
)
# 13 to 19 digits in a row, or in the groups printed on cards.
CREDIT_CARD = re.compile(
    r"(?<![\w.,+-])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5})"
    r"(?![\w-]|[.,]\d)"
)
CREDIT_CARD_ISSUER = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|(?:6011|65\d\d|64[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}"
)
IP_ADDRESS = re.compile(
    r"(?<![\w.])(?<![A-Za-z]/)\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)"
    r"|(?<![\w:.])[0-9A-Fa-f]{1,4}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{1,4}(?![\w:])"
)
# Starts with +, a bracket or a digit; goes on in digits, spaces, dots, hyphens, slashes, brackets.
PHONE = re.compile(
    r"(?<![\w.,+/$€£#:-])(?:\+|\(\+?(?=\d{1,5}\)))?\d[\d \u00a0()./-]{6,20}\d(?![\w%]|[.,]\d)"
)
PHONE_NORTH_AMERICA = re.compile(
    r"(?:\+?1[ .-]?)?(?:\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}([.-])\d{3}\1\d{4})"
)
PHONE_REGIONS = ("GB", "FR", "DE", "ES", "IT", "AU", "IN", "JP", "BR")
DATE = re.compile(r"\d{1,4}[./ -]\d{1,2}[./ -]\d{1,4}")


def redact(text: str, kinds: tuple[str, ...], counts: Counts) -> str:
    """The text with personal data of these kinds replaced by placeholders, which are counted."""

    def replace(kind: str, is_personal: Callable[[str], bool], match: re.Match[str]) -> str:
        if not is_personal(match.group()):
            return match.group()
        counts[kind] += 1
        return f"[{kind.upper()}]"

    for kind, gate, pattern, is_personal in PATTERNS:
        if kind in kinds and gate.search(text):
            text = pattern.sub(partial(replace, kind, is_personal), text)
    return text


def is_credit_card(found: str) -> bool:
    """Whether the digits have an issuer's prefix and length and a right check digit."""
    digits = re.sub(r"\D", "", found)
    if not CREDIT_CARD_ISSUER.fullmatch(digits):
        return False
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def is_personal_ip(found: str) -> bool:
    """Whether this is an address that can belong to somebody: not a section number (of small
    numbers only), and not of a private, local or reserved network."""
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return False
    if address.version == 4 and all(int(octet) <= 30 for octet in found.split(".")):
        return False
    if address.version == 6 and address.packed[0] >> 5 != 1:  # all but 2000::/3 is unassigned
        return False
    is_example = any(address in network for network in EXAMPLE_NETWORKS)
    return is_example or (address.is_global and not address.is_multicast)


EXAMPLE_NETWORKS = [
    ipaddress.ip_network(network)
    for network in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]
"""Used in writing in place of real addresses (RFC 5737, RFC 3849), so written like them."""


def is_phone(found: str) -> bool:
    """Whether this is written like a telephone number: in international form, in the North American
    groups, or with the leading 0 of a national number that exists in one of a few countries."""
    number = found.strip(" .-/")
    if PHONE_NORTH_AMERICA.fullmatch(number):
        return True
    groups = re.findall(r"\d+", number)
    digits = "".join(groups)
    if number.lstrip("(").startswith("+"):
        return _is_valid_phone(number, None)
    is_grouped = 2 <= len(groups) <= 5 and all(len(group) >= 2 for group in groups)
    if not is_grouped or not digits.startswith("0") or not 9 <= len(digits) <= 12:
        return False
    if DATE.fullmatch(number) or re.match(r"0\.", number):
        return False
    return any(_is_valid_phone(number, region) for region in PHONE_REGIONS)


PATTERNS: tuple[tuple[str, re.Pattern[str], re.Pattern[str], Callable[[str], bool]], ...] = (
    ("email", re.compile("@"), EMAIL, bool),
    ("credit_card", re.compile(r"\d(?:[ -]?\d){12}"), CREDIT_CARD, is_credit_card),
    (
        "ip_address",
        re.compile(r"[.:][0-9A-Fa-f]{0,4}[.:][0-9A-Fa-f]"),
        IP_ADDRESS,
        is_personal_ip,
    ),
    ("phone", re.compile(r"\d[\d \u00a0()./-]{6,20}\d"), PHONE, is_phone),
)
"""Kind, a quick pattern without which there is none, the pattern, and what a match must pass. In
this order: a card number must not be taken for a telephone number."""


def _is_valid_phone(number: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False


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
        metrics[f"{kind}_redacted"] = float(sum(both[column] for column in REDACTED))
        metrics[f"{kind}_repaired"] = float(both["repaired"])
        if kind == "preferences":
            metrics[f"{kind}_contradictory"] = float(both["contradictory"])
        if both["guard"]:
            metrics["guard_preferences_train_kept"] = float(both["guard"])
    return metrics
