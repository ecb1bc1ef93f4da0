"""LSQ: values, a naive transcription of its gradients, finite differences, brevitas."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install pqlib[torch]")
from torch.nn.utils import parametrize  # noqa: E402

from pqlib import IntegerGrid, fake_quantize, optimal_scale  # noqa: E402
from pqlib.training import lsq as module  # noqa: E402
from pqlib.training.lsq import LSQ, lsq  # noqa: E402

BITS = (2, 3, 4, 8, 16)


def naive(w, s, n_bits, g, grad_scale):
    """Esser et al. 2020, equations 1-3 and 5, weight by weight."""
    low, high = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    w_hat, grad_w, grad_s = np.empty_like(w), np.empty_like(w), 0.0
    for i, v in np.ndenumerate(w):
        w_hat[i] = s * np.round(min(max(v / s, low), high))
        if v / s <= low:
            grad_w[i], slope = 0.0, low
        elif v / s >= high:
            grad_w[i], slope = 0.0, high
        else:
            grad_w[i], slope = g[i], -v / s + np.round(v / s)
        grad_s += g[i] * slope
    return w_hat, grad_w, grad_s * grad_scale


def case(n_bits, shape, seed=0):
    rng = np.random.default_rng(seed)
    w, g = rng.normal(size=(2, *shape))
    return w, optimal_scale(w, n_bits) * 0.7, g  # 0.7: that some lie beyond the grid


def ours(w, s, n_bits, g, grad_scale, dtype=torch.float64):
    w, g = (torch.as_tensor(x, dtype=dtype) for x in (w, g))
    w.requires_grad_()
    s = torch.tensor(s, dtype=dtype, requires_grad=True)
    w_hat = lsq(w, s, n_bits, grad_scale)
    w_hat.backward(g)
    return w_hat.detach().numpy(), w.grad.numpy(), float(s.grad)


@pytest.mark.parametrize("n_bits", BITS)
def test_the_formula(n_bits):
    w, s, g = case(n_bits, (6, 5, 3, 3))
    for mine, theirs in zip(ours(w, s, n_bits, g, 0.3), naive(w, s, n_bits, g, 0.3), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("n_bits", BITS)
def test_finite_differences(n_bits):
    """Of s (clamp(w / s) + r), r = round(w / s) - w / s held constant inside, 0 outside.

    Piecewise linear in w and in s: a step that carries no weight over an end of the grid is exact.
    """
    w, s, g = case(n_bits, (400,), seed=1)
    low, high = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    clear = np.minimum(abs(w / s / low - 1), abs(w / s / high - 1)) > 0.05
    assert clear.mean() > 0.8
    w, g = w[clear], g[clear]
    u = w / s
    inside = (u > low) & (u < high)
    assert 0 < (~inside).sum() < inside.sum()
    r = np.where(inside, np.round(u) - u, 0.0)

    def surrogate(w, s):
        return s * (np.clip(w / s, low, high) + r)

    _, grad_w, grad_s = ours(w, s, n_bits, g, 1.0)
    h = 0.04 * s
    slope = (surrogate(w, s + h) - surrogate(w, s - h)) / (2 * h)
    assert grad_s == pytest.approx(g @ slope, rel=1e-11, abs=1e-11 * abs(g * w / s).sum())
    slope = (surrogate(w + h, s) - surrogate(w - h, s)) / (2 * h)
    np.testing.assert_allclose(grad_w, g * slope, atol=1e-11)


def test_ends_count_as_beyond():
    """Exact in binary: the ends themselves, half a step beyond, half-way cases."""
    w = np.array([-2.0, 1.0, 1.25, 1.49, -2.4, 0.5, -0.5, 0.99, -1.99])
    w_hat, grad_w, grad_s = ours(w, 1.0, 2, np.ones(9), 1.0)
    assert w_hat.tolist() == [-2, 1, 1, 1, -2, 0, 0, 1, -2]
    assert grad_w.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert grad_s == pytest.approx(-2 + 1 + 1 + 1 - 2 - 0.5 + 0.5 + 0.01 - 0.01)
    # equal to the naive transcription, too
    assert naive(w, 1.0, 2, np.ones(9), 1.0)[2] == pytest.approx(grad_s)


@pytest.mark.parametrize("n_bits", BITS)
def test_every_grid_point_comes_back(n_bits):
    for s in (0.1, 1 / 3, 2.0**-7, 0.0123):
        scale = torch.tensor(s)
        grid = torch.arange(-(2 ** (n_bits - 1)), 2 ** (n_bits - 1)) * scale
        assert torch.equal(lsq(grid, scale, n_bits), grid)


@pytest.mark.parametrize("n_bits", BITS)
def test_values_are_the_theorys(n_bits):
    w, s, _ = case(n_bits, (500,))
    got = lsq(torch.from_numpy(w), torch.tensor(s, dtype=torch.float64), n_bits).numpy()
    np.testing.assert_allclose(got, fake_quantize(w, IntegerGrid(n_bits, s)), rtol=1e-14)


def test_blocks_layouts_and_other_devices_path(monkeypatch):
    """Block by block, in one piece, channels last, and as on an accelerator: the same."""
    w, s, g = case(4, (8, 6, 3, 3))
    expected = naive(w, s, 4, g, 0.5)

    def check(found):
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-12)

    def last(values):
        return torch.from_numpy(values).to(memory_format=torch.channels_last)

    check(ours(w, s, 4, g, 0.5))
    check(ours(last(w), s, 4, g, 0.5))
    with monkeypatch.context() as patch:
        patch.setattr(module, "_BLOCK", 100)
        check(ours(w, s, 4, g, 0.5))
        for weights, gradients in ((w, last(g)), (last(w), g), (last(w), last(g))):
            check(ours(weights, s, 4, gradients, 0.5))
    monkeypatch.setattr(module, "_backward_on_cpu", module._backward)
    check(ours(w, s, 4, g, 0.5))


def test_single_precision():
    """The scale's gradient from residues keeps its digits at 8 bits, where w / s is large."""
    w, s, g = case(8, (64, 64))
    w, g, s = w.astype(np.float32), g.astype(np.float32), float(np.float32(s))
    exact = naive(w.astype(float), s, 8, g.astype(float), 1.0)
    found = ours(w, s, 8, g, 1.0, torch.float32)
    np.testing.assert_allclose(found[0], exact[0], atol=1e-5)
    assert found[2] == pytest.approx(exact[2], abs=1e-4 * float(np.linalg.norm(g)))


@pytest.mark.parametrize("n_bits", (2, 4, 8))
@pytest.mark.parametrize("scaled", (True, False))
def test_the_module(n_bits, scaled):
    w, _, g = case(n_bits, (40, 9))
    layer = torch.nn.Linear(9, 40).double()
    layer.weight.data.copy_(torch.from_numpy(w))
    part = LSQ(layer.weight, n_bits, scaled_gradient=scaled)
    assert part.scale.item() == optimal_scale(w, n_bits)
    parametrize.register_parametrization(layer, "weight", part)
    layer.weight.backward(torch.from_numpy(g))
    factor = 1 / math.sqrt(w.size * (2 ** (n_bits - 1) - 1)) if scaled else 1.0
    _, grad_w, grad_s = naive(w, part.scale.item(), n_bits, g, factor)
    assert float(part.scale.grad) == pytest.approx(grad_s, rel=1e-11)
    np.testing.assert_allclose(layer.parametrizations.weight.original.grad.numpy(), grad_w)


def test_the_scale_stays_positive():
    w = torch.randn(50, generator=torch.Generator().manual_seed(0))
    part = LSQ(w, 4)
    least = float(part.least_scale)
    assert least == pytest.approx(part.scale.item() / 1024)
    part.scale.data.fill_(-3.0)
    w_hat = part(w)
    assert torch.equal(w_hat, lsq(w, part.least_scale, 4))
    w_hat.backward(-torch.sign(w))  # all are beyond the grid, and would be larger
    assert float(part.scale.grad) < 0  # so that a step goes up again
    part.project()
    assert part.scale.item() == least


def test_frozen_scale_and_weight():
    w = torch.randn(9, requires_grad=True)
    lsq(w, torch.tensor(0.1), 4).sum().backward()
    assert w.grad is not None
    s = torch.tensor(0.1, requires_grad=True)
    lsq(w.detach(), s, 4).sum().backward()
    assert s.grad is not None


@pytest.mark.parametrize(
    ("scale", "n_bits", "grad_scale", "message"),
    (
        (torch.tensor(0.0), 4, 1.0, "above zero"),
        (torch.tensor(-1.0), 4, 1.0, "above zero"),
        (torch.tensor(math.nan), 4, 1.0, "above zero"),
        (torch.ones(3), 4, 1.0, "0-dim"),
        (torch.tensor(1.0).double(), 4, 1.0, "dtype"),
        (torch.tensor(1.0), 1, 1.0, "n_bits"),
        (torch.tensor(1.0), 17, 1.0, "n_bits"),
        (torch.tensor(1.0), 4, 0.0, "grad_scale"),
    ),
)
def test_refused(scale, n_bits, grad_scale, message):
    with pytest.raises(ValueError, match=message):
        lsq(torch.ones(3), scale, n_bits, grad_scale)


@pytest.mark.parametrize("weight", (torch.zeros(4), torch.tensor([1.0, math.nan]), torch.ones(0)))
def test_weights_refused(weight):
    with pytest.raises(ValueError, match=r"weight|finite|empty"):
        LSQ(weight, 4)


@pytest.mark.parametrize("n_bits", (2, 4, 8))
def test_brevitas(n_bits):
    """Its straight-through weight quantizer with a learned scale, inside and beyond the grid."""
    core = pytest.importorskip("brevitas.core.quant", reason="an oracle: pip install brevitas")
    from brevitas.core.bit_width import BitWidthConst
    from brevitas.core.function_wrapper import Identity, RoundSte, TensorClamp

    w, s, g = case(n_bits, (30, 7))
    quantizer = core.IntQuant(
        narrow_range=False,
        signed=True,
        float_to_int_impl=RoundSte(),
        tensor_clamp_impl=TensorClamp(),
        input_view_impl=Identity(),
    )
    weight = torch.from_numpy(w).requires_grad_()
    scale = torch.tensor(s, dtype=torch.float64, requires_grad=True)
    zero = torch.tensor(0.0, dtype=torch.float64)
    w_hat = quantizer(scale, zero, BitWidthConst(n_bits)(), weight)
    w_hat.backward(torch.from_numpy(g))
    found = ours(w, s, n_bits, g, 1.0)
    np.testing.assert_allclose(found[0], w_hat.detach().numpy(), rtol=1e-12)
    # it rounds first and clamps then: inside is what rounds to a level of the grid
    u, low, high = w / s, -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    apart = ((np.round(u) == low) & (u <= low)) | ((np.round(u) == high) & (u >= high))
    np.testing.assert_allclose(found[1][~apart], weight.grad.numpy()[~apart], atol=1e-12)
    moved = np.sum(g[apart] * (np.round(u) - u)[apart])  # its slope for them
    ends = np.sum(g[apart] * np.round(u)[apart])  # the paper's
    assert found[2] == pytest.approx(float(scale.grad) - moved + ends, rel=1e-10)
