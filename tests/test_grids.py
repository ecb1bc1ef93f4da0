"""Grids: the integers counted one by one, midpoints, and what is refused."""

import numpy as np
import pytest

from pqlib import IntegerGrid, quantize

KINDS = ({}, {"narrow_range": True}, {"signed": False})


@pytest.mark.parametrize("kind", KINDS, ids=repr)
@pytest.mark.parametrize("n_bits", range(2, 17))
def test_integers_of_the_grid(n_bits, kind):
    """Eq 1 corrected: 2^b integers, -2^(b-1) .. 2^(b-1) - 1."""
    grid = IntegerGrid(n_bits, 0.5, **kind)
    if kind.get("signed", True):
        expected = np.arange(-(2 ** (n_bits - 1)), 2 ** (n_bits - 1))
    else:
        expected = np.arange(2**n_bits)
    if kind.get("narrow_range"):
        expected = expected[1:]
        assert grid.qmin == -grid.qmax
    assert (grid.qmin, grid.qmax) == (expected[0], expected[-1])
    np.testing.assert_array_equal(grid.levels(), 0.5 * expected)
    assert grid.levels().size == 2**n_bits - bool(kind.get("narrow_range"))


@pytest.mark.parametrize("zero_point", (-8, -3, 0, 7))
def test_zero_point_stands_for_zero(zero_point):
    grid = IntegerGrid(4, 0.1, zero_point=zero_point)
    assert grid.levels()[zero_point - grid.qmin] == 0
    np.testing.assert_allclose(grid.levels(), 0.1 * (np.arange(-8, 8) - zero_point), rtol=1e-15)


@pytest.mark.parametrize("kind", KINDS, ids=repr)
@pytest.mark.parametrize("scale", (1.0, 0.3, 1e-300, 1e290))
def test_edges_are_midpoints(scale, kind):
    grid = IntegerGrid(5, scale, zero_point=3, **kind)
    levels, edges = grid.levels(), grid.edges()
    assert edges.shape == (levels.size - 1,)
    np.testing.assert_allclose(edges, levels[:-1] + np.diff(levels) / 2, rtol=1e-13)
    step = 1e-9 * scale
    below, above = quantize(edges - step, grid), quantize(edges + step, grid)
    np.testing.assert_array_equal(below, np.arange(grid.qmin, grid.qmax))
    np.testing.assert_array_equal(above, below + 1)


def test_per_channel_grids_are_stacked():
    scales = np.array([0.1, 2.0, 30.0])
    grid = IntegerGrid(3, scales, zero_point=1)
    assert grid.granularity == "channel"
    assert IntegerGrid(3, 0.1).granularity == "tensor"
    assert grid.levels().shape == (3, 8)
    assert grid.edges().shape == (3, 7)
    for row, edge_row, scale in zip(grid.levels(), grid.edges(), scales, strict=True):
        one = IntegerGrid(3, float(scale), zero_point=1)
        np.testing.assert_array_equal(row, one.levels())
        np.testing.assert_array_equal(edge_row, one.edges())


def test_frozen():
    grid = IntegerGrid(4, 1.0)
    with pytest.raises(AttributeError):
        grid.n_bits = 5


@pytest.mark.parametrize(
    ("scale", "message"),
    (
        (np.array([1.0, 0.0]), r"scale must be a positive number or a 1-d array.*minimum 0"),
        (np.array([1.0, -2.0]), r"minimum -2"),
        (np.ones((2, 2)), r"shape \(2, 2\)"),
        (np.array([]), "scale must not be empty"),
        (np.array([1.0, np.nan]), "scale must be finite, got .*nan"),
    ),
)
def test_bad_scales(scale, message):
    with pytest.raises(ValueError, match=message):
        IntegerGrid(4, scale)


def test_narrow_unsigned_is_refused():
    with pytest.raises(ValueError, match="narrow_range=True needs signed=True"):
        IntegerGrid(4, 1.0, signed=False, narrow_range=True)


def test_zero_point_lies_on_the_grid():
    for kind, bad in (({}, 8), ({}, -9), ({"narrow_range": True}, -8), ({"signed": False}, -1)):
        with pytest.raises(ValueError, match=rf"zero_point must be a whole number.*got {bad}"):
            IntegerGrid(4, 1.0, zero_point=bad, **kind)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.int64])
def test_small_integers_of_numpy_do_not_wrap_round(kind):
    for n_bits, signed in ((8, True), (10, False), (16, True)):
        grid = IntegerGrid(kind(n_bits), 1.0, signed=np.bool_(signed), zero_point=kind(0))
        assert (grid.qmin, grid.qmax) == (-(2 ** (n_bits - 1)) * signed, 2 ** (n_bits - signed) - 1)
        assert grid.levels().size == 2**n_bits
        assert (type(grid.n_bits), type(grid.signed), type(grid.zero_point)) == (int, bool, int)
