"""Evaluation items found in texts."""

import gzip
import itertools
import json
import pickle
import random
import re
from pathlib import Path

import polars as pl
import pytest

from stages.core import evaluation_overlap
from stages.core.errors import UserError
from stages.core.evaluation_overlap import EvaluationIndex, evaluation_texts
from stages.core.words import words

REAL_DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
needs_real_data = pytest.mark.skipif(not REAL_DATA.exists(), reason="no ../shared/data")

ITEM = "a man sits on the roof of his house and begins to pull up the old shingles"  # 17 words
SHORT = "what keeps the moon from falling on our heads"  # 9 words


def hits(index, *texts):
    table = index.hits(words(pl.Series(texts, dtype=pl.String)))
    assert table.columns == ["index", "set", "share"]
    return [(row, name, round(share, 3)) for row, name, share in table.iter_rows()]


def numbered(count, start=0):
    return " ".join(f"w{number}" for number in range(start, start + count))


def test_a_text_with_thirteen_words_of_an_item_is_a_hit_of_its_set():
    index = EvaluationIndex.build({"roofs": [ITEM], "other": [numbered(30)]})
    thirteen = " ".join(ITEM.split()[2:15])
    assert hits(index, "nothing of it", ITEM, f"So, {thirteen.upper()}! {numbered(7, 100)}") == [
        (1, "roofs", 1.0),
        (2, "roofs", 0.619),  # 13 of 21 words
    ]
    twelve = " ".join(ITEM.split()[2:14])
    assert hits(index, f"{twelve} new {twelve}") == []
    assert hits(index, f"{ITEM} {ITEM} and {numbered(13, 5)}") == [
        (0, "roofs", 0.708),  # 34 of 48 words
        (0, "other", 0.271),
    ]


def test_a_text_of_two_sets_is_reported_for_both():
    index = EvaluationIndex.build({"one": [ITEM], "two": [ITEM, numbered(20)]})
    assert hits(index, "", ITEM) == [(1, "one", 1.0), (1, "two", 1.0)]


def test_a_run_that_goes_over_into_the_next_text_is_none():
    index = EvaluationIndex.build({"roofs": [ITEM], "moons": [SHORT]})
    first, second = ITEM[:40], ITEM[40:]
    assert hits(index, first, second, SHORT[:20], SHORT[20:]) == []
    assert hits(index, f"{first}{second}") == [(0, "roofs", 1.0)]


def test_short_items_are_found_as_a_whole():
    shorter = "how far away is the moon now"
    index = EvaluationIndex.build({"moons": [SHORT, shorter]})
    assert hits(index, f"Tell me: {SHORT}?", SHORT.rsplit(" ", 1)[0], shorter) == [
        (0, "moons", 0.818)  # 9 of 11 words
    ]


def test_instructions_are_no_evidence_and_repeated_passages_are():
    frame = "read the following text with care and then answer the question that stands below it"
    texts = [f"{frame} {numbered(20, 20 * number)}" for number in range(30)]
    index = EvaluationIndex.build({"framed": [*texts, *[ITEM] * 50]})
    assert hits(index, frame, f"{frame} what", texts[7], ITEM) == [
        (2, "framed", 0.743),  # its 20 words and the 6 before them
        (3, "framed", 1.0),
    ]
    few = EvaluationIndex.build({"framed": texts[:10]})
    assert hits(few, frame) == [(0, "framed", 1.0)]


def test_rows_of_the_same_words_are_no_evidence():
    dashes = "0 1 " * 20
    assert hits(EvaluationIndex.build({"tables": [dashes, "a b c d e a b c d"]}), dashes) == []


def test_all_runs_are_found_and_no_others(monkeypatch):
    """Against sets of Python tuples; with runs across the borders of blocks."""
    monkeypatch.setattr(evaluation_overlap, "WORDS_AT_ONCE", 16)
    rng = random.Random(0)
    items = [rng.choices("abcdefghijkl", k=rng.randrange(5, 40)) for _ in range(40)]
    texts = [rng.choices("abcdefghijkl", k=rng.randrange(60)) for _ in range(80)]
    for text in texts[::3]:
        item = rng.choice(items)
        text[10:10] = item[rng.randrange(5) :]
    runs = set()
    for item in items:
        size = 13 if len(item) >= 13 else len(item)
        if size >= 8:
            runs |= {tuple(item[at : at + size]) for at in range(len(item) - size + 1)}
    runs = {run for run in runs if len(set(run)) >= 6}
    expected = []
    for number, text in enumerate(texts):
        covered = set()
        for at, size in itertools.product(range(len(text)), range(8, 14)):
            if tuple(text[at : at + size]) in runs and at + size <= len(text):
                covered |= set(range(at, at + size))
        if covered:
            expected.append((number, "letters", round(len(covered) / len(text), 3)))
    index = EvaluationIndex.build({"letters": map(" ".join, items)})
    assert len(expected) > 15
    assert hits(index, *map(" ".join, texts)) == expected


def test_an_index_finds_the_same_in_another_process():
    index = EvaluationIndex.build({"roofs": [ITEM], "moons": [SHORT], "empty": []})
    loaded = pickle.loads(pickle.dumps(index))
    texts = (ITEM, f"{SHORT} {numbered(9)}", "neither")
    assert hits(loaded, *texts) == hits(index, *texts) == [(0, "roofs", 1.0), (1, "moons", 0.5)]


def test_nothing_is_found_by_or_in_nothing():
    assert hits(EvaluationIndex.build({}), ITEM) == []
    assert hits(EvaluationIndex.build({"roofs": [ITEM]})) == []
    assert hits(EvaluationIndex.build({"roofs": [ITEM]}), "", "") == []


def write(path, *records):
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def test_the_texts_of_an_item_are_its_strings_and_its_question_with_each_choice(tmp_path):
    records = [
        {"id": "7", "question": "Why?", "choices": {"text": ["So.", "Not"], "label": ["A", "B"]}},
        {"ctx": ITEM, "endings": ["and falls.", numbered(13)], "label": 1},
        {"premise": "It rains.", "choice1": "He is wet.", "choice2": "He is dry."},
        {"sentence1": "One.", "sentence2": "Two.", "label": 0, "none": None},
    ]
    assert list(evaluation_texts(write(tmp_path / "set.jsonl", *records))) == [
        *("7", "Why?", "Why? So.", "Why? Not", "Why? A", "Why? B"),
        *(ITEM, numbered(13)),
        *("It rains.", "It rains. He is wet.", "It rains. He is dry."),
        *("One.", "Two."),
    ]


def test_a_broken_record_is_named_with_the_cure(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text('{"question": "a"}\n{"question": \n')
    with pytest.raises(UserError, match=r"set\.jsonl:2: broken JSON; .* clean\.evaluation_sets"):
        list(evaluation_texts(path))


# ----------------------------------------------------------------------------------- real data


def records_of(name):
    with gzip.open(REAL_DATA / name, "rt", encoding="utf-8") as lines:
        return list(map(json.loads, lines))


@needs_real_data
def test_real_items_are_found_where_python_finds_them():
    """Passages of Wikipedia that boolq and dolly both took; and none in a novel."""
    path = REAL_DATA / "eval/super_glue/boolq/validation.jsonl.gz"
    items = list(evaluation_texts(path))
    texts = [row["prompt"] for row in records_of("sft/dolly_hhrlhf_train_small.jsonl.gz")]
    found = {row for row, *_ in hits(EvaluationIndex.build({"boolq": items}), *texts)}
    runs = {run for item in items for run in slow_runs(item)}
    expected = {row for row, text in enumerate(texts) if not runs.isdisjoint(slow_runs(text))}
    assert found == expected
    assert len(found) == 6
    with gzip.open(REAL_DATA / "pretrain/novel_Conrad_Almayer_1895.txt.gz", "rt") as file:
        novel = file.read()
    planted = f"{novel[:5000]} {items[0]} {novel[5000:]}"
    index = EvaluationIndex.build({"boolq": items})
    assert hits(index, novel) == []
    assert [name for _, name, _ in hits(index, planted)] == ["boolq"]


def slow_runs(text):
    parts = re.findall(r"\w+", text.lower())
    return {tuple(parts[at : at + 13]) for at in range(len(parts) - 12)}


@needs_real_data
def test_an_evaluation_template_is_found_by_the_items_of_another():
    """t0_p3 puts the same questions of commonsense_qa into several templates."""
    rows = records_of("sft/t0_p3_6k.jsonl.gz")
    template = "commonsense_qa_most_suitable_answer"
    asked = [row["prompt"].splitlines() for row in rows if row["template"] == template]
    questions = [max(lines, key=len) for lines in asked]
    index = EvaluationIndex.build({"commonsense_qa": questions})
    found = {rows[row]["template"] for row, *_ in hits(index, *(row["prompt"] for row in rows))}
    assert all(name.startswith("commonsense_qa") for name in found)
    assert len(found) >= 4
