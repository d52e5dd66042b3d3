"""The report card: one Markdown text, and the same as a self-contained HTML page.

Replies may hold HTML, scripts or Markdown. Whatever the templates print is turned into plain text
by ``escape``, unless this module made it itself, so that it shows as written.
"""

import base64
import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
import markdown
from markupsafe import Markup

from stages.core.config import EvaluateConfig
from stages.core.markdown_text import escape
from stages.evaluate import tables
from stages.evaluate.comparison import Figures, Measurements
from stages.evaluate.verdict import judge, summarise

MARKS = {"good": "good", "warning": "check", "bad": "problem"}


def write_report(
    folder: Path,
    config: EvaluateConfig,
    measured: Measurements,
    figures: Figures,
    samples: Sequence[int],
) -> None:
    """Write ``report.md`` and ``report.html`` to a folder that holds the plots in ``plots/``.

    Args:
        samples: indices of the prompts shown with all replies.
    """
    text = render_markdown(config, measured, figures, samples, _plot_names(folder))
    (folder / "report.md").write_text(text, encoding="utf-8")
    (folder / "report.html").write_text(render_html(text, folder), encoding="utf-8")


def render_markdown(
    config: EvaluateConfig,
    measured: Measurements,
    figures: Figures,
    samples: Sequence[int],
    plots: frozenset[str],
) -> str:
    """The report as Markdown with links to ``plots/<name>.png``; plots not in ``plots`` are left
    out."""

    def plot(name: str, caption: str) -> Markup:
        return Markup(f"![{escape(caption)}](plots/{name}.png)" if name in plots else "")

    return _environment().get_template("report.md.j2").render(
        num_prompts=len(measured.prompts),
        temperature=f"{config.temperature:g}",
        max_completion_length=config.max_completion_length,
        seed=config.seed,
        summary=summarise(figures),
        verdict=judge(figures),
        marks=MARKS,
        headline=tables.headline(measured, figures),
        has_scorers=bool(measured.scorers),
        contrasts=tables.contrasts(measured, figures),
        reward_model=tables.reward_model(figures),
        has_history=bool(measured.history),
        samples=[tables.sample(measured, index) for index in samples],
        notes=tables.notes(config, measured),
        plot=plot,
        show=_show,
    )  # fmt: skip


def render_html(text: str, folder: Path) -> str:
    """The Markdown report as one HTML page with the plots embedded.

    Args:
        folder: where the Markdown's relative image links start.
    """
    body = markdown.markdown(text, extensions=["tables", "sane_lists"], output_format="html")
    body = body.replace("<table>", '<div class="table"><table>')
    body = body.replace("</table>", "</table></div>")
    before, heading, after = body.partition("<h2>Samples</h2>")
    body = before + heading + after.replace('class="table"', 'class="table samples"', 1)

    def embed(match: re.Match[str]) -> str:
        image = base64.b64encode((folder / match[1]).read_bytes()).decode("ascii")
        return f'src="data:image/png;base64,{image}"'

    body = re.sub(r'src="(plots/\w+\.png)"', embed, body)
    return _environment().get_template("report.html.j2").render(body=Markup(body))


def _show(cell: tables.Cell) -> Markup:
    interval = f"<br><small>{escape(cell['interval'])}</small>" if cell["interval"] else ""
    return Markup(escape(cell["value"]) + interval)


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else escape(str(value)),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _plot_names(folder: Path) -> frozenset[str]:
    return frozenset(path.stem for path in (folder / "plots").glob("*.png"))
