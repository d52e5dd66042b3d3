"""Repairing, filtering, deduplicating and redacting."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from stages import clean, collect
from stages.clean.guard import guard_place
from stages.clean.removed import REJECTS_FILE
from stages.collect.splitting import place
from stages.core.artifacts import make_artifact
from stages.core.config import CleanConfig, CollectConfig, Compute, DataSource
from stages.core.contracts import CleanInputs, CollectInputs, Datasets
from stages.core.errors import UserError
from stages.core.personal_data import PersonalData, digest
from stages.core.schemas import prompt_key, read_jsonl, write_jsonl
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
    return rows[0], rows[1], rejects(out_dir), metrics


def rejects(out_dir):
    with pa.OSFile(str(out_dir / REJECTS_FILE)) as file:
        lines = pa.CompressedInputStream(file, "zstd").read().splitlines()
    return [json.loads(line) for line in lines]


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
    train, _, removed, metrics = run(tmp_path, "documents", rows, max_record_characters=100)
    assert train == [rows[0], rows[5]]
    assert [(row["line"], row["reason"]) for row in removed] == [
        (2, "too_short"),
        (3, "too_long"),
        (4, "symbol_share"),
        (5, "text is empty after cleaning"),
    ]
    assert removed[0]["file"] == "collected/documents/train.jsonl"
    assert [row["record"] for row in removed] == rows[1:5]
    assert [row["rule"] for row in removed][3] == "unusable"
    assert removed[1]["score"] == 101
    assert metrics["documents_removed"] == 4
    counts = json.loads((tmp_path / "out" / "counts.json").read_text())["documents/train"]
    assert counts["read"] == 6
    assert counts["kept"] == 2
    assert counts["unusable"] == 1
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| read | 6 |  |  |" in report
    assert "| too short | 1 |  | " in report
    assert "## documents: too_short (1)" in report
    assert (tmp_path / "out" / "plots" / "clean_documents.png").stat().st_size > 5000


def test_duplicates_are_removed_and_held_out_wins(tmp_path):
    train, held_out, removed, _ = run(
        tmp_path,
        "documents",
        [{"text": text} for text in ("One text", "one  TEXT\n", "Held out", "Two texts")],
        [{"text": text} for text in ("held out", "Held  out")],
    )
    assert [row["text"] for row in train] == ["One text", "Two texts"]
    assert [row["text"] for row in held_out] == ["held out"]
    assert [(row["split"], row["line"], row["reason"]) for row in removed] == [
        ("held_out", 2, "duplicate"),
        ("train", 2, "duplicate"),
        ("train", 3, "in_held_out"),
    ]
    assert [row["like"] for row in removed] == [
        "collected/documents/held_out.jsonl:1",
        "collected/documents/train.jsonl:1",
        "collected/documents/held_out.jsonl:1",
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
    ours, guards = ({prompt_key("preferences", row) for row in part} for part in (train, guard))
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
    held_out = [key for key in keys if place(key) < 0.5]
    guards = sum(guard_place(key) < 0.5 for key in held_out)
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

    train, held_out, removed, metrics = run(
        tmp_path,
        "labelled",
        labelled(
            ("Go away", "toxic"), ("go  AWAY", "toxic"), ("Go away", "civil"), ("Hi", "toxic")
        ),
        labelled(("hi", "civil"), ("Call a@example.com", "civil")),
    )
    assert train == labelled(("Go away", "toxic"))
    assert held_out == labelled(("hi", "civil"), ("Call [EMAIL]", "civil"))
    assert [(row["line"], row["reason"]) for row in removed] == [
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
        {"text": "Ring me at home in the evening; the number is +44 20 7946 0958."},
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
    _, _, removed, _ = run(tmp_path, "preferences", [good, row])
    assert [row["reason"] for row in removed] == ["chosen and rejected are equal after cleaning"]


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


def test_no_record_at_all_is_said(tmp_path):
    with pytest.raises(UserError, match=r"documents: no records at all; .*collect.documents"):
        run(tmp_path, "documents", [])


def test_results_are_equal_run_by_run(tmp_path):
    rows = [{"text": f"Text {number % 7} of a@example.com"} for number in range(20)]
    runs = [run(tmp_path, "documents", rows, rows[:2], name=name) for name in "ab"]
    assert runs[0] == runs[1]


# A document of 62 words, of which one more changes 5 of 58 runs of five words.
STORY = (
    "The miller at the ford had three sons and one grey donkey. When he grew old he called them "
    "to his bed and asked which of them would keep the wheel turning. The eldest wanted the city, "
    "the second wanted the sea, and only the youngest looked at the water and said nothing at all, "
    "for he had already greased the axle that morning."
)


def near(text, position):
    words = text.split()
    words[position] = "truly"
    return " ".join(words)


def test_no_near_twin_of_a_held_out_record_is_trained_on(tmp_path):
    others = [
        "A recipe for plum cake: stone the plums, rub the butter into the flour, and be patient.",
        "Rain fell on the tin roof all night, and by dawn the cellar held a foot of brown water.",
    ]
    twins = [near(STORY, -1), near(STORY, 1), STORY.replace("grey", "brown"), *others]
    train, held_out, removed, _ = run(
        tmp_path, "documents", [{"text": text} for text in twins], [{"text": STORY}]
    )
    assert [row["text"] for row in train] == others
    assert [row["text"] for row in held_out] == [STORY]
    assert {row["rule"] for row in removed} == {"in_held_out"}
    rows = [{"text": near(STORY, -1)}, {"text": STORY}]
    train, _, removed, _ = run(tmp_path, "documents", rows, name="within")
    assert train == rows[:1]
    assert [(row["rule"], row["line"]) for row in removed] == [("near_duplicate", 2)]
    assert run(tmp_path, "documents", rows, near_duplicate_similarity=0, name="off")[0] == rows


def test_opposite_long_pairs_are_no_near_twins(tmp_path):
    reply = near(STORY, 3)
    pairs = [
        {"prompt": "Tell me a story", "chosen": STORY, "rejected": reply},
        {"prompt": "Tell me a story", "chosen": reply, "rejected": STORY},
    ]
    train, _, _, metrics = run(tmp_path, "preferences", pairs)
    assert train == pairs
    assert metrics["preferences_contradictory"] == 1


@pytest.mark.parametrize(("one", "other"), [("A tale, it is said.", "Water."), ("👍", "👎")])
def test_other_replies_to_a_long_prompt_are_no_near_twins(tmp_path, one, other):
    rows = [{"prompt": STORY * 5, "completion": reply} for reply in (one, other, one + " ")]
    train, _, removed, _ = run(tmp_path, "sft", rows)
    assert train == rows[:2]
    assert [row["rule"] for row in removed] == ["duplicate"]
    pairs = [{"prompt": STORY * 5, "chosen": one, "rejected": reply} for reply in (other, "So.")]
    assert run(tmp_path, "preferences", pairs)[0] == pairs


def test_the_same_demonstration_in_other_words_is_a_near_twin(tmp_path):
    rows = [
        {"prompt": STORY, "completion": reply}
        for reply in ("Go, and see!", "go and see", f"{STORY} The end.")
    ]
    assert run(tmp_path, "sft", rows)[0] == [rows[0], rows[2]]


def test_near_twins_with_another_label_stay(tmp_path):
    rows = [
        {"text": f"{STORY * 5} {word}", "label": label}
        for word, label in (("Bad", "a"), ("Worse", "b"), ("Worst", "b"))
    ]
    train, _, removed, _ = run(tmp_path, "labelled", rows)
    assert train == rows[:2]
    assert [row["rule"] for row in removed] == ["near_duplicate"]


def test_cleaning_never_changes_which_reply_wins(tmp_path):
    rows = [
        {"prompt": f"Ask {n}", "chosen": f"Good {n} a@example.com", "rejected": f"Bad\x00 {n}"}
        for n in range(50)
    ]
    train, *_ = run(tmp_path, "preferences", rows)
    assert [(row["chosen"], row["rejected"]) for row in train] == [
        (f"Good {n} [EMAIL]", f"Bad {n}") for n in range(50)
    ]


def test_other_languages_are_removed_where_languages_are_named(tmp_path):
    rows = [
        {"text": STORY},
        {"text": "磨坊主有三个儿子和一头灰驴。他老了以后，把他们叫到床前，问谁愿意留下来看守。"},
        {"text": "Der Müller an der Furt hatte drei Söhne und einen grauen Esel, und er war alt."},
    ]
    train, _, removed, _ = run(tmp_path, "documents", rows, languages=("en", "zh"))
    assert train == rows[:2]
    assert [(row["rule"], row["reason"]) for row in removed] == [("language", "language de")]
    assert run(tmp_path, "documents", rows)[0] == rows


def test_a_rule_can_be_skipped_for_one_kind_and_a_misspelt_one_is_named(tmp_path):
    rows = [{"text": "abc"}, {"text": "Long enough to stay."}, {"text": "Mail a@example.com now"}]
    skip = {"documents": ("too_short", "redact")}
    assert run(tmp_path, "documents", rows, skip=skip)[0] == rows
    message = "clean.skip.documents: no rule 'to_short'; did you mean 'too_short'"
    with pytest.raises(UserError, match=message):
        run(tmp_path, "documents", rows, skip={"documents": ("to_short",)})


def test_unusable_records_cannot_be_skipped_over(tmp_path):
    with pytest.raises(UserError, match="no stage can use unusable records"):
        run(tmp_path, "documents", [{"text": STORY}], skip={"documents": ("unusable",)})


def test_a_refusal_names_the_languages_and_how_to_keep_them(tmp_path):
    message = r"1x language de \(as in \S+:1\); add the language to clean\.languages"
    rows = [{"text": "Der Müller an der Furt hatte drei Söhne und einen grauen Esel."}]
    with pytest.raises(UserError, match=message):
        run(tmp_path, "documents", rows, languages=("en",), max_reject_share=0.5)


def test_a_damaged_row_is_named(tmp_path):
    folder = tmp_path / "collected" / "documents"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text('{"text": "Sound."}\n{"text": "cut\n')
    (folder / "held_out.jsonl").touch()
    inputs = CleanInputs(datasets=Datasets(documents=make_artifact("documents", folder)))
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"train\.jsonl:2: damaged row"):
        clean.run(CleanConfig(), inputs, Compute(), tmp_path / "out")


def test_in_a_dry_run_all_records_are_kept_and_their_personal_data_is_known(tmp_path):
    rows = [
        {"prompt": f"Ask {n % 8}", "chosen": f"a{n % 8}@example.com", "rejected": "b"}
        for n in range(10)
    ]
    *_, metrics = run(tmp_path, "preferences", rows, dry_run=True, guard_share=0.5)
    kept = metrics["preferences_train_kept"], metrics["guard_preferences_train_kept"]
    assert (sum(kept), metrics["preferences_removed"]) == (10, 2)
    rows = [{"text": "Write to a@example.com!"}, {"text": "b@x.org"}]
    limits = {"min_characters": 10}
    *_, metrics = run(tmp_path, "documents", rows, name="dry", dry_run=True, quality=limits)
    assert (metrics["documents_train_kept"], metrics["documents_removed"]) == (2, 1)
    assert len((tmp_path / "dry" / "personal_data.txt").read_text().splitlines()) == 2


def test_a_dry_run_reports_and_keeps_everything(tmp_path):
    rows = [{"text": "abc"}, {"text": "Mail a@example.com now"}, {"text": "mail A@example.com NOW"}]
    train, _, removed, metrics = run(tmp_path, "documents", rows, dry_run=True)
    assert train == rows
    assert [row["rule"] for row in removed] == ["too_short", "duplicate"]
    assert metrics["documents_removed"] == 2
    assert "dry run" in (tmp_path / "out" / "report.md").read_text()


def test_long_documents_are_cut_into_pieces(tmp_path):
    row = {"text": f"{STORY}\n\nRain fell on the roof. Write to a@example.com.", "id": "7"}
    train, _, _, metrics = run(tmp_path, "documents", [row], max_piece_characters=200)
    assert [piece["id"] for piece in train] == ["7"] * len(train)
    assert max(len(piece["text"]) for piece in train) <= 200
    assert "".join("".join(piece["text"] for piece in train).split()) == "".join(
        row["text"].replace("a@example.com", "[EMAIL]").split()
    )
    assert (metrics["documents_train_read"], metrics["documents_redacted"]) == (1, 1)


def test_pieces_are_counted_removed_and_had_back_one_by_one(tmp_path):
    ann = f"Ann\x00 is at a@example.com now. {STORY[:130]}"
    text = f"{ann}\n\n{STORY[130:310]}\n\n{'## -- ' * 30}"
    train, _, removed, metrics = run(
        tmp_path, "documents", [{"text": text}], max_piece_characters=200, max_reject_share=0.4
    )
    assert [piece["text"][:6] for piece in train] == ["Ann is", STORY[130:136]]
    assert [(row["line"], row["piece"], row["rule"]) for row in removed] == [(1, 3, "symbol_share")]
    assert removed[0]["record"] == {"text": ("## -- " * 30).strip()}
    assert [metrics[f"documents_{name}"] for name in ("train_read", "repaired", "removed")] == [
        1, 1, 1,
    ]  # fmt: skip
    with pytest.raises(UserError, match="documents: 1 of 3 records are rejected"):
        run(
            tmp_path, "documents", [{"text": text}], name="few",
            max_piece_characters=200, max_reject_share=0.3,
        )  # fmt: skip


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
