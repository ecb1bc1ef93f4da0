"""A network compressed without training: does it still answer as it did? No labels are needed."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from torch import nn

from pqlib._validation import check_integer
from pqlib.grids import MAX_BITS
from pqlib.training.batch_norm import reestimate
from pqlib.training.compression import post_training
from pqlib.training.tasks import evaluating

METHODS = {"quantize": "lsq", "prune": "prune"}  # as `post_training` names them
_LEVEL = 0.95
_DRAWS = 2000


def agreement(
    model: nn.Module,
    images: Iterable[torch.Tensor],
    bits: Sequence[int] = tuple(range(2, 9)),
    *,
    keep_first_last: bool = False,
    measure_batch_norm: bool = False,
    seed: int = 0,
    on_row: Callable[[dict], None] | None = None,
) -> pd.DataFrame:
    """Compress all convolutions and linear layers at once and compare the answers.

    Parameters
    ----------
    model : torch.nn.Module
        A classifier; it stays as it is.
    images : iterable of Tensor, (batch, ...)
        Inputs, gone through anew for each row.
    bits : sequence of int, 2..16
    keep_first_last : bool, default False
        See `pqlib.training.compression.compress`.
    measure_batch_norm : bool, default False
        Measure batch norm again on ``images``, for each compressed network, see
        `pqlib.training.batch_norm.reestimate`. By default it keeps the original's statistics.
    seed : int, default 0
        Of the bootstrap.
    on_row : callable, optional
        Given each row as it is done.

    Returns
    -------
    pandas.DataFrame
        A row per method and budget: ``method``, ``n_bits``, ``bits_per_weight``, ``n_images``;
        ``agreement``, the share in % of the images whose largest logit is the original's, with
        Wilson's 95 % interval, ``agreement_low`` and ``agreement_high``; ``logit_snr_db``, 10 log10
        of sum y^2 / sum (y_hat - y)^2 over all logits y, with a 95 % percentile interval of the
        bootstrap over images, ``snr_low`` and ``snr_high``.

    Raises
    ------
    ValueError, TypeError
        On bad ``bits``, no images, logits of another shape than (batch, n_classes) or not finite;
        and what `pqlib.training.compression.compress` refuses.

    Notes
    -----
    Unless batch norm is measured on them, nothing is fitted to the images: scales are MSE-optimal
    for the weights, and masks go by magnitude. Both intervals take the images for independent;
    crops of one photograph are not.

    Examples
    --------
    >>> import torch
    >>> from pqlib.experiments.agreement import agreement
    >>> _ = torch.manual_seed(0)
    >>> table = agreement(torch.nn.Linear(8, 3), [torch.randn(50, 8)], bits=(8,))
    >>> table[["method", "n_bits", "n_images"]].values.tolist()
    [['quantize', 8, 50], ['prune', 8, 50]]
    """
    bits = [check_integer("bits", b, low=2, high=MAX_BITS) for b in bits]
    if isinstance(images, Iterator):
        raise TypeError(
            "images must be iterable anew for each row, as a list is; got "
            f"{type(images).__name__}, which is used up after one pass"
        )
    original = _logits(model, images)
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(original), size=(_DRAWS, len(original)))
    rows = []
    for name, method in METHODS.items():
        for n_bits in bits:
            compressed = copy.deepcopy(model)
            compression = post_training(compressed, method, n_bits, keep_first_last=keep_first_last)
            spent = compression.bits_per_weight()
            compression.bake()
            if measure_batch_norm:
                reestimate(compressed, images)
            found = _logits(compressed, images)
            if found.shape != original.shape:
                raise ValueError(
                    f"images must be the same each time: {len(original)} at first, now {len(found)}"
                )
            row = {"method": name, "n_bits": n_bits, "bits_per_weight": spent}
            rows.append(row | _compared(original, found, draws))
            if on_row is not None:
                on_row(rows[-1])
    return pd.DataFrame(rows)


def _logits(model, images) -> np.ndarray:
    with evaluating(model):
        found = [model(batch) for batch in images]
    if not found:
        raise ValueError("images must hold at least one; got none")
    for logits in found:
        if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
            shape = getattr(logits, "shape", type(logits).__name__)
            raise ValueError(f"model must return logits of shape (batch, n_classes), got {shape}")
    logits = torch.cat(found).double().numpy()
    if not np.isfinite(logits).all():
        raise ValueError("model returns logits that are not finite; load trained weights first")
    return logits


def _compared(original, found, draws) -> dict[str, float]:
    same = original.argmax(1) == found.argmax(1)
    share = binomtest(int(same.sum()), len(same)).proportion_ci(_LEVEL, method="wilson")
    signal, error = (original**2).sum(1), ((found - original) ** 2).sum(1)
    with np.errstate(divide="ignore"):
        decibels = 10 * np.log10(signal.sum() / error.sum())
        drawn = 10 * np.log10(signal[draws].sum(1) / error[draws].sum(1))
    ends = (1 - _LEVEL) / 2, (1 + _LEVEL) / 2
    low, high = np.quantile(drawn, ends) if np.isfinite(drawn).all() else (decibels, decibels)
    return {
        "n_images": len(same),
        "agreement": 100 * float(same.mean()),
        "agreement_low": 100 * share.low,
        "agreement_high": 100 * share.high,
        "logit_snr_db": float(decibels),
        "snr_low": float(low),
        "snr_high": float(high),
    }
