"""Purposes, order and sides of the pairs."""

from itertools import islice

from stages.core.config import SamplePairsConfig
from stages.core.feedback.pairs import is_reserved
from stages.sample_pairs.selection import (
    gold_pairs,
    in_order_of_asking,
    quotas,
    select,
    shuffled,
)

ROWS = [{"prompt": f"Is {n} a number?", "chosen": "Yes.", "rejected": "No."} for n in range(30)]


def test_quotas_by_hand():
    config = SamplePairsConfig(num_pairs=200, random_share=0.2, gold_share=0.05)
    assert quotas(config, num_gold=400) == {"chosen": 150, "random": 40, "gold": 10}
    assert quotas(config, num_gold=3) == {"chosen": 157, "random": 40, "gold": 3}
    everything = SamplePairsConfig(num_pairs=10, random_share=1.0, gold_share=0.2)
    assert quotas(everything, num_gold=9) == {"chosen": 0, "random": 8, "gold": 2}


def test_prompts_set_apart_are_for_evaluation_alone(make_pair):
    candidates = [make_pair(f"prompt {n}", margin=float(n)) for n in range(200)]
    config = SamplePairsConfig(num_pairs=40, random_share=0.25, gold_share=0.1)
    found = select(candidates, gold_pairs(ROWS), "margin", config)
    assert {name: len(pairs) for name, pairs in found.items()} == {
        "chosen": 26,
        "random": 10,
        "gold": 4,
    }
    assert all(is_reserved(pair.prompt, 0.25) for pair in found["random"])
    others = [pair for pair in candidates if not is_reserved(pair.prompt, 0.25)]
    assert [pair.prompt for pair in found["chosen"]] == [p.prompt for p in islice(others, 26)]
    assert all(pair.purpose == name for name, pairs in found.items() for pair in pairs)


def test_a_shortage_is_not_filled_from_the_prompts_set_apart(make_pair):
    apart = next(f"prompt {n}" for n in range(99) if is_reserved(f"prompt {n}", 0.2))
    config = SamplePairsConfig(num_pairs=10, random_share=0.2)
    found = select([make_pair(apart)], [], "random", config)
    assert {name: len(pairs) for name, pairs in found.items()} == {
        "chosen": 0,
        "random": 1,
        "gold": 0,
    }


def test_gold_pairs_come_once_and_never_again():
    (first, *others) = gold_pairs([*ROWS, ROWS[0]])
    assert len(others) == 29
    assert (first.expected, first.purpose) == ("a", "gold")
    assert first not in gold_pairs(ROWS, known={first.pair_id})


def test_sides_change_with_all_that_belongs_to_them(make_pair):
    pairs = [
        make_pair(
            f"prompt {n}",
            model_a="policy",
            model_b="sft",
            margin=1.0,
            disagreement=0.5,
            expected="a",
        )
        for n in range(200)
    ]
    turned = [pair for pair in (shuffled(pair, 3) for pair in pairs) if pair.reply_a != "Here."]
    assert 70 < len(turned) < 130
    for pair in turned:
        assert (pair.reply_a, pair.model_a, pair.reply_b, pair.model_b) == (
            "There.",
            "sft",
            "Here.",
            "policy",
        )
        assert (pair.margin, pair.disagreement, pair.expected) == (-1.0, 0.5, "b")
    same = make_pair(expected="both_bad")
    assert {shuffled(same, seed).expected for seed in range(9)} == {"both_bad"}


def test_half_of_the_way_has_half_of_each_purpose(make_pair):
    chosen = [make_pair(f"prompt {n}") for n in range(80)]
    gold = gold_pairs(ROWS[:20])
    asked = in_order_of_asking({"chosen": chosen, "random": [], "gold": gold}, seed=0)
    assert {pair.pair_id for pair in asked} == {pair.pair_id for pair in [*chosen, *gold]}
    assert sum(pair.purpose == "gold" for pair in asked[:50]) in (9, 10, 11)
    order = [pair.prompt for pair in asked if pair.purpose == "chosen"]
    assert order == [pair.prompt for pair in chosen]
    assert in_order_of_asking({"chosen": chosen, "gold": gold}, seed=1) != asked
