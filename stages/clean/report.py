"""What cleaning did: counts.json, and report.md with examples and histograms."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from stages.clean.quality import RULES
from stages.clean.removed import Removed
from stages.core import personal_data, tracking
from stages.core.config import CleanConfig
from stages.core.markdown_text import escape

COUNTS_FILE = "counts.json"
REPORT_FILE = "report.md"
MOST_LANGUAGES = 12

Counts = Counter[str]

REMOVING = {
    "unusable": "the record breaks the rows' schema once it is cleaned",
    "too_long": "longer than clean.max_record_characters",
    "language": "in none of clean.languages (fastText lid.176)",
    **{rule.name: f"{rule.reason} ({rule.source})" for rule in RULES},
    "evaluation": "holds 13 words in a row of an evaluation set (GPT-3, appendix C)",
    "toxicity": "above clean.max_toxicity",
    "reserved": "its prompt is of the random share of people's judgments, which is held out",
    "duplicate": "equal to an earlier record but for case and white space",
    "near_duplicate": "shares its runs of five words with an earlier record (MinHash, Broder 1997)",
    "in_held_out": "equal, or nearly so, to a held-out record",
}
"""The rules that remove records, in the order in which they are applied, with their reasons."""

CHANGING = {
    "repaired": "mojibake mended, Unicode in NFC, control characters and odd line ends removed",
    "notices": "cookie notices, licence headers and such lines taken out",
    **dict.fromkeys(personal_data.KINDS, "personal data replaced by a placeholder"),
}
"""What changes records, in records; personal data in placeholders."""

COLUMNS = ("read", *CHANGING, *REMOVING, "contradictory", "guard", "kept")
"""Of the counts. Contradictory records (A over B and B over A) are kept: people do disagree. Of a
text with two labels the first is kept. Guard: pairs set aside for the guard model."""

CHARACTER_BINS = np.unique(np.geomspace(1, 1e6, 49).round()).astype(int)
SHARE_BINS = np.linspace(0, 1, 51)


class Histograms:
    """Lengths, languages and symbol shares of one kind's records before and after cleaning."""

    def __init__(self) -> None:
        self.characters = np.zeros((2, len(CHARACTER_BINS) - 1), int)
        self.symbol_share = np.zeros((2, len(SHARE_BINS) - 1), int)
        self.languages: tuple[Counts, Counts] = (Counter(), Counter())

    def add(self, table: pl.DataFrame, is_kept: np.ndarray) -> None:
        """Count the rows of a shard's table."""
        for number, rows in enumerate((table, table.filter(is_kept))):
            lengths = rows["characters"].to_numpy().clip(1, CHARACTER_BINS[-1])
            self.characters[number] += np.histogram(lengths, CHARACTER_BINS)[0]
            shares = rows["symbol_share"].drop_nulls().to_numpy()
            self.symbol_share[number] += np.histogram(shares, SHARE_BINS)[0]
            self.languages[number].update(rows["language"].to_list())


def write_report(
    config: CleanConfig,
    counts: Mapping[str, Counts],
    removed: Removed,
    histograms: Mapping[str, Histograms],
    out_dir: Path,
) -> None:
    """Write ``counts.json``, ``report.md`` and ``plots/clean_<kind>.png``.

    Args:
        counts: by data and split, such as ``sft/train``.
        histograms: by kind of data.
    """
    rows = {name: {column: of[column] for column in COLUMNS} for name, of in counts.items()}
    text = json.dumps(rows, indent=2) + "\n"
    (out_dir / COUNTS_FILE).write_text(text, encoding="utf-8")
    for kind, histogram in histograms.items():
        _plot(kind, histogram, out_dir)
    verb = "would be removed (dry run: all are kept as they were)" if config.dry_run else "removed"
    lines = [
        "# Cleaning",
        "",
        f"Records read, changed, {verb} and kept. Rules are applied in the order of the table; a "
        f"removed record counts for the first that it breaks. All of them are in "
        f"`{removed.path.name}`, with rule, score and the record as it was.",
        "",
        *_table(counts),
        "",
    ]
    for kind in histograms:
        lines += [f"![{kind} before and after](plots/clean_{kind}.png)", ""]
    order = list(REMOVING)
    shown = sorted(removed.examples.items(), key=lambda item: order.index(item[0][1]))
    for (kind, rule), examples in sorted(shown, key=lambda item: item[0][0]):
        total = sum(of[rule] for name, of in counts.items() if name.partition("/")[0] == kind)
        lines += [f"## {kind}: {rule} ({total})", "", f"{REMOVING[rule]}.", ""]
        lines += ["| record | score or twin | begins (▸ between its texts) |", "|---|---:|---|"]
        lines += [
            f"| {escape(place)} | {escape(why)} "
            f"| {' ▸ '.join(escape(' '.join(head.split())) for head in heads)} |"
            for place, why, heads in examples
        ]
        lines.append("")
    (out_dir / REPORT_FILE).write_text("\n".join(lines), encoding="utf-8")


def _table(counts: Mapping[str, Counts]) -> list[str]:
    """A line for whatever happened to a record of any data."""
    lines = [f"| | {' | '.join(counts)} | |", f"|---|{'---:|' * len(counts)}---|"]
    reasons = CHANGING | REMOVING
    for column in COLUMNS:
        numbers = [of[column] for of in counts.values()]
        if any(numbers) or column in ("read", "kept"):
            cells = " | ".join(str(number or "") for number in numbers)
            lines.append(f"| {column.replace('_', ' ')} | {cells} | {reasons.get(column, '')} |")
    return lines


def _plot(kind: str, histogram: Histograms, out_dir: Path) -> None:
    from matplotlib.figure import Figure

    has_shares = bool(histogram.symbol_share.any())
    figure = Figure(figsize=(13 if has_shares else 9, 3.4), layout="constrained")
    axes = figure.subplots(1, 3 if has_shares else 2)
    colours, names = ("#b8c4d6", "#2f5d9b"), ("before", "after")
    for values, colour, name in zip(histogram.characters, colours, names, strict=True):
        axes[0].stairs(values, CHARACTER_BINS, fill=True, color=colour, label=name)
    found = np.flatnonzero(histogram.characters[0])
    axes[0].set_xlim(CHARACTER_BINS[found[0]] / 2, CHARACTER_BINS[found[-1] + 1] * 2)
    axes[0].set(xscale="log", xlabel="characters", ylabel="records", title=f"{kind}: length")
    axes[0].legend(frameon=False)
    before = histogram.languages[0]
    languages = sorted(before, key=lambda name: (-before[name], name))[:MOST_LANGUAGES]
    for counted, colour in zip(histogram.languages, colours, strict=True):
        axes[1].bar(range(len(languages)), [counted[name] for name in languages], color=colour)
    axes[1].set_xticks(range(len(languages)), languages)
    axes[1].set(yscale="log", xlabel="language", ylabel="records", title="language")
    if has_shares:
        for values, colour in zip(histogram.symbol_share, colours, strict=True):
            axes[2].stairs(values, SHARE_BINS, fill=True, color=colour)
        axes[2].set(yscale="log", xlabel="share of symbols", ylabel="records", title="quality")
        axes[2].set_xlim(0, 1)
    tracking.log_figure(figure, f"clean_{kind}", out_dir)
