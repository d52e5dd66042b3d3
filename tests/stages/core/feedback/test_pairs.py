"""What names a pair, and which prompts are set apart."""

import pytest

from stages.core.errors import UserError
from stages.core.feedback.pairs import (
    PAIRS_FILE,
    CandidatePair,
    is_reserved,
    pair_id,
    read_pairs,
    write_pairs,
)

MESSAGES = [{"role": "user", "content": "Who runs the bakery?"}]


def test_a_pair_is_named_without_regard_to_its_sides():
    assert pair_id("q", "one", "two") == pair_id("q", "two", "one")
    assert pair_id("q", "one", "two") != pair_id("q", "one", "three")
    assert pair_id("q", "one", "two") != pair_id("p", "one", "two")


def test_about_the_share_of_the_prompts_is_reserved():
    prompts = [f"question {number}" for number in range(2000)]
    reserved = {prompt for prompt in prompts if is_reserved(prompt, 0.2)}
    assert 340 < len(reserved) < 460
    assert reserved <= {prompt for prompt in prompts if is_reserved(prompt, 0.3)}
    assert not any(is_reserved(prompt, 0.0) for prompt in prompts)
    assert all(is_reserved(prompt, 1.0) for prompt in prompts)


def test_case_space_and_the_shape_of_a_prompt_do_not_move_it():
    share = 0.5
    for prompt in ("Who runs the bakery?", " who RUNS  the bakery?\n", MESSAGES):
        assert is_reserved(prompt, share) == is_reserved("Who runs the bakery?", share)


def test_pairs_are_read_as_they_were_written_from_the_file_or_its_folder(tmp_path):
    pairs = [
        CandidatePair(pair_id="1", prompt="Größe?", reply_a="木", reply_b="", purpose="gold"),
        CandidatePair(pair_id="2", prompt=MESSAGES, reply_a="Ada", reply_b="Bea", margin=-0.5),
    ]
    write_pairs(tmp_path / PAIRS_FILE, pairs)
    assert read_pairs(tmp_path) == read_pairs(tmp_path / PAIRS_FILE) == pairs


def test_what_is_no_pair_is_named_with_its_line(tmp_path):
    with pytest.raises(UserError, match=r"pairs.jsonl: no such file; name one"):
        read_pairs(tmp_path)
    file = tmp_path / PAIRS_FILE
    write_pairs(file, [CandidatePair(pair_id="1", prompt="q", reply_a="a", reply_b="b")])
    with file.open("a") as more:
        more.write('{"pair_id": "2", "prompt": "q", "reply_a": "a"}\n')
    with pytest.raises(UserError, match=r"pairs.jsonl:2: no pair: reply_b: field required$"):
        read_pairs(file)
