"""Splitting a layer's non-zeros over channels: every split tried."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pqlib.bounds.allocation import allocate
from pqlib.bounds.pruning import pruning_curve
from pqlib.layers.problem import LayerProblem


def brute_force(curves, budget):
    splits = itertools.product(*(range(len(curve)) for curve in curves))
    return min(
        sum(curve[s] for curve, s in zip(curves, split, strict=True))
        for split in splits
        if sum(split) <= budget
    )


@given(st.integers(0, 10**6), st.lists(st.integers(0, 5), min_size=1, max_size=5), st.booleans())
@settings(max_examples=150, deadline=None)
def test_every_budget_is_that_of_brute_force(seed, sizes, falling):
    rng = np.random.default_rng(seed)
    curves = [rng.integers(0, 9, n + 1).astype(float) for n in sizes]  # ties, and not convex
    if falling:
        curves = [np.sort(curve)[::-1] for curve in curves]
    for budget in range(sum(sizes) + 1):
        found = allocate(curves, budget)
        assert found.error == brute_force(curves, budget)
        assert found.n_nonzero.sum() <= budget
        spent = [curve[s] for curve, s in zip(curves, found.n_nonzero, strict=True)]
        assert found.error == sum(spent)


def test_a_layer_is_no_worse_than_with_equal_channels():
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(60, 6)) @ rng.normal(size=(6, 6)), 0)
    weights = rng.normal(size=(4, 6)) * [[0.1], [1.0], [1.0], [3.0]]
    curves = [[r.upper for r in pruning_curve(LayerProblem(x.T @ x, w))] for w in weights]
    for s in range(7):
        equal = sum(curve[s] for curve in curves)
        split = allocate(curves, 4 * s)
        assert split.error <= equal * (1 + 1e-12)
        assert split.error == pytest.approx(brute_force(curves, 4 * s), rel=1e-12)
    assert allocate(curves, 8).n_nonzero[3] > allocate(curves, 8).n_nonzero[0]


def test_one_at_a_time_is_not_enough():
    curves = [[10.0, 10.0, 0.0], [4.0, 3.0, 2.0]]
    split = allocate(curves, 2)
    assert split.n_nonzero.tolist() == [2, 0] and split.error == 4.0


def test_many_channels():
    curves = np.sort(np.random.default_rng(0).exponential(size=(200, 33)))[:, ::-1]
    split = allocate(curves, 200 * 8)
    assert split.n_nonzero.sum() == 200 * 8
    assert split.error < curves[:, 8].sum()


@pytest.mark.parametrize(
    ("curves", "budget", "error", "message"),
    (
        ([], 0, ValueError, "at least one channel, got none"),
        ([[1.0, 0.0]], 2, ValueError, r"n_nonzero must be a whole number in 0\.\.1, got 2"),
        ([[1.0, 0.0]], -1, ValueError, "n_nonzero must be .*got -1"),
        ([[1.0, float("nan")]], 1, ValueError, r"curves\[0\] must be finite"),
        ([[1.0], [[1.0]]], 0, ValueError, r"curves\[1\] must have shape"),
        ([[1e308, 0.0], [1e308, 1.0]], 1, ValueError, "curves are too large for their sum"),
        ([["a"]], 0, TypeError, r"curves\[0\] must be an array of real numbers"),
    ),
)
def test_bad_input_is_named(curves, budget, error, message):
    with pytest.raises(error, match=message):
        allocate(curves, budget)
