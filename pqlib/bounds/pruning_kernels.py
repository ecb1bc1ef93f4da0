"""Compiled loops of exact pruning: accurate errors of subsets, leaps and bounds.

`pqlib.bounds.pruning_search` scales what they take (P with a diagonal near 1, w of size near 1)
and derives them. A kernel and all it calls stand in this one file, since a cached kernel does not
notice an edit in another.
"""

from typing import no_type_check

import numpy as np

from pqlib.compilation import compiled

_UNIT_ROUNDOFF = 2.0**-53
_DEPENDENT = 1e-12, 1e-9, 1e-6, 1e-3, 1e-1  # a column with a pivot below this share is weak


@compiled
@no_type_check
def _plus(high, low, a, b):
    """(high, low) + a b in about twice the working precision (Ogita, Rump and Oishi's Dot2)."""
    product = a * b
    split = 134217729.0 * a  # 2^27 + 1: halves of a and b whose products are exact (Dekker)
    a_high = split - (split - a)
    a_low = a - a_high
    split = 134217729.0 * b
    b_high = split - (split - b)
    b_low = b - b_high
    low += a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    total = high + product
    part = total - high
    low += (high - (total - part)) + (product - part)
    return total, low


@compiled
@no_type_check
def quadratic(gram, d):
    """d' P d, as if computed in twice the precision and then rounded."""
    n = d.size
    high, low = 0.0, 0.0
    for i in range(n):
        row, rest = 0.0, 0.0
        for j in range(n):
            row, rest = _plus(row, rest, gram[i, j], d[j])
        high, low = _plus(high, low, d[i], row)
        low += d[i] * rest
    return max(high + low, 0.0)


@compiled
@no_type_check
def _cholesky(a, dependent):
    """Lower L with L L' = a; a column whose pivot is below ``dependent`` of its own becomes 0."""
    n = a.shape[0]
    factor = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            if factor[j, j] > 0.0:
                total = a[i, j]
                for t in range(j):
                    total -= factor[i, t] * factor[j, t]
                factor[i, j] = total / factor[j, j]
        pivot = a[i, i]
        for t in range(i):
            pivot -= factor[i, t] * factor[i, t]
        if pivot > dependent * a[i, i]:
            factor[i, i] = np.sqrt(pivot)
    return factor


@compiled
@no_type_check
def _slopes(gram, d):
    """P d, as if computed in twice the precision and then rounded."""
    slopes = np.empty(d.size)
    for i in range(d.size):
        high, low = 0.0, 0.0
        for j in range(d.size):
            high, low = _plus(high, low, gram[i, j], d[j])
        slopes[i] = high + low
    return slopes


@compiled
@no_type_check
def _dot(x, y):
    """x'y, as if computed in twice the precision and then rounded."""
    high, low = 0.0, 0.0
    for j in range(x.size):
        high, low = _plus(high, low, x[j], y[j])
    return high + low


@compiled
@no_type_check
def _forward(factor, columns, slopes):
    """L^-1 of the slopes on the columns that have a pivot, else 0."""
    x = np.zeros(columns.size)
    for i in range(columns.size):
        if factor[i, i] > 0.0:
            total = slopes[columns[i]]
            for t in range(i):
                total -= factor[i, t] * x[t]
            x[i] = total / factor[i, i]
    return x


@compiled
@no_type_check
def _step(factor, columns, slopes, d):
    """Take (L L')^-1 of the slopes from d, in place."""
    x = _forward(factor, columns, slopes)
    for i in range(columns.size - 1, -1, -1):
        if factor[i, i] > 0.0:
            for t in range(i + 1, columns.size):
                x[i] -= factor[t, i] * x[t]
            x[i] /= factor[i, i]
            d[columns[i]] -= x[i]


@compiled
@no_type_check
def _is_close(factor):
    """Whether A >= 0.9 L L' on the columns with a pivot, L being the rounded factor of A.

    The two differ by at most (m + 2) u sqrt(A_ii A_jj) in each element (Higham, theorem 10.3), and
    the least eigenvalue of L L' is at least 1 / ||L^-1||^2, here in the norm of Frobenius.
    """
    m = factor.shape[0]
    trace = np.sum(factor**2)
    squares = 0.0
    column = np.zeros(m)
    for k in range(m):
        if factor[k, k] > 0.0:
            column[:] = 0.0
            column[k] = 1.0 / factor[k, k]
            for i in range(k + 1, m):
                if factor[i, i] > 0.0:
                    total = 0.0
                    for t in range(k, i):
                        total -= factor[i, t] * column[t]
                    column[i] = total / factor[i, i]
            squares += np.sum(column**2)
    return 1.1 * (m + 2) * _UNIT_ROUNDOFF * trace * squares <= 0.09


@compiled
@no_type_check
def _directions(gram, columns, factor):
    """A direction v for each column without a pivot, orthogonal in P to all that have one.

    Returns their columns, the v, the P v and the v'P v, all to about the rounding of v itself: that
    of v'P v is of second order, so that a pivot far below the unit roundoff is still told from 0.
    """
    n = gram.shape[0]
    weak = columns[np.diag(factor) == 0.0]
    v, image, pivots = np.zeros((weak.size, n)), np.zeros((weak.size, n)), np.zeros(weak.size)
    for k in range(weak.size):
        v[k, weak[k]] = 1.0
        for _ in range(2):
            _step(factor, columns, _slopes(gram, v[k]), v[k])
        for h in range(k):
            if pivots[h] > 0.0:
                v[k] -= v[h] * (_dot(v[k], image[h]) / pivots[h])
        image[k] = _slopes(gram, v[k])
        pivots[k] = _dot(v[k], image[k])
    return weak, v, image, pivots


@compiled
@no_type_check
def _along(gram, d, v, pivot, j, reach):
    """The least along d + t v, or at d_j = +-reach if rounding leaves nothing of that, or d."""
    if pivot <= 0.0:
        return d
    error, least = quadratic(gram, d), -_dot(v, _slopes(gram, d)) / pivot
    for step in (least, min(max(d[j] + least, -reach), reach) - d[j]):
        moved = d + step * v
        rounding = 4.0 * (d.size * _UNIT_ROUNDOFF) ** 2 * np.sum(moved**2)  # of `quadratic`
        if quadratic(gram, moved) + rounding < error * (1.0 - 1e-13):
            return moved
    return d


@compiled
@no_type_check
def _gain(gram, columns, factor, d, weak, v, image, pivots, reach):
    """At most what d'P d can still fall by if no weight changes by more than ``reach``.

    Of y = sum a_k v_k + z, z on the columns with a pivot, by far the most is -2 a_k v_k'P d - a_k^2
    v_k'P v_k; what rounding has left of the products that should be 0 is added up too.
    """
    slopes = _slopes(gram, d)
    along = np.sqrt(np.sum(_forward(factor, columns, slopes) ** 2))
    far = np.empty(weak.size)  # bounds of |a_k|
    total = 0.0
    for k in range(weak.size - 1, -1, -1):
        far[k] = reach[weak[k]] + abs(d[weak[k]])
        for h in range(k + 1, weak.size):
            far[k] += abs(v[h, weak[k]]) * far[h]
            total += 2.0 * abs(_dot(v[k], image[h])) * far[k] * far[h]
        along += far[k] * np.sqrt(np.sum(_forward(factor, columns, image[k]) ** 2))
        slope = abs(_dot(v[k], slopes))
        linear = 2.0 * slope * far[k]
        if pivots[k] > 0.0:
            total += min(linear, slope * slope / pivots[k])
        else:
            total += linear - pivots[k] * far[k] * far[k]
    return 1.01 * total + 1.1 * along * along


@compiled
@no_type_check
def refit(gram, weight, kept, reach):
    """Least squares on a mask: (error, change d of the weights, what it may exceed the least by).

    d = -w off the mask. Cholesky of P on the mask, refined with residuals in twice the precision.
    So many weak columns have no pivot that the factor is close on the others; along each of them
    there is one direction without change elsewhere to first order, and the least along it. Any d is
    feasible, so the error is an upper bound whatever is lost to rounding; and among changes of each
    weight up to ``reach``, no error is lower by more than the third number, as long as the error is
    more than the rounding of `quadratic`, some u w'w.
    """
    columns = np.flatnonzero(kept)
    m = columns.size
    part = np.empty((m, m))
    for i in range(m):
        for j in range(m):
            part[i, j] = gram[columns[i], columns[j]]
    for dependent in _DEPENDENT:
        factor = _cholesky(part, dependent)
        close = _is_close(factor)
        if close:
            break
    weak, v, image, pivots = _directions(gram, columns, factor)
    d = np.where(kept, 0.0, -weight)
    best, error = d.copy(), quadratic(gram, d)
    for turn in range(3 if weak.size == 0 else 6):
        _step(factor, columns, _slopes(gram, d), d)
        if turn > 0:
            for k in range(weak.size):
                d = _along(gram, d, v[k], pivots[k], weak[k], reach[weak[k]])
        now, before = quadratic(gram, d), error
        if now < error:
            error = now
            best[:] = d
        if now >= before * (1.0 - 1e-14) and (turn > 0 or weak.size == 0):
            break
    if not close:
        return error, best, np.inf
    return error, best, _gain(gram, columns, factor, best, weak, v, image, pivots, reach)


@compiled
@no_type_check
def _offer(gram, weight, reach, path, n_path, removed, kept, values):
    """Refit the mask that removes ``path``; keep it in ``removed`` if it beats ``values[0]``.

    The last of ``values`` is the least that any of them may reach.
    """
    kept[:] = True
    for t in range(n_path):
        kept[path[t]] = False
    error, _, gain = refit(gram, weight, kept, reach)
    values[-1] = min(values[-1], error - gain)
    if error < values[0]:
        values[0] = error
        for j in range(kept.size):
            removed[j] = not kept[j]


@compiled
@no_type_check
def _descending(r, count):
    """Positions 0..count - 1 by descending r: insertion sort."""
    order = np.empty(count, np.int64)
    for i in range(count):
        j = i
        while j > 0 and r[order[j - 1]] < r[i]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = i
    return order


@compiled
@no_type_check
def _sum_of_smallest(values, count, n):
    """Sum of the n smallest of values[:count], by insertion."""
    chosen = np.empty(n)
    held = 0
    for i in range(count):
        v = values[i]
        if held == n and v >= chosen[n - 1]:
            continue
        j = held if held < n else n - 1
        while j > 0 and chosen[j - 1] > v:
            chosen[j] = chosen[j - 1]
            j -= 1
        chosen[j] = v
        held = min(held + 1, n)
    total = 0.0
    for i in range(n):
        total += chosen[i]
    return total


@compiled
@no_type_check
def _cost_of_all(c, i, order, w, f, limit, factor):
    """f + w'S^-1 w, S what removing i leaves of C on ``order``; or, once above it, >= ``limit``.

    Row by row L L' = S and L z = w, so that rows beyond the first to exceed are never touched.
    """
    for a in range(order.size):
        j = order[a]
        share = c[j, i] / c[i, i]
        pivot = c[j, j] - share * c[i, j]
        z = w[a]
        row = factor[a]
        for b in range(a):
            other = factor[b]
            total = c[j, order[b]] - share * c[i, order[b]]
            for t in range(b):
                total -= row[t] * other[t]
            total /= other[b]
            row[b] = total
            pivot -= total * total
            z -= total * other[b + 1]
        f += z * z / pivot
        if f >= limit:
            return f
        row[a] = np.sqrt(pivot)
        row[a + 1] = z / row[a]  # beside the diagonal
    return f


@compiled
@no_type_check
def root(c, weight, diagonal, limit, n_remove):
    """The state of a search that has not begun: (index, w, c, child, free, path, counters).

    counters = [depth, nodes]. At depth t the weights path[:t] are removed, index[t, :free[t]] are
    free, in descending order of r, and all others are kept; child[t] is the next to be removed.
    """
    n = weight.size
    index, child, free = np.empty((n_remove, n), np.int64), np.zeros(n_remove), np.zeros(n_remove)
    ws, cs = np.empty((n_remove, n)), np.empty((n_remove, n, n))
    path, counters = np.zeros(n_remove, np.int64), np.array([-1, 0])
    child, free = child.astype(np.int64), free.astype(np.int64)
    r, cheap = weight * weight / np.diag(c), diagonal * weight * weight
    order = _descending(r, n)
    first = 0
    while first < n and r[order[first]] >= limit:
        first += 1
    m = n - first
    if m >= n_remove and _sum_of_smallest(cheap, n, n_remove) < limit:
        for a in range(m):
            index[0, a] = order[first + a]
            ws[0, a] = weight[index[0, a]]
            for b in range(m):
                cs[0, a, b] = c[order[first + a], order[first + b]]
        counters[0], free[0], child[0] = 0, m, m - n_remove
    return index, ws, cs, child, free, path, counters


@compiled
@no_type_check
def least_open(index, w, c, child, free, path, counters, values):
    """The least error, by the bound f + r, of what an unfinished search has left."""
    least = np.inf
    for t in range(counters[0] + 1):
        i = child[t]
        if i >= 0:  # the next child has the least r of those that are left
            least = min(least, values[1 + t] + w[t, i] * w[t, i] / c[t, i, i])
    return least


@compiled
@no_type_check
def search(
    gram,
    weight,
    reach,
    diagonal,
    loose,
    slack,
    n_remove,
    index,
    w,
    c,
    child,
    free,
    path,
    counters,
    values,
    removed,
    max_nodes,
):
    """Leaps and bounds from where the state stands; returns whether the tree is exhausted.

    values[0] is the error of the best mask, ``removed``; values[1 + t] that of path[:t] alone; the
    last one, see `_offer`. A branch ends where its least error is not below ``loose * values[0] +
    slack``.
    """
    n = weight.size
    kept = np.empty(n, np.bool_)
    picked = np.empty(n, np.int64)
    new_w, new_r, cheap = np.empty(n), np.empty(n), np.empty(n)
    factor = np.empty((n, n + 1))
    limit = loose * values[0] + slack
    depth, nodes = counters[0], counters[1]
    while depth >= 0:
        i = child[depth]
        if i < 0:
            depth -= 1
            continue
        if nodes >= max_nodes:
            counters[0], counters[1] = depth, nodes
            return False
        child[depth] -= 1
        m = free[depth]
        w_i, c_ii = w[depth, i], c[depth, i, i]
        f = values[1 + depth] + w_i * w_i / c_ii
        if f >= limit:  # so it is for all before it, whose r is larger
            child[depth] = -1
            continue
        nodes += 1
        path[depth] = index[depth, i]
        left = n_remove - depth - 1
        if left == 0:
            _offer(gram, weight, reach, path, 1, removed, kept, values)
            limit = loose * values[0] + slack
            continue
        slope = w_i / c_ii
        source, row = c[depth], c[depth, i]
        count, total = 0, 0.0
        for j in range(i + 1, m):
            w_j = w[depth, j] - row[j] * slope
            r_j = w_j * w_j / (source[j, j] - row[j] * row[j] / c_ii)
            if f + r_j < limit:
                picked[count], new_w[count], new_r[count] = j, w_j, r_j
                cheap[count] = diagonal[index[depth, j]] * w_j * w_j
                total += cheap[count]
                count += 1
        if count < left:
            continue
        if f + total >= limit and f + _sum_of_smallest(cheap, count, left) >= limit:
            continue
        t = depth + 1
        order = _descending(new_r, count)
        for a in range(count):
            w[t, a] = new_w[order[a]]
            order[a] = picked[order[a]]
            index[t, a] = index[depth, order[a]]
        if count == left:  # nothing is left to choose
            if _cost_of_all(source, i, order, w[t], f, limit, factor) < limit:
                path[t : t + count] = index[t, :count]
                _offer(gram, weight, reach, path, n_remove, removed, kept, values)
                limit = loose * values[0] + slack
            continue
        target = c[t]
        for a in range(count):
            share, from_row, to_row = row[order[a]] / c_ii, source[order[a]], target[a]
            for b in range(a + 1):
                to_row[b] = from_row[order[b]] - share * row[order[b]]
                target[b, a] = to_row[b]
        values[1 + t] = f
        free[t] = count
        if left > 2:
            child[t] = count - left
            depth = t
            continue
        for a in range(count):
            c_aa = c[t, a, a]
            slope = w[t, a] / c_aa
            f_a = f + w[t, a] * slope
            path[t] = index[t, a]
            if left == 1:
                if f_a < limit:
                    _offer(gram, weight, reach, path, t + 1, removed, kept, values)
                    limit = loose * values[0] + slack
                continue
            for b in range(a):
                off = c[t, a, b]
                w_b = w[t, b] - off * slope
                if f_a + w_b * w_b / (c[t, b, b] - off * off / c_aa) < limit:
                    path[t + 1] = index[t, b]
                    _offer(gram, weight, reach, path, t + 2, removed, kept, values)
                    limit = loose * values[0] + slack
    counters[0], counters[1] = depth, nodes
    return True
