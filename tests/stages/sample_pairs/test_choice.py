"""Which pairs are worth a person's time."""

import pytest

from stages.sample_pairs.choice import MAX_PAIRS_A_PROMPT, choose, possible_choice, worth


@pytest.mark.parametrize(
    ("wanted", "num_reward_models", "possible"),
    [
        ("disagreement", 2, "disagreement"),
        ("disagreement", 1, "margin"),
        ("disagreement", 0, "random"),
        ("margin", 2, "margin"),
        ("margin", 0, "random"),
        ("random", 2, "random"),
    ],
)
def test_what_reward_models_cannot_tell_decides_nothing(wanted, num_reward_models, possible):
    assert possible_choice(wanted, num_reward_models) == possible


def test_the_figures_order_the_pairs(make_pair):
    pairs = [
        make_pair(f"prompt {n}", margin=margin, disagreement=disagreement)
        for n, (margin, disagreement) in enumerate([(-0.1, 0.5), (2.0, 3.0), (0.3, 0.0)])
    ]
    by = {
        choice: [pairs.index(pair) for pair in choose(pairs, 3, choice, seed=0)]
        for choice in ("disagreement", "margin")
    }
    assert by == {"disagreement": [1, 0, 2], "margin": [0, 2, 1]}
    assert worth(pairs[0], "margin") == -0.1


def test_one_pair_a_prompt_before_a_second_and_never_more_than_a_few(make_pair):
    many = [make_pair("one", a=f"reply {n}", margin=0.0) for n in range(9)]
    other = make_pair("ONE  ", a="the same prompt", margin=0.0)
    single = make_pair("two", margin=5.0)
    chosen = choose([*many, other, single], 100, "margin", seed=0)
    assert single in chosen[:2]
    assert len(chosen) == MAX_PAIRS_A_PROMPT + 1
    assert choose(chosen, 2, "margin", seed=0) == chosen[:2]


def test_chance_follows_the_seed_and_not_the_order(make_pair):
    pairs = [make_pair(f"prompt {n}") for n in range(50)]
    first = choose(pairs, 10, "random", seed=1)
    assert choose(pairs[::-1], 10, "random", seed=1) == first
    assert choose(pairs, 10, "random", seed=2) != first


def test_a_pair_without_the_figure_is_refused(make_pair):
    with pytest.raises(ValueError, match="has no disagreement"):
        choose([make_pair(margin=1.0)], 1, "disagreement", seed=0)
