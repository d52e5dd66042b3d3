"""A web server that serves files as a good one does, and misbehaves where a test asks it to."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stages.core.fetch import download

Calls = list[tuple[int, int, str]]


class FileServer(ThreadingHTTPServer):
    """Files with tags and ranges. What it was asked is in ``requests``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, str] = {}
        """Sent with every file; an empty value takes a header away."""
        self.cuts: list[int] = []
        """The next answers break off after so many bytes of theirs."""
        self.statuses: list[int] = []
        """The next answers are these errors."""
        self.requests: list[dict[str, str]] = []

    def handle_error(self, request: object, address: object) -> None:
        """That a client goes away is nothing to show."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(dict(self.headers.items()))
        if server.statuses:
            return self._end(server.statuses.pop(0))
        path = self.path.partition("?")[0]
        if path not in server.files:
            return self._end(404)
        body = server.files[path]
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        headers = {"ETag": tag, "Content-Type": "application/octet-stream"} | server.headers
        tag = headers["ETag"]
        if tag and self.headers.get("If-None-Match") == tag:
            return self._end(304)
        start, code = 0, 200
        asked = self.headers.get("Range", "")
        if asked and self.headers.get("If-Range") == tag:
            start, code = int(asked.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(body):
                return self._end(416, {"Content-Range": f"bytes */{len(body)}"})
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.send_response(code)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        if server.cuts:
            self.wfile.write(rest[: server.cuts.pop(0)])
            self.close_connection = True
            return None
        self.wfile.write(rest)
        return None

    def _end(self, code: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[FileServer]:
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "sources"


@pytest.fixture
def calls() -> Calls:
    return []


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RETRY_SECONDS", (0.0, 0.0, 0.0))
