"""The MSE-optimal scale of a distribution: the best zero of the derivative of the expected error.

Where clipping alone, or zeroing alone, already costs more than a scale that was seen, no scale
need be looked at. What is left is scanned for sign changes of the derivative, and each that could
be the best is refined.

All that a search needs of the distribution is E[W; W > x] and P(W > x) at many x. Each search is
a generator that yields such x and is sent the moments; the searches for several grids advance in
step, and one evaluation answers them all. (On arrays this small the time goes into the calls.)
"""

from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy import optimize

from pqlib.density import Distribution
from pqlib.expected_error import expected_quantization_mse
from pqlib.grids import IntegerGrid

_N_SCAN = 64  # scales per scan of a symmetric distribution; mass away from zero needs more
_MAX_SCAN = 2_000_000  # scales x levels that a scan may take
_CLOSE = 1.2  # local minima of the scan within this factor of the best are refined,
_MOST = 16  # and no more than this many
_ZERO = np.zeros(())


def distribution_scales(dist: Distribution, grids: Sequence[IntegerGrid]) -> list[float]:
    """The best scale of each grid's kind for ``dist``; see `pqlib.optimal_scale`."""
    return _in_step(dist, [_search(dist, grid) for grid in grids])


def _in_step(dist, searches: Sequence[Generator]) -> list:
    """Run generators to their ends, answering what all of them ask for at once."""
    results = [None] * len(searches)
    requests = {i: next(search) for i, search in enumerate(searches)}
    while requests:
        moments = _tail_moments(dist, np.concatenate([x.ravel() for x in requests.values()]))
        start = 0
        for i, x in list(requests.items()):
            answer = [m[start : start + x.size].reshape(x.shape) for m in moments]
            start += x.size
            try:
                requests[i] = searches[i].send(answer)
            except StopIteration as done:
                results[i] = done.value
                del requests[i]
    return results


def _tail_moments(dist, x):
    """E[W; W > x], P(W > x), E[-W; W < -x] and P(W < -x) for x >= 0, each of x's shape."""
    lo, hi = dist.support
    sides = []
    for sign in (1,) if dist.symmetric else (1, -1):
        a, b = (x, max(hi, 0.0)) if sign > 0 else (min(lo, 0.0), -x)
        # an edge beyond the support has nothing behind it
        a, b = (np.minimum(np.maximum(np.asarray(v), lo), hi) for v in (a, b))
        sides += [sign * dist._direct_moment(1, a, b, _ZERO), dist._direct_moment(0, a, b, _ZERO)]
    return sides * 2 if dist.symmetric else sides


def _search(dist, grid):
    signal, median = _signal_and_median(dist)
    steps = grid.qmax, -grid.qmin
    first = np.geomspace(median / max(steps), 4 * median, 16)
    errors, _ = yield from _errors(steps, first)
    low, high = yield from _range(dist, max(steps), median, signal + errors.min())
    scan = np.geomspace(low, high, _scan_size(dist, max(steps)))
    if not dist.symmetric and max(steps) >= 1024:  # basins too narrow for one scan: look closer
        errors, _ = yield from _errors(steps, scan)
        i = int(np.argmin(errors))
        near = min(scan[max(i - 1, 0)], 0.985 * scan[i]), max(*scan[i : i + 2], 1.015 * scan[i])
        scan = np.linspace(*near, _scan_size(dist, max(steps)))
    brackets = []
    for left, right, _ in (yield from _descents(scan, steps, signal)):
        brackets += yield from _descents(np.linspace(left, right, 13), steps, signal)
    if not brackets:
        raise ValueError(f"no optimal {grid.n_bits}-bit scale was found for {dist}; rescale it")
    floor = min(error for *_, error in brackets)
    roots = []
    for left, right, error in brackets:
        if error <= floor * 1.01:
            roots.append((yield from _root(dist, grid, left, right)))
    if len(roots) == 1:
        return roots[0]
    return min(roots, key=lambda s: expected_quantization_mse(dist, replace(grid, scale=s)))


@lru_cache(maxsize=64)
def _signal_and_median(dist):
    """E W^2 and the median magnitude: the same at every bit-width."""
    return dist.moment(2), dist.magnitude_quantile(0.5)


def _scan_size(dist, n_steps):
    """How many scales to scan.

    A density that is symmetric, and in these families then unimodal, about zero has wide basins.
    Mass away from zero meets its levels one after the other: basins 1/k wide for level k.
    """
    return _N_SCAN if dist.symmetric else max(_N_SCAN, min(16 * n_steps, _MAX_SCAN // n_steps))


def _errors(steps, scales):
    """(f(s) - E W^2, f'(s) / 2) of the expected MSE f, each of shape (n_scales,).

    With k = Q(w)/s, f(s) = E W^2 - 2 s E[W k] + s^2 E[k^2], and summed by parts over the edges
    x_j = (j + 1/2) s, E[W k] = sum_j E[W; W > x_j] and E[k^2] = sum_j (2 j + 1) P(W > x_j) for the
    positive side, likewise for the negative one. Good to about 1e-12 of the error up to 8 bits.
    """
    halves = np.arange(max(steps)) + 0.5
    right_first, right_mass, left_first, left_mass = yield np.multiply.outer(scales, halves)
    up, down = steps
    wk = right_first[:, :up].sum(axis=1) + left_first[:, :down].sum(axis=1)
    kk = right_mass[:, :up] @ (2 * halves[:up]) + left_mass[:, :down] @ (2 * halves[:down])
    return scales**2 * kk - 2 * scales * wk, scales * kk - wk


def _range(dist, n_steps, median, best):
    """Scales outside of which the error exceeds ``best``, each within a factor of 2.

    Below: clipping alone costs E(|W| - c)^2 beyond c = k s at least, and this scale's
    (E(|W| - c))^2 / P(|W| > c). Above: what lies within s / 2 is zeroed. Both by Jensen.
    """
    halvings, doublings = median * 2.0 ** -np.arange(40), median * 2.0 ** np.arange(1, 60)
    cuts = n_steps * halvings
    right_first, right_mass, left_first, left_mass = yield np.r_[cuts, doublings / 2, 0.0]
    first, mass = right_first + left_first, right_mass + left_mass
    beyond = mass[: cuts.size]
    # > and not >=: far out both sides underflow to 0
    clipped = (first[: cuts.size] - cuts * beyond) ** 2 > best * beyond
    within = first[-1] - first[cuts.size : -1], mass[-1] - mass[cuts.size : -1]
    zeroed = within[0] ** 2 >= best * within[1]
    zeroed |= doublings >= 2 * max(map(abs, dist.support))
    low = halvings[clipped & (beyond > 0)]
    return np.max(low, initial=halvings[-1]), np.min(doublings[zeroed], initial=doublings[-1])


def _descents(scales, steps, signal):
    """Intervals on which the error turns from falling to rising, those near the lowest only."""
    half_error, slopes = yield from _errors(steps, scales)
    errors = half_error + signal
    turns = np.flatnonzero((slopes[:-1] < 0) & (slopes[1:] >= 0))
    near = [(scales[i], scales[i + 1], errors[i : i + 2].min()) for i in turns.tolist()]
    floor = min((e for *_, e in near), default=0.0)
    return sorted((n for n in near if n[2] <= _CLOSE * floor), key=lambda n: n[2])[:_MOST]


def _root(dist, grid, left, right):
    """Where the slope of the error vanishes between two scales."""
    steps = grid.qmax, -grid.qmin
    nodes = np.linspace(left, right, 9)
    _, slopes = yield from _errors(steps, nodes)
    guesses = nodes  # inverse interpolation by Neville's rule: nine slopes at the price of one
    with np.errstate(divide="ignore", invalid="ignore"):
        for k in range(1, nodes.size):
            high, low = slopes[k:], slopes[:-k]
            guesses = (high * guesses[:-1] - low * guesses[1:]) / (high - low)
    root = float(guesses[0])
    _, (slope,) = yield from _errors(steps, guesses)
    # kinks of the slope, where a level meets an end of the support, defeat interpolation
    if not (left < root < right and abs(slope) <= 1e-9 * abs(slopes).max()):
        root = optimize.brentq(
            lambda s: _in_step(dist, [_errors(steps, np.array([s]))])[0][1][0],
            left,
            right,
            xtol=1e-14 * left,
            rtol=1e-14,
        )
    if grid.n_bits <= 8:
        return root
    # narrow cells: the tails have lost digits, so finish with moments about the levels
    near, far = root * (1 - 1e-6), root * (1 + 1e-6)
    slope_near, slope_far = (_slope_by_cells(dist, grid, s) for s in (near, far))
    return near - slope_near * (far - near) / (slope_far - slope_near)


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
