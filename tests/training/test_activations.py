"""Layers of two networks on the same images: known answers, memory, refusals."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install pqlib[torch]")
from torch import nn  # noqa: E402

from pqlib import sqnr_db  # noqa: E402
from pqlib.training import activations  # noqa: E402
from pqlib.training.activations import Original, layer_outputs  # noqa: E402
from pqlib.training.compression import compress  # noqa: E402


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(4 * 36, 5),
    )


IMAGES = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))
BATCHES = [IMAGES[:7], IMAGES[7:]]


def naive_cka(x, y):
    """Kornblith et al. 2019, equations 2 and 3, with the kernel XX' and H = I - 11'/n."""
    n = len(x)
    h = np.eye(n) - 1 / n
    k, l = x @ x.T, y @ y.T  # noqa: E741

    def hsic(a, b):
        return np.trace(a @ h @ b @ h) / (n - 1) ** 2

    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


def by_hand(model, upto):
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return model[: upto + 1](IMAGES).flatten(1).double().numpy()


def test_outputs_are_one_row_per_image():
    model = net().train()
    found = layer_outputs(model, BATCHES, ["0", "5"])
    assert found["0"].shape == (12, 144) and found["5"].shape == (12, 5)
    for name, got in found.items():
        np.testing.assert_allclose(got, by_hand(model, int(name)), atol=1e-6)
    assert model.training and model[3].training
    assert not any(layer._forward_hooks for layer in model.modules())


def test_comparison_is_the_naive_one():
    original, other = net(), net(1)
    compression = compress(other, "lsq", 2)
    rows = Original(original, BATCHES).compare(other)
    assert [row["layer"] for row in rows] == ["0", "5"] == list(compression.layers)
    for row in rows:
        place = int(row["layer"])
        x, y = by_hand(original, place), by_hand(other, place)
        assert row["sqnr_db"] == pytest.approx(sqnr_db(x, y), abs=1e-4)
        assert row["cka"] == pytest.approx(naive_cka(x, y), abs=1e-5)
        assert row["cka_unpaired"] == pytest.approx(naive_cka(x, np.roll(y, 1, axis=0)), abs=1e-5)


def test_the_network_itself_is_at_no_distance():
    original = net()
    for row in Original(original, BATCHES).compare(copy.deepcopy(original)):
        assert row["sqnr_db"] == np.inf and row["cka"] == pytest.approx(1, abs=1e-12)
        assert row["cka_unpaired"] < 0.9


def test_scaling_a_layer_costs_snr_and_no_alignment():
    original, other = net(), net()
    with torch.no_grad():
        other[5].weight.mul_(0.5)
        other[5].bias.mul_(0.5)
    last = Original(original, BATCHES).compare(other)[-1]
    assert last["sqnr_db"] == pytest.approx(10 * np.log10(4), abs=1e-4)
    assert last["cka"] == pytest.approx(1, abs=1e-9)


def test_layers_come_in_groups_that_fit_into_memory(monkeypatch):
    original, other = net(), net(1)
    at_once = Original(original, BATCHES).compare(other)
    monkeypatch.setattr(activations, "_MAX_BYTES", 1)
    passes = []

    def counting(model, batch):
        passes.append(model)
        return model(batch)

    reference = Original(original, BATCHES, counting)
    passes.clear()
    assert reference.compare(other) == at_once
    assert len(passes) == 2 * 2 * 2  # two layers one by one, two networks, two batches


def test_a_layer_called_twice_has_both_calls_side_by_side():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            return self.layer(self.layer(x.flatten(1)[:, :6]))

    found = layer_outputs(Twice(), BATCHES, ["layer"])
    assert found["layer"].shape == (12, 12)


def test_a_network_that_has_gone_silent_has_no_alignment():
    other = net()
    with torch.no_grad():
        other[0].weight.zero_()
    rows = Original(net(), BATCHES).compare(other)
    assert rows[0]["cka"] == rows[0]["cka_unpaired"] == 0 and np.isfinite(rows[0]["sqnr_db"])


def test_mistakes():
    with pytest.raises(ValueError, match="batches must hold at least two images, got none"):
        Original(net(), [])
    with pytest.raises(ValueError, match="at least two images, got one"):
        Original(net(), [IMAGES[:1]])
    with pytest.raises(ValueError, match="layers must name one or more modules"):
        Original(net(), BATCHES, layers=[])
    with pytest.raises(ValueError, match="no layer 'conv9'"):
        Original(net(), BATCHES, layers=["conv9"])
    idle = nn.ModuleDict({"used": nn.Linear(3, 3), "idle": nn.Linear(3, 3)})
    with pytest.raises(ValueError, match="layer 'idle' is not called"):
        Original(idle, BATCHES, lambda m, x: m["used"](x[:, :, 0, 0]))
    silent = net()
    with torch.no_grad():
        silent[0].weight.zero_()
    with pytest.raises(ValueError, match="layer '0' of the original: x is the same for all"):
        Original(silent, BATCHES).compare(net())
    with pytest.raises(ValueError, match="no layer '5'"):
        Original(net(), BATCHES).compare(nn.Sequential(*list(net())[:5]))
