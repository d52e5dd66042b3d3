"""What a check can find, and the report of what it did find."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

Severity = Literal["error", "warning", "note"]
EXAMPLES = 3
EXCERPT_CHARACTERS = 90
FINE, WITH_FINDINGS, UNUSABLE = 0, 1, 2


class Meaning(NamedTuple):
    """What a code stands for."""

    severity: Severity
    """error: the record or file cannot be used; warning: it can, to the model's harm; note: worth
    knowing."""
    title: str
    cure: str


CATALOGUE: dict[str, Meaning] = {
    # the file
    "unreadable": Meaning(
        "error", "File cannot be read to its end", "If no cure is named, make or fetch it again; "
        "what was readable is checked here.",
    ),
    "no-records": Meaning(
        "error", "No record in the file", "See whether it is the right file, and its suffix says "
        "what is in it.",
    ),
    "columns-unknown": Meaning(
        "error", "Columns that mean nothing here", "Say what it holds with --kind, or map the "
        "columns (collect.<kind>.columns).",
    ),
    "columns-mapped": Meaning(
        "warning", "Columns have other names than ours", "Set this mapping for the run; the check "
        "has used it already.",
    ),
    "bom": Meaning(
        "note", "File begins with a byte order mark", "Harmless here; other tools take it for "
        "text: save as UTF-8 without BOM.",
    ),
    "crlf": Meaning("note", "Lines end as on Windows (CRLF)", "Harmless here; dos2unix mends it."),
    # the line
    "json": Meaning("error", "Broken JSON", "Mend the line or remove it."),
    "not-object": Meaning("error", "Line is JSON, but no object", 'Write {"column": value, …}.'),
    "utf8": Meaning(
        "error", "Invalid UTF-8", "Convert from the true encoding, on Windows mostly CP1252: iconv "
        "-f CP1252 -t UTF-8.",
    ),
    "surrogate": Meaning(
        "error", "Lone surrogate (half a character)", "Text was cut inside an emoji or badly "
        "converted; cut by characters, not by UTF-16 units.",
    ),
    "nul": Meaning("error", "NUL character", "Binary or UTF-16 data went into text; remove it."),
    "nested": Meaning("error", "Nested too deeply", "Flatten or remove the record."),
    "huge": Meaning("error", "Record larger than 10 MB", "Split it, or remove it."),
    "duplicate-keys": Meaning(
        "warning", "A key appears twice in one object", "Only the last value counts; mend what "
        "writes the file.",
    ),
    "not-finite": Meaning(
        "warning", "NaN or Infinity", "No valid JSON; write null or leave the column out.",
    ),
    # the record
    "schema": Meaning("error", "Wrong columns or types", "Mend or remove; a run refuses them."),
    "empty": Meaning("error", "Empty, or white space alone", "Remove; a run refuses them."),
    "role-order": Meaning(
        "error", "Wrong order of roles", "system first if at all, then user and assistant in "
        "turn; the last one the assistant's (of a prompt, the user's).",
    ),
    "turns-not-alternating": Meaning(
        "warning", "Two turns of one role in a row", "Join them; many chat templates refuse it.",
    ),
    "no-row": Meaning(
        "note", "Record with nothing of this kind", "Fine where meant: of equally good replies "
        "none is preferred, and a run leaves the record out.",
    ),
    "identical": Meaning("error", "Chosen and rejected are equal", "Remove; it teaches nothing."),
    # texts
    "special-token-end": Meaning(
        "warning", "Reply ends in a special token as text", "Cut it off: the tokenizer adds its "
        "own end, and the model would learn to write this one.",
    ),
    "special-token": Meaning(
        "warning", "Special token inside text", "Remove it or tokenise it as text: it can end a "
        "turn or forge a role.",
    ),
    "mojibake": Meaning(
        "warning", "Garbled characters (mojibake)", "Decoded with a wrong encoding; the clean "
        "stage's repair_text mends most.",
    ),
    # lengths
    "over-long": Meaning(
        "warning", "Longer than the context", "Split, shorten or raise the context: the end is "
        "cut off in training.",
    ),
    "reply-cut": Meaning(
        "error", "Whole reply beyond the context", "Remove, or raise the context: nothing of the "
        "reply would be learned.",
    ),
    "length-bias": Meaning(
        "warning", "Length tells the chosen reply", "Balance the pairs by length, or measure the "
        "reward model within equal lengths.",
    ),
    # one record beside another
    "duplicate": Meaning(
        "warning", "Exact duplicate", "Remove; the clean stage does (remove_duplicates).",
    ),
    "contradiction": Meaning(
        "warning", "Pair contradicts another (A>B and B>A)", "Keep one of the two by majority, or "
        "neither.",
    ),
    "same-prompt": Meaning(
        "note", "Same prompt, other completion", "Fine where meant; else keep the better one.",
    ),
    "same-text-other-label": Meaning(
        "warning", "Same text, other label", "Decide for one label; the classifier cannot.",
    ),
    "label-imbalance": Meaning(
        "warning", "Labels are unbalanced", "Collect more of the rare one, and judge by F1, not "
        "by accuracy.",
    ),
    "label-once": Meaning(
        "warning", "Labels with a single record", "Check the spelling, or merge them.",
    ),
    "leak": Meaning(
        "error", "Also in the held-out files", "Remove from one side, else the measurement counts "
        "what was learned by heart.",
    ),
    "evaluation-overlap": Meaning(
        "error", "Shares 13 words in a row with evaluation data", "Remove: clean.evaluation_sets "
        "does in a run.",
    ),
    "evaluation-template": Meaning(
        "warning", "Column names a well-known benchmark", "Remove if you measure on it, or report "
        "that score as trained on.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Example:
    """One place where a fault is."""

    place: str
    """``file:line``; in Parquet the row."""
    excerpt: str


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a kind of data, how often, and what to do about it."""

    code: str
    severity: Severity
    kind: str
    """The kind of data; empty where that is not known."""
    title: str
    detail: str
    """Which of several: the reason, the field, the tokens."""
    count: int
    """Records concerned; of a fault of the file as a whole 1."""
    share: float | None
    """Of the kind's records; None for a fault of the file as a whole."""
    examples: tuple[Example, ...]
    cure: str


@dataclass(frozen=True)
class FileSummary:
    """What was read of one file."""

    path: str
    kind: str
    format: str
    """How the records are laid out: the format recognised, such as ``Alpaca``; else empty."""
    records: int
    usable: int
    bytes: int
    """Read, after decompression."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Our column → the file's, where they differ."""


@dataclass(frozen=True)
class CheckReport:
    """What ``check_files`` found."""

    files: tuple[FileSummary, ...]
    findings: tuple[Finding, ...]
    """Errors first, then warnings, then notes; the most frequent first."""
    facts: Mapping[str, float]
    """Figures that are no fault: ``preferences_chosen_longer``, ``context``, …"""
    remarks: tuple[str, ...] = ()
    """How the figures came about: estimated lengths, what was not checked."""

    @property
    def records(self) -> int:
        """Records read, usable or not."""
        return sum(file.records for file in self.files)

    @property
    def usable(self) -> int:
        """Records that a run would take."""
        return sum(file.usable for file in self.files)

    @property
    def exit_code(self) -> int:
        """0 fine, 1 findings, 2 nothing usable. Notes alone are fine."""
        if any(file.usable == 0 for file in self.files) or not self.files:
            return UNUSABLE
        return WITH_FINDINGS if any(item.severity != "note" for item in self.findings) else FINE

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {"exit_code": self.exit_code, **asdict(self)}


class Tally:
    """The findings so far, counted, with their first examples."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str, str], int] = {}
        self.examples: dict[tuple[str, str, str], list[Example]] = {}
        self.details: dict[tuple[str, str, str], str] = {}

    def add(
        self,
        kind: str,
        code: str,
        count: int,
        examples: Iterable[Example] = (),
        *,
        group: str = "",
        detail: str = "",
    ) -> None:
        """Count ``count`` more of a finding. Findings of one code are kept apart by ``group``;
        ``detail`` is what is shown of it, the group if not given."""
        if count == 0:
            return
        key = kind, code, group
        self.counts[key] = self.counts.get(key, 0) + count
        kept = self.examples.setdefault(key, [])
        kept.extend(list(examples)[: EXAMPLES - len(kept)])
        if detail or key not in self.details:
            self.details[key] = detail or group

    def findings(self, records: Mapping[str, int]) -> tuple[Finding, ...]:
        """All findings in the report's order; ``records``: how many there are of each kind."""
        made = []
        for (kind, code, group), count in self.counts.items():
            meaning = CATALOGUE[code]
            total = 0 if code in OF_FILES else records.get(kind, 0)
            made.append(
                Finding(
                    code=code,
                    severity=meaning.severity,
                    kind=kind,
                    title=meaning.title,
                    detail=self.details[kind, code, group],
                    count=count,
                    share=count / total if total else None,
                    examples=tuple(self.examples[kind, code, group]),
                    cure=meaning.cure,
                )
            )
        order = {"error": 0, "warning": 1, "note": 2}
        return tuple(sorted(made, key=lambda item: (order[item.severity], item.kind, -item.count)))


OF_FILES = {
    "unreadable",
    "no-records",
    "columns-unknown",
    "columns-mapped",
    "bom",
    "length-bias",
    "label-once",
}
"""Findings whose count is no share of the records."""


def excerpt(text: object, around: int = 0) -> str:
    """A piece of ``text`` on one line, of at most ``EXCERPT_CHARACTERS``, with the character at
    ``around`` in it."""
    shown = text if isinstance(text, str) else str(text)
    start = max(0, around - EXCERPT_CHARACTERS // 2)
    piece = shown[start : start + EXCERPT_CHARACTERS]
    line = "".join(_visible(character) for character in " ".join(piece.split()))
    return f"{'…' if start else ''}{line}{'…' if start + len(piece) < len(shown) else ''}"


def _visible(character: str) -> str:
    """Control characters and surrogates would garble a terminal, or could not be written at all."""
    if character == "\0":
        return "␀"
    return character if character.isprintable() else "\ufffd"
