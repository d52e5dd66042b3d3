"""What all readers of files give: records, and the place where a file breaks off."""

from typing import Any, NamedTuple

MAX_RECORD_BYTES = 10_000_000
TOO_LARGE = "record is larger than 10 MB"
CUT_OFF = "file is cut off or damaged here: what follows cannot be read"
"""Reason of the last record of a file whose beginning alone is readable."""
HEAD_CHARACTERS = 200


class Record(NamedTuple):
    """One record of a file: its fields, or why it cannot be read."""

    line: int
    """Line of the file on which it begins, from 1; in Parquet the row, in an archive the record."""
    fields: dict[str, Any] | None
    reason: str = ""
    head: str = ""


class BrokenFileError(Exception):
    """A file from which no further record can be read."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        """Line from which on it is broken, from 1."""
        self.problem = problem
        """What is wrong and how to mend it."""


def show(content: bytes) -> str:
    """The beginning of a record that is no valid text, perhaps."""
    head = content[:HEAD_CHARACTERS].decode("utf-8", errors="backslashreplace")
    return head.rstrip("\r\n")
