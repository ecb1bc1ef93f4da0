"""The second proof of a pruned channel: it confirms what is optimal, and nothing else."""

import ast
import inspect

import numpy as np
import pytest
from pruning_cases import INPUTS, WEIGHTS, brute_force, make
from relu_cases import relu_gram

from pqlib.bounds import pruning_proof, pruning_proof_kernels
from pqlib.bounds.pruning import solve_pruning
from pqlib.bounds.pruning_proof import reprove_pruning
from pqlib.layers.problem import LayerProblem


def check(problem):
    """Brute force's optimum is confirmed; what is worse than it is refuted."""
    optima = brute_force(problem)
    slack = 1e-13 * problem.energy + 1e-15 * np.diag(problem.gram) @ problem.weight**2
    for s, optimum in enumerate(optima):
        assert reprove_pruning(problem, s, optimum), (s, optimum)
        assert reprove_pruning(problem, s, optimum * 0.7)
        worse = optimum * (1 + 1e-8) + 3 * slack
        assert reprove_pruning(problem, s, worse) is bool(worse == 0), (s, optimum)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_it_agrees_with_brute_force(inputs, weights):
    for n in (1, 2, 5, 7):
        check(make(inputs, weights, n, seed=n))


@pytest.mark.slow
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_it_agrees_with_brute_force_on_many_more(inputs, weights):
    for seed in range(100, 112):
        for n in (3, 6, 8, 9):
            check(make(inputs, weights, n, seed))
    check(make(inputs, weights, 11, 100))


def relu_problem(n, condition, seed):
    rng = np.random.default_rng(seed)
    return LayerProblem(relu_gram(rng, n, condition), rng.normal(size=n))


def exchanges(problem, solution):
    """Errors of all supports that differ by one exchange, each by least squares."""
    root = np.linalg.cholesky(problem.gram).T
    kept = np.flatnonzero(solution)
    for out in kept:
        for new in np.setdiff1d(np.arange(problem.n), kept):
            part = root[:, np.r_[np.setdiff1d(kept, [out]), new]]
            fitted = part @ np.linalg.lstsq(part, root @ problem.weight)[0]
            yield float(np.sum((fitted - root @ problem.weight) ** 2))


@pytest.mark.parametrize("condition", (1.0, 1e1, 1e3, 1e5))
@pytest.mark.parametrize("n", (16, 24, 36))
def test_optima_are_confirmed_and_the_next_best_is_not(n, condition):
    problem = relu_problem(n, condition, seed=n)
    for s in (1, n // 4, n // 2, n - 2):
        result = solve_pruning(problem, s)
        assert reprove_pruning(problem, s, result.upper)
        second = min(exchanges(problem, result.solution))
        noise = 2e-13 * problem.energy
        assert second > result.upper + noise
        assert reprove_pruning(problem, s, second) is False
        assert reprove_pruning(problem, s, result.upper * (1 + 1e-9) + noise) is False


def test_heuristics_that_fall_short_are_refuted():
    refuted = 0
    for seed in range(30):
        problem = relu_problem(20, 1e3, seed)
        exact, found = (solve_pruning(problem, 7, method) for method in ("exact", "backward"))
        optimal = found.upper <= exact.upper * (1 + 1e-10)
        assert reprove_pruning(problem, 7, found.upper) is optimal
        refuted += not optimal
    assert refuted > 1


def test_ties_and_independent_inputs_take_few_nodes():
    for n, s in ((40, 20), (64, 20)):
        problem = LayerProblem(np.eye(n), np.ones(n))
        assert reprove_pruning(problem, s, n - s, max_nodes=10)
        assert reprove_pruning(problem, s, (n - s) * (1 + 1e-9), max_nodes=100) is False


def test_all_nothing_and_dead_inputs():
    problem = relu_problem(6, 1e2, 0)
    assert reprove_pruning(problem, 0, problem.energy)
    assert reprove_pruning(problem, 0, problem.energy * (1 + 1e-9)) is False
    assert reprove_pruning(problem, 6, 0.0)
    assert reprove_pruning(problem, 6, 1e-9 * problem.energy) is False
    assert reprove_pruning(LayerProblem(np.zeros((3, 3)), np.ones(3)), 1, 0.0)
    assert reprove_pruning(LayerProblem(np.eye(3), np.zeros(3)), 1, 0.0)
    gram = np.zeros((5, 5))
    gram[1:3, 1:3] = [[2, 1], [1, 2]]
    partly_dead = LayerProblem(gram, [5.0, 1.0, 2.0, 7.0, 9.0])
    assert reprove_pruning(partly_dead, 1, 1.5)
    assert reprove_pruning(partly_dead, 1, 1.5001) is False
    assert reprove_pruning(partly_dead, 4, 0.1) is False


@pytest.mark.parametrize("power", (-140, 140))
def test_powers_of_two_change_nothing(power):
    problem = relu_problem(8, 1e3, 1)
    optimum = solve_pruning(problem, 3).upper
    scaled = LayerProblem(problem.gram * 2.0**power, problem.weight)
    assert reprove_pruning(scaled, 3, optimum * 2.0**power)
    assert reprove_pruning(scaled, 3, optimum * (1 + 1e-9) * 2.0**power) is False


def test_nodes_may_run_out():
    problem = relu_problem(36, 1e4, 2)
    optimum = solve_pruning(problem, 10).upper
    assert reprove_pruning(problem, 10, optimum, max_nodes=5) is None


def test_the_bound_holds_and_rounding_is_small():
    for seed in range(20):
        for condition in (1e1, 1e5):
            problem = relu_problem(9, condition, seed)
            optima = brute_force(problem)
            for s in (2, 4):
                _, loss = pruning_proof._loss(problem.gram, problem.weight, s, optima[s])
                assert 0 < loss < 1e-6 * optima[s]
                p, b, d, z, energy, *_ = pruning_proof._root(problem.gram, problem.weight, s, 1e-14)
                bound, relaxed, _ = pruning_proof_kernels.dual_bound(
                    p[0], b[0], d[0], z[0], energy[0], s, np.empty(9)
                )
                assert bound <= optima[s] * (1 + 1e-9)
                assert bound <= relaxed * (1 + 1e-9)
                assert np.linalg.eigvalsh(problem.gram - np.diag(d[0]))[0] > -1e-12


def test_it_shares_nothing_with_the_search():
    tree = ast.parse(inspect.getsource(pruning_proof) + inspect.getsource(pruning_proof_kernels))
    found = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    ours = {f"{n.module}.{a.name}" for n in found if "pqlib" in n.module for a in n.names}
    assert {m for m in ours if "bounds" in m} == {"pqlib.bounds.pruning_proof_kernels"}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    (
        ({"problem": np.eye(3)}, TypeError, r"problem must be a LayerProblem\(gram, weight\)"),
        ({"n_nonzero": 4}, ValueError, r"n_nonzero must be a whole number in 0\.\.3, got 4"),
        ({"upper": float("nan")}, ValueError, "upper must be a finite number .*got nan"),
        ({"upper": -1.0}, ValueError, r"upper must be .*got -1\.0"),
        ({"max_nodes": 0}, ValueError, "max_nodes must be .*got 0"),
    ),
)
def test_bad_input_is_named(change, error, message):
    arguments = {"problem": LayerProblem(np.eye(3), np.ones(3)), "n_nonzero": 1, "upper": 2.0}
    with pytest.raises(error, match=message):
        reprove_pruning(**(arguments | change))
