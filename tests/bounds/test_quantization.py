"""Exact integer least squares against brute force; heuristics; budgets; bad input."""

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from relu_cases import relu_gram

from pqlib import optimal_scale
from pqlib.bounds import lattice, tree_kernels
from pqlib.bounds.chunk import chunk_of
from pqlib.bounds.quantization import solve_quantization
from pqlib.bounds.quantization_bounds import certified_lower
from pqlib.layers.problem import LayerProblem

QUICK = ("exact", "nearest", "feedback", "box_qp")


@cache
def box(n_bits, n):
    levels = np.arange(-(2 ** (n_bits - 1)), 2 ** (n_bits - 1))
    return np.stack(np.meshgrid(*[levels] * n, indexing="ij"), axis=-1).reshape(-1, n)


def exactly(problem, scale, z):
    """The error in rational arithmetic, of the weights scale * z as float64 rounds them."""
    w_hat = (scale * np.asarray(z)).tolist()
    d = [Fraction(a) - Fraction(b) for a, b in zip(w_hat, problem.weight.tolist(), strict=True)]
    rows = [[Fraction(p) for p in row] for row in problem.gram.tolist()]
    return sum(
        a * p * b for a, row in zip(d, rows, strict=True) for p, b in zip(row, d, strict=True)
    )


def brute_force(problem, n_bits, scale):
    """The least error over the whole box, rational: float64 leaves only the close ones."""
    z = box(n_bits, problem.n)
    d = scale * z - problem.weight
    errors = np.einsum("ij,ij->i", d @ problem.gram, d)
    noise = 1e-15 * problem.n * np.max(np.einsum("ij,ij->i", abs(d) @ abs(problem.gram), abs(d)))
    close = np.flatnonzero(errors <= errors.min() * (1 + 1e-9) + noise)
    close = close[np.argsort(errors[close], kind="stable")][:40]
    return max(min(exactly(problem, scale, z[i]) for i in close), Fraction(0))


def correlated(rng, n, condition, n_samples=40):
    rotation = np.linalg.qr(rng.normal(size=(n, n)))[0]
    return rng.normal(size=(n_samples, n)) * condition ** -np.linspace(0, 0.5, n) @ rotation


def instance(kind, rng, n, n_bits):
    """A problem and a scale; most boxes bind at 2 and 3 bits, and all of kind "binding" do."""
    w = rng.normal(size=n)
    x = correlated(rng, n, 10.0 ** rng.uniform(0, 3))
    scale = float(np.exp(rng.uniform(-1, 1)) * 2.0 ** (1 - n_bits))
    if kind == "ill-conditioned":
        x = correlated(rng, n, 10.0 ** rng.uniform(3, 14))
    elif kind == "nearly equal":
        x = rng.normal(size=(40, 1)) + 10.0 ** rng.uniform(-8, -1) * x
    elif kind == "rank-deficient":
        x = x[: rng.integers(1, n + 1)]
    elif kind == "duplicated":
        x = x[:, rng.integers(0, n, n)]
    elif kind == "dead":
        x = x * rng.integers(0, 2, n)
    elif kind == "unequal":
        x = x * 10.0 ** rng.uniform(-6, 0, n)
    elif kind == "binding":
        w = w * 10
    elif kind == "far outside":
        w = w * 1e5
    elif kind == "exact":
        w = scale * rng.integers(-(2 ** (n_bits - 1)), 2 ** (n_bits - 1), n)
    gram = x.T @ x
    if kind == "equal weights":
        gram, w = np.eye(n) + rng.uniform(0, 5), np.full(n, rng.normal())
    elif kind == "ties":
        w, scale = rng.choice([-1.5, -0.5, 0.0, 0.5, 2.5], n), 1.0
    elif kind == "identity":
        gram = np.eye(n)
        w = rng.choice([-1.5, -0.5, 0.0, 0.5, 2.5], n) if rng.integers(2) else w
        scale = 1.0
    elif kind == "same rows":
        which = rng.integers(0, n, n)
        gram = gram[np.ix_(which, which)]
    return LayerProblem((gram + gram.T) / 2, w), scale


KINDS = (
    *("plain", "ill-conditioned", "nearly equal", "rank-deficient", "duplicated", "same rows"),
    *("dead", "unequal", "binding", "far outside", "exact", "equal weights", "ties", "identity"),
)


def check(problem, n_bits, scale):
    """What holds on every solve, with the optimum from brute force."""
    optimum = brute_force(problem, n_bits, scale)
    results = {m: solve_quantization(problem, n_bits, scale, m) for m in QUICK}
    exact = results["exact"]
    found = max(exactly(problem, scale, exact.integers), Fraction(0))
    # an optimum of 0 may come back as the rounding of sums of equal inputs' weights
    unit = max(optimum, Fraction(1e-12) * Fraction(problem.energy))
    assert found - optimum <= Fraction(1e-10) * unit
    assert exact.upper == problem.error(exact.solution)
    for method, result in results.items():
        assert (result.method, result.n_bits, result.scale) == (method, n_bits, scale)
        assert result.resolution <= 1e-13 * problem.energy
        assert Fraction(result.lower) <= optimum + Fraction(1e-22) * Fraction(problem.energy), (
            method
        )
        if result.solution is None:
            assert result.upper == np.inf
            continue
        assert result.lower <= result.upper
        assert np.array_equal(result.solution, scale * result.integers)
        assert result.integers.min() >= -(2 ** (n_bits - 1))
        assert result.integers.max() < 2 ** (n_bits - 1)
        assert max(exactly(problem, scale, result.integers), Fraction(0)) >= optimum
        assert exact.lower <= result.upper
    assert results["box_qp"].lower == certified_lower(
        problem, n_bits, scale, results["box_qp"].dual
    )
    assert exact.proven and exact.resolution <= 1e-13 * problem.energy
    return exact


@pytest.mark.parametrize("kind", KINDS)
def test_exact_is_brute_force(kind):
    rng = np.random.default_rng(KINDS.index(kind))
    proven = 0
    for _ in range(50):
        n_bits = int(rng.integers(2, 9))
        n = int(rng.integers(1, 12 // n_bits + 1))
        proven += check(*_args(kind, rng, n, n_bits)).proven
    assert proven >= 25  # the others' errors vanish but for rounding


def _args(kind, rng, n, n_bits):
    problem, scale = instance(kind, rng, n, n_bits)
    return problem, n_bits, scale


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_exact_is_brute_force_up_to_a_million_points(kind):
    rng = np.random.default_rng(100 + KINDS.index(kind))
    for _ in range(300):
        n_bits = int(rng.integers(2, 9))
        check(*_args(kind, rng, int(rng.integers(1, 19 // n_bits + 1)), n_bits))


def channel_of(problem, n_bits, scale):
    low, high = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    channel = lattice.Channel(chunk_of(problem.gram), problem.weight, low, high, scale)
    channel.relax()
    channel.place()
    return channel


def reports(channel, placed, keep, budget, most):
    """What one tree reports, resumed every ``budget`` nodes; False last if ``most`` ran out.

    With ``keep`` the channel keeps what is better, as a search does; without, its upper stays.
    """
    tree, place, rounding = placed
    problem = (channel.gram, channel.scale, channel.weight, channel.low, channel.high)
    state, z, nodes = lattice._root(tree, place), np.empty(channel.x.size), 0
    limits, outcome = channel._limits(rounding), None
    while outcome != 0:
        if nodes > most:
            yield False
            return
        visited, outcome = tree_kernels.search(
            problem, tree.arrays, *place, limits, state, z, channel.upper, budget
        )
        nodes += visited
        if outcome == 2:
            yield tuple(z.astype(int))
            if keep:
                channel.offer(z)


@pytest.mark.parametrize("times", [10, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_each_tree_misses_no_point(kind, times):
    """Heuristics find most optima of small problems: here the trees alone list whole ellipsoids."""
    rng = np.random.default_rng(200 + KINDS.index(kind))
    listed = complete = 0
    for _ in range(times):
        n_bits = int(rng.integers(2, 6))
        n = int(rng.integers(1, 12 // n_bits + 1))
        problem, scale = instance(kind, rng, n, n_bits)
        channel = channel_of(problem, n_bits, scale)
        if np.any(channel.chunk.counts > 1) or channel.gram.size == 0:
            continue  # other variables than the inputs'
        z = box(n_bits, channel.gram.shape[0])
        d = channel.scale * z - channel.weight
        errors = np.einsum("ij,ij->i", d @ channel.gram, d)
        noise = 1e-14 * np.einsum("ij,ij->i", abs(d) @ abs(channel.gram), abs(d)).max()
        channel.upper = float(np.quantile(errors, rng.uniform(0, 0.3)) * rng.uniform(1, 1.1))
        if channel.upper <= noise:
            continue
        sure = {tuple(v) for v in z[errors < channel.upper * (1 - 1e-10) - noise]}
        maybe = {tuple(v) for v in z[errors < channel.upper + noise]}
        trees = [*channel.placed, *channel._third_tree()]
        for placed in trees:
            found = list(reports(channel, placed, False, int(rng.integers(1, 50)), 300_000))
            points = set(found) - {False}
            assert len(points) == len(found) - (False in found)
            assert points <= maybe
            if False not in found:  # where P is nearly singular, ellipsoids far exceed the box
                assert sure <= points
                complete += 1
                listed += len(points)
    assert complete >= times / 2 or kind in ("same rows", "duplicated")
    assert listed >= 25 * times or kind in ("same rows", "duplicated", "dead")


def relu_problems(seed, n, n_bits, n_channels):
    """Correlated ReLU activations of condition 1e3, and channels at the tensor's scale."""
    rng = np.random.default_rng(seed)
    gram, weights = relu_gram(rng, n, 1e3), rng.normal(size=(n_channels, n))
    return [LayerProblem(gram, w) for w in weights], optimal_scale(weights, n_bits)


@pytest.mark.parametrize("condition", [1, 10, 1e3, 1e5])
def test_relu_grams_have_the_condition_asked_for(condition):
    for n in (1, 2, 16, 40):
        gram = relu_gram(np.random.default_rng(n), n, condition)
        assert np.linalg.cond(gram) == pytest.approx(condition if n > 1 else 1, rel=1e-6)
        assert np.array_equal(gram, gram.T)


@pytest.mark.parametrize(("n", "n_bits"), [(16, 2), (20, 3), (24, 4), (24, 8)])
def test_every_tree_proves_the_same_optimum(n, n_bits):
    """Beyond brute force: each tree alone, from rounding to nearest, in another order."""
    problems, scale = relu_problems(n + n_bits, n, n_bits, 3)
    for problem in problems:
        exact = solve_quantization(problem, n_bits, scale)
        assert exact.proven
        for which in range(3):
            channel = channel_of(problem, n_bits, scale)
            channel.offer(channel.nearest())
            trees = [*channel.placed, *channel._third_tree()]
            if which < len(trees):
                assert False not in reports(channel, trees[which], True, 10**6, 10**8)
                assert problem.error(scale * channel.best) == pytest.approx(exact.upper, rel=1e-10)


@pytest.mark.parametrize("n_bits", [2, 3, 8])
def test_budgets_give_honest_intervals(n_bits):
    (problem, *_), scale = relu_problems(5, 36, n_bits, 2)
    exact = solve_quantization(problem, n_bits, scale)
    assert exact.proven and exact.nodes > 100
    for max_nodes in (1, 10, 100, 1000):
        stopped = solve_quantization(problem, n_bits, scale, max_nodes=max_nodes)
        if stopped.proven:
            continue
        assert stopped.nodes == max_nodes
        assert stopped.status.startswith(f"Stopped after {max_nodes} nodes")
        assert stopped.lower <= exact.upper <= stopped.upper
        assert stopped.lower == certified_lower(problem, n_bits, scale, stopped.dual)
    assert not solve_quantization(problem, n_bits, scale, max_nodes=1).proven
    in_no_time = solve_quantization(problem, n_bits, scale, max_seconds=1e-9)
    assert in_no_time.lower <= exact.upper <= in_no_time.upper
    assert not in_no_time.proven
    again = solve_quantization(problem, n_bits, scale, max_nodes=10**9, max_seconds=100)
    assert np.array_equal(again.integers, exact.integers) and again.nodes == exact.nodes


def test_large_and_hard_ones_stop_in_time():
    (problem, *_), scale = relu_problems(6, 96, 3, 1)
    result = solve_quantization(problem, 3, scale, max_nodes=200_000)
    assert 0 <= result.lower <= result.upper
    assert result.proven or result.status.startswith("Stopped")


def test_all_ties_of_the_identity_are_one_node_deep():
    """2^36 optima: pruning at upper (1 - 1e-10) leaves one."""
    problem = LayerProblem(np.eye(36), np.full(36, 0.5))
    result = solve_quantization(problem, 4, 1.0)
    assert result.proven and result.upper == 9.0 and result.nodes < 2000


@pytest.mark.parametrize("scale", [0.1, 0.3, 0.7, 0.001])
def test_ties_far_from_zero_end(scale):
    """Rounding makes either of two tied integers look better than the other: not for ever."""
    for k in range(20, 127):
        result = solve_quantization(LayerProblem([[1.0]], [(k + 0.5) * scale]), 8, scale)
        assert result.proven and abs(result.integers[0] - k) <= 1


def test_equal_inputs_are_one_variable():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 6))
    gram = x.T @ x
    which = np.repeat(np.arange(6), 6)
    gram = ((gram + gram.T) / 2)[np.ix_(which, which)]
    w = rng.normal(size=36)
    result = solve_quantization(LayerProblem(gram, w), 2, 0.4)
    assert result.proven and result.nodes < 10_000
    sums = result.integers.reshape(6, 6).sum(axis=1)
    assert np.ptp(result.integers.reshape(6, 6), axis=1).max() <= 1
    assert sums.min() >= -12 and sums.max() <= 6


def test_dead_inputs_round_to_nearest():
    gram = np.diag([1.0, 0.0, 2.0, 0.0])
    result = solve_quantization(LayerProblem(gram, [0.3, 9.0, -0.9, 0.6]), 3, 1.0)
    assert result.integers.tolist() == [0, 3, -1, 1]
    nothing = solve_quantization(LayerProblem(np.zeros((2, 2)), [0.3, 1.2]), 3, 1.0)
    assert nothing.proven and nothing.upper == 0 and nothing.integers.tolist() == [0, 1]


def test_a_gram_indefinite_by_rounding():
    """What LayerProblem lets pass: P + ridge must be positive definite all the same."""
    rng = np.random.default_rng(3)
    for negative in (1e-12, 2e-10, 3e-9):
        x = rng.normal(size=(2, 4))
        gram = x.T @ x
        gram -= negative * np.max(abs(gram)) * np.eye(4)
        check(LayerProblem((gram + gram.T) / 2, rng.normal(size=4)), 3, 0.5)


def test_error_feedback_by_hand():
    """The second, cheaper one is rounded first, then the other makes up for it."""
    problem = LayerProblem([[1.0, 0.9], [0.9, 1.0]], [0.4, 0.9])
    result = solve_quantization(problem, 4, 1.0, "feedback")
    assert result.integers.tolist() == [0, 1]  # 0.4 moves to 0.31
    far = LayerProblem(problem.gram, [0.45, 1.2])
    assert solve_quantization(far, 4, 1.0, "feedback").integers.tolist() == [1, 1]  # 0.45 to 0.63


def test_feedback_beats_rounding_on_correlated_inputs():
    problems, scale = relu_problems(7, 24, 4, 20)
    ratios = [
        solve_quantization(p, 4, scale, "feedback").upper
        / solve_quantization(p, 4, scale, "nearest").upper
        for p in problems
    ]
    assert np.median(ratios) < 0.7


@pytest.mark.parametrize("power", [-30, 0, 30])
def test_units_do_not_matter(power):
    (problem, *_), scale = relu_problems(8, 16, 4, 1)
    expected = solve_quantization(problem, 4, scale)
    unit = 2.0**power
    for moved, factor in (
        (LayerProblem(problem.gram * unit, problem.weight), 1.0),
        (LayerProblem(problem.gram, problem.weight * unit), unit),
    ):
        result = solve_quantization(moved, 4, scale * factor)
        assert np.array_equal(result.integers, expected.integers)
        assert result.upper == expected.upper * unit * factor


def test_channels_of_one_gram_share_the_preparation():
    problems, scale = relu_problems(9, 16, 4, 3)
    assert len({id(chunk_of(p.gram)) for p in problems}) == 1
    assert solve_quantization(problems[0], 4, scale).proven


PROBLEM = LayerProblem(np.eye(2), [0.4, -0.3])
BAD = {
    "problem": ((np.eye(2), 4, 1.0), {}, TypeError, "problem must be a LayerProblem"),
    "bits 1": (
        (PROBLEM, 1, 1.0),
        {},
        ValueError,
        r"n_bits must be a whole number in 2\.\.16, got 1",
    ),
    "bits 17": ((PROBLEM, 17, 1.0), {}, ValueError, r"n_bits .* got 17"),
    "bits 2.5": ((PROBLEM, 2.5, 1.0), {}, ValueError, r"n_bits .* got 2\.5"),
    "scale 0": ((PROBLEM, 4, 0), {}, ValueError, r"scale must be .* got 0"),
    "scale < 0": ((PROBLEM, 4, -1.0), {}, ValueError, r"scale must be .* got -1"),
    "scale nan": ((PROBLEM, 4, np.nan), {}, ValueError, r"scale must be .* got nan"),
    "scale text": ((PROBLEM, 4, "1"), {}, TypeError, "scale must be a number"),
    "scale huge": ((PROBLEM, 4, 1e200), {}, ValueError, r"scale must be .*got 1e\+200"),
    "scale tiny": ((PROBLEM, 4, 1e-17), {}, ValueError, "less than 1e-15 of the largest weight"),
    "method": ((PROBLEM, 4, 1.0, "gptq"), {}, ValueError, "method must be one of exact, nearest"),
    "nodes": ((PROBLEM, 4, 1.0), {"max_nodes": 0}, ValueError, "max_nodes must be"),
    "nodes 1e6": ((PROBLEM, 4, 1.0), {"max_nodes": 1e6}, ValueError, "max_nodes must be"),
    "seconds": ((PROBLEM, 4, 1.0), {"max_seconds": 0}, ValueError, "max_seconds must be"),
    "rng": ((PROBLEM, 4, 1.0, "park_boyd"), {}, TypeError, "rng must be a numpy.random.Generator"),
    "rng int": ((PROBLEM, 4, 1.0, "park_boyd"), {"rng": 0}, TypeError, "rng must be .* got 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    arguments, keywords, error, message = BAD[case]
    with pytest.raises(error, match=message):
        solve_quantization(*arguments, **keywords)


def test_threads_do_not_disturb_each_other():
    problems, scale = relu_problems(10, 28, 3, 12)
    alone = [solve_quantization(p, 3, scale) for p in problems]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda p: solve_quantization(p, 3, scale), problems))
    for a, b in zip(alone, together, strict=True):
        assert np.array_equal(a.integers, b.integers) and a.nodes == b.nodes


def test_an_error_below_rounding_ends_the_search():
    """Beside the first input the others are faint: no radius of float64 resolves their errors."""
    problem = LayerProblem(np.diag([1.0] + [1e-40] * 20), [3.0] + [0.3] * 20)
    result = solve_quantization(problem, 4, 1.0)
    assert result.upper == pytest.approx(20 * 0.09e-40, rel=1e-12, abs=0)
    assert result.status.startswith("Optimal but for rounding") and result.nodes < 1e6
    few = LayerProblem(np.diag([1.0] + [1e-20] * 20), [3.0] + [0.3] * 20)
    assert solve_quantization(few, 4, 1.0).lower == pytest.approx(20 * 0.09e-20, rel=1e-9, abs=0)
