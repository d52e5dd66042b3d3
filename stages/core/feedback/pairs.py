"""A pair of replies that somebody is asked to compare."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from stages.core.artifacts import json_digest
from stages.core.config import Frozen
from stages.core.errors import UserError
from stages.core.schemas import normalize, read_jsonl, write_jsonl

Verdict = Literal["a", "b", "tie", "both_bad"]
Purpose = Literal["chosen", "random", "gold", "imported"]

PAIRS_FILE = "pairs.jsonl"
"""In the artifact ``pairs``: one ``CandidatePair`` a line, in the order of asking."""


class CandidatePair(Frozen):
    """Two replies to one prompt, in the order in which they are shown."""

    pair_id: str
    """The same for the same prompt and replies, whichever stands first: see ``pair_id``."""
    prompt: str | list[dict[str, str]]
    """As in the data formats: text, or messages that end with a user's."""
    reply_a: str
    reply_b: str
    model_a: str = ""
    """Which model replied (champion, challenger, sft); never shown to a reviewer."""
    model_b: str = ""
    purpose: Purpose = "chosen"
    """chosen: to learn from; random: for evaluation alone, never trained on; gold: the answer is
    known, which tells how careful a reviewer is."""
    expected: Verdict | None = None
    """The known answer of a gold pair."""
    margin: float | None = None
    """Score of A minus score of B by the reward model, in standard deviations of its scores."""
    disagreement: float | None = None
    """By how much two reward models differ about that margin, in the same unit."""


def pair_id(prompt: str | list[dict[str, str]], reply_a: str, reply_b: str) -> str:
    """16 hexadecimal digits that name the pair, without regard to its sides."""
    return json_digest({"prompt": prompt, "replies": sorted((reply_a, reply_b))})[:16]


def is_reserved(prompt: str | list[dict[str, str]], share: float) -> bool:
    """Whether a prompt belongs to the share whose pairs are for evaluation alone.

    It follows from the prompt itself, letter case and white space aside: it holds in every round,
    on every machine, so that no prompt is asked about for training first and for evaluation later.
    A larger share only adds prompts.
    """
    text = prompt if isinstance(prompt, str) else "\n".join(turn["content"] for turn in prompt)
    return int(json_digest(normalize(text))[:8], 16) < share * 16**8


def write_pairs(path: Path, pairs: Sequence[CandidatePair]) -> None:
    """Write one pair a line."""
    write_jsonl(path, (pair.model_dump() for pair in pairs))


def read_pairs(path: Path) -> list[CandidatePair]:
    """The pairs of a file, or of the file ``PAIRS_FILE`` in a folder.

    Raises:
        UserError: there is no such file, or a line is no pair.
    """
    file = path / PAIRS_FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file}: no such file; name one with pairs, as sample-pairs writes it")
    pairs = []
    for number, row in enumerate(read_jsonl(file), 1):
        try:
            pairs.append(CandidatePair.model_validate(row))
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            reason = error.errors()[0]["msg"].lower()
            raise UserError(f"{file}:{number}: no pair: {place}: {reason}") from None
    return pairs
