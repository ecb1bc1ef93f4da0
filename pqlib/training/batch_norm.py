"""Batch norm's statistics, measured again for the weights as they are now."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def reestimate(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[nn.Module, Any], Any] | None = None,
) -> None:
    """Set each batch norm's running mean and variance to their averages over ``batches``.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in its running statistics alone. Its training flags and momenta are left as they
        were. A network without batch norm: nothing happens, and no batch is read.
    batches : iterable
        What ``model`` takes as its one argument, or anything that ``forward`` takes. A few dozen
        training batches of the usual size do; all count alike, so drop a smaller last one.
    forward : callable, optional
        ``forward(model, batch)`` runs the model, for inputs that need more than one argument.

    Raises
    ------
    ValueError
        If there is no batch. The old statistics are then restored, as on every error.

    Notes
    -----
    While it trains, a network keeps a running average over weights that it no longer has; quantized
    weights oscillate between two levels, so that the average may fit none of them (section 5).

    Only batch norms are in training mode meanwhile: each normalizes by its batch, as in training,
    and dropout or stochastic depth are off, as in evaluation. torch.optim.swa_utils.update_bn has
    both on. A batch norm that no batch reaches keeps what it had.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    if not norms:
        return
    flags = {module: module.training for module in model.modules()}
    old = [
        (norm.momentum, {name: b.clone() for name, b in norm.named_buffers(recurse=False)})
        for norm in norms
    ]
    n_batches = 0
    done = False
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average
            norm.training = True
        with torch.no_grad():
            for batch in batches:
                n_batches += 1
                model(batch) if forward is None else forward(model, batch)
        if n_batches == 0:
            raise ValueError("batches is empty; give at least one training batch")
        done = True
    finally:
        for module, flag in flags.items():
            module.training = flag
        for norm, (momentum, buffers) in zip(norms, old, strict=True):
            norm.momentum = momentum
            if not done or norm.num_batches_tracked == 0:
                for name, value in buffers.items():
                    getattr(norm, name).copy_(value)
