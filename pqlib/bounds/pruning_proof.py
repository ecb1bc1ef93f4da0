r"""A second proof that a pruned channel is optimal, by other bounds, in another order.

`pqlib.bounds.pruning_search` removes weights one after another in terms of C = P^-1. Here they are
kept one after another in terms of P, and no code is shared. An upper bound U is given, and what is
left is to exclude every support that would be better.

**Keeping and dropping.** With y = w_hat, b = P w and E = w'Pw the error is y'Py - 2 b'y + E.
To drop j (y_j = 0) is to delete its row of P and b. To keep j is to minimize over y_j: a Schur
complement, P - p p' / p_jj, b - p b_j / p_jj, E - b_j^2 / p_jj, with p the column j of P. What
remains is a problem of the same kind with one weight less to choose.

**The bound.** Let D > 0 be diagonal with Q = P - diag(D) positive semidefinite, and x any vector.
As y'Qy >= 2 x'Qy - x'Qx, the error is no less than a sum over single weights, of which at most s
may differ from zero:

.. math:: y'Py - 2b'y + E \ge E - x'Qx + \sum_j \left(D_j y_j^2 - 2 (b - Qx)_j y_j\right)
          \ge E - x'Qx - \sum_{\text{the } s \text{ largest}} (b - Qx)_j^2 / D_j.

This is the dual of the perspective relaxation, the least of y'Qy + sum D_j y_j^2 / z_j - 2 b'y + E
over y and z in [0, 1] with sum z <= s (Frangioni and Gentile, Mathematical Programming 106, 2006;
Xie and Deng, SIAM Journal on Optimization 30, 2020). Alternating steps approach the best x: at
fixed z, x solves (Q + diag(D / z)) x = b; at fixed x, z is proportional to sqrt(D_j) \|x_j\|, cut
at 1. No x exceeds the relaxation at the present z, E - b'x: where that is too low, the branch is
split. A weight outside the s largest is dropped if its exchange for the s-th lifts the bound to the
limit. D serves at all nodes, as the least of d'(P - diag(D))d over a d_j is no less without D_j. It
is made once, by steps in each D_j that raise sum x_j^2 (1 / z_j - 1) D_j, the growth of the
relaxation, plus a falling multiple of logdet(P - diag(D)).

**Order.** The free weight with the largest P_jj x_j^2 is kept first, and dropped afterwards.

**Rounding.** P, scaled by powers of 2 to a diagonal in [1/2, 2], stands as P + e I with e = 4 n^2 u
and u = 2^-53 (more if P is indefinite by rounding), so that Cholesky decompositions go through;
with the check of D this costs 2 e \|y\|^2. Schur complements of [[P, b], [b', E]] are exact for a
matrix that differs by 2 (n + 1) u sqrt(P_ii P_jj) (Higham, Accuracy and Stability of Numerical
Algorithms, theorem 10.3); with the rounding of b and E this changes the error of y by at most 8 (n
+ 1) u (sum \|y_j\| + sum \|w_j\|)^2. Any y with error below U has d = y - w with d_j^2 <= (P^-1)_jj
U and \|d\|^2 <= \|P^-1\| U, which bounds the loss for all of them at once: a branch ends where its
bound exceeds U by that loss. The bound itself is rounded down. Supports left over are
refitted in exact arithmetic. Where P's condition number exceeds 1e9, only changes \|d\| <= 100
\|w\| (weighted by P's diagonal) are looked at.
"""

from fractions import Fraction
from functools import partial

import numpy as np

from pqlib._validation import check_integer, check_number
from pqlib.bounds import pruning_proof_kernels
from pqlib.layers.problem import LayerProblem

_UNIT_ROUNDOFF = 2.0**-53
_LEAST = 1e-280  # error, in units of the largest weight, that still has all its digits
_DIAGONAL_ROUNDS = 12
_NODES_PER_CALL = 1_000
_REACH = 1e4  # |d|^2 / |w|^2 looked at where P is nearly singular
_DEPENDENT = 1e-12  # share of its diagonal that a pivot must have to bound its weight


def reprove_pruning(
    problem: LayerProblem, n_nonzero: int, upper: float, max_nodes: int = 1_000_000
) -> bool | None:
    """Whether no w_hat with at most ``n_nonzero`` non-zeros has an error below ``upper``.

    Parameters
    ----------
    problem : LayerProblem
    n_nonzero : int in 0..n
    upper : float >= 0
        What is said to be the optimum, in the units of `LayerProblem.error`.
    max_nodes : int >= 1, default 1_000_000
        Nodes of the search tree, some 10 microseconds each at n = 36.

    Returns
    -------
    bool or None
        True: none has an error below upper (1 - 1e-10) - 1e-13 w'Pw. False: one was found, its
        error computed in exact arithmetic. None: the nodes ran out, or inputs depend on each other
        so nearly that not even exact arithmetic bounds what changes of this size can reach.

    Raises
    ------
    ValueError, TypeError
        On arguments out of range.

    Notes
    -----
    Meant for n up to some 48. Beyond some 80 weights the rounding allowed for exceeds 1e-10 of the
    error, so that ties are no longer cut off and the nodes may run out.

    Examples
    --------
    >>> from pqlib.bounds.pruning_proof import reprove_pruning
    >>> from pqlib.layers.problem import LayerProblem
    >>> problem = LayerProblem([[2.0, 1.0], [1.0, 2.0]], [1.0, 2.0])
    >>> reprove_pruning(problem, 1, upper=1.5), reprove_pruning(problem, 1, upper=1.6)
    (True, False)
    """
    if not isinstance(problem, LayerProblem):
        raise TypeError(f"problem must be a LayerProblem(gram, weight), got {problem!r}")
    n_nonzero = check_integer("n_nonzero", n_nonzero, low=0, high=problem.n)
    upper = check_number("upper", upper, low=0.0)
    check_integer("max_nodes", max_nodes, low=1, high=2**62)
    own = problem.gram.diagonal()
    alive = np.flatnonzero(own > 0)
    if problem.gram[own <= 0].any():  # indefinite by rounding
        return None
    if alive.size == 0:  # nothing matters, and the error is 0
        return upper <= 0.0
    unit = 2.0 ** np.rint(np.log2(own[alive]) / 2)
    gram = problem.gram[np.ix_(alive, alive)] / unit / unit[:, None]
    weight = problem.weight[alive] * unit
    size = 2.0 ** np.floor(np.log2(abs(weight).max())) if weight.any() else 1.0
    weight = weight / size
    target = upper * (1.0 - 1e-10) - 1e-13 * problem.energy
    if target <= 0.0:
        return True
    target = target / size / size
    if target < _LEAST:  # the weights are so large that it has no digits left
        return None
    shift, loss = _loss(gram, weight, min(n_nonzero, alive.size), target)
    state = _root(gram, weight, min(n_nonzero, alive.size), shift)
    counters, nodes, doubt = state[-1], 0, False
    while nodes < max_nodes:
        outcome = pruning_proof_kernels.search(
            target + loss, min(nodes + _NODES_PER_CALL, max_nodes), *state
        )
        nodes = counters[1]
        if outcome == pruning_proof_kernels.DONE:
            return None if doubt else True
        if outcome == pruning_proof_kernels.LEAF:
            beaten = _beaten(gram, weight, state[-2][: counters[2]], target)
            if beaten:
                return False
            doubt |= beaten is None
    return None


def _loss(gram, weight, n_nonzero, target) -> tuple[float, float]:
    """(e, what rounding may take from the error of any y whose error is below ``target``)."""
    n = weight.size
    least = np.linalg.eigvalsh(gram)[0]
    shift = 4.0 * n * n * _UNIT_ROUNDOFF - 2.0 * min(least, 0.0)
    power = float(weight @ weight)
    reach = _REACH * float(gram.diagonal() @ weight**2) / gram.diagonal().min()
    change = 1.01 * target / least if not _is_nearly_singular(gram) else reach  # squared
    inverse = np.linalg.inv(gram + shift * np.eye(n)).diagonal()
    change_of_one = np.sqrt(1.01 * inverse * (target + shift * change))
    on_support = np.sort(change_of_one)[n - n_nonzero :].sum()
    total = min(on_support, np.sqrt(n_nonzero * change)) + 2.0 * abs(weight).sum()
    own = 2.0 * shift * (np.sqrt(power) + np.sqrt(change)) ** 2
    return shift, float(own + 8.0 * (n + 1) * _UNIT_ROUNDOFF * total**2)


def _beaten(gram, weight, support, target) -> bool | None:
    r"""Whether weights on ``support`` have an error below ``target``; None if not to be told.

    Gauss's elimination of [[P_SS, c], [c', E]], whose last row is of the weights dropped, in whole
    numbers (Bareiss, Mathematics of Computation 22, 1968), largest pivots first. Where only small
    pivots are left, S of the matrix and s of the slopes, changes a within the reach take at most
    2 \|s\| \|a\| from the error, and what S is indefinite by.
    """
    unit, size = (min(int(np.frexp(x[x != 0])[1].min()) - 53, 0) for x in (gram, weight))
    exact, off = _whole(gram, unit), _whole(-weight, size)
    off[support] = 0
    slope = exact @ off
    own = gram.diagonal()[support]
    m = np.empty((own.size + 1,) * 2, object)
    m[:-1, :-1], m[:-1, -1], m[-1, :-1] = exact[np.ix_(support, support)], *[slope[support]] * 2
    m[-1, -1] = off @ slope
    goal = Fraction(target) / Fraction(2) ** (unit + 2 * size)
    last, left, bounded = 1, np.arange(own.size), True
    while True:
        pivots = [Fraction(m[j, j], last) * Fraction(2) ** unit / Fraction(own[j]) for j in left]
        if bounded and not (pivots and max(pivots) > _DEPENDENT):
            bounded, here = False, Fraction(m[-1, -1], last)
            if here < goal:
                return True if _is_near(gram, weight, np.delete(support, left)) else None
            if here - _reachable(m, last, left, gram, weight, own, unit, size) >= goal:
                return False
        if not pivots or max(pivots) <= 0:
            break
        j = int(left[int(np.argmax(pivots))])
        m, last, left = (m * m[j, j] - np.outer(m[:, j], m[j])) // last, m[j, j], left[left != j]
    flat = not any(m[j, k] for j in left for k in [*left, -1])
    return False if flat and Fraction(m[-1, -1], last) >= goal else None


def _is_near(gram, weight, support) -> bool:
    """Whether the least squares on ``support`` are among the changes that are looked at."""
    if not _is_nearly_singular(gram):
        return True
    d = -weight
    d[support] = 0.0
    d[support] = -np.linalg.solve(gram[np.ix_(support, support)], (gram @ d)[support])
    own = gram.diagonal()
    return bool(own @ d**2 <= _REACH * float(own @ weight**2))


def _reachable(m, last, left, gram, weight, own, unit, size) -> Fraction:
    """What changes of the weights ``left``, within the reach, take from the error at most."""
    if not left.size:
        return Fraction(0)
    reach = np.sqrt(_REACH * float(gram.diagonal() @ weight**2) / own[left])
    slopes = [float(Fraction(m[j, -1], last) * Fraction(2) ** (unit + size)) for j in left]
    rest = [[float(Fraction(m[j, k], last) * Fraction(2) ** unit) for k in left] for j in left]
    rest = np.array(rest) * reach * reach[:, None]
    indefinite = max(1e-14 * float(abs(rest).sum()) - float(np.linalg.eigvalsh(rest)[0]), 0.0)
    linear = 2.0 * float(np.linalg.norm(np.array(slopes) * reach))
    return Fraction(1.01 * (linear + indefinite)) / Fraction(2) ** (unit + 2 * size)


def nearly_singular(problem: LayerProblem) -> bool:
    """Whether only changes of the weights up to 100 times their size may have been looked at."""
    own = problem.gram.diagonal()
    alive = own > 0
    root = np.sqrt(own[alive])
    gram = problem.gram[np.ix_(alive, alive)] / root / root[:, None]
    # scaled otherwise than in the proof, which moves the ratio by 4 at most: more is owned up to
    return bool(alive.any()) and _is_nearly_singular(gram, 1e-8)


def _is_nearly_singular(gram, share=1e-9) -> bool:
    values = np.linalg.eigvalsh(gram)
    return bool(values[0] <= share * values[-1])


@partial(np.vectorize, otypes=[object], excluded=[1])
def _whole(value: float, exponent: int) -> int:
    """``value`` / 2^exponent."""
    return int(Fraction(value) / Fraction(2) ** exponent)


def _root(gram, weight, n_nonzero, shift):
    """The state before the first node; `pruning_proof_kernels.search` says what it holds."""
    n, depth = weight.size, n_nonzero + 1
    p, b, d, z = np.zeros((depth, n, n)), *(np.zeros((depth, n)) for _ in range(3))
    energy, index, pending = np.zeros(depth), np.zeros((depth, n), np.int64), np.full(depth, -1)
    free, path = np.zeros(depth, np.int64), np.zeros(n, np.int64)
    p[0] = gram + shift * np.eye(n)
    b[0] = gram @ weight
    energy[0], index[0], free[0] = weight @ b[0], np.arange(n), n
    d[0], z[0] = 0.25 * shift, 1.0
    if 0 < n_nonzero < n:
        _fit_diagonal(p[0], b[0], energy[0], n_nonzero, d[0], z[0])
    return p, b, d, z, energy, index, free, pending, path, np.zeros(3, np.int64)


def _fit_diagonal(p, b, energy, n_nonzero, d, z):
    """Fill ``d``, and ``z`` to begin with, for a high bound before anything is kept or dropped."""
    n = b.size
    floor, highest, g = d[0], -np.inf, np.empty(n)
    now, share = np.full(n, max(0.5 * np.linalg.eigvalsh(p)[0], floor)), np.full(n, n_nonzero / n)
    for step in range(_DIAGONAL_ROUNDS):
        left = p - np.diag(now)
        if np.linalg.eigvalsh(left)[0] <= 0.25 * floor:
            break
        for _ in range(3):
            bound, relaxed, x = pruning_proof_kernels.dual_bound(
                p, b, now, share, energy, n_nonzero, g
            )
            pruning_proof_kernels.spread(x, now, n_nonzero, share)
        if bound > highest:
            highest = bound
            d[:], z[:] = now, share
        growth = x**2 * (1.0 / share - 1.0)
        growth = np.maximum(growth, 1e-6 * growth.max() + 1e-300)
        barrier = max(relaxed, 1e-12) / n * 0.3 ** min(step, 12)
        try:
            inverse = np.linalg.inv(left)
            pruning_proof_kernels.raise_diagonal(inverse, growth, barrier, now)
        except (np.linalg.LinAlgError, ZeroDivisionError):
            break  # the border is reached, and ``d`` is as good as it gets
        now = np.maximum(now * (1.0 - 1e-9), floor)
        if not np.isfinite(now).all():
            break
    root, inner = np.sqrt(d), p - 0.5 * floor * np.eye(n)
    try:
        stretched = d / np.linalg.eigvalsh(root[:, None] * np.linalg.inv(inner) * root)[-1]
    except np.linalg.LinAlgError:
        return
    if np.linalg.eigvalsh(p - np.diag(stretched))[0] > 0.25 * floor:
        d[:] = np.maximum(stretched, d)
