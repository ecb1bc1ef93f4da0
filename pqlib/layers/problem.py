"""One output channel of a layer: what compressing its weights does to its output."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from pqlib._validation import as_finite_array
from pqlib.accurate import quadratic

_ASYMMETRY = 1e-9  # of the largest entry
_NEGATIVE = 1e-9  # least eigenvalue allowed below zero, of the largest


@dataclass(frozen=True)
class LayerProblem:
    """min over w_hat of (w_hat - w)' P (w_hat - w), the error of one output channel (section 4).

    Parameters
    ----------
    gram : array_like of float, shape (n, n)
        P = X' X for inputs X of shape (n_samples, n), unscaled. Symmetric, positive semidefinite.
    weight : array_like of float, shape (n,)
        The trained weights w.

    Attributes
    ----------
    n : int
        Number of weights.

    Raises
    ------
    ValueError, TypeError
        On NaN, infinity, wrong shapes, an asymmetric or indefinite gram.

    Examples
    --------
    >>> import numpy as np
    >>> from pqlib import LayerProblem
    >>> problem = LayerProblem(np.eye(2), [3.0, 1.0])
    >>> problem.error([3.0, 0.0]), problem.energy
    (1.0, 10.0)
    """

    gram: Float[np.ndarray, "n n"]
    weight: Float[np.ndarray, " n"]

    def __init__(self, gram: ArrayLike, weight: ArrayLike):
        gram, weight = as_finite_array("gram", gram), as_finite_array("weight", weight)
        if weight.ndim != 1:
            raise ValueError(f"weight must have shape (n,), got {weight.shape}")
        if gram.shape != (weight.size, weight.size):
            raise ValueError(f"gram must have shape {(weight.size,) * 2}, got {gram.shape}")
        size = float(np.max(abs(gram)))
        off = float(np.max(abs(gram - gram.T)))
        if off > _ASYMMETRY * size:
            raise ValueError(f"gram must be symmetric, its halves differ by {off:g}; use X.T @ X")
        gram = np.ascontiguousarray((gram + gram.T) / 2)
        least = float(np.linalg.eigvalsh(gram)[0])
        if least < -_NEGATIVE * size * weight.size:
            raise ValueError(
                f"gram must be positive semidefinite, it has the eigenvalue {least:g}; use X.T @ X"
            )
        gram.flags.writeable = False
        weight = weight.copy()
        weight.flags.writeable = False
        object.__setattr__(self, "gram", gram)
        object.__setattr__(self, "weight", weight)

    @property
    def n(self) -> int:
        return self.weight.size

    @cached_property
    def energy(self) -> float:
        """w' P w, the squared output of the trained channel."""
        return self.error(np.zeros(self.n))

    @cached_property
    def _scaled(self) -> tuple[int, np.ndarray]:
        """The gram in units of a power of two, against overflow, and that power."""
        power = int(np.frexp(np.max(abs(self.gram)))[1])
        return power, np.ldexp(self.gram, -power)

    def error(self, w_hat: ArrayLike) -> float:
        """(w_hat - w)' P (w_hat - w) for w_hat of shape (n,), in twice the precision; >= 0."""
        w_hat = as_finite_array("w_hat", w_hat)
        if w_hat.shape != self.weight.shape:
            raise ValueError(f"w_hat must have shape {self.weight.shape}, got {w_hat.shape}")
        power, gram = self._scaled
        half = int(np.frexp(max(np.max(abs(w_hat)), np.max(abs(self.weight))))[1])
        value, _ = quadratic(gram, np.ldexp(w_hat, -half), np.ldexp(self.weight, -half))
        with np.errstate(over="ignore"):
            return max(float(np.ldexp(value, power + 2 * half)), 0.0)
