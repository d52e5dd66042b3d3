"""Nothing that a model or a user writes may act in the report, and the page needs nothing else."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stages.core.config import EvaluateConfig
from stages.evaluate import plots
from stages.evaluate.comparison import Measurements, compare
from stages.evaluate.report import write_report

HOSTILE = (
    "<script>alert(1)</script> <img src=http://evil/x onerror=alert(2)> | cell | **bold** "
    "![p](http://evil/y.png) [link](javascript:alert(3)) `code` &lt;b&gt; \\* $x$ # no\n"
    "# heading\n\n- list\n| a | b |\n|---|---|\n<!-- comment \x02wzxhzdk:0\x03 \u202e www.evil.com"
)


class Tags(HTMLParser):
    """Collects the tags with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def _write(folder: Path, measured: Measurements) -> tuple[str, str]:
    folder.mkdir()
    figures = compare(measured, num_bootstrap_samples=200, seed=0)
    (folder / "plots").mkdir()
    for name, figure in plots.draw(measured, figures):
        figure.savefig(folder / "plots" / f"{name}.png", metadata={"Software": None})
    write_report(folder, EvaluateConfig(), measured, figures, range(3))
    return tuple(  # type: ignore[return-value]
        (folder / name).read_text(encoding="utf-8") for name in ("report.md", "report.html")
    )


@pytest.fixture(scope="module")
def harmless(
    tmp_path_factory: pytest.TempPathFactory, make_measurements: Callable[..., Measurements]
) -> tuple[str, str]:
    return _write(tmp_path_factory.mktemp("harmless") / "report", make_measurements())


@pytest.fixture(scope="module")
def hostile(
    tmp_path_factory: pytest.TempPathFactory, make_measurements: Callable[..., Measurements]
) -> tuple[str, str]:
    measured = make_measurements(prompt=HOSTILE, reply=HOSTILE)
    return _write(tmp_path_factory.mktemp("hostile") / "report", measured)


def test_hostile_text_adds_no_tag(harmless: tuple[str, str], hostile: tuple[str, str]) -> None:
    def kinds(page: str) -> list[str]:
        return [tag for tag, _ in Tags(page).tags if tag != "br"]

    assert kinds(hostile[1]) == kinds(harmless[1])


def test_hostile_text_shows_as_written(hostile: tuple[str, str]) -> None:
    text = Tags(hostile[1]).text
    assert "<script>alert(1)</script>" in text
    assert "| cell | **bold** ![p](http://evil/y.png)" in text
    assert "&lt;b&gt; \\* $x$ # no" in text
    assert "\u202e" not in text


def test_markdown_has_no_html_of_others(hostile: tuple[str, str]) -> None:
    allowed = {"br", "small", "span"}
    assert {tag for tag, _ in Tags(hostile[0]).tags} <= allowed


def test_page_is_self_contained(harmless: tuple[str, str]) -> None:
    page = Tags(harmless[1])
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 5
    assert all(source and source.startswith("data:image/png;base64,") for source in sources)
    assert not any(tag in ("script", "link", "iframe", "a") for tag, _ in page.tags)
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:http|//)|url\(|@import""", harmless[1])


def test_markdown_links_the_plots_beside_it(harmless: tuple[str, str]) -> None:
    links = re.findall(r"!\[[^\]]+\]\((\S+)\)", harmless[0])
    assert links == [
        f"plots/{name}.png"
        for name in (
            "scores", "score_distributions", "reply_lengths", "reward_model", "training_curve"
        )
    ]  # fmt: skip


def test_tables_are_complete_and_every_row_is_as_wide_as_its_head(hostile: tuple[str, str]) -> None:
    tables = re.findall(r"<table>.*?</table>", hostile[1], flags=re.DOTALL)
    num_rows = [len(re.findall("<tr>", table)) - 1 for table in tables]
    assert num_rows == [9, 2, 3, 3]
    for table in tables:
        widths = {len(re.findall(r"<t[hd]\b", row)) for row in table.split("</tr>")[:-1]}
        assert len(widths) == 1


def test_report_without_optional_parts(
    tmp_path: Path, make_measurements: Callable[..., Measurements]
) -> None:
    full = make_measurements()
    for replies in full.replies.values():
        del replies.scores["oracle"]
    measured = replace(full, scorers=(), pairs=None, history=[], bits_per_byte={}, num_bytes=0,
                       sft_loss={}, num_demonstrations=0)  # fmt: skip
    figures = compare(measured, num_bootstrap_samples=200, seed=0)
    names = [name for name, _ in plots.draw(measured, figures)]
    assert names == ["scores", "score_distributions", "reply_lengths"]
    write_report(tmp_path, EvaluateConfig(), measured, figures, ())
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "it was not tested" in text
    assert "Only the reward model judged" in text
    assert "PPO left no history" in text
