"""Compiled loops over the tree of whole vectors: K-best beam, exhaustive search, descent.

`pqlib.bounds.lattice` derives what they take. A kernel and all it calls stand in this one file,
since a cached kernel does not notice an edit in another.
"""

from typing import no_type_check

import numpy as np

from pqlib.compilation import compiled

_EPS = 2.0**-52


@compiled
@no_type_check
def _start(x, low, high):
    """Where the two pointers of an enumeration round x begin: the nearest, and the one below."""
    nearest = min(max(np.rint(x), low), high)
    return nearest, nearest - 1.0


@compiled
@no_type_check
def _goes_up(x, above, below, low, high):
    """Whether ``above`` comes before ``below``: the nearer to x of the two that are in range."""
    return above <= high and (below < low or above - x <= x - below)


@compiled
@no_type_check
def beam(squares, steps, s, slope, low, high, width):
    """K-best search: at each level of the tree the ``width`` cheapest partial vectors survive.

    Arguments as in `search`. Returns the vectors y, the cheapest first.
    """
    n = s.size
    y, pull, cost = np.zeros((1, n)), np.zeros((1, n)), np.zeros(1)
    for k in range(n - 1, -1, -1):
        count = cost.size
        x, above, below = np.empty(count), np.empty(count), np.empty(count)
        ahead = np.empty(count)  # cost of the next child of each
        for p in range(count):
            x[p] = s[k] + pull[p, k] - slope[k] / (2.0 * squares[k])
            above[p], below[p] = _start(x[p], low[k], high[k])
            z = above[p]
            ahead[p] = cost[p] + squares[k] * (z - s[k] - pull[p, k]) ** 2 + slope[k] * (z - s[k])
        new_y, new_pull, new_cost = np.empty((width, n)), np.empty((width, n)), np.empty(width)
        kept = 0
        while kept < width:
            p = np.argmin(ahead)
            if ahead[p] == np.inf:
                break
            if _goes_up(x[p], above[p], below[p], low[k], high[k]):
                z = above[p]
                above[p] += 1.0
            else:
                z = below[p]
                below[p] -= 1.0
            new_cost[kept] = ahead[p]
            for j in range(k):
                new_pull[kept, j] = pull[p, j] - steps[k, j] * (z - s[k])
            for j in range(k + 1, n):
                new_y[kept, j] = y[p, j]
            new_y[kept, k] = z
            kept += 1
            if _goes_up(x[p], above[p], below[p], low[k], high[k]):
                z = above[p]
            elif below[p] >= low[k]:
                z = below[p]
            else:
                ahead[p] = np.inf
                continue
            ahead[p] = cost[p] + squares[k] * (z - s[k] - pull[p, k]) ** 2 + slope[k] * (z - s[k])
        y, pull, cost = new_y[:kept], new_pull[:kept], new_cost[:kept]
    return y


@compiled
@no_type_check
def descend(gram, scale, weight, z, low, high, pairs):
    """Lower the error of whole numbers z in place: +-1 in one coordinate, with ``pairs`` in two.

    The best move of each kind is made until none lowers the error by more than rounding. One
    coordinate at a time is Park and Boyd's 1-opt.
    """
    n = z.size
    v = np.empty(n)
    while True:
        d = scale * z - weight
        noise = 0.0
        for i in range(n):  # plain loops, since BLAS would wake its threads
            v[i] = blur = 0.0
            for j in range(n):
                v[i] += gram[i, j] * d[j]
                blur += abs(gram[i, j]) * (abs(scale * z[j]) + abs(weight[j]))
            noise = max(noise, 16.0 * (n + 2) * _EPS * scale * blur)
        best, first, second, move_1, move_2 = -noise, -1, -1, 0, 0
        for i in range(n):
            for move in (-1, 1):
                if not low[i] <= z[i] + move <= high[i]:
                    continue
                change = 2.0 * move * scale * v[i] + scale * scale * gram[i, i]
                if change < best:
                    best, first, second, move_1 = change, i, -1, move
                if not pairs:
                    continue
                for j in range(i):
                    cross = 2.0 * scale * scale * gram[i, j] * move
                    for other in (-1, 1):
                        both = change + other * (2.0 * scale * v[j] + cross)
                        both += scale * scale * gram[j, j]
                        if both < best and low[j] <= z[j] + other <= high[j]:
                            best, first, second, move_1, move_2 = both, i, j, move, other
        if first < 0:
            return
        z[first] += move_1
        if second >= 0:
            z[second] += move_2


@compiled
@no_type_check
def _radius(upper, limits):
    """How far in the tree's form a point of the box with error < upper (1 - tolerance) can be."""
    scale, tolerance, shift, cross, fixed, relative, square, line, offset = limits
    base = (np.sqrt(upper * (1.0 - tolerance)) / scale + shift) ** 2 + cross - fixed
    if base < 0.0:
        return -1.0
    reach = min(np.sqrt(base * (1.0 + relative)), np.sqrt(base + square) + line)
    return (reach + offset) ** 2


@compiled
@no_type_check
def search(problem, tree, s, origin, slope, ends, looks, limits, state, z, upper, budget):
    """Depth-first search of all whole y within the radius, nearest first (Schnorr and Euchner).

    Parameters
    ----------
    problem : (gram, scale, weight, low, high)
        The error (scale z - weight)' P (scale z - weight), and the box of z.
    tree : (squares, steps, basis)
        r_kk^2 and rows r_kj / r_kk of a Cholesky factor: level k costs r_kk^2 (y_k - c_k)^2 with
        c_k = s_k - sum over j > k of r_kj / r_kk (y_j - s_j). z = origin + basis y.
    slope, ends : (n,), (2, n)
        Level k costs slope_k (y_k - s_k) besides, never negative between its ends.
    looks : (gains, weights, floor, margin)
        For the look-ahead, empty where there is none: conditional centres c of the levels below k
        move by gains[k] (y_k - c_k), give or take ``margin`` for rounding. With d_i the distance
        of c_i from the whole numbers of the box, what is still to come is at least the largest
        weights[k - 1, i] d_i^2, reciprocal conditional variances, and at least the sum of
        floor_i d_i^2, P - diag(floor) being positive semidefinite.
    limits : tuple
        For `_radius`.
    state : (level, y, pull, centre, above, below, cost)
        Where the search stands; it is resumed by calling again.
    z : (n,)
        Filled with the vector that is reported.
    upper : float
        The least error known.
    budget : int
        Nodes to visit before returning.

    Returns
    -------
    nodes visited, and why it stopped: 0 exhausted, 1 out of budget, 2 ``z`` may be better.
    """
    gram, scale, weight, low, high = problem
    squares, steps, basis = tree
    gains, weights, floor, margin = looks
    level, y, pull, centre, above, below, cost = state
    n = s.size
    ahead = gains.size > 0
    radius = _radius(upper, limits)
    d, square = np.empty(n), np.empty(n)
    half = slope / (2.0 * squares)
    k = level[0]
    nodes = 0
    while k < n and nodes < budget:
        middle = s[k] + pull[k, k] - half[k]
        if _goes_up(middle, above[k], below[k], ends[0, k], ends[1, k]):
            y[k] = above[k]
            above[k] += 1.0
        elif below[k] >= ends[0, k]:
            y[k] = below[k]
            below[k] -= 1.0
        else:
            k += 1
            continue
        nodes += 1
        step = y[k] - s[k]
        total = cost[k + 1] + squares[k] * (step - pull[k, k]) ** 2 + slope[k] * step
        if total > radius:
            # the next may come out nearer only if rounding swapped the two
            blur = 16.0 * _EPS * (abs(middle) + abs(s[k]) + abs(pull[k, k]) + 1.0)
            swap = 4.0 * blur * squares[k] * (abs(y[k] - middle) + 1.0)
            if total > radius + swap + 8.0 * _EPS * abs(radius):
                k += 1
            continue
        if k > 0:
            if ahead:
                move = y[k] - centre[k, k]
                for i in range(k):
                    c = centre[k, i] + gains[k, i] * move
                    centre[k - 1, i] = c
                    far = max(abs(c - min(max(np.rint(c), ends[0, i]), ends[1, i])) - margin, 0.0)
                    square[i] = far * far
                least = together = 0.0
                for i in range(k):
                    least = max(least, square[i] * weights[k - 1, i])
                    together += square[i] * floor[i]
                if total + max(least, together) > radius:
                    continue
            for j in range(k):
                pull[k - 1, j] = pull[k, j] - steps[k, j] * step
            cost[k] = total
            k -= 1
            middle = s[k] + pull[k, k] - half[k]
            above[k], below[k] = _start(middle, ends[0, k], ends[1, k])
            continue
        inside = True
        for i in range(n):
            whole = origin[i]
            for j in range(n):
                whole += basis[i, j] * np.int64(y[j])
            if not low[i] <= whole <= high[i]:
                inside = False
                break
            z[i] = whole
            d[i] = scale * z[i] - weight[i]
        if not inside:
            continue
        error = size = 0.0
        for i in range(n):
            inner = bulk = 0.0
            for j in range(n):
                product = gram[i, j] * d[j]
                inner += product
                bulk += abs(product)
            error += d[i] * inner
            size += abs(d[i]) * bulk
        if error - 2.0 * (n + 2) * _EPS * size < upper * (1.0 - limits[1]):
            level[0] = k
            return nodes, 2
    level[0] = k
    return nodes, 0 if k == n else 1
