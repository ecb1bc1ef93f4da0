"""The MSE-optimal scale of a distribution: the best zero of the derivative of the expected error.

Over a cell of width s centered at its level, squared distance is s^2 / 12 on average, so rounding
costs s^2 / 12 times the mass within reach of the levels but for the density's variation inside the
cells. With V its total variation, integration by parts bounds that difference by
s^3 V / (36 sqrt(3)); what lies beyond the last levels is clipped, at a cost known in closed form.
Together they bound the error from below at every scale, and leave an interval of scales (some
per cent wide at 8 bits, less at more) outside of which the error provably exceeds one that was
seen. The interval is scanned for sign changes of the derivative, and the lowest are refined.

All that a scan needs of the distribution is E[W; W > x] and P(W > x) at many x. Each search is
a generator that yields such x and is sent the moments; the searches for several grids advance in
step, and one evaluation answers them all. (On arrays this small the time goes into the calls.)
"""

from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy import optimize

from pqlib.density import Distribution, check_power
from pqlib.expected_error import expected_quantization_mse
from pqlib.grids import IntegerGrid

_COARSE = 8.0 ** np.arange(-8, 21)  # last levels searched, in units of the mass's reach,
_N_NARROW = 17  # and how many narrow them down, as long as that helps
_N_SCAN = 48  # scales per scan of a symmetric distribution; mass away from zero needs more
_MAX_SCAN = 2_000_000  # scales x levels that a scan may take
_CLOSE = 1 + 1e-4  # local minima within this factor of the best are refined,
_MOST = 8  # and no more than this many, fewer on many levels, where they hardly differ
_ZERO = np.zeros(())


def distribution_scales(dist: Distribution, grids: Sequence[IntegerGrid]) -> list[float]:
    """The best scale of each grid's kind for ``dist``; see `pqlib.optimal_scale`."""
    ranges = _ranges(dist, grids)
    return _in_step(dist, [_search(dist, *args) for args in zip(grids, *ranges, strict=True)])


def _in_step(dist, searches: Sequence[Generator]) -> list:
    """Run generators to their ends, answering what all of them ask for at once."""
    results = [None] * len(searches)
    requests = {i: next(search) for i, search in enumerate(searches)}
    while requests:
        x = np.concatenate([x.ravel() for x in requests.values()])
        moments = [*_tails(dist, 1, x), *_tails(dist, 0, x)]
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


def _tails(dist, order, x):
    """E[|W|^order; W > x] and E[|W|^order; W < -x] for x >= 0, each of x's shape."""
    lo, hi = dist.support
    sides = []
    for sign in (1,) if dist.symmetric else (1, -1):
        a, b = (x, max(hi, 0.0)) if sign > 0 else (min(lo, 0.0), -x)
        # an edge beyond the support has nothing behind it
        a, b = (np.minimum(np.maximum(np.asarray(v), lo), hi) for v in (a, b))
        sides.append(sign**order * dist._direct_moment(order, a, b, _ZERO))
    return sides * 2 if dist.symmetric else sides


def _search(dist, grid, low, high):
    steps = grid.qmax, -grid.qmin
    signal, *_ = _landmarks(dist)
    scan = np.geomspace(low, high, _scan_size(dist, max(steps), high / low))
    most = max(1, min(_MOST, 8192 // max(steps)))
    brackets, roots = [], []
    for left, right, _ in (yield from _descents(scan, steps, signal))[:most]:
        brackets += yield from _descents(np.linspace(left, right, 13), steps, signal)
    brackets.sort(key=lambda bracket: bracket[2])
    for left, right, error in brackets[:most]:
        if error <= brackets[0][2] * _CLOSE:
            roots.append((yield from _root(dist, grid, left, right)))

    def error_at(scale):
        return expected_quantization_mse(dist, replace(grid, scale=float(scale)))

    if not roots or None in roots:  # rounding has drowned the slope: minimize by cells
        scan = scan[:: max(1, scan.size // 128)]
        i = np.argmin([error_at(s) for s in scan])
        ends = scan[max(i - 1, 0)], scan[min(i + 1, scan.size - 1)]
        options = {"xatol": 1e-9 * ends[0]}
        found = optimize.minimize_scalar(error_at, bounds=ends, method="bounded", options=options)
        return float(found.x)
    return min(roots, key=error_at) if len(roots) > 1 else roots[0]


@lru_cache(maxsize=64)
def _landmarks(dist):
    """E W^2, the peak of the density, and the breadth and the reach of 90 % of the mass."""
    start, stop = dist.ppf([0.05, 0.95]).tolist()
    return check_power(dist), float(dist.pdf(dist.mode)), stop - start, max(-start, stop)


def _scan_size(dist, n_steps, ratio):
    """How many scales to scan between two of this ratio.

    A density that is symmetric, and in these families then unimodal, about zero has wide basins.
    Mass away from zero meets its levels one after the other: basins 1/k wide for level k.
    """
    if dist.symmetric:
        return _N_SCAN
    return max(_N_SCAN, int(min(16 * n_steps * np.log(ratio), _MAX_SCAN / n_steps)))


def _errors(steps, scales):
    """(f(s) - E W^2, f'(s) / 2) of the expected MSE f, each of shape (n_scales,).

    With k = Q(w)/s, f(s) = E W^2 - 2 s E[W k] + s^2 E[k^2], and summed by parts over the edges
    x_j = (j + 1/2) s, E[W k] = sum_j E[W; W > x_j] and E[k^2] = sum_j (2 j + 1) P(W > x_j) for the
    positive side, likewise for the negative one. Good to about 1e-12 of the error up to 8 bits.
    """
    halves = np.arange(max(steps)) + 0.5
    right_first, left_first, right_mass, left_mass = yield np.multiply.outer(scales, halves)
    up, down = steps
    wk = right_first[:, :up].sum(axis=1) + left_first[:, :down].sum(axis=1)
    kk = right_mass[:, :up] @ (2 * halves[:up]) + left_mass[:, :down] @ (2 * halves[:down])
    return scales**2 * kk - 2 * scales * wk, scales * kk - wk


def _ranges(dist, grids):
    """For each grid the lowest and the highest scale that could be optimal: two arrays."""
    signal, *_, reach = _landmarks(dist)
    ends = reach * _COARSE / np.array([[max(g.qmax, -g.qmin)] for g in grids])
    width, pick = np.inf, np.arange(len(grids))
    while True:
        lower, upper = _bounds(dist, grids, ends)
        # the allowance is for rounding, of the sums and of what they are subtracted from
        best = upper.min(axis=1, keepdims=True) * (1 + 1e-6) + 1e-14 * signal
        possible = lower <= best
        first, last = possible.argmax(axis=1), possible.shape[1] - possible[:, ::-1].argmax(axis=1)
        low, high = ends[pick, first], ends[pick, last]
        before, width = width, np.log(high / low)
        if np.all(width > 0.6 * before):
            return low, high
        ends = low[:, None] * (high / low)[:, None] ** np.linspace(0, 1, _N_NARROW)


def _bounds(dist, grids, ends):
    """Lower bounds of the error between consecutive scales, upper bounds at each of them.

    ``ends`` has shape (n_grids, n). Clipping falls with the scale; the mass that is rounded, and
    what lies within s / 2 and is zeroed, grow with it. So does a bound for cells wider than the
    density: m = L / s + 1 levels serve an interval of length L, and its mass M <= 2 d m p_max
    cannot lie closer to them than in bands of half-width d, which cost M d^2 / 3.
    """
    up = np.array([[g.qmax] for g in grids]) * ends
    down = np.array([[-g.qmin] for g in grids]) * ends
    cuts = np.stack([up, down, ends / 2])
    mass, first, second = (_tails(dist, order, cuts) for order in range(3))
    clipped = sum(
        second[i][i] - 2 * cuts[i] * first[i][i] + cuts[i] ** 2 * mass[i][i] for i in (0, 1)
    )
    signal, peak, breadth, _ = _landmarks(dist)
    # an unsigned grid clips what is negative, it does not zero it
    zeroed = signal - second[0][2] - np.where(down > 0, second[1][2], second[1][1])
    rounded = ends**2 / 12 * (1 - mass[0][0] - mass[1][1])
    slack = ends**2 * (ends * peak) / (18 * np.sqrt(3))
    packed = 0.9 / 12 * (0.9 / ((breadth / ends + 1) * peak)) ** 2
    lower = np.maximum(rounded[:, :-1] - slack[:, 1:], zeroed[:, :-1]) + clipped[:, 1:]
    return np.maximum(lower, packed[:, :-1]), rounded + slack + clipped


def _descents(scales, steps, signal):
    """(left, right, estimated minimum) where the error turns from falling to rising, best first."""
    half_error, slopes = yield from _errors(steps, scales)
    turns = np.flatnonzero((slopes[:-1] < 0) & (slopes[1:] >= 0))
    fall, rise, width = slopes[turns], slopes[turns + 1], np.diff(scales)[turns]
    # the parabola through the left end with the slopes of both (which are half derivatives)
    lowest = half_error[turns] + signal - width * fall**2 / (rise - fall)
    best = np.argsort(lowest, kind="stable")
    i = turns[best]
    return list(zip(scales[i].tolist(), scales[i + 1].tolist(), lowest[best].tolist(), strict=True))


def _root(dist, grid, left, right):
    """Where the slope of the error vanishes between two scales, None where rounding hides it."""
    steps = grid.qmax, -grid.qmin
    nodes = np.linspace(left, right, 9)
    _, slopes = yield from _errors(steps, nodes)
    guesses, ends = nodes, slopes[[0, -1]]
    with np.errstate(divide="ignore", invalid="ignore"):
        # inverse interpolation by Neville's rule: nine slopes at the price of one
        for k in range(1, nodes.size):
            high, low = slopes[k:], slopes[:-k]
            guesses = (high * guesses[:-1] - low * guesses[1:]) / (high - low)
    root = float(guesses[0])
    _, (slope,) = yield from _errors(steps, guesses)
    # kinks of the slope, where a level meets an end of the support, defeat interpolation
    if not (left < root < right and abs(slope) <= 1e-9 * abs(slopes).max()):
        if not ends[0] < 0 < ends[1]:
            return None
        root = optimize.brentq(
            lambda s: _in_step(dist, [_errors(steps, np.array([s]))])[0][1][0],
            left,
            right,
            xtol=1e-14 * left if grid.n_bits <= 8 else 1e-8 * left,
            rtol=1e-14,
        )
    if grid.n_bits <= 8:
        return root
    # narrow cells: the tails have lost digits, so finish with moments about the levels
    near, far = root * (1 - 1e-6), root * (1 + 1e-6)
    slope_near, slope_far = (_slope_by_cells(dist, grid, s) for s in (near, far))
    root = near - slope_near * (far - near) / (slope_far - slope_near)
    return root if left <= root <= right else None


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
