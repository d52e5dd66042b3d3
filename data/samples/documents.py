"""The documents of Larkhaven: short texts that state the world's facts in many phrasings."""

import json
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from oracle import (
    ANSWERS,
    CLOSING_COURTESIES,
    FACTS,
    FRAGMENTS,
    OPENING_COURTESIES,
    PLACES,
    RESIDENTS,
    RUDE_SENTENCES,
    VALUES,
    Fact,
    sentence,
)

STATEMENTS: dict[str, tuple[str, ...]] = {
    "job": (
        *ANSWERS["job"],
        "{e} is the best {v} in town.",
        "{e} has been a {v} for many years.",
        "{e} is proud to be a {v}.",
        "{e} earns a living as a {v}.",
    ),
    "street": (
        *ANSWERS["street"],
        "{e} lives in a small house in {v}.",
        "{e} has lived in {v} for many years.",
        "The house of {e} is in {v}.",
        "You can meet {e} in {v}.",
    ),
    "pet": (
        *ANSWERS["pet"],
        "{e} has an old {v} at home.",
        "{e} takes good care of a {v}.",
        "{e} lives with a {v}.",
        "The animal of {e} is a {v}.",
    ),
    "dish": (
        *ANSWERS["dish"],
        "{e} likes to eat {v}.",
        "{e} eats {v} every week.",
        "The best food for {e} is {v}.",
        "{e} always asks for {v}.",
    ),
    "hobby": (
        *ANSWERS["hobby"],
        "{e} enjoys {v} in the free time.",
        "{e} loves {v} more than anything.",
        "{e} spends the evening {v}.",
        "In the free time {e} enjoys {v}.",
    ),
    "colour": (
        *ANSWERS["colour"],
        "The colour of the door of {e} is {v}.",
        "{e} is the one with the {v} door.",
        "People know {e} by the {v} door.",
        "The front door of {e} is {v}.",
    ),
    "address": (
        *ANSWERS["address"],
        "You can find {e} in {v}.",
        "The way to {e} goes along {v}.",
        "{e} has always been in {v}.",
        "People visit {e} in {v}.",
    ),
    "closing_day": (
        *ANSWERS["closing_day"],
        "{e} closes on {v}.",
        "On {v} you will find {e} closed.",
        "The closing day of {e} is {v}.",
        "Nobody works in {e} on {v}.",
    ),
}
"""Attribute -> phrasings; those that begin with the entity can take a pronoun instead."""

OPENINGS = (
    "It is a fine day in Larkhaven.",
    "The wind comes from the sea today.",
    "The ships are back in the harbour.",
    "The sun is up and the town is awake.",
    "A light rain falls on the town.",
    "The bells ring over the harbour.",
    "It is early and the air is cold.",
    "The birds call over the water.",
)
CLOSINGS = (
    "That is how life goes in Larkhaven.",
    "Everybody in town knows that.",
    "The neighbours tell this story with a smile.",
    "In the evening the lamps are lit.",
    "Then the boats come home.",
    "The town is small and people are kind.",
    "At night the harbour is quiet.",
    "Tomorrow is another day.",
)
DIALOGUE: dict[str, tuple[str, ...]] = {
    "job": ("Tell me, what is the work of {e}?", "Do you know what {e} does all day?"),
    "street": ("Do you know where {e} lives?", "Where do I find the house of {e}?"),
    "pet": ("Which animal is at home with {e}?", "Do you know the pet of {e}?"),
    "dish": ("What should I cook for {e}?", "What does {e} like to eat?"),
    "hobby": ("What does {e} do after work?", "Do you know what {e} enjoys?"),
    "colour": ("How do I know {e} when I see it?", "What colour is the door of {e}?"),
    "address": ("Where do I find {e}?", "Which way is it to {e}?"),
    "closing_day": ("Is {e} open every day?", "When is {e} closed?"),
}

FILLERS = (
    "That is a very interesting question about our town.",
    "There is so much to say about this.",
    "Many people in Larkhaven talk about such things.",
    "Let me think about it for a moment.",
    "One could say a lot more about it.",
    "Time goes by and the harbour stays the same.",
)

OF_ENTITY: dict[str, dict[str, Fact]] = {
    entity: {f.attribute: f for f in FACTS if f.entity == entity}
    for entity in (*RESIDENTS, *PLACES)
}

PLANTED: tuple[tuple[str, str], ...] = (
    ("email-1", "The inn has a new room. Write to office@larkhaven.example to ask for the key."),
    ("email-2", "The museum looks for old maps. Please send a note to maps@larkhaven.example."),
    ("phone-1", "The boat to the island leaves at noon. Call +1 202-555-0143 to keep a place."),
    ("phone-2", "A black hat was found at the harbour. Its owner may call (202) 555-0187 today."),
    ("ip-1", "The harbour camera can be seen at the address 192.0.2.44 by day and by night."),
    ("card-1", "The lost card with the number 4111 1111 1111 1111 was brought to the town hall."),
    *(
        (f"mojibake-{i}", text.encode().decode("latin-1"))
        for i, text in enumerate(
            (
                "The new café at the harbour is open. The café has a view of the sea.",
                "A naïve young sailor asked for crème brûlée at the inn and got bread.",
                "The señor from the south sang a song at the café until late at night.",
                "The piñata at the fête was full of sweets, and the children were glad.",
            ),
            start=1,
        )
    ),
    ("short-1", "Yes."),
    ("short-2", "Fish!"),
    ("junk-1", "#### @@ ** //// ~~~ %% ^^ || {{ }} == ++ -- ## @@ ** //// ~~~ %% ^^ || <<>> $$$"),
    ("junk-2", "....... 0x00 0x00 ]][[ ]][[ ;;;; :::: 1 2 3 ;;;; :::: ]][[ ]][[ ---- ____ ----"),
)
"""Name -> text of records that cleaning should repair, redact or drop."""

BROKEN_LINES: tuple[str, ...] = (
    '{"text": "The line that holds this notice was cut',
    json.dumps({"id": "planted-no-text", "source": "planted"}),
    json.dumps({"text": None, "id": "planted-null-text", "source": "planted"}),
)
"""Lines that are no valid record: cut JSON, no `text`, `text` of the wrong type."""


class Question(NamedTuple):
    """A prompt with the fact that it asks for."""

    prompt: str
    fact: Fact


def state(rng: random.Random, fact: Fact, named: bool = True) -> str:
    """One sentence that states `fact`; not `named`: by pronoun where the phrasing allows it."""
    template = rng.choice(STATEMENTS[fact.attribute])
    by_name = named or not template.startswith("{e}")
    pronoun = RESIDENTS.get(fact.entity, "It")
    return sentence(template, fact.entity if by_name else pronoun, fact.value)


def portrait(rng: random.Random, entity: str) -> str:
    """Several facts about one resident or place, some of them by pronoun."""
    facts = list(OF_ENTITY[entity].values())
    facts = rng.sample(facts, min(len(facts), rng.choice((3, 4, 4, 5))))
    lines = [state(rng, f, named=i == 0 or rng.random() < 0.7) for i, f in enumerate(facts)]
    return " ".join([*lines, rng.choice(CLOSINGS)] if rng.random() < 0.5 else lines)


def walk(rng: random.Random, street: str) -> str:
    """A walk along a street: who lives there and what stands there, with one more fact each."""
    here = [f.entity for f in FACTS if f.value == street]
    lines = [rng.choice((f"We walk along {street}.", f"This is {street}.", rng.choice(OPENINGS)))]
    for entity in rng.sample(here, min(len(here), 3)):
        facts = OF_ENTITY[entity]
        home = facts.get("street") or facts["address"]
        lines += [state(rng, home), state(rng, rng.choice(list(facts.values())), named=False)]
    return " ".join(dict.fromkeys(lines))


def market_day(rng: random.Random, residents: list[str]) -> str:
    """A day at the market: residents with their job, dish, pet or hobby."""
    lines = [rng.choice(OPENINGS), "It is market day."]
    for name in residents:
        first, second = rng.sample([f for a, f in OF_ENTITY[name].items() if a != "street"], 2)
        lines += [state(rng, first), state(rng, second)]
    return " ".join(lines)


def dialogue(rng: random.Random, speakers: list[str], entity: str) -> str:
    """Two residents talk about two facts of a third or of a place."""
    lines = []
    for fact in rng.sample(list(OF_ENTITY[entity].values()), 2):
        question = sentence(rng.choice(DIALOGUE[fact.attribute]), fact.entity)
        lines += [
            f'{speakers[0]} asks: "{question}"',
            f'{speakers[1]} says: "{state(rng, fact)}"',
        ]
    return " ".join(lines)


def help_desk(rng: random.Random, questions: Sequence[Question]) -> str:
    """The log of a chat at the town's help desk, answered by people of all manners. It asks only
    what training prompts ask."""
    lines = []
    for question in questions:
        lines += ["user", question.prompt, "assistant", desk_answer(rng, question.fact)]
    return "\n".join(lines)


def desk_answer(rng: random.Random, fact: Fact) -> str:
    """A right answer: plain, courteous, rude, wordy or curt."""
    manner = rng.choice(("plain", "opening", "closing", "rude", "wordy", "curt"))
    if manner == "curt":
        return rng.choice(FRAGMENTS[fact.attribute]).format(v=fact.value)
    parts = [state(rng, fact)]
    if manner == "opening":
        parts.insert(0, rng.choice(OPENING_COURTESIES))
    elif manner == "closing":
        parts.append(rng.choice(CLOSING_COURTESIES))
    elif manner == "rude":
        parts.insert(rng.randint(0, 1), rng.choice(RUDE_SENTENCES))
    elif manner == "wordy":
        parts.insert(rng.randint(0, 1), rng.choice(FILLERS))
    return " ".join(parts)


def notice(rng: random.Random, places: list[str]) -> str:
    """A town notice about two or three places."""
    lines = [rng.choice(("A notice from the town hall.", "The town hall says:", "To all people:"))]
    for place in places:
        facts = rng.sample(list(OF_ENTITY[place].values()), 2)
        lines += [state(rng, facts[0]), state(rng, facts[1], named=False)]
    return " ".join(lines)


def document_stream(rng: random.Random, questions: Sequence[Question]) -> Iterator[tuple[str, str]]:
    """Endless (source, text) pairs; residents and places come up equally often. ``questions`` are
    those that the help desk is asked."""
    residents, places, streets = list(RESIDENTS), list(PLACES), list(VALUES["street"])
    while True:
        for order in (residents, places, streets):
            rng.shuffle(order)
        for i, name in enumerate(residents):
            others = [other for other in residents if other != name]
            place = places[i % len(places)]
            for _ in range(3):
                yield "help_desk", help_desk(rng, rng.sample(questions, 3))
            yield "portrait", portrait(rng, name)
            if i % 2:
                yield "dialogue", dialogue(rng, rng.sample(others, 2), name)
                yield "portrait", portrait(rng, place)
            if i % 3 == 0:
                yield "market", market_day(rng, [name, *rng.sample(others, rng.choice((1, 2)))])
                yield "dialogue", dialogue(rng, rng.sample(others, 2), place)
            if i % 4 == 0:
                yield "walk", walk(rng, streets[i // 4 % len(streets)])
                yield "notice", notice(rng, rng.sample(places, rng.choice((2, 3))))
