"""Compiled loops before an exact search: elimination with swaps, and the diagonal bound's D.

`pqlib.bounds.pruning_search` scales what they take and says what it is for.
"""

from typing import no_type_check

import numpy as np

from pqlib.compilation import compiled


@compiled
@no_type_check
def _sweep(a, p, sign):
    """On [[C, w], [w', 0]] remove weight p (sign 1) or restore it (-1); the corner is -error."""
    n = a.shape[0]
    pivot = a[p, p]
    column = a[:, p].copy()
    for i in range(n):
        if i != p:
            factor = column[i] / pivot
            for j in range(n):
                if j != p:
                    a[i, j] -= factor * column[j]
    for i in range(n):
        a[i, p] = a[p, i] = sign * column[i] / pivot
    a[p, p] = -1.0 / pivot


@compiled
@no_type_check
def _best_swap(a, removed):
    """(weight to remove, weight to restore) whose exchange lowers the error most, or (-1, -1)."""
    n = removed.size
    error = -a[n, n]
    best, out, back = error * (1.0 - 1e-9), -1, -1
    for i in range(n):
        without = error + a[i, n] * a[i, n] / a[i, i]  # a[i, i] < 0 where i is removed
        if not removed[i] or without >= best:
            continue
        slope = a[i, n] / a[i, i]
        for j in range(n):
            if not removed[j]:
                w = a[j, n] - a[j, i] * slope
                cost = without + w * w / (a[j, j] - a[j, i] * a[j, i] / a[i, i])
                if cost < best:
                    best, out, back = cost, j, i
    return out, back


@compiled
@no_type_check
def improved(c, weight, start, n_remove):
    """From the mask ``start`` on backward elimination, then swaps; the mask of what is removed."""
    n = weight.size
    a = np.zeros((n + 1, n + 1))
    a[:n, :n] = c
    a[:n, n] = weight
    a[n, :n] = weight
    removed = np.zeros(n, np.bool_)
    count = 0
    for j in range(n):
        if start[j]:
            _sweep(a, j, 1.0)
            removed[j] = True
            count += 1
    for _ in range(n_remove - count):
        best, least = -1, np.inf
        for j in range(n):
            if not removed[j]:
                cost = a[j, n] * a[j, n] / a[j, j]
                if cost < least or best < 0:
                    best, least = j, cost
        _sweep(a, best, 1.0)
        removed[best] = True
    for _ in range(8 * n):
        out, back = _best_swap(a, removed)
        if out < 0:
            break
        _sweep(a, back, -1.0)
        _sweep(a, out, 1.0)
        removed[back], removed[out] = False, True
    return removed


@compiled
@no_type_check
def diagonal_steps(c, n_sweeps):
    """D inside P - diag(D) > 0 with C = P^-1: each D_j takes half of what is left, in turn.

    D_j can grow by 1 / G_jj, G the inverse of P - diag(D), which each step updates.
    """
    n = c.shape[0]
    d, g = np.zeros(n), c.copy()
    for _ in range(n_sweeps):
        for j in range(n):
            step = 0.5 / g[j, j]
            d[j] += step
            column = g[:, j].copy()
            for i in range(n):
                factor = 2.0 * step * column[i]
                for t in range(n):
                    g[i, t] += factor * column[t]
    return d
