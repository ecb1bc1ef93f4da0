"""Passes over all weights of a layer for magnitude pruning (compiled)."""

from typing import no_type_check

import numpy as np

from pqlib.compilation import compiled


@compiled
@no_type_check
def in_bracket(weights, low, high, found):
    """How many magnitudes are below ``low``, in [low, high], and finite and above ``high``.

    Those in the bracket are written to ``found``, which has room for one more than all. Without
    branches, as half of them would be guessed wrong.
    """
    below = n = above = 0
    for i in range(weights.size):
        magnitude = abs(weights[i])
        found[n] = magnitude
        n += (magnitude >= low) & (magnitude <= high)
        below += magnitude < low
        above += (magnitude > high) & (magnitude < np.inf)
    return below, n, above


@compiled
@no_type_check
def keep_above(weights, threshold, multiplier):
    """1 in ``multiplier`` where magnitudes exceed ``threshold``, else 0."""
    for i in range(weights.size):
        multiplier[i] = abs(weights[i]) > threshold
