"""What a result's claim rests on, checked again from the problem alone."""

from dataclasses import dataclass, replace

import numpy as np

from pqlib._validation import as_finite_array, check_integer, check_number
from pqlib.bounds.pruning_proof import nearly_singular, reprove_pruning
from pqlib.bounds.pruning_search import LEAST
from pqlib.bounds.quantization_bounds import certified_lower
from pqlib.bounds.quantization_proof import TOLERANCE, reprove_quantization
from pqlib.bounds.result import MOST_RESOLUTION, Result
from pqlib.layers.problem import LayerProblem, check_scale

_PRUNING_BLUR = 1e-13  # of the energy, see `pqlib.bounds.pruning_proof`
DUAL, REPROVED, FEASIBLE, REFUTED = "dual", "re-proved", "feasible only", "refuted"


@dataclass(frozen=True)
class Certificate:
    """What `verify` found.

    Attributes
    ----------
    kind : {"dual", "re-proved", "feasible only", "refuted"}
        "dual": ``Result.dual`` proves the lower bound, and anyone can recompute it. "re-proved": a
        second, independent search found nothing below it. "feasible only": the solution is one and
        its error is right, but nothing more was shown. "refuted": something claimed is wrong.
    lower : float
        What was shown: no solution of the problem has a smaller error. 0 if nothing was.
    status : str
        A sentence.
    """

    kind: str
    lower: float
    status: str


def verify(result: Result, problem: LayerProblem, *, max_nodes: int = 10**8) -> Certificate:
    """Check a solver's result against its problem: the solution, then the lower bound.

    Parameters
    ----------
    result : Result
        Of `solve_pruning` or `solve_quantization`; it says which budget or grid it is for.
    problem : LayerProblem
        The problem that it claims to solve.
    max_nodes : int >= 1, default 1e8
        Of the second search; some seconds.

    Returns
    -------
    Certificate

    Raises
    ------
    ValueError, TypeError
        If the result does not say which problem it solved, or a field is no float64, or no array of
        finite ones, of the problem's size; and where the solvers refuse the problem.

    Notes
    -----
    1. The solution must be feasible (at most ``n_nonzero`` non-zeros; scale times integers in the
       box) and ``upper`` its error. 2. If a dual point is given, its bound is recomputed, see
       `pqlib.bounds.quantization_bounds`. 3. What it does not prove is put to another algorithm,
       `pqlib.bounds.quantization_proof` or `pqlib.bounds.pruning_proof`: of an optimum it shows
       that no solution is better by more than 1e-10 of it (and ``Result.resolution``). For pruning
       1e-13 of the energy comes on top, which is more where the error is below 1e-3 of the energy;
       the status says what was shown.

    An exhaustive search leaves nothing that could be checked in less time than it took. This is why
    an optimum is proven twice, along different ways, instead of taken on trust.

    Examples
    --------
    >>> from pqlib import LayerProblem, solve_quantization, verify
    >>> problem = LayerProblem([[2.0, 1.0], [1.0, 2.0]], [1.2, 0.3])
    >>> verify(solve_quantization(problem, n_bits=3, scale=1.0), problem).kind
    're-proved'
    >>> verify(solve_quantization(problem, n_bits=3, scale=1.0, method="box_qp"), problem).kind
    'dual'
    """
    if not isinstance(result, Result):
        raise TypeError(f"result must be a Result of a solver, got {result!r}")
    if not isinstance(problem, LayerProblem):
        raise TypeError(f"problem must be a LayerProblem(gram, weight), got {problem!r}")
    max_nodes = check_integer("max_nodes", max_nodes, low=1, high=10**18)
    integers, result = np.array(result.integers), _plain(result, problem)
    pruned = result.n_nonzero is not None
    wrong = _wrong(result, integers, problem)
    if wrong:
        return Certificate(REFUTED, 0.0, wrong)
    shown = 0.0
    if result.dual is not None and not pruned:
        shown = certified_lower(problem, result.n_bits, result.scale, result.dual)
        shown = shown if np.isfinite(shown) else 0.0
        if shown >= result.lower * (1 - 1e-12):
            return Certificate(DUAL, shown, "The dual point proves the lower bound.")
    optimal = result.proven
    claim = max(result.lower, result.upper - result.resolution) if optimal else result.lower
    if claim <= 0.0:
        if optimal:
            status = "The error, rounded to float64, is 0, or it is not above the resolution."
            return Certificate(DUAL, 0.0, status)
        return Certificate(FEASIBLE, shown, "The solution's error is right; no more was shown.")
    # what the second search allows for rounding
    blur = _PRUNING_BLUR * problem.energy if pruned else 0.0
    if claim <= max(10 * blur, LEAST):
        status = "Too small beside the energy for the second search; no more was shown."
        return Certificate(FEASIBLE, shown, status)
    if pruned:
        right = reprove_pruning(problem, result.n_nonzero, claim, max_nodes=max_nodes)
    else:
        right = reprove_quantization(
            problem, result.n_bits, result.scale, claim, max_nodes=max_nodes
        )
    if right is None:
        status = (
            f"The second search came to no answer: its {max_nodes} nodes ran out, or inputs depend "
            "on each other too nearly."
        )
        return Certificate(FEASIBLE, shown, status)
    if not right:
        return Certificate(REFUTED, shown, f"A solution with an error below {claim!r} exists.")
    within = max(TOLERANCE, blur / claim)
    what = "the solution is optimal" if optimal else "the lower bound holds"
    status = f"A second, independent search found nothing better: {what} within {within:.0e}"
    status += f", or {result.resolution:.1e}." if result.resolution else "."
    if pruned and nearly_singular(problem):
        status += " The gram is nearly singular: this holds for weights changed up to 100-fold."
    return Certificate(REPROVED, max(shown, claim * (1 - TOLERANCE) - blur), status)


def _plain(result, problem):
    """All but the integers in Python's numbers and float64 arrays.

    Other kinds compute in their own precision.
    """
    pruned = result.n_nonzero is not None
    if pruned != (result.n_bits is None) or pruned != (result.scale is None):
        raise ValueError(
            "result must say which problem it solved, by n_nonzero or by n_bits and scale; "
            f"got {result.n_nonzero}, {result.n_bits}, {result.scale}"
        )
    if pruned:
        budget = check_integer("n_nonzero of result", result.n_nonzero, low=0, high=problem.n)
        plain = {"n_nonzero": budget}
    else:
        scale = _float("scale", result.scale)
        plain = {
            "n_bits": check_integer("n_bits of result", result.n_bits, low=2, high=16),
            "scale": check_scale("scale of result", scale, problem),
        }
    plain |= {
        name: _float(name, getattr(result, name)) for name in ("lower", "upper", "resolution")
    }
    for name in ("solution", "dual"):
        if (value := getattr(result, name)) is not None:
            if np.asarray(value).dtype not in (np.float64, np.float32, np.float16):
                raise ValueError(f"{name} of result must be an array of float64, got {value!r}")
            plain[name] = np.array(as_finite_array(f"{name} of result", value))
    return replace(result, integers=None, **plain)


def _float(name, value):
    """A float64, of which NaN and infinity are judged later."""
    if isinstance(value, float) and not np.isfinite(value):
        return float(value)
    number = check_number(f"{name} of result", value)
    if number != value:
        raise ValueError(f"{name} of result must be a float64, got {value!r}")
    return number


def _wrong(result, z, problem):
    """What is wrong with the numbers or the solution, or an empty string."""
    if not 0.0 <= result.lower < np.inf:
        return f"lower must be a number of at least 0, not {result.lower!r}."
    if not 0.0 <= result.resolution <= MOST_RESOLUTION * problem.energy:
        return f"resolution must be at most 1e-12 of the energy, not {result.resolution!r}."
    w_hat = result.solution
    if w_hat is None:
        return "" if result.upper == np.inf else "An upper bound needs a solution."
    error = problem.error(w_hat)
    if not abs(error - result.upper) <= 1e-12 * error:  # NaN too
        return f"The error of the solution is {error!r}, not {result.upper!r}."
    if not result.lower <= result.upper:
        return f"lower = {result.lower!r} exceeds upper = {result.upper!r}."
    if result.n_bits is None:
        kept = int(np.count_nonzero(w_hat))
        if kept > result.n_nonzero:
            return f"The solution has {kept} non-zeros, more than {result.n_nonzero}."
        return ""
    half = 2 ** (result.n_bits - 1)
    if z.dtype.kind not in "iu":  # numpy counts times among its integers, too
        return "The integers are missing, or no whole numbers."
    if z.shape != w_hat.shape:
        return f"The integers have shape {z.shape}, the solution {w_hat.shape}."
    if z.min() < -half or z.max() >= half:
        return f"The integers reach from {z.min()} to {z.max()}, beyond {result.n_bits} bits."
    if not np.array_equal(w_hat, result.scale * z.astype(np.int64)):
        return "The solution is not scale times integers."
    return ""
