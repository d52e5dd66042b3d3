"""A check's report on a terminal, in Markdown and in a log."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stages.core.data_check.findings import CheckReport, FileSummary, Finding
from stages.core.markdown_text import escape
from stages.core.wording import percent

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
MOST_FILES = 20
"""Listed one by one; a folder may have thousands."""
VERDICTS = ("Fine.", "Findings to mend.", "Not usable.")


def table(report: CheckReport) -> RenderableType:
    """The report for a terminal, readable from 80 columns on."""
    parts: list[RenderableType] = [_files(report)]
    if report.findings:
        parts.append(_findings(report))
    parts.extend(Text(line, style="dim") for line in _closing(report))
    return Group(*parts)


def _files(report: CheckReport) -> Table:
    files = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("records", "usable"):
        files.add_column(name, justify="right", no_wrap=True)
    files.add_column("file", overflow="fold")
    files.add_column("holds", overflow="fold")
    for file in _listed(report.files):
        files.add_row(f"{file.records:,}", f"{file.usable:,}", Text(file.path), _holds(file))
    return files


def _listed(files: Sequence[FileSummary]) -> list[FileSummary]:
    """At most ``MOST_FILES`` of the files, those with unusable records before others, and behind
    them a line for the rest of each layout."""
    if len(files) <= MOST_FILES:
        return list(files)
    ordered = sorted(files, key=lambda file: file.usable == file.records > 0)
    listed, rest = ordered[:MOST_FILES], ordered[MOST_FILES:]
    layouts = dict.fromkeys((file.kind, file.format) for file in rest)
    for kind, name in layouts:
        alike = [file for file in rest if (file.kind, file.format) == (kind, name)]
        num_records, num_usable, num_bytes = (
            sum(numbers)
            for numbers in zip(*((f.records, f.usable, f.bytes) for f in alike), strict=True)
        )
        more = f"{len(alike):,} more files"
        listed.append(FileSummary(more, kind, name, num_records, num_usable, num_bytes))
    return listed


def _findings(report: CheckReport) -> Table:
    """Two columns: how many, and what, with examples and the cure below."""
    shown = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    shown.add_column(justify="right", no_wrap=True)
    shown.add_column(ratio=1, overflow="fold")
    for finding in report.findings:
        colour = COLOURS[finding.severity]
        count = Text(f"\n{finding.count:,}", style="bold")
        if finding.share is not None:
            count.append(f"\n{percent(finding.share)}", style="not bold dim")
        what = Text("\n")
        what.append(finding.severity, style=f"bold {colour}")
        what.append(f" {_of_kind(finding)}{finding.title}", style="bold")
        if finding.detail:
            what.append(f"\n{finding.detail}")
        examples = [
            Padding(Text(_example(place, piece), style="dim"), (0, 0, 0, 2))
            for place, piece in ((item.place, item.excerpt) for item in finding.examples)
        ]
        shown.add_row(count, Group(what, *examples, Text(f"→ {finding.cure}", style="green")))
    return shown


def _holds(file: FileSummary) -> str:
    return f"{file.kind} ({file.format})" if file.format else file.kind or "unknown"


def _of_kind(finding: Finding) -> str:
    return f"{finding.kind}: " if finding.kind else ""


def _example(place: str, excerpt: str) -> str:
    return f"{place}  {excerpt}".rstrip()


def _closing(report: CheckReport) -> Iterator[str]:
    yield ""
    share = report.facts.get("preferences_chosen_longer")
    if share is not None:
        yield f"The chosen reply is the longer one in {percent(share)} of the pairs."
    yield from report.remarks
    yield VERDICTS[report.exit_code]


def log_lines(report: CheckReport) -> list[str]:
    """One line for each finding, for a run's log."""
    lines = []
    for finding in report.findings:
        share = f" ({percent(finding.share)})" if finding.share is not None else ""
        detail = f": {finding.detail}" if finding.detail else ""
        where = f", first {finding.examples[0].place}" if finding.examples else ""
        lines.append(
            f"check: {finding.severity}: {_of_kind(finding)}{finding.count:,}{share} × "
            f"{finding.title}{detail}{where}"
        )
    return lines or ["check: fine"]


def markdown(report: CheckReport, title: str = "Check of the data") -> str:
    """The report as a Markdown document."""
    lines = [f"# {title}", ""]
    lines += ["| file | holds | records | usable |", "|---|---|---:|---:|"]
    lines += [
        f"| {escape(file.path)} | {escape(_holds(file))} | {file.records:,} | {file.usable:,} |"
        for file in _listed(report.files)
    ]
    for finding in report.findings:
        share = f" ({percent(finding.share)})" if finding.share is not None else ""
        lines += ["", f"## {finding.severity}: {escape(_of_kind(finding) + finding.title)}", ""]
        detail = f": {escape(finding.detail)}" if finding.detail else ""
        lines += [f"{finding.count:,}{share}{detail}", ""]
        lines += [f"- {escape(_example(item.place, item.excerpt))}" for item in finding.examples]
        lines += ["", escape(finding.cure)]
    lines += list(_closing(report))
    return "\n".join(lines) + "\n"
