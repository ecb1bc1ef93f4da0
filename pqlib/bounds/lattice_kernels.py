"""Compiled loops of integer least squares: LLL, Cholesky, box-QP, error feedback.

The trees are in `pqlib.bounds.tree_kernels`; nothing here calls anything there or the reverse,
since a cached kernel does not notice an edit in another file.
"""

from typing import no_type_check

import numpy as np

from pqlib.compilation import compiled

_LARGEST = 2.0**25  # entry of a basis: products of two, summed, stay exact in int64


@compiled
@no_type_check
def lll(factor, delta):
    """LLL reduction (Lenstra, Lenstra and Lovasz 1982) of the columns of an upper triangle.

    A vector goes as far to the front as it is shorter than what stands there (deep insertions:
    Schnorr and Euchner 1994). However soon the loop stops, the columns are a basis.
    Returns U and its inverse, both of whole numbers, and whether their entries stayed below 2^25.
    Rounding can spoil how short the basis is, never that it is one: U is changed by whole
    multiples and swaps alone, and its inverse by the opposite ones.
    """
    r = factor.copy()
    n = r.shape[0]
    basis, inverse = np.eye(n, dtype=np.int64), np.eye(n, dtype=np.int64)
    k = 1
    for _ in range(20 * n * n):
        if k >= n:
            break
        for j in range(k - 1, -1, -1):
            ratio = np.rint(r[j, k] / r[j, j])
            if ratio == 0.0:
                continue
            if abs(ratio) > _LARGEST:
                return basis, inverse, False
            m = np.int64(ratio)
            for i in range(j + 1):
                r[i, k] -= ratio * r[i, j]
            for i in range(n):
                basis[i, k] -= m * basis[i, j]
                inverse[j, i] += m * inverse[k, i]
                if abs(basis[i, k]) > _LARGEST or abs(inverse[j, i]) > _LARGEST:
                    return basis, inverse, False
        rest = 0.0  # squared length of vector k beyond the first `place` ones
        for i in range(k + 1):
            rest += r[i, k] ** 2
        place = 0
        while place < k and delta * r[place, place] ** 2 <= rest:
            rest -= r[place, k] ** 2
            place += 1
        if place == k:
            k += 1
            continue
        for m in range(k, place, -1):
            for i in range(n):
                r[i, m - 1], r[i, m] = r[i, m], r[i, m - 1]
                basis[i, m - 1], basis[i, m] = basis[i, m], basis[i, m - 1]
                inverse[m - 1, i], inverse[m, i] = inverse[m, i], inverse[m - 1, i]
            length = np.hypot(r[m - 1, m - 1], r[m, m - 1])
            c, s = r[m - 1, m - 1] / length, r[m, m - 1] / length
            for i in range(m - 1, n):
                upper, lower = r[m - 1, i], r[m, i]
                r[m - 1, i], r[m, i] = c * upper + s * lower, c * lower - s * upper
            r[m, m - 1] = 0.0
        k = max(place, 1)
    return basis, inverse, True


@compiled
@no_type_check
def inverse_triangle(r):
    """The inverse of an upper triangle by back substitution (LAPACK would wake its threads)."""
    n = r.shape[0]
    x = np.zeros((n, n))
    for j in range(n):
        x[j, j] = 1.0 / r[j, j]
        for i in range(j - 1, -1, -1):
            total = 0.0
            for k in range(i + 1, j + 1):
                total -= r[i, k] * x[k, j]
            x[i, j] = total / r[i, i]
    return x


@compiled
@no_type_check
def has_cholesky(matrix):
    """Whether the Cholesky factorization of a symmetric matrix runs to its end."""
    n = matrix.shape[0]
    r = np.empty((n, n))
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= r[i, k] * r[j, k]
            if j < i:
                r[i, j] = total / r[j, j]
            elif total > 0.0:
                r[i, i] = np.sqrt(total)
            else:
                return False
    return True


@compiled
@no_type_check
def _newton_step(gram, v, free, step):
    """Fill ``step`` with -P_FF^-1 v_F on the free coordinates and 0 elsewhere (Cholesky)."""
    where = np.flatnonzero(free)
    m = where.size
    r = np.empty((m, m))
    b = np.empty(m)
    for i in range(m):
        b[i] = -v[where[i]]
        for j in range(i + 1):
            total = gram[where[i], where[j]]
            for k in range(j):
                total -= r[i, k] * r[j, k]
            r[i, j] = total / r[j, j] if j < i else np.sqrt(max(total, 1e-300))
        for k in range(i):
            b[i] -= r[i, k] * b[k]
        b[i] /= r[i, i]
    step[:] = 0.0
    for i in range(m - 1, -1, -1):
        for k in range(i + 1, m):
            b[i] -= r[k, i] * b[k]
        b[i] /= r[i, i]
        step[where[i]] = b[i]


@compiled
@no_type_check
def _gradient(gram, d, v, size):
    """Fill v with P d and ``size`` with |P| |d|; plain loops, since BLAS would wake its threads."""
    for i in range(d.size):
        v[i] = size[i] = 0.0
        for j in range(d.size):
            term = gram[i, j] * d[j]
            v[i] += term
            size[i] += abs(term)


@compiled
@no_type_check
def box_qp(gram, t, low, high):
    """The minimizer of (x - t)' P (x - t) over the box, P positive definite.

    Primal active sets (Nocedal and Wright, section 16.5; for a box Stark and Parker's BVLS):
    minimize over the free coordinates, stop at the first bound met, and once no bound is in the
    way free the coordinate whose multiplier has the wrong sign most. Every step lowers the
    objective, so no active set returns. What rounding leaves is measured by the caller.
    """
    n = t.size
    x = np.minimum(np.maximum(t, low), high)
    free = (x > low) & (x < high)
    step, v, size = np.empty(n), np.empty(n), np.empty(n)
    for _ in range(50 * n):
        _gradient(gram, x - t, v, size)
        _newton_step(gram, v, free, step)
        share, block = 1.0, -1
        for i in range(n):
            if free[i] and step[i] != 0.0:
                reach = ((high[i] if step[i] > 0.0 else low[i]) - x[i]) / step[i]
                if reach < share:
                    share, block = reach, i
        x += share * step
        if block >= 0:
            x[block] = high[block] if step[block] > 0.0 else low[block]
            free[block] = False
            continue
        _gradient(gram, x - t, v, size)
        noise = 1e-13 * np.max(size)
        worst, worst_pull = -1, noise
        for i in range(n):
            pull = v[i] if x[i] >= high[i] else -v[i]
            if not free[i] and pull > worst_pull:
                worst, worst_pull = i, pull
        if worst < 0:
            break
        free[worst] = True
    return x


@compiled
@no_type_check
def feedback(inverse, t, low, high):
    """Round one coordinate at a time, the cheapest first, and let the others make up for it.

    With C = P_UU^-1 of the coordinates U not yet rounded and c their best values given the rounded
    ones, rounding i raises the error by (z_i - c_i)^2 / C_ii; the i where that is least is
    rounded, c moves by C_i (z_i - c_i) / C_ii and C loses C_i C_i' / C_ii.
    """
    n = t.size
    spread, centre = inverse.copy(), t.copy()
    z = np.zeros(n)
    done = np.zeros(n, np.bool_)
    for _ in range(n):
        best, least = -1, np.inf
        for i in range(n):
            if not done[i]:
                z[i] = min(max(np.rint(centre[i]), low[i]), high[i])
                cost = (z[i] - centre[i]) ** 2 / max(spread[i, i], 1e-300)
                if cost < least or best < 0:
                    best, least = i, cost
        done[best] = True
        move = z[best] - centre[best]
        for i in range(n):
            if not done[i]:
                share = spread[best, i] / max(spread[best, best], 1e-300)
                centre[i] += share * move
                for j in range(n):
                    spread[i, j] -= share * spread[best, j]
    return z


@compiled
@no_type_check
def tangent_bound(gram, lack, lam, nu, x, a, t, low, high, value, v):
    """L at x and its least change over the box, less all that rounding can amount to.

    L, lambda, nu, x and a as in `pqlib.bounds.quantization_bounds`; ``value`` and ``v`` are
    (x - t)' P (x - t) and P (x - t), and diag(``lack``) makes up for what L lacks to be convex.
    """
    eps = 2.0**-52
    n = x.size
    total, size, terms, lacking = value, abs(value), 0.0, 0.0
    for i in range(n):
        inner = lam[i] * (x[i] - a[i]) * (x[i] - a[i] - 1)
        outer = nu[i] * (x[i] - low) * (x[i] - high)
        slope = 2 * v[i] - lam[i] * (2 * (x[i] - a[i]) - 1) + nu[i] * (2 * x[i] - low - high)
        change = min(slope * (low - x[i]), slope * (high - x[i]))
        total += outer - inner + change
        terms += abs(inner) + abs(outer) + abs(change)
        reach = 4 * (1 + abs(x[i]) + abs(a[i]) + abs(low))
        multipliers = (lam[i] + nu[i]) * reach
        width = max(abs(x[i] - low), abs(x[i] - high))
        size += multipliers * reach + (abs(v[i]) + multipliers) * width
        lacking += lack[i] * width**2
    bound = total - 8 * eps * size - 2 * n * eps * terms - lacking
    # scale z - w is scale (z - t) but for rounding, d: in the norm of P, or by its slope
    moved = crossed = 0.0
    for i in range(n):
        pull = 0.0
        for j in range(n):
            pull += abs(gram[i, j]) * (2 * eps * (abs(t[j]) + abs(low)))
        d = 2 * eps * (abs(t[i]) + abs(low))
        moved += d * pull
        crossed += (2 * max(abs(low - t[i]), abs(high - t[i])) + d) * pull
    if bound <= 0.0 or not lack.any():
        return max(np.sqrt(max(bound, 0.0)) - np.sqrt(moved), 0.0) ** 2
    return bound - crossed


@compiled
@no_type_check
def box_multipliers(gram, x, t, low, high, blur, v):
    """What a minimizer of the box-QP leaves, up to rounding: kept, residual, spill and cross.

    Of the slopes 2 ``v`` = 2 P (x - t), ``kept`` are those that point out of the box; the others
    should be 0, and all that they and the rounding of sums in twice the precision can amount to
    over the box is ``residual``. ``spill`` is b' |P| b and ``cross`` 2 f' |P| b of b = ``blur``, by
    which rounding moves z - t, and f, the farthest that it can be from 0.
    """
    eps = 2.0**-52
    n = x.size
    kept = np.zeros(n)
    residual = spill = cross = 0.0
    for i in range(n):
        slope = 2 * v[i]
        if x[i] <= low[i] and slope > 0.0:
            kept[i] += slope
        if x[i] >= high[i] and slope < 0.0:
            kept[i] += slope
        width = max(x[i] - low[i], high[i] - x[i])
        residual += (abs(slope - kept[i]) + 2 * eps * abs(slope)) * width
        pull = lost = 0.0
        for j in range(n):
            pull += abs(gram[i, j]) * blur[j]
            lost += abs(gram[i, j]) * abs(x[j] - t[j])
        residual += 8 * n**2 * eps**2 * lost * (width + abs(x[i] - t[i]))
        spill += blur[i] * pull
        cross += 2 * max(abs(low[i] - t[i]), abs(high[i] - t[i])) * pull
    return kept, residual, spill, cross
