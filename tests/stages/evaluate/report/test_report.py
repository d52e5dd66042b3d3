"""Nothing that a model or a user writes may act in the report, and the page needs nothing else."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import markdown
import pytest

from stages.core.config import EvaluateConfig
from stages.core.markdown_text import escape
from stages.evaluate import plots
from stages.evaluate.comparison import compare
from stages.evaluate.report import CARD_PLOT, write_report

HOSTILE = (
    "<script>alert(1)</script> <img src=http://evil/x onerror=alert(2)> | cell | **bold** "
    "![p](http://evil/y.png) [link](javascript:alert(3)) `code` &lt;b&gt; \\* $x$ # no\n"
    "# heading\n\n- list\n| a | b |\n|---|---|\n<!-- comment \x02wzxhzdk:0\x03 \u202e www.evil.com"
)
PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9b"
    b"U\x00\x00\x00\nIDATx\x9cc\xf8\x0f\x00\x01\x01\x01\x00\x1b\xb6\xeeV\x00\x00\x00\x00IEND\xaeB`"
    b"\x82"
)
Make = Callable[..., object]


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


@pytest.fixture(scope="module")
def write_full(
    make_full_measurements, make_card, make_benchmarks, make_report
) -> Callable[[Path, str], tuple[str, str]]:
    """A function (folder, text) that writes a report with every part, all texts the same."""

    def write(folder: Path, text: str) -> tuple[str, str]:
        report = make_report(
            folder, make_full_measurements(text), card=make_card(text),
            benchmarks=make_benchmarks(text), text=text,
        )  # fmt: skip
        name = f"{CARD_PLOT}accuracy"
        (folder / "plots" / f"{name}.png").write_bytes(PNG)
        write_report(folder, replace(report, plots=report.plots | {name}))
        return tuple(  # type: ignore[return-value]
            (folder / name).read_text(encoding="utf-8") for name in ("report.md", "report.html")
        )

    return write


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory, write_full: Make) -> tuple[str, str]:
    return write_full(tmp_path_factory.mktemp("harmless") / "report", "It is two.")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, write_full: Make) -> tuple[str, str]:
    return write_full(tmp_path_factory.mktemp("hostile") / "report", HOSTILE)


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
    assert len(sources) == 7
    assert all(source and source.startswith("data:image/png;base64,") for source in sources)
    assert not any(tag in ("script", "link", "iframe", "a") for tag, _ in page.tags)
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:http|//)|url\(|@import""", harmless[1])


def test_markdown_links_the_plots_beside_it(harmless: tuple[str, str]) -> None:
    links = re.findall(r"!\[[^\]]+\]\((\S+)\)", harmless[0])
    assert links == [
        f"plots/{name}.png"
        for name in (
            "scores", "score_distributions", "reply_lengths", "win_rates", f"{CARD_PLOT}accuracy",
            "benchmarks", "training_curve",
        )
    ]  # fmt: skip


def test_every_row_of_a_table_is_as_wide_as_its_head(hostile: tuple[str, str]) -> None:
    tables = re.findall(r"<table>.*?</table>", hostile[1], flags=re.DOTALL)
    assert len(tables) == 13
    for table in tables:
        widths = {len(re.findall(r"<t[hd]\b", row)) for row in table.split("</tr>")[:-1]}
        assert len(widths) == 1


def test_first_screen_answers_before_any_table(harmless: tuple[str, str]) -> None:
    for text in (harmless[0], Tags(harmless[1]).text):
        top = text[: text.index("What is asked of a champion")]
        for words in (
            "may become champion", "Did PPO help or hack?", "Is the reward model good enough?",
            "Win rate over the champion", "guard model's score", "Distance from the SFT model",
            "Reward model's accuracy", "Toxic replies", "Against the present champion",
        ):  # fmt: skip
            assert words in top, words


@pytest.mark.parametrize(
    "text",
    ["plain words, punctuation: yes (no) - 1.5!", HOSTILE.split("\n")[0], "a_b*c*d", "~~x~~", ""],
)
def test_escaped_text_survives_markdown(text: str) -> None:
    assert Tags(markdown.markdown(f"x {escape(text)}")).text == f"x {text}"


def test_line_ends_and_control_characters_are_visible() -> None:
    assert escape("a\nb\r\nc\x00\x1b\ud800") == "a<br>b<br>c␀␛\ufffd"


def test_report_without_optional_parts(tmp_path: Path, make_measurements, make_report) -> None:
    full = make_measurements(scorers=())
    measured = replace(full, history=[], bits_per_byte={}, num_bytes=0,
                       sft_loss={}, num_demonstrations=0)  # fmt: skip
    figures = compare(measured, num_bootstrap_samples=200, seed=0)
    names = [name for name, _ in plots.draw(measured, figures)]
    assert names == ["win_rates", "scores", "score_distributions", "reply_lengths"]
    config = EvaluateConfig(num_samples_shown=0)
    report = make_report(tmp_path, measured, config=config)
    write_report(tmp_path, replace(report, samples=()))
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for words in (
        "Cannot be told.", "It was not tested on held-out preferences", "PPO left no history",
        "whether alignment cost abilities is not known", "None were asked for",
        "| not measured |", "○ not measured", "not compared",
    ):  # fmt: skip
        assert words in text, words


def test_what_failed_is_named_with_its_reason(harmless: tuple[str, str]) -> None:
    assert "- refusals: It is two." in harmless[0]
    assert "Not measured: refusals. It is two." in harmless[0]
    assert "Not measured: benchmarks" not in harmless[0]  # nobody asked for them
