"""The report card: one Markdown text, and the same as a self-contained HTML page.

Replies may hold HTML, scripts or Markdown. Whatever the templates print is turned into plain text
by ``escape``, unless this module made it itself, so that it shows as written.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import markdown
from markupsafe import Markup

from stages.core.config import EvaluateConfig
from stages.core.markdown_text import escape
from stages.evaluate import background_tables, tables
from stages.evaluate.comparison import Figures
from stages.evaluate.earlier import Benchmark, Card
from stages.evaluate.first_screen import FirstScreen, first_screen
from stages.evaluate.lineage import Lineage, changed_settings
from stages.evaluate.measurements import Measurements
from stages.evaluate.verdict import findings

MARKS = {"good": "good", "warning": "check", "bad": "problem"}
CARD_PLOT = "reward_model_card_"
"""Begins the names of the plots that come from the reward model's card."""


@dataclass(frozen=True)
class Report:
    """Everything that the report shows."""

    config: EvaluateConfig
    measured: Measurements
    figures: Figures
    metrics: dict[str, float]
    lineage: Lineage
    card: Card | None = None
    benchmarks: Sequence[Benchmark] = ()
    samples: Sequence[int] = ()
    """Indices of the prompts shown with all replies."""
    plots: frozenset[str] = field(default=frozenset())
    """Names of those in ``plots/``; others are left out."""


def write_report(folder: Path, report: Report) -> None:
    """Write ``report.md`` and ``report.html`` to a folder that holds the plots in ``plots/``."""
    screen = first_screen(
        report.config.gate,
        report.metrics,
        report.measured,
        report.figures,
        report.card,
        report.benchmarks,
    )
    top = _render("first_screen.md.j2", screen=screen)
    body = render_body(report, screen)
    (folder / "report.md").write_text(f"{top}\n{body}", encoding="utf-8")
    page = render_html(screen, body, folder)
    (folder / "report.html").write_text(page, encoding="utf-8")


def render_body(report: Report, screen: FirstScreen) -> str:
    """What follows the first screen, as Markdown with links to ``plots/<name>.png``."""

    def plot(name: str, caption: str) -> Markup:
        return Markup(f"![{escape(caption)}](plots/{name}.png)" if name in report.plots else "")

    config, measured, figures = report.config, report.measured, report.figures
    card, lineage = report.card, report.lineage
    changed = changed_settings(config.stage, config.model_dump(mode="json"))
    return _render(
        "report.md.j2",
        num_prompts=len(measured.prompts),
        temperature=f"{config.temperature:g}",
        max_completion_length=config.max_completion_length,
        seed=config.seed,
        has_champion="champion" in measured.replies,
        gate=tables.gate(screen.gate_rows),
        findings=findings(figures, measured.missing),
        marks=MARKS,
        missing=measured.missing,
        headline=tables.headline(measured, figures),
        contrasts=tables.contrasts(figures),
        references=tables.references(figures),
        safety=tables.safety(measured, figures),
        card=card,
        card_plot=CARD_PLOT,
        card_figures=background_tables.card_figures(card) if card else None,
        card_tables=background_tables.card_tables(card) if card else [],
        worst_pairs=background_tables.worst_pairs(card) if card else None,
        benchmarks=background_tables.benchmarks(report.benchmarks),
        taxes=background_tables.taxes(report.benchmarks),
        has_history=bool(measured.history),
        samples=tables.samples(measured, report.samples),
        stages=background_tables.stages(
            lineage, measured.judge_dollars if measured.judged else None
        ),
        data=background_tables.data(lineage),
        settings=background_tables.settings(lineage, config, changed),
        versions=lineage.versions,
        unknown=lineage.unknown,
        notes=background_tables.notes(config, measured, card),
        plot=plot,
        table=_table,
    )


def render_html(screen: FirstScreen, body: str, folder: Path) -> str:
    """The report as one HTML page with the plots embedded.

    Args:
        folder: where the Markdown's relative image links start.
    """
    html = markdown.markdown(body, extensions=["tables", "sane_lists"], output_format="html")
    html = html.replace("<table>", '<div class="table"><table>')
    html = html.replace("</table>", "</table></div>")

    def embed(match: re.Match[str]) -> str:
        image = base64.b64encode((folder / match[1]).read_bytes()).decode("ascii")
        return f'src="data:image/png;base64,{image}"'

    html = re.sub(r'src="(plots/\w+\.png)"', embed, html)
    return _render("report.html.j2", screen=screen, body=Markup(html))


# ------------------------------------------------------------------------------------ helpers


def _table(table: tables.Table) -> Markup:
    rule = "---:" if table.has_figures else ":---"
    lines = [
        [escape(column) for column in table.columns],
        [":---", *[rule] * (len(table.columns) - 1)],
        *([_show(cell) for cell in row] for row in table.rows),
    ]
    return Markup("\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n")


def _show(cell: tables.Cell) -> str:
    text = escape(cell.text)
    if cell.is_bold and text:
        text = f"**{text}**"
    small = f"<br><small>{escape(cell.small)}</small>" if cell.small else ""
    return text + small


def _render(template: str, **values: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else escape(str(value)),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)
