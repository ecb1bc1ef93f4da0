"""Pruning where inputs depend on each other but for the last digits, against rational numbers."""

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from pqlib.bounds.pruning import pruning_curve, solve_pruning
from pqlib.bounds.verification import DUAL, REFUTED, REPROVED, verify
from pqlib.layers.problem import LayerProblem

REACH = 10**4  # |d|^2 / |w|^2, weighted by the gram's diagonal, up to which optima are promised


def rational(array):
    return [Fraction(float(x)) for x in array]


def form(gram, d):
    n = range(len(d))
    return sum(d[i] * gram[i][j] * d[j] for i in n for j in n)


def least_squares(gram, weight, support):
    """(error, change d) in rational numbers; dependent columns keep their weights."""
    n = len(weight)
    d = [Fraction(0) if j in support else -weight[j] for j in range(n)]
    rows = [
        [gram[i][k] for k in support] + [-sum(gram[i][j] * d[j] for j in range(n))] for i in support
    ]
    pivots = []
    for k in range(len(support)):
        if rows[k][k] == 0:
            continue
        pivots.append(k)
        for i in range(len(support)):
            if i != k and rows[i][k] != 0:
                share = rows[i][k] / rows[k][k]
                rows[i] = [a - share * b for a, b in zip(rows[i], rows[k], strict=True)]
    for k in pivots:
        d[support[k]] = rows[k][-1] / rows[k][k]
    return form(gram, d), d


def is_semidefinite(gram):
    rows = [rational(row) for row in gram]
    for k in range(len(rows)):
        if rows[k][k] < 0 or (rows[k][k] == 0 and any(rows[k])):
            return False
        for i in range(k + 1, len(rows)):
            if rows[k][k] != 0:
                share = rows[i][k] / rows[k][k]
                rows[i] = [a - share * b for a, b in zip(rows[i], rows[k], strict=True)]
        for i in range(k + 1, len(rows)):
            rows[k][i] = Fraction(0)
    return True


def weak(rng, low, high):
    """Inputs that differ by 2^-low to 2^-high only, and others along the differences."""
    while True:
        problem = _weak(rng, low, high)
        if is_semidefinite(problem.gram):  # whole numbers times powers of 2 hardly ever round
            return problem


def _weak(rng, low, high):
    n = int(rng.integers(4, 7))
    rows = int(rng.integers(3, n + 2))
    few, alike = int(rng.integers(1, rows)), int(rng.integers(2, n))
    small = 2.0 ** -rng.integers(low, high, (few, 1))
    x = np.zeros((rows, n))
    x[few:, :alike] = rng.choice([0, 1, 1, -1], (rows - few, 1))
    x[:few, :alike] = small * rng.integers(-1, 2, (few, alike))
    x[:few, alike:] = small * rng.integers(-1, 2, (few, n - alike)) * 2.0 ** rng.integers(4, 10)
    weight = rng.integers(-2, 3, n).astype(float)
    if rng.random() < 0.3:
        weight *= 2.0 ** rng.integers(-3, 4, n)
    if rng.random() < 0.3:
        weight += rng.choice([0, 1], n) * 2.0**-12
    return LayerProblem(x.T @ x, weight)


def check(problem, s, result):
    """Nothing within reach is better than is claimed, by the solver or by `verify`."""
    gram, weight = [rational(row) for row in problem.gram], rational(problem.weight)
    most = REACH * sum(gram[j][j] * weight[j] ** 2 for j in range(problem.n))
    fits = [least_squares(gram, weight, c) for c in itertools.combinations(range(problem.n), s)]
    near = [e for e, d in fits if sum(gram[j][j] * d[j] ** 2 for j in range(problem.n)) <= most]
    assert result.upper == pytest.approx(
        float(form(gram, [a - b for a, b in zip(rational(result.solution), weight, strict=True)])),
        rel=1e-13,
        abs=0,
    )
    certificate = verify(result, problem, max_nodes=10**5)
    assert certificate.kind != REFUTED
    if not near:
        return
    best = min(near)
    assert Fraction(result.lower) <= best * (1 + Fraction(1, 10**14))
    assert Fraction(certificate.lower) <= best * (1 + Fraction(1, 10**14))
    if result.proven:
        allowed = Fraction(result.upper) * Fraction(1, 10**10) + Fraction(result.resolution)
        assert Fraction(result.upper) - allowed <= best
    forged = replace(result, lower=result.upper, resolution=0.0)
    certificate = verify(forged, problem, max_nodes=10**5)
    if certificate.kind in (DUAL, REPROVED):
        allowed = Fraction(result.upper) * Fraction(1, 10**10)
        assert Fraction(result.upper) - allowed - Fraction(1.01e-13 * problem.energy) <= best


@pytest.mark.parametrize(("low", "high"), [(8, 14), (14, 22), (22, 25), (24, 27)])
def test_no_optimum_is_wrong(low, high):
    rng = np.random.default_rng([low, high])
    for _ in range(12):
        problem = weak(rng, low, high)
        curve = pruning_curve(problem)
        for s in range(problem.n + 1):
            result = solve_pruning(problem, s)
            check(problem, s, result)
            assert curve[s].lower <= result.upper and result.lower <= curve[s].upper
            cut_short = solve_pruning(problem, s, max_nodes=2)
            assert cut_short.lower <= result.upper


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_no_optimum_of_many_more_is_wrong(seed):
    rng = np.random.default_rng(seed)
    for _ in range(60):
        problem = weak(rng, 8 + 2 * seed, 27)
        for s in range(problem.n + 1):
            check(problem, s, solve_pruning(problem, s))


def chain(rng, low, high):
    """Columns q1, q1 + e q2, q2 + e q3, and two that nearly cancel and pull along the chain.

    No pivot is below e^2, and yet the least eigenvalue is some e^4: a factor of the three columns
    in floats tells nothing of the third direction.
    """
    n = 5
    e, small = (2.0 ** -float(rng.integers(low, high)) for _ in range(2))
    x = np.zeros((4, n))
    x[:3, :3] = [[1, 1, 0], [0, e, 1], [0, 0, e]]
    x[rng.integers(4), 3] = 1.0
    x[:, 4] = -x[:, 3]
    x[3, 4] += small
    x[2, 4] += e * e * float(rng.integers(1, 100))
    order = rng.permutation(n)
    weight = np.ones(n)
    weight[:3] = 2.0 ** -rng.integers(0, 20) * rng.integers(-3, 4, 3)
    return LayerProblem((x.T @ x)[np.ix_(order, order)], weight[order])


def test_no_optimum_of_chains_is_wrong():
    rng = np.random.default_rng(0)
    n_checked = 0
    while n_checked < 60:
        problem = chain(rng, 12, 20)
        if is_semidefinite(problem.gram):
            n_checked += 1
            check(problem, 3, solve_pruning(problem, 3))


CHAINS = {
    "small weights": (
        [
            [1, 0, 0, -1, 0],
            [0, 2.000000014901161, 2, 0, 0.0001220703125],
            [0, 2, 2, 0, 0],
            [-1, 0, 0, 1.0000000000038662, 5.820766091346741e-11],
            [0, 0.0001220703125, 0, 5.820766091346741e-11, 1.0000000149011612],
        ],
        [1, 1.9073486328125e-06, -3.814697265625e-06, 1, 7.62939453125e-06],
        3.638866985511413e-12,
    ),
    "equal weights": (
        [
            [1, -1, 0, 0, 0],
            [-1, 1.0000000000009113, 0, 0, 9.094947017729282e-13],
            [0, 0, 2, 2, 0],
            [0, 0, 2, 2.0000000009313226, 3.0517578125e-05],
            [0, 9.094947017729282e-13, 0, 3.0517578125e-05, 1.0000000009313226],
        ],
        [1, 1, 0.25, 0.25, 0.5],
        9.103828801926284e-13,
    ),
    "another order": (
        [
            [1, 0, -1, 0, 0],
            [0, 2, 0, 2, 0],
            [-1, 0, 1.0000000000000595, 0, 2.5011104298755527e-12],
            [0, 2, 0, 2.0000000037252903, 6.103515625e-05],
            [0, 0, 2.5011104298755527e-12, 6.103515625e-05, 1.0000000037252903],
        ],
        [1, 3.814697265625e-06, 1, 2.86102294921875e-06, 2.86102294921875e-06],
        5.782874179516284e-14,
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_pivots_that_hide_a_small_eigenvalue(name):
    """Once called optimal up to 2 % above these errors."""
    gram, weight, optimum = CHAINS[name]
    result = solve_pruning(LayerProblem(gram, weight), 3)
    assert result.proven and result.upper == pytest.approx(optimum, rel=1e-10, abs=0)


# columns 0 and 1 differ by 2^-25 along a direction in which 2 and 3 are 400 times as large
BASE = np.array([[1, 1, 0, 0], [0, 1, 400, 400], [0, 0, 400, -400]]) * 2.0 ** np.array(
    [[0], [-25], [-25]]
)


@pytest.mark.parametrize("second", [1.0, -1 + 800 * 2.0**-25])
def test_a_fit_by_800_times_the_weights_is_found(second):
    """Once missed, with a quarter of the energy left and a proof."""
    problem = LayerProblem(BASE.T @ BASE, [1.0, second, 1.0, 1.0])
    result = solve_pruning(problem, 2)
    assert problem.error([-799.0, second + 800.0, 0.0, 0.0]) == 0.0
    assert result.upper == result.lower == 0.0


@pytest.mark.parametrize("n", [8, 16, 24, 36])
def test_neither_in_larger_channels(n):
    delta = 2.0**-47
    gram = np.eye(n) * 1e-3
    gram[:4, :4] = [
        [1, 1, 0, 0],
        [1, 1 + delta, 400 * delta, 400 * delta],
        [0, 400 * delta, 2 * 160_000 * delta, 0],
        [0, 400 * delta, 0, 2 * 160_000 * delta],
    ]
    weight = np.r_[np.ones(4), np.zeros(n - 4)]
    problem = LayerProblem(gram, weight)
    result = solve_pruning(problem, 2)
    better = problem.error(np.r_[-799.0, 801.0, np.zeros(n - 2)])
    assert result.lower <= better
    assert not result.proven or result.upper <= better * (1 + 1e-10) + result.resolution


def test_an_input_without_a_diagonal_is_not_decided():
    problem = LayerProblem([[0, 5e-5, 0], [5e-5, 1, 0], [0, 0, 1]], [1e4, 1.0, 1.0])
    result = solve_pruning(problem, 1)
    assert problem.error([3e4, 0.0, 0.0]) == 0.0 and result.lower == 0.0
    claim = replace(result, lower=result.upper)
    assert verify(claim, problem).kind not in (DUAL, REPROVED)


def test_verify_ends_on_equal_inputs():
    """The diagonal bound of the second proof once divided by 0 here."""
    e, f, g = 5.684341886080802e-14, 1.4551915228366852e-11, 3.754394128918648e-09
    one = 1.0000000000000573
    gram = [[one, one, -e, -f], [one, one, -e, -f], [-e, -e, f, f], [-f, -f, f, g]]
    problem = LayerProblem(gram, [-0.5, -0.5, 0.0, 0.0])
    result = solve_pruning(problem, 1)
    upper = problem.error(np.zeros(4))
    forged = replace(result, solution=np.zeros(4), lower=upper, upper=upper, resolution=0.0)
    assert verify(forged, problem).kind == REFUTED


NULL = {  # w lies all but in the null space, so that w'Pw in floats is rounding alone
    "positive": ([[9, 21], [21, 49]], [7 / 3 * 1.7, -1.7]),
    "negative": ([[9, 33], [33, 121]], [11 / 3 * 0.3, -0.3]),
}


@pytest.mark.parametrize("name", NULL)
def test_verify_is_not_misled_by_an_energy_that_cancels(name):
    corner, first = NULL[name]
    gram = np.eye(4)
    gram[:2, :2] = corner
    problem = LayerProblem(gram, [*first, 1e-15, 2e-15])
    empty = solve_pruning(problem, 1, "magnitude")
    best, worse = ([0, 0, 0, 2e-15], [0, 0, 1e-15, 0])
    for solution, right in ((best, True), (worse, False)):
        w_hat = np.array(solution, float)
        error = problem.error(w_hat)
        claim = replace(empty, method="exact", solution=w_hat, lower=error, upper=error)
        kind = verify(claim, problem).kind
        assert kind != REFUTED if right else kind not in (DUAL, REPROVED)
