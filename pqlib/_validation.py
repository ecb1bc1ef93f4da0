"""Checks of arguments: each failure names the argument, its value and the remedy."""

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
    return f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"


def check_integer(name: str, value: int, *, low: int, high: int) -> int:
    """Return ``value`` as an int if it is a whole number with low <= value <= high."""
    if isinstance(value, _NO_NUMBERS) or not isinstance(value, Integral):
        if isinstance(value, Real) and not isinstance(value, _NO_NUMBERS):
            raise ValueError(f"{name} must be a whole number in {low}..{high}, got {value!r}")
        raise TypeError(f"{name} must be an int in {low}..{high}, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be a whole number in {low}..{high}, got {value!r}")
    return int(value)


def as_finite_array(name: str, values: ArrayLike) -> np.ndarray:
    """Return ``values`` as a float64 array, not empty and without NaN or infinity."""
    torch = modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        values = values.detach().cpu()  # a layer's weight wants a gradient, which numpy refuses
        if values.dtype == torch.bfloat16:  # unknown to numpy
            values = values.float()
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
        bad = array[~finite][0]
        raise ValueError(
            f"{name} must be finite, got {bad!r} among {array.size} values; remove or replace it"
        )
    return array


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return ``value`` if it is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value
