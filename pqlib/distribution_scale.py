"""The MSE-optimal scale of a distribution: the best zero of the derivative of the expected error.

Where clipping alone, or zeroing alone, already costs more than a scale that was seen, no scale
need be looked at. What is left is scanned for sign changes of the derivative, and each that could
be the best is refined.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy import optimize

from pqlib.expected_error import expected_quantization_mse

_N_SCAN = 64  # scales per scan of a symmetric distribution; mass away from zero needs more
_MAX_SCAN = 2_000_000  # scales x levels that a scan may take
_CLOSE = 1.2  # local minima of the scan within this factor of the best are refined
_ZERO = np.zeros(())


def distribution_scale(dist, grid):
    """The scale of the best grid of ``grid``'s kind for ``dist``; see `pqlib.optimal_scale`."""
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
        # > and not >=: far out both sides underflow to 0
        clipped = (first[: cuts.size] - cuts * beyond) ** 2 > best * beyond
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
