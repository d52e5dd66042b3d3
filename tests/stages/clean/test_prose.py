"""What of a text is prose, and what code, tables and formulas."""

import polars as pl
import pytest

from stages.clean.prose import prose


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Before.\n```python\nx = 1\n```\nAfter.", "Before.\nAfter."),
        ("Before.\n~~~\nx\n\ny\n~~~\nAfter.", "Before.\nAfter."),
        (
            "Title\n~~~~~\nText.\n\nOther\n~~~~~\nMore.",
            "Title\n~~~~~\nText.\n\nOther\n~~~~~\nMore.",
        ),
        ("Before.\n\n    x = 1\n\ty = 2\nAfter.\nEnd.", "Before.\n\nAfter.\nEnd."),
        ("Before.\n| a | b |\n|---|:-:|\n| 1 | 2 |\nAfter.", "Before.\nAfter."),
        ("Before.\n| 名 | 值 |\n| --- | --- |\n| 甲 | 一 |\nAfter.", "Before.\nAfter."),
        ("Before.\n+-----+\n| a b |\n+=====+\nAfter.", "Before.\nAfter."),
        ("Before.\n$$\nx^2\n$$\nAfter.", "Before.\nAfter."),
        ("Before.\n$$x^2$$\nAfter.", "Before.\n \nAfter."),
        (
            "Before.\n\\begin{align}\nx &= 1\n\\end{align}\nIn.\n"
            "\\begin{array}x\\end{array}\nAfter.",
            "Before.\nIn.\nAfter.",
        ),
        ("So:\n>>> f(1)\n2\n3\n\nAfter.\n$ ls -l\nEnd.", "So:\n\nAfter.\nEnd."),
        ("Let $x_1 + y$ and `f(x)` be.", "Let   and   be."),
        ("See https://example.com/a?b=c, <b>bold</b>.", "See    bold ."),
    ],
)
def test_what_is_no_prose_goes(text, left):
    assert prose(pl.Series([text])).to_list() == [left]


@pytest.mark.parametrize(
    "text",
    [
        "Plain prose, with (brackets) and a dash - as well.\n\nNext.",
        "It costs $5 here and $10 there.",
        "    Indented throughout,\n    as a manual page is.\nSYNOPSIS",
        "Home | About | Contact",
        "An open fence\n```\nhides nothing.",
        "a < b and c > d",
        "~~~ and more",
        "",
    ],
)
def test_prose_stays(text):
    assert prose(pl.Series([text])).to_list() == [text]


def test_a_text_of_code_alone_leaves_nothing():
    assert prose(pl.Series(["```\nx\n```"])).to_list() == [""]


def test_texts_do_not_see_each_other():
    open_fence, table = "One.\n```", "| a |\n| b |\nc"
    texts = pl.Series(
        "text",
        [open_fence, "Two.\n```\nx\n```\nEnd.", "$$\ny", "| a |", table, "| a |", ">>> f", "b"],
    )
    together = prose(texts).to_list()
    assert together == [open_fence, "Two.\nEnd.", "$$\ny", "| a |", "c", "| a |", "", "b"]
    assert together == [prose(texts[row : row + 1])[0] for row in range(len(texts))]
    assert prose(texts.reverse()).to_list() == together[::-1]
