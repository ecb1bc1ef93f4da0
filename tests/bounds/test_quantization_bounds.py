"""Lower bounds: below the optimum whatever the dual point, and as good as the programs say."""

import sys

import numpy as np
import pytest

from pqlib.bounds.quantization import solve_quantization
from pqlib.bounds.quantization_bounds import certified_lower, sdp_dual
from pqlib.layers.problem import LayerProblem

BOUNDS = ("box_qp", "sdp", "sdp_box")


def problem_of(seed, n, spread=1.0, n_samples=40):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_samples, n)) @ rng.normal(size=(n, n))
    return LayerProblem(x.T @ x, spread * rng.normal(size=n))


@pytest.fixture
def cp():
    return pytest.importorskip("cvxpy")


def test_any_dual_point_is_a_bound():
    """Multipliers that no solver would return, x and a anywhere: valid, if useless."""
    rng = np.random.default_rng(0)
    useful = 0
    for seed in range(400):
        n, n_bits = int(rng.integers(1, 6)), int(rng.integers(2, 5))
        problem = problem_of(seed, n, rng.choice([0.3, 1, 5]), int(rng.choice([2, 40])))
        scale = float(np.exp(rng.uniform(-2, 0)))
        optimum = solve_quantization(problem, n_bits, scale).upper
        size = scale**2 * np.trace(problem.gram) * 10.0 ** rng.uniform(-4, 1)
        t = problem.weight / scale
        dual = np.stack(
            [
                size * rng.normal(size=n),
                size * rng.normal(size=n),
                t + rng.normal(size=n) * 10.0 ** rng.uniform(-3, 1),
                np.floor(t) + rng.integers(-2, 3, n),
            ]
        )
        lower = certified_lower(problem, n_bits, scale, dual)
        assert 0 <= lower <= optimum * (1 + 1e-12)
        useful += lower > 0
    assert useful > 5


@pytest.mark.parametrize("n_bits", [2, 3, 4, 8])
def test_bounds_are_below_the_optimum(cp, n_bits):
    for seed in range(12):
        problem = problem_of(seed, 1 + seed % 8, 2.0, 40 if seed % 3 else 4)
        scale = 2.0 ** (2 - n_bits)
        exact = solve_quantization(problem, n_bits, scale)
        lower = {}
        for method in BOUNDS:
            result = solve_quantization(problem, n_bits, scale, method)
            assert result.solution is None and result.upper == np.inf
            assert result.lower == certified_lower(problem, n_bits, scale, result.dual)
            assert (result.method, result.n_bits, result.scale) == (method, n_bits, scale)
            assert result.resolution <= 1e-13 * problem.energy
            assert result.lower <= exact.upper * (1 + 1e-12)
            lower[method] = result.lower
        assert lower["sdp_box"] >= max(lower["sdp"], lower["box_qp"]) - 1e-5 * exact.upper


def eq_6(cp, p, q, as_printed=False):
    """The paper's eq 6, bounding eq 5's (1/2) z' P z - q' z over whole z; corrected or not."""
    lam, gamma = cp.Variable(q.size, nonneg=True), cp.Variable((1, 1))
    square, side = p / 2 - cp.diag(lam), (lam - q) / 2
    if as_printed:
        square, side = p - cp.diag(lam), q + lam / 2
    side = cp.reshape(side, (q.size, 1), order="C")
    program = cp.Problem(
        cp.Minimize(gamma[0, 0]), [cp.bmat([[square, side], [side.T, gamma]]) >> 0]
    )
    program.solve(solver=cp.CLARABEL)
    return -program.value


@pytest.mark.parametrize("seed", range(5))
def test_bound_is_eq_6_corrected_and_shifted(cp, seed):
    """As printed eq 6 bounds twice the problem, so that the error's bound is below 0: useless."""
    problem, scale = problem_of(seed, 5), 0.4
    lower = solve_quantization(problem, 4, scale, "sdp").lower
    optimum = solve_quantization(problem, 4, scale).upper
    p, t = 2 * scale**2 * problem.gram, problem.weight / scale
    bounds = {}
    for origin in (np.zeros(5), np.floor(t)):
        tau = t - origin
        for as_printed in (False, True):
            bound = eq_6(cp, p, p @ tau, as_printed) + tau @ p @ tau / 2
            bounds[bool(origin.any()), as_printed] = bound
    assert lower == pytest.approx(bounds[True, False], rel=1e-5)
    assert 0.3 * optimum < lower < optimum
    assert bounds[False, False] < 0.8 * lower  # it helps only after the shift
    assert bounds[True, True] < 0 and bounds[False, True] < 0


def test_the_box_tightens_where_it_binds(cp):
    for seed in range(6):
        problem = problem_of(seed, 6, 3.0)
        plain, tight = (
            solve_quantization(problem, 2, 0.8, method).lower for method in ("sdp", "sdp_box")
        )
        optimum = solve_quantization(problem, 2, 0.8).upper
        assert plain < 0.9 * tight and tight <= optimum


def test_an_infeasible_dual_is_deflated(cp):
    """Multipliers beyond what P carries overstate L at x; what is certified stays a bound."""
    for seed in range(6):
        problem = problem_of(seed, 6)
        exact, bound = (solve_quantization(problem, 4, 0.3, m) for m in ("exact", "sdp"))
        for factor in (1 + 1e-9, 1.001, 1.1, 2.0):
            dual = bound.dual.copy()
            dual[0] *= factor
            assert certified_lower(problem, 4, 0.3, dual) <= exact.upper
        # midway between levels a multiplier adds a quarter of itself to L: any bound, if believed
        lam, zeros, a = 100 * bound.dual[0], bound.dual[1], bound.dual[3]
        middle = a + 0.5
        claimed = problem.error(0.3 * middle) + lam.sum() / 4
        assert claimed > 2 * exact.upper
        assert certified_lower(problem, 4, 0.3, [lam, zeros, middle, a]) < bound.lower


def test_one_weight_is_bounded_exactly(cp):
    """0.3 of the way from one level to the next the error is 0.09; beyond the box it is more."""
    inside = LayerProblem([[2.0]], [1.3])
    outside = LayerProblem([[2.0]], [5.3])
    assert solve_quantization(inside, 3, 1.0, "sdp").lower == pytest.approx(0.18, rel=1e-6)
    assert solve_quantization(inside, 3, 1.0, "box_qp").lower == 0.0
    assert solve_quantization(outside, 3, 1.0, "sdp").lower == pytest.approx(0.18, rel=1e-6)
    for method in ("box_qp", "sdp_box"):  # 3 is the largest of 3 bits
        lower = solve_quantization(outside, 3, 1.0, method).lower
        assert lower == pytest.approx(2 * 2.3**2, rel=1e-6)


@pytest.mark.parametrize("box", [False, True])
def test_bound_is_that_of_the_primal_program(cp, box):
    """Written the other way: Park and Boyd's relaxation over X, in z, with strong duality."""
    for seed in range(4):
        problem = problem_of(seed, 5, 1.5)
        n_bits, scale = 3, 0.7
        t, gram = problem.weight / scale, scale**2 * problem.gram
        unit = float(np.max(gram))
        moments = cp.Variable((6, 6), PSD=True)
        x, corner = moments[:5, 5], cp.diag(moments)[:5]
        a = np.clip(np.floor(t), -4, 2) if box else np.floor(t)
        # (z - a)(z - a - 1) >= 0
        limits = [moments[5, 5] == 1, corner - cp.multiply(2 * a + 1, x) + a * (a + 1) >= 0]
        if box:  # (z + 4)(z - 3) <= 0
            limits.append(corner + x - 12 <= 0)
        error = cp.trace((gram / unit) @ moments[:5, :5]) - 2 * (t @ gram / unit) @ x
        program = cp.Problem(cp.Minimize(error + t @ gram @ t / unit), limits)
        program.solve(solver=cp.CLARABEL)
        method = "sdp_box" if box else "sdp"
        lower = solve_quantization(problem, n_bits, scale, method).lower
        assert lower == pytest.approx(program.value * unit, rel=2e-4)  # the solver's own


def test_a_solver_that_overstates_is_not_believed(cp, monkeypatch):
    problem = problem_of(3, 6)
    honest = solve_quantization(problem, 4, 0.3, "sdp")
    exact = solve_quantization(problem, 4, 0.3)
    solve = cp.Problem.solve

    def overstate(self, *arguments, **keywords):
        solve(self, *arguments, **keywords)
        for variable in self.variables():
            variable.save_value(variable.value * 1.3)

    monkeypatch.setattr(cp.Problem, "solve", overstate)
    fooled = solve_quantization(problem, 4, 0.3, "sdp")
    assert 0 < fooled.lower <= honest.lower * (1 + 1e-6) <= exact.upper

    def fail(self, *arguments, **keywords):
        raise cp.SolverError("no")

    monkeypatch.setattr(cp.Problem, "solve", fail)
    assert solve_quantization(problem, 4, 0.3, "sdp").lower == 0.0


def naive_park_boyd(problem, n_bits, scale, rng):
    """Park and Boyd 2017, section 4, as the paper clips it: sample, round, clip, 1-opt; the best.

    The relaxation is shifted by a; its matrix is [X, x; x', 1].
    """
    n, low, high = problem.n, -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    dual, moments = sdp_dual(problem, n_bits, scale, box=False)
    x, a = moments[:n, n], dual[3]
    values, vectors = np.linalg.eigh(moments[:n, :n] - np.outer(x, x))
    factor = vectors @ np.diag(np.sqrt(np.maximum(values, 0)))
    best = None
    for _ in range(3 * n):
        z = a + x + factor @ rng.normal(size=n)
        z = [min(max(round(v), low), high) for v in z]
        while True:  # 1-opt: the best step of one coordinate, while one lowers the error
            steps = [z]
            for i in range(n):
                for move in (-1, 1):
                    near = z.copy()
                    near[i] += move
                    if low <= near[i] <= high:
                        steps.append(near)
            errors = [problem.error(scale * np.array(y)) for y in steps]
            if min(errors) >= errors[0] * (1 - 1e-12):
                break
            z = steps[int(np.argmin(errors))]
        if best is None or errors[0] < best[0]:
            best = errors[0], z
    return best[1]


def test_park_boyd_is_the_algorithm_of_its_paper(cp):
    for seed in range(8):
        n_bits, scale = ((2, 0.8), (3, 0.5), (4, 0.4), (8, 0.03))[seed % 4]
        problem = problem_of(seed, 4 + seed % 3, 1.5)
        expected = naive_park_boyd(problem, n_bits, scale, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        result = solve_quantization(problem, n_bits, scale, "park_boyd", rng=rng)
        assert result.integers.tolist() == expected


def test_park_boyd(cp):
    for seed in range(6):
        problem = problem_of(seed, 8, 2.0)
        for n_bits, scale in ((2, 0.8), (4, 0.4)):
            exact = solve_quantization(problem, n_bits, scale)
            runs = [
                solve_quantization(
                    problem, n_bits, scale, "park_boyd", rng=np.random.default_rng(1)
                )
                for _ in range(2)
            ]
            assert np.array_equal(runs[0].integers, runs[1].integers)
            assert np.all(abs(runs[0].integers + 0.5) <= 2 ** (n_bits - 1) - 0.5)
            assert runs[0].upper == problem.error(scale * runs[0].integers)
            assert exact.lower <= runs[0].upper <= 4 * exact.upper
            assert runs[0].lower <= exact.upper <= runs[0].upper * (1 + 1e-10)
            assert (runs[0].n_bits, runs[0].scale) == (n_bits, scale)
            bound = solve_quantization(problem, n_bits, scale, "sdp").lower
            assert runs[0].lower >= bound
            z = runs[0].integers  # 1-opt: no step of one coordinate lowers the error
            for i in range(8):
                for move in (-1, 1):
                    near = z + move * (np.arange(8) == i)
                    if -(2 ** (n_bits - 1)) <= near[i] < 2 ** (n_bits - 1):
                        assert problem.error(scale * near) >= runs[0].upper * (1 - 1e-9)


def test_dead_inputs_and_no_inputs_at_all(cp):
    problem = LayerProblem(np.diag([1.0, 0.0]), [0.3, 7.0])
    nothing = LayerProblem(np.zeros((2, 2)), [0.3, 7.0])
    for method in (*BOUNDS, "park_boyd"):
        rng = np.random.default_rng(0)
        lower = solve_quantization(problem, 3, 1.0, method, rng=rng).lower
        assert lower <= 0.09 * (1 + 1e-12)
        assert lower >= 0.0899 or method == "box_qp"
        assert solve_quantization(nothing, 3, 1.0, method, rng=rng).lower == 0.0


def test_without_cvxpy_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    for method in ("sdp", "sdp_box", "park_boyd"):
        with pytest.raises(ImportError, match="pip install cvxpy clarabel"):
            solve_quantization(problem_of(0, 2), 4, 1.0, method, rng=np.random.default_rng(0))
    assert solve_quantization(problem_of(0, 2), 4, 1.0, "box_qp").lower >= 0


@pytest.mark.parametrize("dual", [np.zeros((3, 2)), np.zeros((4, 3)), np.full((4, 2), np.nan)])
def test_a_bad_dual_is_named(dual):
    with pytest.raises(ValueError, match="dual must be four finite rows of 2"):
        certified_lower(problem_of(0, 2), 4, 1.0, dual)


def test_the_margin_covers_a_singular_matrix():
    """M exactly singular, and indefinite by one part in 1e15: bounds stay below the optimum."""
    v = np.array([1.0, 2.0, 3.0])
    problem = LayerProblem(np.outer(v, v), [0.3, 0.2, 0.4])
    optimum = solve_quantization(problem, 3, 1.0).upper
    for lam in (0.0, 1e-15, 1e-12, 1e-3, 1.0):
        dual = np.stack([np.full(3, lam), np.zeros(3), problem.weight, np.zeros(3)])
        assert certified_lower(problem, 3, 1.0, dual) <= optimum


def test_relaxation_of_a_singular_problem(cp):
    v = np.array([1.0, 2.0, 3.0])
    problem = LayerProblem(np.outer(v, v), [0.3, 0.2, 0.4])
    dual, moments = sdp_dual(problem, 3, 1.0, box=True)
    assert certified_lower(problem, 3, 1.0, dual) <= solve_quantization(problem, 3, 1.0).upper
    assert moments.shape == (4, 4)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"n_bits": 0}, ValueError, "n_bits must be a whole number in 2..16, got 0"),
        ({"n_bits": 2.5}, ValueError, "n_bits must be a whole number"),
        ({"n_bits": "3"}, TypeError, "n_bits must be an int"),
        ({"problem": 3}, TypeError, "problem must be a LayerProblem"),
    ],
)
def test_a_certificate_of_nothing_is_refused(change, error, text):
    given = {"problem": LayerProblem([[1.0]], [0.5]), "n_bits": 4, "scale": 1.0}
    with pytest.raises(error, match=text):
        certified_lower(**given | change, dual=np.zeros((4, 1)))
