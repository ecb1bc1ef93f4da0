"""What every solver returns."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

MOST_RESOLUTION = 1e-12  # of the energy


@dataclass(frozen=True, eq=False)
class Result:
    """A solution of one channel's problem and what is known about its quality.

    Attributes
    ----------
    method : str
        As asked for.
    lower, upper : float
        The optimum lies in [lower, upper], in the units of `LayerProblem.error`. ``upper`` is the
        error of ``solution``, recomputed directly; +inf for a method that only bounds. When pruning
        with a singular gram, or nearly so, this is the optimum among changes of the weights up to
        100 times their size, as ``status`` then says; a larger change may have a smaller error.
    solution : ndarray of shape (n,) or None
        Weights; None for a method that only bounds.
    integers : ndarray of int of shape (n,) or None
        For quantization: solution = scale * integers.
    status : str
        A sentence: whether the optimum is proven, or what ran out and what to try.
    dual : ndarray or None
        A point from which anyone can recompute ``lower``; what it is depends on the method.
    nodes : int
        Nodes of a search tree, 0 where there is none.
    n_nonzero : int or None
        The budget of a pruning problem.
    n_bits, scale : int, float, or None
        The grid of a quantization problem.
    resolution : float
        What rounding leaves open of a search that was completed: 0 but for a singular gram or an
        error that all but vanishes, and at most 1e-12 of the channel's energy, 120 dB below it.
    """

    method: str
    lower: float
    upper: float
    solution: Float[np.ndarray, " n"] | None
    status: str
    integers: Int[np.ndarray, " n"] | None = None
    dual: Float[np.ndarray, "..."] | None = None
    nodes: int = 0
    n_nonzero: int | None = None
    n_bits: int | None = None
    scale: float | None = None
    resolution: float = 0.0

    @property
    def gap(self) -> float:
        """upper - lower."""
        return self.upper - self.lower

    @property
    def proven(self) -> bool:
        """Whether ``solution`` is optimal within 1e-10 of its error, or within ``resolution``.

        Among the changes of the weights of which ``lower`` holds, see there.
        """
        return self.solution is not None and self.gap <= 1e-10 * self.upper + self.resolution
