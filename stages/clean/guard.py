"""The pairs set aside for the guard model, which judges what PPO did and is never optimised."""

import hashlib
import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core.errors import UserError
from stages.core.schemas import prompt_key, read_jsonl, write_jsonl


def set_aside_for_guard(share: float, folder: Path, guard_folder: Path) -> tuple[int, int]:
    """Move the guard model's training pairs to a folder of its own, and return how many there are
    and how many stay; both have the same held-out pairs.

    Raises:
        UserError: one of the two is left without training pairs.
    """
    guard_folder.mkdir(exist_ok=True)
    train, guard_train = folder / "train.jsonl", guard_folder / "train.jsonl"

    def is_guards(row: Mapping[str, Any]) -> bool:
        return guard_place(prompt_key("preferences", row)) < share

    moved = write_jsonl(guard_train, filter(is_guards, read_jsonl(train)))
    kept = write_jsonl(train, itertools.filterfalse(is_guards, read_jsonl(train)))
    if not moved or not kept:
        raise UserError(
            f"preferences: clean.guard_share={share:g} gives the guard model "
            f"{moved} training pairs and the reward model {kept}; "
            "give pairs of more prompts, change the share, or set it to 0 for no guard model"
        )
    shutil.copyfile(folder / "held_out.jsonl", guard_folder / "held_out.jsonl")
    return moved, kept


def guard_place(key: str) -> float:
    """A place in [0, 1) of a prompt that has nothing to do with whether it is held out."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"guard").digest()
    return int.from_bytes(digest) / 2**64
