"""The MSE-optimal scale of a grid, for an array and for a distribution: the global optimum.

The error as a function of the scale has many local minima, so it is searched as a whole.

For an array, rounding fixes integers k_i, and with them fixed the error is a parabola in the
scale s: A - 2 B s + C s^2, A = sum w_i^2, B = sum w_i k_i, C = sum k_i^2. The integers change only
at the breakpoints abs(w_i) / (k + 1/2). Sweeping s from infinity down over all of them meets every
assignment that rounding can make; each is best at s = B / C, where it leaves A - B^2 / C. The best
assignment of the sweep is the global optimum, since rounding at its s can only do better still.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from pqlib._validation import as_finite_array, check_choice
from pqlib.density import Distribution
from pqlib.distribution_scale import distribution_scales
from pqlib.distributions import samples_of
from pqlib.grids import IntegerGrid

EXACT_LIMIT = 1_000_000  # n * 2^(b-1) up to which an array is swept over all breakpoints
_TOLERANCE = 1e-3  # beyond it: relative gap between the MSE found and the proven lower bound
_MAX_LOOKUPS = 20_000_000  # binary searches spent on the bound, some 3 s
_UNIT_SCALE = 1.0  # the answer for all-zero weights, which every scale represents exactly


@dataclass(frozen=True)
class ScaleSearch:
    """The best scale found for an array, and how far from optimal it can be.

    Attributes
    ----------
    scale : float
        In weight units.
    mse : float
        Mean squared error at ``scale``, recomputed from the weights.
    lower : float
        Proven lower bound of the MSE over all scales > 0. Equal to ``mse`` if ``exact``.
    exact : bool
        Whether all breakpoints were examined.
    """

    scale: float
    mse: float
    lower: float
    exact: bool


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
    Arrays: global up to rounding where n * 2^(n_bits - 1) <= 1e6, by a sweep over all breakpoints;
    above that the MSE is within 0.1 % of the global minimum, or `search_scale` reports the gap.
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
    grids = [IntegerGrid(b, 1.0, signed=signed, narrow_range=narrow_range) for b in bits]
    x = dist_or_array
    if isinstance(x, Distribution):
        x = samples_of(x)
    if x is None:
        if not signed and dist_or_array.support[1] <= 0:
            return [_UNIT_SCALE] * len(grids)  # nothing to represent: all weights become 0
        return distribution_scales(dist_or_array, grids)
    x = as_finite_array("dist_or_array", x)
    return [search_scale(x, b, signed=signed, narrow_range=narrow_range).scale for b in bits]


def search_scale(
    x: ArrayLike, n_bits: int, *, signed: bool = True, narrow_range: bool = False
) -> ScaleSearch:
    """`optimal_scale` of one array with the MSE, a proven lower bound and whether it is exact.

    Parameters as in `optimal_scale`.

    Notes
    -----
    The lower bound for large arrays: let g(s) be the root of the total squared error. Keeping the
    integers k(s') of scale s' at scale s changes the error vector by (s - s') k(s'), hence
    ``g(s) <= g(s') + |s - s'| |k(s')|``. As ``|k|`` falls with the scale,
    ``g >= (g(l) + g(r) - (r - l) |k(l)|) / 2`` on an interval [l, r]. Intervals whose bound is not
    yet within 0.1 % of the best MSE are halved, until none is left or 2e7 binary searches are
    spent (beyond about 10 bits). Scales above twice the largest magnitude round all to zero; below
    the first interval, clipping alone costs more than the best MSE.
    """
    grid = IntegerGrid(n_bits, 1.0, signed=signed, narrow_range=narrow_range)
    w = as_finite_array("x", x).ravel()
    unit = float(np.max(abs(w)))  # so that squares neither overflow nor underflow
    if unit == 0:
        return ScaleSearch(_UNIT_SCALE, 0.0, 0.0, exact=True)
    w = w / unit
    if not signed and np.max(w) <= 0:  # nothing to represent: all weights become 0
        mse = float(np.mean(w**2)) * unit * unit
        return ScaleSearch(_UNIT_SCALE, mse, mse, exact=True)
    exact = w.size * 2 ** (n_bits - 1) <= EXACT_LIMIT
    scale, mse, lower = (_sweep if exact else _subdivide)(w, grid)
    # unit * unit, since Python's ** raises where the product is inf
    return ScaleSearch(scale * unit, mse * unit * unit, float(lower) * unit * unit, exact)


def _direct_mse(w, grid, scale):
    k = np.clip(np.rint(w / scale), grid.qmin, grid.qmax)
    return float(np.mean((w - scale * k) ** 2))


def _best_directly(w, grid, candidates):
    """Of (scale, estimated MSE) keep what rounding of the estimates could confuse, recompute."""
    scales, estimates = candidates
    slack = 64 * np.finfo(float).eps * np.mean(w**2) + 1e-9 * max(estimates.min(), 0.0)
    close = np.flatnonzero(estimates <= estimates.min() + slack)
    close = close[np.argsort(estimates[close], kind="stable")][:32]
    mses = [_direct_mse(w, grid, s) for s in scales[close]]
    best = int(np.argmin(mses))
    return float(scales[close[best]]), mses[best]


def _sweep(w, grid):
    """Global optimum over all assignments, by cumulative sums over the sorted breakpoints."""
    events, gains, weights = [], [], []
    for magnitudes, n_steps in ((w[w > 0], grid.qmax), (-w[w < 0], -grid.qmin)):
        k = np.arange(n_steps)
        events.append(np.divide.outer(magnitudes, k + 0.5).ravel())
        gains.append(np.repeat(magnitudes, n_steps))  # B grows by |w|
        weights.append(np.tile(2.0 * k + 1, magnitudes.size))  # C by (k+1)^2 - k^2
    order = np.argsort(-np.concatenate(events), kind="stable")
    # long double halves the digits lost to an outlier; what is left is made up for below
    b = np.cumsum(np.concatenate(gains)[order], dtype=np.longdouble)
    c = np.cumsum(np.concatenate(weights)[order])
    a = np.sum(w.astype(np.longdouble) ** 2)
    estimates = ((a - b * b / c) / w.size).astype(float)
    scale, mse = _best_directly(w, grid, ((b / c).astype(float), estimates))
    return scale, mse, mse


class _SortedSums:
    """Total squared error, sum w k and sum k^2 at many scales at once, from sorted magnitudes."""

    def __init__(self, w, grid):
        self.total = float(np.sum(w**2))
        self.sides = []
        for magnitudes, n_steps in ((w[w > 0], grid.qmax), (-w[w < 0], -grid.qmin)):
            if magnitudes.size and n_steps:
                ascending = np.sort(magnitudes)
                # tail[i] = sum of magnitudes[i:]; summed from the large end, as the sums need it
                tail = np.r_[np.cumsum(ascending[::-1])[::-1], 0.0]
                self.sides.append((ascending, tail, np.arange(n_steps)))

    def at(self, scales):
        """(error, sum k^2), each of shape (n_scales,)."""
        b, c = np.zeros(scales.size), np.zeros(scales.size)
        for ascending, tail, k in self.sides:
            first = np.searchsorted(ascending, np.multiply.outer(scales, k + 0.5))  # (n_scales, k)
            b += tail[first].sum(axis=1)
            c += (ascending.size - first) @ (2.0 * k + 1)
        return np.maximum(self.total - 2 * scales * b + scales**2 * c, 0.0), c


def _subdivide(w, grid):
    """Branch and bound over the scale for arrays too large to sweep."""
    sums = _SortedSums(w, grid)
    ends = np.geomspace(_smallest_scale(w, grid, sums), 2.0, 129)  # w is scaled to max |w| = 1
    errors, norms_sq = sums.at(ends)
    scales, found = [ends], [errors]
    left, right = ends[:-1], ends[1:]
    g_left, g_right, norm_left = np.sqrt(errors[:-1]), np.sqrt(errors[1:]), np.sqrt(norms_sq[:-1])
    best, lower, n_evaluations = errors.min(), np.inf, ends.size
    budget = _MAX_LOOKUPS // 2**grid.n_bits
    while left.size:
        low = np.maximum(g_left + g_right - (right - left) * norm_left, 0.0) ** 2 / 4
        open_ = (low < best * (1 - _TOLERANCE)) & (right > left * (1 + 1e-12))
        if n_evaluations + np.count_nonzero(open_) > budget:
            open_[:] = False
        lower = min(lower, float(np.min(low[~open_], initial=np.inf)))
        left, right, g_left, g_right, norm_left = (
            v[open_] for v in (left, right, g_left, g_right, norm_left)
        )
        middle = (left + right) / 2
        errors, norms_sq = sums.at(middle)
        g_middle = np.sqrt(errors)
        n_evaluations += middle.size
        scales.append(middle)
        found.append(errors)
        best = np.min(errors, initial=best)
        left, right = np.r_[left, middle], np.r_[middle, right]
        norm_left = np.r_[norm_left, np.sqrt(norms_sq)]
        g_left, g_right = np.r_[g_left, g_middle], np.r_[g_middle, g_right]
    estimates = np.concatenate(found) / w.size
    scale, mse = _descend(w, grid, *_best_directly(w, grid, (np.concatenate(scales), estimates)))
    # what the sums may have lost to rounding is taken off the bound
    lower = lower / w.size - 64 * np.finfo(float).eps * np.mean(w**2)
    return scale, mse, min(max(lower, 0.0), mse)


def _smallest_scale(w, grid, sums):
    """A scale below which clipping alone costs more than the best scale of a coarse scan."""
    n_steps = max(grid.qmax, -grid.qmin)
    best = sums.at(np.geomspace(np.mean(abs(w)) / n_steps, 2.0, 65))[0].min()
    limits = {1: grid.qmax, -1: -grid.qmin}
    scale = 1.0 / n_steps
    while (
        sum(np.sum(np.maximum(sign * w - k * scale, 0) ** 2) for sign, k in limits.items()) < best
    ):
        scale /= 2
    return scale


def _descend(w, grid, scale, mse):
    """Lloyd's iteration: the best scale for the integers, the integers for the scale."""
    while True:
        k = np.clip(np.rint(w / scale), grid.qmin, grid.qmax)
        better = float(w @ k / (k @ k))
        better_mse = _direct_mse(w, grid, better)
        if not better_mse < mse:
            return scale, mse
        scale, mse = better, better_mse
