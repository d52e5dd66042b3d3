"""Paths, globs and folders: loops of links, files that are none, each file once."""

import os

import pytest

from stages.core.data_check import check_files
from stages.core.errors import UserError
from stages.core.sources import left_out_remarks, source_files


@pytest.fixture
def folder(tmp_path):
    for name in ("a/1.jsonl", "a/deep/2.csv", "b/3.txt.gz", "b/README.md", "b/.hidden/4.txt"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return tmp_path / "data"


def names(*paths):
    return [path.name for path in source_files(tuple(map(str, paths)))]


def test_a_folder_linked_into_itself_is_entered_once(folder):
    for number in range(3):  # three loops: following them all would take 3^40 steps
        (folder / "a" / f"loop{number}").symlink_to(folder)
    assert names(folder) == ["1.jsonl", "2.csv", "3.txt.gz"]
    assert names(folder / "**" / "*.csv") == ["2.csv"]
    assert names(folder / "a" / "**") == ["1.jsonl", "2.csv", "3.txt.gz", "README.md"]


def test_linked_folders_and_files_count_once(folder, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(folder)
    (tmp_path / "set" / "again.jsonl").symlink_to(folder / "a" / "1.jsonl")
    assert names(tmp_path / "set") == ["1.jsonl", "2.csv", "3.txt.gz"]
    assert names(folder / "a", folder / "a" / "1.jsonl", folder / "*" / "*.jsonl") == [
        "1.jsonl",
        "2.csv",
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("**/*.jsonl", ["1.jsonl"]), ("a/**/2.*", ["2.csv"]), ("**/deep/*", ["2.csv"]),
     ("*/[0-9].*", ["1.jsonl", "3.txt.gz"]), ("**/.hidden/*", [])],
)  # fmt: skip
def test_globs(folder, pattern, expected):
    if expected:
        assert names(folder / pattern) == expected
    else:
        with pytest.raises(UserError, match="no match as a glob"):
            names(folder / pattern)


def test_a_named_pipe_is_refused_without_waiting_for_it(folder):
    os.mkfifo(folder / "pipe.jsonl")
    for path in (folder, folder / "pipe.jsonl", folder / "*.jsonl"):
        with pytest.raises(
            UserError, match=r"pipe\.jsonl: is a named pipe, no regular file; write"
        ):
            source_files((str(path),))


def test_a_link_to_nowhere_is_named(folder):
    (folder / "gone.jsonl").symlink_to(folder / "nothing.jsonl")
    with pytest.raises(
        UserError, match=r"nothing\.jsonl: No such file or directory; mend the link"
    ):
        source_files((str(folder),))


def test_files_of_a_folder_that_are_passed_over_are_told(tmp_path):
    for name in ("a.txt", "b.pdf", "c.PDF", "README.rst", ".hidden", "sub/d.png", "e"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    expected = f"{tmp_path}: 4 files of no known format are left out (.PDF, .pdf, .png, e)"
    assert left_out_remarks((str(tmp_path), str(tmp_path / "a.txt"))) == (expected,)
    assert check_files([tmp_path]).remarks == (f"{expected}.",)


def test_links_in_a_circle_are_named(tmp_path):
    one, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    one.symlink_to(other)
    other.symlink_to(one)
    for path in (one, tmp_path):
        with pytest.raises(UserError, match=r"\.jsonl: Too many levels of symbolic links; mend"):
            source_files((str(path),))
