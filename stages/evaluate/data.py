"""The held-out records that the evaluation uses, and PPO's history."""

import random
from typing import Any

from stages.core.artifacts import Artifact
from stages.core.errors import UserError
from stages.core.schemas import read_jsonl


def held_out_rows(dataset: Artifact | None, limit: int, seed: int) -> list[dict[str, Any]]:
    """At most ``limit`` held-out rows of a data set, chosen at random and kept in their order;
    none where the run has no data of this kind."""
    if dataset is None:
        return []
    path = dataset.locate() / "held_out.jsonl"
    rows = list(read_jsonl(path)) if path.is_file() else []
    if len(rows) <= limit:
        return rows
    return [rows[index] for index in sorted(random.Random(seed).sample(range(len(rows)), limit))]


def read_history(history: Artifact) -> list[dict[str, float]]:
    """PPO's updates, in order.

    Raises:
        UserError: a row lacks what the training curve shows.
    """
    rows = list(read_jsonl(history.locate()))
    for number, row in enumerate(rows, start=1):
        missing = {"episodes", "score", "kl"} - row.keys()
        if missing:
            raise UserError(
                f"{history.locate()}:{number}: no {', '.join(sorted(missing))}; run ppo again"
            )
    return rows
