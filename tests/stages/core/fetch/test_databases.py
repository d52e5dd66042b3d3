"""Queries to a real SQLite database."""

import datetime
import decimal
import sqlite3
import sys

import pyarrow
import pytest
from pydantic import ValidationError

from stages.core.config import SQLSource
from stages.core.errors import UserError
from stages.core.fetch.records import RECORDS_FILE, encode_record
from stages.core.fetch.sources import fetch
from stages.core.sources import read_records


def quiet(done, total, unit):
    """No progress is looked at."""


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "replies.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE replies (id INTEGER, prompt TEXT, completion TEXT)")
        rows = [(n, f"Frage {n}?", f"答案 {n}") for n in range(2500)]
        connection.executemany("INSERT INTO replies VALUES (?, ?, ?)", rows)
    return path


def source(path, query="SELECT prompt, completion FROM replies ORDER BY id"):
    return SQLSource(url=f"sqlite:///{path}", query=query)


def rows_of(cache, snapshot):
    path = cache / snapshot.folder / RECORDS_FILE
    with path.open("rb") as file:
        return [record.fields for record in read_records(path, file)]


def test_rows_become_records(database, cache):
    calls = []
    snapshot = fetch(source(database), cache, lambda *call: calls.append(call))
    rows = rows_of(cache, snapshot)
    assert len(rows) == snapshot.records == 2500
    assert rows[7] == {"prompt": "Frage 7?", "completion": "答案 7"}
    assert calls[-1] == (2500, 0, "records")


def test_equal_rows_are_the_same_snapshot_and_others_are_not(database, cache):
    first = fetch(source(database), cache, quiet)
    second = fetch(source(database), cache, quiet)
    assert (second.folder, second.digest) == (first.folder, first.digest)
    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM replies WHERE id = 3")
    third = fetch(source(database), cache, quiet)
    assert third.records == 2499
    assert third.digest != first.digest
    assert len(rows_of(cache, first)) == 2500


def test_what_a_query_changes_is_undone(database, cache):
    query = "DELETE FROM replies WHERE id < 10 RETURNING prompt"
    assert fetch(source(database, query), cache, quiet).records == 10
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM replies").fetchone() == (2500,)


def test_a_colon_in_a_query_is_no_parameter(database, cache):
    query = "SELECT prompt, 'a:b %' AS completion FROM replies WHERE id = 1"
    (row,) = rows_of(cache, fetch(source(database, query), cache, quiet))
    assert row == {"prompt": "Frage 1?", "completion": "a:b %"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELEC prompt", 'near "SELEC": syntax error; correct the query: SELEC prompt'),
        ("SELECT x FROM gone", "no such table: gone; check the address, the login and the query"),
        ("SELECT prompt FROM replies WHERE id < 0", "the query has no rows; correct it: SELECT"),
        ("DELETE FROM replies", "returns no table; give one that begins with SELECT"),
        ("SELECT id, id FROM replies", "two columns called 'id'; name one with AS"),
        ("SELECT x'ff00' AS prompt", "column 'prompt' holds bytes, which is no text; leave the"),
    ],
)
def test_faulty_queries_are_one_line_with_the_cure(database, cache, query, message):
    with pytest.raises(UserError, match=message) as refusal:
        fetch(source(database, query), cache, quiet)
    assert "\n" not in str(refusal.value)
    assert "sqlalche.me" not in str(refusal.value)
    assert str(refusal.value).startswith(f"sqlite:///{database}: ")


def test_a_file_that_is_not_there_is_not_made(tmp_path, cache):
    with pytest.raises(UserError, match="gone.db: no such file; looked in"):
        fetch(source(tmp_path / "gone.db"), cache, quiet)
    assert not (tmp_path / "gone.db").exists()


def test_a_file_that_is_no_database_is_refused(tmp_path, cache):
    (tmp_path / "text.db").write_text("plain text, longer than a header of SQLite " * 20)
    with pytest.raises(UserError, match="file is not a database"):
        fetch(source(tmp_path / "text.db"), cache, quiet)


def test_missing_drivers_and_unknown_databases_name_the_cure(cache):
    missing = SQLSource(url="mssql+pymssql://u:$PW_OF_TEST@host/db", query="SELECT 1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PW_OF_TEST", "hidden!")
        assert "pymssql" not in sys.modules
        with pytest.raises(UserError, match=r"needs the package pymssql.*pip install pymssql"):
            fetch(missing, cache, quiet)
    with pytest.raises(UserError, match="knows no database 'nosuch'"):
        fetch(SQLSource(url="nosuch://host/db", query="SELECT 1"), cache, quiet)


def test_a_password_from_the_environment_stays_out_of_messages_and_snapshots(
    cache, monkeypatch, database
):
    monkeypatch.setenv("PW_OF_TEST", "sehr/geheim@x")
    closed = SQLSource(url="postgresql+psycopg2://me:$PW_OF_TEST@127.0.0.1:1/db", query="SELECT 1")
    with pytest.raises(UserError, match="[Cc]onnection refused.*check the address, the login"):
        fetch(closed, cache, quiet)
    with pytest.raises(UserError) as refusal:
        fetch(closed, cache, quiet)
    assert "geheim" not in str(refusal.value)
    monkeypatch.setenv("DATABASE_OF_TEST", f"sqlite:///{database}")
    whole = SQLSource(url="$DATABASE_OF_TEST", query="SELECT prompt FROM replies WHERE id = 1")
    snapshot = fetch(whole, cache, quiet)
    assert str(database) not in (cache / snapshot.folder / "snapshot.json").read_text()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"url": "replies.db", "query": "SELECT 1"}, "SQLAlchemy's"),
        ({"url": "postgresql://me:hid/den@host/db", "query": "SELECT 1"}, "no password may stand"),
        ({"url": "sqlite:///a.db", "query": " "}, "a query such as"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(setting, message):
    with pytest.raises(ValidationError, match=message):
        SQLSource.model_validate(setting)


def test_values_become_json():
    row = {
        "whole": decimal.Decimal("3"),
        "part": decimal.Decimal("0.25"),
        "day": datetime.date(2026, 11, 23),
        "bytes": "Grüße".encode(),
        "nothing": float("nan"),
        "deep": [{"a": (1, None, True)}],
    }
    assert encode_record(row).decode() == (
        '{"whole": 3, "part": 0.25, "day": "2026-11-23", "bytes": "Grüße", "nothing": null, '
        '"deep": [{"a": [1, null, true]}]}\n'
    )
    assert encode_record({"text": "\ud800"}) == b'{"text": "\\ud800"}\n'


def test_frames_read_as_one_file(tmp_path, monkeypatch):
    from stages.core.fetch import records

    monkeypatch.setattr(records, "RECORDS_A_FRAME", 3)
    path, marks = tmp_path / "a.jsonl.zst", []
    rows = [{"n": n} for n in range(8)]
    assert records.write_records(path, rows, quiet, at_frame=marks.append) == 8
    assert marks == [3, 6]
    with pyarrow.input_stream(path, compression="zstd") as stream:
        assert stream.read().count(b"\n") == 8
