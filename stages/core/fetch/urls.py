"""Files behind HTTP(S) addresses."""

import contextlib
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from email.message import Message
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import httpx

from stages.core.artifacts import file_digest
from stages.core.config import UrlSource
from stages.core.errors import UserError, without_passwords
from stages.core.fetch.download import Answer, TransientError, caused_by, download
from stages.core.fetch.snapshots import (
    Progress,
    Snapshot,
    keep,
    part_folder,
    snapshots,
    use,
)
from stages.core.fetch.variables import expand, without_secrets
from stages.core.launch import WARNING_PREFIX
from stages.core.sources import file_format

TIMEOUT = httpx.Timeout(60.0, connect=15.0)
MAX_REDIRECTS = 10
BUSY = (408, 425, 429, 500, 502, 503, 504)
SUFFIXES = {
    "application/jsonl": ".jsonl",
    "application/jsonlines": ".jsonl",
    "application/x-ndjson": ".jsonl",
    "application/json": ".json",
    "application/vnd.apache.parquet": ".parquet",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "text/markdown": ".md",
    "text/plain": ".txt",
}
"""Of the types of content that say a format, for addresses that do not."""
HTML_SUFFIXES = (".html", ".htm", ".xhtml")
HTML_START = re.compile(rb"\s*(<!--.*?-->\s*)*(<!doctype html|<html\b|<head\b)", re.I | re.S)
HTML_TITLE = re.compile(rb"<title[^>]*>(.*?)</title>", re.I | re.S)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def fetch_url(source: UrlSource, cache: Path, progress: Progress) -> Snapshot:
    """The file behind the address. With a checksum, a snapshot that has it is taken unasked;
    without, the server is asked whether the file has changed since.

    Raises:
        UserError: the address answers something else than data, or not at all and there is no
            earlier snapshot.
    """

    def has_checksum(snapshot: Snapshot) -> bool:
        return not source.sha256 or snapshot.files[0].sha256 == source.sha256

    earlier = next(snapshots(cache, source, has_checksum), None)
    if earlier and source.sha256:
        return use(cache, earlier)
    fetcher = _Fetcher(source, earlier)
    part = part_folder(cache, source) / "download"
    try:
        download(part, fetcher.open_at, progress)
    except _UnchangedError as unchanged:
        return use(cache, unchanged.snapshot)
    except TransientError as error:
        message = without_secrets(str(error), source.url)
        if earlier is None:
            raise UserError(
                f"{fetcher.shown}: {message}; try again later (what has come is kept), or download "
                "it elsewhere and give the file with paths"
            ) from None
        when = earlier.fetched_at
        print(f"{WARNING_PREFIX}{fetcher.shown}: {message}; going on with what it held at {when}")
        return use(cache, earlier)
    _check(source, part, fetcher.shown)
    file = part.with_name(fetcher.name)
    part.rename(file)
    return keep(cache, source, [file], licence=fetcher.licence, version=fetcher.version)


# ------------------------------------------------------------------------------------ helpers


class _UnchangedError(Exception):
    """The file is as it was."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.snapshot = snapshot


class _Fetcher:
    """Asks for the file, and keeps what the server says of it."""

    def __init__(self, source: UrlSource, earlier: Snapshot | None) -> None:
        self._source, self._earlier = source, earlier
        self._url, self._login = _address(source.url)
        self.shown = without_passwords(source.url)
        self.name = ""
        self.licence = ""
        self.version: dict[str, str] = {}

    @contextlib.contextmanager
    def open_at(self, start: int, tag: str) -> Iterator[Answer]:
        # Plain bytes: places and checksums are those of the file.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": tag}
        elif self._earlier is not None:
            asked = {"If-None-Match": "etag", "If-Modified-Since": "last_modified"}
            known = self._earlier.version
            headers |= {name: known[fact] for name, fact in asked.items() if fact in known}
        with contextlib.ExitStack() as stack:
            try:
                client = stack.enter_context(
                    httpx.Client(
                        timeout=TIMEOUT,
                        follow_redirects=True,
                        max_redirects=MAX_REDIRECTS,
                        auth=self._login,
                    )
                )
                response = stack.enter_context(client.stream("GET", self._url, headers=headers))
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
                raise self._trouble(error) from error
            if response.status_code == 416:  # there is nothing behind what has come
                answer = stack.enter_context(self.open_at(0, ""))
            else:
                answer = self._answer(response, start)
            yield answer

    def _answer(self, response: httpx.Response, start: int) -> Answer:
        code = response.status_code
        if code == 304 and self._earlier is not None:
            raise _UnchangedError(self._earlier)
        if code not in (200, 206):
            raise self._refusal(response)
        headers = response.headers
        self.name = self.name or _file_name(self._source, response)
        self.licence = response.links.get("license", {}).get("url", "")
        facts = {"etag": headers.get("ETag"), "last_modified": headers.get("Last-Modified")}
        self.version = {name: value for name, value in facts.items() if value}
        encoding = headers.get("Content-Encoding", "identity")
        is_encoded = encoding != "identity" and not self.name.endswith((".gz", ".zst"))
        begins = _range_start(headers) if code == 206 else 0
        if begins not in (0, start) or (is_encoded and begins):
            raise UserError(f"{self.shown}: answers another part of the file than was asked for")
        total = 0 if is_encoded else _total(headers, begins)
        # A weak tag allows for other bytes.
        etag = headers.get("ETag", "")
        tag = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")
        return Answer(self._chunks(response, is_encoded, begins), begins, total, tag)

    def _chunks(self, response: httpx.Response, is_encoded: bool, begins: int) -> Iterator[bytes]:
        head = begins == 0
        try:
            for chunk in response.iter_bytes() if is_encoded else response.iter_raw():
                if head and chunk:
                    self._check_head(chunk)
                    head = False
                yield chunk
        except httpx.HTTPError as error:
            raise self._trouble(error) from error

    def _check_head(self, head: bytes) -> None:
        """Whether this begins a file of data, with a name that says of which format."""
        is_page = HTML_START.match(head.removeprefix(BYTE_ORDER_MARK))
        if is_page and not self.name.lower().endswith(HTML_SUFFIXES):
            title = HTML_TITLE.search(head)
            name = " ".join(title[1].decode(errors="replace").split())[:80] if title else "no title"
            raise UserError(
                f"{self.shown}: answers a web page ({name}), not data: give the address of the "
                "file itself (often under Download or Raw), and sign in with $NAME where it asks"
            )
        if not self.name:
            raise UserError(
                f"{self.shown}: of no known format; say which with file_name, such as data.jsonl "
                "or data.csv.gz"
            )

    def _refusal(self, response: httpx.Response) -> Exception:
        code = response.status_code
        what = f"{code} {response.reason_phrase}".strip()
        if code in BUSY:
            return TransientError(f"the server answers {what}", _pause(response.headers))
        if code in (404, 410):
            return UserError(f"{self.shown}: {what}: no such file there; correct the address")
        if code in (401, 403, 407):
            return UserError(
                f"{self.shown}: {what}: may not be read without signing in; put the token into the "
                "environment and $NAME into the address, or download it and give it with paths"
            )
        return UserError(f"{self.shown}: the server answers {what}; correct the address")

    def _trouble(self, error: Exception) -> Exception:
        """What a broken connection is to the user."""
        message = without_secrets(str(error), self._source.url) or type(error).__name__
        host = urlsplit(self.shown).hostname or ""
        if isinstance(error, httpx.TimeoutException):
            seconds = TIMEOUT.connect if isinstance(error, httpx.ConnectTimeout) else TIMEOUT.read
            return TransientError(f"no answer within {seconds:.0f} s")
        if caused_by(error, ssl.SSLError):
            return UserError(
                f"{self.shown}: no safe connection ({message}); correct the address, or name the "
                "certificates of your own authority with $SSL_CERT_FILE"
            )
        if caused_by(error, socket.gaierror):
            return TransientError(f"the name {host} is not known here (no network, or misspelt)")
        if isinstance(error, httpx.TooManyRedirects):
            return UserError(f"{self.shown}: leads in a circle; correct the address")
        if isinstance(error, httpx.TransportError) and not isinstance(
            error, httpx.UnsupportedProtocol
        ):
            return TransientError(f"the connection broke off ({message})")
        return UserError(f"{self.shown}: {message}; correct the address")


def _address(url: str) -> tuple[str, httpx.BasicAuth | None]:
    """The address to call, without the login in it, which comes beside."""
    parts = urlsplit(url)
    user, has_login, host = parts.netloc.rpartition("@")
    address = expand(parts._replace(netloc=host).geturl(), lambda value: quote(value, safe=""))
    if not has_login:
        return address, None
    name, _, password = user.partition(":")
    return address, httpx.BasicAuth(expand(unquote(name)), expand(unquote(password)))


def _file_name(source: UrlSource, response: httpx.Response) -> str:
    """The name of a known format that the configuration, the server or the address gives the file;
    empty where none does."""
    message = Message()
    message["Content-Disposition"] = response.headers.get("Content-Disposition", "")
    of_address = [unquote(urlsplit(url).path) for url in (source.url, str(response.url))]
    given = [source.file_name, message.get_filename() or "", *of_address]
    names = [re.sub(r"[^\w.-]+", "_", Path(name).name).lstrip(".") for name in given]
    for name in filter(None, names[:1] if source.file_name else names):
        with contextlib.suppress(UserError):
            file_format(Path(name))
            return name
    media = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if not source.file_name and media in SUFFIXES:
        return "data" + SUFFIXES[media]
    return ""


def _check(source: UrlSource, part: Path, shown: str) -> None:
    """Whether the downloaded file is what it should be; a wrong one is thrown away."""
    if part.stat().st_size == 0:
        part.unlink()
        raise UserError(f"{shown}: answers an empty file; correct the address")
    if source.sha256 and (digest := file_digest(part)) != source.sha256:
        part.unlink()
        raise UserError(
            f"{shown}: its SHA-256 is {digest}, not {source.sha256}: the file has changed or is "
            "not the one meant; check where it comes from, then correct sha256"
        )


def _range_start(headers: Mapping[str, str]) -> int:
    """First place of a partial answer; −1 where it does not say."""
    found = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


def _total(headers: Mapping[str, str], start: int) -> int:
    length = headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else 0


def _pause(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait."""
    text = headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0
