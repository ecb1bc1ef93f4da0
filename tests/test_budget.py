"""The budget: what costs as much as b bits, counted weight by weight."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pqlib import matched_sparsity, n_zeros, storage_bits


@pytest.mark.parametrize("n_bits", range(1, 17))
def test_matched_sparsity_costs_the_same(n_bits):
    sparsity = matched_sparsity(n_bits)
    assert sparsity == 1 - n_bits / 16
    n = 1600
    assert storage_bits(n, sparsity=sparsity) == n * n_bits
    if n_bits >= 2:
        assert storage_bits(n, sparsity=sparsity) == storage_bits(n, n_bits=n_bits)


def test_other_references():
    assert matched_sparsity(4, reference_bits=32) == 0.875
    assert matched_sparsity(2.5) == 1 - 2.5 / 16
    assert storage_bits(10, sparsity=0.5, reference_bits=32) == 160


@pytest.mark.parametrize("n", (1, 2, 9, 10, 36, 100, 999, 10**6, 10**9))
def test_zeros_are_floored_exactly(n):
    """Sparsities whose product is whole in decimals but not in floating point stay whole."""
    for percent in (0, 10, 29, 57, 58, 70, 75, 99):
        assert n_zeros(n, percent / 100) == n * percent // 100
    for n_bits in range(1, 17):
        assert n_zeros(n, matched_sparsity(n_bits)) == n * (16 - n_bits) // 16


def test_nine_weights_at_three_bits():
    assert n_zeros(9, matched_sparsity(3)) == 7  # 7.3125: depthwise filters, Table 3


@settings(derandomize=True)
@given(n=st.integers(1, 10**6), sparsity=st.floats(0, 1, exclude_max=True))
def test_zeros_never_exceed_the_share_by_more_than_the_slack(n, sparsity):
    zeros = n_zeros(n, sparsity)
    exact = n * Fraction(sparsity)
    assert 0 <= zeros <= n
    assert exact - 1 < zeros <= exact + Fraction(2, 10**9)


@pytest.mark.parametrize(("sparsity", "of_kept"), ((0.5, 0.125), (0.75, 0.25), (0.875, 0.5)))
def test_mask_overhead_of_section_6(sparsity, of_kept):
    """6.25 % of the dense FP16 size is 12.5, 25, 50 % of what is kept."""
    n = 1024
    plain, masked = (storage_bits(n, sparsity=sparsity, mask=m) for m in (False, True))
    assert (masked - plain) / (16 * n) == 0.0625
    assert (masked - plain) / plain == of_kept


def test_either_bits_or_sparsity():
    for both in ({}, {"n_bits": 4, "sparsity": 0.5}):
        with pytest.raises(ValueError, match=r"exactly one of n_bits .* and sparsity"):
            storage_bits(10, **both)
    with pytest.raises(ValueError, match="mask=True goes with sparsity"):
        storage_bits(10, n_bits=4, mask=True)
