"""Masks: exactly the zeros asked for, whatever the ties; gradients; monotone; load and go on."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

torch = pytest.importorskip("torch", reason="pip install pqlib[torch]")
from torch.nn.utils import parametrize  # noqa: E402

from pqlib import magnitude_mask  # noqa: E402
from pqlib.training import magnitude  # noqa: E402
from pqlib.training.magnitude import MagnitudeMask  # noqa: E402

arrays = hnp.arrays(
    np.float32, hnp.array_shapes(max_dims=3, max_side=7), elements=st.integers(-5, 5).map(float)
)


def naive(w, zeros, mask=None):
    """Sort and take the first; those masked already come before all."""
    magnitudes = abs(w).ravel()
    if mask is not None:
        magnitudes = np.where(mask.ravel(), magnitudes, -1)
    new = np.ones(w.size, bool)
    new[np.argsort(magnitudes, kind="stable")[:zeros]] = False
    return new.reshape(w.shape)


@pytest.mark.parametrize("in_numpy", (True, False))
@settings(derandomize=True, deadline=None)
@given(x=arrays, share=st.floats(0, 1, exclude_max=True))
def test_exactly_the_smallest(in_numpy, x, share):
    """Many ties; also the way that accelerators go."""
    zeros = int(x.size * share)
    with pytest.MonkeyPatch.context() as patch:
        if not in_numpy:
            patch.setattr(magnitude, "_in_numpy", lambda tensor: False)
        part = MagnitudeMask(torch.from_numpy(x))
        part.set_zeros(torch.from_numpy(x), zeros)
    np.testing.assert_array_equal(part.mask.numpy(), naive(x, zeros))
    assert part.n_zeros == zeros == int((~part.mask).sum())


@settings(derandomize=True, deadline=None)
@given(x=arrays, y=arrays, shares=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)))
def test_monotone(x, y, shares):
    y = np.resize(y, x.shape)
    first, second = sorted(int(x.size * share) for share in shares)
    part = MagnitudeMask(torch.from_numpy(x), monotone=True)
    part.set_zeros(torch.from_numpy(x), first)
    before = part.mask.numpy()
    part.set_zeros(torch.from_numpy(y), second)
    after = part.mask.numpy()
    np.testing.assert_array_equal(after, naive(y, second, before))
    assert not (after & ~before).any()


def test_monotone_keeps_all_digits():
    w = torch.tensor([1e-9, 3e-9, 2e-9, 1.0])
    part = MagnitudeMask(w, monotone=True)
    part.set_zeros(w, 1)
    part.set_zeros(w, 2)
    assert part.mask.tolist() == [False, True, False, True]
    with pytest.raises(ValueError, match="only grow"):
        part.set_zeros(w, 1)


def test_large_and_as_the_theory():
    w = torch.randn(300, 70, 3, 3, generator=torch.Generator().manual_seed(0))
    part = MagnitudeMask(w)
    for sparsity in (0.9, 0.5, 0.75):  # down, too: masked weights return
        part.set_zeros(w, int(w.numel() * sparsity))
        assert torch.equal(part.mask, magnitude_mask(w, sparsity))
    part.set_zeros(w, 0)
    assert part.mask.all()
    last = w.to(memory_format=torch.channels_last)
    part = MagnitudeMask(last)
    part.set_zeros(last, w.numel() // 4)
    assert torch.equal(part.mask, magnitude_mask(w, 0.25))


def test_forward_and_gradient():
    layer = torch.nn.Linear(4, 2)
    w = torch.tensor([[1.0, -2.0, 3.0, -4.0], [0.5, 6.0, -0.1, 0.0]])
    layer.weight.data.copy_(w)
    part = MagnitudeMask(layer.weight)
    parametrize.register_parametrization(layer, "weight", part)
    part.set_zeros(w, 3)
    kept = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 0]])
    assert torch.equal(layer.weight, w * kept)
    layer(torch.ones(1, 4)).sum().backward()
    assert torch.equal(layer.parametrizations.weight.original.grad, kept.float())


def test_state_and_going_on():
    w = torch.randn(50, generator=torch.Generator().manual_seed(0))
    part, other = MagnitudeMask(w), MagnitudeMask(w)
    part.set_zeros(w, 20)
    other.load_state_dict(part.state_dict())
    assert other.n_zeros == 20
    assert torch.equal(other.mask, part.mask)
    assert part.state_dict().keys() == {"multiplier"}


@pytest.mark.parametrize("where", (0, 49))
@pytest.mark.parametrize("in_numpy", (True, False))
def test_not_a_number(monkeypatch, where, in_numpy):
    if not in_numpy:
        monkeypatch.setattr(magnitude, "_in_numpy", lambda tensor: False)
    w = torch.randn(50)
    part = MagnitudeMask(w)
    part.set_zeros(w, 10)
    w[where] = math.nan
    with pytest.raises(ValueError, match="got NaN"):
        part.set_zeros(w, 20)
    assert part.n_zeros == 0  # nothing is masked, rather than something wrong
    assert part.mask.all()


def test_refused():
    w = torch.ones(3, 2)
    part = MagnitudeMask(w)
    with pytest.raises(ValueError, match=r"shape \(3, 2\)"):
        part.set_zeros(w.T, 1)
    for zeros in (-1, 6):
        with pytest.raises(ValueError, match="zeros"):
            part.set_zeros(w, zeros)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("shape", ((300, 7), (900, 7), (90, 10, 7, 1), "channels last"))
def test_near_the_last_threshold_is_the_same_as_among_all(dtype, shape):
    """Weights that drift, jump and tie: whatever path is taken, the smallest magnitudes go.

    The fewest are looked through without a guess.
    """
    generator = torch.Generator().manual_seed(0)
    inner = shape == "channels last"
    weight = torch.randn((90, 10, 7, 1) if inner else shape, generator=generator, dtype=dtype)
    weight = weight.to(memory_format=torch.channels_last) if inner else weight
    mask, near, last = MagnitudeMask(weight), 0, weight.numel() - 1
    assert mask.multiplier.stride() == weight.stride()
    for step, zeros in enumerate([*range(500, 1500, 40), *range(1500, 900, -60), 1200, 1201, last]):
        drift = 1e-3 if step % 5 else 0.3
        weight = weight + drift * torch.randn(weight.shape, generator=generator, dtype=dtype)
        if step % 7 == 6:
            weight = (weight * 8).round() / 8
        near += mask._found_near(weight, zeros)
        mask.set_zeros(weight, zeros)
        expected = magnitude_mask(weight.numpy(), zeros / weight.numel())
        assert mask.n_zeros == zeros == int((mask.multiplier == 0).sum())
        assert (mask.mask.numpy() == expected).all()
    assert near > 10


def test_what_is_not_finite_is_not_looked_for_near_the_last_threshold():
    weight = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    mask = MagnitudeMask(weight)
    mask.set_zeros(weight, 500)
    mask.set_zeros(weight, 501)
    assert mask._found_near(weight, 502)
    for wrong in (float("nan"), float("inf")):
        spoiled = weight.clone()
        spoiled[3] = wrong
        assert not mask._found_near(spoiled, 502)
        if wrong == wrong:
            mask.set_zeros(spoiled, 502)
            assert mask.n_zeros == 502 and mask.multiplier[3] == 1
        else:
            with pytest.raises(ValueError, match="got NaN"):
                mask.set_zeros(spoiled, 502)
            assert (mask.multiplier == 1).all()
