import gzip
import json
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[4].parent / "shared" / "data"


@pytest.fixture
def write(tmp_path):
    """Writes records (or lines as bytes) to a JSON Lines file and returns its path."""

    def to_file(records, name="data.jsonl"):
        path = tmp_path / name
        lines = [
            record if isinstance(record, bytes) else json.dumps(record).encode()
            for record in records
        ]
        data = b"".join(line + b"\n" for line in lines)
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return to_file


@pytest.fixture
def found():
    """The findings of a report, by code: number of records, detail, and places of the examples."""

    def by_code(report):
        return {
            finding.code: (
                finding.count,
                finding.detail,
                [example.place for example in finding.examples],
            )
            for finding in report.findings
        }

    return by_code
