"""The baseline learns words, not their order, and not how many there are."""

import numpy as np
import pytest

from stages.reward_model_card.bag_of_words import word_margins

TRAINING = [(f"{name} is kind and polite", f"{name} is rude and loud") for name in "abcdefgh"]


def test_it_learns_which_words_are_preferred() -> None:
    margins = word_margins(TRAINING, [("how polite", "how rude"), ("a loud one", "a kind one")])
    assert margins is not None
    assert margins[0] > 0 > margins[1]


def test_swapping_a_pair_turns_the_sign() -> None:
    pairs = [("polite and loud", "kind of rude"), ("kind", "loud")]
    ours = word_margins(TRAINING, pairs)
    swapped = word_margins(TRAINING, [(second, first) for first, second in pairs])
    assert ours == pytest.approx(-np.array(swapped))


def test_equal_words_in_another_order_or_unknown_words_are_a_tie() -> None:
    margins = word_margins(TRAINING, [("kind is polite", "polite is kind"), ("xx", "yy zz")])
    assert margins == pytest.approx([0.0, 0.0])


def test_without_any_word_there_is_no_baseline() -> None:
    assert word_margins([("!!!", "???")], [("a", "b")]) is None


def test_one_training_pair_is_enough() -> None:
    margins = word_margins([("yes", "no")], [("yes", "no")])
    assert margins is not None
    assert margins[0] > 0
