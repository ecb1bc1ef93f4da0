"""The MSE-optimal scale of a grid, for an array and for a distribution: the global optimum.

The error as a function of the scale has many local minima, so it is searched as a whole.

For an array, rounding fixes integers k_i, and with them fixed the error is a parabola in the
scale s: A - 2 B s + C s^2, A = sum w_i^2, B = sum w_i k_i, C = sum k_i^2. The integers change only
at the breakpoints abs(w_i) / (k + 1/2). Sweeping s from infinity down over all of them meets every
assignment that rounding can make; each is best at s = B / C, where it leaves A - B^2 / C. The best
assignment of the sweep is the global optimum, since rounding at its s can only do better still.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import optimize

from pqlib._validation import as_finite_array, check_choice
from pqlib.distributions import Distribution, Empirical
from pqlib.expected_error import expected_quantization_mse
from pqlib.grids import IntegerGrid

EXACT_LIMIT = 1_000_000  # n * 2^(b-1) up to which an array is swept over all breakpoints
_TOLERANCE = 1e-3  # beyond it: relative gap between the MSE found and the proven lower bound
_MAX_LOOKUPS = 20_000_000  # binary searches spent on the bound, some 3 s
_N_SCAN = 64  # scales per scan of a symmetric distribution; mass away from zero needs more
_MAX_SCAN = 2_000_000  # scales x levels that a scan may take
_CLOSE = 1.2  # local minima of the scan within this factor of the best are refined
_ZERO = np.zeros(())
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
    Distributions: outside of an interval of scales the error provably exceeds one that was seen;
    inside, the zeros of its derivative are bracketed on a scan and refined to machine precision,
    and the best is returned.

    Examples
    --------
    >>> from pqlib import Normal, optimal_scale
    >>> round(optimal_scale(Normal(), n_bits=4), 9)
    0.338607936
    """
    check_choice("granularity", granularity, ("tensor", "channel"))
    kind = {"signed": signed, "narrow_range": narrow_range}
    if isinstance(dist_or_array, Empirical):
        dist_or_array = dist_or_array.samples
    if isinstance(dist_or_array, Distribution):
        if granularity == "channel":
            raise ValueError("granularity='channel' needs an array; a distribution has no channels")
        return _distribution_scale(dist_or_array, IntegerGrid(n_bits, 1.0, **kind))
    if granularity == "tensor":
        return search_scale(dist_or_array, n_bits, **kind).scale
    x = as_finite_array("dist_or_array", dist_or_array)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis={axis} is not an axis of an array of shape {x.shape}")
    return np.array([search_scale(c, n_bits, **kind).scale for c in np.moveaxis(x, axis, 0)])


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
        mse = float(np.mean(w**2)) * unit**2
        return ScaleSearch(_UNIT_SCALE, mse, mse, exact=True)
    exact = w.size * 2 ** (n_bits - 1) <= EXACT_LIMIT
    scale, mse, lower = (_sweep if exact else _subdivide)(w, grid)
    return ScaleSearch(scale * unit, mse * unit**2, float(lower) * unit**2, exact)


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


def _distribution_scale(dist, grid):
    """Best zero of the derivative of the expected MSE."""
    signal, median = _signal_and_median(dist)
    tails = _Tails(dist, grid)
    first = np.geomspace(median / max(grid.qmax, -grid.qmin), 4 * median, 16)
    low, high = tails.range(median, signal + tails.at(first)[0].min())
    brackets = [
        narrow
        for wide in _descents(np.geomspace(low, high, _scan_size(dist, grid)), tails, signal)
        for narrow in _descents(np.linspace(*wide[:2], 13), tails, signal)
    ]
    if not brackets:
        raise ValueError(f"no optimal {grid.n_bits}-bit scale was found for {dist}; rescale it")
    floor = min(error for *_, error in brackets)
    roots = [
        _root(dist, grid, tails, left, right)
        for left, right, error in brackets
        if error <= floor * 1.01
    ]
    if len(roots) == 1:
        return roots[0]
    return min(roots, key=lambda s: expected_quantization_mse(dist, replace(grid, scale=s)))


@lru_cache(maxsize=64)
def _signal_and_median(dist):
    """E W^2 and the median magnitude: the same at every bit-width."""
    return dist.moment(2), dist.magnitude_quantile(0.5)


def _scan_size(dist, grid):
    """How many scales to scan.

    A density that is symmetric, and in these families then unimodal, about zero has wide basins.
    Mass away from zero meets its levels one after the other: basins 1/k wide for level k.
    """
    n_steps = max(grid.qmax, -grid.qmin)
    return _N_SCAN if dist.symmetric else max(_N_SCAN, min(16 * n_steps, _MAX_SCAN // n_steps))


def _root(dist, grid, tails, left, right):
    """Where the slope of the error vanishes between two scales."""
    nodes = np.linspace(left, right, 9)
    slopes = tails.at(nodes)[1]
    guesses = nodes  # inverse interpolation by Neville's rule: nine slopes at the price of one
    with np.errstate(divide="ignore", invalid="ignore"):
        for k in range(1, nodes.size):
            high, low = slopes[k:], slopes[:-k]
            guesses = (high * guesses[:-1] - low * guesses[1:]) / (high - low)
    root = float(guesses[0])
    # kinks of the slope, where a level meets an end of the support, defeat interpolation
    if not (left < root < right and abs(tails.slope(root)) <= 1e-9 * abs(slopes).max()):
        root = optimize.brentq(tails.slope, left, right, xtol=1e-14 * left, rtol=1e-14)
    if grid.n_bits <= 8:
        return root
    # narrow cells: the tails have lost digits, so finish with moments about the levels
    near, far = root * (1 - 1e-6), root * (1 + 1e-6)
    slope_near, slope_far = (_slope_by_cells(dist, grid, s) for s in (near, far))
    return near - slope_near * (far - near) / (slope_far - slope_near)


def _descents(scales, tails, signal):
    """Intervals on which the error turns from falling to rising, those near the lowest only."""
    half_error, slopes = tails.at(scales)
    errors = half_error + signal
    turns = np.flatnonzero((slopes[:-1] < 0) & (slopes[1:] >= 0))
    near = [(scales[i], scales[i + 1], errors[i : i + 2].min()) for i in turns.tolist()]
    floor = min((e for *_, e in near), default=0.0)
    return [n for n in near if n[2] <= _CLOSE * floor]


class _Tails:
    """The expected MSE and its slope at many scales, from tail moments of the distribution.

    With k = Q(w)/s, f(s) = E W^2 - 2 s E[W k] + s^2 E[k^2], and summed by parts over the edges
    x_j = (j + 1/2) s, E[W k] = sum_j E[W; W > x_j] and E[k^2] = sum_j (2 j + 1) P(W > x_j) for the
    positive side, likewise for the negative one. Good to about 1e-12 of the error up to 8 bits.
    """

    def __init__(self, dist, grid):
        self.dist = dist
        self.steps = {1: np.arange(grid.qmax), -1: np.arange(-grid.qmin)}

    def at(self, scales):
        """(f(s) - E W^2, f'(s) / 2), each of shape (n_scales,)."""
        wk, kk = np.zeros(scales.size), np.zeros(scales.size)
        longest = max(self.steps.values(), key=len)
        both = self._moments(np.multiply.outer(scales, longest + 0.5), 1)
        for sign, k in self.steps.items():
            mirrored = sign > 0 or self.dist.symmetric
            moments = both if mirrored else self._moments(np.multiply.outer(scales, k + 0.5), -1)
            first, mass = (m[:, : k.size] for m in moments)
            wk += first.sum(axis=1)
            kk += mass @ (2.0 * k + 1)
        return scales**2 * kk - 2 * scales * wk, scales * kk - wk

    def slope(self, scale):
        """f'(s) / 2 at one scale."""
        return float(self.at(np.array([scale]))[1][0])

    def _moments(self, x, sign):
        lo, hi = self.dist.support
        a, b = (x, max(hi, 0.0)) if sign > 0 else (min(lo, 0.0), -x)
        # an edge beyond the support has nothing behind it
        a, b = (np.minimum(np.maximum(np.asarray(v), lo), hi) for v in (a, b))
        first, mass = (self.dist._direct_moment(order, a, b, _ZERO) for order in (1, 0))
        return sign * first, mass

    def range(self, median, best):
        """Scales outside of which the error exceeds ``best``, each within a factor of 2.

        Below: clipping alone costs E(|W| - c)^2 beyond c = k s at least, and this scale's
        (E(|W| - c))^2 / P(|W| > c). Above: what lies within s / 2 is zeroed. Both by Jensen.
        """
        halvings, doublings = median * 2.0 ** -np.arange(40), median * 2.0 ** np.arange(1, 60)
        cuts = max(map(len, self.steps.values())) * halvings
        x = np.concatenate([cuts, doublings / 2, [0.0]])
        first, mass = self._moments(x, 1)
        other, other_mass = (first, mass) if self.dist.symmetric else self._moments(x, -1)
        first, mass = first + other, mass + other_mass
        beyond = mass[: cuts.size]
        clipped = (first[: cuts.size] - cuts * beyond) ** 2 >= best * beyond
        within = first[-1] - first[cuts.size : -1], mass[-1] - mass[cuts.size : -1]
        zeroed = within[0] ** 2 >= best * within[1]
        zeroed |= doublings >= 2 * max(map(abs, self.dist.support))
        low = halvings[clipped & (beyond > 0)]
        return np.max(low, initial=halvings[-1]), np.min(doublings[zeroed], initial=doublings[-1])


def _slope_by_cells(dist, grid, scale):
    """f'(s) / 2 = -sum_i i M_1(cell_i; level_i): moments about the levels, for narrow cells."""
    scaled = replace(grid, scale=scale)
    levels, edges = scaled.levels(), scaled.edges()
    lo, hi = dist.support
    first = dist.partial_moment(
        1,
        np.r_[min(lo, edges[0]), edges],
        np.r_[edges, max(hi, edges[-1])],
        levels,
    )
    return float(-np.sum(first * np.arange(grid.qmin, grid.qmax + 1)))
