"""Pruning: masks that say which weights stay."""

import numpy as np

from pqlib._validation import check_integer
from pqlib.budget import n_zeros
from pqlib.quantize import _as_weights, _namespace


def magnitude_mask(x, sparsity: float):
    """Mask of magnitude pruning: 1 keeps, 0 removes the smallest magnitudes (section 3.2).

    Parameters
    ----------
    x : numpy array or torch tensor of real numbers, any shape, not empty, finite
        Weights.
    sparsity : float in [0, 1)
        Share to remove; exactly floor(n * sparsity + 1e-9) weights go, whatever the ties: of equal
        magnitudes the first goes first, the last axis counting fastest.

    Returns
    -------
    numpy array of bool or torch tensor of bool, of x's shape

    Examples
    --------
    >>> import numpy as np
    >>> from pqlib import magnitude_mask
    >>> magnitude_mask(np.array([0.1, -3.0, 2.0, -0.2]), sparsity=0.5)
    array([False,  True,  True, False])
    """
    x = _as_weights(x)
    xp = _namespace(x)
    size = x.size if xp is np else x.numel()
    magnitudes = _magnitudes(x).reshape(-1)
    if xp is np:
        order = np.argsort(magnitudes, kind="stable")
        mask = np.ones(size, dtype=bool)
    else:
        order = magnitudes.argsort(stable=True)
        mask = xp.ones(size, dtype=xp.bool, device=x.device)
    mask[order[: n_zeros(size, sparsity)]] = False
    return mask.reshape(x.shape)


def n_m_mask(x, n: int, m: int):
    """Mask of n:m pruning: of every ``m`` weights in a row along the last axis, keep ``n``.

    Parameters
    ----------
    x : numpy array or torch tensor of real numbers, shape (..., k * m), finite
        Weights; the last axis is cut into groups of ``m``.
    n, m : int
        Weights kept and group size, 1 <= n <= m <= 1024: 2:4 is ``n=2, m=4``. The largest
        magnitudes stay; of equal ones the last in the group.

    Returns
    -------
    numpy array of bool or torch tensor of bool, of x's shape
    """
    x = _as_weights(x)
    m = check_integer("m", m, low=1, high=1024)
    n = check_integer("n", n, low=1, high=m)
    if x.ndim == 0 or x.shape[-1] % m:
        raise ValueError(
            f"the last axis of x must be a positive multiple of m={m}, got shape {tuple(x.shape)}; "
            "pad it or move another axis there"
        )
    xp = _namespace(x)
    groups = _magnitudes(x).reshape(*x.shape[:-1], -1, m)  # (..., k, m)
    if xp is np:
        ranks = np.argsort(np.argsort(groups, axis=-1, kind="stable"), axis=-1, kind="stable")
    else:
        ranks = groups.argsort(dim=-1, stable=True).argsort(dim=-1, stable=True)
    return (ranks >= m - n).reshape(x.shape)


def _magnitudes(x):
    if _namespace(x) is not np and x.dtype.itemsize == 1:
        x = x.float()  # torch sorts no float8
    return abs(x)
