"""Digests depend on content alone, and a damaged folder is never taken for a finished one."""

import hashlib
import json
import os
import shutil

import pytest

from stages.core.artifacts import (
    Artifact,
    StageResult,
    content_digest,
    data_root,
    file_digest,
    folder_files,
    json_digest,
    make_artifact,
    read_result,
    write_atomically,
    write_result,
)
from stages.core.errors import UserError


def finished_folder(folder, **changes):
    """A stage's folder with files at two levels, marked as complete."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "weights.bin").write_bytes(bytes(range(256)))
    (folder / "model" / "result.json").write_text("{}")  # a file of the model, not our mark
    (folder / "spec.json").write_text("{}")
    fields = {
        "stage": "clean",
        "key": folder.name,
        "outputs": {},
        "metrics": {"loss": 1.5},
        "files": folder_files(folder),
    }
    write_result(folder, StageResult(**fields | changes))
    return folder


# ---------------------------------------------------------------------------------------- digests


def test_a_file_is_known_by_its_sha256(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert file_digest(path) == hashlib.sha256(b"abc").hexdigest()
    assert content_digest(path) == file_digest(path)


def test_the_digest_of_a_folder_does_not_depend_on_its_place_or_age(tmp_path):
    first = tmp_path / "first"
    (first / "inner").mkdir(parents=True)
    (first / "b").write_text("1")
    (first / "inner" / "a").write_text("2")
    second = tmp_path / "elsewhere" / "second"
    (second / "inner").mkdir(parents=True)
    (second / "inner" / "a").write_text("2")  # made in another order
    (second / "b").write_text("1")
    os.utime(second / "b", (0, 0))
    assert content_digest(first) == content_digest(second)


def test_names_count_as_content(tmp_path):
    for folder, name in (("one", "a"), ("two", "b")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("the same")
    assert content_digest(tmp_path / "one") != content_digest(tmp_path / "two")


def test_the_order_of_keys_does_not_matter():
    assert json_digest({"a": 1, "b": [2, 3]}) == json_digest({"b": [2, 3], "a": 1})
    assert json_digest({"a": [1, 2]}) != json_digest({"a": [2, 1]})


# -------------------------------------------------------------------------------------- artifacts


def test_below_the_data_root_paths_are_relative_and_move_with_it(tmp_path, monkeypatch):
    old = tmp_path / "old"
    (old / "runs").mkdir(parents=True)
    (old / "runs" / "file").write_text("x")
    monkeypatch.setenv("RLHF_DATA_ROOT", str(old))
    artifact = make_artifact("documents", old / "runs" / "file")
    assert artifact.path == "runs/file"
    shutil.move(old, tmp_path / "new")
    monkeypatch.setenv("RLHF_DATA_ROOT", str(tmp_path / "new"))
    assert artifact.locate().read_text() == "x"


def test_outside_the_data_root_paths_are_absolute(tmp_path, tmp_path_factory):
    path = tmp_path_factory.mktemp("user") / "file"
    path.write_text("x")
    artifact = make_artifact("source", path)
    assert artifact.path == str(path)
    assert artifact.locate() == path


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="gone: no such file or folder; check the path"):
        make_artifact("source", tmp_path / "gone")


def test_an_unknown_field_is_refused():
    with pytest.raises(ValueError, match="extra"):
        Artifact(kind="model", path="x", digest="y", size=1)


def test_the_data_root_is_the_checkouts_unless_told(tmp_path, monkeypatch):
    assert data_root() == tmp_path
    monkeypatch.delenv("RLHF_DATA_ROOT")
    assert (data_root() / "samples").is_dir()


# ---------------------------------------------------------------------------- the completion mark


def test_a_finished_folder_is_read_back(tmp_path):
    result = read_result(finished_folder(tmp_path / "out"))
    assert result is not None
    assert (result.key, result.metrics) == ("out", {"loss": 1.5})
    assert set(result.files) == {"spec.json", "model/weights.bin", "model/result.json"}


def test_a_finished_folder_may_be_moved(tmp_path):
    moved = shutil.move(finished_folder(tmp_path / "out"), tmp_path / "moved")
    assert read_result(moved) is not None


def test_metrics_that_are_no_number_are_read_back(tmp_path):
    folder = finished_folder(tmp_path / "out", metrics={"loss": float("inf")})
    result = read_result(folder)
    assert result is not None
    assert result.metrics == {"loss": float("inf")}


def test_a_changed_byte_anywhere_is_noticed(tmp_path):
    folder = finished_folder(tmp_path / "out")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(files) == 4
    for path in files:
        sound = path.read_bytes()
        # Every byte of the small files; of the large one the ends and the middle.
        for place in range(len(sound)) if len(sound) < 100 else (0, len(sound) // 2, -1):
            damaged = bytearray(sound)
            damaged[place] ^= 1
            path.write_bytes(damaged)
            assert read_result(folder) is None, f"{path.name}, byte {place}"
        path.write_bytes(sound)
    assert read_result(folder) is not None


def test_every_changed_digit_of_the_mark_is_noticed(tmp_path):
    folder = finished_folder(tmp_path / "out")
    path = folder / "result.json"
    sound = path.read_text()
    digits = [place for place, letter in enumerate(sound) if letter.isdigit()]
    assert len(digits) > 100
    for place in digits[::7]:
        other = "1" if sound[place] != "1" else "2"
        path.write_text(sound[:place] + other + sound[place + 1 :])
        assert read_result(folder) is None, f"byte {place}"


@pytest.mark.parametrize("content", ["", "{", "null", "[]", "{}", '{"seal": "x"}', "\udcff"])
def test_a_mark_that_is_no_result_is_none(tmp_path, content):
    folder = finished_folder(tmp_path / "out")
    (folder / "result.json").write_bytes(content.encode(errors="surrogateescape"))
    assert read_result(folder) is None


def test_missing_and_additional_files_are_noticed(tmp_path):
    folder = finished_folder(tmp_path / "out")
    (folder / "new").write_text("")
    assert read_result(folder) is None
    (folder / "new").unlink()
    assert read_result(folder) is not None
    (folder / "model" / "weights.bin").unlink()
    assert read_result(folder) is None


def test_no_mark_means_not_finished(tmp_path):
    folder = finished_folder(tmp_path / "out")
    (folder / "result.json").unlink()
    assert read_result(folder) is None
    assert read_result(tmp_path / "nowhere") is None


def test_a_mark_of_an_other_schema_is_not_finished_even_if_sealed(tmp_path):
    folder = finished_folder(tmp_path / "out")
    body = json.loads((folder / "result.json").read_text())
    del body["seal"], body["metrics"]
    (folder / "result.json").write_text(json.dumps(body | {"seal": json_digest(body)}))
    assert read_result(folder) is None


def test_the_remains_of_a_mark_whose_writer_was_killed_do_no_harm(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".result.json.part").write_text('{"stage": "cle')
    finished_folder(folder)
    assert read_result(folder) is not None


# --------------------------------------------------------------------------------- atomic writing


def test_a_failed_write_leaves_the_old_content(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new" * 10_000 + "\udc00")  # fails after the first bytes
    assert path.read_text() == "old"


def test_a_write_replaces_the_content_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    write_atomically(path, "new – ü")
    assert path.read_text(encoding="utf-8") == "new – ü"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
