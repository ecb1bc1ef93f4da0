"""Compiled loops over sorted weights: the error at a scale, and the best scale of all.

`pqlib.scale_search.SortedWeights` prepares what they take. A kernel and all it calls stand in this
one file, since a cached kernel does not notice an edit in another.
"""

import heapq
from typing import no_type_check

import numpy as np

from pqlib.compilation import compiled


@compiled(reorder_sums=True)
@no_type_check
def kurtosis(up, down, n):
    """Fourth over squared second central moment of ``up``, ``-down`` and zeros, n values in all."""
    mean = second = fourth = 0.0
    for w in up:
        mean += np.float64(w) / n
    for w in down:
        mean -= np.float64(w) / n
    largest = abs(mean)
    for side, sign in ((up, 1.0), (down, -1.0)):
        if side.size:
            largest = max(largest, abs(sign * np.float64(side[-1]) - mean))
    if not largest > 0.0:
        return np.nan
    unit = 2.0 ** -np.floor(np.log2(largest))  # fourth powers of tiny weights would underflow
    for side, sign in ((up, 1.0), (down, -1.0)):
        for w in side:
            square = ((sign * np.float64(w) - mean) * unit) ** 2
            second += square
            fourth += square * square
    zeros = n - up.size - down.size
    second += zeros * (mean * unit) ** 2
    fourth += zeros * (mean * unit) ** 4
    return fourth * n / (second * second) if second > 0.0 else np.nan


@compiled
@no_type_check
def tail_sums(ascending):
    """tail[i] = sum of ascending[i:], shape (n + 1,), summed from the large end.

    With Kahan's correction: the plain sum of a million terms would lose more digits than the proof
    of a scale allows for.
    """
    tail = np.zeros(ascending.size + 1)
    lost = 0.0
    for i in range(ascending.size - 1, -1, -1):
        term = ascending[i] - lost
        tail[i] = tail[i + 1] + term
        lost = (tail[i] - tail[i + 1]) - term
    return tail


@compiled
@no_type_check
def head_squares(ascending):
    """head[i] = sum of squares of ascending[:i], shape (n + 1,), with Kahan's correction."""
    head = np.zeros(ascending.size + 1)
    lost = 0.0
    for i in range(ascending.size):
        term = np.float64(ascending[i]) ** 2 - lost
        head[i + 1] = head[i] + term
        lost = (head[i + 1] - head[i]) - term
    return head


@compiled(reorder_sums=True)
@no_type_check
def bucket_starts(ascending, n_buckets):
    """starts[b] = the first index whose value lies in bucket b or beyond; equal buckets to max."""
    starts = np.empty(n_buckets + 2, np.int64)
    if ascending.size == 0:
        starts[:] = 0
        return starts
    per_unit = n_buckets / np.float64(ascending[-1])
    filled = 0
    for i in range(ascending.size):
        bucket = np.int64(ascending[i] * per_unit)
        while filled <= bucket and filled < n_buckets + 2:
            starts[filled] = i
            filled += 1
    starts[filled:] = ascending.size
    return starts


@compiled(reorder_sums=True)
@no_type_check
def n_below(ascending, starts, per_unit, x):
    """How many values are < x, by its bucket and a binary search within."""
    n = ascending.size
    if n == 0 or x > ascending[-1]:
        return n
    bucket = np.int64(x * per_unit)
    low, high = starts[bucket], starts[bucket + 1]
    # rounding may put x one bucket off
    while low > 0 and ascending[low - 1] >= x:
        low -= 1
    while high < n and ascending[high] < x:
        high += 1
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] < x:
            low = middle + 1
        else:
            high = middle
    return low


@compiled(reorder_sums=True)
@no_type_check
def _side(ascending, tail, starts, n_steps, scale):
    """(sum w k, sum k^2) of one sign, k = min(round(w / scale), n_steps)."""
    n = ascending.size
    if scale == 0.0:
        return n_steps * tail[0], float(n) * n_steps * n_steps
    b = c = 0.0
    if n < 16 * n_steps:  # few weights: round each
        most = np.float64(n_steps)
        for w in ascending:
            k = min(np.rint(w / scale), most)
            b += w * k
            c += k * k
        return b, c
    per_unit = (starts.size - 2) / np.float64(ascending[-1]) if n else 0.0
    for j in range(n_steps):
        first = n_below(ascending, starts, per_unit, (j + 0.5) * scale)
        if first == n:
            break
        b += tail[first]
        c += (2.0 * j + 1.0) * (n - first)
    return b, c


@compiled(reorder_sums=True)
@no_type_check
def error_at(up, down, n_up, n_down, total, scale):
    """(total squared error, sum w k, sum k^2) at one scale; good to some 1e-16 of ``total``."""
    b_up, c_up = _side(up[0], up[1], up[2], n_up, scale)
    b_down, c_down = _side(down[0], down[1], down[2], n_down, scale)
    b, c = b_up + b_down, c_up + c_down
    return max(total - 2.0 * scale * b + scale * scale * c, 0.0), b, c


@compiled(reorder_sums=True)
@no_type_check
def _floor_between(left, right, f_left, f_right, c_left):
    """Lower bound of the error on [left, right], and where it is attained.

    At fixed integers the error is a parabola of curvature 2 sum k^2, which falls as the scale
    grows. Hence error - c s^2 with c = sum k^2 at ``left`` is concave there: the error lies above
    its chord, less c (s - left) (right - s).
    """
    width = right - left
    slope = (f_right - f_left) / width
    if c_left <= 0.0:
        return min(f_left, f_right), left + width / 2
    x = min(max((width - slope / c_left) / 2.0, 0.0), width)
    return f_left + slope * x - c_left * x * (width - x), left + x


@compiled(reorder_sums=True)
@no_type_check
def best_scale(up, down, n_up, n_down, total, largest, tolerance, noise, most):
    """Branch and bound over all scales: candidates, their estimated errors, a lower bound.

    Intervals are split where the bound of `_floor_between` is lowest, the lowest first, until it
    is within ``tolerance`` (relative) and ``noise`` (absolute) of the best error seen, or ``most``
    scales have been tried. Each scale tried also offers the best scale for its integers,
    sum w k / sum k^2, at which the error is at most total - (sum w k)^2 / sum k^2.
    """
    scales, estimates = [largest * 2.0], [total]
    best = total
    f_left, _, c_left = error_at(up, down, n_up, n_down, total, 0.0)
    left, right, f_right = 0.0, largest * 2.0 * (1.0 + 1e-12), total
    bound, at = _floor_between(left, right, f_left, f_right, c_left)
    heap = [(bound, at, left, right, f_left, f_right, c_left)]
    lower = bound
    while len(heap) > 0:
        bound, at, left, right, f_left, f_right, c_left = heapq.heappop(heap)
        lower = bound
        if bound >= best * (1.0 - tolerance) - noise or len(scales) >= most:
            break
        width = right - left
        middle = min(max(at, left + 0.1 * width), right - 0.1 * width)
        if not left < middle < right:
            break
        f, b, c = error_at(up, down, n_up, n_down, total, middle)
        if c > 0.0:
            reachable = total - b * b / c
            scales.append(b / c)
            estimates.append(reachable)
            best = min(best, reachable)
        bound, at = _floor_between(left, middle, f_left, f, c_left)
        heapq.heappush(heap, (bound, at, left, middle, f_left, f, c_left))
        bound, at = _floor_between(middle, right, f, f_right, c)
        heapq.heappush(heap, (bound, at, middle, right, f, f_right, c))
    return np.array(scales), np.array(estimates), lower


@compiled(reorder_sums=True)
@no_type_check
def squared_error(ascending, scale, n_steps):
    """Sum of (w - k scale)^2 of one sign, added up directly, and how many k are 0."""
    total, zeros = 0.0, 0
    for i in range(ascending.size):
        w = np.float64(ascending[i])
        k = min(np.rint(w / scale), np.float64(n_steps))
        total += (w - k * scale) ** 2
        zeros += k == 0.0
    return total, zeros


@compiled(reorder_sums=True)
@no_type_check
def n_smallest(up, down, n_zeros):
    """How many of the ``n_zeros`` smallest magnitudes lie in ``up``, both ascending."""
    low, high = max(0, n_zeros - down.size), min(n_zeros, up.size)
    while low < high:
        middle = (low + high) // 2
        if up[middle] < down[n_zeros - middle - 1]:
            low = middle + 1
        else:
            high = middle
    return low
