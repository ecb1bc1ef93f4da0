"""Tensors as vectors in the order of their memory, without a copy."""

import torch
from torch import Tensor


def vectors(*tensors: Tensor) -> list[Tensor] | None:
    """One view of each, shape (n,), if all lie in memory alike and without gaps, else None.

    Parameters
    ----------
    *tensors : Tensor
        Of one shape. Contiguous ones keep the order of their elements; four-dimensional ones that
        are all ``channels_last`` are taken with the channels innermost.
    """
    if all(tensor.is_contiguous() for tensor in tensors):
        return [tensor.view(-1) for tensor in tensors]
    if all(
        tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
        for tensor in tensors
    ):
        return [tensor.permute(0, 2, 3, 1).view(-1) for tensor in tensors]
    return None
