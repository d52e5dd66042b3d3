"""Data sets of a hub that runs here and answers as the Hugging Face Hub does, and of none."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from pydantic import ValidationError

from stages.core.config import HubSource
from stages.core.errors import UserError
from stages.core.fetch import Snapshot, records
from stages.core.fetch.hub import write_dataset
from stages.core.fetch.records import RECORDS_FILE
from stages.core.fetch.sources import fetch
from stages.core.sources import read_records

COMMIT = "a" * 40
FILES = {
    "README.md": b"---\nlicense: [cc0-1.0, mit]\n---\n# Replies\n",
    "train.jsonl": b"".join(b'{"prompt": "p%d", "completion": "c"}\n' % n for n in range(100)),
}


class _Hub(BaseHTTPRequestHandler):
    """One data set, ``team/replies``, of one commit."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if "/team/replies" not in path:
            return self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        if COMMIT not in path:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        _, _, name = path.partition(f"/resolve/{COMMIT}/")
        if name in FILES:
            return self._send_file(FILES[name])
        if path == f"/api/datasets/team/replies/revision/{COMMIT}":
            siblings = [{"rfilename": name} for name in FILES]
            card = {"license": ["cc0-1.0", "mit"]}
            info = {"id": "team/replies", "sha": COMMIT, "cardData": card, "siblings": siblings}
            facts = {"private": False, "gated": False, "tags": [], "downloads": 0, "likes": 0}
            return self._send(200, json.dumps(info | facts).encode())
        if path == f"/api/datasets/team/replies/tree/{COMMIT}":
            entries = [
                {"type": "file", "path": name, "size": len(body), "oid": digest(body)}
                for name, body in FILES.items()
            ]
            return self._send(200, json.dumps(entries).encode())
        return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send_file(self, body: bytes) -> None:
        start, end = 0, len(body) - 1
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest(body)}"'}
        asked = self.headers.get("Range")
        if asked:
            first, last = asked.removeprefix("bytes=").split("-")
            start, end = int(first), min(int(last or end), end)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
        self._send(206 if asked else 200, body[start : end + 1], headers)

    def _send(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


def digest(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


def quiet(done, total, unit):
    """No progress is looked at."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


FETCH = """
import json, pathlib, sys
from stages.core.config import HubSource
from stages.core.errors import UserError
from stages.core.fetch.sources import fetch
cache = pathlib.Path(sys.argv[1])
for setting in json.loads(sys.argv[2]):
    try:
        source = HubSource.model_validate(setting)
        print(fetch(source, cache, lambda *call: None).model_dump_json())
    except UserError as error:
        print("refused", error)
"""


def fetch_all(hub, tmp_path, settings):
    """The snapshot or the refusal of each data set, fetched in a process that knows this hub: the
    libraries read its address when they are imported."""
    environment = {
        name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")
    }
    environment |= {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "home")}
    settings = [{"name": "team/replies", "revision": COMMIT} | setting for setting in settings]
    done = subprocess.run(
        [sys.executable, "-c", FETCH, str(tmp_path / "sources"), json.dumps(settings)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = [line for line in done.stdout.splitlines() if line.startswith(("{", "refused "))]
    return [
        Snapshot.model_validate_json(line) if line.startswith("{") else line for line in results
    ]


def rows_of(cache, snapshot):
    path = cache / snapshot.folder / RECORDS_FILE
    with path.open("rb") as file:
        return [record.fields for record in read_records(path, file)]


@pytest.mark.slow
def test_a_pinned_data_set_is_fetched_whole_or_in_part(hub, tmp_path):
    settings = [{}, {"streaming": False}, {"max_records": 7}, {}]
    (tmp_path / "team" / "replies").mkdir(parents=True)  # no data set, though it is called so
    stream, whole, part, again = fetch_all(hub, tmp_path, settings)
    rows = rows_of(tmp_path / "sources", stream)
    assert rows == [{"prompt": f"p{n}", "completion": "c"} for n in range(100)]
    assert stream.records == 100
    assert stream.licence == "cc0-1.0, mit"
    assert stream.version == {"revision": COMMIT}
    assert whole.files == stream.files
    assert rows_of(tmp_path / "sources", part) == rows[:7]
    assert again == stream


@pytest.mark.slow
def test_what_the_hub_does_not_have_is_one_line_with_the_cure(hub, tmp_path):
    settings = [
        {"name": "team/gone"},
        {"revision": "b" * 40},
        {"split": "test"},
        {"config_name": "de"},
    ]
    name, commit, split, config = fetch_all(hub, tmp_path, settings)
    assert "team/gone: the hub has no such data set for this account" in name
    assert "or set $HF_TOKEN where it is private" in name
    assert "team/replies: has no commit bbbb" in commit
    assert "team/replies: Bad split: test. Available splits: ['train']" in split
    assert "team/replies: BuilderConfig 'de' not found. Available: ['default']" in config


def test_without_network_a_local_copy_is_the_cure(cache):
    source = HubSource(name="team/replies", revision=COMMIT)
    message = r"the hub cannot be reached \(HF_HUB_OFFLINE is set\).*download it elsewhere and give"
    with pytest.raises(UserError, match=message):
        fetch(source, cache, quiet)


def test_a_broken_off_stream_goes_on_and_ends_as_a_straight_one(tmp_path, monkeypatch):
    from datasets import load_dataset

    monkeypatch.setattr(records, "RECORDS_A_FRAME", 30)
    (tmp_path / "rows.jsonl").write_bytes(FILES["train.jsonl"])

    def dataset():
        files = str(tmp_path / "rows.jsonl")
        return load_dataset("json", data_files=files, split="train", streaming=True)

    straight, broken = tmp_path / "straight", tmp_path / "broken"
    straight.mkdir()
    broken.mkdir()
    assert write_dataset(dataset(), straight, quiet) == 100

    def cut(done, total, unit):
        if done == 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(dataset(), broken, cut)
    with (broken / RECORDS_FILE).open("ab") as file:
        file.write(b"half a frame")
    calls = []
    assert write_dataset(dataset(), broken, lambda *call: calls.append(call)) == 100
    assert [done for done, _, _ in calls] == [90, 100]
    assert (broken / RECORDS_FILE).read_bytes() == (straight / RECORDS_FILE).read_bytes()


def test_columns_that_are_no_text_are_left_out(tmp_path, capsys):
    from datasets import Dataset, Features, Value

    features = Features({"prompt": Value("string"), "picture": Value("binary")})
    dataset = Dataset.from_dict({"prompt": ["a"], "picture": [b"\xff\xd8"]}, features=features)
    assert write_dataset(dataset, tmp_path, quiet) == 1
    assert "no text, and so left out: column picture" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"name": "team/replies", "revision": "main"}, "a branch or tag may move: give the comm"),
        ({"name": "team/replies", "revision": "abc123"}, "40 hexadecimal digits"),
        ({"name": "team/replies"}, "revision\n  Field required"),
        ({"name": "/data/replies", "revision": COMMIT}, "is called owner/name"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(setting, message):
    with pytest.raises(ValidationError, match=message):
        HubSource.model_validate(setting)
