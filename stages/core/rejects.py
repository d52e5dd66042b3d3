"""Records that cannot be used: kept aside with file, line and reason, and counted.

A bad record neither stops a stage nor vanishes; too many of them do stop it.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from stages.core.errors import UserError

REJECTS_FILE = "rejects.jsonl"
HEAD_CHARACTERS = 200


class Rejects:
    """Writes ``rejects.jsonl`` in a stage's folder; use as a context manager."""

    def __init__(self, out_dir: Path) -> None:
        self.path = out_dir / REJECTS_FILE
        self.reasons: dict[str, Counter[str]] = {}
        """Number of rejects by kind of data and reason."""
        self._examples: dict[tuple[str, str], str] = {}

    def __enter__(self) -> Self:
        self._file = self.path.open("w", encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(
        self,
        kind: str,
        split: str,
        file: str,
        line: int,
        reason: str,
        record: Mapping[str, Any] | str,
        *,
        is_fault: bool = True,
    ) -> None:
        """Set one record of ``file`` aside; of its content only the head is kept. One that is no
        fault of the data is not counted."""
        if not isinstance(record, str):
            record = json.dumps(record, ensure_ascii=False, default=str)
        head = record[:HEAD_CHARACTERS].encode("utf-8", "backslashreplace").decode()
        row = {
            "kind": kind,
            "split": split,
            "file": file,
            "line": line,
            "reason": reason,
            "head": head,
        }
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if not is_fault:
            return
        self.reasons.setdefault(kind, Counter())[reason] += 1
        self._examples.setdefault((kind, reason), f"{file}:{line}")

    def count(self, kind: str) -> int:
        """Rejects of one kind of data so far."""
        return self.reasons.get(kind, Counter()).total()

    def check_share(
        self, setting: str, kind: str, total: int, max_share: float, hints: Mapping[str, str]
    ) -> None:
        """Stop where too many of ``total`` records of a kind were rejected.

        Raises:
            UserError: names the three commonest reasons, an example of each, and the advice in
                ``hints`` on the commonest.
        """
        if self.count(kind) <= max_share * total:
            return
        self._file.flush()
        places = {reason: place for (of, reason), place in self._examples.items() if of == kind}
        limit = f"{setting}={max_share:g}"
        default = f"mend the records or raise {setting}"
        refuse(self.path, kind, total, limit, self.reasons[kind], places, hints, default)


def refuse(
    path: Path,
    kind: str,
    total: int,
    limit: str,
    reasons: Counter[str],
    places: Mapping[str, str],
    hints: Mapping[str, str],
    default_hint: str,
) -> NoReturn:
    """Stop a stage that rejects too many of ``total`` records of a kind.

    Args:
        path: where the rejected records are.
        limit: the setting and its value that they exceed.
        reasons: how many were rejected for each reason.
        places: an example's file:line by reason.
        hints: advice by reason; else ``default_hint``.

    Raises:
        UserError: always; names the three commonest reasons.
    """
    commonest = reasons.most_common(3)
    shown = ", ".join(f"{count}x {reason} (as in {places[reason]})" for reason, count in commonest)
    hint = hints.get(commonest[0][0], default_hint)
    raise UserError(
        f"{kind}: {reasons.total()} of {total} records are rejected, more than {limit} allows: "
        f"{shown}; {hint}; all of them are in {path}"
    )
