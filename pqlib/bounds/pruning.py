"""Pruning one channel: the best subset of its weights, proven, and the heuristics it is held to."""

from dataclasses import replace

import numpy as np

from pqlib._validation import check_choice, check_integer, check_number
from pqlib.bounds.pruning_search import LEAST, Channel
from pqlib.bounds.result import MOST_RESOLUTION, Result
from pqlib.layers.problem import LayerProblem

METHODS = ("exact", "magnitude", "magnitude_refit", "backward", "big_m")
_OPTIMAL = "Optimal within 1e-10 of its error: every other subset was ruled out."
_OPTIMAL_BOUNDED = (
    "Optimal within 1e-10 of its error among changes of the weights up to 100 times their size; "
    "the gram is singular or nearly so, which leaves larger changes undecided."
)
_ZERO = (
    "The error is at most 1e-12 of the energy, and no more is resolved where the gram is singular: "
    "the inputs are dependent, and those kept all but span them."
)
_ROUNDED = (
    "Optimal up to rounding: every other subset was ruled out, and the gap is what float64 weights "
    "and errors leave open."
)
_UNRESOLVED = (
    "Undecided between lower and upper: float64 cannot tell, as the gram is singular or nearly so "
    "and the weights are so large beside what they add up to; lower holds among changes of the "
    "weights up to 100 times their size. Rescale or merge the inputs."
)
_FREE = "Optimal: nothing that matters has to be removed."
_ALL = "Optimal: nothing may be kept."
_OUT = (
    "The {} ran out before the proof was complete; the optimum lies between lower and upper{}. "
    "Allow more, or split the channel into smaller chunks."
)
_AMONG = ", among changes of the weights up to 100 times their size"
_HEURISTIC = "A heuristic: feasible, and nothing is known of how far from optimal."


def solve_pruning(
    problem: LayerProblem,
    n_nonzero: int,
    method: str = "exact",
    *,
    max_nodes: int | None = None,
    max_seconds: float | None = None,
    solver: str | None = None,
) -> Result:
    r"""Solve min (w_hat - w)' P (w_hat - w) over w_hat with at most ``n_nonzero`` non-zeros.

    Parameters
    ----------
    problem : LayerProblem
        P and w of one output channel.
    n_nonzero : int in 0..n
        Weights that may differ from zero.
    method : {"exact", "magnitude", "magnitude_refit", "backward", "big_m"}, default "exact"
        "exact" is leaps and bounds, derived in `pqlib.bounds.pruning_search`. "magnitude" keeps the
        largest weights as they are; "magnitude_refit" fits them anew by least squares, the paper's
        heuristic (section 4.3). "backward" removes the weight that costs least, again and again,
        and then exchanges kept and removed weights while that helps. "big_m" is the paper's program
        (eq. 8) in cvxpy, see `pqlib.bounds.big_m`.
    max_nodes : int >= 1, optional
        Nodes after which an exact search ends unfinished. No limit by default.
    max_seconds : float > 0, optional
        Seconds after which an exact search, or the solver of "big_m", ends unfinished.
    solver : str, optional
        For "big_m": a mixed-integer quadratic solver of cvxpy's, by default one that is installed.

    Returns
    -------
    Result
        ``lower`` is what the search has proven, 0 for the three heuristics.

    Raises
    ------
    ValueError, TypeError
        On arguments out of range.

    Notes
    -----
    On correlated activations an exact solve takes some 0.3 ms at n = 24, milliseconds at 36, up to
    0.2 s at 48 and seconds at 64; hardest are n / 4 to 3 n / 8 non-zeros. Work on P alone is kept
    for the last 16 grams, so solve the channels of a chunk one after another.

    References
    ----------
    Furnival and Wilson, Regressions by leaps and bounds, Technometrics 16, 1974. LaMotte and
    Hocking, Computational efficiency in the selection of regression variables, Technometrics 12,
    1970. Hassibi and Stork, Second order derivatives for network pruning, NeurIPS 1993.

    Examples
    --------
    >>> import numpy as np
    >>> from pqlib.bounds.pruning import solve_pruning
    >>> from pqlib.layers.problem import LayerProblem
    >>> problem = LayerProblem([[2.0, 1.0], [1.0, 2.0]], [1.0, 2.0])
    >>> result = solve_pruning(problem, n_nonzero=1)
    >>> result.solution, round(result.upper, 12), result.proven
    (array([0. , 2.5]), 1.5, True)
    """
    _check(problem, max_nodes, max_seconds)
    n_nonzero = check_integer("n_nonzero", n_nonzero, low=0, high=problem.n)
    check_choice("method", method, METHODS)
    channel = Channel(problem)
    if method == "exact":
        return _exact(channel, n_nonzero, max_nodes, max_seconds)[0]
    if method == "big_m":
        return _big_m(channel, n_nonzero, max_nodes, max_seconds, solver)
    n_remove = max(channel.n - n_nonzero, 0)
    if method == "magnitude":
        mask = np.zeros(problem.n, bool)
        mask[np.argsort(abs(problem.weight), kind="stable")[problem.n - n_nonzero :]] = True
        w_hat = np.where(mask, problem.weight, 0.0)
    elif method == "magnitude_refit":
        w_hat = channel.solution(channel.by_magnitude(n_remove))
    else:
        w_hat = channel.solution(channel.improved(np.zeros(channel.n, bool), n_remove))
    return _result(channel, n_nonzero, 0.0, w_hat, _HEURISTIC, method=method)


def pruning_curve(
    problem: LayerProblem, *, max_nodes: int | None = None, max_seconds: float | None = None
) -> tuple[Result, ...]:
    """Exact optima of `solve_pruning` for n_nonzero = 0, 1, ..., n, in this order.

    Parameters
    ----------
    problem : LayerProblem
    max_nodes : int >= 1, optional
        Nodes for each of the n + 1 searches.
    max_seconds : float > 0, optional
        Seconds for each of the n + 1 searches.

    Returns
    -------
    tuple of Result, length n + 1
        ``upper`` does not grow with n_nonzero.

    Notes
    -----
    The searches share the work on P, and each starts from its neighbour's solution too. The trees
    are separate, so a curve costs hardly less than its n + 1 solves one by one.
    """
    _check(problem, max_nodes, max_seconds)
    channel, results, removed = Channel(problem), [], None
    for n_nonzero in range(problem.n, -1, -1):
        result, removed = _exact(channel, n_nonzero, max_nodes, max_seconds, removed)
        if results:  # with less to keep the optimum is no less
            result = replace(result, lower=min(max(result.lower, results[-1].lower), result.upper))
        results.append(result)
    curve = results[::-1]
    for i in range(1, len(curve)):  # where a budget ran out, the solution with fewer may be better
        if curve[i].upper > curve[i - 1].upper:
            better = curve[i - 1]
            curve[i] = replace(curve[i], upper=better.upper, solution=better.solution)
            curve[i] = replace(curve[i], lower=min(curve[i].lower, better.upper))
    return tuple(curve)


def _result(channel, n_nonzero, lower, w_hat, status, *, method="exact", nodes=0):
    """A Result whose upper is the error of ``w_hat``, and whose lower is at most that."""
    upper = np.inf if w_hat is None else channel.problem.error(w_hat)
    lower = min(lower, upper)
    return Result(method, lower, upper, w_hat, status, nodes=nodes, n_nonzero=n_nonzero)


def _exact(channel, n_nonzero, max_nodes, max_seconds, near=None):
    """(Result, mask of what is removed or None); ``near`` removes less and may be a good start."""
    problem, prepared = channel.problem, channel.prepared
    live = np.zeros(problem.n)
    live[prepared.alive] = problem.weight[prepared.alive]
    if np.count_nonzero(live) <= n_nonzero:
        return _result(channel, n_nonzero, 0.0, live, _FREE), None
    if n_nonzero == 0:
        return _result(channel, 0, np.inf, np.zeros(problem.n), _ALL), None
    n_remove = channel.n - n_nonzero
    nothing = np.zeros(channel.n, bool)
    starts = [channel.improved(nothing, n_remove)]
    starts.append(channel.improved(channel.by_magnitude(n_remove), n_remove))
    if near is not None:
        starts.append(channel.improved(near, n_remove))
    removed, lower, nodes, out = channel.prove(starts, n_remove, max_nodes, max_seconds)
    if out:
        status = _OUT.format(out, _AMONG if prepared.shift else "")
    elif lower == 0.0 and prepared.shift:
        status = _ZERO
    else:
        status = _OPTIMAL_BOUNDED if prepared.shift else _OPTIMAL
    lower, w_hat = channel.in_units(lower), channel.solution(removed)
    result = _result(channel, n_nonzero, lower, w_hat, status, nodes=nodes)
    if out and result.proven:  # by the bound of what was left open
        result = replace(result, status=_OPTIMAL_BOUNDED if prepared.shift else _OPTIMAL)
    if not out and not result.proven:
        if result.gap > MOST_RESOLUTION * problem.energy:
            return replace(result, status=_UNRESOLVED), removed
        result = replace(result, resolution=result.gap)
    if (result.resolution or result.upper <= LEAST) and status == _OPTIMAL and not out:
        result = replace(result, status=_ROUNDED)
    return result, removed


def _big_m(channel, n_nonzero, max_nodes, max_seconds, solver):
    """A mixed-integer solver's Result; its claim counts as far as our own search proves it."""
    from pqlib.bounds.big_m import installed_solver, solve_big_m  # cvxpy is slow to import

    solver = installed_solver(solver)
    exact, found = _exact(channel, n_nonzero, max_nodes, max_seconds)
    if found is None:
        return replace(
            exact, method="big_m", status=f"Nothing was left to {solver}. {exact.status}"
        )
    removed, claimed, status = solve_big_m(
        channel, n_nonzero, solver=solver, max_seconds=max_seconds
    )
    if removed is None:
        status = f"{solver} returned no solution ({status}); allow more time or use method='exact'."
        return _result(channel, n_nonzero, exact.lower, None, status, method="big_m")
    lower = exact.lower
    if np.isnan(claimed):
        status = f"{solver} ended with status {status} and claims no optimum; "
    else:
        excess = (claimed - exact.upper) / exact.upper if exact.upper > 0 else claimed
        status = f"{solver} claims the optimum {claimed:.9g}, {excess:+.0e} of the best known; "
        lower = min(lower, claimed)
    status += "lower is proven by leaps and bounds, as solvers' bounds hold within tolerances only."
    return _result(channel, n_nonzero, lower, channel.solution(removed), status, method="big_m")


def _check(problem, max_nodes, max_seconds):
    if not isinstance(problem, LayerProblem):
        raise TypeError(f"problem must be a LayerProblem(gram, weight), got {problem!r}")
    if max_nodes is not None:
        check_integer("max_nodes", max_nodes, low=1, high=2**62)
    if max_seconds is not None:
        check_number("max_seconds", max_seconds, low=0.0, open_low=True)
