"""Text that shows in Markdown as it was written."""

from html.parser import HTMLParser

import markdown
import pytest

from stages.core.markdown_text import escape


class Page(HTMLParser):
    """Collects the names of the tags, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    "text",
    [
        "plain words, punctuation: yes (no) - 1.5!",
        "<script>alert(1)</script> **bold** [link](http://a.example) | `code`",
        "a_b*c*d",
        "~~x~~",
        "www.example.org and https://example.org",
        "",
    ],
)
def test_escaped_text_survives_markdown(text: str) -> None:
    page = Page(markdown.markdown(f"x {escape(text)}", extensions=["tables"]))
    assert page.text == f"x {text}"
    assert page.tags == ["p"]


def test_a_table_cell_stays_one_cell() -> None:
    table = f"| a | b |\n|---|---|\n| {escape('one | two')} | {escape('three')} |"
    page = Page(markdown.markdown(table, extensions=["tables"]))
    assert page.tags.count("td") == 2
    assert "one | two" in page.text


def test_line_ends_and_control_characters_are_visible() -> None:
    assert escape("a\nb\r\nc\x00\x1b\ud800") == "a<br>b<br>c␀␛\ufffd"
