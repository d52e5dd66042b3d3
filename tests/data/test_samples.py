"""The committed demo data: reproducible, disjoint, and noisy within the stated bounds."""

import importlib.util
import json
import random
import re
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

SAMPLES = Path(__file__).parents[2] / "data" / "samples"
NAMES = ("documents", "sft", "preferences", "prompts", "labelled")
FILES = [f"{name}{part}.jsonl" for name in NAMES for part in ("", "_held_out")]


def load(name: str) -> ModuleType:
    """A file of data/samples as a module, loaded by its path."""
    spec = importlib.util.spec_from_file_location(f"samples_{name}", SAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


oracle = load("oracle")
generator = load("generate")


@cache
def rows(name: str) -> list[dict[str, str]]:
    """The valid records of one file."""
    lines = (SAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line not in generator.BROKEN_LINES]


def texts(name: str) -> list[str]:
    """The texts of the documents that were not planted."""
    return [row["text"] for row in rows(name) if row["source"] != "planted"]


def gaps(name: str) -> list[float]:
    """Oracle score of the chosen minus that of the rejected reply, one for each pair."""
    prompts = [row["prompt"] for row in rows(name)]
    chosen = oracle.score(prompts, [row["chosen"] for row in rows(name)])
    rejected = oracle.score(prompts, [row["rejected"] for row in rows(name)])
    return [c - r for c, r in zip(chosen, rejected, strict=True)]


def test_generator_reproduces_the_committed_files(tmp_path: Path) -> None:
    generator.generate(7, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (SAMPLES / name).read_bytes(), name


def test_files_are_small() -> None:
    assert sum((SAMPLES / name).stat().st_size for name in FILES) <= 3_000_000


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("documents_held_out", 140),
        ("sft", 4000),
        ("sft_held_out", 300),
        ("preferences", 4000),
        ("preferences_held_out", 400),
        ("prompts", 450),
        ("prompts_held_out", 140),
        ("labelled", 400),
        ("labelled_held_out", 120),
    ],
)
def test_counts_and_no_duplicates(name: str, count: int) -> None:
    assert len(rows(name)) == count
    assert len({json.dumps(row) for row in rows(name)}) == count


def test_documents_state_every_fact_forty_times() -> None:
    stated: Counter[object] = Counter()
    entities = {fact.entity for fact in oracle.FACTS}
    facts_of = {e: [f for f in oracle.FACTS if f.entity == e] for e in entities}
    for text in texts("documents"):
        for part in re.split(r"[.?!\"]+", text):
            for entity, facts in facts_of.items():
                if entity.lower() in part.lower():
                    stated.update(fact for fact in facts if fact.value in part)
    assert min(stated[fact] for fact in oracle.FACTS) >= 40


def test_documents_are_disjoint() -> None:
    assert len(texts("documents")) == len(set(texts("documents"))) + 5  # the planted copies
    assert not set(texts("documents")) & set(texts("documents_held_out"))


def test_planted_records() -> None:
    lines = (SAMPLES / "documents.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(lines.count(line) == 1 for line in generator.BROKEN_LINES)
    planted = {row["id"]: row["text"] for row in rows("documents") if row["source"] == "planted"}
    assert len([text for text in planted.values() if "cafÃ©" in text]) == 2
    assert "4111 1111 1111 1111" in planted["planted-card-1"]


def test_held_out_questions_are_never_asked_in_training() -> None:
    train = {row["prompt"] for name in NAMES[1:4] for row in rows(name)}
    held_out = {row["prompt"] for name in NAMES[1:4] for row in rows(f"{name}_held_out")}
    assert not train & held_out
    train_facts = {oracle.recognise(prompt) for prompt in train}
    new = [oracle.recognise(row["prompt"]) not in train_facts for row in rows("prompts_held_out")]
    assert sum(new) == len(new) / 2
    assert len(train_facts) == len(oracle.FACTS) - 13


@pytest.mark.parametrize("name", ["sft", "sft_held_out"])
def test_demonstrations_are_of_mixed_quality(name: str) -> None:
    scores = oracle.score(
        [row["prompt"] for row in rows(name)], [row["completion"] for row in rows(name)]
    )
    assert 0.5 <= sum(scores) / len(scores) <= 0.7
    assert 0.30 <= sum(s == 1.0 for s in scores) / len(scores) <= 0.40


@pytest.mark.parametrize(("name", "slack"), [("preferences", 0.02), ("preferences_held_out", 0.03)])
def test_preference_noise(name: str, slack: float) -> None:
    pairs = rows(name)
    assert all(row["chosen"] != row["rejected"] for row in pairs)
    difference = gaps(name)
    ties = sum(gap == 0 for gap in difference)
    wins = sum(gap > 0 for gap in difference)
    assert ties / len(pairs) == pytest.approx(0.04)
    assert wins / (len(pairs) - ties) == pytest.approx(0.88, abs=slack)

    lengths = [len(row["chosen"]) - len(row["rejected"]) for row in pairs]
    assert 0.45 <= sum(d > 0 for d in lengths) / len(pairs) <= 0.6


def test_length_sways_near_ties() -> None:
    # Train only: the held-out file has some forty near-ties, too few to measure this.
    wrong: dict[bool, list[bool]] = {True: [], False: []}
    for row, gap in zip(rows("preferences"), gaps("preferences"), strict=True):
        worse_is_longer = (len(row["chosen"]) > len(row["rejected"])) == (gap < 0)
        if 0 < abs(gap) <= 0.15:
            wrong[worse_is_longer].append(gap < 0)
    shares = {key: sum(values) / len(values) for key, values in wrong.items()}
    assert shares[True] > 0.2 > 0.1 > shares[False]


@pytest.mark.parametrize("name", ["preferences", "preferences_held_out"])
def test_some_pairs_differ_in_the_fact_only(name: str) -> None:
    def masked(text: str, values: tuple[str, ...]) -> str:
        return re.sub("|".join(map(re.escape, values)), "_", text, flags=re.IGNORECASE)

    same = 0
    for row, gap in zip(rows(name), gaps(name), strict=True):
        values = oracle.VALUES[oracle.recognise(row["prompt"]).attribute]
        same += gap != 0 and masked(row["chosen"], values) == masked(row["rejected"], values)
    assert same / len(rows(name)) >= 0.04


def test_ramblings_from_the_documents_score_low() -> None:
    rng = random.Random(0)
    prompts = [row["prompt"] for row in rows("prompts")]
    replies = [" ".join(rng.sample(texts("documents"), 2)) for _ in prompts]
    assert max(oracle.score(prompts, replies)) < 0.25
    words = " ".join(texts("documents_held_out")).split()
    salad = oracle.score(prompts, [" ".join(rng.choices(words, k=25)) for _ in prompts])
    # A salad may hold a right answer by chance.
    assert sum(score >= 0.25 for score in salad) / len(salad) < 0.01


@pytest.mark.parametrize("name", ["labelled", "labelled_held_out"])
def test_replies_are_toxic_where_they_hold_a_rude_sentence(name: str) -> None:
    for row in rows(name):
        is_rude = any(sentence in row["text"] for sentence in oracle.RUDE_SENTENCES)
        assert row["label"] == ("toxic" if is_rude else "civil")
    assert sum(row["label"] == "toxic" for row in rows(name)) == 0.4 * len(rows(name))


def test_no_labelled_reply_is_in_both_parts() -> None:
    train = {row["text"] for row in rows("labelled")}
    assert not train & {row["text"] for row in rows("labelled_held_out")}
