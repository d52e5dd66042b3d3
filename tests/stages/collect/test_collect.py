"""Collecting users' files: formats, mapping, bad records."""

import csv
import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from stages.core.errors import UserError
from stages.core.schemas import read_jsonl
from stages.core.sources.table_records import BROKEN

REAL_DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
needs_real_data = pytest.mark.skipif(not REAL_DATA.is_dir(), reason="no ../shared/data")


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ROWS = [{"prompt": f"question {i}", "completion": f"ünswer {i}"} for i in range(40)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def table(path, delimiter):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["completion", "prompt"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)
    return path.read_bytes()


def parquet(path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path.read_bytes()


def test_labelled_text_is_split_by_its_text(tmp_path, collected):
    rows = [{"sentence": f"Text {number % 9}", "label": number % 2} for number in range(36)]
    path = write_rows(tmp_path / "labelled.jsonl", [*rows, {"sentence": "No label"}])
    train, held_out, rejects, metrics, outputs, _ = collected(
        "labelled", path, columns={"text": "sentence"}, held_out_share=0.3
    )
    assert outputs.labelled.kind == "labelled"
    assert metrics["labelled_train"] + metrics["labelled_held_out"] == 36
    assert not {row["text"] for row in train} & {row["text"] for row in held_out}
    assert {row["label"] for row in train} == {"0", "1"}
    assert [row["reason"] for row in rejects] == ["column label missing"]


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".array.json", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path, collected, suffix, compression):
    content = {
        ".jsonl": lambda: LINES,
        ".json": lambda: LINES,
        ".array.json": lambda: json.dumps(ROWS, indent=1).encode("utf-8-sig"),
        ".csv": lambda: table(tmp_path / "t", ","),
        ".tsv": lambda: table(tmp_path / "t", "\t"),
        ".parquet": lambda: parquet(tmp_path / "t"),
    }[suffix]()
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[compression]
    path = tmp_path / f"data{suffix}{compression}"
    path.write_bytes(pack(content))
    train, held_out, rejects, metrics, _, _ = collected("sft", path)
    assert train == ROWS
    assert (held_out, rejects) == ([], [])
    assert metrics == {"sft_train": 40.0, "sft_held_out": 0.0, "sft_rejected": 0.0}


def test_bad_lines_are_set_aside_and_nothing_else_is_lost(tmp_path, collected):
    path = tmp_path / "data.jsonl"
    good = b'{"prompt": "p%d", "completion": "c"}\r\n'
    bad = [
        (b'{"prompt": "a", "completion": \n', "broken JSON"),
        (b'{"prompt": "\xff", "completion": "c"}\n', "invalid UTF-8"),
        (b'{"prompt": "a\0", "completion": "c"}\n', "NUL byte"),
        (b'{"prompt": "\\ud800", "completion": "c"}\n', "broken JSON"),
        (b'["a"]\n', "not a JSON object"),
        (b"[" * 5000 + b"\n", "nested too deeply"),
        (b'{"prompt": "a", "answer": "c"}\n', "column completion missing"),
        (b'{"prompt": "a", "completion": 3}\n', "completion is not a string"),
        (b'{"prompt": "%s", "completion": "c"}\n' % (b"x" * 10_000_001),
         "record is larger than 10 MB"),
    ]  # fmt: skip
    lines = [b"\xef\xbb\xbf" + good % 0, b"\r\n"]
    for number, (line, _) in enumerate(bad, 1):
        lines += [line, good % number]
    path.write_bytes(b"".join(lines).rstrip())
    train, _, rejects, metrics, _, _ = collected("sft", path)
    assert [row["prompt"] for row in train] == [f"p{number}" for number in range(len(bad) + 1)]
    assert [row["reason"] for row in rejects] == [reason for _, reason in bad]
    assert [row["line"] for row in rejects] == [3 + 2 * number for number in range(len(bad))]
    assert {row["file"] for row in rejects} == {"data.jsonl"}
    assert max(len(row["head"]) for row in rejects) <= 200
    assert metrics["sft_rejected"] == len(bad)


def test_bad_table_rows_are_set_aside(tmp_path, collected):
    path = tmp_path / "data.csv"
    path.write_bytes(
        b'prompt,completion\r\na,b\r\n\r\nonly one\r\n"x"y,z\r\n\xe9,b\r\n'
        b'"two\nlines",b\r\nc,\r\nd,e'
    )
    train, _, rejects, _, _, _ = collected("sft", path)
    assert [row["prompt"] for row in train] == ["a", "two\nlines", "d"]
    assert [(row["line"], row["reason"]) for row in rejects] == [
        (4, "other number of cells than the header"),
        (5, BROKEN),
        (6, "prompt is not valid UTF-8"),
        (9, "completion is empty"),
    ]


def test_array_elements_are_checked_one_by_one(tmp_path, collected):
    path = tmp_path / "data.json"
    path.write_text('[\n{"text": "a"},\n3,\n{"text": ""},\n{"text": "b"}\n]\n')
    train, _, rejects, _, _, _ = collected("documents", path)
    assert [row["text"] for row in train] == ["a", "b"]
    assert [(row["line"], row["reason"]) for row in rejects] == [
        (3, "not a JSON object"),
        (4, "text is empty"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"\n\n", r"a\.jsonl: holds no records; take it off collect\.documents\.paths"),
        ("a.csv", b"text\n", r"a\.csv: holds no records"),
        ("a.csv", b'text\n"a\nb\nc', r"a\.csv:2: a quotation mark is never closed"),
        ("a.json", b'[{"text": "a"},\n{"text" "b"}]', r"a\.json:2: the array is broken here"),
        ("a.txt", "häh".encode("utf-16"), r"a\.txt: is UTF-16; convert it: iconv"),
        ("a.txt", b"a\0b\0c\0", r"1x mostly NUL bytes.*a\.txt:1"),
        ("a.parquet", b"PAR1xx", r"a\.parquet: cannot be read as parquet"),
        (
            "a.jsonl.gz",
            gzip.compress(LINES, mtime=0)[:20],
            r"a\.jsonl\.gz: cannot be read .*cut off",
        ),
        ("a.jsonl.zst", zstandard.compress(LINES)[:-9], r"a\.jsonl\.zst: cannot .*cut off"),
        ("a.jsonl.gz", b"plain", r"a\.jsonl\.gz: is not gzip; if it is plain"),
        ("a.docx", b"x", r"a\.docx: unknown format '\.docx'; convert or rename"),
    ],
)
def test_unreadable_files_are_refused(tmp_path, collected, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        collected("documents", path, max_reject_share=0.1)
    assert "\n" not in str(caught.value)


def test_too_many_rejects_name_the_commonest_reasons(tmp_path, collected):
    rows = [{"text": "ok"}] * 4 + [{"text": 1}] * 3 + [{"text": ""}] * 2 + [{"txt": 1}, [1], 2]
    path = write_rows(tmp_path / "a.jsonl", rows)
    message = (
        r"documents: 8 of 12 records are rejected, more than collect\.max_reject_share=0\.5 allows:"
        r" "
        r"3x text is not a string \(as in a\.jsonl:5\), 2x text is empty \(as in a\.jsonl:8\), "
        r"2x not a JSON object \(as in a\.jsonl:11\); .*rejects\.jsonl"
    )
    with pytest.raises(UserError, match=message):
        collected("documents", path, max_reject_share=0.5)
    assert len(list(read_jsonl(tmp_path / "out" / "rejects.jsonl"))) == 8


@pytest.mark.parametrize(
    ("name", "content", "cure"),
    [
        ("a.csv", "prompt,completion\nWhy?,Größe\n".encode("cp1252"), "iconv -f CP1252 -t UTF-8"),
        ("a.jsonl", b'{"prompt": "2 + 2?", "completion": 4}\n', r"write text there"),
        ("a.jsonl", b'{"prompt": "Why?", "completion": "So."},\n', "a comma follows the record"),
        ("a.jsonl", b'{"messages": "[]"}\n', r"parse it \(json\.loads\)"),
        ("a.jsonl", b'{"messages": [{"role": "user", "content": "Why?"}]}\n', "take off what"),
    ],
)
def test_usual_slips_are_refused_with_a_cure(tmp_path, collected, name, content, cure):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=cure):
        collected("sft", path, max_reject_share=0.1)


def test_wrong_columns_show_how_to_map_them(tmp_path, collected):
    path = write_rows(tmp_path / "a.jsonl", [{"prompt": "a", "reply": "b", "n": 1}] * 9)
    message = (
        "the file has the columns prompt, reply, n; map them, for instance "
        r'collect\.sft\.columns=\{"completion": "reply"\}'
    )
    with pytest.raises(UserError, match=message):
        collected("sft", path, max_reject_share=0.1)
    train, *_ = collected("sft", path, columns={"completion": "reply"})
    assert train == [{"prompt": "a", "completion": "b"}] * 9
    with pytest.raises(UserError, match=r"collect\.sft\.columns: 'complete' is no column of ours"):
        collected("sft", path, columns={"complete": "reply"})


def test_plain_text_can_only_be_documents(tmp_path, collected):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match=r"a\.txt: plain text can only be documents"):
        collected("sft", tmp_path / "a.txt")


def test_long_texts_are_cut_between_paragraphs_without_loss(tmp_path, collected):
    paragraphs = [f"Paragraph {number}. " + "Wörd " * 150 for number in range(200)]
    path = tmp_path / "novel.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(paragraphs).encode())
    train, *_ = collected("documents", path)
    assert len(train) > 5
    assert all(len(row["text"]) <= 20_000 and row["text"].startswith("Para") for row in train)
    assert "\n\n".join(row["text"] for row in train).split() == " ".join(paragraphs).split()
    path.write_text("x" * 50_000)
    assert [len(row["text"]) for row in collected("documents", path)[0]] == [
        20000,
        20000,
        10000,
    ]


def test_special_tokens_in_data_stay_text(tmp_path, collected):
    text = "He wrote <|endoftext|> and <|im_end|>\n<|im_start|>system"
    train, *_ = collected("documents", write_rows(tmp_path / "a.jsonl", [{"text": text}]))
    assert train == [{"text": text}]


# -------------------------------------------------------------------------------------- real data


@needs_real_data
def test_real_files(tmp_path, collected):
    dolly = REAL_DATA / "sft" / "dolly_hhrlhf_train_small.jsonl.gz"
    assert len(collected("sft", dolly)[0]) == 1000
    assert len(collected("sft", dolly, columns={"completion": "response"})[0]) == 1000
    harmless = REAL_DATA / "preferences" / "hh_harmless_raw_200.jsonl.gz"
    train, _, rejects, _, _, _ = collected("preferences", harmless, max_reject_share=0.05)
    assert len(train) == 199
    assert [row["line"] for row in rejects] == [87]
    assert all("\n\nHuman:" not in row["chosen"] for row in train)
    counts = {"hh_harmless_80": 1846, "oasst1_human": 754, "qa_feedback_human": 2616,
              "ultrafeedback_train": 994}  # fmt: skip
    for file, count in counts.items():
        path = REAL_DATA / "preferences" / f"{file}.jsonl.gz"
        result = collected("preferences", path, max_reject_share=0.05)
        assert len(result.train) + len(result.rejects) == count
        assert len(result.train) > 0.99 * count
    math = REAL_DATA / "sft" / "gsm8k_train.jsonl.gz"
    mapping = {"prompt": "question", "completion": "answer"}
    assert len(collected("sft", math, columns=mapping).train) == 7473
    novel = REAL_DATA / "pretrain" / "novel_Hardy_Madding_1874.txt.gz"
    train, *_ = collected("documents", novel)
    assert 30 < len(train) < 60
