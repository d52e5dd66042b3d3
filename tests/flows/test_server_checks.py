import contextlib
import json
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flows import server_checks, servers, supervisor
from flows.checks import BAD, GOOD, NOTE


@pytest.fixture(autouse=True)
def _own_home(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(data_root))
    for name in ("PREFECT_SERVER_API_AUTH_STRING", "MLFLOW_TRACKING_USERNAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def late_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that lets everybody in, with the clock of long ago."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"token": "t"}')

        def date_time_string(self, timestamp=None):
            return "Fri, 01 Mar 2024 12:00:00 GMT"

        def log_message(self, *arguments):
            pass

    server = HTTPServer((servers.HOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{servers.HOST}:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_port_is_free_taken_or_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind((servers.HOST, 0))
        listener.listen()
        number = listener.getsockname()[1]
        found = server_checks.port("MLflow", number)
        assert (found.mark, found.subject) == (NOTE, f"Port {number}")
        assert "rlhf up --mlflow-port chooses another" in found.text
        url = f"http://127.0.0.1:{number}"
        monkeypatch.setattr(servers, "is_healthy", lambda asked: asked == f"{url}/api/health")
        with servers.recorded(url, "http://m"):
            assert server_checks.port("Prefect", number).mark == GOOD
            assert server_checks.leftovers().text == "is running"
    assert server_checks.port("MLflow", number) == (GOOD, f"Port {number}", "free for MLflow", "")


def test_a_sound_database_is_told_from_a_damaged_one(data_root: Path) -> None:
    path = data_root / "prefect.db"
    url = f"sqlite+aiosqlite:///{path}"
    assert server_checks.database("Prefect", url).mark == NOTE
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("create table runs (name text)")
        connection.executemany("insert into runs values (?)", [("x" * 500,)] * 200)
        connection.commit()
    found = server_checks.database("Prefect", url)
    assert found.mark == GOOD
    assert "journal wal" in found.text
    content = bytearray(path.read_bytes())
    content[8192:16384] = b"\xff" * 8192
    path.write_bytes(content)
    found = server_checks.database("Prefect", url)
    assert found.mark == BAD
    assert str(path) in found.cure
    path.write_text("no database at all, but some text that is long enough to be read as one")
    assert server_checks.database("Prefect", url).mark == BAD


def test_a_database_that_does_not_answer_is_bad_and_its_password_not_shown() -> None:
    port = servers.free_port()
    url = f"postgresql+asyncpg://me:secret@127.0.0.1:{port}/prefect"
    found = server_checks.database("Prefect", url)
    assert found.mark == BAD
    assert found.text.startswith("postgresql+asyncpg: ")
    assert "secret" not in "".join(found)


def test_a_server_that_does_not_answer_is_bad() -> None:
    found = server_checks.server("MLflow", f"http://127.0.0.1:{servers.free_port()}")
    assert found.mark == BAD
    assert "does not answer" in found.text


def test_a_clock_that_differs_is_bad(late_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Prefect", "MLflow"):
        found = server_checks.server(name, late_server)
        assert found.mark == BAD
        assert "its clock and ours differ by" in found.text
    monkeypatch.setattr(server_checks, "_clock_difference", lambda url: 1.0)
    assert server_checks.server("Prefect", late_server).mark == GOOD


def test_incomplete_passwords_are_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    assert server_checks.passwords().mark == NOTE
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "me:word")
    assert server_checks.passwords().text == "asked for by Prefect"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    assert server_checks.passwords().mark == BAD


def test_what_a_killed_up_left_is_found(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server_checks.leftovers().mark == GOOD
    record = {"pid": 1, "started": 1.0, "prefect_url": "http://p", "mlflow_url": "http://m"}
    (data_root / servers.STANDING_FILE).write_text(json.dumps(record), encoding="utf-8")
    assert server_checks.leftovers().mark == NOTE
    monkeypatch.setenv(supervisor.MARK, f"1 1.00 {data_root}")
    left = servers.spawn(["-c", "import time; time.sleep(60)"], data_root / "x.log", {})
    try:
        found = server_checks.leftovers()
        assert (found.mark, found.text) == (
            BAD,
            "was killed, and 1 of its processes are still running",
        )
    finally:
        servers.stop(left)


def test_a_data_root_that_may_not_be_entered_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    monkeypatch.setenv("RLHF_DATA_ROOT", str(closed))
    monkeypatch.setenv("PREFECT_HOME", str(closed / "prefect"))
    user = os.geteuid()
    if user == 0:  # who may enter everything
        os.seteuid(65534)
    try:
        found = [
            server_checks.database("Prefect", f"sqlite+aiosqlite:///{closed}/prefect/prefect.db"),
            server_checks.leftovers(),
        ]
    finally:
        os.seteuid(user)
    assert [finding.mark for finding in found] == [BAD, BAD]
    assert all("Permission denied" in finding.text for finding in found)
