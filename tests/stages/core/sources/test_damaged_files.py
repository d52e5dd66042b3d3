"""Files with random damage in every format: records and reasons, or an error of one line."""

import csv
import gzip
import io
import json
import random

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from stages.core.errors import UserError
from stages.core.sources import file_format, read_records

ROWS = [{"prompt": f"q {number}", "completion": 'say "ü"\n' * number} for number in range(6)]


def warc():
    body = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<main><p>Cranes fly south.</p></main>"
    )
    head = f"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return (head + body + b"\r\n\r\n") * 4


def table():
    text = io.StringIO()
    writer = csv.DictWriter(text, ["prompt", "completion"])
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def parquet():
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), file, row_group_size=2)
    return file.getvalue()


CONTENTS = {
    ".jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    ".json": json.dumps(ROWS, indent=1).encode(),
    ".csv": table(),
    ".parquet": parquet(),
    ".txt": b"Ein Satz.\n\n" * 50,
    ".html": b"<html><body><main><h1>A</h1><p>Cranes fly south.</p></main></body></html>",
    ".warc": warc(),
}
PACKERS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


def damaged(content, chance):
    content = bytearray(content)
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(content) + 1)
        cut = slice(at, at + chance.randint(0, 30))
        content[cut] = [chance.randbytes(chance.randint(0, 9)), bytes(content[cut]) * 2, b"\n"][
            chance.randrange(3)
        ]
    return bytes(content)


@pytest.mark.parametrize("compression", PACKERS)
@pytest.mark.parametrize("suffix", CONTENTS)
def test_damaged_files_are_read_or_refused(tmp_path, suffix, compression):
    chance = random.Random(f"{suffix}{compression}")
    path = tmp_path / f"a{suffix}{compression}"
    assert file_format(path)
    for number in range(60):
        content = CONTENTS[suffix] if number % 2 else damaged(CONTENTS[suffix], chance)
        content = PACKERS[compression](content)
        content = damaged(content, chance) if number % 2 else content
        path.write_bytes(content or b"x")
        message = ""
        try:
            with path.open("rb") as file:
                for record in read_records(path, file):
                    assert (record.fields is None) == bool(record.reason)
                    assert "\n" not in record.reason
                    assert record.line >= 1
        except UserError as error:
            message = str(error)
        assert "\n" not in message
