"""Channels to prune, of every awkward kind, and their optima by brute force."""

import itertools

import numpy as np

from pqlib.layers.problem import LayerProblem


def brute_force(problem):
    """Least error for 0..n non-zeros over all 2^n masks, by pivoted elimination in long double.

    Section 4.2 as it stands: choose a mask, then least squares. Masks are eliminated together,
    with the rows and columns of removed weights set to zero. Columns that depend on others within
    1e-12 of their diagonal are skipped.
    """
    gram, w = problem.gram.astype(np.longdouble), problem.weight.astype(np.longdouble)
    n = w.size
    least = np.full(n + 1, np.inf, np.longdouble)
    masks = np.array(list(itertools.product((False, True), repeat=n)))
    for kept in np.array_split(masks, max(1, len(masks) // 512)):
        rows = np.arange(len(kept))
        d = np.where(kept, 0, -w)
        error = ((d @ gram) * d).sum(1)
        slope = np.where(kept, d @ gram, 0)
        a = gram * kept[:, :, None] * kept[:, None, :]
        full = np.where(np.diag(gram) > 0, np.diag(gram), 1)
        free = kept.copy()
        for _ in range(n):
            share = np.where(free, np.diagonal(a, axis1=1, axis2=2) / full, 0)
            p = share.argmax(1)
            good = share[rows, p] > 1e-12
            pivot = np.where(good, a[rows, p, p], 1)
            column = np.where(good[:, None], a[rows, :, p], 0)
            b = np.where(good, slope[rows, p], 0) / pivot
            error = error - b * b * pivot
            slope = slope - column * b[:, None]
            a = a - column[:, :, None] * (column / pivot[:, None])[:, None, :]
            free[rows, p] &= False
        np.minimum.at(least, kept.sum(1), np.maximum(error, 0))
    return np.minimum.accumulate(least).astype(float)


def normal(rng, n):
    return rng.normal(size=(3 * n + 1, n))


def relu(rng, n):
    return np.maximum(normal(rng, n) @ rng.normal(size=(n, n)) + 0.3, 0)


def ill_conditioned(rng, n):
    rotation = np.linalg.qr(rng.normal(size=(n, n)))[0]
    return normal(rng, n) * 10.0 ** -rng.uniform(0, 5, n) @ rotation


def duplicated(rng, n):
    x = normal(rng, n)
    x[:, -1] = rng.choice([1, 2, -1]) * x[:, 0]
    return x


def nearly_duplicated(rng, n):
    x = normal(rng, n)
    x[:, -1] = x[:, 0] + 1e-4 * rng.normal(size=len(x))
    return x


def dead(rng, n):
    x = relu(rng, n)
    x[:, rng.integers(n, size=2)] = 0
    return x


INPUTS = {
    "normal": normal,
    "relu": relu,
    "ill-conditioned": ill_conditioned,
    "unequal scales": lambda rng, n: normal(rng, n) * 2.0 ** rng.integers(-12, 13, n),
    "rank-deficient": lambda rng, n: rng.normal(size=(max(1, n - rng.integers(1, 4)), n)),
    "duplicated": duplicated,
    "nearly duplicated": nearly_duplicated,
    "dead": dead,
    "small integers": lambda rng, n: rng.integers(-1, 2, (2 * n, n)).astype(float),
    "identity": lambda rng, n: np.eye(n),
    "orthogonal": lambda rng, n: np.diag(np.sqrt(rng.integers(1, 4, n))),
}
WEIGHTS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "equal": lambda rng, n: np.ones(n),
    "ties": lambda rng, n: rng.choice([-1.0, 1.0, 2.0], n),
    "zeros": lambda rng, n: rng.normal(size=n) * rng.integers(0, 2, n),
    "heavy": lambda rng, n: rng.standard_t(1.5, n),
}


def make(inputs, weights, n, seed):
    rng = np.random.default_rng(seed)
    x = INPUTS[inputs](rng, n)
    return LayerProblem(x.T @ x, WEIGHTS[weights](rng, n))


def noise(problem, optimum):
    """1e-10 of the optimum or, if that is more, 1e-15 of sum P_jj w_j^2 (it rounds to zero)."""
    return 1e-10 * max(optimum, 1e-5 * np.diag(problem.gram) @ problem.weight**2)
