"""Preferences as files that other tools read: JSON Lines of ours, HH-RLHF's dialogues, Argilla's
records.

What is written is read back at once by the reader of ``stages.core.formats``: a pair that would not
come back as it is gets no record, since a format has no place for it.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from stages.core import formats
from stages.core.errors import UserError
from stages.core.feedback.pairs import pair_id
from stages.core.schemas import encode_row, parse_row

Row = Mapping[str, Any]
ExportFormat = Literal["jsonl", "hh", "argilla"]

HH_NAMES = {"user": "Human", "assistant": "Assistant"}
QUESTION = "preference"
"""Name of Argilla's question; its answers are the names of the two reply fields."""
TEXTS = ("prompt", "chosen", "rejected")


def export_rows(
    rows: Iterable[Row], name: ExportFormat
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The preferences (``stages.core.schemas``) as records of a format, and why how many of them
    have no record."""
    make, records, left_out = MAKERS[name], [], Counter[str]()
    for row in rows:
        try:
            record = make(row)
            if not _comes_back(record, row):
                raise ValueError("would be read as another pair: its text holds the format's marks")
        except ValueError as error:
            left_out[str(error)] += 1
        else:
            records.append(record)
    return records, left_out


def write_export(path: Path, records: Iterable[Row], *, force: bool = False) -> None:
    """Write one record a line. The file is there as a whole or not at all.

    Args:
        force: an older file of this name may be replaced.

    Raises:
        UserError: the file exists, or its folder does not.
    """
    try:
        number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        part = Path(name)
        try:
            with os.fdopen(number, "wb") as file:
                for record in records:
                    file.write(encode_row(record))
                file.flush()
                os.fsync(file.fileno())
            part.chmod(0o644)
            if force:
                part.replace(path)
            else:
                os.link(part, path)  # unlike a rename, never over another file
        finally:
            part.unlink(missing_ok=True)
    except FileExistsError:
        raise UserError(f"{path}: exists; --force replaces it, or choose another name") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


# ------------------------------------------------------------------------------------ helpers


def _own(row: Row) -> dict[str, Any]:
    return dict(row)


def _hh(row: Row) -> dict[str, Any]:
    """``{"chosen": "\\n\\nHuman: …\\n\\nAssistant: …", "rejected": …}`` (Bai et al. 2022)."""
    prompt = row["prompt"]
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if any(turn["role"] not in HH_NAMES for turn in turns):
        raise ValueError("has a system message, which the format does not know")
    asked = "".join(f"\n\n{HH_NAMES[turn['role']]}: {turn['content']}" for turn in turns)
    return {name: f"{asked}\n\nAssistant: {row[name]}" for name in ("chosen", "rejected")}


def _argilla(row: Row) -> dict[str, Any]:
    """As ``Record.to_dict`` of Argilla 2 writes it. A person's answer is a response, a model's a
    suggestion. Which reply stands first follows from the texts alone."""
    prompt, replies = row["prompt"], sorted((row["chosen"], row["rejected"]))
    names = ("response_a", "response_b")
    value = names[replies.index(row["chosen"])]
    by_model = row.get("source") == "feedback:ai"
    answer = {"value": value, "user_id": row.get("annotator") or "", "status": "submitted"}
    suggestion = {"value": value, "score": None, "agent": row.get("annotator")}
    # Argilla shows a list of messages as chat where the field is called so.
    asked = "prompt" if isinstance(prompt, str) else "chat"
    metadata = {
        name: row[name] for name in ("margin", "created_at", "source") if row.get(name) is not None
    }
    return {
        "id": pair_id(prompt, *replies),
        "fields": {asked: prompt, **dict(zip(names, replies, strict=True))},
        "metadata": metadata,
        "suggestions": {QUESTION: suggestion} if by_model else {},
        "responses": {} if by_model else {QUESTION: [answer]},
        "vectors": {},
    }


MAKERS: dict[ExportFormat, Callable[[Row], dict[str, Any]]] = {
    "jsonl": _own,
    "hh": _hh,
    "argilla": _argilla,
}


def _comes_back(record: Row, row: Row) -> bool:
    """Whether the reader finds the same pair in the record, white space around texts aside."""
    known = formats.recognise("preferences", [record])
    try:
        found = formats.convert(known, "preferences", record) if known else [dict(record)]
        (read,) = [parse_row("preferences", fields) for fields in found]
    except ValueError:
        return False
    return all(_stripped(read[name]) == _stripped(row[name]) for name in TEXTS)


def _stripped(text: str | list[dict[str, str]]) -> object:
    if isinstance(text, str):
        return text.strip()
    return [(turn["role"], turn["content"].strip()) for turn in text]
