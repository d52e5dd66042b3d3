"""Write the demo data of Larkhaven: `python data/samples/generate.py [--seed 7] [--out DIR]`.

The same seed gives the same bytes. Documents state every fact of the world; demonstrations,
preferences and prompts are built from the oracle's question and answer forms with flaws and label
noise of known size (see data/README.md).
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))  # for when this file is loaded by its path

from documents import BROKEN_LINES, FILLERS, PLANTED, Question, document_stream
from oracle import (
    ANSWERS,
    CLOSING_COURTESIES,
    FACTS,
    FRAGMENTS,
    OPENING_COURTESIES,
    QUESTIONS,
    RUDE_SENTENCES,
    VALUES,
    Fact,
    score,
    sentence,
)

DOCUMENTS = 3400
DOCUMENTS_HELD_OUT = 140
SFT, SFT_HELD_OUT = 4000, 300
PREFERENCES, PREFERENCES_HELD_OUT = 4000, 400
PROMPTS, PROMPTS_HELD_OUT = 450, 140
LABELLED, LABELLED_HELD_OUT = 400, 120
TOXIC_SHARE = 0.4

HELD_OUT_FACT_SHARE = 0.12
FACT_ONLY_SHARE = 0.05
PERFECT_SHARE = 0.75
"""Share of the other pairs in which one reply is perfect."""
TIE_SHARE = 0.04
NEAR_TIE = 0.15
"""Oracle gap up to which length sways the annotator."""
FLIP = 0.10
"""Chance of a wrong label outside near-ties."""
FLIP_TO_LONGER, FLIP_TO_SHORTER = 0.24, 0.06
"""Chance of a wrong label in a near-tie, when the worse reply is longer and when it is not."""


class Traits(NamedTuple):
    """What a reply is like; the defaults are those of a perfect one."""

    right: bool = True
    form: str = "full"
    """full, curt (the value alone), cut_off, empty (manners alone), off_topic (a fact of somebody
    else), or unrelated (a sentence from the documents)."""
    manner: str = "courteous"
    """courteous, plain or rude."""
    fillers: int = 0
    repeats: int = 0


# Weights in per cent. Hurried people write like this: a third without a flaw.
DEMONSTRATIONS: tuple[tuple[int, Traits], ...] = (
    (34, Traits()),
    (4, Traits(right=False)),
    (5, Traits(right=False, manner="plain")),
    (4, Traits(right=False, form="curt", manner="plain")),
    (3, Traits(right=False, manner="rude", fillers=1)),
    (14, Traits(form="curt", manner="plain")),
    (9, Traits(form="curt", manner="rude")),
    (3, Traits(manner="plain")),
    (3, Traits(manner="rude")),
    (2, Traits(fillers=2)),
    (4, Traits(manner="plain", fillers=2)),
    (4, Traits(manner="plain", repeats=1)),
    (5, Traits(manner="rude", fillers=1)),
    (6, Traits(form="cut_off", manner="plain")),
)

# Wider than the demonstrations: the reward model must also place replies that are rarely written.
PREFERENCE_REPLIES: tuple[tuple[int, Traits], ...] = (
    (14, Traits()),
    (8, Traits(manner="plain")),
    (12, Traits(manner="rude")),
    (5, Traits(fillers=1)),
    (9, Traits(fillers=2)),
    (8, Traits(repeats=1)),
    (6, Traits(manner="plain", fillers=1)),
    (8, Traits(manner="plain", repeats=2)),
    (8, Traits(manner="plain", fillers=3)),
    (5, Traits(form="curt", manner="plain")),
    (3, Traits(form="curt")),
    (4, Traits(form="curt", manner="rude")),
    (4, Traits(form="cut_off", manner="plain")),
    (2, Traits(form="cut_off")),
    (4, Traits(right=False)),
    (3, Traits(right=False, manner="plain")),
    (2, Traits(right=False, manner="rude")),
    (2, Traits(right=False, form="curt", manner="plain")),
    (1, Traits(right=False, fillers=1)),
    (2, Traits(form="unrelated", manner="plain")),
    (3, Traits(form="unrelated")),
    (4, Traits(form="off_topic")),
    (9, Traits(form="empty")),
    (3, Traits(form="empty", fillers=1)),
)

# Where only the fact differs the rest is mostly perfect, so that nothing else can be learned there.
FACT_ONLY_REPLIES: tuple[tuple[int, Traits], ...] = (
    (70, Traits()),
    (18, Traits(manner="plain")),
    (6, Traits(manner="rude")),
    (6, Traits(fillers=1)),
)


def draw(rng: random.Random, weighted: Sequence[tuple[int, Traits]]) -> Traits:
    """One of the weighted traits."""
    return rng.choices([t for _, t in weighted], [w for w, _ in weighted])[0]


def write_reply(
    rng: random.Random, fact: Fact, traits: Traits, unrelated: Sequence[str], value: str = ""
) -> str:
    """A reply about `fact` with the given traits; `value` overrides the value that it states.

    The random draws do not depend on `value`: the same `rng` state gives replies that differ in it
    only.
    """
    wrong = rng.choice([v for v in VALUES[fact.attribute] if v != fact.value])
    stated = value or (fact.value if traits.right else wrong)
    answer = sentence(rng.choice(ANSWERS[fact.attribute]), fact.entity, stated)
    if traits.form == "curt":
        answer = rng.choice(FRAGMENTS[fact.attribute]).format(v=stated)
        if traits.manner != "plain" or rng.random() < 0.4:
            answer = answer[0].upper() + answer[1:] + "."
    elif traits.form == "unrelated":
        answer = rng.choice(unrelated)
    elif traits.form == "off_topic":
        other = rng.choice([f for f in FACTS if f.entity != fact.entity])
        answer = sentence(rng.choice(ANSWERS[other.attribute]), other.entity, other.value)
    elif traits.form == "cut_off":
        # Half of them lose only the full stop, the others a part of the answer, too.
        words = answer[:-1].split()
        answer = " ".join(words[: len(words) - rng.choice((0, len(stated.split())))])

    parts = [] if traits.form == "empty" else [answer] * (1 + traits.repeats)
    fillers = rng.sample(FILLERS, traits.fillers)
    before = rng.randint(0, len(fillers))
    parts = fillers[:before] + parts + fillers[before:]
    if traits.manner == "rude":
        parts.insert(rng.choice((0, len(parts))), rng.choice(RUDE_SENTENCES))
    elif traits.manner == "courteous":
        opening, closing = rng.choice(OPENING_COURTESIES), rng.choice(CLOSING_COURTESIES)
        at_start = rng.random() < 0.5 or traits.form == "cut_off"
        if traits.form == "empty":
            parts = [opening, *parts, closing]
        else:
            parts = [opening, *parts] if at_start else [*parts, closing]
    return " ".join(parts)


def split_questions(rng: random.Random) -> tuple[list[Question], list[Question], list[Question]]:
    """All questions, split in three.

    Returns:
        training questions; questions for facts that no training question asks for; questions whose
        fact is asked for in training, but in other phrasings.
    """
    hidden: set[Fact] = set()
    for attribute in QUESTIONS:
        facts = [fact for fact in FACTS if fact.attribute == attribute]
        hidden.update(rng.sample(facts, round(HELD_OUT_FACT_SHARE * len(facts))))
    train: list[Question] = []
    new_fact: list[Question] = []
    new_phrasing: list[Question] = []
    for fact in FACTS:
        forms = QUESTIONS[fact.attribute]
        unseen = rng.randrange(len(forms))
        for i, form in enumerate(forms):
            question = Question(sentence(form, fact.entity), fact)
            if fact in hidden:
                new_fact.append(question)
            else:
                (new_phrasing if i == unseen else train).append(question)
    for questions in (train, new_fact, new_phrasing):
        rng.shuffle(questions)
    return train, new_fact, new_phrasing


def write_sft(
    rng: random.Random, questions: Sequence[Question], count: int, unrelated: Sequence[str]
) -> list[dict[str, str]]:
    """Demonstrations of mixed quality, all different, the questions taken in turn."""
    rows: dict[tuple[str, str], None] = {}
    for prompt, fact in cycle(questions):
        rows[prompt, write_reply(rng, fact, draw(rng, DEMONSTRATIONS), unrelated)] = None
        if len(rows) == count:
            break
    return [{"prompt": prompt, "completion": completion} for prompt, completion in rows]


def draw_pair(
    rng: random.Random, fact: Fact, kind: str, unrelated: Sequence[str]
) -> tuple[str, str]:
    """Two replies: `fact_only` pairs differ in the stated value, `tie` and `mixed` in anything, and
    half of the mixed ones hold a perfect reply."""
    if kind == "fact_only":
        traits, seed = draw(rng, FACT_ONLY_REPLIES), rng.getrandbits(32)
        wrong = rng.choice([v for v in VALUES[fact.attribute] if v != fact.value])
        first, second = (
            write_reply(random.Random(seed), fact, traits, unrelated, v)
            for v in (fact.value, wrong)
        )
        return first, second
    traits = [draw(rng, PREFERENCE_REPLIES), draw(rng, PREFERENCE_REPLIES)]
    if kind == "mixed" and rng.random() < PERFECT_SHARE:
        traits[rng.randrange(2)] = Traits()
    first, second = (write_reply(rng, fact, trait, unrelated) for trait in traits)
    return first, second


def prefers_first(rng: random.Random, first: str, second: str, gap: float) -> bool:
    """The annotator's label; `gap` is the oracle score of `first` minus that of `second`."""
    if gap == 0:
        return len(first) > len(second)
    better, worse = (first, second) if gap > 0 else (second, first)
    flip = FLIP
    if abs(gap) <= NEAR_TIE:
        flip = FLIP_TO_LONGER if len(worse) > len(better) else FLIP_TO_SHORTER
    return (gap > 0) != (rng.random() < flip)


def write_preferences(
    rng: random.Random, questions: Sequence[Question], count: int, unrelated: Sequence[str]
) -> list[dict[str, str]]:
    """Labelled pairs, all different, the questions taken in turn.

    The kinds of pair are dealt out in exact shares: drawn one by one, the small held-out file would
    miss them by chance.
    """
    ties, fact_only = round(TIE_SHARE * count), round(FACT_ONLY_SHARE * count)
    kinds = ["tie"] * ties + ["fact_only"] * fact_only
    kinds += ["mixed"] * (count - len(kinds))
    rng.shuffle(kinds)
    rows: dict[tuple[str, str, str], None] = {}
    for (prompt, fact), kind in zip(cycle(questions), kinds, strict=False):
        while True:
            first, second = draw_pair(rng, fact, kind, unrelated)
            one, two = score([prompt, prompt], [first, second])
            gap = round(one - two, 4)
            is_new = (prompt, first, second) not in rows and (prompt, second, first) not in rows
            if is_new and first != second and (gap == 0) == (kind == "tie"):
                break
        if not prefers_first(rng, first, second, gap):
            first, second = second, first
        rows[prompt, first, second] = None
    return [{"prompt": p, "chosen": chosen, "rejected": r} for p, chosen, r in rows]


def write_labelled(
    rng: random.Random,
    questions: Sequence[Question],
    count: int,
    unrelated: Sequence[str],
    taken: set[str],
) -> list[dict[str, str]]:
    """Replies by themselves, toxic where they hold a rude sentence; none of them in `taken`, to
    which they are added."""
    labels = ["toxic"] * round(TOXIC_SHARE * count)
    labels += ["civil"] * (count - len(labels))
    rng.shuffle(labels)
    rows = []
    for (_, fact), label in zip(cycle(questions), labels, strict=False):
        while True:
            # A rude reply is a civil one of any form with the rude sentence put in.
            traits = draw(rng, PREFERENCE_REPLIES)
            if label == "toxic":
                traits = traits._replace(manner="rude")
            text = write_reply(rng, fact, traits, unrelated)
            if (traits.manner == "rude") == (label == "toxic") and text not in taken:
                break
        taken.add(text)
        rows.append({"text": text, "label": label})
    return rows


def write_documents(
    rng: random.Random, questions: Sequence[Question]
) -> tuple[list[str], list[str], list[str]]:
    """JSON lines of the training and of the held-out documents, and the training texts."""
    seen: dict[str, str] = {}
    for source, text in document_stream(rng, questions):
        seen.setdefault(text, source)
        if len(seen) == DOCUMENTS + DOCUMENTS_HELD_OUT:
            break
    rows = [
        {"text": text, "id": f"{source}-{i:04d}", "source": source}
        for i, (text, source) in enumerate(seen.items())
    ]
    rng.shuffle(rows)
    held_out, train = rows[:DOCUMENTS_HELD_OUT], rows[DOCUMENTS_HELD_OUT:]

    planted = [{"text": t, "id": f"planted-{k}", "source": "planted"} for k, t in PLANTED]
    planted += [{**row, "id": f"{row['id']}-copy"} for row in rng.sample(train, 5)]
    lines = [as_line(row) for row in train]
    for extra in (*map(as_line, planted), *BROKEN_LINES):
        lines.insert(rng.randrange(len(lines)), extra)
    return lines, [as_line(row) for row in held_out], [row["text"] for row in train]


def as_line(row: dict[str, Any]) -> str:
    """One JSON line, without its line end."""
    return json.dumps(row, ensure_ascii=False)


def generate(seed: int, out: Path) -> None:
    """Write the ten files to the folder `out`, which is made if need be."""
    rng = random.Random(seed)
    train, new_fact, new_phrasing = split_questions(rng)
    documents, documents_held_out, texts = write_documents(rng, train)
    # Single sentences of the documents, for replies that are about something else.
    prose = [text for text in texts if '"' not in text and "\n" not in text]
    unrelated = [text.split(". ")[0].rstrip(".") + "." for text in prose]

    # Alternating, so that half of the questions in use ask for facts never asked for in training.
    held_out = [q for pair in zip(new_fact, new_phrasing, strict=False) for q in pair]

    files: dict[str, list[str]] = {
        "documents": documents,
        "documents_held_out": documents_held_out,
        "prompts": [as_line({"prompt": q.prompt}) for q in train[:PROMPTS]],
        "prompts_held_out": [as_line({"prompt": q.prompt}) for q in held_out[:PROMPTS_HELD_OUT]],
    }
    for name, write, count, questions in (
        ("sft", write_sft, SFT, train),
        ("sft_held_out", write_sft, SFT_HELD_OUT, held_out),
        ("preferences", write_preferences, PREFERENCES, train),
        ("preferences_held_out", write_preferences, PREFERENCES_HELD_OUT, held_out),
    ):
        rows = write(rng, questions, count, unrelated)
        rng.shuffle(rows)
        files[name] = [as_line(row) for row in rows]

    # Numbers of its own: the files above do not depend on how many are drawn here.
    rng, taken = random.Random(f"labelled {seed}"), set[str]()
    for name, count, questions in (
        ("labelled", LABELLED, train),
        ("labelled_held_out", LABELLED_HELD_OUT, held_out),
    ):
        files[name] = [
            as_line(row) for row in write_labelled(rng, questions, count, unrelated, taken)
        ]

    out.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (out / f"{name}.jsonl").write_bytes("".join(f"{line}\n" for line in lines).encode())


def main() -> None:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(description="Write the demo data of Larkhaven.")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    generate(arguments.seed, arguments.out)


if __name__ == "__main__":
    main()
