"""Quantizing one channel: the proven optimum, the usual heuristics, and lower bounds."""

import math
import time
from dataclasses import replace
from functools import partial

import numpy as np

from pqlib._validation import check_choice, check_integer, check_number
from pqlib.bounds.chunk import chunk_of
from pqlib.bounds.lattice import Channel
from pqlib.bounds.quantization_bounds import certified_lower, sdp_dual
from pqlib.bounds.result import MOST_RESOLUTION, Result
from pqlib.bounds.tree_kernels import descend
from pqlib.layers.problem import LayerProblem, check_scale

METHODS = ("exact", "nearest", "feedback", "park_boyd", "box_qp", "sdp", "sdp_box")
_SAMPLES = 3  # of the randomized heuristic, for each weight
_BOUND = "A lower bound of the optimum, recomputed from its dual point; no solution."
_HEURISTIC = (
    "A heuristic's solution; the optimum is not below `lower`. For the optimum use method='exact'."
)
_STOPPED = (
    "Stopped after {} nodes: the optimum lies in [lower, upper], and upper may be it. Raise "
    "max_nodes or max_seconds; more than 64 weights or an ill-conditioned gram can take minutes."
)
_OPTIMAL = "Optimal: no integers in the box have an error below upper (1 - 1e-10)."
_ROUNDED = (
    "Optimal but for rounding: the error all but vanishes, and float64 resolves it to upper - "
    "lower. No integers in the box have an error below lower."
)
_UNRESOLVED = (
    "Undecided between lower and upper: no integers in the box have an error below lower, and "
    "float64 resolves no more where inputs depend on each other or the weights are tiny beside the "
    "scale."
)


def solve_quantization(
    problem: LayerProblem,
    n_bits: int,
    scale: float,
    method: str = "exact",
    *,
    max_nodes: int | None = None,
    max_seconds: float | None = None,
    rng: np.random.Generator | None = None,
) -> Result:
    """min over whole z in the box of (scale z - w)' P (scale z - w), z_i in -2^(b-1)..2^(b-1)-1.

    Here scale z is the product in float64, which is what a network would hold. Only where weights
    lie on the grid all but for rounding does this differ from the product of real numbers.

    Parameters
    ----------
    problem : LayerProblem
        P and w of one output channel.
    n_bits : int, 2..16
        b.
    scale : float, 1e-45..1e45, at least 1e-15 of the largest weight
        In weight units.
    method : {"exact", "nearest", "feedback", "park_boyd", "box_qp", "sdp", "sdp_box"}
        See Notes.
    max_nodes : int >= 1, optional
        Of the search trees of "exact" together. Without a limit it runs until the proof.
    max_seconds : float > 0, optional
        Of "exact"; looked at every 0.5 million nodes or sooner.
    rng : numpy.random.Generator
        For "park_boyd" only, which needs it.

    Returns
    -------
    Result
        ``solution`` = scale * ``integers``. Whatever the method, the optimum is >= ``lower``, which
        `certified_lower` recomputes from ``dual`` where there is one. Bounds have ``upper`` = inf.

    Raises
    ------
    ValueError, TypeError
        On n_bits, scale or budgets out of range.
    ImportError
        For "sdp", "sdp_box" and "park_boyd" without cvxpy.

    Notes
    -----
    **exact**: box-constrained integer least squares by two trees that take turns, an LLL-reduced
    one shifted by the multipliers of the box-QP and the boxed one in V-BLAST order with look-ahead;
    `pqlib.bounds.lattice` derives both and says how rounding, singular P, dead inputs and equal
    ones are treated. What is proven: no z in the box has an error below upper (1 - 1e-10). The
    search prunes at upper (1 - 9e-11), errors at leaves are summed in twice the precision, and the
    final one is recomputed by `LayerProblem.error`. Where those two differ by more than 1e-11 of
    it (an error that all but vanishes), lower makes room for the difference and the status says so.

    **nearest**: round w / scale to the nearest, clipped; ties to even.

    **feedback**: OBQ (Frantar and Alistarh 2022): of the weights not yet rounded, the one whose
    rounding costs least goes next, and the others move to make up for it. GPTQ does the same in a
    fixed order. Clipped to the box; a singular P gets a ridge of 1e-10 of its diagonal.

    **park_boyd** (2017, arXiv 1504.07672; the paper's heuristic): draw from the normal distribution
    with mean x and covariance X - xx' of the relaxation "sdp", round, clip each sample as the paper
    does, then 1-opt within the box; the best of 3 n samples.

    **box_qp**, **sdp**, **sdp_box**: lower bounds, see `pqlib.bounds.quantization_bounds`.

    Examples
    --------
    >>> import numpy as np
    >>> from pqlib.bounds.quantization import solve_quantization
    >>> from pqlib.layers.problem import LayerProblem
    >>> problem = LayerProblem([[1.0, 0.9], [0.9, 1.0]], [0.5, 0.5])
    >>> result = solve_quantization(problem, n_bits=4, scale=1.0)
    >>> round(result.upper, 3), sorted(result.integers.tolist()), result.proven
    (0.05, [0, 1], True)
    """
    if not isinstance(problem, LayerProblem):
        raise TypeError(f"problem must be a LayerProblem(gram, weight), got {problem!r}")
    n_bits = check_integer("n_bits", n_bits, low=2, high=16)
    scale = check_scale("scale", scale, problem)
    check_choice("method", method, METHODS)
    if max_nodes is not None:
        max_nodes = check_integer("max_nodes", max_nodes, low=1, high=10**18)
    if max_seconds is not None:
        max_seconds = check_number("max_seconds", max_seconds, low=0, open_low=True)
    if method == "park_boyd" and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator for park_boyd, got {rng!r}")
    result = partial(Result, method, n_bits=n_bits, scale=scale)
    low, high = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    channel = Channel(chunk_of(problem.gram), problem.weight, low, high, scale)
    channel.relax()
    zeros = np.zeros(problem.n)
    x = channel.inputs_at(channel.x)
    dual = np.stack([zeros, zeros, x, zeros])
    root = certified_lower(problem, n_bits, scale, dual)
    if method in ("sdp", "sdp_box", "park_boyd"):
        relaxed, moments = sdp_dual(problem, n_bits, scale, box=method == "sdp_box")
        lower = certified_lower(problem, n_bits, scale, relaxed)
        if method != "park_boyd":
            return result(lower, math.inf, None, _BOUND, dual=relaxed)
        if lower > root:
            root, dual = lower, relaxed
        z = _randomized(problem, n_bits, scale, relaxed[3], moments, rng)
        return _heuristic(result, problem, scale, z, root, dual)
    if method == "box_qp":
        return result(root, math.inf, None, _BOUND, dual=dual)
    if method == "exact":
        return _exact(result, problem, scale, channel, root, dual, max_nodes, max_seconds)
    z = np.clip(np.rint(problem.weight / scale), low, high)
    if method == "feedback":
        live = channel.chunk.group >= 0
        z[live] = channel.inputs(channel.feedback())[live]
    return _heuristic(result, problem, scale, z, root, dual)


def _heuristic(result, problem, scale, z, lower, dual):
    integers = z.astype(np.int64)
    solution = scale * integers
    upper = problem.error(solution)
    return result(min(lower, upper), upper, solution, _HEURISTIC, integers, dual)


def _exact(result, problem, scale, channel, root, dual, max_nodes, max_seconds):
    deadline = math.inf if max_seconds is None else time.monotonic() + max_seconds
    channel.place()
    channel.seed()
    channel.exhaust(math.inf if max_nodes is None else max_nodes, deadline)
    integers = channel.inputs(channel.best)
    dead = channel.chunk.group < 0  # any integer will do; the nearest is the least surprising
    integers[dead] = np.clip(np.rint(problem.weight[dead] / scale), *channel.box).astype(np.int64)
    solution = scale * integers
    upper = problem.error(solution)
    exact_upper = float(np.ldexp(channel.upper, channel.unit))
    if root > max(upper, exact_upper) * (1 + 1e-9):
        raise AssertionError(f"the lower bound {root!r} exceeds the error {upper!r} of a solution")
    lower = min(max(channel.proven(), root) if channel.exhausted else root, upper)
    found = result(lower, upper, solution, _OPTIMAL, integers, dual, channel.nodes)
    if not channel.exhausted:
        return replace(found, status=_STOPPED.format(channel.nodes))
    if not found.proven:
        if found.gap > MOST_RESOLUTION * problem.energy:
            return replace(found, status=_UNRESOLVED)
        return replace(found, status=_ROUNDED, resolution=found.gap)
    return found


def _randomized(problem, n_bits, scale, a, moments, rng):
    """Best of 3 n rounded, clipped and 1-opted draws from N(x, X - x x')."""
    n = problem.n
    low, high = -(2.0 ** (n_bits - 1)), 2.0 ** (n_bits - 1) - 1
    x = moments[:n, n]
    box = np.full(n, low), np.full(n, high)
    values, vectors = np.linalg.eigh(moments[:n, :n] - np.outer(x, x))
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    best, least = None, math.inf
    for _ in range(_SAMPLES * n):
        z = np.clip(np.rint(a + x + root @ rng.normal(size=n)), low, high)
        descend(problem.gram, scale, problem.weight, z, *box, False)
        error = problem.error(scale * z)
        if error < least:
            best, least = z, error
    return best
