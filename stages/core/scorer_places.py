"""What a user may name as a scorer. Free of torch, so that the flow can refuse a mistake early."""

import json
import re
from pathlib import Path
from typing import Literal

from stages.core.artifacts import Artifact, content_digest
from stages.core.errors import UserError

MANIFEST_FILE = "reward_model.json"
"""Marks the folder of a reward model that this pipeline trained."""
BASE_FILE = "base.json"
CLASSIFIER_SUFFIX = "ForSequenceClassification"

FolderKind = Literal["reward_model", "classifier"]


def check_scorer_name(setting: str, name: str) -> None:
    """Refuse a name that metrics cannot carry.

    Raises:
        UserError: naming the setting.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise UserError(f"{setting}: choose another name, of letters, digits and underscores")


def scorer_folder_kind(folder: Path) -> FolderKind:
    """A reward model of this pipeline, or a sequence classifier in transformers' format.

    Raises:
        UserError: neither.
    """
    if (folder / MANIFEST_FILE).is_file():
        return "reward_model"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        architectures = [str(name) for name in config["architectures"]]
    except (OSError, ValueError, KeyError, TypeError):
        architectures = []
    if any(name.endswith(CLASSIFIER_SUFFIX) for name in architectures):
        return "classifier"
    raise UserError(
        f"{folder}: no reward model: neither {MANIFEST_FILE}, which the stage reward_model writes, "
        f"nor a config.json whose architecture ends in {CLASSIFIER_SUFFIX}"
    )


def reward_model_base(folder: Path) -> Path:
    """The base model of a reward model of this pipeline, which its ``base.json`` names.

    Raises:
        UserError: ``base.json`` is damaged, or the base model is gone or has changed.
    """
    try:
        text = (folder / BASE_FILE).read_text(encoding="utf-8")
        base = Artifact.model_validate_json(text)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: no sound {BASE_FILE}, which names the reward model's base model; "
            "restore it or train the reward model again"
        ) from error
    path = base.locate()
    cure = "restore it (the data root is $RLHF_DATA_ROOT) or train the reward model again"
    if not path.is_dir():
        raise UserError(f"{folder}: its base model {path} is missing; {cure}")
    if content_digest(path) != base.digest:
        raise UserError(f"{folder}: its base model {path} is not the one it was trained on; {cure}")
    return path
