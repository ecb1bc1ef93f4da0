"""The smallest magnitudes of a layer, found near where the last two thresholds point."""

from typing import no_type_check

import numpy as np

from pqlib.compilation import compiled

_BLOCK = 64
_WIDTHS = 0.0005, 0.3  # least and most of half a bracket, relative
_FEW = 256  # weights, up to which no guess is made


class ThresholdSearch:
    """Masks of slowly changing weights, each found in one pass.

    While sparsity grows, the threshold moves steadily from step to step. It is expected as far from
    the last one as that was from the one before, give or take four times what the last guess
    missed. If it is there, which the counts on both sides tell, only the few magnitudes near it are
    selected from.
    """

    def __init__(self):
        self._expected, self._width = 0.0, _WIDTHS[1]
        self._last: float | None = None

    def mask(self, weights: np.ndarray, n_zeros: int, multiplier: np.ndarray) -> bool:
        """Set 0 in ``multiplier`` at the ``n_zeros`` smallest magnitudes, else 1, if it can.

        Parameters
        ----------
        weights, multiplier : array, shape (n,), float32 or float64
        n_zeros : int, 1..n - 1

        Returns
        -------
        bool
            False if the threshold is not where it was expected, has ties, if weights are not
            finite or there are few of them; ``multiplier`` is then of no use.
        """
        if weights.size <= _FEW or not self._expected > 0:
            return False
        width = max(self._width, 64 / weights.size)  # room for some dozens
        low, high = (weights.dtype.type(self._expected * (1 + k * width)) for k in (-1, 1))
        threshold = _mask_smallest(weights, n_zeros, low, high, multiplier)
        if threshold < 0:
            return False
        self.remember(threshold)
        return True

    def remember(self, threshold: float) -> None:
        """Expect the next threshold from this one and the one before."""
        missed = abs(threshold / self._expected - 1) if self._expected > 0 else _WIDTHS[1]
        moved = threshold - self._last if self._last is not None else 0.0
        self._last, self._expected = threshold, threshold + moved
        self._width = min(max(4 * missed, _WIDTHS[0]), _WIDTHS[1])


@compiled
@no_type_check
def _mask_smallest(weights, n_zeros, low, high, multiplier):
    """The ``n_zeros``-th smallest magnitude, after masking; -1 if not in [low, high], or not alone.

    Magnitudes outside of the bracket are masked and counted as they are met. Blocks without any
    inside, most of them if it is narrow, take one loop without branches, which fills vector
    registers.
    """
    found = np.empty(weights.size + 1, weights.dtype)  # what is not written costs nothing
    places = np.empty(weights.size + 1, np.int64)
    below = n = above = 0
    for start in range(0, weights.size, _BLOCK):
        block, kept = weights[start : start + _BLOCK], multiplier[start : start + _BLOCK]
        under = over = 0
        for i in range(block.size):
            magnitude = abs(block[i])
            kept[i] = magnitude > high
            under += magnitude < low
            over += (magnitude > high) & (magnitude < np.inf)
        below += under
        above += over
        if under + over < block.size:
            for i in range(block.size):
                magnitude = abs(block[i])
                found[n] = magnitude
                places[n] = start + i
                n += (magnitude >= low) & (magnitude <= high)
    rank = n_zeros - below  # among those found, from 1
    if below + n + above < weights.size or not 0 < rank < n:
        return -1.0
    parts = np.partition(found[:n], rank - 1)
    threshold, following = parts[rank - 1], parts[rank:].min()
    if not following > threshold:
        return -1.0
    for k in range(n):
        multiplier[places[k]] = found[k] > threshold
    return float(threshold)
