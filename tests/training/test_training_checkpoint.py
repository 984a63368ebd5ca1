"""Checkpoints are whole or refused."""

import errno
import pickle

import pytest
import torch

from daemon.errors import ModelError, StoreError
from training import checkpoint
from training.checkpoint import load, save

STATE = {"step": 3, "weights": torch.arange(1000.0), "optimizer": {"state": [torch.ones(2)], "rate": 0.5}}


def test_a_checkpoint_comes_back(tmp_path):
    """What was saved is loaded, over what was there; nothing else is left in the folder."""
    path = tmp_path / "new" / "last.pt"
    assert load(path) is None
    save(path, {"step": 1})
    save(path, STATE)
    loaded = load(path)
    assert loaded["step"] == 3
    assert torch.equal(loaded["weights"], STATE["weights"])
    assert loaded["optimizer"]["rate"] == 0.5
    assert [file.name for file in path.parent.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other", "folder"])
def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path, damage):
    """Cut, changed by one bit, empty or something else: refused, with the path and what to do."""
    path = tmp_path / "last.pt"
    save(path, STATE)
    raw = bytearray(path.read_bytes())
    raw[raw.index(STATE["weights"].numpy().tobytes()) + 100] ^= 1
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"cut": raw[:-500], "flipped": raw, "empty": b"", "other": pickle.dumps(STATE)}[damage])
    with pytest.raises(ModelError, match=f"{path}.*begins anew") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    """It is as it was written, and nobody should remove it."""

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    save(tmp_path / "last.pt", STATE)
    monkeypatch.setattr(checkpoint.zipfile, "ZipFile", refuse)
    with pytest.raises(ModelError, match=r"last\.pt: cannot be read: Permission denied$"):
        load(tmp_path / "last.pt")


def test_a_checkpoint_runs_nothing(tmp_path):
    """A pickle that would call a function is refused, not obeyed."""
    path = tmp_path / "last.pt"
    torch.save({"step": Trap(str(tmp_path / "sprung"))}, path)
    with pytest.raises(ModelError, match="begins anew"):
        load(path)
    assert not (tmp_path / "sprung").exists()


class Trap:
    """Unpickling it would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path):
    """A write that fails is said in one line, and the last good checkpoint stays."""
    path = tmp_path / "last.pt"
    save(path, {"step": 1})
    (tmp_path / "last.pt.part").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        save(path, STATE)
    assert load(path)["step"] == 1
