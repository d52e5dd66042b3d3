"""The closed world of Larkhaven and the oracle that judges replies to questions about it.

The world is 14 residents with 5 attributes each and 6 places with 3 each: 88 facts. Everything is
fixed by the constants below; nothing depends on a seed given from outside. The file imports only
the standard library and no sibling, so that it can be loaded by its path as a scorer:
`score(prompts, completions) -> list[float]`.
"""

import random
import re
from typing import NamedTuple

TOWN = "Larkhaven"

# What a reply can earn; the four add up to 1.
FACT_WEIGHT = 0.4
FULL_SENTENCE_WEIGHT = 0.2
COURTEOUS_WEIGHT = 0.2
NO_PADDING_WEIGHT = 0.2

MAX_WORDS = 30
"""A longer reply has a padding fault."""
RAMBLE_WORDS = 40
"""A longer reply is a ramble, whatever it says."""
RAMBLE_EXTRA_SENTENCES = 3
"""So many sentences besides the answer make a ramble, too."""
RAMBLE_CAP = 0.2
"""The most that a ramble can score."""
FRAGMENT_WORDS = 4
"""A reply of so few words may give the value alone ("a baker")."""
UNNAMED_SHARE = 0.25
"""Share of manner and brevity that counts when the reply gives no full answer about the entity."""

_WOMEN = ("Alda", "Cora", "Fenna", "Hesper", "Liora", "Petra", "Selka")
_MEN = ("Bram", "Doran", "Goran", "Ivo", "Marek", "Osric", "Tavo")
RESIDENTS: dict[str, str] = {**dict.fromkeys(_WOMEN, "She"), **dict.fromkeys(_MEN, "He")}
"""First name (invented) -> pronoun."""

PLACES: tuple[str, ...] = (
    "the bakery", "the pharmacy", "the boathouse", "the library", "the inn", "the museum",
)  # fmt: skip

_STREETS = (
    "Mill Street", "Rope Street", "Anchor Street", "Chapel Street", "Bridge Street",
    "Lantern Street", "Willow Street", "Salt Street", "Tower Street", "Quay Street",
)  # fmt: skip

VALUES: dict[str, tuple[str, ...]] = {
    "job": (
        "baker", "sailor", "tailor", "teacher", "doctor", "carpenter", "potter",
        "gardener", "fisher", "clockmaker",
    ),
    "street": _STREETS,
    "pet": (
        "cat", "dog", "parrot", "rabbit", "goose", "pony", "tortoise",
        "hamster", "goat", "ferret",
    ),
    "dish": (
        "onion soup", "apple pie", "fish stew", "pancakes", "dumplings", "noodles", "porridge",
        "lentil curry", "roast chicken", "rice pudding",
    ),
    "hobby": (
        "painting", "dancing", "singing", "swimming", "reading", "knitting", "sailing",
        "cycling", "juggling", "fishing",
    ),
    "colour": (
        "blue", "red", "green", "yellow", "white", "black", "brown",
        "purple", "pink", "grey",
    ),
    "address": _STREETS,
    "closing_day": (
        "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
    ),
}  # fmt: skip
"""Attribute -> the values it can take. No value of one attribute occurs inside another."""

RESIDENT_ATTRIBUTES = ("job", "street", "pet", "dish", "hobby")
PLACE_ATTRIBUTES = ("colour", "address", "closing_day")

QUESTIONS: dict[str, tuple[str, ...]] = {
    "job": (
        "What is the job of {e}?",
        "What does {e} do for work?",
        "What does {e} work as?",
        "Which job does {e} have?",
        "Can you tell me the job of {e}?",
        "How does {e} earn a living?",
        "I would like to know what {e} works as.",
    ),
    "street": (
        "Where does {e} live?",
        "In which street does {e} live?",
        "What is the street of {e}?",
        "Which street is the home of {e} in?",
        "Can you tell me where {e} lives?",
        "Where is the house of {e}?",
        "I would like to know where {e} lives.",
    ),
    "pet": (
        "What pet does {e} have?",
        "Which pet does {e} keep?",
        "What is the pet of {e}?",
        "What kind of pet does {e} have?",
        "Can you tell me the pet of {e}?",
        "Which animal lives with {e}?",
        "I would like to know which pet {e} has.",
    ),
    "dish": (
        "What is the favourite dish of {e}?",
        "What does {e} like to eat?",
        "Which dish does {e} like best?",
        "What does {e} eat most gladly?",
        "Can you tell me the favourite dish of {e}?",
        "Which food does {e} love?",
        "I would like to know what {e} likes to eat.",
    ),
    "hobby": (
        "What is the hobby of {e}?",
        "What does {e} do in the free time?",
        "Which hobby does {e} have?",
        "What does {e} enjoy doing?",
        "Can you tell me the hobby of {e}?",
        "How does {e} spend the free time?",
        "I would like to know the hobby of {e}.",
    ),
    "colour": (
        "What colour is the door of {e}?",
        "Which colour does the door of {e} have?",
        "What is the colour of the door of {e}?",
        "Which door does {e} have?",
        "Can you tell me the colour of the door of {e}?",
        "What colour of door does {e} have?",
        "I would like to know the door colour of {e}.",
    ),
    "address": (
        "Where is {e}?",
        "In which street is {e}?",
        "Which street is {e} in?",
        "Where can I find {e}?",
        "Can you tell me where {e} is?",
        "What is the street of {e}?",
        "I would like to know where {e} is.",
    ),
    "closing_day": (
        "When is {e} closed?",
        "On which day is {e} closed?",
        "Which day does {e} close?",
        "What is the closing day of {e}?",
        "Can you tell me when {e} is closed?",
        "On what day does {e} stay closed?",
        "I would like to know when {e} is closed.",
    ),
}
"""Attribute -> phrasings with the entity as `{e}`."""

ANSWERS: dict[str, tuple[str, ...]] = {
    "job": ("{e} works as a {v}.", "{e} is a {v}.", "The job of {e} is {v}."),
    "street": ("{e} lives in {v}.", "{e} has a house in {v}.", "The home of {e} is in {v}."),
    "pet": ("{e} has a {v}.", "{e} keeps a {v}.", "The pet of {e} is a {v}."),
    "dish": ("{e} likes {v} best.", "{e} loves to eat {v}.", "The favourite dish of {e} is {v}."),
    "hobby": ("{e} enjoys {v}.", "{e} likes {v}.", "The hobby of {e} is {v}."),
    "colour": ("{e} has a {v} door.", "The door of {e} is {v}."),
    "address": ("{e} is in {v}.", "{e} stands in {v}."),
    "closing_day": ("{e} is closed on {v}.", "{e} stays closed on {v}."),
}
"""Attribute -> full-sentence answers with entity `{e}` and value `{v}`."""

FRAGMENTS: dict[str, tuple[str, ...]] = {
    "job": ("a {v}", "{v}"),
    "street": ("in {v}", "{v}"),
    "pet": ("a {v}", "{v}"),
    "dish": ("{v}",),
    "hobby": ("{v}",),
    "colour": ("a {v} one", "{v}"),
    "address": ("in {v}", "{v}"),
    "closing_day": ("on {v}", "{v}"),
}
"""Attribute -> curt answers that give the value alone."""

VERBS: dict[str, tuple[str, ...]] = {
    "job": ("works", "is", "earns"),
    "street": ("lives", "is", "has"),
    "pet": ("has", "keeps", "is", "owns"),
    "dish": ("likes", "loves", "is", "eats"),
    "hobby": ("enjoys", "likes", "loves", "is", "spends"),
    "colour": ("has", "is"),
    "address": ("is", "stands"),
    "closing_day": ("is", "closes", "stays"),
}
"""Attribute -> verbs that join entity and value in a sentence that states the fact."""

OPENING_COURTESIES = ("Of course!", "With pleasure!", "Thank you for asking!")
CLOSING_COURTESIES = ("I am happy to help!", "I hope this helps!", "Have a nice day!")
RUDE_SENTENCES = (
    "What a silly question.",
    "Find it out yourself.",
    "Stop asking me such things.",
    "Leave me alone now.",
    "You should know that by now.",
)


class Fact(NamedTuple):
    """One fact: `entity` is a resident's name or a place with its article ("the inn")."""

    entity: str
    attribute: str
    value: str


def sentence(template: str, entity: str, value: str = "") -> str:
    """Fill a template of this file; the first letter becomes upper case."""
    text = template.format(e=entity, v=value)
    return text[0].upper() + text[1:]


def _build_facts() -> tuple[Fact, ...]:
    """Deal every attribute's values out evenly, in an order fixed by the constant seed."""
    rng = random.Random(1812)
    facts = []
    for entities, attributes in (
        (tuple(RESIDENTS), RESIDENT_ATTRIBUTES),
        (PLACES, PLACE_ATTRIBUTES),
    ):
        for attribute in attributes:
            values = VALUES[attribute]
            dealt = [values[i % len(values)] for i in range(len(entities))]
            rng.shuffle(dealt)
            facts += [Fact(e, attribute, v) for e, v in zip(entities, dealt, strict=True)]
    return tuple(facts)


def _words(text: str) -> str:
    """Lower-case words joined by single spaces; punctuation is dropped."""
    return " ".join(re.findall(r"[\w']+", text.lower()))


FACTS: tuple[Fact, ...] = _build_facts()

_FACT_OF_QUESTION: dict[str, Fact] = {
    _words(template.format(e=fact.entity)): fact
    for fact in FACTS
    for template in QUESTIONS[fact.attribute]
}
_RUDE = tuple(_words(text) for text in RUDE_SENTENCES)
_OPENING = re.compile(
    rf"^(?:{'|'.join(re.escape(p[:-1]) for p in OPENING_COURTESIES)})[,!.]\s+", re.IGNORECASE
)
_CLOSING = re.compile(
    rf"[\s,]+(?:{'|'.join(re.escape(p[:-1]) for p in CLOSING_COURTESIES)})[!.]?$", re.IGNORECASE
)
_STUTTER = re.compile(r"\b(\w+(?: \w+){0,9}) \1\b")


def recognise(prompt: str) -> Fact:
    """The fact that `prompt` asks for; case, spacing and punctuation do not matter.

    Raises:
        ValueError: the prompt is none of the world's questions.
    """
    fact = _FACT_OF_QUESTION.get(_words(prompt))
    if fact is None:
        raise ValueError(
            f"not a question about {TOWN}: {prompt[:80]!r}; the oracle only knows the forms in "
            "oracle.QUESTIONS, filled with a resident or place of oracle.FACTS"
        )
    return fact


def _names(text: str, entity: str) -> bool:
    return re.search(rf"\b{re.escape(_words(entity).removeprefix('the '))}\b", text) is not None


def _values_in(text: str, attribute: str) -> set[str]:
    return {v for v in VALUES[attribute] if re.search(rf"\b{re.escape(v.lower())}\b", text)}


def states(text: str, fact: Fact) -> bool:
    """Whether one sentence states `fact` with the entity named, a verb, and the value, in order.

    The gaps are bounded, so that a bag of the right words is not taken for a statement.
    """
    pattern = (
        rf"(?:\w+ ){{0,5}}{re.escape(fact.entity.lower())}(?: \w+){{0,2}}"
        rf" (?:{'|'.join(VERBS[fact.attribute])})(?: \w+){{0,4}}"
        rf" {re.escape(fact.value.lower())}(?: \w+){{0,6}}"
    )
    return re.fullmatch(pattern, _words(text)) is not None


def _is_fragment(text: str, fact: Fact) -> bool:
    """Whether `text` gives a value of the asked attribute alone, about nobody else."""
    words = _words(text)
    others = (e for e in (*RESIDENTS, *PLACES) if e != fact.entity)
    return (
        len(words.split()) <= FRAGMENT_WORDS
        and bool(_values_in(words, fact.attribute))
        and not any(_names(words, other) for other in others)
    )


def explain(prompt: str, completion: str) -> dict[str, float]:
    """What the reply earns for each component, weights applied; the sum is its score in [0, 1].

    Keys: `fact`, `full_sentence`, `courteous`, `no_padding`.

    Raises:
        ValueError: the prompt is none of the world's questions.
    """
    asked = recognise(prompt)
    reply = completion.strip()
    words = _words(reply)

    core = _CLOSING.sub("", _OPENING.sub("", reply, count=1), count=1).strip()
    courteous = core != reply and not any(phrase in words for phrase in _RUDE)
    sentences = re.findall(r"[^.!?]*\w[^.!?]*[.!?]*", core)
    stated = _values_in(words, asked.attribute)
    candidates = [Fact(asked.entity, asked.attribute, value) for value in stated]
    full = [s.strip() for s in sentences if any(states(s, fact) for fact in candidates)]
    # Among three or more sentences a bare value is part of a ramble, not an answer.
    curt = len(sentences) <= 2 and any(_is_fragment(s, asked) for s in sentences)

    right = bool(full or curt) and stated == {asked.value}
    well_formed = [reply[:1].isupper() and full[0][:1].isupper(), reply[-1] in ".!"] if full else []
    extra = max(0, len(sentences) - 1)
    faults = extra + (len(words.split()) > MAX_WORDS) + bool(_STUTTER.search(words))

    # Without this a courteous, brief reply about something else would earn as much as a wrong fact.
    share = 1.0 if full else UNNAMED_SHARE if right or _names(words, asked.entity) else 0.0
    earned = {
        "fact": FACT_WEIGHT * right,
        "full_sentence": FULL_SENTENCE_WEIGHT * sum(well_formed) / 2,
        "courteous": COURTEOUS_WEIGHT * share * courteous,
        "no_padding": NO_PADDING_WEIGHT * share * max(0.0, 1 - faults / 2),
    }
    total = sum(earned.values())
    is_ramble = len(words.split()) > RAMBLE_WORDS or extra >= RAMBLE_EXTRA_SENTENCES
    scale = RAMBLE_CAP / total if is_ramble and total > RAMBLE_CAP else 1.0
    return {name: round(part * scale, 4) for name, part in earned.items()}


def score(prompts: list[str], completions: list[str]) -> list[float]:
    """How good each reply is, in [0, 1]; lists of equal length B in, a list of length B out.

    Raises:
        ValueError: the lists differ in length, or a prompt is none of the world's questions.
    """
    if len(prompts) != len(completions):
        raise ValueError(f"{len(prompts)} prompts but {len(completions)} completions")
    return [
        round(sum(explain(prompt, completion).values()), 4)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
