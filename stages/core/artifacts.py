"""Artifacts (content-addressed files and folders) and the record of a finished stage."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from stages.core.errors import UserError

RESULT_FILE = "result.json"
CHECKPOINTS = "checkpoints"
"""Folder of a stage's checkpoints inside its own, until it is complete."""

ArtifactKind = Literal[
    "source", "documents", "sft", "preferences", "prompts",
    "labelled", "personal_data", "tokenizer", "model", "adapter", "reward_model", "card",
    "classifier", "history", "benchmarks", "report", "scorer", "pairs", "judgments",
]  # fmt: skip


class Artifact(BaseModel):
    """A file or folder that one stage made and another may read."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: ArtifactKind
    path: str
    """Relative to the data root; absolute for the user's own files outside it."""
    digest: str
    """SHA-256 of the content (of a folder: of its relative paths and their contents)."""

    def locate(self) -> Path:
        """The artifact's place on this machine."""
        return data_root() / self.path


class StageResult(BaseModel):
    """What ``result.json`` holds: written last, it marks the stage's folder as complete."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    key: str
    outputs: dict[str, Any]
    """Field by field the stage's ``…Outputs`` model."""
    metrics: dict[str, float]
    files: dict[str, str]
    """SHA-256 of every file of the folder, by relative path."""
    tracking_run_id: str = ""
    git_commit: str = ""
    seconds: float = 0.0


def data_root() -> Path:
    """Where all state lives: ``$RLHF_DATA_ROOT``, else ``data/`` of the checkout."""
    given = os.environ.get("RLHF_DATA_ROOT")
    return Path(given).resolve() if given else Path(__file__).resolve().parents[2] / "data"


def file_digest(path: Path) -> str:
    """SHA-256 of one file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_files(folder: Path) -> dict[str, str]:
    """SHA-256 by relative path of every file below ``folder``, the completion mark left out."""
    marks = (folder / RESULT_FILE, _part(folder / RESULT_FILE))
    return {
        path.relative_to(folder).as_posix(): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path not in marks
    }


def content_digest(path: Path) -> str:
    """Digest of a file, or of a folder's relative paths and contents."""
    return json_digest(folder_files(path)) if path.is_dir() else file_digest(path)


def json_digest(value: object) -> str:
    """SHA-256 of a JSON-serialisable value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def make_artifact(kind: ArtifactKind, path: Path) -> Artifact:
    """Describe the file or folder at ``path`` as it is now.

    Raises:
        UserError: nothing is there.
    """
    path = path.resolve()
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; check the path in the configuration")
    root = data_root()
    shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
    return Artifact(kind=kind, path=shown, digest=content_digest(path))


def write_atomically(path: Path, text: str) -> None:
    """Write by temporary file and rename, so that a crash leaves the old content or the new."""
    part = _part(path)
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_result(out_dir: Path, result: StageResult) -> None:
    """Mark ``out_dir`` as complete. The seal lets a damaged mark be told from a sound one."""
    body = result.model_dump(mode="json")
    text = json.dumps(body | {"seal": json_digest(body)}, indent=2)
    write_atomically(out_dir / RESULT_FILE, text)


def read_result(out_dir: Path) -> StageResult | None:
    """The result of a complete and undamaged folder, else None.

    Every file is read and compared with its recorded digest (about a second a gigabyte).
    """
    try:
        body = json.loads((out_dir / RESULT_FILE).read_text(encoding="utf-8"))
        if body.pop("seal", None) != json_digest(body):
            return None
        result = StageResult.model_validate(body)
        return result if folder_files(out_dir) == result.files else None
    except (OSError, ValueError, AttributeError, TypeError):  # no JSON object, or files vanish
        return None


def take_up(out_dir: Path) -> StageResult | None:
    """``read_result`` for whoever goes on with the result. It counts as changed from now on: an
    ``rlhf gc`` that has listed it leaves it."""
    with contextlib.suppress(OSError):  # not there, or somebody else's
        os.utime(out_dir / RESULT_FILE)
    return read_result(out_dir)


def _part(path: Path) -> Path:
    """The temporary file of a write to ``path``."""
    return path.with_name(f".{path.name}.part")
