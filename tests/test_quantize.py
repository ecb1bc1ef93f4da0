"""Quantization: the whole grid, properties, torch's fake quantization, numpy against torch."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pqlib import IntegerGrid, dequantize, fake_quantize, quantize

torch = pytest.importorskip("torch", reason="the oracle: pip install pqlib[torch]")

KINDS = (
    {},
    {"narrow_range": True},
    {"signed": False},
    {"signed": False, "zero_point": 5},
    {"zero_point": -3},
)
grids = st.builds(
    lambda n_bits, scale, kind: IntegerGrid(max(n_bits, 4), scale, **kind),
    st.integers(2, 10),
    st.floats(1e-3, 1e3),
    st.sampled_from(KINDS),
)
arrays = hnp.arrays(
    np.float64, hnp.array_shapes(max_dims=3, max_side=6), elements=st.floats(-1e4, 1e4)
)


@pytest.mark.parametrize("kind", KINDS, ids=repr)
@pytest.mark.parametrize("n_bits", (4, 5, 8, 12, 16))
@pytest.mark.parametrize("scale", (1.0, 0.1, 3e-5, 7e11))
def test_every_level_is_a_fixed_point(n_bits, scale, kind):
    grid = IntegerGrid(n_bits, scale, **kind)
    integers = np.arange(grid.qmin, grid.qmax + 1)
    np.testing.assert_array_equal(fake_quantize(grid.levels(), grid), grid.levels())
    np.testing.assert_array_equal(quantize(grid.levels(), grid), integers)
    np.testing.assert_array_equal(dequantize(integers, grid), grid.levels())


@settings(derandomize=True, deadline=None)
@given(x=arrays, grid=grids)
def test_nearest_level_by_brute_force(x, grid):
    levels = grid.levels()
    distance = abs(np.subtract.outer(x, levels))
    nearest = distance.min(axis=-1)
    slack = 1e-12 * (abs(x) + grid.scale)
    q = fake_quantize(x, grid)
    assert np.all(abs(q - x) <= nearest + slack)
    assert np.isin(q, levels).all()
    inside = (x >= levels[0]) & (x <= levels[-1])
    assert np.all(abs(q - x)[inside] <= grid.scale / 2 + slack[inside])
    np.testing.assert_array_equal(q[x < levels[0]], levels[0])
    np.testing.assert_array_equal(q[x > levels[-1]], levels[-1])


@settings(derandomize=True, deadline=None)
@given(x=arrays, grid=grids)
def test_idempotent_and_monotone(x, grid):
    q = fake_quantize(x, grid)
    np.testing.assert_array_equal(fake_quantize(q, grid), q)
    np.testing.assert_array_equal(dequantize(quantize(x, grid), grid), q)
    order = np.argsort(x, axis=None)
    assert np.all(np.diff(q.ravel()[order]) >= 0)


@settings(derandomize=True, deadline=None)
@given(x=arrays, grid=grids, power=st.integers(-40, 40))
def test_equivariant_under_powers_of_two(x, grid, power):
    assume(not np.any((x != 0) & (abs(x) < 1e-280)))
    scaled = IntegerGrid(
        grid.n_bits, grid.scale * 2.0**power, grid.signed, grid.narrow_range, grid.zero_point
    )
    np.testing.assert_array_equal(
        fake_quantize(x * 2.0**power, scaled), fake_quantize(x, grid) * 2.0**power
    )


def test_ties_go_to_the_even_integer():
    grid = IntegerGrid(4, 2.0)
    x = np.array([-5.0, -3.0, -1.0, 1.0, 3.0, 5.0])
    assert quantize(x, grid).tolist() == [-2, -2, 0, 0, 2, 2]
    assert fake_quantize(x, grid).tolist() == [-4, -4, 0, 0, 4, 4]


# torch as oracle


@pytest.mark.parametrize("kind", KINDS, ids=repr)
@pytest.mark.parametrize("scale", (0.25, 0.0371))
def test_torchs_per_tensor_fake_quantization(kind, scale):
    grid = IntegerGrid(8, scale, **kind)
    x = np.random.default_rng(0).normal(size=4000).astype(np.float32) * 4
    # torch multiplies by the reciprocal: next to a tie it may round the other way
    tie = abs(x / scale % 1 - 0.5) < 1e-4
    expected = torch.fake_quantize_per_tensor_affine(
        torch.from_numpy(x), scale, grid.zero_point, grid.qmin, grid.qmax
    ).numpy()
    assert tie.mean() < 0.01
    np.testing.assert_array_equal(fake_quantize(x, grid)[~tie], expected[~tie])


@pytest.mark.parametrize("axis", (0, 1, -1))
def test_torchs_per_channel_fake_quantization(axis):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 6, 6)).astype(np.float32) * 3
    scales = 2.0 ** rng.integers(-6, 1, 6)
    grid = IntegerGrid(5, scales, signed=False, zero_point=9)
    expected = torch.fake_quantize_per_channel_affine(
        torch.from_numpy(x),
        torch.from_numpy(scales.astype(np.float32)),
        torch.full((6,), 9, dtype=torch.int32),
        axis % 3,
        grid.qmin,
        grid.qmax,
    ).numpy()
    np.testing.assert_array_equal(fake_quantize(x, grid, axis=axis), expected)


@settings(derandomize=True, deadline=None)
@given(
    grid=grids,
    x=hnp.arrays(np.float32, (7, 3), elements=st.floats(-1e4, 1e4, width=32)),
    double=st.booleans(),
)
def test_numpy_and_torch_agree_bit_for_bit(grid, x, double):
    x = x.astype(np.float64) * 1.1 if double else x
    t = torch.from_numpy(x)
    for function in (quantize, fake_quantize):
        ours, theirs = function(x, grid), function(t, grid)
        assert isinstance(theirs, torch.Tensor)
        assert ours.dtype == theirs.numpy().dtype
        np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("dtype", (np.float16, np.float32, np.float64))
def test_numpy_and_torch_agree_per_channel(dtype):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(5, 4)).astype(dtype)
    grid = IntegerGrid(6, rng.uniform(0.01, 0.2, 4))
    ours = fake_quantize(x, grid, axis=1)
    theirs = fake_quantize(torch.from_numpy(x), grid, axis=1)
    assert ours.dtype == dtype
    np.testing.assert_array_equal(ours, theirs.numpy())
    columns = [fake_quantize(x[:, i], IntegerGrid(6, float(grid.scale[i]))) for i in range(4)]
    np.testing.assert_array_equal(ours, np.stack(columns, axis=1))


# dtypes


@pytest.mark.parametrize("n_bits", (4, 11, 13, 16))
def test_half_precision_stays_on_the_grid(n_bits):
    """Half precision does not hold 2^15 - 1: the integer must not leave the grid."""
    grid = IntegerGrid(n_bits, 1.0)
    x = np.array([60000, -60000, 3.2, 0.5, -0.5], dtype=np.float16)
    integers = quantize(x, grid)
    assert integers.dtype == np.int32
    assert integers.tolist() == [min(grid.qmax, 60000), max(grid.qmin, -60000), 3, 0, 0]
    assert fake_quantize(x, grid).dtype == np.float16
    theirs = torch.from_numpy(x)
    assert quantize(theirs, grid).tolist() == integers.tolist()
    assert fake_quantize(theirs, grid).dtype == torch.float16
    assert quantize(theirs.to(torch.bfloat16), grid).max() <= grid.qmax
    assert fake_quantize(theirs.to(torch.bfloat16), grid).dtype == torch.bfloat16


def test_half_precision_subnormals_and_tiny_scales():
    tiny = float(np.finfo(np.float16).smallest_subnormal)
    x = np.array([0, 1, 2, 5, -3], dtype=np.float16) * np.float16(tiny)
    for scale in (tiny, tiny / 3, tiny / 7):
        q = fake_quantize(x, IntegerGrid(8, scale))
        assert q.dtype == np.float16
        np.testing.assert_array_equal(q, x)
    np.testing.assert_array_equal(fake_quantize(x, IntegerGrid(8, 1e6)), np.zeros(5))


def test_a_scale_that_the_dtype_cannot_hold():
    for scale in (1e-60, 1e60):
        grid = IntegerGrid(4, scale)
        for x in (np.ones(3, np.float32), np.ones(3, np.float16), torch.ones(3)):
            with pytest.raises(ValueError, match=r"scale is out of the range.*float64"):
                fake_quantize(x, grid)
        assert np.isfinite(fake_quantize(np.ones(3), grid)).all()


@pytest.mark.filterwarnings("ignore:overflow")
def test_an_outlier_over_a_tiny_scale_is_clipped():
    grid = IntegerGrid(4, 1e-12)
    for x in (np.array([1e300, -1e300]), np.array([3e38, -3e38], np.float32)):
        assert quantize(x, grid).tolist() == [7, -8]


@pytest.mark.parametrize("unit", (1e-300, 1e300))
def test_extreme_units(unit):
    x = np.random.default_rng(0).normal(size=50)
    q = fake_quantize(x * unit, IntegerGrid(4, 0.3 * unit))
    np.testing.assert_allclose(q / unit, fake_quantize(x, IntegerGrid(4, 0.3)), rtol=1e-14)


def test_integers_are_weights_too():
    grid = IntegerGrid(4, 0.3)
    expected = fake_quantize(np.array([1.0, 2.0, -1.0]), grid)
    for x in (np.array([1, 2, -1], np.int8), [1, 2, -1]):
        q = fake_quantize(x, grid)
        assert q.dtype == np.float64
        np.testing.assert_array_equal(q, expected)
    q = fake_quantize(torch.tensor([1, 2, -1], dtype=torch.int8), grid)
    assert q.is_floating_point()
    np.testing.assert_array_equal(q.numpy(), expected)


@pytest.mark.parametrize("dtype", (np.uint8, np.int8, np.int64, np.float32))
def test_narrow_integers_do_not_wrap_round(dtype):
    signed = np.dtype(dtype).kind != "u"
    grid = IntegerGrid(8, 0.5, signed=signed, zero_point=100)
    integers = np.array([grid.qmin, 100, grid.qmax]).astype(dtype)
    expected = [(grid.qmin - 100) / 2, 0, (grid.qmax - 100) / 2]
    assert dequantize(integers, grid).tolist() == expected
    assert dequantize(torch.from_numpy(integers), grid).tolist() == expected


def test_dequantize_refuses_what_is_no_integer_of_the_grid():
    grid = IntegerGrid(4, 0.5)
    for bad in ([8], [-9], [1.5], [np.nan], [np.inf]):
        for kind in (np.array, torch.tensor):
            with pytest.raises(ValueError, match=r"whole numbers in -8\.\.7|finite"):
                dequantize(kind(bad), grid)


# shapes


def test_negative_zero_scalars_views_and_empties():
    grid = IntegerGrid(4, 0.5)
    assert quantize(np.array([-0.0, 0.0]), grid).tolist() == [0, 0]
    assert fake_quantize(np.array([-0.0]), grid) == 0
    for x in (0.7, np.array(0.7), np.float64(0.7)):
        assert float(fake_quantize(x, grid)) == 0.5
        assert int(quantize(x, grid)) == 1
    assert fake_quantize(torch.tensor(0.7), grid).shape == ()
    for empty in (np.empty((0, 3)), torch.empty(0)):
        with pytest.raises(ValueError, match="x must not be empty, got shape"):
            fake_quantize(empty, grid)
    x = np.random.default_rng(0).normal(size=(6, 8))
    for view in (x.T, x[::2, ::-1], x[1:3, 1]):
        np.testing.assert_array_equal(fake_quantize(view, grid), fake_quantize(view.copy(), grid))
        t = torch.from_numpy(x).T
    np.testing.assert_array_equal(fake_quantize(t, grid).numpy(), fake_quantize(x.T, grid))


def test_input_is_left_alone():
    x = np.array([0.3, -9.0])
    fake_quantize(x, IntegerGrid(4, 0.5))
    assert x.tolist() == [0.3, -9.0]


def test_as_many_scales_as_channels():
    grid = IntegerGrid(4, np.array([1.0, 2.0]))
    for x, axis in ((np.ones((3, 2)), 0), (np.ones(3), 0), (np.ones((2, 2)), 2)):
        with pytest.raises(ValueError, match=rf"2 scales but x of shape .*axis={axis}"):
            fake_quantize(x, grid, axis=axis)
        with pytest.raises(ValueError, match=r"2 scales"):
            quantize(torch.from_numpy(x), grid, axis=axis)


@pytest.mark.parametrize(
    ("dtype", "scale"), [(np.float16, 40000.0), (np.float32, 2e38), (np.float64, 1e308)]
)
def test_a_level_that_the_dtype_cannot_hold_is_refused(dtype, scale):
    x = np.array([0.9 * np.finfo(dtype).max, -np.finfo(dtype).max], dtype)
    for weights in (x, torch.as_tensor(x)):
        with pytest.raises(ValueError, match=r"levels beyond the range of .*float"):
            fake_quantize(weights, IntegerGrid(2, scale))


def test_dequantize_takes_the_axis_of_the_channels():
    integers, scale = np.array([[1, -2, 3], [0, 1, -1]]), np.array([0.5, 1.0, 2.0])
    found = dequantize(integers, IntegerGrid(4, scale), axis=1)
    assert found.tolist() == (integers * scale).tolist()
    assert torch.equal(
        dequantize(torch.as_tensor(integers), IntegerGrid(4, scale), axis=1),
        torch.as_tensor(found, dtype=torch.float32),
    )
