r"""The search behind `pqlib.bounds.pruning.solve_pruning`, and why what it cuts off can be cut off.

.. math:: E(s) = \min_{\hat w} (\hat w - w)' P (\hat w - w) \quad\text{with at most } s
          \text{ non-zeros} \qquad\text{(eq. 7)}

**The error of a subset.** Removing the weights R and refitting the others costs
f(R) = w_R' (C_RR)^-1 w_R with C = P^-1. Weight by weight: removing j costs r_j = w_j^2 / C_jj and
leaves a problem of the same kind with w - C_j w_j / C_jj and C - C_j C_j' / C_jj (the Schur
complement; in Hassibi and Stork's optimal brain surgeon it is the single step). Keeping j for good
deletes its row and column of C.

**Leaps and bounds** (Furnival and Wilson, 1974; LaMotte and Hocking, 1970). f only grows as more
is removed. Order what is free by r, descending; child i keeps 1..i-1 and removes i. With the best
error U known, a j with f + r_j >= U must be kept, and a branch with too few weights left to remove
ends. Costs of one and two removals are closed forms; where all that is free has to go, which is
where most branches end, one Cholesky decomposition adds up its cost until that exceeds U.

**The diagonal bound.** With P - diag(D) positive semidefinite, d'Pd >= sum D_j d_j^2, so removing k
more weights costs at least the sum of the k least D_j w_j^2. One D serves at each node: what has
been removed leaves a principal submatrix of P, whatever is kept for good. Without it, P = I with
equal weights visits every subset. D comes from coordinate steps (half of what each D_j may grow),
one common stretch to the border, and a Cholesky decomposition with a margin that must go through.
It ends such ties up to some n = 150; beyond, what is allowed for rounding, see below, exceeds the
1e-10 by which a better subset must win. Between correlated inputs it lies below the optimum. So
many equal weights (above 150, or above 30 at a correlation of 0.5) want a budget.

**Rounding.** P and w are scaled by powers of 2, which is exact, to a diagonal near 1. Cholesky and
Schur complements of n rows are those of a P (1 + delta), in the order of definite matrices, with
delta <= 8 n^2 u cond(P) (Higham, Accuracy and Stability, theorem 10.3), and so change *every* f(R)
by at most delta of itself. Branches end at U (1 - 5e-11 + 2 delta): all that is cut off is worse
than U (1 - 5e-11), whatever rounding did. Sets that reach the end are refitted on P itself, and
their errors summed in twice the precision. Errors below 1e-280 have no such precision; nothing is
claimed of them.

**Singular P.** Inputs whose row of P is zero are dead: their weights become 0 at no cost. Where
delta would exceed 0.1 (a condition number beyond some 1e11, or dependent inputs) the search runs on
P + e I, scaled, with e just large enough. For a change d of the weights, d'Pd = d'(P + e I) d - e
\|d\|^2, so that among changes with \|d\|^2 <= 1e4 \|w\|^2 (both weighted by P's diagonal) the
search is still complete if that share of e is added to where branches end. What the
same changes could still take from the error of each set that reaches the end is bounded
(`pruning_kernels.refit`), and taken from the lower bound. The status says so. A bound on
d is unavoidable: by weights large enough, inputs that differ only by rounding explain anything."""

import time
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float

from pqlib.bounds import elimination_kernels, pruning_kernels
from pqlib.layers.problem import LayerProblem

_TOLERANCE = 5e-11  # relative; half of what `Result.proven` allows, the rest is for rounding
_UNIT_ROUNDOFF = 2.0**-53
_MOST_LOSS = 0.1  # delta above which P is shifted
LEAST = 1e-280  # error, of the scaled problem or not, below which rounding is not relative
_REACH = 1e4  # |d|^2 / |w|^2 by P's diagonal, up to which the search of a shifted P is complete
_NODES_PER_CALL = 1_000  # some milliseconds, after which time and Ctrl-C are looked at
_D_SWEEPS = 4


@dataclass(frozen=True)
class Prepared:
    """What the channels of one gram share. Rows are the live inputs, scaled."""

    alive: np.ndarray  # (m,) indices of inputs whose row is not zero
    unit: np.ndarray  # (m,) powers of 2
    gram: Float[np.ndarray, "m m"]  # P / unit / unit'
    inverse: Float[np.ndarray, "m m"]  # C, of gram + shift I
    diagonal: Float[np.ndarray, " m"]  # D
    loss: float  # delta
    shift: float  # e


@lru_cache(maxsize=16)
def _prepare(data: bytes, n: int) -> Prepared:
    gram = np.frombuffer(data).reshape(n, n)
    alive = np.flatnonzero(gram.any(axis=1))
    gram = gram[np.ix_(alive, alive)]
    m = alive.size
    if m == 0:
        empty = np.empty(0)
        return Prepared(alive, empty, gram, gram, empty, 0.0, 0.0)
    own, common = gram.diagonal(), np.full(m, gram.diagonal().max())
    for size in (own, common):  # the second for a gram that is indefinite by rounding
        if size.min() > 0:
            unit = 2.0 ** np.rint(np.log2(size) / 2)
            scaled = np.ascontiguousarray(gram / unit / unit[:, None])
            least, most = np.linalg.eigvalsh(scaled)[[0, -1]]
            if least > -1e-8:
                break
    rounding = 8.0 * m * m * _UNIT_ROUNDOFF
    least -= rounding * most  # eigenvalues are rounded too
    shift, loss = 0.0, rounding * most / least if least > 0 else np.inf
    if loss > _MOST_LOSS:
        shift = rounding * most / _MOST_LOSS - 2.0 * min(least, 0.0)
        loss = 2.0 * _MOST_LOSS
    shifted = scaled + shift * np.eye(m)
    inverse = _inverse(shifted)
    return Prepared(alive, unit, scaled, inverse, _diagonal(shifted, inverse), loss, shift)


def _diagonal(gram: Float[np.ndarray, "m m"], inverse: Float[np.ndarray, "m m"]) -> np.ndarray:
    """D >= 0 with gram - diag(D) positive semidefinite, checked; 0 where the check fails."""
    d = elimination_kernels.diagonal_steps(inverse, _D_SWEEPS)
    root = np.sqrt(d)
    d = d / np.linalg.eigvalsh(root[:, None] * inverse * root)[-1]
    n = d.size
    step = n * (n + 1) * _UNIT_ROUNDOFF * gram.diagonal().max()
    for _ in range(60):
        try:
            np.linalg.cholesky(gram - np.diag(d + 2.0 * step))  # that of A proves A >= -step I
            return d
        except np.linalg.LinAlgError:
            d = np.maximum(d * (1.0 - 1e-14) - step, 0.0)
    return np.zeros(n)


def _inverse(gram: Float[np.ndarray, "m m"]) -> np.ndarray:
    """gram^-1 from its Cholesky factor, both halves alike."""
    factor, _ = scipy.linalg.lapack.dpotrf(gram, lower=True)
    inverse, _ = scipy.linalg.lapack.dpotri(factor, lower=True)
    return np.ascontiguousarray(np.tril(inverse) + np.tril(inverse, -1).T)


class Channel:
    """One channel in scaled units: masks that heuristics remove, and the search."""

    def __init__(self, problem: LayerProblem):
        self.prepared = p = _prepare(problem.gram.tobytes(), problem.n)
        self.problem = problem
        scaled = problem.weight[p.alive] * p.unit
        self.unit = float(2.0 ** np.floor(np.log2(abs(scaled).max()))) if scaled.any() else 1.0
        self.weight = scaled / self.unit
        self.n = scaled.size
        own = p.gram.diagonal()
        own = own if own.size and own.min() > 0 else np.ones(self.n)
        if p.shift:  # of each weight
            self.reach = np.sqrt(_REACH * float(own @ self.weight**2) / own)
        else:  # by Cauchy's inequality no d with an error of at most w'Pw goes further
            energy = self.weight @ p.gram @ self.weight
            self.reach = np.sqrt(1.5 * energy * p.inverse.diagonal())
        self.slack = p.shift * float(np.max(self.reach, initial=0.0)) ** 2

    def by_magnitude(self, n_remove: int) -> Bool[np.ndarray, " m"]:
        """Mask of the smallest weights (of equal ones the first), which is what is removed."""
        removed = np.zeros(self.n, bool)
        magnitudes = abs(self.problem.weight[self.prepared.alive])
        removed[np.argsort(magnitudes, kind="stable")[:n_remove]] = True
        return removed

    def improved(self, removed: Bool[np.ndarray, " m"], n_remove: int) -> Bool[np.ndarray, " m"]:
        """Backward elimination from ``removed`` on, then swaps."""
        return elimination_kernels.improved(self.prepared.inverse, self.weight, removed, n_remove)

    def refit(self, removed: Bool[np.ndarray, " m"]) -> tuple[float, np.ndarray, float]:
        """(error in scaled units, change d, gain left) of the least squares on what is kept."""
        return pruning_kernels.refit(self.prepared.gram, self.weight, ~removed, self.reach)

    def solution(self, removed: Bool[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
        """Weights in the problem's units: 0 where removed or dead, refitted elsewhere."""
        p = self.prepared
        _, d, _ = self.refit(removed)
        w_hat = np.zeros(self.problem.n)
        kept = p.alive[~removed]
        w_hat[kept] = self.problem.weight[kept] + (d * self.unit / p.unit)[~removed]
        return w_hat

    def in_units(self, lower: float) -> float:
        """A lower bound of the scaled problem in the problem's units; 0 of the tiniest."""
        lower = float(lower * self.unit) * self.unit
        return lower if lower > LEAST else 0.0

    def prove(self, starts, n_remove, max_nodes, max_seconds):
        """(removed, lower bound in scaled units, nodes, what ran out or "")."""
        p, w = self.prepared, self.weight
        most = np.inf if max_nodes is None else max_nodes
        deadline = np.inf if max_seconds is None else time.monotonic() + max_seconds
        starts = list({mask.tobytes(): mask for mask in starts}.values())
        fits = [self.refit(removed) for removed in starts]
        errors = [error for error, _, _ in fits]
        best = int(np.argmin(errors))
        removed, upper = starts[best].copy(), errors[best]
        power = float(w @ w)
        nothing = 16.0 * self.n * _UNIT_ROUNDOFF * power
        if p.shift and upper <= nothing:
            return removed, 0.0, 0, ""
        loose = 1.0 - _TOLERANCE + 2.0 * p.loss
        slack = self.slack * (1.0 + 3.0 * p.loss)
        state = pruning_kernels.root(p.inverse, w, p.diagonal, loose * upper + slack, n_remove)
        values = np.zeros(n_remove + 2)
        values[0], values[-1] = upper, min(error - gain for error, _, gain in fits)
        nodes, done, out = 0, False, ""
        while not done:
            if nodes >= most or time.monotonic() >= deadline:
                out = "node budget" if nodes >= most else "time budget"
                break
            allowed = int(min(nodes + _NODES_PER_CALL, most))
            done = pruning_kernels.search(
                p.gram,
                w,
                self.reach,
                p.diagonal,
                loose,
                slack,
                n_remove,
                *state,
                values,
                removed,
                allowed,
            )
            nodes = int(state[-1][1])
        lower = max(min(values[0] * (1.0 - _TOLERANCE), values[-1]), 0.0)
        if values[0] <= (nothing if p.shift else LEAST):
            lower = 0.0
        if not done:
            open_nodes = pruning_kernels.least_open(*state, values)
            root = np.sort(p.diagonal * w * w)[:n_remove].sum()
            floor = max(open_nodes, root) * (1.0 - 2.0 * p.loss) - slack
            lower = min(lower, max(floor, 0.0))
        return removed, float(lower), nodes, out
