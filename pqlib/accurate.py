"""Sums and quadratic forms as if in twice the precision of float64 (compiled).

Ill-conditioned problems need them: where P is nearly singular, (x - y)' P (x - y) can be smaller
than its terms by more than float64 carries. Call these from the interpreter, not from a kernel of
another file, since a cached kernel does not notice an edit elsewhere.
"""

from typing import no_type_check

import numpy as np

from pqlib.compilation import compiled


@compiled
@no_type_check
def exact_product(a, b):
    """A rounded product and its rounding error (Veltkamp; Dekker 1971), for |a|, |b| < 1e299."""
    p = a * b
    t = 134217729.0 * a
    a_high = t - (t - a)
    t = 134217729.0 * b
    b_high = t - (t - b)
    a_low, b_low = a - a_high, b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


@compiled
@no_type_check
def exact_sum(a, b):
    """A rounded sum and its rounding error (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@compiled
@no_type_check
def dot(x, y):
    """x' y as high + low (Ogita, Rump and Oishi 2005, Dot2)."""
    high = low = 0.0
    for i in range(x.size):
        p, error = exact_product(x[i], y[i])
        high, lost = exact_sum(high, p)
        low += lost + error
    return high, low


@compiled
@no_type_check
def quadratic(gram, x, y):
    """(x - y)' P (x - y) and P (x - y), the differences as they are before rounding."""
    n = x.size
    v, d, e = np.empty(n), np.empty(n), np.empty(n)
    for i in range(n):
        d[i], e[i] = exact_sum(x[i], -y[i])
    high = low = 0.0
    for i in range(n):
        v_high, v_low = dot(gram[i], d)
        for j in range(n):
            v_low += gram[i, j] * e[j]
        v[i] = v_high + v_low
        p, error = exact_product(d[i], v_high)
        high, lost = exact_sum(high, p)
        low += lost + error + d[i] * v_low + e[i] * v[i]
    return high + low, v


@compiled
@no_type_check
def congruence(gram, basis):
    """U' P U of a basis of whole numbers, each entry rounded once."""
    n = gram.shape[0]
    product = np.empty((n, n))
    columns = basis.T.astype(np.float64)  # row j: basis vector j
    high, low = np.empty(n), np.empty(n)
    for j in range(n):
        for i in range(n):
            high[i], low[i] = dot(gram[i], columns[j])
        for i in range(j + 1):
            total, rest = dot(columns[i], high)
            for m in range(n):
                rest += columns[i, m] * low[m]
            product[i, j] = product[j, i] = total + rest
    return product


@compiled
@no_type_check
def split(matrix, x):
    """The nearest whole numbers to V x, V of whole numbers, and what is left of V x."""
    whole, rest = np.empty(x.size, np.int64), np.empty(x.size)
    for i in range(x.size):
        high, low = dot(matrix[i], x)
        nearest = np.rint(high)
        whole[i] = np.int64(nearest)
        rest[i] = (high - nearest) + low
    return whole, rest
