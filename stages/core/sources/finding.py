"""Which files the paths, globs and folders of a setting mean."""

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from stages.core.errors import UserError
from stages.core.sources.suffixes import FORMATS, file_format, known_suffixes, split_suffixes

CHECKOUT = Path(__file__).resolve().parents[3]
NO_DATA = ("readme", "license", "licence")
"""Beginnings, in lower case, of the names of files that describe data."""


def source_files(paths: tuple[str, ...]) -> tuple[Path, ...]:
    """The files that the paths name, each once however many links lead to it.

    A path is a file, a glob, or a folder, of which all files of a known format are taken
    (recursively, sorted, linked folders too; no hidden files, READMEs and licences). A relative
    path is looked up in the current folder and then in the checkout.

    Raises:
        UserError: nothing matches a path, or a file is empty, unreadable, of no known format, or no
            regular file.
    """
    files = dict.fromkeys(file for path in paths for file in _matches(path))
    for file in files:
        _check(file)
    return tuple(files)


def _left_out_files(paths: tuple[str, ...]) -> dict[str, list[Path]]:
    """Of each path that is a folder, the files that ``source_files`` passes over because their
    format is unknown."""
    found = {}
    for path in paths:
        places = (root / Path(path).expanduser() for root in (Path.cwd(), CHECKOUT))
        folder = next((place for place in places if place.is_dir()), None)
        if folder is None:
            continue
        unknown = [
            file
            for file in _walk(folder)
            if split_suffixes(file)[0] not in FORMATS and not file.name.lower().startswith(NO_DATA)
        ]
        if unknown:
            found[path] = unknown
    return found


def left_out_remarks(paths: tuple[str, ...]) -> tuple[str, ...]:
    """A line for each folder with files that are passed over."""
    return tuple(
        f"{path}: {len(files):,} files of no known format are left out "
        f"({', '.join(sorted({file.suffix or file.name for file in files})[:8])})"
        for path, files in _left_out_files(paths).items()
    )


def _check(file: Path) -> None:
    """
    Raises:
        UserError: the file cannot be read from its beginning to its end, or not by us.
    """
    file_format(file)
    try:
        status = file.stat()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; mend the link or take it off") from None
    if not stat.S_ISREG(status.st_mode):
        raise UserError(
            f"{file}: is {_special_kind(status.st_mode)}, no regular file; "
            "write its content into a file first"
        )
    if not os.access(file, os.R_OK):
        raise UserError(f"{file}: may not be read; change its permissions")
    if status.st_size == 0:
        raise UserError(f"{file}: is empty (0 bytes); write it again or take it off the paths")


def _special_kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "a folder"


def _matches(path: str) -> list[Path]:
    roots = (Path.cwd(), CHECKOUT)
    for root in roots:
        place = root / Path(path).expanduser()
        found = [place] if place.exists() else sorted(_glob(place))
        files = [
            Path(os.path.realpath(file))  # unlike resolve, no error where links go in a circle
            for item in found
            for file in (_folder_files(item) if item.is_dir() else [item])
        ]
        if files:
            return files
        if found:
            raise UserError(
                f"{path}: the folder has no file of a known format ({known_suffixes()})"
            )
    raise UserError(
        f"{path}: no such file or folder, and no match as a glob; looked in "
        f"{' and '.join(str(root) for root in dict.fromkeys(roots))}; mend the path"
    )


def _glob(pattern: Path) -> Iterator[Path]:
    """What matches the pattern. The standard library follows ``**`` round and round a folder that
    is linked into itself."""
    parts = pattern.parts
    if "**" not in parts:
        yield from map(Path, glob.glob(str(pattern)))
        return
    depth = parts.index("**")
    for base in glob.glob(str(Path(*parts[:depth]))):
        folder = Path(base)
        for file in _walk(folder):
            if _is_match(file.relative_to(folder).parts, parts[depth:]):
                yield file


def _is_match(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a relative path fits a glob, part by part; ``**`` stands for any number of folders.
    As in a shell, a leading dot must be in the pattern too."""
    if not patterns:
        return not names
    if patterns[0] == "**":
        return (
            not patterns[1:]
            or _is_match(names, patterns[1:])
            or (bool(names) and _is_match(names[1:], patterns))
        )
    if not names or (names[0].startswith(".") and not patterns[0].startswith(".")):
        return False
    return fnmatchcase(names[0], patterns[0]) and _is_match(names[1:], patterns[1:])


def _folder_files(folder: Path) -> list[Path]:
    return [
        path
        for path in _walk(folder)
        if split_suffixes(path)[0] in FORMATS and not path.name.lower().startswith(NO_DATA)
    ]


def _walk(folder: Path) -> Iterator[Path]:
    """All files below a folder, sorted, no hidden ones. Links to folders are followed, but each
    folder is entered once: a link may lead back to a folder above it."""
    entered: set[str] = set()
    found: list[Path] = []
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return iter(sorted(found))
