"""Expected errors: references, our own quadrature, the paper's formulas, Monte Carlo, samples."""

import math
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import reference_values as ref
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

import pqlib
from pqlib import (
    Empirical,
    IntegerGrid,
    Laplace,
    Normal,
    StudentT,
    Truncated,
    Uniform,
    expected_pruning_mse,
    expected_quantization_mse,
    expected_sqnr_db,
    matched_sparsity,
    monte_carlo_pruning_mse,
    monte_carlo_quantization_mse,
    optimal_scale,
    quantization_error_parts,
)

NUS = (0.5, 0.9, 1 - 1e-9, 1.0, 1 + 1e-7, 1.5, 2 - 1e-9, 2.0, 2 + 1e-12, 2.5, 3.0, 4.0, 30.0, 1e3)
DISTRIBUTIONS = {
    "normal": Normal(),
    "laplace": Laplace(),
    "uniform": Uniform(-1.0, 1.0),
    "truncated_t_5": Truncated(StudentT(2.0), -5.0, 5.0),
    "truncated_t_20": Truncated(StudentT(2.0), -20.0, 20.0),
    "truncated_t_100": Truncated(StudentT(2.0), -100.0, 100.0),
}
FAMILIES = (
    Normal(),
    Normal(0.3, 2.0),
    Laplace(0.7),
    Uniform(-0.4, 1.5),
    StudentT(2.5),
    StudentT(6.0),
    Truncated(Normal(), -1.0, 2.5),
    Truncated(Laplace(), -0.5, 4.0),
    Truncated(StudentT(1.0), -3.0, 20.0),
)


# The oracle: Gauss-Legendre quadrature of the density, in cells and in pieces of the density


def kernel(dist, real=float):
    """Density up to a factor, and marks between which it is smooth; nothing of pqlib is called."""
    match dist:
        case Normal(loc, scale):
            marks = loc + scale * np.linspace(-40, 40, 161)
            return lambda w: np.exp(-(((w - real(loc)) / real(scale)) ** 2) / 2), marks
        case Laplace(scale):
            # a mark every 2 scales, dense where the mass is
            marks = scale * np.r_[-np.arange(100, 0, -2.0), np.arange(0, 101, 2.0)]
            return lambda w: np.exp(-abs(w) / real(scale)), marks
        case Uniform(a, b):
            return lambda w: np.ones_like(w), np.array([a, b])
        case StudentT(nu):  # eq 17, its sign corrected
            marks = math.sqrt(nu) * np.sinh(np.linspace(-57, 57, 457))
            return lambda w: (1 + w * w / real(nu)) ** (-(real(nu) + 1) / 2), marks
        case Truncated(inner, a, b):  # eq 16, the normalizer left to the caller
            f, marks = kernel(inner, real)
            return f, np.r_[a, marks[(marks > a) & (marks < b)], b]
    raise AssertionError(dist)


def gauss_legendre(f, knots, n_nodes):
    """The integral of f over each interval between knots, in their precision."""
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    half = np.diff(knots)[:, None] / 2
    return ((half * f(knots[:-1, None] + half * (1 + nodes))) * weights).sum(axis=1)


def naive_quantization_mse(dist, grid, real=float, n_nodes=20):
    """Eq 2: the squared distance to the nearest level times the density, integrated."""
    f, marks = kernel(dist, real)
    levels, edges = grid.levels(), grid.edges()
    inside = edges[(edges > marks[0]) & (edges < marks[-1])]
    knots = np.unique(np.r_[marks, inside]).astype(real)
    middle = (knots[:-1] + knots[1:]) / 2
    nearest = levels[np.searchsorted(edges, middle)][:, None].astype(real)
    mass = gauss_legendre(f, knots, n_nodes).sum()
    return float(gauss_legendre(lambda w: (w - nearest) ** 2 * f(w), knots, n_nodes).sum() / mass)


def grid_for(dist, n_bits, fill=0.8, **kind):
    """A grid whose largest level lies where the mass ends: part rounding, part clipping."""
    reach = float(np.max(abs(dist.ppf(np.array([0.001, 0.999])))))
    return IntegerGrid(n_bits, fill * reach / 2 ** (n_bits - 1), **kind)


def close(value, expected, rel=1e-9):
    return value == pytest.approx(expected, rel=rel, abs=0)


# References


@pytest.mark.parametrize(("name", "n_bits", "scale", "mse"), ref.QUANTIZATION)
def test_quantization_meets_the_reference(name, n_bits, scale, mse):
    dist, grid = DISTRIBUTIONS[name], IntegerGrid(n_bits, scale)
    assert close(expected_quantization_mse(dist, grid), mse)
    assert close(expected_quantization_mse(dist, grid, "quadrature"), mse)
    assert close(naive_quantization_mse(dist, grid), mse, rel=1e-13)


@pytest.mark.parametrize(("name", "sparsity", "threshold", "mse"), ref.PRUNING)
def test_pruning_meets_the_reference(name, sparsity, threshold, mse):
    dist = DISTRIBUTIONS[name]
    assert close(dist.magnitude_quantile(sparsity), threshold, rel=1e-12)
    assert close(expected_pruning_mse(dist, sparsity), mse)
    assert close(expected_pruning_mse(dist, sparsity, "quadrature"), mse)


@pytest.mark.parametrize(("n_bits", "sparsity", "threshold", "mse", "snr_db"), ref.NORMAL_PRUNING)
def test_pruning_of_the_normal_at_every_budget(n_bits, sparsity, threshold, mse, snr_db):
    assert matched_sparsity(n_bits) == sparsity
    assert close(Normal().magnitude_quantile(sparsity), threshold, rel=1e-12)
    assert close(expected_pruning_mse(Normal(), sparsity), mse)
    assert close(expected_sqnr_db(Normal(), mse), snr_db)


@pytest.mark.parametrize("row", ref.TRUNCATED_T)
def test_truncated_t_meets_the_reference(row):
    _, r, n_bits, scale, quant_mse, quant_db, threshold, prune_mse, prune_db = row
    dist = Truncated(StudentT(2.0), -r, r)
    best = optimal_scale(dist, n_bits)
    assert close(best, scale, rel=1e-6)  # the reference's search stopped in a flat valley
    mse = expected_quantization_mse(dist, IntegerGrid(n_bits, best))
    assert mse <= expected_quantization_mse(dist, IntegerGrid(n_bits, scale)) * (1 + 1e-13)
    assert close(mse, quant_mse)
    assert close(expected_sqnr_db(dist, mse), quant_db)
    sparsity = matched_sparsity(n_bits)
    assert close(dist.magnitude_quantile(sparsity), threshold)
    mse = expected_pruning_mse(dist, sparsity)
    assert close(mse, prune_mse)
    assert close(expected_sqnr_db(dist, mse), prune_db)


@pytest.mark.parametrize(("n_bits", "r", "kurtosis"), ref.CROSSINGS)
def test_pruning_starts_to_win_at_the_reference_kurtosis(n_bits, r, kurtosis):
    def lead(r):
        dist = Truncated(StudentT(2.0), -r, r)
        mse = expected_quantization_mse(dist, IntegerGrid(n_bits, optimal_scale(dist, n_bits)))
        return math.log(mse / expected_pruning_mse(dist, matched_sparsity(n_bits)))

    crossing = optimize.brentq(lead, r / 2, r * 2, xtol=1e-12, rtol=1e-12)
    assert close(crossing, r)
    found = Truncated(StudentT(2.0), -crossing, crossing).kurtosis()
    assert close(found, kurtosis)
    printed = ref.PRINTED_CROSSINGS[n_bits]
    assert f"{found:.{len(printed.partition('.')[2])}f}" == printed


def as_printed(value, text):
    return f"{value:.{len(text.partition('.')[2])}f}" == text


@pytest.mark.parametrize("n_bits", ref.PRINTED_NORMAL)
def test_printed_figures_of_the_normal(n_bits):
    scale, quant_db, prune_db = ref.PRINTED_NORMAL[n_bits]
    best = optimal_scale(Normal(), n_bits)
    assert as_printed(best, scale)
    mse = expected_quantization_mse(Normal(), IntegerGrid(n_bits, best))
    assert as_printed(expected_sqnr_db(Normal(), mse), quant_db)
    mse = expected_pruning_mse(Normal(), matched_sparsity(n_bits))
    assert as_printed(expected_sqnr_db(Normal(), mse), prune_db)


def test_printed_int4():
    for narrow, key in ((False, "signed"), (True, "narrow")):
        grid = IntegerGrid(4, optimal_scale(Normal(), 4, narrow_range=narrow), narrow_range=narrow)
        db = expected_sqnr_db(Normal(), expected_quantization_mse(Normal(), grid))
        assert as_printed(db, ref.PRINTED_INT4[key])
    db = expected_sqnr_db(Normal(), expected_pruning_mse(Normal(), 0.75))
    assert as_printed(db, ref.PRINTED_INT4["pruned"])


@pytest.mark.parametrize("kurtosis", ref.PRINTED_TRUNCATED_T)
def test_printed_figures_of_the_truncated_t(kurtosis):
    r, *pairs = ref.PRINTED_TRUNCATED_T[kurtosis]
    dist = Truncated(StudentT(2.0), -float(r), float(r))
    assert dist.kurtosis() == pytest.approx(kurtosis, rel=1e-6)  # r is printed to six decimals
    for n_bits, (quant_db, prune_db) in zip((2, 3, 4), pairs, strict=True):
        grid = IntegerGrid(n_bits, optimal_scale(dist, n_bits))
        assert as_printed(expected_sqnr_db(dist, expected_quantization_mse(dist, grid)), quant_db)
        mse = expected_pruning_mse(dist, matched_sparsity(n_bits))
        assert as_printed(expected_sqnr_db(dist, mse), prune_db)


# Closed form against the oracle


@pytest.mark.parametrize("n_bits", range(2, 17))
@pytest.mark.parametrize("dist", FAMILIES, ids=repr)
def test_closed_form_meets_gauss_legendre(dist, n_bits):
    grid = grid_for(dist, n_bits)
    assert close(expected_quantization_mse(dist, grid), naive_quantization_mse(dist, grid))


@pytest.mark.parametrize(
    ("r", "n_bits"),
    [(r, b) for r in (0.5, 5.0, 300.0, 1e5) for b in (2, 4, 8, 12)] + [(5.0, 16), (1e5, 16)],
)
@pytest.mark.parametrize("nu", NUS)
def test_truncated_t_of_any_nu_meets_gauss_legendre(nu, r, n_bits):
    dist = Truncated(StudentT(nu), -r, r)
    for fill in (0.3, 0.97) if n_bits < 16 else (0.97,):
        grid = IntegerGrid(n_bits, fill * r / 2 ** (n_bits - 1))
        value, expected = (
            f(dist, grid) for f in (expected_quantization_mse, naive_quantization_mse)
        )
        assert close(value, expected)


@pytest.mark.slow
@pytest.mark.parametrize("dist", (Normal(), Truncated(StudentT(2.0), -20.0, 20.0)), ids=repr)
def test_sixteen_bits_in_extended_precision(dist):
    grid = IntegerGrid(16, optimal_scale(dist, 16))
    expected = naive_quantization_mse(dist, grid, np.longdouble, n_nodes=8)
    assert close(expected_quantization_mse(dist, grid), expected)
    assert close(naive_quantization_mse(dist, grid, n_nodes=12), expected, rel=1e-12)


@pytest.mark.parametrize("a", (4.0, 8.0, 30.0, -31.0))
@pytest.mark.parametrize("n_bits", (2, 4, 8))
def test_truncation_deep_in_a_tail(a, n_bits):
    dist = Truncated(Normal(), a, a + 1.0)
    grid = IntegerGrid(n_bits, 1.01 * max(a + 1, -a) / 2 ** (n_bits - 1))
    # direct moments cancel where the density falls e-fold within less than a cell
    rel = 1e-9 if abs(a) < 10 else 1e-7
    assert close(expected_quantization_mse(dist, grid), naive_quantization_mse(dist, grid), rel)


KINDS = (
    {"signed": False},
    {"narrow_range": True},
    {"zero_point": 2},
    {"signed": False, "zero_point": 3},
)


@pytest.mark.parametrize("kind", KINDS, ids=repr)
@pytest.mark.parametrize("dist", FAMILIES, ids=repr)
def test_other_grids_meet_gauss_legendre(dist, kind):
    for n_bits in (3, 9):
        grid = grid_for(dist, n_bits, **kind)
        expected = naive_quantization_mse(dist, grid)
        assert close(expected_quantization_mse(dist, grid), expected)
        if n_bits == 3:
            assert close(expected_quantization_mse(dist, grid, "quadrature"), expected)


@pytest.mark.parametrize("dist", FAMILIES, ids=repr)
def test_parts_transcribed_from_appendix_a(dist):
    """Eqs 9-15 with I(a, b, w0) by mpmath: two half cells per interval, and the tails."""
    _, marks = kernel(dist)

    def density(w):
        match dist:
            case Truncated(inner, _, _):
                return stats_density(inner, w)
            case _:
                return stats_density(dist, w)

    def integral(a, b, w0):  # eq 13
        a, b = max(a, marks[0]), min(b, marks[-1])
        if a >= b:
            return mpmath.mpf(0)
        points = [a, *(m for m in marks if a < m < b), b]
        if len(points) > 60:  # far tails need no fine mesh
            points = [points[0], *points[1:-1:4], points[-1]]
        return mpmath.quad(lambda w: (w - w0) ** 2 * density(w), points, maxdegree=5)

    grid = grid_for(dist, 2)
    q = [float(x) for x in grid.levels()]
    mass = 1
    if isinstance(dist, Truncated):
        mass = integral_of(density, marks)
    rounding = sum(  # eq 14
        integral(a, (a + b) / 2, a) + integral((a + b) / 2, b, b) for a, b in pairwise(q)
    )
    clipping = integral(-math.inf, q[0], q[0]) + integral(q[-1], math.inf, q[-1])  # eq 15
    for method in ("closed_form", "quadrature"):
        parts = quantization_error_parts(dist, grid, method)
        assert close(parts.rounding, float(rounding / mass))
        assert close(parts.clipping, float(clipping / mass))
        assert parts.total == parts.rounding + parts.clipping  # eq 9


def integral_of(density, marks):
    return mpmath.quad(density, list(marks), maxdegree=5)


def stats_density(dist, w):
    """Densities as the paper and any textbook print them, in mpmath."""
    match dist:
        case Normal(loc, scale):
            return mpmath.npdf(w, loc, scale)
        case Laplace(scale):
            return mpmath.exp(-abs(w) / scale) / (2 * scale)
        case Uniform(a, b):
            return 1 / mpmath.mpf(b - a)
        case StudentT(nu):  # eq 17
            norm = mpmath.sqrt(nu) * mpmath.beta(0.5, nu / 2)
            return (1 + w * w / mpmath.mpf(nu)) ** (-(nu + 1) / 2) / norm
    raise AssertionError(dist)


# Pruning, also of asymmetric distributions


ASYMMETRIC = {
    "shifted normal": (Normal(0.7, 1.3), stats.norm(0.7, 1.3)),
    "one-sided normal": (Truncated(Normal(), 0.5, 3.0), stats.truncnorm(0.5, 3.0)),
    "lopsided normal": (Truncated(Normal(), -1.0, 2.5), stats.truncnorm(-1.0, 2.5)),
    "uniform": (Uniform(-0.4, 1.5), stats.uniform(-0.4, 1.9)),
    "negative uniform": (Uniform(-3.0, -1.0), stats.uniform(-3.0, 2.0)),
}


@pytest.mark.parametrize("sparsity", (0.01, 0.3, 0.5, 0.75, 0.9375))
@pytest.mark.parametrize("name", ASYMMETRIC)
def test_pruning_threshold_is_on_the_magnitude(name, sparsity):
    """Eq 3 with the limits -t and t, from scipy's cdf and pdf alone."""
    dist, scipys = ASYMMETRIC[name]
    t = optimize.brentq(
        lambda t: scipys.cdf(t) - scipys.cdf(-t) - sparsity, 0, 10, xtol=1e-14, rtol=1e-14
    )
    lo, hi = max(-t, scipys.support()[0]), min(t, scipys.support()[1])
    expected = integrate.quad(lambda w: w * w * scipys.pdf(w), lo, hi, epsabs=0, epsrel=1e-12)[0]
    assert close(dist.magnitude_quantile(sparsity), t)
    assert close(expected_pruning_mse(dist, sparsity), expected)
    assert close(expected_pruning_mse(dist, sparsity, "quadrature"), expected)


@pytest.mark.parametrize("nu", NUS)
def test_pruning_of_the_truncated_t(nu):
    dist = Truncated(StudentT(nu), -50.0, 20.0)
    f, marks = kernel(dist)
    mass = gauss_legendre(f, np.asarray(marks), 20).sum()
    for sparsity in (0.0625, 0.75, 0.99):
        t = dist.magnitude_quantile(sparsity)
        inner = np.unique(np.r_[-min(t, 50.0), marks[abs(marks) < t], min(t, 20.0)])
        assert close(float(gauss_legendre(f, inner, 20).sum() / mass), sparsity)
        expected = float(gauss_legendre(lambda w: w * w * f(w), inner, 20).sum() / mass)
        assert close(expected_pruning_mse(dist, sparsity), expected)


@pytest.mark.parametrize("dist", FAMILIES, ids=repr)
def test_pruning_nothing_costs_nothing_and_more_costs_more(dist):
    values = [expected_pruning_mse(dist, s) for s in (0.0, 0.1, 0.5, 0.9, 0.999)]
    assert values[0] == 0
    assert all(np.diff(values) > 0)
    assert values[-1] < dist.moment(2)


# Equivariance: weights in other units


@pytest.mark.parametrize("unit", (1e-8, 1e-3, 0.04, 1e3, 1e8))
@pytest.mark.parametrize("method", ("closed_form", "quadrature"))
def test_errors_scale_with_the_square_of_the_unit(method, unit):
    grid, scaled = IntegerGrid(4, 0.35), IntegerGrid(4, 0.35 * unit)
    for dist, other in (
        (Normal(0.2, 1.0), Normal(0.2 * unit, unit)),
        (Laplace(), Laplace(unit)),
        (Uniform(-0.4, 1.5), Uniform(-0.4 * unit, 1.5 * unit)),
        (Truncated(Normal(), -1.0, 2.0), Truncated(Normal(0.0, unit), -unit, 2 * unit)),
    ):
        value = expected_quantization_mse(other, scaled, method) / unit**2
        assert close(value, expected_quantization_mse(dist, grid))
        value = expected_pruning_mse(other, 0.75, method) / unit**2
        assert close(value, expected_pruning_mse(dist, 0.75))


@pytest.mark.parametrize("method", ("closed_form", "quadrature"))
def test_a_narrow_distribution_on_a_coarse_grid(method):
    """The density is a needle within one cell; a quadrature that samples the cell misses it."""
    dist = Normal(5.3, 1e-4)
    grid = IntegerGrid(4, 1.0)
    assert close(expected_quantization_mse(dist, grid, method), 0.3**2 + 1e-8)
    expected = 5.3**2 + 1e-8  # all but the upper quarter; half a needle changes the rest
    z = stats.norm.ppf(0.75)
    tail = (5.3**2 + 1e-8) * 0.25 + stats.norm.pdf(z) * (2 * 5.3e-4 + z * 1e-8)
    assert close(expected_pruning_mse(dist, 0.75, method), expected - tail)


# Monte Carlo


MONTE_CARLO = (
    Normal(),
    Laplace(),
    Uniform(-0.4, 1.5),
    Truncated(StudentT(2.0), -20.0, 20.0),
    Truncated(Normal(), 4.0, 5.0),
    Empirical(np.linspace(-1, 2, 100) ** 3),
)


@pytest.mark.parametrize("dist", MONTE_CARLO, ids=repr)
def test_monte_carlo_agrees_within_five_standard_errors(dist):
    grid = grid_for(dist, 3)
    estimate = monte_carlo_quantization_mse(dist, grid, 200_000, np.random.default_rng(1))
    expected = expected_quantization_mse(dist, grid)
    assert abs(estimate.mean - expected) < 5 * estimate.standard_error < 0.2 * expected
    estimate = monte_carlo_pruning_mse(dist, 0.7, 200_000, np.random.default_rng(2))
    expected = expected_pruning_mse(dist, 0.7)
    assert abs(estimate.mean - expected) < 5 * estimate.standard_error < 0.2 * expected


@pytest.mark.parametrize("dist", (Normal(), Laplace(), Truncated(Normal(), -1.0, 2.0)), ids=repr)
def test_standard_errors_are_calibrated(dist):
    """The spread over 200 seeds is the error that each run reports, within 15 %."""
    grid, n_seeds, n_samples = IntegerGrid(3, 0.6), 200, 4000
    for estimate in (
        lambda rng: monte_carlo_quantization_mse(dist, grid, n_samples, rng),
        lambda rng: monte_carlo_pruning_mse(dist, 0.75, n_samples, rng),
    ):
        runs = [estimate(np.random.default_rng([7, seed])) for seed in range(n_seeds)]
        spread = np.std([r.mean for r in runs], ddof=1)
        reported = np.mean([r.standard_error for r in runs])
        assert 0.85 < spread / reported < 1.15


def test_same_seed_same_number_and_the_generator_is_needed():
    def draw(seed):
        rng = np.random.default_rng(seed)
        return expected_quantization_mse(
            Normal(), IntegerGrid(4, 0.3), "monte_carlo", n_samples=1000, rng=rng
        )

    assert draw(3) == draw(3) != draw(4)
    with pytest.raises(TypeError, match="rng"):
        expected_pruning_mse(Normal(), 0.5, "monte_carlo")


# Samples


def naive_quantize(w, grid):
    levels = grid.levels()
    return levels[np.argmin(abs(np.subtract.outer(w, levels)), axis=-1)]  # eq 1


samples = st.lists(
    st.floats(-8, 8, allow_nan=False, allow_subnormal=False), min_size=1, max_size=30
).map(np.array)


@settings(derandomize=True, deadline=None)
@given(w=samples, scale=st.floats(0.05, 4), n_bits=st.integers(2, 5), signed=st.booleans())
def test_empirical_is_the_mean_over_the_samples(w, scale, n_bits, signed):
    grid = IntegerGrid(n_bits, scale, signed=signed)
    value = expected_quantization_mse(Empirical(w), grid)
    expected = np.mean((naive_quantize(w, grid) - w) ** 2)
    assert value == pytest.approx(expected, rel=1e-12, abs=1e-28)


@settings(derandomize=True, deadline=None)
@given(w=samples, k=st.integers(0, 29))
def test_empirical_pruning_removes_the_exact_number(w, k):
    k = k % w.size
    expected = np.sum(np.sort(abs(w))[:k] ** 2) / w.size
    assert expected_pruning_mse(Empirical(w), k / w.size) == pytest.approx(expected, rel=1e-12)


def test_empirical_ties_are_pruned_one_by_one():
    dist = Empirical(np.array([1.0, -1.0, 1.0, 2.0]))
    assert [expected_pruning_mse(dist, s) for s in (0.0, 0.25, 0.5, 0.74, 0.75)] == [
        *(0.0, 0.25, 0.5, 0.5, 0.75)
    ]


def test_empirical_samples_on_edges_and_levels():
    w = np.array([-2.5, -2.0, -1.5, -0.5, 0.0, 0.5, 1.0, 1.5, 9.0])
    parts = quantization_error_parts(Empirical(w), IntegerGrid(2, 1.0))
    assert parts.rounding * w.size == pytest.approx(3 * 0.25, rel=1e-15)
    assert parts.clipping * w.size == pytest.approx(0.25 + 0.25 + 64, rel=1e-15)


def test_truncated_empirical_keeps_both_ends():
    w = np.array([-2.0, -1.0, -1.0, 0.3, 2.0, 3.0])
    kept = Truncated(Empirical(w), -1.0, 2.0)
    grid = IntegerGrid(2, 0.7)
    expected = np.mean((naive_quantize(w[1:5], grid) - w[1:5]) ** 2)
    assert expected_quantization_mse(kept, grid) == pytest.approx(expected, rel=1e-14)


def test_the_empirical_distribution_of_many_samples_tends_to_its_source():
    rng = np.random.default_rng(0)
    dist, grid = Laplace(0.1), IntegerGrid(4, 0.1)
    sampled = Empirical(dist.sample(400_000, rng))
    value = expected_quantization_mse(sampled, grid)
    assert value == pytest.approx(expected_quantization_mse(dist, grid), rel=0.02)
    value = expected_pruning_mse(sampled, 0.75)
    assert value == pytest.approx(expected_pruning_mse(dist, 0.75), rel=0.02)


def test_no_density_no_quadrature():
    with pytest.raises(ValueError, match=r"Empirical has no density.*closed_form"):
        expected_pruning_mse(Empirical([1.0, 2.0]), 0.5, "quadrature")
    with pytest.raises(ValueError, match=r"Empirical has no density.*closed_form"):
        expected_quantization_mse(Empirical([1.0, 2.0]), IntegerGrid(4, 1.0), "quadrature")


# SNR


def test_sqnr_of_no_error_is_infinite():
    assert expected_sqnr_db(Normal(), 0.0) == math.inf
    assert expected_sqnr_db(Uniform(-2.0, 2.0), 4 / 300) == pytest.approx(20, rel=1e-14)


def test_each_bit_adds_six_db_on_the_uniform_only():
    """6.02 dB a bit hold where nothing is clipped; on the normal the range grows with the bits."""
    gains = {}
    for dist in (Uniform(-1.0, 1.0), Normal()):
        db = [
            expected_sqnr_db(
                dist, expected_quantization_mse(dist, IntegerGrid(b, optimal_scale(dist, b)))
            )
            for b in range(6, 11)
        ]
        gains[type(dist)] = np.diff(db)
    assert gains[Uniform] == pytest.approx(20 * math.log10(2), abs=0.2)
    assert max(gains[Normal]) < 5.6


def test_public_functions_are_the_ones_tested():
    assert pqlib.expected_pruning_mse is expected_pruning_mse
