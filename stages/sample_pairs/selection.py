"""Which pairs are asked about, for which purpose, in which order, and which reply stands first."""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from stages.core.config import SamplePairsConfig
from stages.core.feedback.pairs import CandidatePair, Purpose, is_reserved, pair_id
from stages.sample_pairs.choice import Choice, choose

OTHER_SIDE = {"a": "b", "b": "a"}


def quotas(config: SamplePairsConfig, num_gold: int) -> dict[Purpose, int]:
    """How many pairs are wanted for each purpose, where there are ``num_gold`` gold pairs."""
    gold = min(round(config.gold_share * config.num_pairs), num_gold)
    evaluation = min(round(config.random_share * config.num_pairs), config.num_pairs - gold)
    return {"chosen": config.num_pairs - gold - evaluation, "random": evaluation, "gold": gold}


def select(
    candidates: Sequence[CandidatePair],
    gold: Sequence[CandidatePair],
    choice: Choice,
    config: SamplePairsConfig,
) -> dict[Purpose, list[CandidatePair]]:
    """The pairs for each purpose: of the prompts set apart at random, of the others by ``choice``.
    Where there are not enough of one purpose, there is none of another in their place."""
    wanted = quotas(config, len(gold))
    pools: dict[bool, list[CandidatePair]] = {True: [], False: []}
    for pair in candidates:
        pools[is_reserved(pair.prompt, config.random_share)].append(pair)
    found = {
        "chosen": choose(pools[False], wanted["chosen"], choice, config.seed),
        "random": choose(pools[True], wanted["random"], "random", config.seed),
    }
    asked = {pair.pair_id for pairs in found.values() for pair in pairs}
    known_answers = [pair for pair in gold if pair.pair_id not in asked]
    found["gold"] = choose(known_answers, wanted["gold"], "random", config.seed)
    return {
        purpose: [pair.model_copy(update={"purpose": purpose}) for pair in pairs]
        for purpose, pairs in found.items()
    }


def gold_pairs(
    rows: Iterable[Mapping[str, Any]], known: Collection[str] = ()
) -> list[CandidatePair]:
    """Preferences whose answer is beyond doubt, each once, as pairs whose answer is known."""
    found = {}
    for row in rows:
        name = pair_id(row["prompt"], row["chosen"], row["rejected"])
        if name not in known:
            found[name] = CandidatePair(
                pair_id=name,
                prompt=row["prompt"],
                reply_a=row["chosen"],
                reply_b=row["rejected"],
                purpose="gold",
                expected="a",
            )
    return list(found.values())


def in_order_of_asking(
    selected: Mapping[Purpose, Sequence[CandidatePair]], seed: int
) -> list[CandidatePair]:
    """All pairs with their sides shuffled. The purposes are mixed evenly, in the order that they
    have among themselves: whoever stops half-way has answered about half of each."""
    draw = random.Random(f"{seed}/order")
    places = [
        ((number + draw.random()) / len(pairs), shuffled(pair, seed))
        for pairs in selected.values()
        for number, pair in enumerate(pairs)
    ]
    return [pair for _, pair in sorted(places, key=lambda place: place[0])]


def shuffled(pair: CandidatePair, seed: int) -> CandidatePair:
    """The pair with its replies in an order that the seed draws for it alone."""
    if random.Random(f"{seed}/{pair.pair_id}/sides").random() < 0.5:
        return pair
    expected = OTHER_SIDE.get(pair.expected, pair.expected) if pair.expected else None
    return pair.model_copy(
        update={
            "reply_a": pair.reply_b,
            "reply_b": pair.reply_a,
            "model_a": pair.model_b,
            "model_b": pair.model_a,
            "expected": expected,
            "margin": None if pair.margin is None else -pair.margin,
        }
    )
