"""The best scale of an array, proven: branch and bound over sorted weights.

Rounding to a grid of scale s assigns integers k_i, and with them fixed the squared error is a
parabola, A - 2 B s + C s^2 with A = sum w_i^2, B = sum w_i k_i and C = sum k_i^2. As s grows, B
and C fall. With the magnitudes sorted and their tails summed, both cost one search per level at
any scale; the error then follows, and so does the best scale B / C for these integers.

The error is the least of all those parabolas. On [l, r] none of those in play curves by more than
2 C(l), so error - C(l) s^2 is concave there, and the error lies above its chord less
C(l) (s - l) (r - s). That bound closes as the square of the width: up to 8 bits, some hundred
scales prove the global optimum of a million weights. Beyond, the error is small beside the sums
that it is the difference of, and it takes thousands: at 16 bits most of a minute.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pqlib import kernels
from pqlib.grids import IntegerGrid

_TOLERANCE = 1e-10  # relative gap at which the search ends
_NOISE = 64 * np.finfo(float).eps  # of the sum of squares: what estimates may lose to rounding
_MOST = 200_000  # scales tried; random weights take some hundreds up to 8 bits
_UNIT_SCALE = 1.0  # the answer for all-zero weights, which every scale represents exactly


@dataclass(frozen=True)
class ScaleSearch:
    """The best scale found for an array, and how far from optimal it can be.

    Attributes
    ----------
    scale : float
        In weight units.
    mse : float
        Mean squared error at ``scale``, recomputed from the weights.
    lower : float
        Proven lower bound of the MSE over all scales > 0.
    natural_sparsity : float
        Share of weights whose integer is 0 at ``scale``.
    """

    scale: float
    mse: float
    lower: float
    natural_sparsity: float


class SortedWeights:
    """Weights sorted once; every scale, bit-width and sparsity then comes from running sums.

    Parameters
    ----------
    x : ndarray of float32 or float64, not empty, finite
        Any shape. float32 is kept as it is, which halves the memory; sums are in float64.

    Attributes
    ----------
    size : int
    mean_square : float
        In squared weight units.
    """

    def __init__(self, x: np.ndarray):
        ascending = np.sort(x, axis=None)
        self.size = ascending.size
        n_negative = int(np.searchsorted(ascending, 0.0, "left"))
        first_positive = int(np.searchsorted(ascending, 0.0, "right"))
        up, down = ascending[first_positive:], -ascending[:n_negative][::-1]
        largest = max((side[-1] for side in (up, down) if side.size), default=0.0)
        # so that squares neither overflow nor underflow; a power of 2 loses no digit
        self._unit = float(2.0 ** np.floor(np.log2(largest))) if largest else 1.0
        if x.dtype != np.float32 and not 1e-100 < largest < 1e100:
            up, down = up / self._unit, down / self._unit
        else:
            self._unit = 1.0
        self._largest = float(largest) / self._unit
        self._up, self._down = np.ascontiguousarray(up), np.ascontiguousarray(down)
        self._n_nonzero = up.size + down.size
        self._total = float(self._heads[0][-1] + self._heads[1][-1])
        self.mean_square = self._mse(self._total)

    @cached_property
    def _heads(self):
        return tuple(kernels.head_squares(side) for side in (self._up, self._down))

    @cached_property
    def _sides(self):
        """Of each sign the ascending magnitudes, their tail sums and a table to search them."""
        return tuple(
            (side, kernels.tail_sums(side), kernels.bucket_starts(side, _n_buckets(side.size)))
            for side in (self._up, self._down)
        )

    def search(self, grid: IntegerGrid) -> ScaleSearch:
        """The globally best scale of a grid of ``grid``'s kind (its own scale is not used)."""
        steps = grid.qmax, -grid.qmin
        sums = self._total
        if sums == 0:
            return ScaleSearch(_UNIT_SCALE, 0.0, 0.0, 1.0)
        present = [
            (side, n) for side, n in zip((self._up, self._down), steps, strict=True) if side.size
        ]
        if not any(n for _, n in present):  # an unsigned grid and no positive weight: all become 0
            return ScaleSearch(_UNIT_SCALE, self.mean_square, self.mean_square, 1.0)
        if all(n and side[0] == self._largest for side, n in present):  # one magnitude: a level
            zeros = self.size - self._n_nonzero
            return ScaleSearch(self._largest * self._unit, 0.0, 0.0, zeros / self.size)
        up, down = self._sides
        scales, estimates, lower = kernels.best_scale(
            up, down, *steps, sums, self._largest, _TOLERANCE, _NOISE * sums, _MOST
        )
        # rounding of the estimates could confuse the best with the next: add up directly
        close = np.flatnonzero(estimates <= estimates.min() * (1 + 1e-9) + _NOISE * sums)
        close = close[np.argsort(estimates[close], kind="stable")]
        close = close[: min(max(2_000_000 // self.size, 1), 32)]
        measured = [(*self._measure(float(s), steps), float(-s)) for s in scales[close]]
        error, zeros, minus_scale = min(measured)  # of equals the largest scale
        return ScaleSearch(
            scale=-minus_scale * self._unit,
            mse=self._mse(error),
            lower=self._mse(min(max(lower - _NOISE * sums, 0.0), error)),
            natural_sparsity=zeros / self.size,
        )

    def quantization_mse(self, grid: IntegerGrid) -> float:
        """MSE of rounding to ``grid``, added up directly."""
        error, _ = self._measure(grid.scale / self._unit, (grid.qmax, -grid.qmin))
        return self._mse(error)

    def minmax_scale(self, grid: IntegerGrid) -> float:
        """The smallest scale at which no weight is clipped; negative ones need a signed grid."""
        reach = [
            float(side[-1]) / n if n else np.inf
            for side, n in zip((self._up, self._down), (grid.qmax, -grid.qmin), strict=True)
            if side.size
        ]
        return max(reach, default=_UNIT_SCALE) * self._unit

    def kurtosis(self) -> float:
        """Fourth central moment over the squared second, 3 for a normal; NaN for a constant."""
        if self._n_nonzero == 0 or self._is_constant():
            return np.nan
        return float(kernels.kurtosis(self._up, self._down, self.size))

    def pruning_mse(self, n_zeros: int) -> float:
        """MSE of setting the ``n_zeros`` smallest magnitudes to zero."""
        n = max(n_zeros - (self.size - self._n_nonzero), 0)  # weights that are 0 cost nothing
        n_up = kernels.n_smallest(self._up, self._down, n)
        squares = self._heads[0][n_up] + self._heads[1][n - n_up]
        return self._mse(squares)

    def _mse(self, error):
        # factor by factor: an error of 0 stays 0, and Python's ** raises where numpy gives inf
        return float(error) * self._unit / self.size * self._unit

    def _is_constant(self):
        sides = [side for side in (self._up, self._down) if side.size == self.size]
        return bool(sides) and sides[0][0] == sides[0][-1]

    def _measure(self, scale, steps):
        errors, zeros = zip(
            *(
                kernels.squared_error(side, scale, n)
                for side, n in zip((self._up, self._down), steps, strict=True)
            ),
            strict=True,
        )
        return sum(errors), sum(zeros) + self.size - self._n_nonzero


def _n_buckets(size):
    return int(min(max(size // 8, 16), 65536))
