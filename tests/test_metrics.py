"""Metrics against scipy, naive sums in exact arithmetic, and extreme units."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pqlib import cka, kurtosis, mse, relative_error, sqnr_db
from pqlib.metrics import centered_gram, gram_alignment

values = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=20)


@settings(derandomize=True, deadline=None)
@given(x=values, seed=st.integers(0, 99))
def test_errors_in_exact_arithmetic(x, seed):
    x_hat = np.array(x) + np.random.default_rng(seed).normal(size=len(x))
    noise = sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(x, x_hat, strict=True))
    signal = sum(Fraction(a) ** 2 for a in x)
    assert mse(x, x_hat) == pytest.approx(float(noise / len(x)), rel=1e-9)
    if signal > Fraction(1, 10**9):
        assert relative_error(x, x_hat) == pytest.approx(float(noise / signal), rel=1e-9)
        expected = -10 * math.log10(noise / signal)
        assert sqnr_db(x, x_hat) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_exact_and_hopeless():
    x = np.array([1.0, -2.0])
    assert sqnr_db(x, x) == math.inf
    assert relative_error(x, x) == mse(x, x) == 0
    assert sqnr_db(np.zeros(2), np.zeros(2)) == math.inf
    assert sqnr_db(np.zeros(2), x) == -math.inf
    assert relative_error(np.zeros(2), x) == math.inf
    assert sqnr_db(x, np.zeros(2)) == 0
    assert sqnr_db([-0.0], [0.0]) == math.inf


@pytest.mark.parametrize("unit", (1e-300, 1e-160, 1e-20, 1e20, 1e160, 1e300))
def test_ratios_do_not_depend_on_the_unit(unit):
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 200))
    x_hat = x + 0.01 * noise
    assert sqnr_db(x * unit, x_hat * unit) == pytest.approx(sqnr_db(x, x_hat), rel=1e-9)
    assert kurtosis(x * unit) == pytest.approx(kurtosis(x), rel=1e-12)
    acts = rng.normal(size=(2, 30, 4))
    expected = cka(*acts)
    assert cka(acts[0] * unit, acts[1]) == pytest.approx(expected, rel=1e-9)


def test_float16_is_measured_in_float64():
    x = np.array([1, 2, 4, -3], np.float16) * np.float16(1e-6)  # subnormal: squares underflow
    x_hat = x.copy()
    x_hat[0] = 0
    assert mse(x, x_hat) == pytest.approx(float(x[0]) ** 2 / 4, rel=1e-12)
    wide = x.astype(np.float64)
    assert kurtosis(x) == pytest.approx(stats.kurtosis(wide, fisher=False), rel=1e-9)


@pytest.mark.parametrize("size", (2, 5, 1000))
def test_kurtosis_is_scipys_not_the_excess(size):
    for draw in (np.random.default_rng(1).normal, np.random.default_rng(2).standard_cauchy):
        x = draw(size=(size, 2))
        assert kurtosis(x) == pytest.approx(stats.kurtosis(x, axis=None, fisher=False), rel=1e-11)
        assert kurtosis(x.T[::-1]) == pytest.approx(kurtosis(x), rel=1e-12)


def test_kurtosis_of_the_normal_is_three():
    assert kurtosis(np.random.default_rng(0).normal(size=10**6)) == pytest.approx(3, abs=0.02)


@pytest.mark.parametrize("x", ([2.0, 2.0], np.full(7, 0.1), [5.0], np.zeros(3), np.array(3.0)))
def test_kurtosis_of_a_constant_is_an_error(x):
    with pytest.raises(ValueError, match=r"x is constant .*0/0"):
        kurtosis(x)


def test_kurtosis_of_the_largest_numbers():
    x = [1e308, 1e308, -1e308]
    assert kurtosis(x) == pytest.approx(stats.kurtosis([1, 1, -1], fisher=False), rel=1e-12)


def naive_cka(x, y):
    """Appendix H; Kornblith et al., eq 3 with linear kernels: HSIC of centered Gram matrices."""
    n = len(x)
    h = np.eye(n) - 1 / n

    def hsic(k, m):
        return np.trace(k @ h @ m @ h) / (n - 1) ** 2

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


def test_cka_is_the_kernel_formula():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 5)), rng.normal(size=(20, 3)) + 7
    assert cka(x, y) == pytest.approx(naive_cka(x, y), rel=1e-10)
    y = x @ rng.normal(size=(5, 5))
    assert cka(x, y) == pytest.approx(naive_cka(x, y), rel=1e-10)


def test_cka_sees_rotations_and_scales_as_equal():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 4))
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    assert cka(x, 3 * x @ rotation + 5) == pytest.approx(1, rel=1e-12)
    assert 0 <= cka(x, rng.normal(size=(30, 4))) < 0.5


@pytest.mark.parametrize("n", (3, 10, 1000))
def test_cka_of_the_same_activation_for_all_samples(n):
    """0.1 has no exact mean: the residual must not count as a signal."""
    y = np.random.default_rng(0).normal(size=(n, 2))
    for constant in (np.full((n, 2), 0.1), np.zeros((n, 1))):
        with pytest.raises(ValueError, match=r"[xy] is the same for all samples"):
            cka(constant, y)
        with pytest.raises(ValueError, match=r"[xy] is the same for all samples"):
            cka(y, constant)


@pytest.mark.parametrize("shapes", (((3, 2), (4, 2)), ((3,), (3,)), ((3, 2), (3, 2, 1))))
def test_cka_wants_matrices_of_the_same_samples(shapes):
    with pytest.raises(ValueError, match=r"x and y must be 2-d.*got shapes"):
        cka(*(np.ones(s) for s in shapes))


def test_shapes_must_agree():
    for function in (mse, relative_error, sqnr_db):
        with pytest.raises(ValueError, match=r"one shape, got \(2,\) and \(3,\)"):
            function([1.0, 2.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize("shape", [(6, 200), (200, 6), (20, 20)])
def test_cka_by_the_smaller_gram_matrix(shape):
    """Fewer samples than features or more: the same number, without the larger matrix."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=shape), rng.normal(size=shape)
    assert cka(x, y) == pytest.approx(naive_cka(x, y), rel=1e-10)
    both = gram_alignment(centered_gram(x), centered_gram(y))
    assert both == pytest.approx(cka(x, y), rel=1e-10)
    wide = rng.normal(size=(4, 10**6))
    assert cka(wide, wide) == pytest.approx(1, rel=1e-12)  # its features squared take 8 TB


def test_cka_by_hand():
    """Centered columns (1, -1, 0) and (1, 0, -1) / any scale: (x'y)^2 = 1, over 2 times 2."""
    assert cka([[1], [-1], [0]], [[5], [0], [-5]]) == pytest.approx(0.25, rel=1e-12)


def test_cka_of_unrelated_features():
    """The biased estimator: p / (p + n) for p independent normal features of n samples."""
    rng = np.random.default_rng(4)
    for n, p in ((50, 450), (200, 200), (300, 30)):
        x, y = rng.normal(size=(2, n, p))
        assert cka(x, y) == pytest.approx(p / (p + n), rel=0.05)


def test_gram_of_what_is_no_matrix():
    with pytest.raises(ValueError, match=r"x must be 2-d .* got shape \(3,\)"):
        centered_gram([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="x is the same for all samples"):
        centered_gram(np.ones((3, 2)))
