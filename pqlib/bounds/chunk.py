"""What the channels of a chunk share: equal and dead inputs found, LLL, orders, triangular forms.

`pqlib.bounds.lattice` derives why, and what the trees are for.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pqlib import accurate
from pqlib.bounds import lattice_kernels as kernels

_EPS = 2.0**-52
_SINGULAR = 1e-9  # least eigenvalue, at unit diagonal, below which a ridge is added
_RIDGE = 1e-10
_FLOOR = 1e-12  # of the diagonal, in units of the largest, where its least entries are but rounding
_ROUNDED = 1e-8  # least eigenvalue below zero, at unit diagonal, that rounding explains
_LLL_DELTA = 0.999
NO_LOOKS = np.zeros((0, 0)), np.zeros((0, 0)), np.zeros(0), 0.0


@dataclass(frozen=True)
class Tree:
    """A triangular form of P for one order or basis, and how far rounding spoils it."""

    ridge: np.ndarray  # what was added to the diagonal
    arrays: tuple  # squares, steps, basis, as `tree_kernels.search` takes them
    inverse: np.ndarray  # of the basis
    up: np.ndarray  # its positive entries
    down: np.ndarray  # its negative ones
    reach: np.ndarray  # |R| |inverse|
    length: float  # || |R| 1 ||
    growth: float  # nu
    looks: tuple  # gains, weights, floor, and margin per unit of the box, for the look-ahead
    order: np.ndarray | None  # of the variables, where the basis is a permutation


@dataclass(frozen=True)
class Chunk:
    """What all channels with the same gram share."""

    group: np.ndarray  # (n,): which live variable an input belongs to, -1 if it is dead
    counts: np.ndarray  # inputs per live variable
    gram: np.ndarray  # of the live variables, in units of 2^exponent
    exponent: int
    least: float  # eigenvalue of gram at unit diagonal
    ridge: np.ndarray  # epsilon D
    inverse: np.ndarray  # of gram + ridge
    trees: tuple


def chunk_of(gram: np.ndarray) -> Chunk:
    """The prepared gram; kept for the next channels of the same chunk."""
    return _chunk(gram.tobytes(), gram.shape[0])


@lru_cache(maxsize=16)
def _chunk(gram_bytes, n):
    gram = np.frombuffer(gram_bytes).reshape(n, n)
    live = np.flatnonzero(gram.any(axis=1))
    _, first, group = np.unique(gram[live], axis=0, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))  # keep the inputs' order
    all_groups = np.full(n, -1)
    all_groups[live] = order[group.ravel()]
    first = live[np.sort(first)]
    if first.size == 0:
        none = np.zeros(0)
        return Chunk(all_groups, none, np.zeros((0, 0)), 0, 0.0, none, np.zeros((0, 0)), ())
    gram = gram[np.ix_(first, first)]
    exponent = int(np.frexp(np.max(abs(gram)))[1])
    gram = np.ldexp(gram, -exponent)
    own = np.diag(gram)
    for diagonal in (own, np.maximum(own, _FLOOR)):  # the second if indefinite by rounding
        if diagonal.min() > 0:
            root = np.sqrt(diagonal)
            least = float(np.linalg.eigvalsh(gram / np.outer(root, root))[0])
            if least > -_ROUNDED:
                break
    epsilon = 0.0 if least >= _SINGULAR else _RIDGE + 1.001 * max(-least, 0.0)
    ridge = epsilon * diagonal
    regular = gram + np.diag(ridge)
    inverse = np.linalg.inv(regular)
    inverse = (inverse + inverse.T) / 2
    trees = (*reduced_trees(gram, ridge), _tree(gram, ridge, order=_order(inverse)))
    counts = np.bincount(all_groups[live])
    return Chunk(all_groups, counts, gram, exponent, least, ridge, inverse, trees)


def reduced_trees(gram: np.ndarray, ridge: np.ndarray) -> list[Tree]:
    """The tree of gram + diag(ridge) in an LLL basis; none if its entries grow too large."""
    factor = np.linalg.cholesky(gram + np.diag(ridge)).T.copy()
    basis, inverse, good = kernels.lll(factor, _LLL_DELTA)
    return [_tree(gram, ridge, basis, inverse)] if good else []


def _order(inverse):
    """V-BLAST's order, the coordinate to fix first at the end."""
    n = len(inverse)
    spread, left, order = inverse.copy(), list(range(n)), []
    while left:
        best = min(left, key=lambda i: spread[i, i])
        order.append(best)
        left.remove(best)
        if spread[best, best] > 0:
            spread -= np.outer(spread[best], spread[best]) / spread[best, best]
    return np.array(order[::-1])


def _tree(gram, ridge, basis=None, inverse=None, order=None):
    """The tree of gram + diag(ridge) in a basis, or in an order of the variables."""
    n = len(gram)
    if order is not None:
        inverse = np.eye(n, dtype=np.int64)[order]
        basis = np.ascontiguousarray(inverse.T)
    form = accurate.congruence(gram + np.diag(ridge), basis)
    factor = np.linalg.cholesky(form).T
    inverse_factor = kernels.inverse_triangle(np.ascontiguousarray(factor))
    diagonal = np.diag(factor)
    grown = abs(factor) @ abs(inverse_factor)
    growth = float(np.sqrt(np.linalg.norm(grown, 1) * np.linalg.norm(grown, np.inf)))
    looks = NO_LOOKS
    if order is not None and not ridge.any():
        looks = _looks(form, factor, inverse_factor)
    steps = np.ascontiguousarray((factor / diagonal[:, None]).T)  # row j: r_kj / r_kk
    arrays = (diagonal**2, steps, basis)
    whole = inverse.astype(np.float64)
    up, down = np.maximum(whole, 0.0), np.minimum(whole, 0.0)
    reach, length = abs(factor) @ abs(whole), float(np.linalg.norm(abs(factor).sum(axis=1)))
    return Tree(ridge, arrays, whole, up, down, reach, length, growth, looks, order)


def _looks(form, factor, inverse_factor):
    """The look-ahead of `tree_kernels.search`: gains, weights, floor, margin per unit of the box.

    The conditional means c move by gains[k] (y_k - c_k). How far rounding can take them is bounded
    twice, by norms and, better near a diagonal matrix, entry by entry along the recursion.
    """
    n = len(form)
    condition = float(np.linalg.cond(form))
    lost = 4 * n**2 * _EPS * condition
    if lost > 0.5:
        return NO_LOOKS
    size, diagonal = abs(inverse_factor), np.diag(inverse_factor)
    gains = np.ascontiguousarray((inverse_factor / diagonal).T)
    grown = size @ abs(factor)
    wrong = 8 * (n + 4) * _EPS * ((grown @ grown @ grown @ size) / diagonal).T
    reach, error = np.zeros(n), np.full(n, _EPS)
    for k in range(n - 1, -1, -1):
        gain, move = abs(gains[k, :k]), 1.0 + reach[k]
        error[:k] += gain * error[k] + wrong[k, :k] * move
        reach[:k] += gain * move
        error[:k] += _EPS * (1.0 + reach[:k] + 4 * gain * move)
    margin = 4 * min(float(error.max()), n**2 * _EPS * condition**1.5)
    variance = np.cumsum(inverse_factor**2, axis=1).T
    weights = np.where(np.tri(n) > 0, (1 - lost) / np.where(variance > 0, variance, 1.0), 0.0)
    return gains, weights, _diagonal_below(form), margin


def _diagonal_below(form):
    """D with form - diag(D) certainly positive semidefinite, a share of form's own diagonal."""
    n = len(form)
    diagonal = np.diag(form)
    root = np.sqrt(diagonal)
    unit = form / np.outer(root, root)
    margin = n * (n + 4) * _EPS
    share = float(np.linalg.eigvalsh(unit)[0]) - 4 * margin
    while share > 0 and not kernels.has_cholesky(form - np.diag((share + margin) * diagonal)):
        share -= 4 * margin
    return max(share, 0.0) * diagonal
