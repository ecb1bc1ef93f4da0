"""Distributions: partial moments against mpmath, all else against scipy.stats."""

import gc
import math
import weakref
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import reference_values as ref
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from pqlib import Empirical, Laplace, Normal, StudentT, Truncated, Uniform
from pqlib import kurtosis as sample_kurtosis

PAIRS = {
    "normal": (Normal(), stats.norm()),
    "shifted normal": (Normal(-1.5, 0.2), stats.norm(-1.5, 0.2)),
    "laplace": (Laplace(0.3), stats.laplace(scale=0.3)),
    "uniform": (Uniform(-1.0, 3.0), stats.uniform(-1.0, 4.0)),
    "cauchy": (StudentT(1.0), stats.cauchy()),
    "t 2.5": (StudentT(2.5), stats.t(2.5)),
    "t 30": (StudentT(30.0), stats.t(30)),
    "truncated normal": (Truncated(Normal(), -1.0, 2.5), stats.truncnorm(-1.0, 2.5)),
    "normal tail": (Truncated(Normal(), 4.0, 5.0), stats.truncnorm(4.0, 5.0)),
}
NUS = (0.5, 0.9, 1 - 1e-9, 1.0, 1 + 1e-7, 1.5, 2 - 1e-9, 2.0, 2 + 1e-12, 2.5, 3.0, 4.0, 30.0, 1e3)


def exact_density(dist):
    """Textbook densities in mpmath."""
    match dist:
        case Normal(loc, scale):
            return lambda w: mpmath.npdf(w, loc, scale)
        case Laplace(scale):
            return lambda w: mpmath.exp(-abs(w) / scale) / (2 * mpmath.mpf(scale))
        case StudentT(nu):  # eq 17 of the paper, its sign corrected
            nu = mpmath.mpf(nu)
            norm = mpmath.sqrt(nu) * mpmath.beta(mpmath.mpf(1) / 2, nu / 2)
            return lambda w: (1 + w * w / nu) ** (-(nu + 1) / 2) / norm
    raise AssertionError(dist)


def exact_moment(dist, order, a, b, about):
    with mpmath.workdps(40):
        density = exact_density(dist)
        a, b, about = mpmath.mpf(a), mpmath.mpf(b), mpmath.mpf(about)
        points = [a, *(p for p in (mpmath.mpf(0),) if a < p < b), b]
        return mpmath.quad(lambda w: (w - about) ** order * density(w), points)


CELLS = (  # width, position: wide, the zero cell, narrow near and far, either side of a switch
    *((2.0, 0.3), (1.0, 0.0), (0.9, 3.0), (1.1, 3.0), (0.3, -2.0), (1e-2, 5.0), (1e-4, 1.0)),
    *((1e-4, -6.0), (3e-5, 0.0), (1e-7, 2.0)),
)


@pytest.mark.parametrize(("width", "center"), CELLS)
@pytest.mark.parametrize("order", range(5))
@pytest.mark.parametrize(
    "dist", (Normal(), Normal(0.2, 0.7), Laplace(), StudentT(0.5), StudentT(2.0), StudentT(50.0)),
    ids=repr,
)  # fmt: skip
def test_moment_of_a_cell_about_its_level(dist, order, width, center):
    """Cells narrower than the cancellation limit included; odd moments cancel by symmetry."""
    a, b = center - width / 2, center + width / 2
    value = dist.partial_moment(order, a, b, about=center)
    exact = exact_moment(dist, order, a, b, center)
    scale = exact_moment(dist, 0, a, b, center) * (width / 2) ** order
    assert value == pytest.approx(
        float(exact), rel=1e-11 if order < 3 else 1e-9, abs=2e-12 * float(scale)
    )


@pytest.mark.parametrize("order", range(5))
@pytest.mark.parametrize("nu", NUS)
def test_moments_of_the_t_from_zero(nu, order):
    """Around the poles nu = order the incomplete beta function gives way to series."""
    for b in (1e-3, 0.7, math.sqrt(nu), 40.0, 1e5):
        with mpmath.workdps(30):
            # int_0^b w^k (1 + w^2/nu)^(-(nu+1)/2) = b^(k+1)/(k+1) 2F1((k+1)/2, (nu+1)/2; ...)
            half = mpmath.mpf(order + 1) / 2
            f = mpmath.hyp2f1(half, (mpmath.mpf(nu) + 1) / 2, half + 1, -(mpmath.mpf(b) ** 2) / nu)
            norm = mpmath.sqrt(nu) * mpmath.beta(0.5, mpmath.mpf(nu) / 2)
            exact = mpmath.mpf(b) ** (order + 1) / (order + 1) * f / norm
        value = StudentT(nu).partial_moment(order, 0.0, b)
        assert value == pytest.approx(float(exact), rel=1e-11, abs=0)


@pytest.mark.parametrize("nu", (0.7, 2.0, 9.0))
def test_cdf_of_the_t_by_the_hypergeometric_function(nu):
    """Eq 18, F_1 being Gauss' 2F1."""
    x = np.linspace(-8, 8, 41)
    f = special.hyp2f1(0.5, (nu + 1) / 2, 1.5, -x * x / nu)
    norm = math.gamma((nu + 1) / 2) / (math.sqrt(math.pi * nu) * math.gamma(nu / 2))
    np.testing.assert_allclose(StudentT(nu).cdf(x), 0.5 + x * norm * f, atol=1e-13)


@pytest.mark.parametrize("name", PAIRS)
def test_pdf_cdf_and_ppf_are_scipys(name):
    dist, scipys = PAIRS[name]
    lo, hi = scipys.ppf([1e-6, 1 - 1e-6])
    x = np.linspace(lo - 0.1, hi + 0.1, 201)
    np.testing.assert_allclose(dist.pdf(x), scipys.pdf(x), rtol=1e-12, atol=1e-300)
    # scipy's own cdf of the t is wrong by 5e-10 next to 0
    np.testing.assert_allclose(dist.cdf(x), scipys.cdf(x), rtol=1e-11, atol=1e-9)
    q = np.r_[1e-9, 1e-4, np.linspace(0.01, 0.99, 50), 1 - 1e-6]
    np.testing.assert_allclose(dist.ppf(q), scipys.ppf(q), rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("name", PAIRS)
def test_ppf_inverts_the_cdf(name):
    dist, _ = PAIRS[name]
    q = np.r_[1e-12, 1e-7, np.linspace(0.001, 0.999, 99), 1 - 1e-7]
    np.testing.assert_allclose(dist.cdf(dist.ppf(q)), q, rtol=1e-6, atol=1e-14)
    assert np.all(np.diff(dist.ppf(q)) > 0)


@pytest.mark.parametrize(
    "dist",
    [pair[0] for pair in PAIRS.values()] + [Truncated(Normal(), 30.0, 31.0), StudentT(0.3)],
    ids=repr,
)
@pytest.mark.filterwarnings("error")
def test_ppf_ends_at_the_support(dist):
    lo, hi = dist.support
    assert dist.ppf(np.array([0.0, 1.0])) == pytest.approx([lo, hi], rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("interval", ((8.0, 9.0), (30.0, 31.0), (-31.0, -30.0), (37.0, 38.0)))
def test_quantiles_and_samples_deep_in_a_tail(interval):
    dist = Truncated(Normal(), *interval)
    q = np.linspace(0, 1, 21)
    x = dist.ppf(q)
    np.testing.assert_allclose(dist.cdf(x), q, atol=1e-11)
    w = dist.sample(500, np.random.default_rng(0))
    assert w.shape == (500,)
    assert w.min() >= interval[0]
    assert w.max() <= interval[1]
    assert stats.kstest(w, dist.cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", PAIRS)
def test_moments_are_scipys(name):
    dist, scipys = PAIRS[name]
    if name in ("cauchy", "t 2.5"):
        missing = r"no moment of order [14] \(it needs nu > [14]\).*truncate"
        with pytest.raises(ValueError, match=missing):
            dist.kurtosis()
        return
    assert dist.mean() == pytest.approx(scipys.mean(), rel=1e-12, abs=1e-14)
    assert dist.variance() == pytest.approx(scipys.var(), rel=1e-8)
    # scipy's truncnorm loses digits in its fourth moment
    assert dist.kurtosis() == pytest.approx(float(scipys.stats("k")) + 3, rel=1e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_partial_moments_are_scipys_expectations(name):
    dist, scipys = PAIRS[name]
    for a, b, about in ((-0.8, 0.9, 0.1), (-3.0, -0.2, -1.0), (0.5, 4.5, 1.0)):
        for order in range(5):
            expected = scipys.expect(
                lambda w, c=about, k=order: (w - c) ** k,
                lb=max(a, scipys.support()[0]),
                ub=max(min(b, scipys.support()[1]), scipys.support()[0]),
                epsabs=1e-13,
                epsrel=1e-11,
            )
            value = dist.partial_moment(order, a, b, about=about)
            assert value == pytest.approx(expected, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("name", ref.MOMENTS)
def test_reference_moments(name):
    dists = {"normal": Normal(), "laplace": Laplace(), "uniform": Uniform(-1.0, 1.0)}
    dist = dists.get(name)
    if dist is None:
        r = float(name.rpartition("_")[2])
        dist = Truncated(StudentT(2.0), -r, r)
    second, kurtosis = ref.MOMENTS[name]
    assert dist.moment(2) == pytest.approx(second, rel=1e-12)
    assert dist.kurtosis() == pytest.approx(kurtosis, rel=1e-12)
    assert dist.mean() == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize(("r", "variance", "kurtosis"), ref.TRUNCATED_T_MOMENTS)
def test_truncated_t_has_no_unit_variance(r, variance, kurtosis):
    dist = Truncated(StudentT(2.0), -r, r)
    assert dist.variance() == pytest.approx(variance, rel=1e-12)
    assert dist.kurtosis() == pytest.approx(kurtosis, rel=1e-9)
    if r in ref.PRINTED_VARIANCES:
        assert f"{dist.variance():.3f}" == ref.PRINTED_VARIANCES[r]


def test_second_moment_near_its_pole():
    for nu in (2 + 1e-12, 2 + 1e-6, 2.1, 50.0):
        assert StudentT(nu).moment(2) == pytest.approx(nu / (nu - 2), rel=1e-12)
    assert StudentT(5.0).kurtosis() == pytest.approx(9, rel=1e-13)
    for nu in (0.5, 1.0, 2.0):
        with pytest.raises(ValueError, match=r"StudentT\(nu=.*no moment of order 2.*Truncated"):
            StudentT(nu).moment(2)


@pytest.mark.parametrize("b", (1e100, 1e160, math.inf))
def test_nothing_lies_beyond_the_far_end(b):
    """No NaN from 0/0 or inf - inf where the tail underflows."""
    for dist in (Normal(), Laplace(), StudentT(3.0)):
        for order in range(3):
            assert dist.partial_moment(order, b, math.inf) == pytest.approx(0, abs=1e-99)
            assert dist.partial_moment(order, -math.inf, -b) == pytest.approx(0, abs=1e-99)


# Properties

finite = st.floats(-6, 6)
distributions = st.one_of(
    st.builds(Normal, finite, st.floats(0.1, 5)),
    st.builds(Laplace, st.floats(0.1, 5)),
    st.builds(lambda a, w: Uniform(a, a + w), finite, st.floats(0.1, 5)),
    st.builds(StudentT, st.floats(0.3, 60)),
    st.builds(
        lambda nu, a, w: Truncated(StudentT(nu), a, a + w),
        st.floats(0.3, 60),
        st.floats(-6, 2),
        st.floats(0.5, 60),
    ),
)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(dist=distributions, cuts=st.lists(finite, min_size=3, max_size=3), order=st.integers(0, 4))
def test_partial_moments_add_up(dist, cuts, order):
    a, b, c = sorted(cuts)
    about = 0.3
    parts = dist.partial_moment(order, np.array([a, b]), np.array([b, c]), about)
    size = max(abs(a - about), abs(c - about)) ** order
    assert parts.sum() == pytest.approx(
        float(dist.partial_moment(order, a, c, about)), rel=1e-10, abs=1e-12 * size
    )


@settings(derandomize=True, deadline=None, max_examples=100)
@given(dist=distributions, share=st.floats(1e-3, 0.999))
def test_magnitude_quantile_holds_its_share(dist, share):
    t = dist.magnitude_quantile(share)
    assert dist.cdf(t) - dist.cdf(-t) == pytest.approx(share, abs=1e-12)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(dist=distributions, x=st.lists(finite, min_size=2, max_size=9))
def test_cdf_rises_from_zero_to_one(dist, x):
    p = dist.cdf(np.sort(x))
    assert np.all(np.diff(p) >= -1e-15)
    assert np.all((p >= 0) & (p <= 1 + 1e-14))
    assert dist.cdf(math.inf) == pytest.approx(1, abs=1e-13)
    assert dist.cdf(-math.inf) == 0


@pytest.mark.parametrize("name", PAIRS)
def test_samples_follow_the_cdf(name):
    dist, _ = PAIRS[name]
    w = dist.sample(4000, np.random.default_rng(11))
    assert w.shape == (4000,)
    assert w.dtype == np.float64
    assert stats.kstest(w, dist.cdf).pvalue > 1e-3
    np.testing.assert_array_equal(w, dist.sample(4000, np.random.default_rng(11)))


@pytest.mark.parametrize("unit", (1e-300, 1e-30, 1e-8, 1e8))
def test_thresholds_in_any_unit(unit):
    for dist, scaled in (
        (Normal(0.1, 1.0), Normal(0.1 * unit, unit)),
        (Uniform(-1.0, 3.0), Uniform(-unit, 3 * unit)),
        (Laplace(), Laplace(unit)),
    ):
        t = dist.magnitude_quantile(0.6)
        assert scaled.magnitude_quantile(0.6) / unit == pytest.approx(t, rel=1e-12)


def test_symmetry():
    assert Normal().symmetric
    assert not Normal(0.1).symmetric
    assert Uniform(-2.0, 2.0).symmetric
    assert not Uniform(-2.0, 1.0).symmetric
    assert Truncated(StudentT(2.0), -5.0, 5.0).symmetric
    assert not Truncated(StudentT(2.0), -5.0, 4.0).symmetric
    assert Empirical([1.0, -1.0, 0.0]).symmetric
    assert not Empirical([1.0, -1.0, 0.5]).symmetric


def test_truncation_of_a_truncation():
    once = Truncated(Laplace(), -0.5, 2.0)
    twice = Truncated(Truncated(Laplace(), -3.0, 2.0), -0.5, 7.0)
    x = np.linspace(-1, 3, 33)
    np.testing.assert_allclose(twice.pdf(x), once.pdf(x), rtol=1e-14)
    np.testing.assert_allclose(twice.cdf(x), once.cdf(x), rtol=1e-13, atol=1e-16)
    assert twice.kurtosis() == pytest.approx(once.kurtosis(), rel=1e-12)


# Samples


def test_empirical_counts_exactly():
    w = np.array([[3.0, -1.0, 0.5], [0.5, 0.5, -0.0]])
    dist = Empirical(w)
    assert dist.support[1] == 3
    assert dist.cdf(np.array([-1.1, -1.0, 0.0, 0.5, 3.0])) * 6 == pytest.approx([0, 1, 2, 5, 6])
    assert dist.ppf(np.array([0.0, 1 / 6, 0.2, 0.5, 1.0])).tolist() == [-1, -1, 0, 0.5, 3]
    # a < w <= b
    assert dist.partial_moment(0, 0.0, 0.5) * 6 == pytest.approx(3)
    assert dist.partial_moment(1, -1.0, 3.0, about=1.0) * 6 == pytest.approx(-1 - 1.5 + 2)
    assert dist.magnitude_quantile(0.0) == 0
    assert dist.magnitude_quantile(0.5) == 0.5
    assert dist.magnitude_quantile(1.0) == 3


def test_empirical_keeps_a_copy():
    w = np.array([1.0, 2.0])
    dist = Empirical(w)
    w[0] = 100.0
    assert dist.mean() == 1.5
    with pytest.raises(ValueError, match="read-only"):
        dist.samples[0] = 3.0


def test_truncated_empirical_is_the_empirical_of_what_is_kept():
    w = np.array([-2.0, -1.0, -1.0, 0.3, 2.0, 2.0, 3.0])
    for a, b in ((-1.0, 2.0), (-2.0, 3.0), (-1.5, 0.3), (0.0, 9.0)):
        kept = Empirical(w[(w >= a) & (w <= b)])
        dist = Truncated(Empirical(w), a, b)
        assert dist.mean() == pytest.approx(kept.mean(), rel=1e-14)
        assert dist.variance() == pytest.approx(kept.variance(), rel=1e-13, abs=1e-30)
        x = np.linspace(-3, 4, 29)
        np.testing.assert_allclose(dist.cdf(x), kept.cdf(x), atol=1e-15)
        q = np.linspace(0.05, 1, 9)
        np.testing.assert_array_equal(dist.ppf(q), kept.ppf(q))


def test_empirical_kurtosis_is_the_sample_kurtosis():
    w = np.random.default_rng(0).normal(size=100)
    for unit in (1e-100, 1.0, 1e60):
        assert Empirical(w * unit).kurtosis() == pytest.approx(sample_kurtosis(w), rel=1e-12)
    for constant in ([1.0, 1.0], [0.1, 0.1, 0.1]):
        with pytest.raises(ValueError, match=r"constant .*: its kurtosis is 0/0"):
            Empirical(constant).kurtosis()


def test_scalars_and_arrays():
    for dist in (Normal(), Uniform(), Empirical([0.0, 1.0]), Truncated(Laplace(), -1.0, 2.0)):
        x = np.array([[-0.5, 0.2, 0.7]])
        assert dist.cdf(x).shape == (1, 3)
        assert dist.partial_moment(1, x, x[:, :1] + 2, about=0.1).shape == (1, 3)
        assert dist.ppf(abs(x)).shape == (1, 3)
        assert np.shape(dist.cdf(0.2)) == ()
        assert float(dist.cdf(0.2)) == dist.cdf(x)[0, 1]


@pytest.mark.parametrize("kind", [np.float32, np.float16, Fraction])
def test_parameters_are_kept_as_floats(kind):
    """Else the cache would serve what was rounded to the equal distribution of a float."""
    rough = kind(0.3) if kind is not Fraction else Fraction(1, 3)
    exact = Normal(0, float(rough)).moment(2)
    assert Normal(0, rough).moment(2) == exact == pytest.approx(float(rough) ** 2, rel=1e-14)
    assert type(Uniform(-1, rough).b) is type(Truncated(Laplace(rough), -1, 2).dist.scale) is float


def test_moments_of_samples_are_not_held_for_good():
    samples = Empirical([0.0, 1.0, 2.0, 5.0])
    inner = Truncated(samples, 0.5, 3.0)
    assert inner.moment(2) == 2.5 and inner.moment(1, about=1.0) == 0.5
    held = weakref.ref(samples)
    del samples, inner
    gc.collect()
    assert held() is None


@pytest.mark.parametrize("dist", [Normal(0, 1e-100), Laplace(1e-81), Uniform(-1e-71, 1e-71)])
def test_a_kurtosis_out_of_range_is_refused(dist):
    with pytest.raises(ValueError, match=r"use another unit|underflows|overflows"):
        dist.kurtosis()


def test_an_interval_wider_than_float64_is_refused():
    with pytest.raises(ValueError, match="b - a must be a finite number"):
        Uniform(-1.7e308, 1.7e308)


def test_what_is_no_probability_is_named():
    with pytest.raises(ValueError, match=r"q must lie in \[0, 1\].* got 1.5"):
        Normal().ppf([0.5, 1.5])
