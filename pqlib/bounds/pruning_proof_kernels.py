"""Compiled loops of the second proof: its bound, its diagonal, its tree.

`pqlib.bounds.pruning_proof` scales what they take and derives them. A kernel and all it calls stand
in this one file, since a cached kernel does not notice an edit in another.
"""

from typing import no_type_check

import numpy as np

from pqlib.compilation import compiled

DONE, LEAF, PAUSED = 0, 1, 2
_ITERATIONS = 4  # of the bound at a node


@compiled
@no_type_check
def raise_diagonal(inverse, growth, barrier, d):
    """Coordinate steps to the top of sum growth_j d_j + barrier logdet(P - diag(d)).

    ``inverse`` is that of P - diag(d), which grows by a matrix of rank one at each step.
    """
    n = d.size
    for _ in range(2):
        for j in range(n):
            step = max(min(1.0 / inverse[j, j] - barrier / growth[j], 0.999 / inverse[j, j]), -d[j])
            d[j] += step
            column = inverse[j].copy()
            factor = step / (1.0 - step * column[j])
            for i in range(n):
                share = factor * column[i]
                for t in range(n):
                    inverse[i, t] += share * column[t]


@compiled
@no_type_check
def _descending(values):
    """Positions by descending value: insertion sort."""
    order = np.empty(values.size, np.int64)
    for i in range(values.size):
        a = i
        while a > 0 and values[order[a - 1]] < values[i]:
            order[a] = order[a - 1]
            a -= 1
        order[a] = i
    return order


@compiled
@no_type_check
def spread(x, d, s, z):
    """Fill z in (0, 1], sum z <= s, with what makes sum d_j x_j^2 / z_j least."""
    m = x.size
    size = np.empty(m)
    rest, full = 0.0, 0
    for i in range(m):
        size[i] = np.sqrt(d[i]) * abs(x[i]) + 1e-14
        rest += size[i]
    order = _descending(size)
    while full < s and size[order[full]] * (s - full) >= rest:
        rest -= size[order[full]]
        z[order[full]] = 1.0
        full += 1
    for a in range(full, m):
        z[order[a]] = min(1.0, max(size[order[a]] * (s - full) / rest, 1e-7))


@compiled
@no_type_check
def dual_bound(p, b, d, z, energy, s, g):
    """(bound rounded down, value of the relaxation at z, x that solves it); fills g, rounded up."""
    m = b.size
    factor, x = np.zeros((m, m)), np.empty(m)
    for i in range(m):
        for j in range(i + 1):
            total = p[i, j]
            if i == j:
                total += d[i] * (1.0 / z[i] - 1.0)
            for t in range(j):
                total -= factor[i, t] * factor[j, t]
            factor[i, j] = total / factor[j, j] if j < i else np.sqrt(max(total, 1e-300))
        total = b[i]
        for t in range(i):
            total -= factor[i, t] * x[t]
        x[i] = total / factor[i, i]
    for i in range(m - 1, -1, -1):
        x[i] /= factor[i, i]
        for t in range(i):
            x[t] -= factor[i, t] * x[i]
    rounding = 4.0 * (m + 4) * 2.0**-53
    relaxed, curved, size = energy, 0.0, 0.0
    for i in range(m):
        size += abs(x[i])
    for i in range(m):
        slope = -d[i] * x[i]
        for j in range(m):
            slope += p[i, j] * x[j]
        relaxed -= b[i] * x[i]
        curved += x[i] * slope
        g[i] = (abs(b[i] - slope) + rounding * (size + abs(b[i]))) ** 2 / d[i]
    order, chosen = _descending(g[:m]), 0.0
    for a in range(min(s, m)):
        chosen += g[order[a]]
    lost = rounding * (abs(energy) + size * size + chosen)
    return energy - curved - chosen - lost, relaxed, x


@compiled
@no_type_check
def _drop(p, b, d, z, index, m, dropped):
    """Close the gaps that ``dropped`` leaves among the first m; how many remain."""
    a = 0
    for i in range(m):
        if not dropped[i]:
            b[a], d[a], z[a], index[a] = b[i], d[i], z[i], index[i]
            c = 0
            for k in range(m):
                if not dropped[k]:
                    p[a, c] = p[i, k]
                    c += 1
            a += 1
    return a


@compiled
@no_type_check
def search(limit, max_nodes, p, b, d, z, energy, index, free, pending, path, counters):
    """Go through the tree until it is exhausted, ``max_nodes`` are spent, or a support is left.

    counters = [depth, nodes, size of the support left in ``path``]. At depth t path[:t] is kept and
    index[t, :free[t]] is free, with the problem that remains in p[t], b[t], energy[t]; pending[t]
    is the position whose "kept" branch is under way, to be dropped when that is done.
    """
    n = b.shape[1]
    g, dropped = np.empty(n), np.zeros(n, np.bool_)
    t = counters[0]
    most = p.shape[0] - 1
    while t >= 0:
        if counters[1] >= max_nodes:
            counters[0] = t
            return PAUSED
        for i in range(n):
            dropped[i] = False
        if pending[t] >= 0:
            dropped[pending[t]] = True
            pending[t] = -1
            free[t] = _drop(p[t], b[t], d[t], z[t], index[t], free[t], dropped)
        counters[1] += 1
        s = most - t
        m = free[t] if s > 0 else 0
        z_m, d_m = z[t, :m], d[t, :m]
        share = 0.0
        for i in range(m):
            share += z_m[i] / s
        for i in range(m):
            z_m[i] = min(1.0, max(z_m[i] / share, 1e-7)) if m > s else 1.0
        for _ in range(_ITERATIONS):
            bound, relaxed, x = dual_bound(p[t, :m, :m], b[t, :m], d_m, z_m, energy[t], s, g)
            if bound >= limit or m <= s:
                break
            spread(x, d_m, s, z_m)
            if relaxed < limit:
                break
        if bound >= limit:
            t -= 1
            continue
        if m <= s:
            for i in range(m):
                path[t + i] = index[t, i]
            counters[0], counters[2] = t - 1, t + m
            return LEAF
        last, j, largest = g[_descending(g[:m])[s - 1]], 0, -1.0
        for i in range(m):
            dropped[i] = g[i] < last and bound + last - g[i] >= limit
            if not dropped[i] and p[t, i, i] * x[i] * x[i] > largest:
                j, largest = i, p[t, i, i] * x[i] * x[i]
        path[t] = index[t, j]
        for i in range(j):
            j -= dropped[i]
        m = free[t] = _drop(p[t], b[t], d[t], z[t], index[t], m, dropped)
        pending[t] = j
        u, pivot = t + 1, p[t, j, j]
        for i in range(m):
            ratio = p[t, i, j] / pivot
            b[u, i] = b[t, i] - ratio * b[t, j]
            d[u, i], z[u, i], index[u, i] = d[t, i], z[t, i], index[t, i]
            for k in range(i + 1):
                p[u, i, k] = p[u, k, i] = p[t, i, k] - ratio * p[t, k, j]
        energy[u] = energy[t] - b[t, j] * b[t, j] / pivot
        free[u], pending[u] = m, j  # its row, now zero, goes at once
        t = u
    counters[0] = t
    return DONE
