"""Sizes and ages of what may be removed, while others change it."""

import os
import threading
from pathlib import Path

from flows.waste import changed_at, entries, is_locked, num_bytes


def test_size_and_age_are_those_of_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    assert (num_bytes(folder), changed_at(folder)) == (0, 0.0)
    for name, size, time in (("a", 3, 100.0), ("inner/b", 4, 200.0)):
        (folder / name).write_bytes(b"x" * size)
        os.utime(folder / name, (time, time))
    (folder / "inner" / "link").symlink_to(tmp_path)
    os.utime(folder / "inner" / "link", (50.0, 50.0), follow_symlinks=False)
    assert num_bytes(folder / "a") == 3
    assert 7 <= num_bytes(folder) < 7 + 4096  # a link has a size, and what it points to has another
    assert changed_at(folder) == 200.0


def test_files_may_vanish_while_they_are_looked_at(tmp_path: Path) -> None:
    stop = threading.Event()

    def rotate() -> None:
        while not stop.is_set():
            folder = tmp_path / "checkpoint"
            folder.mkdir(exist_ok=True)
            for name in "abcdef":
                (folder / name).write_bytes(b"x")
            for name in "abcdef":
                (folder / name).unlink()
            folder.rmdir()

    rotation = threading.Thread(target=rotate)
    rotation.start()
    for _ in range(300):
        num_bytes(tmp_path)
        changed_at(tmp_path)
    stop.set()
    rotation.join()


def test_what_is_not_there_is_empty_and_not_locked(tmp_path: Path) -> None:
    assert entries(tmp_path / "gone") == []
    assert not is_locked(tmp_path / "gone.lock")
    assert not (tmp_path / "gone.lock").exists()
