"""Grids: the values that a quantized weight can take."""

from dataclasses import dataclass
from sys import modules

import numpy as np
from jaxtyping import Float

from pqlib._validation import as_finite_array, check_dense, check_integer, check_number

MAX_BITS = 16


@dataclass(frozen=True, eq=False)
class IntegerGrid:
    """Uniform grid of b-bit integers times a scale: level i is scale * (i - zero_point).

    Parameters
    ----------
    n_bits : int
        Bits b per weight, 2..16.
    scale : float or array_like of shape (n_channels,)
        Step between levels (delta in the book), > 0, in weight units. An array gives each channel
        its own step ("per channel"); its axis is named where the grid is used.
    signed : bool, default True
        Integers -2^(b-1) .. 2^(b-1) - 1 if True, 0 .. 2^b - 1 if False.
    narrow_range : bool, default False
        Drop the lowest signed integer, which has no positive partner.
    zero_point : int, default 0
        The integer that stands for the weight 0, qmin..qmax.

    Raises
    ------
    ValueError, TypeError
        For anything outside these ranges; the message names the argument and the remedy.

    Notes
    -----
    Eq 1 of the paper prints the integers -2^b .. 2^b - 1, which are 2^(b+1) levels: one bit too
    many. Its numbers, and this class, use 2^b levels.
    """

    n_bits: int
    scale: float | np.ndarray
    signed: bool = True
    narrow_range: bool = False
    zero_point: int = 0

    def __post_init__(self):
        # kept as Python's numbers: 2 ** n_bits would wrap round in a small integer of numpy
        n_bits = check_integer("n_bits", self.n_bits, low=2, high=MAX_BITS)
        object.__setattr__(self, "n_bits", n_bits)
        for name in ("signed", "narrow_range"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
            object.__setattr__(self, name, bool(getattr(self, name)))
        if self.narrow_range and not self.signed:
            raise ValueError(
                "narrow_range=True needs signed=True: an unsigned grid has no level without partner"
            )
        torch = modules.get("torch")
        if torch is not None and isinstance(self.scale, torch.Tensor):
            check_dense("scale", self.scale)
        if np.ndim(self.scale) == 0:
            value = self.scale.item() if hasattr(self.scale, "item") else self.scale
            scale = check_number("scale", value, low=0.0, open_low=True)
        else:
            scale = as_finite_array("scale", self.scale).copy()  # the caller's stays the caller's
            if scale.ndim != 1 or not np.all(scale > 0):
                raise ValueError(
                    "scale must be a positive number or a 1-d array of positive numbers, one per "
                    f"channel, got shape {scale.shape} with minimum {scale.min():g}"
                )
        object.__setattr__(self, "scale", scale)
        zero_point = check_integer("zero_point", self.zero_point, low=self.qmin, high=self.qmax)
        object.__setattr__(self, "zero_point", zero_point)

    @property
    def qmin(self) -> int:
        """Smallest integer."""
        return -(2 ** (self.n_bits - 1)) + self.narrow_range if self.signed else 0

    @property
    def qmax(self) -> int:
        """Largest integer."""
        return 2 ** (self.n_bits - self.signed) - 1

    @property
    def granularity(self) -> str:
        """ "tensor" for one scale, "channel" for one scale per channel."""
        return "tensor" if np.ndim(self.scale) == 0 else "channel"

    def levels(self) -> Float[np.ndarray, "... n_levels"]:
        """Representable weights, ascending: (n_levels,), or (n_channels, n_levels) per channel."""
        return np.multiply.outer(self.scale, np.arange(self.qmin, self.qmax + 1) - self.zero_point)

    def edges(self) -> Float[np.ndarray, "... n_edges"]:
        """Where rounding changes level: the 2^b - 1 midpoints between neighboring levels."""
        integers = np.arange(self.qmin, self.qmax) + 0.5 - self.zero_point
        return np.multiply.outer(self.scale, integers)
