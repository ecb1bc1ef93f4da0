"""The bound over an interval of scales against dense scans, with integers by brute force."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from pqlib.bounds.scale_interval import exceeds_at_every_scale
from pqlib.layers.problem import LayerProblem


def problems_of(seed, n=3, channels=2, rows=40):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, n)) @ rng.normal(size=(n, n))
    return [LayerProblem(x.T @ x, rng.standard_t(3, n)) for _ in range(channels)]


def errors_at(problems, n_bits, scales):
    """Sum over channels of the least error at each scale: brute force."""
    low, high = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    z = np.array([*itertools.product(range(low, high + 1), repeat=problems[0].n)], float)
    total = np.zeros(len(scales))
    for p in problems:
        for i, s in enumerate(scales):
            d = s * z - p.weight
            total[i] += np.min(np.sum((d @ p.gram) * d, axis=1))
    return total


CASES = [(seed, n_bits) for seed in range(4) for n_bits in (2, 3)]


@pytest.mark.parametrize(("seed", "n_bits"), CASES)
def test_against_a_dense_scan(seed, n_bits):
    problems = problems_of(seed)
    scales = np.geomspace(0.2, 1.6, 1500)
    errors = errors_at(problems, n_bits, scales)
    least = errors.min()
    found = exceeds_at_every_scale(problems, n_bits, 0.7 * least, 0.2, 1.6)
    assert found.exceeds is True and 0.7 * least < found.lower <= least
    assert (found.low, found.high) == (0.2, 1.6) and found.best_error >= found.lower
    found = exceeds_at_every_scale(problems, n_bits, 1.1 * least, 0.2, 1.6)
    assert found.exceeds is False and found.best_error <= 1.1 * least
    [error] = errors_at(problems, n_bits, [found.best_scale])
    assert error == pytest.approx(found.best_error, rel=1e-9) and 0.2 <= found.best_scale <= 1.6


@pytest.mark.parametrize("seed", range(4))
def test_the_lower_bound_holds_whenever_it_stops(seed):
    problems = problems_of(seed)
    least = errors_at(problems, 2, np.geomspace(0.3, 1.2, 1500)).min()
    for max_searches in (1, 4, 10, 40, 100):
        found = exceeds_at_every_scale(
            problems, 2, 0.99 * least, 0.3, 1.2, max_searches=max_searches
        )
        assert found.lower <= least
        assert max(2, max_searches) >= found.n_scales * len(problems)
        assert found.exceeds in (None, True)
    assert (
        exceeds_at_every_scale(problems, 2, 0.99 * least, 0.3, 1.2, max_searches=4).exceeds is None
    )


def test_bounds_of_unfinished_searches_are_bounds():
    problems = problems_of(5, n=12, channels=1)
    full = exceeds_at_every_scale(problems, 2, 0.0, 0.3, 1.2, max_searches=60)
    cut = exceeds_at_every_scale(problems, 2, full.lower, 0.3, 1.2, max_searches=60, max_nodes=1)
    assert cut.lower <= full.best_error
    error = 0.5 * full.best_error
    few = exceeds_at_every_scale(problems, 2, error, 0.3, 1.2, max_searches=200, max_nodes=1)
    many = exceeds_at_every_scale(problems, 2, error, 0.3, 1.2, max_searches=200)
    assert few.exceeds in (None, many.exceeds)


def test_one_scale():
    [problem] = problems_of(1, channels=1)
    [error] = errors_at([problem], 3, [0.4])
    assert exceeds_at_every_scale([problem], 3, 0.999 * error, 0.4, 0.4).exceeds is True
    assert exceeds_at_every_scale([problem], 3, 1.001 * error, 0.4, 0.4).exceeds is False


def test_no_energy_and_exact_weights():
    dead = LayerProblem(np.zeros((2, 2)), [1.0, 2.0])
    assert exceeds_at_every_scale([dead], 2, 0.0, 0.5, 1.0).exceeds is False
    on_grid = LayerProblem(np.eye(2), [0.5, -1.0])
    found = exceeds_at_every_scale([on_grid], 2, 0.0, 0.4, 0.6, max_searches=300)
    assert found.exceeds is not True and found.lower == 0.0


def test_bad_arguments():
    [problem] = problems_of(0, channels=1)
    with pytest.raises(ValueError, match="problems must hold at least one"):
        exceeds_at_every_scale([], 2, 1.0, 0.5, 1.0)
    for arguments, name in (
        ((2, 1.0, 0.0, 1.0), "low"),
        ((2, 1.0, 1.0, 0.5), "high"),
        ((2, -1.0, 0.5, 1.0), "error"),
        ((2, np.nan, 0.5, 1.0), "error"),
        ((1, 1.0, 0.5, 1.0), "n_bits"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be"):
            exceeds_at_every_scale([problem], *arguments)
    with pytest.raises(ValueError, match="max_searches"):
        exceeds_at_every_scale([problem], 2, 1.0, 0.5, 1.0, max_searches=0)


@pytest.mark.parametrize("unit", (1e-40, 1e44))
def test_large_and_small_units(unit):
    [problem] = problems_of(2, channels=1)
    [error] = errors_at([problem], 2, [0.4])
    ends = 0.3, 0.5
    plain = exceeds_at_every_scale([problem], 2, 0.3 * error, *ends)
    moved = LayerProblem(problem.gram, unit * problem.weight)
    ends = [unit * end for end in ends]
    found = exceeds_at_every_scale([moved], 2, 0.3 * error * unit**2, *ends)
    assert found.exceeds is plain.exceeds
    assert found.lower == pytest.approx(plain.lower * unit**2, rel=1e-6)


def test_scales_that_solvers_refuse_are_refused():
    problem = LayerProblem(np.eye(2), [1.0, 0.5])
    with pytest.raises(ValueError, match=r"scale must be .*1e\+45\]"):
        exceeds_at_every_scale([problem], 2, 1.0, 1e300, 1.7e308)
    with pytest.raises(ValueError, match=r"scale=.* is less than 1e-15 of the largest weight"):
        exceeds_at_every_scale([problem], 2, 1.0, 1e-20, 1e-19)


@pytest.mark.parametrize(
    ("n_bits", "weight", "low", "high"),
    [(4, 1.0, 1 - 2**-53, 1.0), (3, 118.4347221951879, 81.88316960168524, 621.018850219435)],
)
def test_a_scale_that_costs_nothing_is_not_denied(n_bits, weight, low, high):
    """At the scale of the weight itself the error is 0, and no scale tried may hit it."""
    problem = LayerProblem([[1.0]], [weight])
    assert problem.error([weight]) == 0 and low <= weight <= high
    found = exceeds_at_every_scale([problem], n_bits, 0.0, low, high)
    assert found.exceeds is not True and found.lower == 0


def test_products_round_between_neighbouring_scales():
    """Intervals of one unit in the last place round an error of -160 dB, in rational numbers."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        z, weight = int(rng.integers(1, 8)), float(rng.uniform(0.5, 2))
        low = weight / z * (1 + float(rng.choice([-1, 1])) * 1e-8)
        high = float(np.nextafter(low, 9))
        products = [Fraction(s * k) for s in (low, high) for k in range(8)]
        least = min((x - Fraction(weight)) ** 2 for x in products)
        found = exceeds_at_every_scale([LayerProblem([[1.0]], [weight])], 4, 0.0, low, high)
        assert Fraction(found.lower) <= least
        assert found.lower >= 0.999 * float(least)
