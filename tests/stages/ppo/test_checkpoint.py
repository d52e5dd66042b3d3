"""Checkpoints that cannot be written or read."""

import errno
import random

import numpy
import pytest
import torch

from stages.core.process import is_disk_full
from stages.ppo.checkpoint import load_checkpoint, save_checkpoint


def save(folder, *updates):
    for update in updates:
        save_checkpoint(folder, update, {"update": update, "weights": torch.full((500,), update)})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def draw():
    return random.random(), float(numpy.random.rand()), float(torch.rand(()))


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def replace(path):
    path.write_text("not what torch writes")


def test_the_newest_is_loaded_and_the_one_before_it_is_kept(tmp_path):
    assert load_checkpoint(tmp_path) is None
    save(tmp_path, 2, 4, 6)
    assert names(tmp_path) == ["update-000004.pt", "update-000006.pt"]
    state = load_checkpoint(tmp_path)
    assert state["update"] == 6
    assert torch.equal(state["weights"], torch.full((500,), 6))


def test_a_run_goes_on_where_there_are_fewer_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "get_rng_state_all", lambda: [torch.tensor([gpu]) for gpu in range(4)]
    )
    save(tmp_path, 2)
    restored = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", restored.extend)
    assert load_checkpoint(tmp_path)["update"] == 2
    assert restored == [torch.tensor([0]), torch.tensor([1])]


@pytest.mark.parametrize("damage", [cut, halve, empty, replace])
def test_a_damaged_newest_one_is_named_and_the_one_before_it_loaded(tmp_path, damage, capsys):
    save(tmp_path, 2)
    expected = draw()
    save(tmp_path, 4)
    damage(tmp_path / "update-000004.pt")
    assert load_checkpoint(tmp_path)["update"] == 2
    assert draw() == expected
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"warning: {tmp_path}/update-000004.pt: damaged checkpoint, passed over")


def test_where_none_can_be_read_training_starts_anew_and_its_checkpoints_count(tmp_path, capsys):
    save(tmp_path, 4, 6)
    for path in tmp_path.iterdir():
        cut(path)
    assert load_checkpoint(tmp_path) is None
    *damaged, last = capsys.readouterr().out.splitlines()
    assert ["update-000006" in line for line in damaged] == [True, False]
    assert last == f"warning: {tmp_path}: no checkpoint can be read; training starts anew"
    save(tmp_path, 2)
    assert names(tmp_path) == ["update-000002.pt"]
    assert load_checkpoint(tmp_path)["update"] == 2


def test_one_that_cannot_be_opened_is_not_taken_for_damaged(tmp_path):
    save(tmp_path, 2)
    (tmp_path / "update-000004.pt").mkdir()  # root opens any file
    with pytest.raises(OSError, match="Is a directory"):
        load_checkpoint(tmp_path)


def test_a_full_disk_is_known_as_such_and_leaves_the_checkpoints_alone(tmp_path):
    save(tmp_path, 2)
    (tmp_path / "update-000004.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as failure:
        save(tmp_path, 4)
    assert failure.value.errno == errno.ENOSPC
    assert is_disk_full(failure.value)
    assert load_checkpoint(tmp_path)["update"] == 2


@pytest.mark.parametrize("count", [10, 10_000])
def test_a_full_disk_is_known_where_torch_writes_to_a_path(count):
    """As transformers lets it for its checkpoints; torch tells little and one bytes and many."""
    with pytest.raises(RuntimeError) as failure:
        torch.save(torch.zeros(count), "/dev/full")
    assert is_disk_full(failure.value)
    assert not is_disk_full(RuntimeError("shapes do not fit"))
