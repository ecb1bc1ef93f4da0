r"""A second way to prove an integer optimum, which shares no search with `pqlib.bounds.lattice`.

It is given the error ``upper`` of a solution, and has to show that no whole z in the box has
f(z) = (scale z - w)' P (scale z - w) below upper (1 - 1e-10), scale z being the product in float64.
It differs from the solver in all that could hide the same mistake:

* The box-QP is solved by scipy's bounded least squares, of which only the point x is used. In units
  of scale^2, t = w / scale, g = 2 P (x - t) and for any x at all

      f(z) = f(x) + g' (z - x) + (z - x)' P (z - x).

  Where x is at a bound and g points outward, g_i (z_i - x_i) >= 0; elsewhere its least value over
  the box is deducted. A poor x costs time, never the proof.
* One tree enumerates (z - x)' P (z - x) in the *dual* LLL basis (Lagarias, Lenstra and Schnorr,
  1990): R^-T with P = R' R is reduced, read backwards, and the basis that comes out is transposed
  and inverted. The other enumerates the weights themselves and knows the box and g at each level;
  those come first that cost most to move. They take turns.
* Levels are walked from the least whole number to the largest (Fincke and Pohst, 1985) within a
  fixed radius: nothing is to be found, so no order is good, and no bound is ever updated.

**Rounding.** A triangular form of n rows is exact for a P (1 + delta) in the order of definite
matrices, delta <= 64 n^2 2^-53 cond (Higham 2002, theorem 10.3, at unit diagonal), so the radius
grows by delta of itself, and by 1e-13 of \|d\|' \|P\| \|d\|, d = x - t, for the rounding of f(x).
What the rounding of t can change is added to upper, and a leaf is judged by `LayerProblem.error`.
Where delta would exceed 0.01 the trees are those of P + e diag(P), which exceeds P within the box
by at most e sum P_ii width_i^2; that is added to the radius.
"""

from functools import lru_cache
from typing import no_type_check

import numpy as np
from scipy.optimize import lsq_linear

from pqlib import accurate
from pqlib._validation import check_integer, check_number
from pqlib.bounds import lattice_kernels
from pqlib.compilation import compiled
from pqlib.layers.problem import LayerProblem, check_scale

_UNIT_ROUNDOFF = 2.0**-53
_MOST_LOSS = 0.01
_RIDGES = (0.0, *10.0 ** np.arange(-13.0, -3.0))
_TURN = 100_000  # nodes of the first turn
TOLERANCE = 1e-10


def reprove_quantization(
    problem: LayerProblem, n_bits: int, scale: float, upper: float, *, max_nodes: int = 10**8
) -> bool | None:
    """Whether no integers in the box have an error below ``upper`` (1 - 1e-10).

    Parameters
    ----------
    problem : LayerProblem
    n_bits, scale
        As in `solve_quantization`.
    upper : float
        The error of a solution.
    max_nodes : int, default 1e8
        Of both trees together; some seconds.

    Returns
    -------
    bool or None
        True if none has, False if one was found (and its error computed by `LayerProblem.error`),
        None if the nodes did not suffice, or if some are below it or not depending on how inputs
        with equal rows of P share an integer, since the float64 products add up differently.
    """
    if not isinstance(problem, LayerProblem):
        raise TypeError(f"problem must be a LayerProblem(gram, weight), got {problem!r}")
    n_bits = check_integer("n_bits", n_bits, low=2, high=16)
    scale = check_scale("scale", scale, problem)
    upper = check_number("upper", upper, low=0)
    max_nodes = check_integer("max_nodes", max_nodes, low=1, high=10**18)
    live = np.flatnonzero(problem.gram.any(axis=1))
    if live.size == 0:  # nothing matters, and the error is 0
        return upper <= 0.0
    gram, which = np.unique(problem.gram[np.ix_(live, live)], axis=0, return_inverse=True)
    _, first = np.unique(which, return_index=True)  # inputs with equal rows: only their sum counts
    gram, counts = np.ascontiguousarray(gram[:, first]), np.bincount(which)
    exponent = int(np.frexp(gram.max())[1])  # the gram in units of a power of two
    gram = np.ldexp(gram, -exponent)
    t = np.bincount(which, problem.weight[live]) / scale
    size = np.bincount(which, abs(problem.weight[live])) / scale
    low, high = -counts * 2.0 ** (n_bits - 1), counts * (2.0 ** (n_bits - 1) - 1)
    blur = 2 * _UNIT_ROUNDOFF * (counts + 1) * (size - low)  # by which t and z are rounded, at most
    least = upper * (1 - TOLERANCE)
    near, radius, trees = _trees(
        gram, t, blur, low, high, float(np.ldexp(least / scale / scale, -exponent))
    )
    if radius < 0:
        return True
    z, turn, left, undecided = np.empty(t.size), _TURN, max_nodes, False
    while left > 0 and trees:
        for tree in trees:
            budget = min(turn, left)
            left -= budget
            while budget > 0:
                visited, outcome = _walk(gram, t, low, high, near, *tree, z, budget)
                budget -= visited
                if outcome == 1:
                    return None if undecided else True
                if outcome == 2:
                    error = problem.error(scale * _spread(z, which, live, problem.n))
                    if error < least:
                        return False
                    if counts.max() > 1:  # shared otherwise, the products round otherwise
                        gain = (2 * abs(z - t) + 2 * blur) @ abs(gram) @ (2 * blur)
                        undecided |= error - np.ldexp(gain * scale * scale, exponent) < least
        turn *= 2
    return None


def _spread(z, which, live, n):
    """Integers of all inputs, equal ones sharing evenly."""
    integers = np.zeros(n)
    for g, total in enumerate(z):
        inputs = live[which == g]
        each, more = divmod(total, inputs.size)
        integers[inputs] = each
        integers[inputs[: int(more)]] += 1
    return integers


@lru_cache(maxsize=16)
def _shared(data, n):
    """(P + ridge, ridge, dual LLL basis and its inverse); None if P is too far from definite."""
    gram = np.frombuffer(data).reshape(n, n)
    diagonal = np.maximum(gram.diagonal(), 1e-12 * np.max(abs(gram)))
    root = np.sqrt(diagonal)
    for ridge in _RIDGES:
        regular = gram + np.diag(ridge * diagonal)
        values = np.linalg.eigvalsh(regular / np.outer(root, root))
        if values[0] > 64 * n**2 * _UNIT_ROUNDOFF / _MOST_LOSS * values[-1]:
            break
    else:
        return None
    factor = np.linalg.cholesky(regular).T
    backwards = np.ascontiguousarray(np.linalg.inv(factor).T[::-1, ::-1])
    basis, inverse, _ = lattice_kernels.lll(backwards, 0.99)
    dual = np.ascontiguousarray(inverse.T[::-1, ::-1])
    undo = np.ascontiguousarray(basis.T[::-1, ::-1])
    if (dual @ undo != np.eye(n, dtype=np.int64)).any():  # beyond int64: no such tree
        dual = undo = np.eye(n, dtype=np.int64)
    return regular, ridge * diagonal, dual, undo


def _trees(gram, t, blur, low, high, least):
    """What a z below ``least`` has at most with this t, the radius, both trees for `_walk`.

    One tree only, where rounding would spoil the other.
    """
    shared = _shared(gram.tobytes(), t.size)
    if shared is None:
        return np.inf, np.inf, []
    regular, ridge, dual, undo = shared
    moved = float(blur @ abs(gram) @ blur)
    if ridge.any():
        far = np.maximum(abs(low - t), abs(high - t))
        least += float((2 * far + blur) @ abs(gram) @ blur)
    else:
        least = (np.sqrt(least) + np.sqrt(moved)) ** 2
    factor = np.linalg.cholesky(regular).T
    x = lsq_linear(factor, factor @ t, (low - 1e-9, high + 1e-9), method="bvls").x
    x = np.clip(x, low, high)
    d = x - t
    slope = 2 * gram @ d
    rounded = 8 * t.size * _UNIT_ROUNDOFF * (abs(gram) @ abs(d))
    outward = np.where(x == low, np.maximum(slope - rounded, 0.0), 0.0)
    outward += np.where(x == high, np.minimum(slope + rounded, 0.0), 0.0)
    rest = abs(slope - outward) + rounded
    width = np.maximum(x - low, high - x)
    radius = least - d @ gram @ d + 1e-13 * (abs(d) @ abs(gram) @ abs(d))
    radius += rest @ width + ridge @ width**2

    nearest = np.rint(x)  # z = origin + U y, so that y - s = U^-1 (z - x)
    whole, s = accurate.split(undo.astype(float), x - nearest)
    origin = nearest + dual @ whole
    down, up = low - origin, high - origin
    toward, away = np.maximum(undo, 0), np.minimum(undo, 0)
    ends = np.stack([toward @ down + away @ up, toward @ up + away @ down])
    reduced = _tree(regular, dual, origin, s, np.zeros(t.size), ends, radius)

    order = _costliest_last(regular, outward)
    basis = np.ascontiguousarray(np.eye(t.size, dtype=np.int64)[:, order])
    ends = np.stack([low, high])[:, order]
    plain = _tree(regular, basis, np.zeros(t.size), x[order], outward[order], ends, radius)
    return least, radius, [tree for tree in (reduced, plain) if tree is not None]


def _tree(gram, basis, origin, s, slope, ends, radius):
    """What `_walk` takes for one basis, None if rounding would spoil it."""
    form = accurate.congruence(gram, basis)
    n = len(form)
    unit = np.sqrt(form.diagonal())
    loss = 64 * n**2 * _UNIT_ROUNDOFF * np.linalg.cond(form / np.outer(unit, unit))
    if not loss < 10 * _MOST_LOSS:
        return None
    factor = np.linalg.cholesky(form).T
    squares = factor.diagonal() ** 2
    steps = np.ascontiguousarray(factor / factor.diagonal()[:, None])
    first, last = np.ascontiguousarray(ends)
    state = np.array([n - 1, 1]), np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n + 1)
    return squares, steps, basis, origin, s, slope, first, last, radius * (1 + loss), state


def _costliest_last(gram, slope):
    """An order whose last coordinate, which the tree fixes first, costs most to move by one."""
    spread, left, order = np.linalg.inv(gram), list(range(len(gram))), []
    while left:
        best = max(left, key=lambda i: 1 / max(spread[i, i], 1e-300) + abs(slope[i]))
        order.append(best)
        left.remove(best)
        if spread[best, best] > 0:
            column = spread[best] / np.sqrt(spread[best, best])
            spread -= np.outer(column, column)
    return np.array(order[::-1])


@compiled
@no_type_check
def _walk(
    gram, t, low, high, least, squares, steps, basis, origin, s, slope, first, last, radius, state,
    z, budget,
):  # fmt: skip
    """Visit every z = origin + U y of the box within the radius, from where ``state`` stands.

    Level k costs squares_k (y_k - s_k + sum over j > k of steps_kj (y_j - s_j))^2, and besides
    slope_k (y_k - s_k), which is never negative. Returns the nodes visited and 0 if the budget ran
    out, 1 if all were visited, 2 if ``z`` has f < least, or nearly so that rounding may hide it.
    """
    level, y, stop, centre, cost = state
    n = s.size
    k, nodes = level[0], 0
    down = level[1] == 1  # whether level k has just been entered
    d = np.empty(n)
    while k < n:
        if nodes >= budget:
            level[0], level[1] = k, 1 if down else 0
            return nodes, 0
        nodes += 1
        if down:
            shift = 0.0
            for j in range(k + 1, n):
                shift += steps[k, j] * (y[j] - s[j])
            # squares (v + shift)^2 + slope v <= room with v = y - s
            room = radius - cost[k + 1]
            half = slope[k] / (2.0 * squares[k])
            middle = s[k] - shift - half
            inner = room / squares[k] + half * half + 2.0 * half * shift
            reach = np.sqrt(max(inner, 0.0))
            blur = 1e-9 * (1.0 + reach)
            y[k] = max(np.ceil(middle - reach - blur), first[k])
            stop[k] = min(np.floor(middle + reach + blur), last[k])
            centre[k] = shift
        else:
            y[k] += 1.0
        down = False
        if y[k] > stop[k]:
            k += 1
            continue
        v = y[k] - s[k]
        cost[k] = cost[k + 1] + squares[k] * (v + centre[k]) ** 2 + slope[k] * v
        if k > 0:
            if cost[k] <= radius * (1.0 + 1e-12):
                k -= 1
                down = True
            continue
        inside = True
        for i in range(n):
            whole = origin[i]
            for j in range(n):
                whole += basis[i, j] * y[j]
            if whole < low[i] or whole > high[i]:
                inside = False
                break
            z[i] = whole
            d[i] = whole - t[i]
        if not inside:
            continue
        total = size = 0.0
        for i in range(n):
            for j in range(n):
                term = d[i] * gram[i, j] * d[j]
                total += term
                size += abs(term)
        if total < least + 4.0 * n * 2.0**-52 * size:
            level[0], level[1] = k, 0
            return nodes, 2
    return nodes, 1
