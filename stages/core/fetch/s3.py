"""Objects of S3-compatible storages, through boto3."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from stages.core.artifacts import write_atomically
from stages.core.config import S3Source
from stages.core.errors import UserError, without_passwords
from stages.core.fetch.download import Answer, TransientError, download
from stages.core.fetch.snapshots import Progress, Snapshot, keep, part_folder, snapshots, use
from stages.core.fetch.variables import expand, without_secrets
from stages.core.sources import file_format

DONE_FILE = ".done.json"
CHUNK_BYTES = 2**20
TIMEOUT_SECONDS = 60
BUSY = ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "503", "500")
FORBIDDEN = ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")


class _Object(NamedTuple):
    """What a listing says of one object."""

    key: str
    name: str
    """Below the source's folder."""
    etag: str
    size_bytes: int


def fetch_s3(source: S3Source, cache: Path, progress: Progress) -> Snapshot:
    """The object, or all objects of a known format below the folder. They are listed each time;
    only those whose tag or size has changed are fetched.

    Raises:
        UserError: boto3 or credentials are missing, the bucket or objects are not there.
    """
    bucket, _, prefix = source.url.removeprefix("s3://").partition("/")
    client = _client(source)
    with _errors(source):
        objects = _list(client, source, bucket, prefix)
    version = {item.name: f"{item.etag} {item.size_bytes}" for item in objects}
    same = next(snapshots(cache, source, lambda snapshot: snapshot.version == version), None)
    if same is not None:
        return use(cache, same)
    earlier = next(snapshots(cache, source), None)
    part = part_folder(cache, source)
    done_file = part / DONE_FILE
    finished = _read_done(done_file)
    total, done = sum(item.size_bytes for item in objects), 0
    files = []
    for item in objects:
        file = part / item.name
        file.parent.mkdir(parents=True, exist_ok=True)
        is_there = finished.get(item.name) == version[item.name] and file.is_file()
        if not is_there and not _link(cache, earlier, item, file):
            before = done

            def report(bytes_done: int, _: int, unit: str, before: int = before) -> None:
                progress(before + bytes_done, total, unit)

            with _errors(source):
                _download(client, bucket, item, file, report)
        finished[item.name] = version[item.name]
        write_atomically(done_file, json.dumps(finished))
        done += item.size_bytes
        progress(done, total, "bytes")
        files.append(file)
    return keep(cache, source, files, version=version)


# ------------------------------------------------------------------------------------ helpers


def _read_done(path: Path) -> dict[str, str]:
    """The states of the objects that an interrupted try had finished."""
    try:
        return {str(name): str(state) for name, state in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _client(source: S3Source) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise UserError(
            f"{source.url}: needs the package boto3: pip install 'rlhf-flows[server]'"
        ) from None
    endpoint = expand(source.endpoint_url) or None
    config = Config(
        connect_timeout=15,
        read_timeout=TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 4},
        # Buckets as host names need the server's own names.
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    with _errors(source):
        # A session of its own: the default one keeps the credentials that it saw first.
        return boto3.session.Session().client("s3", endpoint_url=endpoint, config=config)


def _list(client: Any, source: S3Source, bucket: str, prefix: str) -> list[_Object]:
    """The objects that the address means, by name.

    Raises:
        UserError: there is none, or none of a known format.
    """
    found = []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            key = item["Key"]
            is_it = key == prefix
            is_below = not prefix or prefix.endswith("/") or key.startswith(f"{prefix}/")
            if (is_it or is_below) and not key.endswith("/"):
                start = len(prefix) if prefix.endswith("/") or not prefix else len(prefix) + 1
                name = PurePosixPath(key).name if is_it else key[start:]
                found.append(_Object(key, name, item["ETag"].strip('"'), item["Size"]))
    whole = [item for item in found if item.key == prefix]
    if whole:
        file_format(Path(whole[0].name))
        if not whole[0].size_bytes:
            raise UserError(f"{source.url}: is empty (0 bytes); write it again or name another")
        return whole
    if not found:
        raise UserError(f"{source.url}: no such object, and none below it; correct the key")
    usable = [item for item in found if _is_data(item)]
    if not usable:
        raise UserError(
            f"{source.url}: none of its {len(found)} objects is a file of a known format that is "
            "not empty; name one object, or another folder"
        )
    return sorted(usable, key=lambda item: item.name)


def _is_data(item: _Object) -> bool:
    """As with folders of files: no hidden ones, no READMEs and licences."""
    path = PurePosixPath(item.name)
    is_text_about = path.name.lower().startswith(("readme", "license", "licence"))
    if item.size_bytes == 0 or is_text_about or any(p.startswith(".") for p in path.parts):
        return False
    with contextlib.suppress(UserError):
        file_format(Path(path.name))
        return True
    return False


def _link(cache: Path, earlier: Snapshot | None, item: _Object, file: Path) -> bool:
    """Take an unchanged object from an earlier snapshot."""
    state = f"{item.etag} {item.size_bytes}"
    if earlier is None or earlier.version.get(item.name) != state:
        return False
    old = cache / earlier.folder / item.name
    file.unlink(missing_ok=True)
    try:
        os.link(old, file)
    except OSError:  # a disk without links
        shutil.copyfile(old, file)
    return True


def _download(client: Any, bucket: str, item: _Object, file: Path, progress: Progress) -> None:
    from botocore import exceptions

    @contextlib.contextmanager
    def open_at(start: int, tag: str) -> Iterator[Answer]:
        start = start if tag == item.etag and start < item.size_bytes else 0
        options = {"Range": f"bytes={start}-"} if start else {}
        try:
            answer = client.get_object(Bucket=bucket, Key=item.key, IfMatch=item.etag, **options)
            yield Answer(chunks(answer["Body"]), start, item.size_bytes, item.etag)
        except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
            raise TransientError(str(error)) from error

    def chunks(body: Any) -> Iterator[bytes]:
        try:
            yield from body.iter_chunks(CHUNK_BYTES)
        except (exceptions.IncompleteReadError, exceptions.HTTPClientError) as error:
            raise TransientError(str(error)) from error
        finally:
            body.close()

    download(file, open_at, progress)


@contextlib.contextmanager
def _errors(source: S3Source) -> Iterator[None]:
    """The library's errors as one line with the cure."""
    from botocore import exceptions

    where = without_passwords(source.endpoint_url) or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
    shown = f"{source.url} ({without_passwords(where)})"
    try:
        yield
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise UserError(
            f"{shown}: no credentials: set $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY, or "
            "$AWS_PROFILE"
        ) from None
    except exceptions.ClientError as error:
        raise _refusal(shown, source, error.response.get("Error", {})) from None
    except (exceptions.ConnectionError, exceptions.HTTPClientError, TransientError) as error:
        message = without_secrets(str(error), source.endpoint_url)
        raise UserError(
            f"{shown}: {message}; check the endpoint and the network, and run again (what has come "
            "is kept)"
        ) from None
    except (exceptions.BotoCoreError, ValueError) as error:
        message = without_secrets(str(error), source.endpoint_url)
        raise UserError(f"{shown}: {message}; correct it") from None


def _refusal(shown: str, source: S3Source, error: dict[str, Any]) -> UserError:
    code, message = str(error.get("Code", "")), str(error.get("Message", ""))
    what = f"{code} {without_secrets(message, source.endpoint_url)}".strip()
    if code == "NoSuchBucket":
        return UserError(f"{shown}: there is no such bucket; correct its name or the endpoint")
    if code in FORBIDDEN:
        return UserError(f"{shown}: {what}: these credentials may not read it; take others")
    if code in ("PreconditionFailed", "412", "NoSuchKey", "404"):
        return UserError(f"{shown}: {what}: it has changed while it was read; run again")
    if code in BUSY:
        return UserError(f"{shown}: {what}: the server is busy; run again later")
    return UserError(f"{shown}: {what}; correct the address or the endpoint")
