"""Main text of web pages and of web archives."""

import gzip
import time

import pytest

from stages.core.sources import CUT_OFF, read_records
from stages.core.sources.html import main_text, page_record

PAGE = """<html><head><title>Kranich</title><script>var x = "never";</script></head><body>
<nav><a href="/">Start</a><a href="/about">About us</a></nav>
<main><h1>Kraniche</h1><p>{text}</p><pre><code>def f(x):
    return x
</code></pre></main>
<footer>Copyright by nobody</footer></body></html>"""
TEXT = "Die Kraniche ziehen im Herbst über die Küste nach Süden, oft in großen Gruppen."


def records(path):
    with path.open("rb") as file:
        return list(read_records(path, file))


def page(text=TEXT):
    return PAGE.format(text=text)


def warc_record(url, body, kind="response", status="200 OK", headers=("Content-Type: text/html",)):
    """One record of a WARC file (ISO 28500) around an HTTP answer."""
    if kind == "response":
        lines = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *headers, ""))
        body = lines.encode() + body
    content_type = "application/http; msgtype=response" if kind == "response" else "text/plain"
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\n"
        f"WARC-Date: 2026-01-01T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:0>\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def archive(count=5):
    pages = [page(f"{TEXT} Seite {number}.").encode() for number in range(count)]
    return [warc_record(f"https://example.org/{number}", body) for number, body in enumerate(pages)]


def test_only_the_main_text_of_a_page_is_kept(tmp_path):
    path = tmp_path / "a.html"
    path.write_text(page(), encoding="utf-8")
    (record,) = records(path)
    assert record.fields == {"text": f"Kraniche\n\n{TEXT}\n\ndef f(x):\n    return x"}


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [("utf-8", ""), ("utf-8-sig", ""), ("utf-16", ""), ("iso-8859-1", "iso-8859-1"),
     ("gb18030", "gb2312"), ("shift_jis", "shift_jis")],
)  # fmt: skip
def test_the_encoding_is_found(encoding, declared):
    text = {"gb18030": "鹤在秋天飞过海岸。" * 9, "shift_jis": "鶴は秋に海岸を渡る。" * 9}.get(
        encoding, TEXT
    )
    html = page(text).replace(
        "<title>", f'<meta charset="{declared}"><title>' if declared else "<title>"
    )
    record = page_record(1, html.encode(encoding), None, "")
    assert text in record.fields["text"]
    with_server = page_record(1, page(text).encode(encoding), declared or "no-such-charset", "u")
    assert text in with_server.fields["text"]
    assert with_server.fields["source"] == "u"


def test_pages_without_text_and_pathological_ones_are_named(tmp_path):
    path = tmp_path / "a.htm"
    path.write_text("<html><body><script>x</script></body></html>")
    assert [r.reason for r in records(path)] == ["the page holds no main text"]
    path.write_text("<p>" + "x" * 10_000_001)
    assert [r.reason for r in records(path)] == ["record is larger than 10 MB"]
    start = time.monotonic()
    with pytest.raises(ValueError, match="nested too deeply"):
        main_text("<div>" * 200_000 + "x" + "</div>" * 200_000)
    assert time.monotonic() - start < 2
    assert main_text("<div>x</div>" * 5000).startswith("x")


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
def test_answers_with_pages_are_the_documents_of_an_archive(tmp_path, name):
    chunk = page("Stück für Stück gesendet, " + TEXT).encode()
    others = [
        warc_record(
            "https://example.org/robots.txt", b"Disallow", headers=["Content-Type: text/plain"]
        ),
        warc_record("https://example.org/gone", page().encode(), status="404 Not Found"),
        warc_record("https://example.org/5", b"{}", kind="metadata"),
        warc_record(
            "https://example.org/6",
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(chunk), chunk),
            headers=["Content-Type: text/html; charset=utf-8", "Transfer-Encoding: chunked"],
        ),
    ]
    parts = archive(3) + others
    path = tmp_path / name
    path.write_bytes(b"".join(map(gzip.compress, parts) if name.endswith("gz") else parts))
    found = records(path)
    assert [(r.line, r.fields["source"]) for r in found] == [
        (1, "https://example.org/0"), (2, "https://example.org/1"), (3, "https://example.org/2"),
        (7, "https://example.org/6"),
    ]  # fmt: skip
    assert all("About us" not in r.fields["text"] for r in found)
    assert "Seite 2." in found[2].fields["text"]
    assert "Stück für Stück" in found[3].fields["text"]


def test_an_answer_without_a_type_is_taken_as_http(tmp_path):
    path = tmp_path / "a.warc"
    whole = archive(2)
    typed = b"Content-Type: application/http; msgtype=response\r\n"
    path.write_bytes(b"".join(part.replace(typed, b"") for part in whole))
    assert [record.line for record in records(path)] == [1, 2]
    path.write_bytes(whole[0] + whole[1].replace(b"application/http", b"text/dns"))
    assert [record.line for record in records(path)] == [1]


def test_one_broken_answer_does_not_hide_the_next(tmp_path):
    path = tmp_path / "a.warc"
    packed = bytearray(gzip.compress(page().encode()))
    packed[30:60] = bytes(30)
    broken = warc_record(
        "https://example.org/x",
        bytes(packed),
        headers=["Content-Type: text/html", "Content-Encoding: gzip"],
    )
    whole = archive(2)
    path.write_bytes(whole[0] + broken + whole[1])
    assert [(record.line, record.reason, record.head) for record in records(path)] == [
        (1, "", ""),
        (2, "the answer's header or encoding is broken", "https://example.org/x"),
        (3, "", ""),
    ]


def test_extracted_text_of_common_crawl_is_read_as_it_is(tmp_path):
    path = tmp_path / "a.warc.wet.gz"
    parts = [
        warc_record("", b"Software-Info: x", kind="warcinfo"),
        warc_record("https://example.org/0", TEXT.encode(), kind="conversion"),
    ]
    path.write_bytes(b"".join(map(gzip.compress, parts)))
    assert [r.fields for r in records(path)] == [{"text": TEXT, "source": "https://example.org/0"}]


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
@pytest.mark.parametrize("share", [0.5, 0.7, 0.95])
def test_a_cut_off_archive_keeps_its_whole_records(tmp_path, name, share):
    parts = [gzip.compress(part) if name.endswith("gz") else part for part in archive()]
    content = b"".join(parts)
    content = content[: int(len(content) * share)]
    whole = sum(sum(map(len, parts[: n + 1])) <= len(content) for n in range(len(parts)))
    path = tmp_path / name
    path.write_bytes(content)
    *kept, last = records(path)
    assert [r.line for r in kept] == list(range(1, whole + 1))
    assert last.reason == CUT_OFF


def test_an_archive_damaged_in_the_middle_keeps_what_is_before(tmp_path):
    parts = archive()
    parts[2] = b"garbage\n" * 9
    path = tmp_path / "a.warc"
    path.write_bytes(b"".join(parts))
    *kept, last = records(path)
    assert len(kept) == 2
    assert last.reason == CUT_OFF
