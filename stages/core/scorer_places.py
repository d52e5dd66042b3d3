"""What a user may name as a scorer. Free of torch, so that the flow can refuse a mistake early.

================= =================================================================
file.py:function  a Python function
FOLDER            a reward model, or a sequence classifier with one output
FOLDER:LABEL      a sequence classifier: the log-odds of this label, log p − log(1 − p)
FOLDER:-LABEL     their negative: high where the label is unlikely
classifier:LABEL  the same of the classifier that the chain itself trains; also -LABEL
================= =================================================================
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from stages.core.artifacts import Artifact, content_digest
from stages.core.errors import UserError
from stages.core.policy_gate import COMPARED, GUARD_MODEL, JUDGE, REWARD_MODEL

MANIFEST_FILE = "reward_model.json"
"""Marks the folder of a reward model that this pipeline trained."""
BASE_FILE = "base.json"
CLASSIFIER_SUFFIX = "ForSequenceClassification"
CHAIN_CLASSIFIER = "classifier"
TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.model", "tekken.json")

SHOWN_LABELS = 10
FIGURE_NAMES = frozenset(
    ("score", "score_normalized", "kl", "length", "eos_rate", "distinct_1", "distinct_2",
     "repetition", "bits_per_byte", "sft_loss", "length_baseline", "win_rate", "toxic_share",
     "prompted_toxic_share", "refusal_rate", "leaks", COMPARED, REWARD_MODEL, GUARD_MODEL, JUDGE)
)  # fmt: skip
"""Metrics of the evaluation begin with these or with a scorer's name, which must therefore
differ."""
FIGURE_BEGINNINGS = ("benchmark_", "reference_")

FolderKind = Literal["reward_model", "classifier"]


def check_scorer_name(setting: str, name: str) -> None:
    """Refuse a name that metrics cannot carry.

    Raises:
        UserError: naming the setting.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise UserError(f"{setting}: choose another name, of letters, digits and underscores")


def check_judging_scorer_name(setting: str, name: str) -> None:
    """Refuse a name of a scorer that judges which metrics cannot carry, or which another figure of
    the evaluation has.

    Raises:
        UserError: naming the setting.
    """
    check_scorer_name(setting, name)
    if name in FIGURE_NAMES or name.startswith(FIGURE_BEGINNINGS):
        taken = ", ".join(sorted(FIGURE_NAMES))
        raise UserError(f"{setting}: choose another name, none of {taken}")


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


def is_chain_classifier(place: str) -> bool:
    """Whether a scorer is given as classifier:LABEL."""
    return place.partition(":")[0] == CHAIN_CLASSIFIER and ":" in place


def place_label(place: str) -> str:
    """LABEL or -LABEL of a scorer given as FOLDER:LABEL; empty where it is a folder alone."""
    return place.partition(":")[2]


def find_label(labels: Sequence[str], wanted: str) -> tuple[int, int]:
    """The number of a classifier's output and 1; -1 where -LABEL is wanted.

    A label that itself begins with a hyphen, such as -1, is found before a negative.

    Raises:
        UserError: there is no such label, or several outputs and none is named.
    """
    if len(labels) == 1:
        if wanted:
            raise UserError("the classifier has a single output, the score: name its folder alone")
        return 0, 1
    for name, sign in ((wanted, 1), (wanted.removeprefix("-"), -1)):
        if name in labels:
            return labels.index(name), sign
    shown = ", ".join(labels[:SHOWN_LABELS]) + (", …" if len(labels) > SHOWN_LABELS else "")
    missing = f"has no label {wanted!r}" if wanted else f"has {len(labels)} labels"
    raise UserError(
        f"the classifier {missing}; name one of {shown} behind the folder: FOLDER:{labels[0]} is "
        f"scored by that label's log-odds, FOLDER:-{labels[0]} by their negative"
    )


def check_classifier(folder: Path, label: str) -> None:
    """Whether a sequence classifier's folder has its tokenizer and the wanted label.

    Raises:
        UserError: it lacks one of them.
    """
    check_tokenizer_files(folder)
    try:
        find_label(classifier_labels(folder), label)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None


def check_tokenizer_files(folder: Path) -> None:
    """Whether a model's folder has its tokenizer. Without the files, transformers makes up one that
    knows nothing but special tokens.

    Raises:
        UserError: it has none.
    """
    if not any(path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)):
        raise UserError(f"{folder}: no tokenizer beside the model; save it into that folder")


def classifier_labels(folder: Path) -> tuple[str, ...]:
    """The labels of a sequence classifier in the order of its outputs, as config.json has them."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    names = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # transformers' default
    try:
        return tuple(str(names[number]) for number in sorted(names, key=int))
    except (ValueError, TypeError):
        raise UserError(f"{path}: id2label does not name the labels by their numbers") from None


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
