"""A checkpoint is whole or not there, and a damaged one is noticed."""

import errno
import os
import pickle

import pytest

torch = pytest.importorskip("torch")

from pqlib.training import checkpoint  # noqa: E402

STATE = {"model": {"w": torch.arange(3.0)}, "step": 7, "notes": ["a"], "rate": 0.1}


def test_what_was_saved_comes_back(tmp_path):
    path = tmp_path / "deep" / "run.pt"
    checkpoint.save(path, STATE, config="abc")
    found = checkpoint.load(path, config="abc")
    assert torch.equal(found.pop("model")["w"], STATE["model"]["w"])
    assert found == {k: v for k, v in STATE.items() if k != "model"}
    assert [p.name for p in path.parent.iterdir()] == ["run.pt"]


def test_the_one_before_is_kept(tmp_path):
    path = tmp_path / "run.pt"
    assert checkpoint.latest(path, config="abc") == (None, [])
    for step in (1, 2, 3):
        checkpoint.save(path, {"step": step}, config="abc")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.pt", "run.pt.before"]
    assert checkpoint.latest(path, config="abc") == ({"step": 3}, [])
    path.unlink()  # as if killed between the two renamings
    assert checkpoint.latest(path, config="abc") == ({"step": 2}, [])
    (tmp_path / "run.pt.77.tmp").write_bytes(b"torn")
    checkpoint.remove(path)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("place", [0, 3, 60, 130, 400, -1])
def test_one_damaged_byte_is_noticed(tmp_path, place):
    path = tmp_path / "run.pt"
    checkpoint.save(path, {"step": 1}, config="abc")
    checkpoint.save(path, {"step": 2}, config="abc")
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match=r"run.pt is (damaged|of another run)"):
        checkpoint.load(path, config="abc")
    state, wrong = checkpoint.latest(path, config="abc")
    assert state == {"step": 1} and len(wrong) == 1


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"[1]\n", b"\xff\xfe", b"x" * 9000])
def test_what_is_none_is_refused(tmp_path, content):
    path = tmp_path / "run.pt"
    path.write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        checkpoint.load(path, config="abc")


def test_that_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    checkpoint.save(path, STATE, config="abc")
    with pytest.raises(checkpoint.CheckpointError, match=r"of another run \(abc, not abd\)"):
        checkpoint.load(path, config="abd")


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


def test_nothing_in_a_checkpoint_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.pt"
    checkpoint.save(path, {"trap": Trap()}, config="abc")
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load(path, config="abc")
    assert not (tmp_path / "trapped").exists()


def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    checkpoint.save(path, {"step": 1}, config="abc")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left.*run\.pt.*kept"):
            checkpoint.save(path, {"step": 2}, config="abc")
    assert checkpoint.latest(path, config="abc") == ({"step": 1}, [])
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]
