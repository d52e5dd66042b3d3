"""Where data comes from that does not lie on this machine's disk.

Secrets are never part of a configuration, which is logged and stored: they are named as ``$NAME``
and read from the environment when the data are fetched.
"""

import re
from typing import Annotated, Any

from pydantic import StringConstraints, field_validator, model_validator

from stages.core.config.base import Count, Frozen
from stages.core.config.feedback import FeedbackSource
from stages.core.errors import SECRET_PARAMETER

VARIABLE = re.compile(r"\$(?:([A-Z_][A-Z0-9_]*)|\{([A-Z_][A-Z0-9_]*)\})")
"""``$NAME`` or ``${NAME}`` of an environment variable."""
WEB_PASSWORD = re.compile(r"://[^:/?#@]*:([^/?#]*)@")
DATABASE_PASSWORD = re.compile(r"://[^:/@]*:(.*)@")
"""SQLAlchemy takes all up to the last @."""
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?")

Sha256 = Annotated[str, StringConstraints(pattern=r"^([0-9a-fA-F]{64})?$", to_lower=True)]


class UrlSource(Frozen):
    """A file behind an HTTP(S) address."""

    url: str
    """Address of the file. $NAME stands for an environment variable: keep tokens there."""
    sha256: Sha256 = ""
    """SHA-256 that the file must have; it is then never asked for again."""
    file_name: str = ""
    """Name to keep it under, whose suffix says the format (data.jsonl); empty: the address's."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if not re.match(r"https?://[^/\s]", url, re.IGNORECASE):
            raise ValueError("an address begins with http:// or https://; give files with paths")
        return _without_secrets(url)

    @field_validator("file_name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if "/" in name or "\\" in name or name.startswith("."):
            raise ValueError("a file's name has no folder and no dot in front: data.jsonl")
        return name


class HubSource(Frozen):
    """A data set of the Hugging Face Hub; a private one needs $HF_TOKEN."""

    name: str
    """Its name there: owner/name."""
    revision: str
    """The commit to take: 40 hexadecimal digits. A branch or tag may move, so none is taken."""
    config_name: str = ""
    """Its configuration (subset), where it has several."""
    split: str = "train"
    """Its split; slices such as train[:1%] need streaming to be off."""
    streaming: bool = True
    """Read record by record; off: download all files first."""
    max_records: Count = 0
    """Take the first so many records; 0 takes all."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not HUB_NAME.fullmatch(name):
            raise ValueError("a data set of the hub is called owner/name; give files with paths")
        return name

    @field_validator("revision")
    @classmethod
    def _check_revision(cls, revision: str) -> str:
        if not COMMIT.fullmatch(revision):
            raise ValueError(
                "a branch or tag may move: give the commit's 40 hexadecimal digits, from the "
                "history on the data set's page (Files and versions)"
            )
        return revision


class SQLSource(Frozen):
    """The rows of a database query, each a record with the columns as its fields."""

    url: str
    """SQLAlchemy's address, such as postgresql://user:$PGPASSWORD@host/database or
    sqlite:///file.db. $NAME stands for an environment variable: keep the password there."""
    query: str
    """What is asked; with ORDER BY, equal rows give an equal digest, and later stages are reused.
    """

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if not re.match(r"[a-z][\w+]*://", url) and not VARIABLE.fullmatch(url):
            raise ValueError("a database's address is SQLAlchemy's: postgresql://user:$NAME@host/…")
        return _without_secrets(url, DATABASE_PASSWORD)

    @field_validator("query")
    @classmethod
    def _check_query(cls, query: str) -> str:
        if not query.strip():
            raise ValueError("a query such as SELECT prompt, completion FROM replies ORDER BY id")
        return query


class S3Source(Frozen):
    """Objects of an S3-compatible storage. Credentials are AWS's: $AWS_ACCESS_KEY_ID and
    $AWS_SECRET_ACCESS_KEY, a profile, or the machine's role."""

    url: str
    """s3://bucket/key of one object, or s3://bucket/folder/ for all of a known format below it."""
    endpoint_url: str = ""
    """The server's address where it is not AWS (MinIO, Ceph); empty: $AWS_ENDPOINT_URL, else AWS.
    """

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if not BUCKET.fullmatch(url):
            raise ValueError("objects are named s3://bucket/key or s3://bucket/folder/")
        return url

    @field_validator("endpoint_url")
    @classmethod
    def _check_endpoint(cls, url: str) -> str:
        if url and not re.match(r"https?://[^/\s]", url, re.IGNORECASE):
            raise ValueError("a server's address begins with http:// or https://")
        return _without_secrets(url)


Source = UrlSource | HubSource | SQLSource | S3Source | FeedbackSource


# ------------------------------------------------------------------------------------ helpers


def _without_secrets(url: str, password: re.Pattern[str] = WEB_PASSWORD) -> str:
    """``url``, if nothing in it is a secret written out.

    Raises:
        ValueError: a password or token stands in it; the message does not show it.
    """
    written = {"password": found[1]} if (found := password.search(url)) else {}
    written |= {name.lower(): value for name, value in SECRET_PARAMETER.findall(url)}
    for name, value in written.items():
        if value and not VARIABLE.fullmatch(value):
            raise ValueError(
                f"settings are logged and stored, so no {name} may stand in one: put it into the "
                "environment and write $NAME in its place"
            )
    return url
