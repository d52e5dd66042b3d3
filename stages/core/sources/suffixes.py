"""What a file's suffixes say about its format and its compression."""

from pathlib import Path

from stages.core.errors import UserError

FORMATS = {
    ".jsonl": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".md": "text",
    ".html": "html",
    ".htm": "html",
    ".warc": "warc",
    ".wet": "warc",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
DOCUMENT_FORMATS = frozenset({"text", "html", "warc"})
"""Formats without columns: each record is a text."""


def split_suffixes(path: Path) -> tuple[str, str]:
    """The suffixes of the format and of the compression, either possibly empty."""
    last = path.suffix.lower()
    if last in COMPRESSIONS:
        return Path(path.stem).suffix.lower(), last
    return last, ""


def known_suffixes() -> str:
    """The suffixes that mean a format, for an error message."""
    return f"{', '.join(FORMATS)}; each also with {' or '.join(COMPRESSIONS)}"


def file_format(path: Path) -> str:
    """The format that the file's suffix stands for.

    Raises:
        UserError: the suffix stands for none.
    """
    suffix = split_suffixes(path)[0]
    if suffix not in FORMATS:
        raise UserError(
            f"{path}: unknown format {suffix or 'without a suffix'!r}; "
            f"convert or rename it to one of {known_suffixes()}"
        )
    return FORMATS[suffix]


def file_compression(path: Path) -> str | None:
    """``gzip`` or ``zstd``, as the file's suffix says; None: it is plain."""
    return COMPRESSIONS.get(split_suffixes(path)[1])
