"""verify: what it confirms, and the lies it does not believe."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from relu_cases import relu_gram

from pqlib import LayerProblem, Result, pruning_curve, solve_pruning, solve_quantization, verify
from pqlib.bounds.quantization_bounds import certified_lower

N_BITS, SCALE = 3, 0.4


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(1)
    return LayerProblem(relu_gram(rng, 14, 1e3), rng.normal(size=14))


@pytest.fixture(scope="module")
def quantized(problem):
    return solve_quantization(problem, N_BITS, SCALE)


@pytest.fixture(scope="module")
def pruned(problem):
    return solve_pruning(problem, 6)


def test_an_optimum_is_reproved(problem, quantized, pruned):
    for result in (quantized, pruned):
        certificate = verify(result, problem)
        assert certificate.kind == "re-proved", certificate
        assert result.upper * (1 - 1e-9) <= certificate.lower <= result.upper


def test_a_curve_is_reproved(problem):
    kinds = [verify(result, problem).kind for result in pruning_curve(problem)]
    assert kinds == ["re-proved"] * problem.n + ["dual"]  # no error at all


@pytest.mark.parametrize("method", ["nearest", "feedback", "box_qp"])
def test_a_dual_is_recomputed(problem, method):
    result = solve_quantization(problem, N_BITS, SCALE, method)
    certificate = verify(result, problem)
    assert certificate.kind == "dual"
    assert certificate.lower == pytest.approx(result.lower, rel=1e-12)


@pytest.mark.parametrize("method", ["magnitude", "magnitude_refit", "backward"])
def test_a_heuristic_of_pruning_is_feasible_only(problem, method):
    certificate = verify(solve_pruning(problem, 6, method), problem)
    assert (certificate.kind, certificate.lower) == ("feasible only", 0.0)


def test_an_interval_is_checked_too(problem, quantized, pruned):
    """A bound that holds is confirmed, whether a dual or a second search shows it."""
    bounded = replace(pruned, lower=0.9 * pruned.upper, status="Stopped")
    assert verify(bounded, problem).kind == "re-proved"
    bounded = replace(quantized, lower=0.9 * quantized.upper, dual=None)
    assert verify(bounded, problem).kind == "re-proved"


def test_nodes_may_not_suffice(problem, quantized, pruned):
    for result in (quantized, pruned):
        certificate = verify(result, problem, max_nodes=1)
        assert certificate.kind == "feasible only"
        assert "its 1 nodes ran out" in certificate.status


def worse(result, problem):
    """Lies about ``result``: what each claims, and what gives it away."""
    grown = replace(result, upper=result.upper * 1.001, lower=result.upper * 1.001, dual=None)
    yield replace(result, upper=result.upper * (1 - 1e-6)), "error of the solution"
    yield replace(result, lower=2 * result.upper), "exceeds upper"
    yield grown, "error of the solution"
    yield replace(grown, solution=None, integers=None, upper=np.inf), "exists"


def test_lies_are_refuted(problem, quantized, pruned):
    for result in (quantized, pruned):
        for lie, message in worse(result, problem):
            certificate = verify(lie, problem)
            assert certificate.kind == "refuted", (message, certificate)
            assert message in certificate.status


def test_heuristics_called_optimal_are_refuted(problem, quantized, pruned):
    for optimum, lazy in (
        (quantized, solve_quantization(problem, N_BITS, SCALE, "nearest")),
        (pruned, solve_pruning(problem, 6, "magnitude_refit")),
    ):
        assert lazy.upper > optimum.upper * (1 + 1e-6)
        lie = replace(lazy, lower=lazy.upper, method="exact")
        assert verify(lie, problem).kind == "refuted"


def test_infeasible_solutions_are_refuted(problem, quantized, pruned):
    assert "non-zeros" in verify(replace(pruned, n_nonzero=5), problem).status
    z = np.where(np.arange(14) == 3, 9, quantized.integers)
    beyond = replace(quantized, integers=z, solution=SCALE * z, upper=problem.error(SCALE * z))
    assert "beyond 3 bits" in verify(beyond, problem).status
    other = replace(quantized, integers=np.zeros(14, np.int64))
    assert "scale times integers" in verify(other, problem).status


def test_a_false_dual_proves_nothing(problem):
    """Multipliers too large for P leave no bound, whatever a solver said."""
    honest = solve_quantization(problem, N_BITS, SCALE, "box_qp")
    dual = honest.dual.copy()
    dual[0] = 100 * SCALE**2 * np.trace(problem.gram)
    assert verify(replace(honest, dual=dual, lower=problem.energy), problem).kind == "refuted"


def test_numbers_that_are_none_are_refuted(problem, quantized, pruned):
    for result in (quantized, pruned):
        assert verify(replace(result, upper=np.nan), problem).kind == "refuted"
        assert verify(replace(result, lower=np.nan, dual=None), problem).kind == "refuted"


def test_forged_integers_and_bounds_are_refuted(problem, quantized):
    z = quantized.integers + 0.25
    solution = SCALE * z
    forged = replace(quantized, solution=solution, upper=problem.error(solution), lower=0.0)
    object.__setattr__(forged, "integers", z)  # past the check of shapes that tests run under
    assert "whole" in verify(forged, problem).status
    nothing = LayerProblem(np.zeros((2, 2)), [1.0, 2.0])
    claim = Result("mine", 5.0, np.inf, None, "", n_bits=3, scale=1.0)
    assert verify(claim, nothing).kind == "refuted"
    assert verify(replace(claim, n_bits=None, scale=None, n_nonzero=1), nothing).kind == "refuted"
    dual = np.full((4, 14), 1e200)
    assert np.isfinite(verify(replace(quantized, dual=dual), problem).lower)


def test_what_the_second_search_cannot_resolve_is_not_called_proven():
    """w'Pw is 1, the error claimed 1e-14 and the optimum 1e-18."""
    problem = LayerProblem(np.eye(3), [1.0, 1e-7, 1e-9])
    w_hat = np.array([1.0, 0.0, 1e-9])
    error = problem.error(w_hat)
    lie = Result("exact", error, error, w_hat, "", n_nonzero=2)
    assert verify(lie, problem).kind == "feasible only"


@pytest.mark.parametrize(
    "change", [{"n_bits": 1.5}, {"n_bits": 17}, {"scale": -1.0}, {"scale": np.nan}]
)
def test_grids_that_are_none_are_named(problem, quantized, change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} of result"):
        verify(replace(quantized, **change), problem)


def test_a_bound_is_no_proof_of_a_solution(problem):
    bound = solve_quantization(problem, N_BITS, SCALE, "box_qp")
    assert bound.upper == np.inf and not bound.proven


def test_a_resolution_is_not_believed(problem, quantized):
    """However much a result says that rounding leaves open, 1e-12 of the energy is what counts."""
    z = np.clip(quantized.integers + 1, -4, 3)
    upper = problem.error(SCALE * z)
    lower = 0.9 * quantized.upper
    lie = replace(quantized, integers=z, solution=SCALE * z, upper=upper, lower=lower, dual=None)
    certificate = verify(replace(lie, resolution=upper - lower), problem)
    assert "optimal" not in certificate.status and certificate.lower <= lower


@pytest.mark.parametrize(
    ("weight", "n_bits", "scale", "integer", "solution"),
    [
        (-68.5, 4, np.int8(100), np.int8(7), -68.0),  # 700 in 8 bits is -68
        (44.3, 4, np.uint8(100), np.uint8(3), 44.0),
        (0.6997070322, 4, np.float16(0.1), np.int8(7), 0.69970703125),  # 7 times 0.1 in 16 bits
    ],
)
def test_narrow_kinds_do_not_compute_in_their_own_precision(
    weight, n_bits, scale, integer, solution
):
    """np.array_equal(solution, scale * integers) holds for each of these, and is wrong."""
    problem, w_hat, z = LayerProblem([[1.0]], [weight]), np.array([solution]), np.array([integer])
    error = problem.error(w_hat)
    with np.errstate(over="ignore"):
        assert np.array_equal(w_hat, scale * z)
    lie = Result("exact", error, error, w_hat, "", n_bits=n_bits, scale=scale)
    object.__setattr__(lie, "integers", z)  # past the check of kinds that tests run under
    assert verify(lie, problem).kind == "refuted"


def test_narrow_errors_are_compared_in_full():
    """In 16 bits 1.0004 and 1 are the same."""
    problem = LayerProblem(np.eye(2), [3.0, 1.0002])
    honest = solve_pruning(problem, 1)
    assert verify(replace(honest, upper=np.float16(1.0), lower=1.0), problem).kind == "refuted"
    for narrow in (np.int8(8), np.uint8(8)):  # -2^7 is beyond both
        result = replace(solve_quantization(problem, 8, 0.02), n_bits=narrow)
        assert verify(result, problem).kind in ("dual", "re-proved")
    with pytest.raises(ValueError, match="upper of result must be a float64"):
        verify(replace(honest, upper=Fraction(1, 3)), problem)


def test_integers_that_compare_with_nothing_are_none():
    """NaT is below and above no end of the box, and -2^63 as an integer."""
    problem, w_hat = LayerProblem([[1.0]], [-8.00001]), np.array([-8.0])
    lie = Result("exact", *[problem.error(w_hat)] * 2, w_hat, "", n_bits=4, scale=2.0**-40)
    object.__setattr__(lie, "integers", np.array(["NaT"], "m8[s]"))
    certificate = verify(lie, problem)
    assert certificate.kind == "refuted" and "no whole numbers" in certificate.status


@pytest.mark.parametrize("kind", [np.longdouble, object])
def test_solutions_are_not_rounded_to_feasible_ones(pruned, problem, kind):
    """In float64 what is added is 0: the weights removed would seem to be."""
    solution = pruned.solution.astype(kind) + (Fraction(1, 2**3000) if kind is object else 0)
    lie = replace(pruned)
    object.__setattr__(lie, "solution", solution)
    with pytest.raises(ValueError, match="solution of result must be an array of float64"):
        verify(lie, problem)


def test_scales_that_solvers_refuse_are_refused(problem, quantized):
    for scale, message in ((1e-46, "1e-45, 1e"), (1e-17, "scale of result=1e-17 is less than")):
        lie = replace(quantized, scale=scale)
        with pytest.raises(ValueError, match=message):
            verify(lie, problem)
    with pytest.raises(ValueError, match="1e-45, 1e"):
        certified_lower(LayerProblem([[1.0]], [1.5e-45]), 4, 1e-46, np.zeros((4, 1)))


@pytest.mark.parametrize(("n_bits", "shares"), [(4, [3, -1, -2]), (16, [30001, -10000, -20001])])
def test_how_equal_inputs_share_their_sum_may_decide(n_bits, shares):
    """Only the sum of three integers counts, but their products with 0.1 round differently."""
    scale = 0.1
    products = scale * np.array(shares)
    problem = LayerProblem(np.ones((3, 3)), [math.fsum(products), 0.0, 0.0])
    assert problem.energy > 0 == problem.error(products)
    grid = {"n_bits": n_bits, "scale": scale, "integers": np.zeros(3, int)}
    lie = Result("exact", *[problem.energy] * 2, np.zeros(3), "", **grid)
    assert "optimal" not in verify(lie, problem).status
    honest = solve_quantization(problem, n_bits, scale)
    assert verify(honest, problem).kind != "refuted"


def test_huge_weights_that_cancel_hide_no_better_solution():
    """Errors of 12 and 2 beside weights of 1e45 without any effect on the output."""
    gram = np.zeros((5, 5))
    gram[:2, :2], gram[2:, 2:] = [[1, -1], [-1, 1]], [[2, 0.5, 0], [0.5, 3, 0.25], [0, 0.25, 1]]
    problem = LayerProblem(gram, [1e45, 1e45, 1, 2, 3])
    w_hat = np.array([1e45, 1e45, 1, 0, 3])
    assert problem.error(w_hat) == 12
    lie = Result("exact", 12.0, 12.0, w_hat, "", n_nonzero=4)
    assert verify(lie, problem).kind == "refuted"


def test_another_problem_is_noticed(problem, quantized):
    other = LayerProblem(problem.gram, 2 * problem.weight)
    assert verify(quantized, other).kind == "refuted"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n_nonzero": None}, ValueError, "which problem it solved"),
        ({"n_bits": 3, "scale": 1.0}, ValueError, "which problem it solved"),
    ],
)
def test_results_must_say_what_they_solve(problem, pruned, change, error, message):
    with pytest.raises(error, match=message):
        verify(replace(pruned, **change), problem)


def test_bad_input_is_named(problem, pruned):
    with pytest.raises(TypeError, match="result must be a Result"):
        verify("optimal", problem)
    with pytest.raises(TypeError, match="problem must be a LayerProblem"):
        verify(pruned, np.eye(2))
    with pytest.raises(ValueError, match="max_nodes"):
        verify(pruned, problem, max_nodes=0)
    with pytest.raises(ValueError, match=r"n_nonzero of result must be .*0\.\.2"):
        verify(pruned, LayerProblem(np.eye(2), [1.0, 2.0]))
    with pytest.raises(ValueError, match="w_hat must have shape"):
        verify(replace(pruned, n_nonzero=2), LayerProblem(np.eye(2), [1.0, 2.0]))
    bare = Result("mine", 0.0, 1.0, np.zeros(14), "")
    with pytest.raises(ValueError, match="which problem"):
        verify(bare, problem)


def forged(problem, n_bits, scale, integers):
    """A result that calls these integers optimal."""
    z = np.asarray(integers)
    error = problem.error(scale * z)
    grid = {"n_bits": n_bits, "scale": scale}
    return Result("exact", error, error, scale * z, "", integers=z, **grid)


def test_sums_of_equal_inputs_are_not_trusted():
    """Their weights cancel, so that rounding their sum could make the second best look best."""
    rng = np.random.default_rng(0)
    refuted = 0
    for _ in range(300):
        w, scale = np.array([rng.uniform(0.1, 1), rng.uniform(1e7, 1e9), 0]), rng.uniform(0.1, 3)
        w[2] = 2.5 * scale - w[0] - w[1]
        problem = LayerProblem(np.ones((3, 3)), w)
        better, worse = sorted((problem.error([k * scale, 0, 0]), k) for k in (2, 3))
        if worse[0] > better[0] * (1 + 1e-9):
            kind = verify(forged(problem, 4, scale, [worse[1], 0, 0]), problem).kind
            assert kind != "re-proved"
            refuted += kind == "refuted"
    assert refuted > 100


@pytest.mark.parametrize(("faint", "unit"), [(1e-50, 1e-30), (1e47, 1e43)])
def test_the_ends_of_what_problems_may_hold(faint, unit):
    gram = np.array([[108, -55, 1], [-55, 39, -5], [1, -5, 35]])
    weight = np.array([6.7, 10.1, -7.4])
    large = LayerProblem(gram, weight)
    problem, scale = LayerProblem(faint * gram, unit * weight), 10 * unit
    grid = np.array(np.meshgrid(*[range(-2, 2)] * 3)).reshape(3, -1).T
    errors = np.array([problem.error(scale * z) for z in grid])
    best = np.argmin(errors)
    assert best == np.argmin([large.error(10 * z) for z in grid])
    for i in np.argsort(errors)[:4]:
        expected = "re-proved" if i == best else "refuted"
        assert verify(forged(problem, 2, scale, grid[i]), problem).kind == expected


def test_bounds_without_a_solution_and_resolutions_are_checked(problem, quantized):
    bound = solve_quantization(problem, N_BITS, SCALE, "box_qp")
    for upper in (np.nan, -5.0, 0.5 * quantized.upper):
        assert verify(replace(bound, upper=upper), problem).kind == "refuted"
    for resolution in (-1e-3, np.nan, 1e9):
        assert verify(replace(quantized, resolution=resolution), problem).kind == "refuted"
    weak = LayerProblem(np.diag([1.0, 1e-6]), [30000.01, 19999.98])
    best = solve_quantization(weak, 16, 1.0)
    worse = forged(weak, 16, 1.0, best.integers + np.array([0, 1]))
    allowed = 1e-12 * weak.energy
    assert verify(replace(worse, resolution=allowed), weak).kind == "refuted"
    assert verify(replace(best, integers=None), weak).kind == "refuted"


@pytest.mark.parametrize("row", (0, 1))
@pytest.mark.parametrize(("size", "multiplier"), ((1e-50, 1e150), (1e-5, 1e305), (1, 1e90)))
def test_a_huge_dual_ends(size, multiplier, row):
    problem = LayerProblem(size * np.array([[2.0, 1], [1, 2]]), [1.3, 0.4])
    result = solve_quantization(problem, 3, 1.0)
    dual = result.dual.copy()
    dual[row] = multiplier
    assert verify(replace(result, dual=dual), problem).kind == "re-proved"


def test_rank_one_optima_are_confirmed():
    """Errors of 1e-27 beside weights of 1e3: the error is the solution's own to all digits."""
    x, rng = np.array([1.0, 1, 1, -1, 2]), np.random.default_rng(0)
    for _ in range(100):
        problem = LayerProblem(np.outer(x, x), rng.normal(size=5) * 10.0 ** rng.uniform(-4, 3, 5))
        assert verify(solve_pruning(problem, 1), problem).kind != "refuted"
