"""Masks: the budget rule to the unit, torch's pruning, ties, groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pqlib import kurtosis, magnitude_mask, matched_sparsity, n_m_mask, n_zeros

torch = pytest.importorskip("torch", reason="the oracle: pip install pqlib[torch]")
l1_unstructured = pytest.importorskip("torch.nn.utils.prune").l1_unstructured

arrays = hnp.arrays(
    np.float64, hnp.array_shapes(max_dims=3, max_side=7), elements=st.integers(-5, 5).map(float)
)


@settings(derandomize=True, deadline=None)
@given(x=arrays, sparsity=st.floats(0, 1, exclude_max=True))
def test_exactly_the_smallest_go(x, sparsity):
    """Many ties: the number removed is the budget's, whatever they are."""
    mask = magnitude_mask(x, sparsity)
    assert mask.shape == x.shape
    assert mask.dtype == bool
    assert (~mask).sum() == n_zeros(x.size, sparsity)
    removed, kept = abs(x[~mask]), abs(x[mask])
    if removed.size and kept.size:
        assert removed.max() <= kept.min()
    order = np.argsort(abs(x).ravel(), kind="stable")  # of equal ones the first goes first
    assert set(np.flatnonzero(~mask)) == set(order[: n_zeros(x.size, sparsity)])
    theirs = magnitude_mask(torch.from_numpy(x), sparsity)
    np.testing.assert_array_equal(theirs.numpy(), mask)


@pytest.mark.parametrize("n_bits", (2, 3, 4, 8))
@pytest.mark.parametrize("shape", ((64,), (16, 9), (4, 3, 3, 3)))
def test_torchs_magnitude_pruning(shape, n_bits):
    w = torch.from_numpy(np.random.default_rng(n_bits).normal(size=shape))
    sparsity = matched_sparsity(n_bits)
    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(w.clone())
    l1_unstructured(layer, "weight", amount=n_zeros(w.numel(), sparsity))
    np.testing.assert_array_equal(
        magnitude_mask(w, sparsity).numpy(), layer.weight_mask.numpy() == 1
    )
    np.testing.assert_array_equal(
        magnitude_mask(w.numpy(), sparsity), layer.weight_mask.numpy() == 1
    )


def test_nothing_and_almost_all():
    x = np.array([3.0, -1.0, 2.0])
    assert magnitude_mask(x, 0.0).all()
    assert magnitude_mask(x, 0.999).tolist() == [True, False, False]
    assert magnitude_mask(np.zeros(4), 0.5).tolist() == [False, False, True, True]
    assert magnitude_mask(np.array([-0.0, 0.0]), 0.5).tolist() == [False, True]


def test_scalars_views_and_dtypes():
    assert magnitude_mask(np.array(3.0), 0.5).shape == ()
    assert bool(magnitude_mask(np.array(3.0), 0.5))
    x = np.random.default_rng(0).normal(size=(5, 6))
    np.testing.assert_array_equal(magnitude_mask(x.T, 0.5), magnitude_mask(x.T.copy(), 0.5))
    np.testing.assert_array_equal(magnitude_mask(x[::2], 0.4), magnitude_mask(x[::2].copy(), 0.4))
    t = torch.from_numpy(x)
    np.testing.assert_array_equal(magnitude_mask(t.T, 0.5).numpy(), magnitude_mask(x.T, 0.5))
    tiny = np.array([3, 1, 2], np.float16) * np.float16(6e-8)
    assert magnitude_mask(tiny, 0.67).tolist() == [True, False, False]
    huge = np.array([1e300, -1e-300, 1e308])
    assert magnitude_mask(huge, 0.67).tolist() == [False, False, True]
    for integers in (np.array([-128, 1, 2], np.int8), torch.tensor([-128, 1, 2], dtype=torch.int8)):
        assert magnitude_mask(integers, 0.67).tolist() == [True, False, False]  # abs(-128) is 128
        assert n_m_mask(integers, 1, 3).tolist() == [True, False, False]


@settings(derandomize=True, deadline=None)
@given(
    groups=hnp.arrays(np.float64, (3, 2, 4), elements=st.integers(-3, 3).map(float)),
    n=st.integers(1, 4),
)
def test_n_of_m_by_sorting_each_group(groups, n):
    x = groups.reshape(3, 8)
    mask = n_m_mask(x, n, 4)
    assert mask.shape == x.shape
    for group, kept in zip(x.reshape(-1, 4), mask.reshape(-1, 4), strict=True):
        naive = sorted(range(4), key=lambda i, g=group: (abs(g[i]), i))[4 - n :]
        assert set(np.flatnonzero(kept)) == set(naive)
    np.testing.assert_array_equal(n_m_mask(torch.from_numpy(x), n, 4).numpy(), mask)


@pytest.mark.parametrize("shape", ((), (5,), (4, 6), (8, 2)))
def test_the_last_axis_holds_whole_groups(shape):
    with pytest.raises(ValueError, match=r"last axis of x must be a positive multiple of m=4"):
        n_m_mask(np.ones(shape), 2, 4)


def test_torch_in_eight_bits_is_sorted_as_well():
    x = torch.tensor([0.5, -3.0, 2.0, -0.25]).to(torch.float8_e4m3fn)
    assert magnitude_mask(x, 0.5).tolist() == [False, True, True, False]
    assert n_m_mask(x, 1, 2).tolist() == [False, True, True, False]
    assert kurtosis(x) == kurtosis(x.float())
