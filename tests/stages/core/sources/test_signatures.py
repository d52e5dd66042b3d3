"""Files that are something else than their suffix says."""

import gzip
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from stages.core.data_check import check_files
from stages.core.errors import UserError
from stages.core.sources import read_records
from stages.core.sources.signatures import HEAD_BYTES, disguise

LINE = b'{"text": "a"}\n'


def parquet():
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "content", "cure"),
    [
        ("a.jsonl", gzip.compress(LINE, mtime=0), "is gzip; name it a.jsonl.gz"),
        ("a.txt", zstandard.compress(LINE), "is zstd; name it a.txt.zst"),
        ("a.jsonl.gz", LINE, "is not gzip; if it is plain take .gz off its name"),
        ("a.jsonl.zst", gzip.compress(LINE, mtime=0), "is not zstd"),
        ("a.jsonl", parquet(), "is Parquet: name it .parquet"),
        ("a.csv", b"PK\x03\x04\x14\0", "is a ZIP archive or an Excel workbook"),
        ("a.txt", b"%PDF-1.7\n", "is PDF: extract its text"),
    ],
)
def test_what_a_file_really_is_is_said_with_the_cure(tmp_path, name, content, cure):
    path = tmp_path / name
    path.write_bytes(content)
    with path.open("rb") as file, pytest.raises(UserError, match=cure):
        list(read_records(path, file))
    report = check_files([path])
    assert report.exit_code == 2
    assert cure in report.findings[0].detail


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl.gz", gzip.compress(LINE, mtime=0)),
        ("a.jsonl.zst", zstandard.compress(LINE)),
        ("a.jsonl.zst", b"\x51\x2a\x4d\x18\x01\0\0\0x" + zstandard.compress(LINE)),
        ("a.parquet", parquet()),
        ("a.txt", b"PAR1 is a format"),
        ("a.txt", b""),
    ],
)
def test_names_that_are_true_are_left_in_peace(name, content):
    assert disguise(Path(name), content[:HEAD_BYTES]) == ""
