"""Records of files in every format: long lines, marks, line ends, and files that break off."""

import csv
import gzip
import io
import json
import random
import subprocess
import sys
import zlib

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from stages.core.errors import UserError
from stages.core.sources import CUT_OFF, read_records

ROWS = [{"prompt": f"question {i}", "completion": str(random.Random(i).random())}
        for i in range(20_000)]  # fmt: skip
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def records(path):
    with path.open("rb") as file:
        return list(read_records(path, file))


def table(delimiter):
    text = io.StringIO()
    writer = csv.DictWriter(text, ["prompt", "completion"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def test_marks_and_mixed_line_ends_are_no_content(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\n{"text": "b"}\n \r\n{"text": "c"}')
    assert [(r.line, r.fields) for r in records(path)] == [
        (1, {"text": "a"}), (3, {"text": "b"}), (5, {"text": "c"})
    ]  # fmt: skip
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbftext,n\r\na,1\nb,2\rc,3")
    assert [r.fields["text"] for r in records(path)] == ["a", "b", "c"]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv"])
def test_what_is_readable_of_a_cut_off_gzip_is_kept(tmp_path, suffix):
    content = {
        ".jsonl": LINES,
        ".json": json.dumps(ROWS, indent=1).encode(),
        ".csv": table(","),
        ".tsv": table("\t"),
    }[suffix]
    cut = gzip.compress(content)[: len(content) // 8]
    path = tmp_path / f"a{suffix}.gz"
    path.write_bytes(cut)
    readable = zlib.decompressobj(31).decompress(cut)  # all that any reader can get
    separator = b"}" if suffix.startswith(".json") else b"\n"
    is_table = suffix in (".csv", ".tsv")
    whole = readable.count(separator) - is_table  # less the header
    *kept, last = records(path)
    assert len(kept) == whole > 1000
    assert [record.fields for record in kept] == ROWS[:whole]
    assert (last.fields, last.reason, last.head) == (None, CUT_OFF, "Truncated compressed stream")
    assert last.line == (readable.count(b"\n") + (not readable.endswith(b"\n"))
                         if suffix != ".json" else last.line)  # fmt: skip


def test_what_is_readable_of_damaged_zstd_is_kept(tmp_path):
    packed = bytearray(zstandard.compress(LINES))
    middle = len(packed) // 2
    packed[middle : middle + 40_000] = bytes(40_000)
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(packed)
    *kept, last = records(path)
    assert [record.fields for record in kept] == ROWS[: len(kept)]
    assert 1000 < len(kept) < len(ROWS)
    assert last.reason == CUT_OFF
    assert "corruption" in last.head


def test_a_cut_off_text_is_kept_to_its_last_word(tmp_path):
    text = " ".join(row["completion"] for row in ROWS)
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(text.encode())[:50_000])
    *kept, last = records(path)
    found = " ".join(record.fields["text"] for record in kept)
    assert text.startswith(found)
    assert len(found) > 50_000
    assert last.reason == CUT_OFF


def test_several_gzip_files_in_one_are_all_read(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(b"".join(map(gzip.compress, LINES.splitlines(keepends=True)[:100])))
    assert [record.fields for record in records(path)] == ROWS[:100]


def test_damage_within_parquet_keeps_the_row_groups_before(tmp_path):
    path = tmp_path / "a.parquet"
    rows = pyarrow.Table.from_pylist(ROWS)
    pyarrow.parquet.write_table(rows, path, row_group_size=1000, compression="zstd")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = bytes(20_000)
    path.write_bytes(content)
    *kept, last = records(path)
    assert [record.fields for record in kept] == ROWS[: len(kept)]
    assert len(kept) >= 5000
    assert last.reason == CUT_OFF


@pytest.mark.parametrize("wrapped", [{"data": ROWS[:9]}, ROWS[0]], ids=["array", "record"])
def test_an_object_over_several_lines_is_named_with_the_cure(tmp_path, wrapped):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(wrapped, indent=2))
    with pytest.raises(UserError, match=r"a\.json:1: neither a record a line .* jq -c "):
        records(path)


def test_parquet_values_that_python_cannot_hold_are_named(tmp_path):
    path = tmp_path / "a.parquet"
    texts = pyarrow.array([b"a", b"\xff", b"c", b"d"]).view(pyarrow.string())
    days = pyarrow.array([0, 0, 2**30, 1], pyarrow.int32()).view(pyarrow.date32())
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "day": days}), path)
    assert [(r.line, r.fields and r.fields["text"], r.reason) for r in records(path)] == [
        (1, "a", ""),
        (2, None, "invalid UTF-8"),
        (3, None, "a date or number is out of range"),
        (4, "d", ""),
    ]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.zst", "a.parquet", "a.warc", "a.warc.gz"])
def test_a_file_of_which_nothing_is_readable_is_an_error(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"hello, this is something else\n" * 9)
    what = "(cannot be read as .*: make or|is not (gzip|zstd); .* else) fetch it again"
    with pytest.raises(UserError, match=f"{name}: {what}$"):
        records(path)


CHILD = """
import resource, sys
from pathlib import Path
from stages.core.sources import read_records
import pyarrow, pyarrow.parquet
import stages.core.sources.compression
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = used + 150 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
path = Path(sys.argv[1])
with path.open("rb") as file:
    for record in read_records(path, file):
        print(record.line, record.reason or record.fields)
"""


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_line_of_300_mb_is_passed_over_in_bounded_memory(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    before, after = {
        ".jsonl": (b'{"text": "a"}\n{"text": "', b'"}\n{"text": "b"}\n'),
        ".csv": (b"text\na\n", b"\nb\n"),
    }[suffix]
    with path.open("wb") as file:
        file.write(before)
        for _ in range(300):
            file.write(b"x" * 10**6)
        file.write(after)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=False
    )
    first = 1 if suffix == ".jsonl" else 2
    assert done.stdout.splitlines() == [
        f"{first} {{'text': 'a'}}",
        f"{first + 1} record is larger than 10 MB",
        f"{first + 2} {{'text': 'b'}}",
    ], done.stderr


@pytest.mark.parametrize(
    "content",
    [
        'prompt;completion\r\n"a, b";"c"\r\n',
        'sep=;\r\nprompt;completion\r\n"a, b";"c"\r\n',
        "\ufeffprompt\tcompletion\r\na, b\tc\r\n",
        'prompt|completion\n"a, b"|"c"\n',
        'prompt,completion\n"a, b",c\n',
        'prompt, completion \n"a, b",c\n',
    ],
)
def test_the_header_tells_the_delimiter(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_text(content, newline="")
    (record,) = records(path)
    assert record.fields == {"prompt": "a, b", "completion": "c"}


def test_a_quotation_mark_within_a_cell_is_named_with_the_cure(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,n\n"a "b" c",1\nd,2\n')
    broken, whole = records(path)
    assert (broken.line, broken.fields) == (2, None)
    assert broken.reason.startswith("broken CSV: a quotation mark inside a quoted cell")
    assert whole.fields == {"text": "d", "n": "2"}


def test_a_table_of_one_column_has_no_delimiter(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text\n"one; two"\nthree\n')
    assert [record.fields for record in records(path)] == [{"text": "one; two"}, {"text": "three"}]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1},', "broken JSON: a comma follows the record"),
        (b"{'a': 1}", "broken JSON: single quotes, as Python prints"),
        (b"[", "broken JSON: the file is an array; name it .json"),
        (b'{"a": 1', "broken JSON"),
    ],
)
def test_usual_habits_that_are_no_json_are_named(tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(line + b"\n")
    (record,) = records(path)
    assert record.fields is None
    assert record.reason.startswith(reason)
