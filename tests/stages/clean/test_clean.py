"""Repairing, filtering, deduplicating and redacting."""

import json
from pathlib import Path

import pytest

from stages import clean, collect
from stages.core.artifacts import make_artifact
from stages.core.config import CleanConfig, CollectConfig, Compute, DataSource
from stages.core.contracts import CleanInputs, CollectInputs, Datasets
from stages.core.errors import UserError
from stages.core.personal_data import PersonalData, digest
from stages.core.schemas import read_jsonl, write_jsonl
from stages.core.sources import source_files

REAL_DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture(autouse=True)
def _data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_DATA_ROOT", str(tmp_path))


def run(tmp_path, kind, train, held_out=(), name="out", **config):
    folder = tmp_path / "collected" / kind
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "train.jsonl", train)
    write_jsonl(folder / "held_out.jsonl", held_out)
    out_dir = tmp_path / name
    out_dir.mkdir(exist_ok=True)
    inputs = CleanInputs(datasets=Datasets(**{kind: make_artifact(kind, folder)}))
    config = CleanConfig(**{"max_reject_share": 1.0, "quality": {"min_characters": 4}} | config)
    outputs, metrics = clean.run(config, inputs, Compute(), out_dir)
    folder = getattr(outputs, kind).locate()
    rows = [list(read_jsonl(folder / f"{split}.jsonl")) for split in ("train", "held_out")]
    return rows[0], rows[1], list(read_jsonl(out_dir / "rejects.jsonl")), metrics


def test_redaction_reaches_every_text_field_and_is_counted(tmp_path):
    prompt = [
        {"role": "user", "content": "I am a@example.com"},
        {"role": "assistant", "content": "Hello b@example.com"},
        {"role": "user", "content": "And?"},
    ]
    row = {"prompt": prompt, "chosen": "c@example.com", "rejected": "d", "annotator": "e@x.org"}
    train, _, _, metrics = run(tmp_path, "preferences", [row])
    assert train[0]["prompt"][1] == {"role": "assistant", "content": "Hello [EMAIL]"}
    assert train[0]["chosen"] == "[EMAIL]"
    assert train[0]["annotator"] == "e@x.org"
    assert metrics["preferences_redacted"] == 3
    assert run(tmp_path, "preferences", [row], redact=())[0] == [row]
    document = {"text": "Some text", "meta": {"mails": ["a@example.com"], "n": 1}}
    train, *_ = run(tmp_path, "documents", [document])
    assert train[0]["meta"] == {"mails": ["[EMAIL]"], "n": 1}


def test_bad_documents_are_removed_with_a_reason(tmp_path):
    rows = [
        {"text": "A sound document."},
        {"text": "abc"},
        {"text": "x" * 101},
        {"text": "#### ---- ==== text"},
        {"text": "\u0000\u0001\u0002 \u0003"},
        {"text": "हिन्दी में लिखा गया एक वाक्य"},
    ]
    train, _, rejects, metrics = run(tmp_path, "documents", rows, max_record_characters=100)
    assert train == [rows[0], rows[5]]
    assert [(row["line"], row["reason"]) for row in rejects] == [
        (2, "too_short"),
        (3, "too_long"),
        (4, "junk"),
        (5, "text is empty after cleaning"),
    ]
    assert rejects[0]["file"] == "collected/documents/train.jsonl"
    assert metrics["documents_removed"] == 4
    counts = json.loads((tmp_path / "out" / "counts.json").read_text())["documents/train"]
    assert counts["read"] == 6
    assert counts["kept"] == 2
    assert counts["unusable"] == 1
    assert "| documents/train | 6 |" in (tmp_path / "out" / "counts.md").read_text()


def test_duplicates_are_removed_and_held_out_wins(tmp_path):
    train, held_out, rejects, _ = run(
        tmp_path,
        "documents",
        [{"text": text} for text in ("One text", "one  TEXT\n", "Held out", "Two texts")],
        [{"text": text} for text in ("held out", "Held  out")],
    )
    assert [row["text"] for row in train] == ["One text", "Two texts"]
    assert [row["text"] for row in held_out] == ["held out"]
    assert [(row["split"], row["line"], row["reason"]) for row in rejects] == [
        ("held_out", 2, "duplicate"),
        ("train", 2, "duplicate"),
        ("train", 3, "in_held_out"),
    ]
    rows = [{"text": "One text"}] * 2
    assert run(tmp_path, "documents", rows, remove_duplicates=False)[0] == rows


def test_contradictory_pairs_are_kept_and_counted(tmp_path):
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    swapped = {"prompt": "p", "chosen": "b", "rejected": "a"}
    train, _, _, metrics = run(tmp_path, "preferences", [row, swapped, row])
    assert train == [row, swapped]
    assert metrics["preferences_contradictory"] == 1


def preference(prompt, number=0):
    return {"prompt": prompt, "chosen": f"a {number}", "rejected": f"b {number}"}


def test_the_guard_models_pairs_are_set_aside_by_prompt(tmp_path):
    rows = [
        preference(prompt, number)
        for number in range(3)
        for prompt in (f"What is {n}?" for n in range(100))
    ]
    rows.append(preference([{"role": "user", "content": "WHAT  is 7?"}], 9))  # the same prompt
    held_out = [preference("Held out?")]
    train, held, _, metrics = run(tmp_path, "preferences", rows, held_out, guard_share=0.3)
    folder = tmp_path / "out" / "guard_preferences"
    guard = list(read_jsonl(folder / "train.jsonl"))
    assert sorted(map(str, [*train, *guard])) == sorted(map(str, rows))
    ours, guards = (
        {clean.prompt_key("preferences", row) for row in part} for part in (train, guard)
    )
    assert not ours & guards
    assert 0.15 < len(guards) / 100 < 0.45
    assert held == held_out == list(read_jsonl(folder / "held_out.jsonl"))
    assert metrics["preferences_train_kept"] == len(train)
    assert metrics["guard_preferences_train_kept"] == len(guard)
    counts = json.loads((tmp_path / "out" / "counts.json").read_text())["preferences/train"]
    assert (counts["read"], counts["guard"], counts["kept"]) == (301, len(guard), len(train))


def test_the_guards_prompts_do_not_depend_on_the_other_pairs(tmp_path):
    rows = [preference(f"What is {n}?") for n in range(60)]
    all_train, *_ = run(tmp_path, "preferences", rows, guard_share=0.5)
    some_train, *_ = run(tmp_path, "preferences", rows[::2], guard_share=0.5, name="some")
    assert some_train == [row for row in all_train if row in rows[::2]]


def test_the_guards_prompts_have_nothing_to_do_with_being_held_out():
    keys = [f"what is {n}?" for n in range(2000)]
    held_out = [key for key in keys if collect._place(key) < 0.5]
    guards = sum(clean._guard_place(key) < 0.5 for key in held_out)
    assert guards / len(held_out) == pytest.approx(0.5, abs=0.05)


def test_without_a_share_there_are_no_guard_pairs(tmp_path):
    _, _, _, metrics = run(tmp_path, "preferences", [preference("p")])
    assert not (tmp_path / "out" / "guard_preferences").exists()
    assert "guard_preferences_train_kept" not in metrics


@pytest.mark.parametrize("share", [1e-9, 1.0])
def test_a_share_that_leaves_one_model_nothing_is_refused(tmp_path, share):
    rows = [preference("one"), preference("two")]
    with pytest.raises(
        UserError, match=r"clean\.guard_share=\S+ gives the guard model \d training"
    ):
        run(tmp_path, "preferences", rows, guard_share=share)


def test_of_a_text_with_two_labels_the_first_stays_and_is_counted(tmp_path):
    def labelled(*pairs):
        return [{"text": text, "label": label} for text, label in pairs]

    train, held_out, rejects, metrics = run(
        tmp_path,
        "labelled",
        labelled(
            ("Go away", "toxic"), ("go  AWAY", "toxic"), ("Go away", "civil"), ("Hi", "toxic")
        ),
        labelled(("hi", "civil"), ("Call a@example.com", "civil")),
    )
    assert train == labelled(("Go away", "toxic"))
    assert held_out == labelled(("hi", "civil"), ("Call [EMAIL]", "civil"))
    assert [(row["line"], row["reason"]) for row in rejects] == [
        (2, "duplicate"),
        (3, "duplicate"),
        (4, "in_held_out"),
    ]
    assert metrics["labelled_contradictory"] == 2
    rows = labelled(("Go away", "toxic"), ("Go away", "civil"), ("Go away", "toxic"))
    train, *_, metrics = run(tmp_path, "labelled", rows, remove_duplicates=False)
    assert (train, metrics["labelled_contradictory"]) == (rows, 1)


@pytest.mark.parametrize("kinds", [("email", "phone", "ip_address", "credit_card"), ("phone",), ()])
def test_personal_data_of_the_training_records_leaves_digests(tmp_path, kinds):
    train = [
        {"text": "Write to Ann@Example.com or ann@example.com."},
        {"text": "write to ann@example.com OR ann@example.com."},
        {"text": "Ring +44 20 7946 0958."},
        {"text": "To b@example.com, also held out"},
    ]
    held_out = [{"text": "to b@example.com, also held out"}, {"text": "Ask c@example.com please"}]
    run(tmp_path, "documents", train, held_out, redact=kinds)
    written = (tmp_path / "out" / "personal_data.txt").read_text()
    found = [PersonalData("email", "ann@example.com"), PersonalData("phone", "020 7946 0958")]
    assert written.splitlines() == sorted(map(digest, found))


def test_without_personal_data_there_is_no_file_of_digests(tmp_path):
    run(tmp_path, "documents", [{"text": "Nobody to write to"}], [{"text": "Ask c@example.com"}])
    assert not (tmp_path / "out" / "personal_data.txt").exists()


def test_replies_equal_after_cleaning_are_removed(tmp_path):
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    row = {"prompt": "p", "chosen": "a@example.com", "rejected": "b@example.com"}
    _, _, rejects, _ = run(tmp_path, "preferences", [good, row])
    assert [row["reason"] for row in rejects] == ["chosen and rejected are equal after cleaning"]


def test_too_many_removals_stop_the_stage(tmp_path):
    rows = [{"text": "One text"}, {"text": "One text"}, {"text": "abc"}]
    message = (
        r"documents: 2 of 3 records are rejected, more than clean\.max_reject_share=0\.5 allows: "
        r"1x duplicate \(as in collected/documents/train\.jsonl:2\), 1x too_short"
    )
    with pytest.raises(UserError, match=message):
        run(tmp_path, "documents", rows, max_reject_share=0.5)
    with pytest.raises(UserError, match="cleaning removes all 1 records of held_out"):
        run(tmp_path, "documents", rows, [{"text": "abc"}])


def test_results_are_equal_run_by_run(tmp_path):
    rows = [{"text": f"Text {number % 7} of a@example.com"} for number in range(20)]
    runs = [run(tmp_path, "documents", rows, rows[:2], name=name) for name in "ab"]
    assert runs[0] == runs[1]


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="no ../shared/data")
@pytest.mark.parametrize(
    ("kind", "name", "least_kept"),
    [
        ("sft", "sft/t0_p3_6k.jsonl.gz", 5500),
        ("preferences", "preferences/hh_harmless_raw_200.jsonl.gz", 190),
        ("documents", "pretrain/tinystories_944k.txt.gz", 40),
        ("documents", "pretrain/novel_Gissing_Warburton_1903.txt.gz", 20),
    ],
)
def test_real_files_from_collect_to_clean(tmp_path, kind, name, least_kept):
    collected, cleaned = tmp_path / "collected", tmp_path / "cleaned"
    collected.mkdir()
    cleaned.mkdir()
    files = source_files((str(REAL_DATA / name),))
    sources = tuple(make_artifact("source", file) for file in files)
    config = CollectConfig(**{kind: DataSource(paths=(name,))})
    datasets, _ = collect.run(config, CollectInputs(**{kind: sources}), Compute(), collected)
    outputs, metrics = clean.run(CleanConfig(), CleanInputs(datasets=datasets), Compute(), cleaned)
    assert metrics[f"{kind}_train_kept"] + metrics[f"{kind}_held_out_kept"] >= least_kept
    text = (getattr(outputs, kind).locate() / "train.jsonl").read_text()
    assert "â€" not in text
    if "t0" in name:
        assert text.count("<|endoftext|>") >= metrics["sft_train_kept"]
    assert metrics[f"{kind}_redacted"] < 20
