"""What names a pair, and which prompts are set apart."""

from stages.core.feedback.pairs import is_reserved, pair_id

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
