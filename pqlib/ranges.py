"""The MSE-optimal scale of a grid, for an array and for a distribution: the global optimum.

The error as a function of the scale has many local minima, so it is searched as a whole: for an
array by branch and bound (`pqlib.scale_search`), for a distribution between bounds of its own
(`pqlib.distribution_scale`).
"""

from collections.abc import Sequence
from numbers import Integral

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from pqlib._validation import as_finite_array, check_bits, check_choice
from pqlib.density import Distribution
from pqlib.distribution_scale import distribution_scales
from pqlib.distributions import samples_of
from pqlib.grids import IntegerGrid
from pqlib.scale_search import ScaleSearch, SortedWeights

_UNIT_SCALE = 1.0  # the answer where there is nothing to represent


def optimal_scale(
    dist_or_array: Distribution | ArrayLike,
    n_bits: int,
    *,
    signed: bool = True,
    narrow_range: bool = False,
    granularity: str = "tensor",
    axis: int = 0,
) -> float | Float[np.ndarray, " n_channels"]:
    """The scale that minimizes the MSE of rounding to an integer grid, over all scales > 0.

    Parameters
    ----------
    dist_or_array : Distribution or array_like of float, any shape, not empty, finite
        What to quantize.
    n_bits : int, 2..16
        Bits per weight.
    signed, narrow_range : bool, default True, False
        The grid, as in `IntegerGrid` with zero_point 0.
    granularity : {"tensor", "channel"}
        One scale, or one per channel (arrays only).
    axis : int, default 0
        The channel axis.

    Returns
    -------
    float, or ndarray of shape (n_channels,) per channel
        In weight units. Weights that are all zero are exact at every scale; 1.0 is returned.

    Raises
    ------
    ValueError, TypeError
        On NaN, infinity, empty arrays, a distribution without second moment, a bad grid.

    Notes
    -----
    Arrays: the global optimum, proven by branch and bound to 1e-10 of the MSE or to 1e-14 of the
    mean square, whichever is more.
    Distributions: a lower bound of the error leaves an interval of scales outside of which none
    can be optimal; inside, the zeros of the derivative are bracketed on a scan, refined, and the
    best is returned. The bound and the error there are about 0.4 scale / b apart for a density of
    peak 1 / b, relative to the error: 0.5 % for a normal at 8 bits and 0.003 % at 16.

    Examples
    --------
    >>> from pqlib import Normal, optimal_scale
    >>> round(optimal_scale(Normal(), n_bits=4), 9)
    0.338607936
    """
    check_choice("granularity", granularity, ("tensor", "channel"))
    kind = {"signed": signed, "narrow_range": narrow_range}
    if granularity == "tensor":
        return optimal_scales(dist_or_array, [n_bits], **kind)[0]
    if isinstance(dist_or_array, Distribution):
        raise ValueError("granularity='channel' needs an array; a distribution has no channels")
    x = as_finite_array("dist_or_array", dist_or_array)
    if not isinstance(axis, Integral):
        raise TypeError(f"axis must be an int, got {axis!r}")
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis={axis} is not an axis of an array of shape {x.shape}")
    return np.array([search_scale(c, n_bits, **kind).scale for c in np.moveaxis(x, axis, 0)])


def optimal_scales(
    dist_or_array: Distribution | ArrayLike,
    bits: Sequence[int],
    *,
    signed: bool = True,
    narrow_range: bool = False,
) -> list[float]:
    """`optimal_scale` at several bit-widths, for a distribution faster than one after the other.

    Parameters as in `optimal_scale`; ``bits`` is a sequence of n_bits.
    """
    kind = {"signed": signed, "narrow_range": narrow_range}
    grids = [IntegerGrid(b, 1.0, **kind) for b in check_bits("bits", bits)]
    x = dist_or_array
    if isinstance(x, Distribution):
        x = samples_of(x)
    if x is None:
        if not signed and dist_or_array.support[1] <= 0:
            return [_UNIT_SCALE] * len(grids)  # nothing to represent: all weights become 0
        return distribution_scales(dist_or_array, grids)
    weights = SortedWeights(as_finite_array("dist_or_array", x))
    return [weights.search(grid).scale for grid in grids]


def search_scale(
    x: ArrayLike, n_bits: int, *, signed: bool = True, narrow_range: bool = False
) -> ScaleSearch:
    """`optimal_scale` of one array with the MSE, a proven lower bound and its natural sparsity.

    Parameters as in `optimal_scale`.

    Notes
    -----
    `pqlib.scale_search` states the bound. The search ends when the MSE found is within 1e-10 of
    it, or within what rounding leaves of a sum, 1e-14 of the mean square. It tries some hundred
    scales, also of a million weights.
    """
    grid = IntegerGrid(n_bits, 1.0, signed=signed, narrow_range=narrow_range)
    return SortedWeights(as_finite_array("x", x)).search(grid)
