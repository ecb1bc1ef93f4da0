"""Quantization and pruning of one distribution, or one tensor, under one budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import optimize

from pqlib._validation import as_finite_array, check_bits, check_integer, check_number
from pqlib.budget import matched_sparsity
from pqlib.density import Distribution
from pqlib.distributions import Empirical, Truncated
from pqlib.expected_error import (
    expected_sqnr_db,
    pruning_errors,
    quantization_errors,
)
from pqlib.grids import IntegerGrid
from pqlib.ranges import optimal_scales


@dataclass(frozen=True)
class Comparison:
    """Both methods at the same number of bits per weight: one record.

    Attributes
    ----------
    n_bits : int
        Bits per quantized weight.
    sparsity : float
        Share of weights pruned.
    scale : float
        MSE-optimal scale, in weight units.
    quant_mse, prune_mse : float
        Expected squared errors, in squared weight units.
    quant_sqnr_db, prune_sqnr_db : float
        The same as signal-to-noise ratios in dB; +inf where the error is 0.
    """

    n_bits: int
    sparsity: float
    scale: float
    quant_mse: float
    prune_mse: float
    quant_sqnr_db: float
    prune_sqnr_db: float

    @property
    def margin_db(self) -> float:
        """Quantization's lead in dB, negative where pruning wins, 0 where both are exact."""
        return 0.0 if self.winner == "neither" else self.quant_sqnr_db - self.prune_sqnr_db

    @property
    def winner(self) -> str:
        """The method with the smaller error: "quantization", "pruning" or "neither"."""
        if self.quant_mse == self.prune_mse:
            return "neither"
        return "quantization" if self.quant_mse < self.prune_mse else "pruning"


def compare(
    dist_or_array: Distribution | ArrayLike,
    n_bits: int,
    *,
    sparsity: float | None = None,
    signed: bool = True,
    narrow_range: bool = False,
) -> Comparison:
    """Quantize to ``n_bits`` at the MSE-optimal scale, prune to the sparsity that costs as much.

    Parameters
    ----------
    dist_or_array : Distribution or array_like of float
        Weights. An array stands for the distribution of its elements: its errors are exact.
    n_bits : int, 2..16
        Bits per weight.
    sparsity : float in [0, 1), optional
        Share pruned; default `matched_sparsity(n_bits)` = 1 - n_bits / 16.
    signed, narrow_range : bool
        The grid, as in `IntegerGrid`.

    Returns
    -------
    Comparison

    Examples
    --------
    >>> from pqlib import Normal, compare
    >>> record = compare(Normal(), n_bits=4)
    >>> round(record.quant_sqnr_db, 2), round(record.prune_sqnr_db, 2), record.winner
    (19.26, 5.58, 'quantization')
    """
    kind = {"signed": signed, "narrow_range": narrow_range}
    return compare_bits(dist_or_array, [n_bits], sparsity=sparsity, **kind)[0]


def compare_bits(
    dist_or_array: Distribution | ArrayLike,
    bits: Sequence[int],
    *,
    sparsity: float | None = None,
    signed: bool = True,
    narrow_range: bool = False,
) -> list[Comparison]:
    """`compare` at several bit-widths, for a distribution faster than one after the other.

    Parameters as in `compare`; ``bits`` is a sequence of n_bits.
    """
    dist = _distribution(dist_or_array)
    kind = {"signed": signed, "narrow_range": narrow_range}
    bits = check_bits("bits", bits)
    scales = optimal_scales(dist, bits, **kind)
    grids = [IntegerGrid(b, s, **kind) for b, s in zip(bits, scales, strict=True)]
    shares = [matched_sparsity(b) if sparsity is None else sparsity for b in bits]
    errors = quantization_errors(dist, grids), pruning_errors(dist, shares)
    records = []
    for grid, share, error, prune_mse in zip(grids, shares, *errors, strict=True):
        records.append(
            Comparison(
                n_bits=grid.n_bits,
                sparsity=float(share),
                scale=grid.scale,
                quant_mse=error.total,
                prune_mse=prune_mse,
                quant_sqnr_db=expected_sqnr_db(dist, error.total),
                prune_sqnr_db=expected_sqnr_db(dist, prune_mse),
            )
        )
    return records


def _distribution(dist_or_array):
    if isinstance(dist_or_array, Distribution):
        return dist_or_array
    return Empirical(as_finite_array("dist_or_array", dist_or_array))


def truncation_at_kurtosis(dist: Distribution, kurtosis: float) -> float:
    """The r for which ``dist``, symmetric about 0 and truncated to [-r, r], has this kurtosis.

    Parameters
    ----------
    dist : Distribution
        Symmetric, heavy-tailed, such as StudentT(2): its kurtosis must rise with r.
    kurtosis : float
        Not the excess; more than 1.8, the kurtosis of a uniform, where all start.

    Raises
    ------
    ValueError
        If no r up to 1e12 gives that kurtosis.
    """
    if not isinstance(dist, Distribution) or not dist.symmetric:
        raise ValueError(f"dist must be symmetric about 0, got {dist}")
    kurtosis = check_number("kurtosis", kurtosis, low=1.8, open_low=True)

    def excess(log_r):
        r = float(np.exp(log_r))
        return Truncated(dist, -r, r).kurtosis() / kurtosis - 1

    none = (
        f"no truncation of {dist} to [-r, r] with r from 0.01 to 1e12 has kurtosis {kurtosis:g}; "
        "take another kurtosis, or a dist of heavier tails"
    )
    return _root_over_log(excess, 1e-2, 1e12, none)


def crossing(
    family: Callable[[float], Distribution],
    n_bits: int,
    low: float,
    high: float,
    *,
    sparsity: float | None = None,
    narrow_range: bool = False,
) -> float:
    """The shape at which both methods err equally (the boundary in Fig 2, right).

    Parameters
    ----------
    family : callable
        Shape (a positive float) to Distribution, such as
        ``lambda r: Truncated(StudentT(2), -r, r)``.
    n_bits : int, 2..16
    low, high : float
        Shapes between which the sign of the margin changes, 0 < low < high.
    sparsity, narrow_range
        As in `compare`.

    Returns
    -------
    float
        The shape, to about 1e-12 relative.

    Raises
    ------
    ValueError
        If one method wins at both ends.
    """
    if not callable(family):
        raise TypeError(f"family must map a shape to a Distribution, got {family!r}")
    low = check_number("low", low, low=0.0, open_low=True)
    high = check_number("high", high, low=low, open_low=True)

    def margin(log_shape):
        dist = family(float(np.exp(log_shape)))
        if not isinstance(dist, Distribution):
            raise TypeError(f"family must return a Distribution, got {dist!r}")
        return compare(dist, n_bits, sparsity=sparsity, narrow_range=narrow_range).margin_db

    return _root_over_log(
        margin,
        low,
        high,
        f"the same method wins at both low={low:g} and high={high:g}; widen the interval",
    )


def _root_over_log(f, low, high, otherwise):
    a, b = np.log(low), np.log(high)
    if f(a) * f(b) > 0:
        raise ValueError(otherwise)
    return float(np.exp(optimize.brentq(f, a, b, xtol=1e-13)))


@dataclass(frozen=True)
class Profile:
    """What both methods do to a density, point by point (Fig 1, left and middle).

    Attributes
    ----------
    w : ndarray of shape (n_points,)
        Weights, centers of equal bins.
    density : ndarray of shape (n_points,)
        Mass of each bin over its width.
    quant_error, prune_error : ndarray of shape (n_points,)
        Squared error at w times the density: their integrals are the expected MSEs.
    levels, level_mass : ndarray of shape (2^n_bits,)
        Where quantization puts the weights, and the share of them at each level.
    threshold : float
        Magnitude up to which weights are pruned.
    quant_beyond : float
        Share of quantization's expected error that is made beyond the weights shown.
    """

    w: Float[np.ndarray, " n_points"]
    density: Float[np.ndarray, " n_points"]
    quant_error: Float[np.ndarray, " n_points"]
    prune_error: Float[np.ndarray, " n_points"]
    levels: Float[np.ndarray, " n_levels"]
    level_mass: Float[np.ndarray, " n_levels"]
    threshold: float
    quant_beyond: float


def profile(
    dist_or_array: Distribution | ArrayLike, grid: IntegerGrid, sparsity: float, n_points: int = 400
) -> Profile:
    """The density and both errors over the weights that hold 99.9 % of the mass.

    Parameters
    ----------
    dist_or_array : Distribution or array_like of float
        What is compressed.
    grid : IntegerGrid
        With one scale.
    sparsity : float in [0, 1)
        Share pruned.
    n_points : int, default 400
        Bins, 2..100,000. For an array, bins that hold few weights show its noise.

    Raises
    ------
    ValueError
        If 99.9 % of the weights are zero, or the grid has a scale per channel.
    """
    dist = _distribution(dist_or_array)
    if not isinstance(grid, IntegerGrid):
        raise TypeError(f"grid must be an IntegerGrid such as IntegerGrid(4, 0.1), got {grid!r}")
    n_points = check_integer("n_points", n_points, low=2, high=100_000)
    if grid.granularity != "tensor":
        raise ValueError("grid must have one scale, not one per channel, to be drawn")
    levels, edges = grid.levels(), grid.edges()
    reach = dist.magnitude_quantile(0.999)
    if reach == 0:
        raise ValueError("dist_or_array must have weights that are not zero, 0.1 % or more of them")
    bins = np.linspace(-reach, reach, n_points + 1)
    w = (bins[:-1] + bins[1:]) / 2
    starts = np.r_[np.nextafter(-reach, -np.inf), bins[1:-1]]  # samples count from above it
    density = dist.partial_moment(0, starts, bins[1:]) / np.diff(bins)
    lo, hi = dist.support
    cuts = np.r_[min(lo, edges[0]), edges, max(hi, edges[-1])]
    sparsity = check_number("sparsity", sparsity, low=0.0, high=1.0, open_high=True)
    threshold = dist.magnitude_quantile(sparsity)
    nearest = levels[np.searchsorted(edges, w)]
    whole = dist.partial_moment(2, cuts[:-1], cuts[1:], levels).sum()
    shown = np.clip(cuts, starts[0], reach)
    inside = dist.partial_moment(2, shown[:-1], shown[1:], levels).sum()
    return Profile(
        w=w,
        density=density,
        quant_error=(nearest - w) ** 2 * density,
        prune_error=np.where(abs(w) <= threshold, w**2, 0.0) * density,
        levels=levels,
        level_mass=dist.partial_moment(0, cuts[:-1], cuts[1:]),
        threshold=threshold,
        quant_beyond=float(max(1 - inside / whole, 0.0)) if whole else 0.0,
    )
