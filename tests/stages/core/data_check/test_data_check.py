"""A hand-made file for each finding."""

import json

import pytest
import tokenizers

from stages.core.data_check import FINE, UNUSABLE, WITH_FINDINGS, check_files
from stages.core.errors import UserError

PAIR = {"prompt": "Hello?", "chosen": "Hello.", "rejected": "Go away."}
GOOD = {"prompt": "Why?", "completion": "Because."}


def sft(number):
    return {"prompt": f"Why {number}?", "completion": f"Because {number}."}


def test_nothing_is_found_in_good_records(write):
    report = check_files([write(map(sft, range(50)))], context=100)
    assert report.findings == ()
    assert report.exit_code == FINE
    (file,) = report.files
    assert (file.kind, file.records, file.usable) == ("sft", 50, 50)


# ------------------------------------------------------------------------------- lines


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"prompt": "a", "completion": "b"', "json"),
        (b'["prompt"]', "not-object"),
        (b'{"prompt": "\xff", "completion": "b"}', "utf8"),
        (b'{"prompt": "\\ud800", "completion": "b"}', "surrogate"),
        (b'{"prompt": "a\0", "completion": "b"}', "nul"),
        (b'{"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested"),
        (b'{"prompt": "a", "completion": "' + b"x" * 10_000_001 + b'"}', "huge"),
        (b'{"prompt": 5, "completion": "b"}', "schema"),
        (b'{"prompt": "a"}', "schema"),
        (b'{"prompt": "a", "completion": " \\n"}', "empty"),
    ],
)
def test_an_unusable_line_is_named_and_the_others_are_read(write, found, line, code):
    report = check_files([write([GOOD, line, sft(2)])])
    (finding,) = report.findings
    assert finding.severity == "error"
    assert found(report)[code][0] == 1
    assert finding.examples[0].place == "data.jsonl:2"
    assert (report.records, report.usable) == (3, 2)
    assert report.exit_code == WITH_FINDINGS


def test_a_table_in_the_encoding_of_windows_is_named_as_that(tmp_path, found):
    path = tmp_path / "data.csv"
    path.write_bytes("prompt;completion\r\nWhy?;Größe\r\n".encode("cp1252"))
    assert found(check_files([path]))["utf8"][0] == 1


def test_a_tie_is_noted(write, found):
    tie = {"prompt": "Why?", "response_a": "b", "response_b": "c", "winner": "tie"}
    report = check_files([write([tie, tie | {"prompt": "Who?", "winner": "a"}])])
    assert found(report)["no-row"] == (1, "", ["data.jsonl:1"])
    assert (report.records, report.usable, report.exit_code) == (2, 1, FINE)


def test_columns_in_capitals_are_found(write, found):
    report = check_files([write([{"Prompt": "Why?", "Completion": "So."}])])
    assert found(report)["columns-mapped"][1] == "prompt ← Prompt, completion ← Completion"


@pytest.mark.parametrize(
    ("name", "content", "detail"),
    [
        ("a.csv", b"prompt,completion\n", "it has a header alone"),
        ("a.jsonl", b'{"prompt": "a"},\n', "Broken JSON in line 1: a comma follows the record"),
        ("a.jsonl", b'\n["a"]\n', "Line is JSON, but no object in line 2"),
        ("a.jsonl", b" \n", "it is blank"),
    ],
)
def test_why_a_file_has_no_record_is_said(tmp_path, name, content, detail):
    path = tmp_path / name
    path.write_bytes(content)
    (finding,) = check_files([path]).findings
    assert finding.code == "no-records"
    assert finding.detail.startswith(detail)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"prompt": "a", "prompt": "c", "completion": "b"}', "duplicate-keys"),
        (b'{"prompt": "a", "completion": "b", "meta": {"x": 1, "x" : 2}}', "duplicate-keys"),
        (b'{"prompt": "a", "completion": "b", "score": NaN}', "not-finite"),
        (b'{"prompt": "a", "completion": "b", "scores": [1.5, -Infinity]}', "not-finite"),
        (b'{"prompt": "a\\u0000", "completion": "b"}', "nul"),
        (b'{"prompt": "it\xc3\x83\xc2\xa9", "completion": "b"}', "mojibake"),
        (b'{"prompt": "a \xef\xbf\xbd", "completion": "b"}', "mojibake"),
    ],
)
def test_a_flaw_that_leaves_the_record_usable(write, found, line, code):
    report = check_files([write([GOOD, line])])
    assert found(report)[code][::2] == (1, ["data.jsonl:2"])
    assert report.usable == 2


def test_what_looks_like_a_flaw_inside_a_text_is_none(write):
    text = 'He wrote {"a": NaN, "a": Infinity} and "b":'
    assert check_files([write([{"prompt": text, "completion": "é 日本語"}])]).findings == ()


def test_duplicate_keys_are_found_though_another_record_lacks_them(write, found):
    lines = [b'{"prompt": "a", "completion": "b", "x": 1, "x": 2}', GOOD, GOOD | {"prompt": "c"}]
    assert found(check_files([write(lines)]))["duplicate-keys"][2] == ["data.jsonl:1"]


def windows_line(number):
    return json.dumps(sft(number)).encode() + b"\r\n"


def test_marks_of_other_systems_are_notes(tmp_path, found):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(map(windows_line, "ab")))
    report = check_files([path])
    assert {code: count for code, (count, *_) in found(report).items()} == {"bom": 1, "crlf": 2}
    assert (report.usable, report.exit_code) == (2, FINE)


def test_blank_lines_are_not_counted_and_do_not_shift_the_numbers(write, found):
    report = check_files([write([GOOD, b"", b"  ", {"prompt": ""}])])
    assert (report.records, found(report)["empty"][2]) == (2, ["data.jsonl:4"])


# ------------------------------------------------------------------------------- records


def test_identical_replies(write, found):
    report = check_files([write([PAIR, PAIR | {"rejected": " Hello. "}])])
    assert found(report) == {"identical": (1, "chosen and rejected are equal", ["data.jsonl:2"])}


def test_contradictions_and_duplicates_among_pairs(write, found):
    swapped = {"prompt": "Hello?", "chosen": "Go away.", "rejected": "Hello."}
    other = PAIR | {"rejected": "No."}
    report = check_files([write([PAIR, other, swapped, PAIR, swapped])])
    assert found(report) == {
        "duplicate": (2, "", ["data.jsonl:4", "data.jsonl:5"]),
        "contradiction": (1, "", ["data.jsonl:3"]),
    }
    excerpts = {item.code: item.examples[0].excerpt for item in report.findings}
    assert excerpts["contradiction"].startswith('as line 1: {"prompt": "Hello?", "chosen": "Go')


def test_duplicates_over_two_files(write, found):
    report = check_files([write([GOOD, sft(1)]), write([sft(2), GOOD], "other.jsonl")])
    assert found(report) == {"duplicate": (1, "", ["other.jsonl:2"])}
    assert report.findings[0].examples[0].excerpt.startswith("as data.jsonl:1: ")


def test_the_same_prompt_with_other_completions_is_a_note(write, found):
    records = [GOOD, GOOD | {"completion": "So."}, sft(1), GOOD]
    report = check_files([write(records)])
    assert found(report)["same-prompt"] == (1, "", ["data.jsonl:2"])
    assert found(report)["duplicate"] == (1, "", ["data.jsonl:4"])


def turns(*roles):
    return [{"role": role, "content": role * 3} for role in roles]


@pytest.mark.parametrize(
    ("roles", "code"),
    [
        (["user", "system", "assistant"], "role-order"),
        (["user", "assistant", "user"], "role-order"),
        (["user", "robot"], "role-order"),
        (["user", "user", "assistant"], "turns-not-alternating"),
        (["system", "user", "assistant", "assistant", "user", "assistant"],
         "turns-not-alternating"),
    ],
)  # fmt: skip
def test_the_order_of_roles(write, found, roles, code):
    good = {"messages": turns("system", "user", "assistant")}
    report = check_files([write([good, {"messages": turns(*roles)}])])
    assert found(report)[code][::2] == (1, ["data.jsonl:2"])


def test_special_tokens_inside_text_and_at_the_end_of_replies(write, found):
    records = [
        *map(sft, range(6)),
        {"prompt": "a", "completion": "b<|endoftext|>\n"},
        {"prompt": "[INST] c [/INST]", "completion": "d</s>"},
        {"prompt": "e", "completion": "<start_of_turn>model f"},
    ]
    report = check_files([write(records)])
    ends, inside = (found(report)[code] for code in ("special-token-end", "special-token"))
    assert ends[::2] == (2, ["data.jsonl:7", "data.jsonl:8"])
    assert set(ends[1].split(", ")) == {"completion <|endoftext|> 1×", "completion </s> 1×"}
    assert inside[::2] == (2, ["data.jsonl:8", "data.jsonl:9"])
    assert set(inside[1].split(", ")) == {"prompt [INST] 1×", "completion <start_of_turn> 1×"}
    assert {item.share for item in report.findings} == {2 / 9}


def test_length_bias(write, found):
    pairs = [
        {"prompt": f"{n}?", "chosen": "long " * 5 if n % 10 < 7 else "x", "rejected": "short"}
        for n in range(50)
    ]
    report = check_files([write(pairs)])
    assert report.facts["preferences_chosen_longer"] == pytest.approx(0.7)
    detail = "the longer reply is chosen in 70\u00a0% of 50 pairs"
    assert found(report) == {"length-bias": (35, detail, [])}
    few = check_files([write(pairs[:7])])
    assert few.findings == ()


def test_lengths_are_estimated_without_a_tokenizer(write, found):
    records = [
        sft(1),
        {"prompt": "a" * 40, "completion": "b" * 41},
        {"prompt": "c" * 80, "completion": "d"},
        {"prompt": "e" * 40, "completion": "f" * 40},
    ]
    report = check_files([write(records)], context=20)
    assert found(report) == {
        "over-long": (2, "context 20", ["data.jsonl:2", "data.jsonl:3"]),
        "reply-cut": (1, "context 20", ["data.jsonl:3"]),
    }
    assert report.findings[0].code == "reply-cut"
    assert report.remarks[0].startswith("Lengths are estimated as 4 characters a token")
    assert check_files([write(records)]).findings == ()


def test_lengths_and_special_tokens_of_a_tokenizer(write, found, tmp_path):
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"[?]": 0, "yes": 1, "no": 2}, unk_token="[?]")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.add_special_tokens(["<END>"])
    words.save(str(tmp_path / "tokenizer.json"))
    records = [
        {"prompt": "yes no", "completion": "yes no <END>"},
        {"prompt": "yes no yes", "completion": "no yes yes"},
    ]
    report = check_files([write(records)], tokenizer=str(tmp_path), context=5)
    assert found(report) == {
        "special-token-end": (1, "completion <END> 1×", ["data.jsonl:1"]),
        "over-long": (1, "context 5", ["data.jsonl:2"]),
    }
    assert report.remarks == ()
    with pytest.raises(UserError, match=r"no tokenizer.json there"):
        check_files([write(records)], tokenizer=str(tmp_path / "gone"))


def test_labels(write, found):
    records = [{"text": f"text {n}", "label": "good"} for n in range(33)]
    records += [{"text": f"bad {n}", "label": 1} for n in range(3)]
    records += [{"text": "text 4", "label": "1"}, {"text": "other", "label": "god"}]
    found_here = found(check_files([write(records)]))
    assert found_here == {
        "same-text-other-label": (1, "", ["data.jsonl:37"]),
        "label-once": (1, "", ["data.jsonl:38"]),
    }
    more = [{"text": f"more {n}", "label": "good"} for n in range(10)]
    found_here = found(check_files([write(records + more)]))
    assert found_here["label-imbalance"] == (43, "43 × good, 4 × 1", ["data.jsonl:34"])


def test_labels_that_are_none(write, found):
    report = check_files([write([{"text": "a", "label": []}, {"text": "b", "label": 1.5}])])
    assert found(report)["schema"][0] == 2


def test_what_is_also_held_out(write, found):
    held_out = write([{"prompt": "why  1?", "completion": "x"}], "held_out.jsonl")
    report = check_files([write(map(sft, range(3)))], held_out=[held_out])
    assert found(report) == {"leak": (1, "", ["data.jsonl:2"])}


def test_held_out_files_of_another_kind_or_cut_off_are_said(write, found):
    other = write([{"text": "a"}], "other.jsonl")
    report = check_files([write([GOOD])], held_out=[other])
    assert report.remarks == ("The held-out files hold documents, the others do not.",)
    cut = write([GOOD, *map(sft, range(500))], "cut.jsonl.gz")
    cut.write_bytes(cut.read_bytes()[:-500])
    assert set(found(check_files([write([GOOD])], held_out=[cut]))) == {"unreadable", "leak"}


def test_progress_is_told(write):
    told = []
    check_files([write([GOOD, sft(1)])], progress=lambda name, count: told.append((name, count)))
    assert told == [("data.jsonl", 2)]


def test_thirteen_words_of_an_evaluation_set(write, found):
    question = "which of the seven colours of the rainbow is the one nearest to the ground"
    item = {"question": f"{question}?", "choices": ["red", "violet"]}
    evaluation = write([item, {"question": "Why 1?"}], "exam.jsonl")
    records = [sft(1), {"prompt": "Tell me:", "completion": f"I wonder {question.upper()}, then."}]
    report = check_files([write(records)], evaluation=[evaluation])
    assert found(report) == {"evaluation-overlap": (1, "exam.jsonl", ["data.jsonl:2"])}
    assert "wonder WHICH OF THE SEVEN COLOURS" in report.findings[0].examples[0].excerpt


def test_columns_that_name_benchmarks(write, found):
    records = [
        sft(1) | {"template": "super_glue_rte_guess"},
        sft(2) | {"template": "mrpc-1"},
        sft(3) | {"template": "drops_of_water"},
        sft(4) | {"template": "social_i_qa_x", "source": "web"},
    ]
    (count, detail, places) = found(check_files([write(records)]))["evaluation-template"]
    assert (count, places) == (3, [f"data.jsonl:{line}" for line in (1, 2, 4)])
    assert "mrpc 1×" in detail
    assert "social_i_qa 1×" in detail


# ------------------------------------------------------------------------------- files


def test_columns_with_usual_names_are_mapped_and_said(write, found):
    records = [{"query": f"{n}?", "reply": f"{n}."} for n in range(3)]
    report = check_files([write(records)])
    assert found(report) == {
        "columns-mapped": (1, "prompt ← query, completion ← reply", ["data.jsonl"])
    }
    assert report.usable == 3
    mapping = {"prompt": "query", "completion": "reply"}
    assert check_files([write(records)], "sft", columns=mapping).findings == ()


def test_the_kind_can_be_given(write, found):
    path = write([{"prompt": "a", "text": "b"}])
    assert check_files([path]).files[0].kind == "documents"
    assert check_files([path], "prompts").files[0].kind == "prompts"
    assert found(check_files([path], "preferences"))["schema"][0] == 1
    with pytest.raises(UserError, match="--kind essays: must be one of"):
        check_files([path], "essays")


def test_columns_that_mean_nothing(write, found):
    report = check_files([write([{"foo": 1, "bar": 2}])])
    assert found(report) == {"columns-unknown": (1, "columns foo, bar", ["data.jsonl:1"])}
    assert report.exit_code == UNUSABLE


def test_a_file_without_a_usable_record(write, found):
    report = check_files([write([b"x", b"y"])])
    assert found(report)["no-records"][1] == "Broken JSON in line 1"
    assert report.exit_code == UNUSABLE
    assert check_files([write([{"prompt": "", "completion": ""}])]).exit_code == UNUSABLE


def test_a_cut_off_archive_is_read_as_far_as_it_goes(write, found):
    path = write(map(sft, range(5000)), "data.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-2000])
    report = check_files([path])
    assert found(report)["unreadable"][1].startswith("gzip, cut off or damaged: ")
    assert 1000 < report.usable < 5000
    assert report.exit_code == WITH_FINDINGS


def test_a_missing_or_empty_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        check_files([tmp_path / "gone.jsonl"])
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UserError, match="is empty"):
        check_files([tmp_path / "empty.jsonl"])


@pytest.mark.parametrize("name", ["data.csv", "data.json", "data.parquet", "data.jsonl.zst"])
def test_other_formats(write, found, tmp_path, name):
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    records = [sft(1), sft(2), {"prompt": "a", "completion": " "}, sft(1)]
    path = tmp_path / name
    table = pyarrow.Table.from_pylist(records)
    if name.endswith("csv"):
        pyarrow.csv.write_csv(table, path)
    elif name.endswith("parquet"):
        pyarrow.parquet.write_table(table, path)
    elif name.endswith("zst"):
        with pyarrow.CompressedOutputStream(str(path), "zstd") as file:
            file.write(write(records).read_bytes())
    else:
        path.write_text(json.dumps(records, indent=0))
    report = check_files([path])
    assert found(report)["empty"][:2] == (1, "completion is empty")
    assert found(report)["duplicate"][0] == 1
    assert "Because 1." in report.findings[-1].examples[0].excerpt
    assert (report.records, report.usable) == (4, 3)


def test_text_files_are_documents(tmp_path):
    (tmp_path / "a.txt").write_text("Once upon a time.")
    (tmp_path / "b.md").write_text("# A title\n\nAnd text.")
    report = check_files([tmp_path])
    assert [(file.kind, file.usable) for file in report.files] == [("documents", 1)] * 2
    assert report.exit_code == FINE
