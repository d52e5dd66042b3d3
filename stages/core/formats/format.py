"""What a known format is."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from stages.core.schemas import DataKind, parse_row
from stages.core.sources import Record

Fields = Mapping[str, Any]
Rows = list[dict[str, Any]]
"""What one record holds, in our columns; none: nothing of this kind of data."""


Converter = Callable[[Fields], Rows]
"""How a record becomes rows; a ValueError says why it cannot."""


class Format(NamedTuple):
    """One way in which others write demonstrations, pairs or prompts."""

    name: str
    columns: str
    """Its columns, as the log shows them."""
    matches: Callable[[Fields], bool]
    """Whether a record is in this format, by its columns and their types."""
    rows: Mapping[DataKind, Converter]
    """What each kind of data takes of it."""
    gather: Callable[[Iterator[Record]], Iterator[Record]] | None = None
    """Where several records of a file belong together: makes one record of them."""
    group: str = ""
    """Column of the rows whose equal values belong into one split; "": the prompt decides."""


def unchanged(fields: Fields) -> Rows:
    """A record that ``parse_row`` reads as it is."""
    return [dict(fields)]


def prompts_of_pairs(pairs: Converter) -> Converter:
    """The prompt of each record that ``pairs`` turns into preference pairs."""

    def rows(fields: Fields) -> Rows:
        return [{"prompt": parse_row("preferences", row)["prompt"]} for row in pairs(fields)[:1]]

    return rows


def demonstrations_of_pairs(pairs: Converter) -> Converter:
    """The first pair's preferred reply of each record as what is to be learned."""

    def rows(fields: Fields) -> Rows:
        parsed = [parse_row("preferences", row) for row in pairs(fields)[:1]]
        return [{"prompt": row["prompt"], "completion": row["chosen"]} for row in parsed]

    return rows


def of_pairs(pairs: Converter) -> dict[DataKind, Converter]:
    """What each kind of data takes of a format of preference pairs."""
    return {
        "preferences": pairs,
        "sft": demonstrations_of_pairs(pairs),
        "prompts": prompts_of_pairs(pairs),
    }


def ranked_pairs(prompt: Any, replies: list[tuple[float, Any]]) -> Rows:
    """All pairs of replies to one prompt of which one has the lower rank, the best pairs first.

    As InstructGPT (Ouyang et al. 2022, section 3.5) takes them: K replies give K(K-1)/2 pairs.
    """
    ordered = sorted(replies, key=lambda reply: reply[0])
    return [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        for number, (rank, chosen) in enumerate(ordered)
        for other_rank, rejected in ordered[number + 1 :]
        if rank < other_rank
    ]


def as_number(value: object) -> float | None:
    """A finite number as such; None: it is something else (a truth value too)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer of hundreds of digits
        return None
