"""Checks of arguments: each failure names the argument, its value and the remedy."""

from collections.abc import Iterable
from math import inf
from numbers import Integral, Real
from sys import float_info, modules

import numpy as np
from numpy.typing import ArrayLike

_NO_NUMBERS = bool, np.bool_, np.timedelta64  # though Python counts them among the integers


def check_number(
    name: str,
    value: float,
    *,
    low: float = -inf,
    high: float = inf,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return ``value`` as a float if it is a finite real number in the stated interval."""
    if isinstance(value, _NO_NUMBERS) or not isinstance(value, Real):
        interval = _interval(low, high, open_low, open_high)
        raise TypeError(f"{name} must be a number in {interval}, got {value!r}")
    if isinstance(value, np.floating):
        value = float(value)  # comparing a float32 with a large float warns
    below = value <= low if open_low else value < low
    above = value >= high if open_high else value > high
    if value != value or abs(value) > float_info.max or below or above:  # also of a huge int
        interval = _interval(low, high, open_low, open_high)
        raise ValueError(f"{name} must be a finite number in {interval}, got {value!r}")
    return float(value)


def _interval(low: float, high: float, open_low: bool, open_high: bool) -> str:
    left, right = "(["[low > -inf and not open_low], ")]"[high < inf and not open_high]
    return f"{left}{low:g}, {high:g}{right}"


def check_integer(name: str, value: int, *, low: int, high: int) -> int:
    """Return ``value`` as an int if it is a whole number with low <= value <= high."""
    if isinstance(value, _NO_NUMBERS) or not isinstance(value, Integral):
        if isinstance(value, Real) and not isinstance(value, _NO_NUMBERS):
            raise ValueError(f"{name} must be a whole number in {low}..{high}, got {value!r}")
        raise TypeError(f"{name} must be an int in {low}..{high}, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be a whole number in {low}..{high}, got {value!r}")
    return int(value)


def check_bits(name: str, bits: Iterable[int]) -> list[int]:
    """Return ``bits`` as a list if it is a sequence, not empty; its items are not checked."""
    if isinstance(bits, str) or not isinstance(bits, Iterable) or not (found := list(bits)):
        raise ValueError(f"{name} must be a sequence of bit-widths, not empty, got {bits!r}")
    return found


def check_dense(name: str, tensor) -> None:
    """Refuse a torch tensor that holds no numbers, or not all of them."""
    if tensor.is_meta:
        raise ValueError(
            f"{name} must hold numbers, got a tensor of shape {tuple(tensor.shape)} on the meta "
            "device; load its weights first"
        )
    if str(tensor.layout) != "torch.strided":
        raise TypeError(f"{name} must be dense, got layout {tensor.layout}; use {name}.to_dense()")


def as_finite_array(name: str, values: ArrayLike) -> np.ndarray:
    """Return ``values`` as a float64 array, not empty and without NaN or infinity."""
    torch = modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        check_dense(name, values)
        values = values.detach().cpu()  # a layer's weight wants a gradient, which numpy refuses
        if values.is_floating_point() and values.dtype not in (torch.float16, torch.float64):
            values = values.float()  # bfloat16 and float8 are unknown to numpy
    try:
        array = np.asarray(values)
        if array.dtype.kind in "cSUMm":
            raise TypeError(f"got dtype {array.dtype}")
        array = array.astype(np.float64, copy=False)
    except OverflowError:
        raise ValueError(f"{name} must be finite, got a number beyond float64") from None
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array of real numbers: {error}") from error
    if array.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    finite = np.isfinite(array)
    if not finite.all():
        bad = float(array[~finite][0])
        raise ValueError(
            f"{name} must be finite, got {bad!r} among {array.size} values; remove or replace it"
        )
    return array


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return ``value`` if it is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value
