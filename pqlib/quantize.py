"""Quantization: weights to integers and back, for numpy arrays and torch tensors alike."""

import sys
from numbers import Integral

import numpy as np

from pqlib._validation import check_dense
from pqlib.grids import IntegerGrid


def _namespace(x):
    """The library that ``x`` belongs to, numpy or torch, without importing torch."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(x, torch.Tensor) else np


def _scale_like(x, grid: IntegerGrid, axis: int):
    """The grid's scale, shaped to broadcast along ``axis`` of ``x``, of x's kind and dtype."""
    with np.errstate(over="ignore", under="ignore"):
        cast = np.asarray(grid.scale, np.float32 if x.dtype.itemsize == 4 else np.float64)
    if not np.all((cast > 0) & np.isfinite(cast)):
        raise ValueError(
            f"scale is out of the range of single precision, got {grid.scale}; "
            "convert x to float64 or measure it in another unit"
        )
    if grid.granularity == "tensor":
        return grid.scale
    if not isinstance(axis, Integral):
        raise TypeError(f"axis must be an int, got {axis!r}")
    if not -x.ndim <= axis < x.ndim or x.shape[axis] != grid.scale.size:
        raise ValueError(
            f"grid has {grid.scale.size} scales but x of shape {tuple(x.shape)} does not have that "
            f"many channels along axis={axis}; set axis or make one scale per channel"
        )
    shape = [1] * x.ndim
    shape[axis] = -1
    scale = grid.scale.reshape(shape)
    xp = _namespace(x)
    return scale.astype(x.dtype) if xp is np else xp.as_tensor(scale).to(x)


def _as_weights(x, name="x"):
    xp = _namespace(x)
    if xp is np:
        try:
            x = np.asarray(x)
        except ValueError as error:
            raise TypeError(f"{name} must be an array of real numbers: {error}") from error
        if x.dtype.kind in "iub":
            x = x.astype(np.float64)
        if x.dtype.kind != "f":
            raise TypeError(f"{name} must hold real numbers, got dtype {x.dtype}")
    else:
        check_dense(name, x)
        if x.is_complex():
            raise TypeError(f"{name} must hold real numbers, got dtype {x.dtype}")
        if not x.is_floating_point():
            x = x.to(xp.float64)
    if 0 in x.shape:
        raise ValueError(f"{name} must not be empty, got shape {tuple(x.shape)}")
    if not bool(xp.isfinite(x).all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity; remove or replace it")
    return x


def _check_grid(grid):
    if not isinstance(grid, IntegerGrid):
        raise TypeError(f"grid must be an IntegerGrid such as IntegerGrid(4, 0.1), got {grid!r}")


def _round(x, grid: IntegerGrid, axis: int):
    """(integers, scale), both floating, in single precision if x has less."""
    xp = _namespace(x)
    if x.dtype.itemsize < 4:  # half precision does not hold all integers of a 16-bit grid
        x = x.astype(np.float32) if xp is np else x.to(xp.float32)
    scale = _scale_like(x, grid, axis)
    # clip before any cast: an outlier over a tiny scale exceeds every integer type
    return xp.clip(xp.round(x / scale) + grid.zero_point, grid.qmin, grid.qmax), scale


def quantize(x, grid: IntegerGrid, axis: int = 0):
    """Integers of the nearest levels: clip(round(x / scale) + zero_point, qmin, qmax) (eq 1).

    Parameters
    ----------
    x : numpy array or torch tensor of real numbers, any shape, finite
        Weights.
    grid : IntegerGrid
        Where to round to. Ties go to the even integer, as IEEE 754, numpy and torch do.
    axis : int, default 0
        The channel axis of ``x`` if ``grid`` has one scale per channel.

    Returns
    -------
    numpy array or torch tensor of x's shape, int32
    """
    _check_grid(grid)
    x = _as_weights(x)
    integers, _ = _round(x, grid, axis)
    return integers.astype(np.int32) if _namespace(x) is np else integers.to(_namespace(x).int32)


def dequantize(integers, grid: IntegerGrid, axis: int = 0):
    """Weights scale * (integers - zero_point): float64 in numpy, torch's default dtype in torch.

    Raises
    ------
    ValueError
        If an integer lies outside qmin..qmax, or is none.
    """
    _check_grid(grid)
    xp = _namespace(integers)
    integers = _as_weights(integers, "integers")
    bad = (integers < grid.qmin) | (integers > grid.qmax) | (integers % 1 != 0)
    if bool(bad.any()):
        raise ValueError(
            f"integers must be whole numbers in {grid.qmin}..{grid.qmax}, the range of the grid, "
            f"got {float(integers[bad][0]):g}; clip them or take a grid of more bits"
        )
    # only now subtract: a uint8 would wrap round
    integers = integers.astype(np.float64) if xp is np else integers.to(xp.get_default_dtype())
    return (integers - grid.zero_point) * _scale_like(integers, grid, axis)


def fake_quantize(x, grid: IntegerGrid, axis: int = 0):
    """Quantize and dequantize: the nearest level to each weight, in x's own dtype and library.

    Parameters and errors as in `quantize`, and a ValueError where a weight would go to a level that
    the dtype cannot hold. The error is at most scale / 2 inside
    [levels[0], levels[-1]] and the distance to the nearest end outside.

    Examples
    --------
    >>> import numpy as np
    >>> from pqlib import IntegerGrid, fake_quantize
    >>> fake_quantize(np.array([-9.0, 0.2, 1.6]), IntegerGrid(n_bits=2, scale=1.0))
    array([-2.,  0.,  1.])
    """
    _check_grid(grid)
    x = _as_weights(x)
    integers, scale = _round(x, grid, axis)
    xp = _namespace(x)
    with np.errstate(over="ignore"):
        restored = (integers - grid.zero_point) * scale
        restored = restored.astype(x.dtype, copy=False) if xp is np else restored.to(x.dtype)
    if not bool(xp.isfinite(restored).all()):
        raise ValueError(
            f"grid has levels beyond the range of {x.dtype} (scale {np.max(grid.scale):g}); take a "
            "smaller scale or a wider dtype"
        )
    return restored
