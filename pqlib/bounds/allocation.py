r"""How many non-zeros each channel of a layer gets: the best split of one budget, exactly.

The output channels of a layer add, so with E_c(s) the error of channel c at s non-zeros

.. math:: \min_{s_1, \dots, s_C} \sum_c E_c(s_c) \quad\text{with}\quad \sum_c s_c \le t,\;
          0 \le s_c \le n_c.

Channel by channel, F_c(t) = min over s of F_{c-1}(t - s) + E_c(s): dynamic programming, exact for
any curves, which need not be convex (those of best subsets are not, so that moving one non-zero at
a time can end short of the optimum). It costs the sum of t (n_c + 1) additions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike

from pqlib._validation import as_finite_array, check_integer


@dataclass(frozen=True)
class Allocation:
    """The best split of a layer's non-zeros over its channels.

    Attributes
    ----------
    n_nonzero : ndarray of int, shape (n_channels,)
        Non-zeros of each channel; they sum to at most the budget.
    error : float
        The sum of the channels' errors, in the units of the curves.
    """

    n_nonzero: Int[np.ndarray, " n_channels"]
    error: float


def allocate(curves: Sequence[ArrayLike], n_nonzero: int) -> Allocation:
    """Split ``n_nonzero`` non-zeros over channels so that the sum of errors is least.

    Parameters
    ----------
    curves : sequence of array_like of float, shape (n_c + 1,) each
        curves[c][s] is channel c's error at s non-zeros, as in ``[r.upper for r in
        pruning_curve(problem)]``. Of lower bounds, the result bounds the layer from below.
    n_nonzero : int in 0..sum of n_c
        The layer's budget.

    Returns
    -------
    Allocation
        Of equal splits, one that gives later channels as little as possible.

    Raises
    ------
    ValueError, TypeError
        On no curve, NaN, infinity, curves whose sum overflows, a curve that is not
        one-dimensional, a budget out of range.

    Examples
    --------
    >>> from pqlib.bounds.allocation import allocate
    >>> allocate([[9.0, 1.0, 0.0], [4.0, 3.0, 0.0]], n_nonzero=2)
    Allocation(n_nonzero=array([2, 0]), error=4.0)
    """
    if not isinstance(curves, Iterable):
        raise TypeError(f"curves must be a sequence with a curve per channel, got {curves!r}")
    checked = [as_finite_array(f"curves[{c}]", curve) for c, curve in enumerate(curves)]
    if not checked:
        raise ValueError("curves must hold the curve of at least one channel, got none")
    for c, curve in enumerate(checked):
        if curve.ndim != 1:
            raise ValueError(f"curves[{c}] must have shape (n + 1,), got {curve.shape}")
    with np.errstate(over="ignore"):
        if not np.isfinite(sum(abs(curve).max() for curve in checked)):
            raise ValueError("curves are too large for their sum in float64; rescale them")
    total = sum(curve.size - 1 for curve in checked)
    budget = check_integer("n_nonzero", n_nonzero, low=0, high=total)

    best = np.zeros(budget + 1)  # best[t]: least error of the channels so far with at most t
    choices = []
    for curve in checked:
        longer = np.full(budget + 1, np.inf)
        choice = np.zeros(budget + 1, np.int32)
        for s in range(min(curve.size - 1, budget) + 1):
            candidate = best[: budget + 1 - s] + curve[s]
            better = candidate < longer[s:]
            longer[s:][better] = candidate[better]
            choice[s:][better] = s
        best = longer
        choices.append(choice)

    counts = np.zeros(len(checked), np.int64)
    left = budget
    for c in range(len(checked) - 1, -1, -1):
        counts[c] = choices[c][left]
        left -= counts[c]
    return Allocation(
        counts, float(sum(curve[s] for curve, s in zip(checked, counts, strict=True)))
    )
