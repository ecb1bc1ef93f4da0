"""Both methods on one weight tensor, at every budget: one flat record each, all of it exact.

The tensor is sorted once. Each bit-width's globally optimal scale, each sparsity's error and the
natural zeros then come from running sums (`pqlib.scale_search`); errors that are reported are added
up from the weights themselves.
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike

from pqlib._validation import as_finite_array, check_bits, check_choice, check_integer
from pqlib.budget import REFERENCE_BITS, matched_sparsity, n_zeros
from pqlib.grids import IntegerGrid
from pqlib.scale_search import SortedWeights

_EMBEDDING = re.compile(r"embed|(^|[._])(wte|wpe|class_token|cls_token|\w*position\w*)([._]|$)")


@dataclass(frozen=True)
class TensorRecord:
    """Quantization and pruning of one tensor under one budget.

    Attributes
    ----------
    n_weights : int
    kurtosis, excess_kurtosis : float
        Of the weights, 3 and 0 for a normal; NaN where all weights are equal.
    n_bits : int
        Bits per weight.
    granularity : str
        "tensor" or "channel": how many scales quantization has. Pruning ranks the whole tensor.
    sparsity : float
        Share of weights pruned, floor(n (1 - n_bits / 16)) of n.
    scale : float
        The MSE-optimal one, in weight units; NaN per channel.
    quant_mse, prune_mse : float
        In squared weight units.
    quant_sqnr_db, minmax_sqnr_db, prune_sqnr_db : float
        Quantization at the optimal scale, at the smallest scale that clips nothing, and pruning;
        +inf where the error is 0, but NaN where all weights are 0 too: nothing was at stake.
    natural_sparsity : float
        Share of weights that quantization sets to zero.
    credited_sparsity, credited_sqnr_db : float
        Pruning held to the bits that quantization spends on weights other than zero: it keeps
        (1 - natural_sparsity) n_bits / 16 of them.
    margin_db : float
        quant_sqnr_db - prune_sqnr_db; 0 where both are exact.
    winner : str
        "quantization", "pruning", or "neither" where both are exact.
    """

    n_weights: int
    kurtosis: float
    excess_kurtosis: float
    n_bits: int
    granularity: str
    sparsity: float
    scale: float
    quant_mse: float
    quant_sqnr_db: float
    minmax_sqnr_db: float
    natural_sparsity: float
    prune_mse: float
    prune_sqnr_db: float
    credited_sparsity: float
    credited_sqnr_db: float
    margin_db: float
    winner: str


def scan_tensor(
    x: ArrayLike, n_bits: int, *, granularity: str = "tensor", axis: int = 0
) -> TensorRecord:
    """Quantize a tensor at its globally optimal scale, prune it to the sparsity that costs as much.

    Parameters
    ----------
    x : array_like of real numbers, any shape, not empty, finite
        Weights. float16 and float32 are measured as stored, in float64 sums.
    n_bits : int, 2..16
        Bits per weight; the grid is signed, -2^(n_bits-1)..2^(n_bits-1)-1.
    granularity : {"tensor", "channel"}
        One scale, or one per channel.
    axis : int, default 0
        The channel axis.

    Returns
    -------
    TensorRecord

    Raises
    ------
    ValueError, TypeError
        On NaN, infinity, an empty array, a bad argument.

    Examples
    --------
    >>> import numpy as np
    >>> from pqlib import scan_tensor
    >>> record = scan_tensor(np.arange(-8, 9), n_bits=4)
    >>> record.scale, record.n_weights, record.winner
    (1.0, 17, 'quantization')
    """
    return scan_tensor_bits(x, [n_bits], granularity=granularity, axis=axis)[0]


def scan_tensor_bits(
    x: ArrayLike,
    bits: Sequence[int],
    *,
    granularity: str = "tensor",
    axis: int = 0,
    n_jobs: int = 1,
) -> list[TensorRecord]:
    """`scan_tensor` at several bit-widths, which sorts once; ``n_jobs`` of them at a time."""
    check_choice("granularity", granularity, ("tensor", "channel"))
    n_jobs = check_integer("n_jobs", n_jobs, low=1, high=1024)
    grids = [IntegerGrid(b, 1.0) for b in check_bits("bits", bits)]
    x = _as_stored("x", x)
    if not isinstance(axis, Integral):
        raise TypeError(f"axis must be an int, got {axis!r}")
    if not -x.ndim <= axis < x.ndim and granularity == "channel":
        raise ValueError(f"axis={axis} is not an axis of an array of shape {x.shape}")
    weights = SortedWeights(x)
    if granularity == "tensor":
        del x  # a large tensor need not lie here twice
        with ThreadPoolExecutor(n_jobs) as pool:  # the compiled loops free the interpreter
            quantized = list(pool.map(partial(_quantize, weights), grids))
    else:
        quantized = _quantize_channels(np.moveaxis(x, axis, 0), grids)
    kurtosis = weights.kurtosis()
    return [
        _record(weights, grid, granularity, kurtosis, *found)
        for grid, found in zip(grids, quantized, strict=True)
    ]


def kind_of(name: str, shape: Sequence[int]) -> str:
    """What layer a weight belongs to, told from its name and shape.

    One of conv1d, conv2d, conv3d, depthwise, linear, embedding. A convolution of one input channel
    to several cannot be told from a depthwise one.
    """
    if _EMBEDDING.search(name.lower()):
        return "embedding"
    if len(shape) == 2:
        return "linear"
    if shape[1] == 1 and shape[0] > 1:
        return "depthwise"
    return f"conv{len(shape) - 2}d"


def _as_stored(name, x):
    """As an array of float32 where that holds it exactly, else of float64."""
    if isinstance(x, np.ndarray) and x.dtype in (np.float16, np.float32) and x.size:
        x = x.astype(np.float32, copy=False)
        if np.isfinite(x).all():
            return x
    return as_finite_array(name, x)


def _quantize(weights, grid):
    """(scale, MSE there, share of zeros there, MSE at the smallest scale that clips nothing)."""
    found = weights.search(grid)
    minmax = IntegerGrid(grid.n_bits, weights.minmax_scale(grid))
    return found.scale, found.mse, found.natural_sparsity, weights.quantization_mse(minmax)


def _quantize_channels(channels, grids):
    """`_quantize` of the whole, each channel at its own scale; no channel is kept."""
    means = np.zeros((len(grids), 3))
    for channel in channels:
        weights = SortedWeights(channel)
        means += [_quantize(weights, grid)[1:] for grid in grids]
    return [(np.nan, *row) for row in (means / len(channels)).tolist()]


def _record(weights, grid, granularity, kurtosis, scale, quant_mse, natural, minmax_mse):
    n = weights.size
    pruned = n_zeros(n, matched_sparsity(grid.n_bits))
    credited = n_zeros(n, 1 - (1 - natural) * grid.n_bits / REFERENCE_BITS) if natural < 1 else n
    prune_mse = weights.pruning_mse(pruned)
    quant_db, prune_db, minmax_db, credited_db = (
        _sqnr_db(weights.mean_square, mse)
        for mse in (quant_mse, prune_mse, minmax_mse, weights.pruning_mse(credited))
    )
    tied = quant_mse == prune_mse
    winner = "quantization" if quant_mse < prune_mse else "pruning"
    return TensorRecord(
        n_weights=n,
        kurtosis=kurtosis,
        excess_kurtosis=kurtosis - 3.0,
        n_bits=grid.n_bits,
        granularity=granularity,
        sparsity=pruned / n,
        scale=scale,
        quant_mse=quant_mse,
        quant_sqnr_db=quant_db,
        minmax_sqnr_db=minmax_db,
        natural_sparsity=natural,
        prune_mse=prune_mse,
        prune_sqnr_db=prune_db,
        credited_sparsity=credited / n,
        credited_sqnr_db=credited_db,
        margin_db=0.0 if tied else quant_db - prune_db,
        winner="neither" if tied else winner,
    )


def _sqnr_db(mean_square, mse):
    if mean_square == 0:
        return np.nan
    return float(10 * np.log10(mean_square / mse)) if mse else np.inf
