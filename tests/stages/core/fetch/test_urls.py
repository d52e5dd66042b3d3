"""Files behind addresses, from a real server on this machine."""

import base64
import gzip
import hashlib
import json
import socket

import pytest
from pydantic import ValidationError

from stages.core.config import UrlSource
from stages.core.errors import UserError
from stages.core.fetch import read_snapshot, snapshot_of, urls
from stages.core.fetch.snapshots import PART, source_folder
from stages.core.fetch.sources import fetch

ROWS = b"".join(b'{"text": "line %d"}\n' % n for n in range(20_000))
"""About half a megabyte."""


def quiet(done, total, unit):
    """No progress is looked at."""


def fetched(source, cache, progress=quiet):
    """The snapshot, and the bytes of its only file."""
    snapshot = fetch(source, cache, progress)
    (file,) = snapshot.files
    return snapshot, (cache / snapshot.folder / file.name).read_bytes()


def test_a_file_becomes_a_snapshot_with_its_facts(server, cache):
    server.files["/data/rows.jsonl"] = ROWS
    server.headers = {"Link": '<https://example.org/cc0>; rel="license"'}
    calls = []
    source = UrlSource(url=f"{server.url}/data/rows.jsonl")
    snapshot, content = fetched(source, cache, lambda *call: calls.append(call))
    assert content == ROWS
    assert snapshot.files[0].name == "rows.jsonl"
    assert snapshot.files[0].sha256 == hashlib.sha256(ROWS).hexdigest()
    assert snapshot.size_bytes == len(ROWS)
    assert snapshot.licence == "https://example.org/cc0"
    assert snapshot.version["etag"]
    assert calls[-1] == (len(ROWS), len(ROWS), "bytes")
    assert read_snapshot(cache / snapshot.folder) == snapshot
    assert not (source_folder(cache, source) / PART).exists()


def test_a_file_of_a_snapshot_leads_to_it(server, tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_DATA_ROOT", str(tmp_path))
    server.files["/rows.jsonl"] = ROWS
    cache = tmp_path / "cache" / "sources"
    snapshot, _ = fetched(UrlSource(url=f"{server.url}/rows.jsonl"), cache)
    assert snapshot_of(cache / snapshot.folder / "rows.jsonl") == snapshot
    assert snapshot_of(tmp_path / "other.jsonl") is None


def test_an_unchanged_file_is_asked_for_and_not_sent_again(server, cache):
    server.files["/rows.jsonl"] = ROWS
    source = UrlSource(url=f"{server.url}/rows.jsonl")
    first, _ = fetched(source, cache)
    server.cuts = [0]  # a second body would break off
    assert fetched(source, cache) == (first, ROWS)
    assert server.requests[1]["If-None-Match"] == first.version["etag"]
    assert server.cuts == [0]


def test_a_changed_file_gets_a_snapshot_beside_the_old_one(server, cache):
    server.files["/rows.jsonl"] = ROWS
    source = UrlSource(url=f"{server.url}/rows.jsonl")
    old, _ = fetched(source, cache)
    server.files["/rows.jsonl"] = ROWS + ROWS
    new, content = fetched(source, cache)
    assert content == ROWS + ROWS
    assert new.digest != old.digest
    assert (cache / old.folder / "rows.jsonl").read_bytes() == ROWS
    server.files["/rows.jsonl"] = ROWS
    again, _ = fetched(source, cache)
    assert (again.folder, again.digest) == (old.folder, old.digest)


def test_without_tags_the_file_is_sent_again_and_keeps_its_digest(server, cache):
    server.files["/rows.jsonl"] = ROWS
    server.headers = {"ETag": ""}
    source = UrlSource(url=f"{server.url}/rows.jsonl")
    first, _ = fetched(source, cache)
    second, _ = fetched(source, cache)
    assert (first.folder, first.files) == (second.folder, second.files)
    assert "If-None-Match" not in server.requests[1]


def test_a_pinned_file_is_never_asked_for_again(server, cache):
    server.files["/rows.jsonl"] = ROWS
    digest = hashlib.sha256(ROWS).hexdigest()
    pinned = UrlSource(url=f"{server.url}/rows.jsonl", sha256=digest)
    # Fetched without the checksum at first: that it is added later does not matter.
    first, _ = fetched(UrlSource(url=pinned.url), cache)
    assert fetched(pinned, cache)[0].files == first.files
    assert len(server.requests) == 1


def test_a_damaged_snapshot_is_fetched_again(server, cache):
    server.files["/rows.jsonl"] = ROWS
    source = UrlSource(url=f"{server.url}/rows.jsonl")
    snapshot, _ = fetched(source, cache)
    (cache / snapshot.folder / "rows.jsonl").write_bytes(b"damaged")
    assert fetched(source, cache)[1] == ROWS


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(server, cache):
    server.files["/rows.jsonl"] = ROWS
    source = UrlSource(url=f"{server.url}/rows.jsonl", sha256="0" * 64)
    with pytest.raises(UserError, match=rf"SHA-256 is {hashlib.sha256(ROWS).hexdigest()}, not 000"):
        fetched(source, cache)
    assert not list(cache.rglob("*.jsonl"))


def test_a_broken_connection_is_gone_on_with(server, cache):
    server.files["/rows.jsonl"] = ROWS
    server.cuts = [100_000, 50_000]
    assert fetched(UrlSource(url=f"{server.url}/rows.jsonl"), cache)[1] == ROWS
    starts = [int(r["Range"][6:-1]) for r in server.requests if "Range" in r]
    assert len(server.requests) == 3
    assert starts == [100_000, 150_000]


def test_what_has_come_is_kept_for_the_next_run(server, cache):
    server.files["/rows.jsonl"] = ROWS
    server.cuts = [100_000, 0, 0, 0, 0]
    source = UrlSource(url=f"{server.url}/rows.jsonl")
    with pytest.raises(UserError, match="broke off.*what has come is kept"):
        fetched(source, cache)
    server.requests.clear()
    assert fetched(source, cache)[1] == ROWS
    assert server.requests[0]["Range"] == "bytes=100000-"


def test_a_file_that_changes_between_the_parts_is_begun_anew(server, cache):
    server.files["/rows.jsonl"] = ROWS
    server.cuts = [100_000, 0, 0, 0, 0]
    source = UrlSource(url=f"{server.url}/rows.jsonl")
    with pytest.raises(UserError):
        fetched(source, cache)
    server.files["/rows.jsonl"] = ROWS.upper()
    assert fetched(source, cache)[1] == ROWS.upper()


def test_a_part_without_a_tag_is_not_gone_on_with(server, cache):
    server.files["/rows.jsonl"] = ROWS
    server.headers = {"ETag": 'W/"weak"'}
    server.cuts = [100_000]
    assert fetched(UrlSource(url=f"{server.url}/rows.jsonl"), cache)[1] == ROWS
    assert not [request for request in server.requests if "Range" in request]


def test_a_server_that_always_breaks_off_is_given_up(server, cache):
    server.files["/rows.jsonl"] = ROWS
    server.headers = {"ETag": ""}  # so that nothing can be gone on with
    server.cuts = [100_000] * 10
    with pytest.raises(UserError, match="broke off"):
        fetched(UrlSource(url=f"{server.url}/rows.jsonl"), cache)
    assert len(server.requests) == 5


def test_a_part_that_nothing_is_behind_is_begun_anew(server, cache):
    server.files["/rows.jsonl"] = ROWS
    source = UrlSource(url=f"{server.url}/rows.jsonl")
    part = source_folder(cache, source) / PART
    part.mkdir(parents=True)
    (part / "download").write_bytes(ROWS)
    tag = f'"{hashlib.sha256(ROWS).hexdigest()[:16]}"'
    (part / "download.state").write_text(json.dumps({"tag": tag}))
    assert fetched(source, cache)[1] == ROWS
    assert len(server.requests) == 2


def test_a_busy_server_is_tried_again(server, cache):
    server.files["/rows.jsonl"] = ROWS
    server.statuses = [503, 429]
    assert fetched(UrlSource(url=f"{server.url}/rows.jsonl"), cache)[1] == ROWS


def test_a_server_that_is_away_leaves_the_earlier_snapshot_with_a_warning(server, cache, capsys):
    server.files["/rows.jsonl"] = ROWS
    source = UrlSource(url=f"{server.url}/rows.jsonl")
    first, _ = fetched(source, cache)
    server.statuses = [503] * 4
    assert fetched(source, cache)[0] == first
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("warning: ")
    assert f"503 Service Unavailable; going on with what it held at {first.fetched_at}" in line


@pytest.mark.parametrize(
    ("statuses", "message"),
    [
        ([404], "404 Not Found: no such file there; correct the address"),
        ([403], "403 Forbidden: may not be read without signing in; put the token into"),
        ([401], r"401 Unauthorized: may not be read .* \$NAME into the address"),
        ([500] * 4, "500 Internal Server Error; try again later"),
        ([418], "the server answers 418"),
    ],
)
def test_refusals_are_one_line_with_the_cure(server, cache, statuses, message):
    server.statuses = statuses
    with pytest.raises(UserError, match=message) as refusal:
        fetched(UrlSource(url=f"{server.url}/rows.jsonl"), cache)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(f"{server.url}/rows.jsonl: ")


@pytest.mark.parametrize("path", ["/rows.jsonl", "/rows.jsonl.gz", "/view?id=3"])
@pytest.mark.parametrize("start", [b"\n<!DOCTYPE html>", b"\xef\xbb\xbf<!-- x -->\n<HTML lang=en>"])
def test_a_web_page_is_no_data(server, cache, path, start):
    page = start + b"<head><title> Sign in\n to it </title></head>" + b"x" * 10_000
    server.files[path.partition("?")[0]] = page
    server.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(UserError, match=r"answers a web page \(Sign in to it\), not data"):
        fetched(UrlSource(url=server.url + path), cache)


def test_an_empty_file_is_refused(server, cache):
    server.files["/rows.jsonl"] = b""
    with pytest.raises(UserError, match="answers an empty file; correct the address"):
        fetched(UrlSource(url=f"{server.url}/rows.jsonl"), cache)


@pytest.mark.parametrize(
    ("path", "given", "headers", "name"),
    [
        ("/rows.csv", "", {}, "rows.csv"),
        ("/rows", "mine.jsonl", {}, "mine.jsonl"),
        ("/get", "", {"Content-Disposition": 'attachment; filename="../a b.tsv"'}, "a_b.tsv"),
        ("/get", "", {"Content-Type": "text/csv; charset=utf-8"}, "data.csv"),
        ("/get", "", {"Content-Type": "application/x-ndjson"}, "data.jsonl"),
    ],
)
def test_the_name_says_the_format(server, cache, path, given, headers, name):
    server.files[path] = ROWS
    server.headers = headers
    source = UrlSource(url=f"{server.url}{path}?version=2", file_name=given)
    assert fetched(source, cache)[0].files[0].name == name


def test_without_a_format_file_name_is_asked_for(server, cache):
    server.files["/rows"] = ROWS
    with pytest.raises(UserError, match="of no known format; say which with file_name, such as"):
        fetched(UrlSource(url=f"{server.url}/rows"), cache)


def test_compression_on_the_way_is_undone_and_that_of_the_file_is_not(server, cache):
    packed = gzip.compress(ROWS)
    server.files |= {"/rows.jsonl": packed, "/rows.jsonl.gz": packed}
    server.headers = {"Content-Encoding": "gzip"}
    assert fetched(UrlSource(url=f"{server.url}/rows.jsonl"), cache)[1] == ROWS
    assert fetched(UrlSource(url=f"{server.url}/rows.jsonl.gz"), cache)[1] == packed


def test_secrets_come_from_the_environment_and_stay_out_of_what_is_kept(server, cache, monkeypatch):
    server.files["/rows.jsonl"] = ROWS
    monkeypatch.setenv("PASSWORD_OF_TEST", "p:a/ss&w@rd")
    host = server.url.removeprefix("http://")
    url = f"http://me:$PASSWORD_OF_TEST@{host}/rows.jsonl?token=${{PASSWORD_OF_TEST}}"
    snapshot, _ = fetched(UrlSource(url=url), cache)
    login = base64.b64encode(b"me:p:a/ss&w@rd").decode()
    assert server.requests[0]["Authorization"] == f"Basic {login}"
    kept = (cache / snapshot.folder / "snapshot.json").read_text()
    assert "ss&w" not in kept
    assert "$PASSWORD_OF_TEST" in kept
    server.statuses = [403]
    with pytest.raises(UserError) as refusal:
        fetched(UrlSource(url=url), cache)
    assert "ss&w" not in str(refusal.value)


def test_a_variable_that_is_not_set_is_named(cache):
    with pytest.raises(UserError, match=r"the environment has no \$NO_SUCH_NAME; export it"):
        fetched(UrlSource(url="http://127.0.0.1:1/$NO_SUCH_NAME.jsonl"), cache)


def test_nobody_there_and_unknown_names_are_one_line(cache):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.jsonl"
        with pytest.raises(UserError, match="connection broke off .*refused.* or download it else"):
            fetched(UrlSource(url=url), cache)
    with pytest.raises(UserError, match="the name nowhere.invalid is not known here"):
        fetched(UrlSource(url="http://nowhere.invalid/a.jsonl"), cache)


def test_a_server_that_does_not_answer_is_not_waited_for_forever(cache, monkeypatch):
    monkeypatch.setattr(urls, "TIMEOUT", urls.httpx.Timeout(0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.jsonl"
        with pytest.raises(UserError, match="no answer within 0 s; try again later"):
            fetched(UrlSource(url=url), cache)


def test_a_connection_that_is_not_safe_is_refused(server, cache):
    url = server.url.replace("http://", "https://")  # it answers without TLS
    with pytest.raises(UserError, match=r"no safe connection .*\$SSL_CERT_FILE"):
        fetched(UrlSource(url=f"{url}/a.jsonl"), cache)


def test_a_file_larger_than_the_disk_is_refused_before_it_comes(server, cache, tmp_path):
    server.files["/rows.jsonl"] = ROWS
    answer = urls.Answer(iter([b"never"]), 0, 10**18, "")
    from stages.core.fetch import download

    with pytest.raises(UserError, match=r"1000000000.0 GB are to come, and the disk of"):
        download._write(tmp_path / "part", answer, quiet)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"url": "ftp://host/a.jsonl"}, "begins with http:// or https://"),
        ({"url": "http://me:hidden@host/a.jsonl"}, "no password may stand in one"),
        ({"url": "http://host/a?X-Amz-Signature=12ab"}, "no x-amz-signature may stand in one"),
        ({"url": "http://host/a", "sha256": "12"}, "pattern"),
        ({"url": "http://host/a", "file_name": "../a.jsonl"}, "has no folder"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(setting, message):
    with pytest.raises(ValidationError, match=message):
        UrlSource.model_validate(setting)


def test_a_text_is_an_address_and_a_checksum_may_be_in_capitals():
    assert UrlSource.model_validate("http://host/a") == UrlSource(url="http://host/a")
    assert UrlSource(url="http://host/a", sha256="AB" * 32).sha256 == "ab" * 32
