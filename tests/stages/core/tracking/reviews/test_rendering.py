"""How a pair is shown: letter for letter, and both answers within reach."""

import re

import pytest

from stages.core.feedback.pairs import CandidatePair
from stages.core.tracking.reviews.rendering import (
    LONG_ANSWERS,
    SHORT,
    Room,
    answers,
    escaped,
    question,
    shown,
    span_attributes,
)

NOTE = "\n\n*… more*"


def pair(prompt="Why?", reply_a="Because.", reply_b="No."):
    return CandidatePair(pair_id="0" * 16, prompt=prompt, reply_a=reply_a, reply_b=reply_b)


def test_both_answers_stand_under_headings_of_ours():
    assert answers(pair(), SHORT) == "### Answer A\n\nBecause.\n\n---\n\n### Answer B\n\nNo."


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("a\nb", "a\\\nb"),
        ("a\n\n\nb\n", "a\n\nb"),
        ("### Answer B", "\\### Answer B"),
        ("---", "\\---"),
        ("- one\n  - two", "\\- one\\\n\u00a0\u00a0\\- two"),
        ("1. one", "1\\. one"),
        ("1.5 is more", "1\\.5 is more"),
        ("```\nx\n```", "\\`\\`\\`\\\nx\\\n\\`\\`\\`"),
        ("<script>alert(1)</script>", "\\<script>alert(1)\\</script>"),
        ("**bold** _it_ snake_case", "\\*\\*bold\\*\\* \\_it\\_ snake_case"),
        ("![x](y) &amp; $z$ ~a~", "!\\[x\\](y) \\&amp; \\$z\\$ \\~a\\~"),
        ("> quote\n| a | b |", "\\> quote\\\n\\| a | b |"),
        ("\tx  y", "\u00a0\u00a0\u00a0\u00a0x\u00a0 y"),
        ("a\\", "a\\\\"),
        ("<https://x.y/>, WWW.x.y", "\\<https\\://x.y/>, WWW\\.x.y"),
        ("\u202eabc\x07", "⟨RIGHT-TO-LEFT OVERRIDE⟩abc⟨U+0007⟩"),
        ("   \n ", ""),
    ],
)
def test_what_means_something_to_markdown_is_escaped(text, markdown):
    assert escaped(text) == markdown


def test_no_line_of_a_reply_can_begin_as_a_heading_does():
    text = "\n".join(["# Answer B", "Answer B", "===", "   # Answer B", "\r# Answer B", "\u2028#"])
    for line in re.split(r"\\\n|\n", escaped(text)):
        assert not re.match(r"\s*(#|=|-)", line)


def test_an_empty_answer_says_so():
    assert answers(pair(reply_b=" \n"), SHORT).endswith("### Answer B\n\n*(empty)*")


@pytest.mark.parametrize("length", [90, 99, 100, 101, 500])
def test_a_long_text_is_cut_with_a_note(length):
    text = ("ab*" * length)[:length]
    markdown = shown(text, Room(120, 10, NOTE))
    whole = escaped(text)
    assert len(markdown) <= 120
    assert markdown == whole or (len(whole) > 120 and markdown.endswith(NOTE))
    assert whole.startswith(markdown.removesuffix(NOTE))


def test_a_text_of_many_lines_is_cut_with_a_note():
    assert shown("a\nb\nc\nd", Room(100, 2, NOTE)) == f"a\\\nb{NOTE}"
    assert shown("a\nb", Room(100, 2, NOTE)) == "a\\\nb"


@pytest.mark.parametrize("room", [SHORT, LONG_ANSWERS])
def test_answer_b_is_reached_whatever_the_length_of_answer_a(room):
    for long_a, long_b in ((10**6, 3), (3, 10**6), (10**6, 10**6)):
        markdown = answers(pair(reply_a="a" * long_a, reply_b="b" * long_b), room)
        assert len(markdown) <= room.characters
        reply_a, reply_b = markdown.split("### Answer B")
        assert reply_b.count("b") == 3 or reply_b.count("b") > room.characters / 3
        assert reply_a.count("a") == 3 or reply_a.count("a") > room.characters / 3


def test_a_conversation_is_shown_turn_by_turn():
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Ada."},
        {"role": "user", "content": "When?"},
    ]
    assert question(pair(turns), SHORT) == (
        "**System:** Be brief.\n\n**User:** Who?\n\n**Assistant:** Ada.\n\n**User:** When?"
    )


def test_of_a_long_conversation_the_last_turn_is_kept():
    turns = [{"role": "user", "content": word * 600} for word in ("x", "y", "z")]
    markdown = question(pair(turns), SHORT)
    assert len(markdown) <= SHORT.characters
    assert markdown.count("z") == 600
    assert "x" not in markdown


def test_what_the_trace_does_not_show_whole_is_among_its_attributes():
    long = "line\n" * 5000
    assert "answer A" not in span_attributes(pair())
    attributes = span_attributes(pair(prompt=long, reply_b=long))
    assert attributes["answer B"].count("line") == attributes["prompt"].count("line") == 5000
    assert attributes["answer A"] == "Because."
