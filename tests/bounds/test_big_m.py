"""The paper's program: its constants are valid, and no claim of a solver is taken on trust."""

import itertools

import numpy as np
import pytest

cp = pytest.importorskip("cvxpy")

from pqlib.bounds import big_m  # noqa: E402
from pqlib.bounds.pruning import solve_pruning  # noqa: E402
from pqlib.bounds.pruning_search import Channel  # noqa: E402
from pqlib.layers.problem import LayerProblem  # noqa: E402

SOLVER = next((s for s in ("SCIP", "GUROBI") if s in cp.installed_solvers()), None)
needs_solver = pytest.mark.skipif(SOLVER is None, reason="no mixed-integer solver is installed")


def relu_problem(n, seed):
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.normal(size=(5 * n, n)) @ rng.normal(size=(n, n)), 0)
    return LayerProblem(x.T @ x, rng.normal(size=n))


def test_the_bounds_on_weights_hold_for_every_good_subset():
    for seed in range(10):
        channel = Channel(relu_problem(7, seed))
        for n_nonzero in (2, 4):
            start = channel.improved(np.zeros(7, bool), 7 - n_nonzero)
            least, most = big_m.weight_bounds(channel, channel.refit(start)[0])
            for removed in itertools.combinations(range(7), 7 - n_nonzero):
                mask = np.isin(np.arange(7), removed)
                error, d, _ = channel.refit(mask)
                if error <= channel.refit(start)[0]:
                    w_hat = (channel.weight + d)[~mask]
                    assert (least[~mask] <= w_hat).all() and (w_hat <= most[~mask]).all()


@needs_solver
@pytest.mark.parametrize("seed", range(3))
def test_a_solver_finds_the_same(seed):
    problem = relu_problem(6, seed)
    for n_nonzero in (2, 4):
        exact = solve_pruning(problem, n_nonzero)
        found = solve_pruning(problem, n_nonzero, "big_m", solver=SOLVER)
        assert found.upper == pytest.approx(exact.upper, rel=1e-5)
        assert found.lower <= exact.upper <= found.upper * (1 + 1e-10)
        assert f"{SOLVER} claims the optimum" in found.status
        assert np.count_nonzero(found.solution) <= n_nonzero


@needs_solver
def test_duplicated_inputs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 5))
    x[:, 4] = x[:, 0]
    problem = LayerProblem(x.T @ x, rng.normal(size=5))
    exact, found = (solve_pruning(problem, 2, method) for method in ("exact", "big_m"))
    assert found.upper == pytest.approx(exact.upper, rel=1e-5)


def answer(removed, claimed, status):
    def solve(channel, n_nonzero, **options):
        return removed, claimed, status

    return solve


def claims(monkeypatch, *reply):
    monkeypatch.setattr(big_m, "installed_solver", lambda solver: "SOLVER")
    monkeypatch.setattr(big_m, "solve_big_m", answer(*reply))
    problem = relu_problem(6, 0)
    return solve_pruning(problem, 3), solve_pruning(problem, 3, "big_m")


def test_a_claim_that_is_too_high_is_not_reported(monkeypatch):
    removed = np.array([True, True, True, False, False, False])
    exact, found = claims(monkeypatch, removed, 1e9, cp.OPTIMAL)
    assert found.lower <= exact.upper <= found.upper
    assert (
        "claims the optimum 1e+09" in found.status and "proven by leaps and bounds" in found.status
    )


def test_a_claim_that_is_low_is_what_is_reported(monkeypatch):
    removed = np.array([True, True, True, False, False, False])
    exact, found = claims(monkeypatch, removed, 1e-9, cp.OPTIMAL)
    assert found.lower == 1e-9 < exact.lower


def test_a_solver_that_gives_up(monkeypatch):
    exact, found = claims(monkeypatch, None, np.nan, "infeasible")
    assert found.solution is None and found.upper == np.inf and found.lower == exact.lower
    assert "SOLVER returned no solution (infeasible)" in found.status
    removed = np.array([True, True, True, False, False, False])
    _, found = claims(monkeypatch, removed, np.nan, cp.USER_LIMIT)
    assert "claims no optimum" in found.status and found.solution is not None


def test_solvers_that_are_not_there_are_named(monkeypatch):
    with pytest.raises(ValueError, match=r"solver must be an installed one of .*got 'HIGHS'"):
        solve_pruning(relu_problem(4, 0), 2, "big_m", solver="HIGHS")
    monkeypatch.setattr(cp, "installed_solvers", lambda: ["CLARABEL"])
    with pytest.raises(ValueError, match=r"pip install 'pqlib\[bounds\]'"):
        solve_pruning(relu_problem(4, 0), 2, "big_m")


def test_nothing_left_to_solve(monkeypatch):
    monkeypatch.setattr(big_m, "installed_solver", lambda solver: "SOLVER")
    problem = relu_problem(4, 0)
    for n_nonzero, expected in ((0, problem.energy), (4, 0.0)):
        found = solve_pruning(problem, n_nonzero, "big_m")
        assert found.upper == pytest.approx(expected) and found.proven
