r"""The paper's mixed-integer program (eq. 8, corrected) in cvxpy, for any solver that takes it.

.. math:: \min_{\hat w, m} \|L' (\hat w - w)\|^2 \quad\text{with}\quad P = L L',\;
          l_j m_j \le \hat w_j \le u_j m_j,\; \sum_j m_j \le s,\; m_j \in \{0, 1\}

The paper chooses l and u "such that any solution satisfies the constraint", which is circular. They
follow from the data: no optimum has an error above U, that of backward elimination, and with
d = w_hat - w and C = P^-1, Cauchy's inequality in the norm of P gives

    d_j^2 = (e_j' d)^2 <= (e_j' C e_j) (d' P d) <= C_jj U,

so that w_hat_j lies within sqrt(C_jj U) of w_j, or is 0: l_j = min(0, w_j - sqrt(C_jj U)) and
u_j = max(0, w_j + sqrt(C_jj U)). Where P is singular, P + e I and U + 1e4 e \|w\|^2 stand in their
place, for changes of the weights as bounded in `pqlib.bounds.pruning_search`.
"""

import numpy as np
from jaxtyping import Float

from pqlib.bounds.pruning_search import Channel

try:
    import cvxpy as cp
except ImportError as error:
    raise ImportError(
        "method='big_m' needs cvxpy and a mixed-integer solver: pip install 'pqlib[bounds]', "
        "or use method='exact'"
    ) from error

_SOLVERS = ("SCIP", "GUROBI", "MOSEK", "CPLEX", "XPRESS", "COPT")  # quadratic and mixed-integer


def installed_solver(solver: str | None = None) -> str:
    """``solver``, or by default the first that is installed; ValueError if there is none."""
    installed = [name for name in _SOLVERS if name in cp.installed_solvers()]
    if solver is None and not installed:
        raise ValueError(
            f"method='big_m' needs one of {', '.join(_SOLVERS)}, and none is installed; "
            "pip install 'pqlib[bounds]', or use method='exact'"
        )
    if solver is not None and solver not in installed:
        raise ValueError(
            f"solver must be an installed one of {', '.join(_SOLVERS)} "
            f"(installed: {', '.join(installed) or 'none'}), got {solver!r}"
        )
    return solver or installed[0]


def weight_bounds(
    channel: Channel, error: float
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """(l, u): weights of error at most ``error``, all in scaled units, lie between, or are 0."""
    p, w = channel.prepared, channel.weight
    most = (error + channel.slack) * (1.0 + 1e-6 + 4.0 * p.loss)
    reach = np.sqrt(most * p.inverse.diagonal())
    return np.minimum(w - reach, 0.0), np.maximum(w + reach, 0.0)


def solve_big_m(
    channel: Channel, n_nonzero: int, *, solver: str | None = None, max_seconds: float | None = None
) -> tuple[np.ndarray | None, float, str]:
    """Hand eq. 8 to a mixed-integer solver.

    Parameters
    ----------
    channel : Channel
        The problem, scaled.
    n_nonzero : int in 1..n
        Non-zeros allowed, fewer than there are live inputs.
    solver : str, optional
        As cvxpy spells it; by default one that is installed.
    max_seconds : float, optional
        Time limit, passed on to SCIP and Gurobi; others run to their end.

    Returns
    -------
    removed : ndarray of bool or None
        The mask of what the solver removes; None if it returned nothing.
    claimed : float
        The optimum it claims, in the problem's units; unverified. NaN if it claims none.
    status : str
        As cvxpy reports it.
    """
    solver = installed_solver(solver)
    p, w, n_remove = channel.prepared, channel.weight, channel.n - n_nonzero
    error, _, _ = channel.refit(channel.improved(np.zeros(channel.n, bool), n_remove))
    least, most = weight_bounds(channel, error)
    values, vectors = np.linalg.eigh(p.gram)
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T  # P = root' root
    unit = np.sqrt(error) if error > 0 else 1.0  # so that the optimum is near 1
    w_hat, mask = cp.Variable(channel.n), cp.Variable(channel.n, boolean=True)
    program = cp.Problem(
        cp.Minimize(cp.sum_squares((root / unit) @ (w_hat - w))),
        [
            w_hat >= cp.multiply(least, mask),
            w_hat <= cp.multiply(most, mask),
            cp.sum(mask) <= n_nonzero,
        ],
    )
    options = {}
    if max_seconds is not None:
        options = {
            "SCIP": {"scip_params": {"limits/time": max_seconds}},
            "GUROBI": {"TimeLimit": max_seconds},
        }.get(solver, {})
    try:
        program.solve(solver=solver, **options)
    except cp.SolverError as failure:
        return None, np.nan, f"failed: {failure}"
    if mask.value is None:
        return None, np.nan, program.status
    removed = np.ones(channel.n, bool)
    removed[np.argsort(-mask.value, kind="stable")[:n_nonzero]] = False
    claimed = np.nan
    if program.status == cp.OPTIMAL:
        claimed = channel.in_units(max(program.value, 0.0) * unit**2)
    return removed, claimed, program.status
