"""PPO's checkpoints: files that are whole or not there, few, and small (no frozen weights)."""

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy
import torch

from stages.core.launch import WARNING_PREFIX

CHECKPOINTS_KEPT = 2


def save_checkpoint(folder: Path, num_updates: int, state: dict[str, Any]) -> None:
    """Write by temporary file and rename, then drop the older ones.

    Raises:
        OSError: the file cannot be written, because the disk is full, say.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"update-{num_updates:06d}.pt"
    part = path.with_suffix(".part")
    # Given a path instead of a file, torch would not say why it cannot write.
    with part.open("wb") as file:
        torch.save(state | {"random": _random_states()}, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    checkpoints = sorted(folder.glob("update-*.pt"))
    # Later ones than this are damaged, or the run would have continued from them.
    kept = checkpoints[: checkpoints.index(path) + 1][-CHECKPOINTS_KEPT:]
    for other in set(checkpoints) - set(kept):
        other.unlink()


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The state of the newest checkpoint that can be read, None where there is none; the
    random-number generators of all libraries are set back to it. Damaged files are named in
    warnings.

    Raises:
        OSError: a file cannot be opened.
    """
    checkpoints = sorted(folder.glob("update-*.pt"), reverse=True)
    for path in checkpoints:
        with path.open("rb") as file:
            try:
                state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:  # damaged bytes raise all kinds, even OSError
                _warn(f"{path}: damaged checkpoint, passed over ({type(error).__name__})")
                continue
        _set_random_states(state.pop("random"))
        return state
    if checkpoints:
        _warn(f"{folder}: no checkpoint can be read; training starts anew")
    return None


def _warn(text: str) -> None:
    print(WARNING_PREFIX + text, flush=True)


def _random_states() -> dict[str, Any]:
    numpy_state = [
        item if isinstance(item, str | int | float) else item.tolist()
        for item in numpy.random.get_state(legacy=True)
    ]
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        # As text: weights_only loading takes no others.
        "other": json.dumps({"python": random.getstate(), "numpy": numpy_state}),
    }


def _set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    # A run may go on where there are fewer GPUs.
    torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])
    other = json.loads(states["other"])
    version, internal, gauss = other["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy.random.set_state(tuple(other["numpy"]))
