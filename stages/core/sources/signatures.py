"""Files that are something else than their suffix says, told by their first bytes."""

from pathlib import Path

from stages.core.sources.suffixes import COMPRESSIONS, file_compression, file_format

COMPRESSION_SIGNATURES = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
SKIPPABLE_FRAME = range(0x50, 0x60), b"\x2a\x4d\x18"
"""A zstd file may also begin with a frame of metadata (RFC 8878, section 3.1.2)."""
FOREIGN = {
    b"PAR1\x15": "Parquet: name it .parquet",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook: unpack it, or save it as CSV (UTF-8)",
    b"%PDF-": "PDF: extract its text, for instance with pdftotext",
    b"BZh91AY&SY": "bzip2: unpack it",
    b"\xfd7zXZ\x00": "xz: unpack it",
    b"SQLite format 3\0": "a SQLite database: query it with collect.<kind>.sql",
}
"""First bytes, with which no text begins → what the file is, and what to do."""
HEAD_BYTES = 16


def disguise(path: Path, head: bytes) -> str:
    """What a file that begins with ``head`` is instead of what its name says, with the cure;
    "": nothing speaks against its name."""
    expected = file_compression(path)
    if expected:
        if _is_packed(head, expected):
            return ""
        suffix = path.suffix
        return f"is not {expected}; if it is plain take {suffix} off its name, else fetch it again"
    for suffix, compression in COMPRESSIONS.items():
        if _is_packed(head, compression):
            return f"is {compression}; name it {path.name}{suffix}"
    name = file_format(path)
    for signature, meaning in FOREIGN.items():
        if head.startswith(signature) and not (name == "parquet" and meaning.startswith("Parquet")):
            return f"is {meaning}"
    return ""


def _is_packed(head: bytes, compression: str) -> bool:
    if head.startswith(COMPRESSION_SIGNATURES[compression]):
        return True
    first, rest = SKIPPABLE_FRAME
    return compression == "zstd" and head[:1] != b"" and head[0] in first and head[1:4] == rest
