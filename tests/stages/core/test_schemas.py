"""Row types, their canonical shapes, JSON Lines, and the search for source files."""

import gzip

import pytest

from stages.core.errors import UserError
from stages.core.schemas import parse_row, prompt_key, read_jsonl, write_jsonl
from stages.core.sources import source_files

USER = {"role": "user", "content": "Hello?"}
ASSISTANT = {"role": "assistant", "content": "Hello."}
OTHER = {"role": "assistant", "content": "Go away."}


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        ("documents", {}, "column text missing"),
        ("documents", {"text": None}, "column text missing"),
        ("documents", {"text": 3}, "text is not a string"),
        ("documents", {"text": " \n"}, "text is empty"),
        ("documents", {"text": "\udce9"}, "text is not valid UTF-8"),
        ("documents", {"text": "a", "meta": "b"}, "meta is not an object"),
        ("sft", {"question": "a"}, "column prompt and completion missing"),
        ("sft", {"prompt": "a", "completion": ["b"]},
         "completion has a turn that is not an object"),
        ("sft", {"messages": []}, "messages is an empty list"),
        ("sft", {"messages": [USER]}, "completion does not end with an assistant's message"),
        ("sft", {"messages": [ASSISTANT]}, "prompt does not end with a user's message"),
        ("sft", {"messages": [USER, {"role": "tool", "content": "x"}]},
         "messages.role is none of system, user, assistant"),
        ("sft", {"messages": [USER, {"role": "assistant", "content": ""}]},
         "messages.content is empty"),
        ("preferences", {"prompt": "a", "chosen": "b", "rejected": "b "},
         "chosen and rejected are equal"),
        ("preferences", {"prompt": "a", "chosen": "b", "rejected": "c", "margin": float("nan")},
         "margin is not a finite number"),
        ("preferences", {"prompt": "a", "chosen": "b", "rejected": "c", "margin": "high"},
         "margin is not a number"),
        ("preferences", {"chosen": "b", "rejected": "c"}, "column prompt missing"),
        ("preferences", {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected":
         "\n\nHuman: x\n\nAssistant: b"}, "chosen and rejected differ before their last turn"),
        ("prompts", {"prompt": [USER, ASSISTANT]}, "prompt does not end with a user's message"),
        ("labelled", {"text": "a"}, "column label missing"),
        ("labelled", {"text": " ", "label": "b"}, "text is empty"),
        ("labelled", {"text": 1, "label": "b"}, "text is not a string"),
        ("labelled", {"text": "a", "label": " \n"}, "label is empty"),
        ("labelled", {"text": "a", "label": 0.5}, "label is neither text nor a whole number"),
        ("labelled", {"text": "a", "label": ["b"]}, "label is neither text nor a whole number"),
    ],
)  # fmt: skip
def test_bad_records_are_refused_with_a_reason(kind, fields, reason):
    with pytest.raises(ValueError, match=f"^{reason}$"):
        parse_row(kind, fields)


def test_extra_columns_are_dropped_and_known_ones_kept():
    row = parse_row("preferences", {
        "prompt": "a", "chosen": "b", "rejected": "c", "annotator": 7, "margin": 1,
        "created_at": "2026-01-02T03:04:05", "source": "", "score": [1, 2],
    })  # fmt: skip
    assert row == {
        "prompt": "a", "chosen": "b", "rejected": "c", "annotator": "7", "margin": 1.0,
        "created_at": "2026-01-02T03:04:05",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("label", "name"),
    [("very  toxic ", "very toxic"), (0, "0"), (-1, "-1"), (2.0, "2"), (True, "true")],
)
def test_labels_become_text(label, name):
    row = {"text": "a", "label": name}
    assert parse_row("labelled", {"text": "a", "label": label, "score": 1}) == row


def test_parts_of_text_are_joined_and_other_media_refused():
    parts = [{"type": "text", "text": "Hello?"}, {"type": "text", "text": "Anyone?"}]
    asked = {"role": "user", "content": parts}
    pair = {"chosen": [ASSISTANT], "rejected": [OTHER]}
    row = parse_row("preferences", {"prompt": [asked], **pair})
    assert row["prompt"] == "Hello?\nAnyone?"
    image = {"role": "user", "content": [*parts, {"type": "image_url", "image_url": {}}]}
    with pytest.raises(ValueError, match="^prompt.content has parts that are not text$"):
        parse_row("preferences", {"prompt": [image], **pair})


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_system_may_be_called_developer_and_say_nothing(role):
    for content in ("", " \n", None):
        silent = {"role": role, "content": content}
        row = parse_row("sft", {"messages": [silent, USER, ASSISTANT]})
        assert row == {"prompt": "Hello?", "completion": "Hello."}
    row = parse_row("sft", {"messages": [{"role": role, "content": "Be kind."}, USER, ASSISTANT]})
    assert row["prompt"] == [{"role": "system", "content": "Be kind."}, USER]


def test_messages_become_a_prompt_and_a_reply():
    assert parse_row("sft", {"messages": [USER, ASSISTANT]}) == {
        "prompt": "Hello?", "completion": "Hello.",
    }  # fmt: skip
    assert parse_row("sft", {"messages": [USER, ASSISTANT, USER, OTHER]}) == {
        "prompt": [USER, ASSISTANT, USER], "completion": "Go away.",
    }  # fmt: skip
    assert parse_row("preferences", {
        "prompt": [USER], "chosen": [ASSISTANT], "rejected": [OTHER],
    }) == {"prompt": "Hello?", "chosen": "Hello.", "rejected": "Go away."}  # fmt: skip


@pytest.mark.parametrize("prompt", [{}, {"prompt": "Hello?"}])
def test_whole_conversations_in_both_replies_are_split(prompt):
    fields = {**prompt, "chosen": [USER, ASSISTANT], "rejected": [USER, OTHER]}
    assert parse_row("preferences", fields)["prompt"] == "Hello?"
    assert parse_row("preferences", fields)["rejected"] == "Go away."


def test_hh_dialogues_are_split_at_the_last_turn():
    start = "\n\nHuman: Hello?\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant: "
    row = parse_row("preferences", {"chosen": start + "Because.\n\nSo.", "rejected": start + "No."})
    assert row == {
        "prompt": [USER, ASSISTANT, {"role": "user", "content": "Why?"}],
        "chosen": "Because.\n\nSo.",
        "rejected": "No.",
    }
    assert parse_row("prompts", {"prompt": start}) == {"prompt": row["prompt"]}
    assert parse_row("prompts", {"prompt": "Human: a"}) == {"prompt": "Human: a"}


def test_an_empty_reply_in_an_hh_dialogue_is_named():
    start = "\n\nHuman: Hello?\n\nAssistant:"
    with pytest.raises(ValueError, match="^chosen is empty$"):
        parse_row("preferences", {"chosen": start, "rejected": start + " No."})
    with pytest.raises(ValueError, match="^rejected is empty$"):
        parse_row("preferences", {"chosen": start + " No.", "rejected": start + " "})


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("documents", {"text": "a", "id": 1, "meta": {"b": [1]}}),
        ("sft", {"messages": [USER, ASSISTANT, USER, OTHER]}),
        (
            "preferences",
            {"prompt": "a", "chosen": "b", "rejected": "c", "created_at": "2026-01-02"},
        ),
    ],
)
def test_parsing_a_parsed_row_changes_nothing(kind, fields):
    row = parse_row(kind, fields)
    assert parse_row(kind, row) == row


def test_prompt_key_ignores_case_spaces_and_form():
    assert prompt_key("sft", {"prompt": "Hello  THERE"}) == prompt_key(
        "prompts", {"prompt": [{"role": "user", "content": "hello there\n"}]}
    )


def test_jsonl_round_trip_and_damage(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"text": "a\u2028b\n\u0000é😀"}, {"text": "<|im_end|>", "meta": {"n": None}}]
    assert write_jsonl(path, rows) == 2
    assert list(read_jsonl(path)) == rows
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"rows\.jsonl:2: damaged row; .*--fresh"):
        list(read_jsonl(path))


# -------------------------------------------------------------------------------- source_files


def test_expand_files_globs_and_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_DATA_ROOT", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.txt", "a.md", "deep/c.jsonl.gz", "README.md", "d.py", ".hidden.txt"):
        (folder / name).write_text("x")
    (folder / "deep" / "c.jsonl.gz").write_bytes(gzip.compress(b"{}"))

    def names(*paths: str) -> list[str]:
        return [path.name for path in source_files(paths)]

    assert names("texts") == ["a.md", "b.txt", "c.jsonl.gz"]
    assert names("texts/*.txt", str(folder / "b.txt")) == ["b.txt"]
    assert names("texts/**/*.gz") == ["c.jsonl.gz"]
    assert source_files(()) == ()


def test_relative_paths_are_also_looked_up_in_the_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (path,) = source_files(("data/samples/sft.jsonl",))
    assert path.is_file()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone.jsonl", r"gone\.jsonl: no such file.*mend the path"),
        ("*.csv", r"\*\.csv: no such file"),
        ("empty.jsonl", r"empty\.jsonl: is empty \(0 bytes\)"),
        ("data.xlsx", r"data\.xlsx: unknown format '\.xlsx'; convert .*\.jsonl"),
        ("folder", r"folder: the folder has no file of a known format"),
    ],
)
def test_unusable_paths_are_refused(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "data.xlsx").write_text("x")
    with pytest.raises(UserError, match=message):
        source_files((path,))
