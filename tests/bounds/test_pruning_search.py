"""The parts of the search: errors, elimination, the diagonal bound, pausing and going on."""

import itertools
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_cases import INPUTS, make

from pqlib.bounds import elimination_kernels, pruning_kernels, pruning_search
from pqlib.bounds.pruning import solve_pruning


def swap_by_definition(c, w, removed):
    """All exchanges, each error anew from w_R' (C_RR)^-1 w_R."""

    def cost(r):
        return w[r] @ np.linalg.solve(c[np.ix_(r, r)], w[r])

    pairs = itertools.product(np.flatnonzero(removed), np.flatnonzero(~removed))
    return cost(np.flatnonzero(removed)), [
        cost(np.r_[np.setdiff1d(np.flatnonzero(removed), [i]), j]) for i, j in pairs
    ]


def test_swaps_end_where_no_exchange_helps():
    for seed in range(4):
        problem = make("relu", "normal", 9, seed)
        c = np.linalg.inv(problem.gram)
        for k in (2, 5, 7):
            removed = elimination_kernels.improved(c, problem.weight, np.zeros(9, bool), k)
            assert removed.sum() == k
            error, others = swap_by_definition(c, problem.weight, removed)
            assert min(others) >= error * (1 - 1e-8)


@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from(sorted(INPUTS)))
@settings(max_examples=60, deadline=None)
def test_errors_are_those_of_exact_arithmetic(seed, n, inputs):
    problem = make(inputs, "normal", n, seed)
    d = np.random.default_rng(seed).normal(size=n)
    exact = sum(
        Fraction(float(a)) * Fraction(float(b)) * Fraction(float(c))
        for a, row in zip(d, problem.gram, strict=True)
        for b, c in zip(row, d, strict=True)
    )
    size = abs(d) @ abs(problem.gram) @ abs(d)
    error = pruning_kernels.quadratic(problem.gram, d)
    assert abs(float(Fraction(error) - max(exact, 0))) <= 2e-16 * float(exact) + 1e-28 * size


def test_the_diagonal_bound_holds():
    for seed in range(40):
        for inputs in INPUTS:
            problem = make(inputs, "normal", 6, seed)
            p = pruning_search.Channel(problem).prepared
            shifted = p.gram + p.shift * np.eye(len(p.gram)) - np.diag(p.diagonal)
            assert (p.diagonal >= 0).all()
            if len(shifted):
                least = np.linalg.eigvalsh(shifted)[0]
                assert least >= -1e-15 * np.trace(p.gram)


def test_small_slices_change_nothing(monkeypatch):
    problem = make("relu", "normal", 24, 3)
    whole = [solve_pruning(problem, s) for s in (5, 9)]
    monkeypatch.setattr(pruning_search, "_NODES_PER_CALL", 1)
    for s, expected in zip((5, 9), whole, strict=True):
        result = solve_pruning(problem, s)
        assert (result.upper, result.nodes) == (expected.upper, expected.nodes)
