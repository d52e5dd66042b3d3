import time

import pytest

from stages.clean.pieces import pieces


def test_a_short_text_stays_whole():
    assert pieces("One. Two.", 9) == ["One. Two."]
    assert pieces("", 9) == [""]


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("First paragraph.\n\nSecond one.", 20, ["First paragraph.", "Second one."]),
        ("A line here\nand another", 14, ["A line here", "and another"]),
        ("One two. Three four five", 12, ["One two.", "Three four", "five"]),
        ("He said “No.” She left.", 16, ["He said “No.”", "She left."]),
        (
            "今天天气很好。我们出去玩吧！真的很好。",
            10,
            ["今天天气很好。", "我们出去玩吧！", "真的很好。"],
        ),
        ("word " * 6, 13, ["word word", "word word", "word word"]),
        ("x" * 25, 10, ["x" * 10, "x" * 10, "x" * 5]),
    ],
)
def test_cut_at_the_best_break_in_the_second_half(text, limit, expected):
    assert pieces(text, limit) == expected


def test_nothing_but_white_space_is_lost():
    text = "\n\n".join(
        f"Paragraph {n} says this. And it says that.\nOn two lines." for n in range(50)
    )
    parts = pieces(text, 200)
    assert max(map(len, parts)) <= 200
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_a_block_of_code_is_not_cut_where_it_fits():
    code = "```python\nx = 1\n\ny = 2\n```"
    text = f"{'Words of an introduction. ' * 2}\n\n{code}\n\nThe end."
    assert pieces(text, 60)[1].startswith(code)


def test_work_grows_with_the_text_alone():
    text = "word " * 1_000_000
    started = time.process_time()
    assert len(pieces(text, 100_000)) == 50
    assert len(pieces("x" * 5_000_000, 1000)) == 5000
    assert time.process_time() - started < 3  # .4 s; minutes where each cut reads what is left
