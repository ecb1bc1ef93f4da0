"""Exact pruning against brute force, and everything it must never say."""

import itertools
import subprocess
import sys
import time
from fractions import Fraction

import numpy as np
import pytest
from pruning_cases import INPUTS, WEIGHTS, brute_force, make, noise

from pqlib.bounds.pruning import pruning_curve, solve_pruning
from pqlib.bounds.verification import verify
from pqlib.layers.problem import LayerProblem

HEURISTICS = ("magnitude", "magnitude_refit", "backward")


def check(problem):
    optima = brute_force(problem)
    curve = pruning_curve(problem)
    assert len(curve) == problem.n + 1
    for s, (result, optimum) in enumerate(zip(curve, optima, strict=True)):
        allowed = noise(problem, optimum)
        assert abs(result.upper - optimum) <= allowed, (s, result, optimum)
        assert result.lower <= optimum + allowed, (s, result, optimum)
        assert result.lower <= result.upper
        assert result.gap <= allowed, (s, result)
        assert np.count_nonzero(result.solution) <= s and result.n_nonzero == s
        assert result.proven and result.resolution <= 1e-11 * problem.energy
        scale = abs(problem.weight - result.solution) @ abs(problem.gram)
        rounding = 1e-14 * problem.n * scale @ abs(problem.weight - result.solution)
        assert result.upper == pytest.approx(problem.error(result.solution), rel=0, abs=rounding)
    assert (np.diff([r.upper for r in curve]) <= 0).all()
    return curve


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_every_sparsity_is_that_of_brute_force(inputs, weights):
    for seed in range(12):
        for n in (1, 2, 3, 5, 7):
            check(make(inputs, weights, n, seed))


@pytest.mark.parametrize("inputs", INPUTS)
def test_brute_force_at_10(inputs):
    check(make(inputs, "normal", 10, 0))


@pytest.mark.slow
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_thousands_more(inputs, weights):
    for seed in range(100, 140):
        for n in (4, 6, 8):
            check(make(inputs, weights, n, seed))
    for seed in range(100, 103):
        for n in (9, 10, 11):
            check(make(inputs, weights, n, seed))
    check(make(inputs, weights, 12, 100))


def test_brute_force_is_least_squares():
    problem = make("relu", "normal", 5, 0)
    root = np.linalg.cholesky(problem.gram).T
    for s, optimum in enumerate(brute_force(problem)):
        best = np.inf
        for kept in itertools.combinations(range(5), s):
            part = root[:, kept]
            fitted = part @ np.linalg.lstsq(part, root @ problem.weight)[0]
            best = min(best, float(np.sum((fitted - root @ problem.weight) ** 2)))
        assert optimum == pytest.approx(best, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("inputs", INPUTS)
def test_no_heuristic_is_better(inputs):
    for seed in range(5):
        for n in (3, 8, 20):
            problem = make(inputs, "normal", n, seed)
            for s in range(0, n + 1, 1 if n < 20 else 3):
                exact = solve_pruning(problem, s, max_nodes=20_000)
                for method in HEURISTICS:
                    found = solve_pruning(problem, s, method)
                    assert exact.lower <= exact.upper <= found.upper + noise(problem, found.upper)
                    assert np.count_nonzero(found.solution) <= s
                    assert found.lower == 0 and found.status.startswith("A heuristic")
                    assert (found.n_nonzero, found.resolution) == (s, 0.0)


def test_heuristics_are_what_they_say():
    problem = make("relu", "normal", 9, 1)
    largest = np.sort(np.argsort(abs(problem.weight))[-4:])
    kept = solve_pruning(problem, 4, "magnitude").solution
    assert np.array_equal(np.flatnonzero(kept), largest)
    assert np.array_equal(kept[largest], problem.weight[largest])
    fitted = solve_pruning(problem, 4, "magnitude_refit").solution
    assert np.array_equal(np.flatnonzero(fitted), largest)
    gradient = problem.gram @ (fitted - problem.weight)
    assert abs(gradient[largest]).max() < 1e-12 * abs(problem.gram).max()


def test_only_big_m_needs_cvxpy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    monkeypatch.delitem(sys.modules, "pqlib.bounds.big_m", raising=False)
    problem = make("relu", "normal", 6, 0)
    for method in ("exact", *HEURISTICS):
        assert solve_pruning(problem, 2, method).upper > 0
    with pytest.raises(ImportError, match=r"needs cvxpy .*pip install 'pqlib\[bounds\]'"):
        solve_pruning(problem, 2, "big_m")


def test_importing_does_not_load_cvxpy():
    code = "import sys, pqlib.bounds.pruning; print('cvxpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# What a search may not claim


def test_budgets_give_an_honest_interval():
    problem = make("relu", "normal", 30, 0)
    for s in (6, 8, 12):
        exact = solve_pruning(problem, s)
        assert exact.proven and exact.nodes > 20
        bounds = [solve_pruning(problem, s, max_nodes=m) for m in (1, 3, exact.nodes // 2)]
        for result in bounds:
            assert result.lower <= exact.upper <= result.upper * (1 + 1e-10)
            assert result.status.startswith("The node budget ran out")
            assert not result.proven
        assert 0 < bounds[0].lower <= bounds[-1].lower
        again = solve_pruning(problem, s, max_nodes=exact.nodes + 1)
        assert (again.lower, again.upper, again.nodes) == (exact.lower, exact.upper, exact.nodes)


def test_intervals_contain_the_optimum():
    for seed in range(20):
        problem = make("relu", "normal", 7, seed)
        optima = brute_force(problem)
        for budget in (1, 2, 4, 8, 16):
            for s, result in enumerate(pruning_curve(problem, max_nodes=budget)):
                assert result.lower <= optima[s] * (1 + 1e-10) <= result.upper * (1 + 2e-10)


def test_time_runs_out():
    problem = make("relu", "normal", 90, 0)
    start = time.monotonic()
    result = solve_pruning(problem, 25, max_seconds=0.2)
    assert time.monotonic() - start < 5
    assert result.status.startswith("The time budget ran out")
    assert 0 < result.lower < result.upper


def test_ties_end_at_once():
    for n in (40, 100):
        problem = LayerProblem(np.eye(n), np.ones(n))
        result = solve_pruning(problem, n // 2, max_nodes=10)
        assert result.proven and result.upper == n - n // 2


def test_a_curve_cut_short_still_falls():
    problem = make("relu", "normal", 26, 5)
    curve = pruning_curve(problem, max_nodes=2)
    assert (np.diff([r.upper for r in curve]) <= 0).all()
    assert (np.diff([r.lower for r in curve]) <= 0).all()
    assert all(np.count_nonzero(r.solution) <= s for s, r in enumerate(curve))


# Special cases


def test_dead_inputs_cost_nothing_and_get_no_weight():
    gram = np.zeros((5, 5))
    gram[1:3, 1:3] = [[2, 1], [1, 2]]
    problem = LayerProblem(gram, [5.0, 1.0, 2.0, 7.0, 9.0])
    two, one = solve_pruning(problem, 2), solve_pruning(problem, 1)
    assert two.upper == two.lower == 0 and two.solution.tolist() == [0, 1, 2, 0, 0]
    assert one.upper == 1.5 and one.solution.tolist() == [0, 0, 2.5, 0, 0]
    nothing = solve_pruning(LayerProblem(np.zeros((3, 3)), np.ones(3)), 1)
    assert nothing.proven and nothing.upper == 0


def test_all_or_nothing():
    problem = make("relu", "normal", 6, 0)
    none, full = solve_pruning(problem, 0), solve_pruning(problem, 6)
    assert none.upper == none.lower == pytest.approx(problem.energy, rel=1e-14)
    assert full.upper == full.lower == 0 and np.array_equal(full.solution, problem.weight)
    zero = solve_pruning(LayerProblem(problem.gram, np.zeros(6)), 2)
    assert zero.upper == zero.lower == 0 and not zero.solution.any()


def test_a_spanning_subset_has_no_error():
    x = np.random.default_rng(0).normal(size=(4, 9))
    result = solve_pruning(LayerProblem(x.T @ x, np.ones(9)), 5)
    assert result.upper <= 1e-12 and result.lower == 0
    assert result.status.startswith("The error is at most 1e-12 of the energy")


def test_a_singular_gram_says_what_it_leaves_open():
    problem = make("duplicated", "normal", 8, 0)
    result = solve_pruning(problem, 3)
    assert result.proven and "up to 100 times their size" in result.status


def test_a_change_of_75_times_the_weights_is_found():
    problem = make("rank-deficient", "normal", 8, 138)
    result = solve_pruning(problem, 5)
    assert result.upper == pytest.approx(9.918807519416e-07, rel=1e-9)


def test_indefinite_by_rounding():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(5, 8))
    gram = x.T @ x - 1e-10 * np.eye(8)
    result = solve_pruning(LayerProblem(gram, rng.normal(size=8)), 3)
    reference = solve_pruning(LayerProblem(x.T @ x, rng.normal(size=8)), 3)
    assert 0 <= result.lower <= result.upper
    assert reference.proven
    gram = np.diag([1.0, 1.0, 0.0])
    gram[0, 2] = gram[2, 0] = 1e-10
    result = solve_pruning(LayerProblem(gram, [1.0, 2.0, 3.0]), 1)
    assert result.lower <= 1 + 6e-10 <= result.upper * (1 + 1e-15)


@pytest.mark.parametrize("power", (-150, -60, 60, 150))
def test_powers_of_two_change_no_digit(power):
    problem = make("relu", "normal", 8, 2)
    factor = 2.0**power
    scaled = LayerProblem(problem.gram * factor, problem.weight)
    for s in (2, 4):
        expected, result = solve_pruning(problem, s), solve_pruning(scaled, s)
        assert result.upper == expected.upper * factor
        assert np.array_equal(result.solution, expected.solution)
    heavier = solve_pruning(LayerProblem(problem.gram, problem.weight * 2.0**20), 4)
    assert np.array_equal(heavier.solution, expected.solution * 2.0**20)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    (
        ({"n_nonzero": -1}, ValueError, r"n_nonzero must be a whole number in 0\.\.3, got -1"),
        ({"n_nonzero": 4}, ValueError, r"n_nonzero must be a whole number in 0\.\.3, got 4"),
        ({"n_nonzero": 1.5}, ValueError, r"n_nonzero must be .*got 1\.5"),
        ({"n_nonzero": "2"}, TypeError, "n_nonzero must be an int"),
        ({"method": "magic"}, ValueError, "method must be one of exact, .*got 'magic'"),
        ({"max_nodes": 0}, ValueError, "max_nodes must be .*got 0"),
        ({"max_seconds": 0}, ValueError, "max_seconds must be .*got 0"),
        ({"max_seconds": float("nan")}, ValueError, "max_seconds must be .*got nan"),
        ({"problem": np.eye(3)}, TypeError, r"problem must be a LayerProblem\(gram, weight\)"),
    ),
)
def test_bad_input_is_named(change, error, message):
    arguments = {"problem": LayerProblem(np.eye(3), np.ones(3)), "n_nonzero": 1} | change
    with pytest.raises(error, match=message):
        solve_pruning(**arguments)


def test_nearly_dependent_inputs_may_hold_all_there_is_to_gain():
    """The second pivot is 1e-12 of its diagonal, and the weights are large enough to need it."""
    h = 9.9e-7
    problem = LayerProblem([[1, 1, 0], [1, 1 + h * h, h], [0, h, 2.0]], [-1e9, 1e9, 1.0])
    result = solve_pruning(problem, 2)
    assert result.upper == pytest.approx(1.0000049853226498, rel=1e-9)


def test_what_float64_cannot_tell_is_not_called_optimal():
    """Weights of 4e6 that all but cancel: the energy is below what rounding makes of them."""
    rng = np.random.default_rng(0)
    undecided = 0
    for _ in range(40):
        x = rng.normal(size=(2, 4))
        null = np.linalg.svd(x)[2][-1]
        problem = LayerProblem(x.T @ x, rng.normal(size=4) + 4e6 * null)
        for result in pruning_curve(problem)[1:4]:
            if result.proven:
                assert result.gap <= 1.01e-12 * problem.energy + 1e-10 * result.upper
            else:
                undecided += 1
                assert result.status.startswith("Undecided") and result.resolution == 0
    assert undecided > 0


@pytest.mark.parametrize("energy", [1e-50, 1e50])
def test_the_least_weights_beside_the_largest(energy):
    """No square is so small that float64 has fewer digits for it; and w'Pw may be 0 indeed."""
    rng = np.random.default_rng(0)
    for largest in (1.0, 1e45):
        for _ in range(20):
            weight = np.r_[largest, rng.uniform(1, 2, 3) * 1e-45]
            problem = LayerProblem(energy * np.eye(4), weight)
            result = solve_pruning(problem, 3)
            least = min(Fraction(x) ** 2 for x in weight) * Fraction(energy)
            assert result.upper == pytest.approx(float(least), rel=1e-15, abs=0)
            assert result.proven and result.resolution == 0
            assert verify(result, problem).kind != "refuted"
    nothing = LayerProblem([[1.0, -1.0], [-1.0, 1.0]], [1e-45, 1e-45])
    assert solve_pruning(nothing, 0).upper == 0


def test_a_search_that_ends_early_may_still_have_a_proof():
    problem = LayerProblem(
        np.eye(160), np.ones(160)
    )  # ties that rounding keeps the search from ending
    result = solve_pruning(problem, 40, max_nodes=2000)
    assert result.upper == 120.0 and result.proven and result.nodes >= 2000
    assert result.status.startswith("Optimal within 1e-10 of its error")
    fewer = solve_pruning(LayerProblem(np.eye(40) + 1.0, np.ones(40)), 10, max_nodes=200)
    assert not fewer.proven and "ran out" in fewer.status
