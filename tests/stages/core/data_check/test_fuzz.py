"""Files that something has gone wrong with: whatever it was, a report or one line comes of it."""

import csv
import gzip
import io
import itertools
import json
from functools import cache

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.core.data_check import FINE, UNUSABLE, WITH_FINDINGS, check_files
from stages.core.data_check.rendering import log_lines, markdown
from stages.core.errors import UserError

TURNS = [{"role": "user", "content": "Ünd?"}, {"role": "assistant", "content": "Ja 日本."}]
KINDS = {
    "sft": [{"prompt": f"Why {n}?", "completion": f"“Because” {n}."} for n in range(40)],
    "messages": [{"messages": TURNS, "score": 1.5, "id": n} for n in range(20)],
    "preferences": [
        {"prompt": f"{n}?", "chosen": "yes", "rejected": "no", "margin": 0.5, "source": "a"}
        for n in range(30)
    ],
    "hh": [
        {name: f"\n\nHuman: Hi {n}\n\nAssistant: {name}" for name in ("chosen", "rejected")}
        for n in range(20)
    ],
    "labelled": [{"text": f"text {n}", "label": n % 3} for n in range(30)],
    "documents": [{"text": "Once upon a time. " * 20, "meta": {"a": [n]}} for n in range(9)],
}  # fmt: skip
TEXTS = st.text(
    st.sampled_from("aB \n\t\r\0\u2028\u00e9\ufeff日😀") | st.characters(codec="utf-8"), max_size=8
) | st.sampled_from(["\n\nHuman: a\n\nAssistant:", "</s>", "2020-01-01", "\x1c", "Ã©", "a" * 200])
VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.lists(TEXTS, max_size=2)
    | st.lists(st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system"]), "content": TEXTS},
        optional={"weight": st.integers(0, 1)}), max_size=3)
    | st.lists(st.fixed_dictionaries(
        {"from": st.sampled_from(["human", "GPT", "tool"]), "value": TEXTS}), max_size=3)
)  # fmt: skip
NAMES = [
    "prompt", "completion", "messages", "chosen", "rejected", "text", "label", "id", "source",
    "meta", "margin", "annotator", "created_at", "line", "template",
]  # fmt: skip
ODD_RECORDS = st.one_of(
    st.fixed_dictionaries(dict.fromkeys(names, TEXTS | VALUES), optional={"other": VALUES})
    for names in (*itertools.combinations(NAMES, 2), ("chosen", "rejected", "prompt", "margin"))
)
DIALOGUES = st.one_of(
    st.fixed_dictionaries(
        {
            name: st.lists(
                st.fixed_dictionaries({who: st.sampled_from(["user", "gpt"]), what: TEXTS}),
                min_size=1,
                max_size=4,
            )
        },
        optional={"system": TEXTS | st.none(), "prompt": TEXTS},
    )
    for name, who, what in (("messages", "role", "content"), ("conversations", "from", "value"))
)
FORMATS = ("jsonl", "jsonl.gz", "jsonl.zst", "json", "csv", "tsv", "parquet", "txt.gz", "md")


@cache
def valid_file(kind: str, name: str) -> bytes:
    """The content of a file of this format."""
    records = KINDS[kind]
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    base = name.split(".")[0]
    if base == "json":
        return json.dumps(records, indent=1).encode()
    if base in ("csv", "tsv"):
        text = io.StringIO()
        table = csv.DictWriter(text, list(records[0]), delimiter="\t" if base == "tsv" else ",")
        table.writeheader()
        table.writerows(records)
        return text.getvalue().encode()
    if base == "parquet":
        sink = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), sink)
        return sink.getvalue()
    if name.endswith(".gz"):
        return gzip.compress(lines[: len(lines) // 2]) + gzip.compress(lines[len(lines) // 2 :])
    return bytes(pyarrow.compress(lines, "zstd", asbytes=True)) if "zst" in name else lines


def damaged(content: bytes, draw) -> bytes:
    """Some bytes of the file changed, cut out, put in, doubled; or its end cut off."""
    data = bytearray(content)
    places = st.integers(0, max(len(data) - 1, 0))
    for _ in range(draw(st.integers(1, 5))):
        at = min(draw(places), max(len(data) - 1, 0))
        length = draw(st.integers(1, 40))
        how = draw(st.sampled_from(["flip", "cut", "splice", "double", "end", "tokens"]))
        if how == "flip" and data:
            data[at] ^= draw(st.integers(1, 255))
        elif how == "cut":
            del data[at : at + length]
        elif how == "splice":
            data[at:at] = draw(st.binary(max_size=40))
        elif how == "double":
            data[at:at] = data[at : at + length]
        elif how == "end":
            del data[at:]
        else:
            pieces = [b"\0", b"\r\n", b'"', b"}{", b"NaN", b"\\ud800", b"\xef\xbb\xbf", b"[" * 3000]
            data[at:at] = draw(st.sampled_from(pieces))
    return bytes(data)


def report_or_line(path, kind=""):
    try:
        return check_files([path], kind, context=30)
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("name", FORMATS)
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_files_make_a_report_or_one_line(tmp_path, name, data):
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    path = tmp_path / f"data.{name}"
    path.write_bytes(damaged(valid_file(kind, name), data.draw))
    report = report_or_line(path, data.draw(st.sampled_from(["", "sft"])))
    if isinstance(report, str):
        assert "\n" not in report
        return
    assert report.exit_code in (FINE, WITH_FINDINGS, UNUSABLE)
    assert report.usable <= report.records
    json.dumps(report.as_json()).encode()
    markdown(report).encode()
    assert all("\n" not in line for line in log_lines(report))


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_block_is_judged_alike_as_a_whole_and_line_by_line(tmp_path, data):
    """A broken line behind the others makes their block be read line by line."""
    if data.draw(st.booleans()):
        content = damaged(valid_file(data.draw(st.sampled_from(sorted(KINDS))), "jsonl"), data.draw)
    else:
        records = data.draw(st.lists(ODD_RECORDS | DIALOGUES, min_size=1, max_size=6))
        content = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    content = content.rstrip(b"\r\n") + b"\n"
    path = tmp_path / "data.jsonl"
    reports = []
    for end in (b"", b"{"):
        path.write_bytes(content + end)
        reports.append(report_or_line(path))
    if any(isinstance(report, str) or not report.records for report in reports):
        return
    whole, by_line = ({**counts(report)} for report in reports)
    last = content.count(b"\n") + 1
    broken = by_line.pop(("json", ""), (0, ()))
    before = broken[0] - 1, tuple(place for place in broken[1] if place != f"data.jsonl:{last}")
    if before[0] > 0:
        by_line["json", ""] = before
    assert whole == by_line


def counts(report):
    """What was found how often, and where first."""
    return {
        (item.code, item.detail): (item.count, tuple(example.place for example in item.examples))
        for item in report.findings
    }


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_files_themselves_are_usable(tmp_path, kind, name):
    if name in ("csv", "tsv") and kind in ("messages", "documents"):
        return  # lists have no place in a table
    path = tmp_path / f"data.{name}"
    path.write_bytes(valid_file(kind, name))
    assert check_files([path]).usable > 0
