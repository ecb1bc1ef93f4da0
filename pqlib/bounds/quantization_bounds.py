"""Lower bounds of the quantization error that anyone can re-check: dual points and their values.

With G = scale^2 P, t = w / scale and f(z) = (z - t)' G (z - t), whole z in the box satisfy

    (z_i - a_i)(z_i - a_i - 1) >= 0  for any whole a_i,     (z_i - l)(z_i - u) <= 0,

so that for all lambda, nu >= 0

    f(z) >= L(z) = f(z) - sum lambda_i (z_i - a_i)(z_i - a_i - 1) + sum nu_i (z_i - l)(z_i - u).

L is a quadratic with matrix M = G - diag(lambda) + diag(nu). If M is positive semidefinite, it lies
above its tangent at any x, and over the box

    f(z) >= L(x) + sum_i min over z_i in {l, u} of (dL/dx_i)(x) (z_i - x_i).

A dual point is the four rows lambda, nu, x, a (lambda and nu in units of the error, x and a in
integers). `certified_lower` recomputes its bound and trusts no solver: M is checked by a Cholesky
factorization with a margin for its rounding.

* ``box_qp``: lambda = nu = 0, x the minimizer over the box (see `pqlib.bounds.lattice`).
* ``sdp``: nu = 0, the relaxation of Park and Boyd (2017, arXiv 1504.07672) that the paper states
  as eq 6. For eq 5's (1/2) z' P z - q' z the block reads [P/2 - diag(lambda), (lambda - q)/2; .,
  gamma], and it helps only after shifting the origin, here to a = floor(t).
* ``sdp_box``: with nu.
"""

from contextlib import suppress
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from pqlib import accurate
from pqlib._validation import check_integer
from pqlib.bounds import lattice_kernels as kernels
from pqlib.grids import MAX_BITS
from pqlib.layers.problem import LayerProblem, check_scale

_EPS = 2.0**-52
_MOST_MULTIPLIER = 1e100  # of a gram near 1; larger ones prove nothing
# of a multiplier that rounding left too large
_SHRINK = (0.0, *np.logspace(-12, -1, 34), *np.linspace(0.2, 1.0, 9))


def certified_lower(problem: LayerProblem, n_bits: int, scale: float, dual: ArrayLike) -> float:
    """The lower bound that a dual point proves, >= 0; rounding is subtracted.

    Parameters
    ----------
    problem : LayerProblem
    n_bits, scale
        As in `solve_quantization`.
    dual : ndarray of shape (4, n)
        Rows lambda, nu, x, a, as in `Result.dual`. Negative multipliers count as 0 and a is
        rounded, so that any four rows give a valid bound, if a poor one.

    Returns
    -------
    float
        In squared output units, as `Result.error`.

    Raises
    ------
    ValueError, TypeError
        For a problem, bit-width or scale that `solve_quantization` refuses, or rows of another
        shape or not finite.
    """
    if not isinstance(problem, LayerProblem):
        raise TypeError(f"problem must be a LayerProblem(gram, weight), got {problem!r}")
    n_bits = check_integer("n_bits", n_bits, low=2, high=MAX_BITS)
    check_scale("scale", scale, problem)
    dual = np.asarray(dual, float)
    if dual.shape != (4, problem.n) or not np.isfinite(dual).all():
        raise ValueError(
            f"dual must be four finite rows of {problem.n}, lambda, nu, x and a, "
            f"got shape {dual.shape}"
        )
    p = _Scaled(problem, n_bits, scale)
    with np.errstate(over="ignore", invalid="ignore"):  # of a dual so large that it proves nothing
        lam, nu = dual[0] / p.unit, dual[1] / p.unit
        if not max(abs(lam).max(), abs(nu).max()) < _MOST_MULTIPLIER:
            return 0.0
        bound = p.bound(lam, nu, dual[2], np.rint(dual[3]))
    return p.in_units(bound)


@lru_cache(maxsize=16)
def _shared(gram_bytes, n):
    """A gram in units of 2^exponent, that exponent, and its `_lack`; kept for the next channels."""
    gram = np.frombuffer(gram_bytes).reshape(n, n)
    exponent = int(np.frexp(np.max(abs(gram)))[1])
    gram = np.ldexp(gram, -exponent)
    return gram, exponent, _lack(gram, np.zeros(n), np.zeros(n))


def _lack(gram, lam, nu):
    """e with G - diag(lambda) + diag(nu) + diag(e) certainly positive semidefinite, mostly 0.

    Where floating-point Cholesky of A succeeds, A + E is positive semidefinite for an E with
    |E_ij| <= gamma sqrt(A_ii A_jj), so A + n gamma diag(A) is (Higham 2002, theorem 10.3).
    """
    n = len(gram)
    matrix = gram - np.diag(lam) + np.diag(nu)
    diagonal = np.maximum(np.diag(gram), 0.0) + nu
    diagonal = np.where(matrix.any(axis=1), np.maximum(diagonal, 1e-12), 0.0)
    live = np.flatnonzero(diagonal)
    matrix, live_diagonal = matrix[np.ix_(live, live)], diagonal[live]
    margin = n * (n + 4) * _EPS
    added = 0.0
    while not kernels.has_cholesky(
        matrix + np.diag((added - margin * (1 + added)) * live_diagonal)
    ):
        added = max(4 * added, margin)
    return added * diagonal


class _Scaled:
    """A problem in whole-number units, errors divided by ``unit``."""

    def __init__(self, problem, n_bits, scale):
        self.n = problem.n
        self.gram, exponent, self.lack = _shared(problem.gram.tobytes(), self.n)
        self.unit = float(np.ldexp(scale * scale, exponent))
        self.live = self.gram.any(axis=1)  # multipliers of the others count as 0
        self.t = problem.weight / scale
        self.low, self.high = -(2.0 ** (n_bits - 1)), 2.0 ** (n_bits - 1) - 1

    def in_units(self, bound):
        value = float(bound * self.unit * (1 - 4 * _EPS))
        return value if value > 0.0 else 0.0  # NaN, of multipliers too large, proves nothing

    def bound(self, multiplier, box_multiplier, x, a):
        """`pqlib.bounds.lattice_kernels.tangent_bound` of any multipliers."""
        lam = np.where(self.live, np.maximum(multiplier, 0.0), 0.0)
        nu = np.where(self.live, np.maximum(box_multiplier, 0.0), 0.0)
        value, v = accurate.quadratic(self.gram, x, self.t)
        lack = _lack(self.gram, lam, nu) if lam.any() or nu.any() else self.lack
        ends = self.low, self.high
        return kernels.tangent_bound(self.gram, lack, lam, nu, x, a, self.t, *ends, value, v)

    def dual(self, multiplier, box_multiplier, a):
        """The best dual point from a solver's multipliers, x rebuilt from them.

        At the solution M is singular, and rounding may make it indefinite: lambda is shrunk, by
        as little as gives the best bound.
        """
        best, found = -np.inf, None
        nu = np.maximum(box_multiplier, 0.0)
        for shrink in _SHRINK:
            lam = np.maximum(multiplier, 0.0) * (1 - shrink)
            matrix = self.gram - np.diag(lam) + np.diag(nu)
            right = self.gram @ self.t - lam * (a + 0.5) + nu * (self.low + self.high) / 2
            x = np.linalg.lstsq(matrix, right, rcond=1e-15)[0]
            value = self.bound(lam, nu, x, a)
            if value > best:
                best, found = value, np.stack([lam * self.unit, nu * self.unit, x, a])
        return found


def sdp_dual(
    problem: LayerProblem, n_bits: int, scale: float, *, box: bool
) -> tuple[Float[np.ndarray, "4 n"], Float[np.ndarray, "m m"]]:
    """Solve the semidefinite program; a rebuilt dual point, and the relaxation's matrix.

    maximize s over lambda, nu >= 0 and s subject to

        [ G - diag(lambda) + diag(nu)                              . ]
        [ (lambda/2 - G tau - nu (l' + u')/2)'   c + sum nu l'u' - s ]   positive semidefinite

    in z - a, a = floor(t), tau = t - a, c = tau' G tau, l' = l - a, u' = u - a; nu = 0 without
    ``box``. The multiplier of the constraint is [X, x; x', 1], the relaxation of [z; 1][z; 1]'.

    Returns
    -------
    dual : ndarray of shape (4, n)
        For `certified_lower`.
    moments : ndarray of shape (n + 1, n + 1)
        [X, x; x', 1] in z - a, as the solver left it; only heuristics use it.

    Notes
    -----
    cvxpy with Clarabel (an extra: ``pip install cvxpy clarabel``). Whatever status the solver
    reports, the value that counts is that of `certified_lower`.
    """
    try:
        import cvxpy as cp
    except ImportError as error:
        raise ImportError(
            "the semidefinite bounds need cvxpy and Clarabel: pip install cvxpy clarabel"
        ) from error
    p = _Scaled(problem, n_bits, scale)
    a = np.floor(p.t)
    a = np.clip(a, p.low, p.high - 1) if box else a
    m = int(p.live.sum())
    gram, tau = p.gram[np.ix_(p.live, p.live)], (p.t - a)[p.live]
    multiplier, box_multiplier = np.zeros(p.n), np.zeros(p.n)
    corner_of = np.append(np.where(p.live, p.t - a, 0.0), 1.0)
    moments = np.outer(corner_of, corner_of)
    if m == 0:
        return p.dual(multiplier, box_multiplier, a), moments
    lam, s = cp.Variable(m, nonneg=True), cp.Variable()
    diagonal, side, corner = -lam, lam / 2 - gram @ tau, float(tau @ gram @ tau) - s
    if box:
        low, high = (p.low - a)[p.live], (p.high - a)[p.live]
        nu = cp.Variable(m, nonneg=True)
        diagonal, corner = diagonal + nu, corner + nu @ (low * high)
        side = side - cp.multiply(nu, (low + high) / 2)
    block = cp.bmat(
        [
            [gram + cp.diag(diagonal), cp.reshape(side, (m, 1), order="C")],
            [cp.reshape(side, (1, m), order="C"), cp.reshape(corner, (1, 1), order="C")],
        ]
    )
    semidefinite = block >> 0
    program = cp.Problem(cp.Maximize(s), [semidefinite])
    with suppress(cp.SolverError):  # without multipliers: the bound of lambda = nu = 0
        program.solve(solver=cp.CLARABEL)
    if lam.value is not None:
        multiplier[p.live] = lam.value
        if box:
            box_multiplier[p.live] = nu.value
    found = semidefinite.dual_value
    if found is not None and np.isfinite(found).all():
        moments[np.ix_(*[np.append(p.live, True)] * 2)] = found
    return p.dual(multiplier, box_multiplier, a), moments
