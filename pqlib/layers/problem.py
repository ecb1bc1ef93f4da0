"""One output channel of a layer: what compressing its weights does to its output."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from pqlib._validation import as_finite_array, check_number
from pqlib.accurate import quadratic

_ASYMMETRY = 1e-9  # of the largest entry
_NEGATIVE = 1e-9  # least eigenvalue allowed below zero, of the largest
_RESOLVED = 1e-15  # of |d|' |P| |d|: above it twice the precision gives all digits
_TINY = 1e-250  # in units of gram and weights; below it rounding is no longer relative
_WEIGHTS = 1e-45, 1e45  # sizes besides 0, of scales too: float32 has no smaller ones, nor larger
ENERGIES = 1e-50, 1e50  # of inputs, besides 0; no error of these and _WEIGHTS leaves float64
_MOST_STEPS = 1e15  # of the scale in a weight; more, and float64 does not hold their number


@dataclass(frozen=True, eq=False)
class LayerProblem:
    """min over w_hat of (w_hat - w)' P (w_hat - w), the error of one output channel (section 4).

    Parameters
    ----------
    gram : array_like of float, shape (n, n)
        P = X' X for inputs X of shape (n_samples, n), unscaled. Symmetric, positive semidefinite,
        with 0 or 1e-50 to 1e50 on its diagonal.
    weight : array_like of float, shape (n,)
        The trained weights w, each 0 or of an absolute value from 1e-45 (float32 holds no smaller
        one) to 1e45.

    Attributes
    ----------
    n : int
        Number of weights.

    Raises
    ------
    ValueError, TypeError
        On NaN, infinity, wrong shapes, an asymmetric or indefinite gram, and on sizes out of range:
        with those in it errors and their bounds neither overflow nor fall to where float64 has
        fewer digits.

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
        _check_sizes("weight", weight, *_WEIGHTS)
        _check_sizes("the diagonal of gram", gram.diagonal(), *ENERGIES)
        size = float(np.max(abs(gram)))
        off = float(np.max(abs(gram - gram.T)))
        if off > _ASYMMETRY * size:
            raise ValueError(f"gram must be symmetric, its halves differ by {off:g}; use X.T @ X")
        gram = gram.copy() if off == 0.0 else gram / 2 + gram.T / 2
        gram = np.ascontiguousarray(gram)
        least = float(np.linalg.eigvalsh(gram / (size or 1.0))[0]) * size
        if least < -_NEGATIVE * weight.size * size:
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
        x, y = np.ldexp(w_hat, -half), np.ldexp(self.weight, -half)
        value, _ = quadratic(gram, x, y)
        far = abs(x - y)
        if not value > max(_RESOLVED * float(far @ abs(gram) @ far), _TINY):
            return 0.0 if np.array_equal(w_hat, self.weight) else self._exact_error(w_hat)
        with np.errstate(over="ignore"):
            return max(float(np.ldexp(value, power + 2 * half)), 0.0)

    def _exact_error(self, w_hat):
        """The error in whole numbers, rounded once: where its terms all but cancel."""
        shared = min(_exponent(w_hat), _exponent(self.weight))
        own = _exponent(self.gram)
        d = _whole(w_hat, shared) - _whole(self.weight, shared)
        total = int(d @ _whole(self.gram, own) @ d)
        try:
            return max(float(total * Fraction(2) ** (own + 2 * shared)), 0.0)
        except OverflowError:
            return float("inf")


def check_scale(name: str, scale: float, problem: LayerProblem) -> float:
    """``scale`` as a float; ValueError if it is out of range or far too small for the weights."""
    scale = check_number(name, scale, low=_WEIGHTS[0], high=_WEIGHTS[1])
    largest = float(abs(problem.weight).max())
    if largest > _MOST_STEPS * scale:
        raise ValueError(
            f"{name}={scale!r} is less than {1 / _MOST_STEPS:g} of the largest weight, {largest}: "
            "float64 does not hold it in such steps; take a larger one"
        )
    return scale


def _check_sizes(name: str, values: ArrayLike, least: float, most: float) -> None:
    """Raise ValueError unless all values but zeros are from ``least`` to ``most`` in size."""
    sizes = abs(np.atleast_1d(values))
    wrong = sizes[(sizes != 0) & ~((sizes >= least) & (sizes <= most))]
    if wrong.size:
        raise ValueError(
            f"{name} must be 0 or from {least:g} to {most:g} in size, got {wrong[0]:g}; rescale, "
            "or set what is so small to 0"
        )


def _exponent(x):
    """The largest e, up to 0, for which all x / 2^e are whole numbers."""
    return min(int(np.min(np.frexp(x)[1])) - 53, 0)


def _whole(x, exponent):
    """x / 2^exponent as Python's whole numbers."""
    mantissa, power = np.frexp(x)
    whole = np.ldexp(mantissa, 53).astype(np.int64).astype(object)
    return whole * (2 ** (power - 53 - exponent).astype(object))
