"""Optimal scales: brute force for arrays, a dense scan and its stationarity for distributions."""

import math
from itertools import pairwise

import numpy as np
import pytest
import reference_values as ref
from hypothesis import given, settings
from hypothesis import strategies as st

from pqlib import (
    Empirical,
    IntegerGrid,
    Laplace,
    Normal,
    StudentT,
    Truncated,
    Uniform,
    expected_quantization_mse,
    fake_quantize,
    mse,
    optimal_scale,
    search_scale,
)
from pqlib.scale_search import ScaleSearch


def naive_optimum(w, n_bits, signed=True, narrow_range=False):
    """(scale, MSE) of the best of all assignments: between two breakpoints the integers are fixed.

    Each assignment is best at w.k / k.k; the error there is summed anew, weight by weight.
    """
    grid = IntegerGrid(n_bits, 1.0, signed=signed, narrow_range=narrow_range)
    w = np.asarray(w, dtype=float).ravel()
    breakpoints = np.unique(np.divide.outer(abs(w), np.arange(max(grid.qmax, -grid.qmin)) + 0.5))
    breakpoints = breakpoints[breakpoints > 0]
    if not breakpoints.size:
        return 1.0, 0.0
    between = (breakpoints[:-1] + breakpoints[1:]) / 2
    best = (math.nan, float(np.mean(w**2)))  # all zero, beyond the last breakpoint
    for scale in np.r_[breakpoints[0] / 2, between]:
        k = np.clip(np.rint(w / scale), grid.qmin, grid.qmax)
        if k.any():
            scale = (w @ k) / (k @ k)
            error = float(np.mean((w - scale * k) ** 2))
            best = min(best, (scale, error), key=lambda pair: pair[1])
    return best


def error_at(w, scale, n_bits, **kind):
    w = np.asarray(w, dtype=float)
    return mse(w, fake_quantize(w, IntegerGrid(n_bits, scale, **kind)))


def outlier(rng, n):
    return np.r_[rng.normal(size=n - 1), 1e8]


ARRAYS = {
    "normal": lambda rng: rng.normal(size=24),
    "laplace": lambda rng: rng.laplace(size=17) * 1e-3,
    "uniform": lambda rng: rng.uniform(-1, 1, 20),
    "heavy": lambda rng: rng.standard_t(1, 20),
    "outlier": lambda rng: outlier(rng, 20),
    "outlier above tiny": lambda rng: np.r_[rng.normal(size=15) * 1e-9, 1.0, -0.3],
    "ties": lambda rng: rng.choice([-2.0, -0.5, 0.0, 0.5, 1.0, 3.0], 20),
    "integers": lambda rng: rng.integers(-9, 10, 20).astype(float),
    "single": lambda rng: rng.normal(size=1),
    "pair": lambda rng: rng.normal(size=2),
    "negative": lambda rng: -rng.gamma(1.0, size=20),
    "positive": lambda rng: rng.gamma(1.0, size=20) + 2,
    "matrix": lambda rng: rng.normal(size=(4, 5)),
    "large units": lambda rng: rng.normal(size=10) * 1e30,
}


def assert_optimal(w, n_bits, **kind):
    _, naive = naive_optimum(w, n_bits, **kind)
    found = search_scale(w, n_bits, **kind)
    slack = 1e-9 * naive + 1e-15 * float(np.mean(np.square(w)))
    assert found.lower - slack <= naive
    assert naive - slack <= found.mse <= naive + slack
    assert found.mse - found.lower <= 1e-9 * found.mse + 3e-14 * float(np.mean(np.square(w)))
    direct = error_at(w, found.scale, n_bits, **kind)
    assert found.mse == pytest.approx(direct, rel=1e-12, abs=1e-16 * float(np.mean(w**2)))
    assert optimal_scale(w, n_bits, **kind) == found.scale


@pytest.mark.parametrize("n_bits", range(2, 9))
@pytest.mark.parametrize("name", ARRAYS)
def test_array_optimum_is_the_naive_enumeration(name, n_bits):
    for seed in range(4 if n_bits < 7 else 1):
        assert_optimal(ARRAYS[name](np.random.default_rng([seed, n_bits])), n_bits)


@pytest.mark.parametrize("n_bits", (2, 3, 5, 8))
@pytest.mark.parametrize("kind", ({"signed": False}, {"narrow_range": True}), ids=repr)
@pytest.mark.parametrize("name", ("normal", "outlier", "ties", "positive", "single"))
def test_other_grids_by_enumeration(name, kind, n_bits):
    w = ARRAYS[name](np.random.default_rng([7, n_bits]))
    w = abs(w) if name == "single" else w
    assert_optimal(w, n_bits, **kind)


@pytest.mark.filterwarnings("ignore:overflow")  # of the oracle, at a breakpoint of 1e-300
@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    w=st.lists(st.floats(-10, 10, allow_subnormal=False), min_size=1, max_size=12).filter(any),
    n_bits=st.integers(2, 4),
    signed=st.booleans(),
)
def test_any_array_by_enumeration(w, n_bits, signed):
    w = np.array(w) if signed else abs(np.array(w))
    assert_optimal(w, n_bits, signed=signed)


def test_no_scale_of_a_fine_scan_is_better():
    w = np.random.default_rng(3).standard_t(3, 300)
    for n_bits in (2, 4, 8):
        found = search_scale(w, n_bits)
        scan = np.geomspace(1e-4, 2 * abs(w).max(), 600)
        assert min(error_at(w, s, n_bits) for s in scan) >= found.mse * (1 - 1e-12)


def test_an_outlier_does_not_spoil_the_reported_error():
    """Prefix sums lose 11 % of the error here; it is recomputed."""
    w = outlier(np.random.default_rng(0), 2000)
    for n_bits in (2, 4, 8):
        found = search_scale(w, n_bits)
        assert found.mse == pytest.approx(error_at(w, found.scale, n_bits), rel=1e-12)
        assert 0.9 < found.mse < 1.1  # all but the outlier become zero


@pytest.mark.parametrize("n_bits", (2, 4, 8))
@pytest.mark.parametrize("draw", ("normal", "laplace", "standard_cauchy"))
def test_the_optimum_of_a_large_array_is_proven(draw, n_bits):
    w = getattr(np.random.default_rng(0), draw)(size=200_000)
    found = search_scale(w, n_bits)
    assert found.lower <= found.mse <= found.lower * (1 + 1e-8) + 1e-13 * np.mean(w**2)
    assert found.mse == pytest.approx(error_at(w, found.scale, n_bits), rel=1e-11)
    near = found.scale * np.r_[np.linspace(0.9, 1.1, 101), np.geomspace(0.02, 50, 101)]
    assert min(error_at(w, s, n_bits) for s in near) >= found.mse * (1 - 1e-9)
    if draw == "normal":
        assert found.scale == pytest.approx(optimal_scale(Normal(), n_bits), rel=0.02)


def test_sixteen_bits_report_their_gap():
    w = np.random.default_rng(0).normal(size=2000)
    found = search_scale(w, 16)
    assert 0 <= found.lower <= found.mse
    assert found.mse == pytest.approx(error_at(w, found.scale, 16), rel=1e-9)


# Defined corner cases


@pytest.mark.parametrize("value", (3.7, -0.2, 1e-300, -1e200, 5e-324))
@pytest.mark.parametrize("n_bits", (2, 4, 8))
def test_a_constant_is_exact(value, n_bits):
    w = np.full(5, value)
    scale = optimal_scale(w, n_bits)
    assert np.array_equal(fake_quantize(w, IntegerGrid(n_bits, scale)), w) or np.allclose(
        fake_quantize(w, IntegerGrid(n_bits, scale)), w, rtol=4e-16, atol=0
    )
    assert search_scale(w, n_bits).mse <= (4e-16 * min(abs(value), 1e150)) ** 2


def test_powers_of_two_are_exact():
    """A constant that is a level: no rounding at all, an infinite SNR."""
    for value in (1.0, -0.5, 1024.0):
        w = np.full(7, value)
        for n_bits in (2, 5):
            found = search_scale(w, n_bits)
            assert found.mse == 0
            assert np.array_equal(fake_quantize(w, IntegerGrid(n_bits, found.scale)), w)


def test_zeros_are_exact_at_any_scale():
    for w in (np.zeros(4), np.array([0.0, -0.0]), np.zeros((2, 3))):
        assert optimal_scale(w, 4) == 1.0
        assert search_scale(w, 4) == ScaleSearch(1.0, 0.0, 0.0, 1.0)


def test_negative_weights_on_an_unsigned_grid_become_zero():
    found = search_scale(np.array([-3.0, -4.0]), 4, signed=False)
    assert (found.scale, found.mse, found.lower) == (1.0, 12.5, 12.5)


@pytest.mark.parametrize("unit", (1e-300, 1e-160, 2.0**-30, 2.0**40, 1e150, 1e300))
def test_array_scale_is_equivariant(unit):
    w = np.random.default_rng(1).normal(size=100)
    for n_bits in (2, 4):
        assert optimal_scale(w * unit, n_bits) / unit == pytest.approx(
            optimal_scale(w, n_bits), rel=1e-9
        )


def test_scalar_matrix_and_view_inputs():
    w = np.random.default_rng(1).normal(size=(6, 8))
    best = optimal_scale(w, 4)
    assert optimal_scale(w.T, 4) == pytest.approx(best, rel=1e-14)
    assert optimal_scale(np.repeat(w, 2, axis=1)[:, ::2], 4) == best
    assert optimal_scale(w.tolist(), 4) == best
    assert optimal_scale(Empirical(w), 4) == pytest.approx(best, rel=1e-14)
    assert optimal_scale(w.astype(np.float32), 4) == pytest.approx(best, rel=1e-6)
    assert isinstance(best, float)
    one = optimal_scale(np.array(-3.0), 4)
    assert -3.0 / one == pytest.approx(round(-3.0 / one), rel=1e-15)


def test_per_channel_is_a_loop():
    w = np.random.default_rng(1).normal(size=(3, 4, 5)) * np.array([1.0, 10.0, 0.0, 0.1])[:, None]
    for axis in (0, 1, 2, -1):
        scales = optimal_scale(w, 3, granularity="channel", axis=axis)
        channels = [np.take(w, i, axis=axis) for i in range(w.shape[axis])]
        assert scales.tolist() == [optimal_scale(c, 3) for c in channels]
    assert optimal_scale(w, 3, granularity="channel", axis=1)[2] == 1.0
    with pytest.raises(ValueError, match=r"axis=3 .*shape \(3, 4, 5\)"):
        optimal_scale(w, 3, granularity="channel", axis=3)


# Distributions


@pytest.mark.parametrize(("narrow", "n_bits", "scale", "error", "_db"), ref.NORMAL_OPTIMA)
def test_optimum_of_the_normal(narrow, n_bits, scale, error, _db):
    found = optimal_scale(Normal(), n_bits, narrow_range=narrow)
    assert found == pytest.approx(scale, rel=1e-9)
    grid = IntegerGrid(n_bits, found, narrow_range=narrow)
    assert expected_quantization_mse(Normal(), grid) == pytest.approx(error, rel=1e-9)


SCANNED = {
    "normal": (Normal(), {}),
    "narrow": (Normal(), {"narrow_range": True}),
    "laplace": (Laplace(), {}),
    "uniform": (Uniform(-1.0, 1.0), {}),
    "uneven uniform": (Uniform(-0.3, 1.0), {}),
    "unsigned uniform": (Uniform(0.0, 1.0), {"signed": False}),
    "narrow uniform": (Uniform(0.9, 1.0), {}),
    "t": (StudentT(2.2), {}),
    "truncated t": (Truncated(StudentT(2.0), -72.9, 72.9), {}),
    "truncated heavy t": (Truncated(StudentT(0.5), -1e4, 1e4), {}),
    "shifted": (Normal(3.0, 1.0), {}),
    "needle": (Normal(3.0, 0.01), {}),
    "one-sided": (Truncated(Laplace(), 0.0, 10.0), {"signed": False}),
    "tail": (Truncated(Normal(), 4.0, 5.0), {"signed": False}),  # several local minima
    "signed tail": (Truncated(Normal(), 4.0, 5.0), {}),
    "negative tail": (Truncated(Normal(), -5.0, -4.0), {}),
}


@pytest.mark.parametrize("n_bits", (2, 3, 4, 6))
@pytest.mark.parametrize("name", SCANNED)
def test_no_scale_of_a_dense_scan_is_better(name, n_bits):
    dist, kind = SCANNED[name]
    best = optimal_scale(dist, n_bits, **kind)

    def error(scale):
        return expected_quantization_mse(dist, IntegerGrid(n_bits, float(scale), **kind))

    far = 2.5 * float(np.max(abs(dist.ppf(np.array([1e-7, 1 - 1e-7])))))
    scan = np.geomspace(far * 2.0 ** -(n_bits + 6), far, 1200)
    # 500 quantiles say which scales are worth an exact answer; of the others every 60th
    grid = IntegerGrid(n_bits, 1.0, **kind)
    w = dist.ppf((np.arange(500) + 0.5) / 500)
    k = np.clip(np.rint(w / scan[:, None]), grid.qmin, grid.qmax)
    promising = np.argsort(((w - scan[:, None] * k) ** 2).mean(axis=1))[:20]
    assert min(map(error, np.r_[scan[promising], scan[::60]])) >= error(best) * (1 - 1e-10)


def clipping(dist, up, down):
    """Expected squared distance to [down, up] of the weights beyond it."""
    lo, hi = dist.support
    above = dist.partial_moment(2, up, np.maximum(up, hi), np.minimum(up, hi))
    return above + dist.partial_moment(2, np.minimum(down, lo), down, np.maximum(down, lo))


CERTIFIED = {
    **{name: SCANNED[name] for name in ("normal", "laplace", "uneven uniform", "truncated t")},
    **{name: SCANNED[name] for name in ("truncated heavy t", "shifted", "one-sided", "tail")},
    "unsigned t": (Truncated(StudentT(2.0), -1000.0, 1000.0), {"signed": False}),
    "off center": (Truncated(Normal(), -1.0, 2.0), {}),
}


@pytest.mark.parametrize("n_bits", (2, 3, 4))
@pytest.mark.parametrize("name", CERTIFIED)
def test_branch_and_bound_certifies_the_optimum(name, n_bits):
    """With g the root of the error, g(s) >= (g(l) + g(r) - (r - l) sqrt(E k(l)^2)) / 2 on [l, r]:
    at scale s the integers of l miss those of s by at most (s - l) k(l) in the mean square."""
    dist, kind = CERTIFIED[name]
    grid = IntegerGrid(n_bits, optimal_scale(dist, n_bits, **kind), **kind)
    target = expected_quantization_mse(dist, grid) * (1 - 1e-3)
    k = np.arange(grid.qmin, grid.qmax + 1)

    def roots(scale):
        scaled = IntegerGrid(n_bits, scale, **kind)
        edges = np.r_[-np.inf, scaled.edges(), np.inf]
        mass = dist.partial_moment(0, edges[:-1], edges[1:])
        return np.sqrt(expected_quantization_mse(dist, scaled)), np.sqrt(mass @ k**2)

    # below low, clipping alone costs more; above high, zeroing
    low, high = grid.scale / 256, grid.scale * 256
    up, down = grid.qmax * low, grid.qmin * low
    assert clipping(dist, up, down) > target
    zeroed = dist.partial_moment(2, max(-high / 2, grid.qmin * high), high / 2)
    assert zeroed + clipping(dist, 1e30, grid.qmin * high) > target
    scales = np.geomspace(low, high, 65).tolist()
    known = [(s, *roots(s)) for s in scales]
    open_ = list(pairwise(known))
    n_closed = 0
    while open_:
        left, right = open_.pop()
        bound = (left[1] + right[1] - (right[0] - left[0]) * left[2]) / 2
        if max(bound, 0.0) ** 2 >= target:
            n_closed += 1
            continue
        assert left[1] ** 2 >= target
        middle = (left[0] + right[0]) / 2
        assert right[0] - left[0] > 1e-9 * left[0]
        middle = (middle, *roots(middle))
        open_ += [(left, middle), (middle, right)]
    assert n_closed >= 64


FAR = {
    "tail": (Truncated(Normal(), 4.0, 5.0), {"signed": False}),
    "narrow uniform": (Uniform(0.9, 1.0), {"signed": False}),
    "off center": (Truncated(Normal(), -1.0, 2.0), {}),
}


@pytest.mark.parametrize("n_bits", (10, 12, 14, 16))
@pytest.mark.parametrize("name", FAR)
def test_far_mass_on_many_levels(name, n_bits):
    dist, kind = FAR[name]
    best = IntegerGrid(n_bits, optimal_scale(dist, n_bits, **kind), **kind)
    mse = expected_quantization_mse(dist, best)
    end, wide = dist.support[1], 60 if n_bits <= 12 else 12
    near = 1 + np.linspace(-8, 2, wide) / best.qmax
    scan = np.r_[0.98, near, 1.02] * end / (best.qmax + 0.5)
    errors = [expected_quantization_mse(dist, IntegerGrid(n_bits, s, **kind)) for s in scan]
    assert min(errors) >= mse * (1 - 1e-9)
    # no scale errs by less than clipping and s^2 / 12, but for the density's rise and fall in cells
    peak = float(dist.pdf(dist.mode))

    def bound(s):
        up, down = best.qmax * s, best.qmin * s
        rounding = s**2 / 12 * dist.partial_moment(0, down, up) - s**3 * peak / (18 * np.sqrt(3))
        return rounding + clipping(dist, up, down)

    assert all(errors >= bound(scan) * (1 - 1e-9))
    assert mse <= bound(best.scale * np.geomspace(0.1, 1.5, 4001)).min() * (1 + best.scale * peak)


@pytest.mark.parametrize(
    ("dist", "n_bits"),
    [
        (Truncated(StudentT(2.0), -1e-5, 1e-5), 12),
        (Truncated(Normal(), -1e-3, 1e-3), 16),
        (Normal(1e8, 1.0), 8),
    ],
    ids=repr,
)
def test_where_rounding_hides_the_slope_the_error_by_cells_decides(dist, n_bits):
    best = optimal_scale(dist, n_bits)
    error = expected_quantization_mse(dist, IntegerGrid(n_bits, best))
    if dist == Normal(1e8, 1.0):  # all the mass at one level
        assert error == pytest.approx(1.0, rel=1e-6)
    else:  # flat, as a uniform
        flat = optimal_scale(Uniform(-1.0, 1.0), n_bits) * dist.support[1]
        assert best == pytest.approx(flat, rel=1e-6)


@pytest.mark.parametrize("unit", (1e200, 1e-200))
def test_units_beyond_float64_are_named(unit):
    for dist in (Normal(0.0, unit), Laplace(unit), Uniform(-unit, unit)):
        with pytest.raises(ValueError, match=r"flows; use a (larger|smaller) unit"):
            optimal_scale(dist, 4)


def slope(dist, grid):
    """Half the derivative of the error over the scale: minus the sum of k M_1(cell; level)."""
    levels, edges = grid.levels(), grid.edges()
    lo, hi = dist.support
    knots = np.r_[min(lo, edges[0]), edges, max(hi, edges[-1])]
    moments = dist.partial_moment(1, knots[:-1], knots[1:], about=levels)
    return -float(np.sum(moments * np.arange(grid.qmin, grid.qmax + 1)))


@pytest.mark.parametrize(
    ("dist", "n_bits"),
    [
        *((Normal(), b) for b in (2, 4, 8, 9, 12)),
        *((Laplace(), b) for b in (2, 4, 8, 9, 12)),
        *((Truncated(StudentT(2.0), -72.9, 72.9), b) for b in (2, 4, 8, 9, 12)),
        *((Normal(0.4, 1.0), b) for b in (2, 4, 8)),
        (Truncated(StudentT(2.0), -72.9, 72.9), 16),
        pytest.param(Normal(), 16, marks=pytest.mark.slow),
        pytest.param(Laplace(), 16, marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_the_slope_changes_sign_at_the_optimum(dist, n_bits):
    best = optimal_scale(dist, n_bits)
    below, above = (slope(dist, IntegerGrid(n_bits, best * f)) for f in (1 - 1e-9, 1 + 1e-9))
    assert below < 0 < above


@pytest.mark.parametrize("unit", (1e-60, 1e-8, 1e3))
@pytest.mark.parametrize("n_bits", (2, 4, 8, 12))
def test_distribution_scale_is_equivariant(unit, n_bits):
    pairs = [
        (Normal(), Normal(0.0, unit)),
        (Laplace(), Laplace(unit)),
        (Truncated(Normal(), -2.0, 2.0), Truncated(Normal(0.0, unit), -2 * unit, 2 * unit)),
    ]
    if n_bits <= 4:  # asymmetric ones are scanned finely
        pairs += [
            (Normal(0.5, 1.0), Normal(0.5 * unit, unit)),
            (Uniform(-0.3, 1.0), Uniform(-0.3 * unit, unit)),
            (Truncated(Normal(), -1.0, 2.0), Truncated(Normal(0.0, unit), -unit, 2 * unit)),
        ]
    for dist, other in pairs:
        best = optimal_scale(dist, n_bits)
        assert optimal_scale(other, n_bits) / unit == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("n_bits", range(2, 7))
def test_many_samples_lead_to_the_scale_of_their_distribution(n_bits):
    dist = Uniform(-1.0, 1.0)
    n = 60_000 // 2 ** (n_bits - 1)
    w = dist.ppf((np.arange(n) + 0.5) / n)
    grid = IntegerGrid(n_bits, optimal_scale(w, n_bits))
    best = expected_quantization_mse(dist, IntegerGrid(n_bits, optimal_scale(dist, n_bits)))
    assert expected_quantization_mse(dist, grid) == pytest.approx(best, rel=0.05)


def test_a_truncated_empirical_is_an_array():
    w = np.random.default_rng(0).normal(size=50)
    kept = w[(w >= -1) & (w <= 1.5)]
    for n_bits in (2, 3, 4):
        found = optimal_scale(Truncated(Empirical(w), -1.0, 1.5), n_bits)
        assert error_at(kept, found, n_bits) <= search_scale(kept, n_bits).mse * (1 + 1e-9)


def test_a_distribution_has_no_channels():
    for dist in (Normal(), Empirical([1.0, 2.0])):
        with pytest.raises(ValueError, match="granularity='channel' needs an array"):
            optimal_scale(dist, 4, granularity="channel")


def test_no_mass_to_represent():
    """Unsigned levels and negative weights only: every scale is as good, as for an array."""
    assert optimal_scale(Uniform(-2.0, -1.0), 4, signed=False) == 1.0


def test_no_second_moment_no_scale():
    with pytest.raises(ValueError, match=r"StudentT\(nu=2\) has no moment of order 2.*truncate it"):
        optimal_scale(StudentT(2.0), 4)
