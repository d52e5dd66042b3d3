"""Objects from a server that speaks the two calls of S3 that are used: listing and getting."""

import hashlib
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
from pydantic import ValidationError

from stages.core.config import S3Source
from stages.core.errors import UserError
from stages.core.fetch import read_snapshot
from stages.core.fetch.snapshots import PART, source_folder
from stages.core.fetch.sources import fetch

ROWS = b"".join(b'{"text": "line %d"}\n' % n for n in range(20_000))
PAGE = 2
"""Objects a listing gives at once."""


class Storage(ThreadingHTTPServer):
    """One bucket, ``data``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.cuts: list[int] = []
        """The next objects break off after so many bytes of the answer."""
        self.refusals: list[tuple[int, str]] = []
        """The next answers are these errors."""
        self.got: list[str] = []
        """The objects that were sent, with the range that was asked for."""

    def handle_error(self, request: object, address: object) -> None:
        """That a client goes away is nothing to show."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Storage

    def do_GET(self) -> None:
        server, parts = self.server, urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        if server.refusals:
            return self._refuse(*server.refusals.pop(0))
        if "AKIA-test" not in self.headers.get("Authorization", ""):
            return self._refuse(403, "InvalidAccessKeyId")
        if bucket != "data":
            return self._refuse(404, "NoSuchBucket")
        if not key:
            return self._list(parse_qs(parts.query))
        body = server.objects[key]
        if self.headers.get("If-Match", "").strip('"') != tag(body):
            return self._refuse(412, "PreconditionFailed")
        asked = self.headers.get("Range", "")
        server.got.append(f"{key} {asked}".strip())
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", f'"{tag(body)}"')
        self.end_headers()
        rest = body[start:]
        if server.cuts:
            self.wfile.write(rest[: server.cuts.pop(0)])
            self.close_connection = True
            return None
        self.wfile.write(rest)
        return None

    def _list(self, query: dict[str, list[str]]) -> None:
        prefix = query.get("prefix", [""])[0]
        keys = sorted(key for key in self.server.objects if key.startswith(prefix))
        start = int(query.get("continuation-token", ["0"])[0])
        items = "".join(
            f"<Contents><Key>{quote(key)}</Key><ETag>&quot;{tag(body)}&quot;</ETag>"
            f"<Size>{len(body)}</Size></Contents>"
            for key in keys[start : start + PAGE]
            for body in [self.server.objects[key]]
        )
        more = start + PAGE < len(keys)
        token = f"<NextContinuationToken>{start + PAGE}</NextContinuationToken>" if more else ""
        truncated = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        self._send(
            200,
            f"<ListBucketResult><EncodingType>url</EncodingType>{items}{truncated}{token}</ListBucketResult>",
        )

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, f"<Error><Code>{code}</Code><Message>so it is</Message></Error>")

    def _send(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


def tag(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()


def quiet(done, total, unit):
    """No progress is looked at."""


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA-test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-key")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    server = Storage()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def contents(cache, snapshot):
    folder = cache / snapshot.folder
    return {file.name: (folder / file.name).read_bytes() for file in snapshot.files}


def source(storage, url):
    return S3Source(url=url, endpoint_url=storage.url)


def test_one_object_by_its_key(storage, cache):
    storage.objects = {"a/rows.jsonl": ROWS, "a/rows.jsonl.bak": b"x"}
    calls = []
    one = source(storage, "s3://data/a/rows.jsonl")
    snapshot = fetch(one, cache, lambda *call: calls.append(call))
    assert contents(cache, snapshot) == {"rows.jsonl": ROWS}
    assert snapshot.version == {"rows.jsonl": f"{tag(ROWS)} {len(ROWS)}"}
    assert calls[-1] == (len(ROWS), len(ROWS), "bytes")
    assert read_snapshot(cache / snapshot.folder) == snapshot
    assert not (source_folder(cache, one) / PART).exists()


def test_a_folder_is_listed_page_by_page_and_only_data_is_taken(storage, cache):
    storage.objects = {
        "a/1.jsonl": b"1\n",
        "a/deep/2 & ü.csv": b"2\n",
        "a/3.parquet": b"3\n",
        "a/README.md": b"about",
        "a/.hidden.jsonl": b"x",
        "a/empty.jsonl": b"",
        "a/picture.png": b"x",
        "a/deep/": b"",
        "ab/other.jsonl": b"x",
    }
    for url in ("s3://data/a/", "s3://data/a"):
        snapshot = fetch(source(storage, url), cache, quiet)
        assert contents(cache, snapshot) == {
            "1.jsonl": b"1\n",
            "deep/2 & ü.csv": b"2\n",
            "3.parquet": b"3\n",
        }
    storage.objects = {"rows.jsonl": b"1\n"}
    assert contents(cache, fetch(source(storage, "s3://data"), cache, quiet)) == storage.objects


def test_only_what_has_changed_is_sent_again(storage, cache):
    storage.objects = {"a/1.jsonl": b"1\n", "a/2.jsonl": b"2\n"}
    folder = source(storage, "s3://data/a/")
    first = fetch(folder, cache, quiet)
    assert fetch(folder, cache, quiet) == first
    assert storage.got == ["a/1.jsonl", "a/2.jsonl"]
    storage.objects |= {"a/2.jsonl": b"22\n", "a/3.jsonl": b"3\n"}
    del storage.objects["a/1.jsonl"]
    second = fetch(folder, cache, quiet)
    assert contents(cache, second) == {"2.jsonl": b"22\n", "3.jsonl": b"3\n"}
    storage.objects["a/4.jsonl"] = b"4\n"
    third = fetch(folder, cache, quiet)
    assert storage.got == [f"a/{n}.jsonl" for n in (1, 2, 2, 3, 4)]
    assert contents(cache, third)["2.jsonl"] == b"22\n"
    assert contents(cache, first) == {"1.jsonl": b"1\n", "2.jsonl": b"2\n"}


def test_a_broken_connection_is_gone_on_with(storage, cache):
    storage.objects = {"rows.jsonl": ROWS}
    storage.cuts = [100_000, 50_000]
    snapshot = fetch(source(storage, "s3://data/rows.jsonl"), cache, quiet)
    assert contents(cache, snapshot) == {"rows.jsonl": ROWS}
    assert len(storage.got) == 3
    assert storage.got[1:] == ["rows.jsonl bytes=100000-", "rows.jsonl bytes=150000-"]


def test_what_has_come_is_kept_for_the_next_run(storage, cache):
    storage.objects = {"a/1.jsonl": b"1\n", "a/2.jsonl": ROWS}
    folder = source(storage, "s3://data/a/")
    fetch(source(storage, "s3://data/a/1.jsonl"), cache, quiet)
    storage.cuts = [2, 100_000, 0, 0, 0, 0]
    with pytest.raises(UserError, match="check the endpoint and the network, and run again"):
        fetch(folder, cache, quiet)
    storage.got.clear()
    assert contents(cache, fetch(folder, cache, quiet)) == {"1.jsonl": b"1\n", "2.jsonl": ROWS}
    assert storage.got == ["a/2.jsonl bytes=100000-"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://other/a/", "there is no such bucket; correct its name or the endpoint"),
        ("s3://data/gone/", "no such object, and none below it; correct the key"),
        ("s3://data/pictures/", "none of its 1 objects is a file of a known format"),
        ("s3://data/pictures/a.png", r"a.png: unknown format '.png'"),
        ("s3://data/empty.jsonl", r"is empty \(0 bytes\)"),
    ],
)
def test_what_is_not_there_is_one_line_with_the_cure(storage, cache, url, message):
    storage.objects = {"pictures/a.png": b"x", "empty.jsonl": b""}
    with pytest.raises(UserError, match=message) as refusal:
        fetch(source(storage, url), cache, quiet)
    assert "\n" not in str(refusal.value)


def test_refused_and_missing_credentials(storage, cache, monkeypatch, tmp_path):
    storage.refusals = [(403, "AccessDenied")]
    with pytest.raises(UserError, match="AccessDenied so it is: these credentials may not read it"):
        fetch(source(storage, "s3://data/a/"), cache, quiet)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    with pytest.raises(UserError, match="InvalidAccessKeyId so it is: these credentials"):
        fetch(source(storage, "s3://data/a/"), cache, quiet)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(UserError, match=r"no credentials: set \$AWS_ACCESS_KEY_ID and"):
        fetch(source(storage, "s3://data/a/"), cache, quiet)


def test_an_object_that_changes_after_the_listing_is_said(storage, cache):
    storage.objects = {"rows.jsonl": ROWS}
    storage.cuts = [1000]

    def change(done, total, unit):
        storage.objects["rows.jsonl"] = ROWS.upper()

    with pytest.raises(UserError, match="it has changed while it was read; run again"):
        fetch(source(storage, "s3://data/rows.jsonl"), cache, change)
    snapshot = fetch(source(storage, "s3://data/rows.jsonl"), cache, quiet)
    assert contents(cache, snapshot) == {"rows.jsonl": ROWS.upper()}


def test_a_server_that_is_away_is_one_line(storage, cache):
    away = S3Source(url="s3://data/a/", endpoint_url="http://127.0.0.1:1")
    with pytest.raises(UserError, match="Could not connect to the endpoint.*check the endpoint"):
        fetch(away, cache, quiet)


def test_without_boto3_the_extra_is_named(storage, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)  # as where it is not installed
    with pytest.raises(UserError, match=r"pip install 'rlhf-flows\[server\]'"):
        fetch(source(storage, "s3://data/a/"), cache, quiet)


@pytest.mark.parametrize(
    "setting",
    [
        {"url": "https://bucket.s3.amazonaws.com/a"},
        {"url": "s3://"},
        {"url": "s3://data/a", "endpoint_url": "minio:9000"},
        {"url": "s3://data/a", "endpoint_url": "http://me:hidden@minio:9000"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(setting):
    with pytest.raises(ValidationError) as refusal:
        S3Source.model_validate(setting)
    assert "s3://bucket" in str(refusal.value) or "endpoint_url" in str(refusal.value)
