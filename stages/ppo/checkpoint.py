"""PPO's checkpoints: files that are whole or not there, few, and small (no frozen weights)."""

import json
import random
from pathlib import Path
from typing import Any

import numpy
import torch

CHECKPOINTS_KEPT = 2


def save_checkpoint(folder: Path, num_updates: int, state: dict[str, Any]) -> None:
    """Write by temporary file and rename, then drop the oldest."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"update-{num_updates:06d}.pt"
    part = path.with_suffix(".part")
    torch.save(state | {"random": _random_states()}, part)
    part.replace(path)
    for old in sorted(folder.glob("update-*.pt"))[:-CHECKPOINTS_KEPT]:
        old.unlink()


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The state of the newest checkpoint, None where there is none; the random-number generators of
    all libraries are set back to it."""
    checkpoints = sorted(folder.glob("update-*.pt"))
    if not checkpoints:
        return None
    state: dict[str, Any] = torch.load(checkpoints[-1], map_location="cpu", weights_only=True)
    _set_random_states(state.pop("random"))
    return state


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
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    other = json.loads(states["other"])
    version, internal, gauss = other["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy.random.set_state(tuple(other["numpy"]))
