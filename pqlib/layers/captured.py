"""What is kept of a layer: its weights, and X'X of its inputs X by chunks, all in float64."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from pqlib._validation import as_finite_array, check_integer
from pqlib.layers.problem import LayerProblem

PAPER_CHUNK = 36
PAPER_POINTWISE_CHUNK = 32  # Table 3


@dataclass(frozen=True, eq=False)
class Chunk:
    """Consecutive inputs of one group of a layer, and the output channels that read them.

    Attributes
    ----------
    group, start, stop : int
        The inputs start..stop-1 of the group's fan-in.
    channels : range
        The layer's output channels in the group.
    gram : ndarray of float, shape (stop - start, stop - start)
        X'X of these inputs, unscaled, the same for all the channels.
    """

    group: int
    start: int
    stop: int
    channels: range
    gram: Float[np.ndarray, "n n"] = field(repr=False)
    _weight: Float[np.ndarray, "m n"] = field(repr=False)

    def problem(self, channel: int) -> LayerProblem:
        """The error of one output channel, its weights outside the chunk left as they are."""
        low, high = self.channels[0], self.channels[-1]
        channel = check_integer("channel", channel, low=low, high=high)
        return LayerProblem(self.gram, self._weight[channel - low])


@dataclass(frozen=True, eq=False)
class CapturedLayer:
    """A layer with the second moments of its inputs, from `pqlib.layers.capture.capture_layers`.

    Attributes
    ----------
    name : str
        As in ``model.named_modules()``.
    kind : {"conv", "pointwise", "depthwise", "linear"}
        Point-wise is a kernel of one tap, depthwise one input channel per group.
    weight : ndarray of float, shape (n_out, n)
        One row per output channel; n is the fan-in within its group, kernel taps last.
    chunks : tuple of Chunk
        Of all groups, in order.
    whole : tuple of Chunk
        One per group, each with all of the fan-in; empty unless captured with ``full=True``.
    n_samples : int
        Rows of X, the same in every chunk.
    n_outputs : int
        Rows that X has without sampling.

    Notes
    -----
    With X = [X_1 ... X_k] by chunks, changing chunk j alone moves a channel's output by X_j d_j,
    whose square is its problem's error. Changing all, the square of their sum holds cross terms
    besides, of either sign, that no chunk sees: `error` counts them.
    """

    name: str
    kind: str
    weight: Float[np.ndarray, "m n"] = field(repr=False)
    chunks: tuple[Chunk, ...] = field(repr=False)
    whole: tuple[Chunk, ...] = field(repr=False)
    n_samples: int
    n_outputs: int

    def error(self, weight: ArrayLike) -> float:
        """X (weight - w)' squared, over all channels and groups, cross terms of chunks included.

        ``weight`` has the shape of the layer's own; only if captured with ``full=True``.
        """
        if not self.whole:
            raise ValueError(f"layer {self.name!r} has chunks alone; capture it with full=True")
        weight = as_finite_array("weight", weight)
        if weight.shape != self.weight.shape:
            raise ValueError(f"weight must have shape {self.weight.shape}, got {weight.shape}")
        total = 0.0
        for chunk in self.whole:
            rows = slice(chunk.channels.start, chunk.channels.stop)
            difference = weight[rows] - self.weight[rows]
            total += float(np.sum((difference @ chunk.gram) * difference))
        return max(total, 0.0)


def chunk_bounds(n: int, size: int, n_taps: int = 1) -> list[tuple[int, int]]:
    """Split n inputs into the fewest chunks of at most ``size``, nearly equal and consecutive.

    Parameters
    ----------
    n : int >= 1
        The fan-in.
    size : int >= 1
        Of the largest chunk.
    n_taps : int >= 1, default 1
        Kernel taps of one input channel, a divisor of n. A channel is not torn unless it is larger
        than ``size``: the paper gives a 3x3 convolution 4 channels, 36 inputs, a chunk.

    Returns
    -------
    list of (start, stop)

    Examples
    --------
    >>> bounds = chunk_bounds(768, 36)  # ViT in Table 3
    >>> len(bounds), sorted({stop - start for start, stop in bounds})
    (22, [34, 35])
    """
    n = check_integer("n", n, low=1, high=2**31)
    size = check_integer("size", size, low=1, high=2**31)
    n_taps = check_integer("n_taps", n_taps, low=1, high=n)
    if n % n_taps:
        raise ValueError(f"n_taps must divide n = {n}, got {n_taps}")
    unit = n_taps if n_taps <= size else 1
    n_units = n // unit
    n_chunks = -(-n_units // (size // unit))
    edges = [unit * (i * n_units // n_chunks) for i in range(n_chunks + 1)]
    return [*pairwise(edges)]
