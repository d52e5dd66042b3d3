"""Which records are held out: by prompt, by group, and where there are only few of them."""

import json

import pytest

from stages.collect.splitting import Keyed, place, settled, take_subset, write_splits
from stages.core.errors import UserError
from stages.core.schemas import read_jsonl, write_jsonl


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ROWS = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(40)]


def by_user(count, users):
    return [
        {"prompt": f"q {number}", "completion": f"u{number % users} says", "user": number % users}
        for number in range(count)
    ]


def test_all_records_of_a_prompt_are_on_one_side(tmp_path, collected):
    rows = [{"prompt": f"q {i % 50}".upper() if i % 2 else f"q  {i % 50}", "completion": str(i)}
            for i in range(500)]  # fmt: skip
    path = write_rows(tmp_path / "a.jsonl", rows)
    train, held_out, *_ = collected("sft", path, held_out_share=0.3)
    sides = [{row["prompt"].casefold().split()[1] for row in split} for split in (train, held_out)]
    assert not sides[0] & sides[1]
    assert len(train) + len(held_out) == 500
    assert 5 <= len(sides[1]) <= 25


@pytest.mark.parametrize("share", [1e-9, 1.0])
def test_few_prompts_still_fill_both_splits(tmp_path, collected, share):
    path = write_rows(tmp_path / "a.jsonl", ROWS[:3])
    train, held_out, *_ = collected("sft", path, held_out_share=share)
    assert sorted((len(train), len(held_out))) == [1, 2]
    assert {row["prompt"] for row in train + held_out} == {row["prompt"] for row in ROWS[:3]}


def test_a_single_prompt_cannot_be_split(tmp_path, collected):
    path = write_rows(tmp_path / "a.jsonl", ROWS[:1] * 5)
    with pytest.raises(UserError, match=r"collect\.sft: no .* record among 5.*different prompts"):
        collected("sft", path, held_out_share=0.1)


def test_given_held_out_files_are_used(tmp_path, collected):
    train_path = write_rows(tmp_path / "a.jsonl", ROWS[:30])
    held_out_path = write_rows(tmp_path / "b.jsonl", ROWS[30:])
    train, held_out, *_ = collected(
        "sft", train_path, held_out=[held_out_path], held_out_share=0.5,
        max_held_out_records=4,
    )  # fmt: skip
    assert train == ROWS[:30]
    assert len(held_out) == 4
    with pytest.raises(UserError, match=r"collect\.sft\.paths: held-out files only"):
        collected("sft", held_out=[held_out_path])


def test_results_are_equal_run_by_run(tmp_path, collected):
    path = write_rows(tmp_path / "a.jsonl", ROWS)
    runs = [collected("sft", path, held_out_share=0.2, max_records=7, name=name) for name in "ab"]
    assert runs[0][4].sft.digest == runs[1][4].sft.digest
    assert len(runs[0][0]) == 7
    assert [row for row in ROWS if row in runs[0][0]] == runs[0][0]


def test_a_group_is_on_one_side(tmp_path, collected):
    path = write_rows(tmp_path / "a.jsonl", by_user(600, 30))
    result = collected("sft", path, group_column="user", held_out_share=0.3)
    sides = [{row["completion"] for row in part} for part in (result.train, result.held_out)]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 30
    assert len(result.train) + len(result.held_out) == 600
    assert {f"u{user} says" for user in range(30) if place(str(user)) < 0.3} == sides[1]


def test_a_group_is_found_beside_mapped_columns_and_known_formats(tmp_path, collected):
    rows = [{"question": row["prompt"], "answer": row["completion"], "user": row["user"]}
            for row in by_user(100, 10)]  # fmt: skip
    path = write_rows(tmp_path / "a.jsonl", rows)
    mapped = collected("sft", path, group_column="user", held_out_share=0.3,
                       columns={"prompt": "question", "completion": "answer"})  # fmt: skip
    rows = [{"instruction": row["question"], "output": row["answer"], "user": row["user"]}
            for row in rows]  # fmt: skip
    path = write_rows(tmp_path / "b.jsonl", rows)
    known = collected("sft", path, group_column="user", held_out_share=0.3)
    assert mapped.held_out == known.held_out
    assert {row["completion"] for row in known.held_out}.isdisjoint(
        row["completion"] for row in known.train
    )


@pytest.mark.parametrize("share", [1e-9, 1.0])
def test_few_groups_still_fill_both_splits(tmp_path, collected, share):
    path = write_rows(tmp_path / "a.jsonl", by_user(60, 3))
    result = collected("sft", path, group_column="user", held_out_share=share)
    assert sorted((len(result.train), len(result.held_out))) == [20, 40]
    sides = [{row["completion"] for row in part} for part in (result.train, result.held_out)]
    assert not sides[0] & sides[1]


def test_a_single_group_cannot_be_split(tmp_path, collected):
    path = write_rows(tmp_path / "a.jsonl", by_user(20, 1))
    with pytest.raises(UserError, match=r"give more records of different groups \(user\)"):
        collected("sft", path, group_column="user", held_out_share=0.1)


def test_a_record_without_its_group_is_set_aside(tmp_path, collected):
    rows = [*by_user(20, 4), {"prompt": "a", "completion": "b"}]
    path = write_rows(tmp_path / "a.jsonl", rows)
    result = collected("sft", path, group_column="user")
    assert [(row["line"], row["reason"]) for row in result.rejects] == [
        (21, "group column user missing")
    ]
    with pytest.raises(UserError, match=r"21x group column usr missing .*; name a column that all"):
        collected("sft", path, group_column="usr", max_reject_share=0.5)


def test_rows_keep_their_order_when_a_key_moves(tmp_path):
    paths = tmp_path / "train.jsonl", tmp_path / "held_out.jsonl"
    rows = [Keyed({"n": number}, "ab"[number % 2]) for number in range(10)]
    outer = max("ab", key=place)
    assert write_splits(rows, 1.0, paths) == (5, 5)
    assert [row["n"] for row in read_jsonl(paths[0])] == [
        n for n in range(10) if "ab"[n % 2] == outer
    ]
    assert write_splits(rows, 0.0, paths) == (10, 0)
    assert write_splits(rows[::2], 1e-12, paths) == (5, 0)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_settled_rows_stay_on_their_side_when_others_move(tmp_path, share):
    paths = tmp_path / "train.jsonl", tmp_path / "held_out.jsonl"
    free = [Keyed({"key": key}, key) for key in "abc"]
    for split, path in zip(("train", "held_out"), paths, strict=True):
        fixed = settled([Keyed({"key": "fixed"}, key) for key in "abcdef"], split)
        counts = write_splits([*free, *fixed], share, paths)
        assert sum(counts) == 9
        rows = [row["key"] for row in read_jsonl(path)]
        assert rows.count("fixed") == 6
        assert all(counts) or share == 0


def test_a_subset_keeps_the_order(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"n": number} for number in range(50)]
    write_jsonl(path, rows)
    assert take_subset(path, 50, 7) == 7
    numbers = [row["n"] for row in read_jsonl(path)]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == 7
    assert take_subset(path, 7, 0) == take_subset(path, 7, 9) == 7
