"""Sums in twice the precision against rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from pqlib import accurate

EPS = 2.0**-53


def fractions(x):
    return [Fraction(float(v)) for v in np.ravel(x)]


def wide(rng, n):
    """Values over 24 orders of magnitude."""
    return rng.normal(size=n) * 10.0 ** rng.uniform(-12, 12, n)


def test_products_and_sums_are_exact():
    rng = np.random.default_rng(0)
    for a, b in zip(wide(rng, 500), wide(rng, 500), strict=True):
        p, error = accurate.exact_product(a, b)
        assert p == a * b
        assert Fraction(p) + Fraction(error) == Fraction(a) * Fraction(b)
        s, error = accurate.exact_sum(a, b)
        assert s == a + b
        assert Fraction(s) + Fraction(error) == Fraction(a) + Fraction(b)


def test_dot_survives_cancellation():
    """The paper's bound: eps |x'y| + n^2 eps^2 |x|'|y|; plainly summed, no digit would be right."""
    rng = np.random.default_rng(1)
    for n in (1, 2, 7, 60):
        for _ in range(50):
            x, y = wide(rng, n), wide(rng, n)
            x, y = np.concatenate([x, x]), np.concatenate([y, -y * (1 + 1e-13)])
            true = sum(a * b for a, b in zip(fractions(x), fractions(y), strict=True))
            size = sum(abs(a * b) for a, b in zip(fractions(x), fractions(y), strict=True))
            high, low = accurate.dot(x, y)
            error = abs(Fraction(high) + Fraction(low) - true)
            assert error <= Fraction(4 * n * n * EPS**2) * size * 2
            assert abs(float(high + low) - float(true)) <= 1e-9 * abs(float(true))


@pytest.mark.parametrize("condition", [1.0, 1e6, 1e14])
def test_quadratic_forms(condition):
    """Differences of nearly equal vectors, along the weakest direction of P."""
    rng = np.random.default_rng(2)
    for n in (1, 2, 5, 20):
        rotation = np.linalg.qr(rng.normal(size=(n, n)))[0]
        gram = (rotation * condition ** -np.linspace(0, 1, n)) @ rotation.T
        gram = gram + 4e-16 * np.eye(n) if n > 1 else np.eye(1)
        gram = np.ascontiguousarray((gram + gram.T) / 2)
        y = 100 * rng.normal(size=n)
        x = y + rotation[:, -1] * 10.0 ** rng.uniform(-10, 2)
        d = [a - b for a, b in zip(fractions(x), fractions(y), strict=True)]
        v = [sum(p * b for p, b in zip(row, d, strict=True)) for row in map(fractions, list(gram))]
        true = sum(a * b for a, b in zip(d, v, strict=True))
        value, found = accurate.quadratic(gram, x, y)
        assert value == pytest.approx(float(true), rel=1e-14, abs=0)
        size = abs(gram) @ abs(np.array(d, float))
        assert np.all(abs(found - np.array(v, float)) <= 4 * EPS * abs(found) + 1e-28 * size)


def test_congruence_is_rounded_once():
    rng = np.random.default_rng(3)
    n = 6
    x = rng.normal(size=(10, n)) * 10.0 ** rng.uniform(-3, 0, n)
    gram = x.T @ x
    basis = rng.integers(-(2**20), 2**20, (n, n))
    rows = [fractions(row) for row in gram]
    found = accurate.congruence(gram, basis)
    assert np.array_equal(found, found.T)
    for i in range(n):
        for j in range(i + 1):
            u, v = fractions(basis[:, i]), fractions(basis[:, j])
            true = sum(u[k] * rows[k][m] * v[m] for k in range(n) for m in range(n))
            size = abs(basis[:, i]) @ abs(gram) @ abs(basis[:, j])
            assert abs(found[i, j] - float(true)) <= 4 * EPS * abs(float(true)) + 1e-29 * size


def test_split():
    """Whole and rest together are V x, though V x is far larger than its rest."""
    rng = np.random.default_rng(4)
    matrix = rng.integers(-(2**20), 2**20, (6, 6)).astype(float)
    x = rng.uniform(-1, 1, 6)
    whole, rest = accurate.split(matrix, x)
    assert whole.dtype == np.int64
    for i in range(6):
        true = sum(a * b for a, b in zip(fractions(matrix[i]), fractions(x), strict=True))
        assert abs(rest[i]) <= 0.5 + 1e-12
        assert abs(int(whole[i]) + Fraction(float(rest[i])) - true) < Fraction(2e-16)
