"""What may be removed below ``runs``: stage folders with their siblings, and how they go.

Nothing is removed in place: what goes first loses its completion mark, then its name, so that a
crash on the way leaves nothing that could be taken for a result.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from flows.plan import OUTPUTS, OUTSIDE_PIPELINE
from stages.core.artifacts import RESULT_FILE, data_root
from stages.core.errors import UserError

Key = tuple[str, str]
"""Stage and key of a result."""
STAGE_ENTRY = re.compile(r"([0-9a-f]{12})(\.checkpoints|\.log|\.lock)?")
REMOVED = ".removed-"


@dataclass(frozen=True)
class Waste:
    """Something that may go."""

    path: Path
    why: str
    changed: float
    size_bytes: int
    key: Key | None = None
    """Where it is a stage's folder, or what is left of one."""
    only_checkpoints: bool = False
    makers: tuple[str, ...] = ()
    """Runs whose artifacts may hold it."""


@dataclass
class Place:
    """A stage's folder with its siblings ``.log``, ``.lock`` and ``.checkpoints``."""

    folder: Path
    entries: list[Path] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return (self.folder / RESULT_FILE).exists()

    @property
    def checkpoints(self) -> Path:
        return self.folder.with_suffix(".checkpoints")

    @property
    def lock(self) -> Path:
        return self.folder.with_suffix(".lock")

    def changed(self) -> float:
        """When the result was finished, else when a file was last written."""
        if finished := changed_at(self.folder / RESULT_FILE):
            return finished
        # Whoever asks whether a lock is held changes it.
        return max((changed_at(path) for path in self.entries if path != self.lock), default=0.0)


def stage_places() -> dict[Key, Place]:
    """What lies in the stages' folders by the key of the result."""
    places: dict[Key, Place] = {}
    for stage in (*OUTPUTS, *OUTSIDE_PIPELINE):
        for path in entries(data_root() / "runs" / stage):
            matched = STAGE_ENTRY.fullmatch(path.name)
            if matched:
                key = (stage, matched[1])
                places.setdefault(key, Place(path.with_name(matched[1]))).entries.append(path)
    # A folder that somebody moved to another disk and linked is not ours to remove.
    return {key: place for key, place in places.items() if not place.folder.is_symlink()}


def remove(found: Sequence[Waste]) -> tuple[int, list[Waste]]:
    """Remove what was found; return the bytes, and what a run has taken up meanwhile.

    Raises:
        UserError: something cannot be removed; another try goes on there.
    """
    removed, left, aside = 0, [], []
    try:
        # All loses its name first, since removing takes long and runs go on meanwhile.
        for waste in found:
            with contextlib.suppress(FileNotFoundError):  # another gc was faster
                if waste.key is None:
                    aside.append(_set_aside(waste.path))
                elif (paths := _set_place_aside(waste)) is None:
                    left.append(waste)
                    continue
                else:
                    aside += paths
                removed += waste.size_bytes
        for path in aside:
            _delete(path)
    except OSError as error:
        raise UserError(
            f"{error.filename}: cannot be removed: {error.strerror}; mend it and run rlhf gc again"
        ) from None
    return removed, left


def is_locked(path: Path) -> bool:
    """Whether a process holds this lock."""
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, which need not be there."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def num_bytes(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    return sum(stat.st_size for stat in _stats(path))


def changed_at(path: Path) -> float:
    """When a file, or a file in a folder, was last written; 0 where there is none. A folder's own
    time is that of a removal, too."""
    return max((stat.st_mtime for stat in _stats(path)), default=0.0)


# ------------------------------------------------------------------------------------ helpers


def _set_place_aside(waste: Waste) -> list[Path] | None:
    """Take a stage's folder out of the way; None where a run has taken it up."""
    assert waste.key is not None
    place = stage_places().get(waste.key)
    if place is None:
        return []
    try:
        with FileLock(place.lock, timeout=0):
            if place.changed() != waste.changed:
                return None
            if waste.only_checkpoints:
                return [_set_aside(place.checkpoints)]
            (place.folder / RESULT_FILE).unlink(missing_ok=True)
            # The checkpoints first: without the folder's name nothing goes on from them.
            folders = [path for path in (place.checkpoints, place.folder) if path.exists()]
            aside = [_set_aside(path) for path in folders]
            place.folder.with_suffix(".log").unlink(missing_ok=True)
            place.lock.unlink(missing_ok=True)
            return aside
    except Timeout:
        return None


def _set_aside(path: Path) -> Path:
    aside = path if path.name.startswith(REMOVED) else path.with_name(REMOVED + path.name)
    if aside != path and path.is_dir():
        _delete(aside)
        return path.rename(aside)
    return path


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _stats(path: Path) -> Iterator[os.stat_result]:
    """Of all files at or below ``path``; a run may remove some of them meanwhile."""
    files = [path]
    if path.is_dir() and not path.is_symlink():
        files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    for file in files:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            yield file.lstat()
