"""Magnitude pruning: a weight times the mask of its largest magnitudes."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from pqlib._validation import check_integer
from pqlib.training.memory_order import vectors
from pqlib.training.selection import ThresholdSearch


class MagnitudeMask(nn.Module):
    """Parametrization of a weight by its product with a mask (section 5).

    w_hat = m w, with m = 0 at the smallest magnitudes and 1 elsewhere

    Attach it by ``torch.nn.utils.parametrize.register_parametrization(layer, "weight", ...)``, or
    all over a network by `pqlib.training.compression.compress`. It starts with no zeros.

    Parameters
    ----------
    weight : Tensor
        The weights that it is for; it keeps their shape, dtype and device alone.
    monotone : bool, default False
        A weight once masked stays so. By default every call of `set_zeros` looks at all
        magnitudes: a masked weight has no gradient, but returns when others have shrunk below it.

    Attributes
    ----------
    multiplier : Tensor, of the weight's shape and dtype
        The mask m in numbers, as it is multiplied: a product with bool takes three times as long.
    mask : Tensor of bool
        The same; True keeps.
    """

    def __init__(self, weight: Tensor, *, monotone: bool = False):
        super().__init__()
        self.monotone = bool(monotone)
        self.register_buffer("multiplier", torch.ones_like(weight, requires_grad=False))
        self._zeros: int | None = 0  # None: to be counted
        self._search = ThresholdSearch()

    @property
    def mask(self) -> Tensor:
        return self.multiplier != 0

    @property
    def n_zeros(self) -> int:
        """Weights masked now."""
        if self._zeros is None:
            self._zeros = int((~self.mask).sum())
        return self._zeros

    def _load_from_state_dict(self, *args, **kwargs):
        self._zeros = None
        super()._load_from_state_dict(*args, **kwargs)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.multiplier

    def set_zeros(self, weight: Tensor, zeros: int) -> None:
        """Mask exactly ``zeros`` weights, those of smallest magnitude.

        Parameters
        ----------
        weight : Tensor
            The weights, before masking.
        zeros : int, 0..n - 1
            How many go. Of equal magnitudes the first goes first, as in
            `pqlib.magnitude_mask`.

        Raises
        ------
        ValueError
            If a weight is NaN, if they are of another shape, or if ``monotone`` and fewer zeros are
            asked for than there are.

        Notes
        -----
        The threshold is the ``zeros``-th smallest magnitude, found by selection, not by sorting,
        since the loop asks for it at every step of the schedule. It moves steadily: on the CPU it
        is looked for near where the last two point, among few weights, and if it is not there (this
        is known, not guessed), among all. Ties at the threshold, rare among trained weights, are
        settled afterwards. An infinite weight is the last to go; NaN leaves nothing masked.
        """
        if weight.shape != self.multiplier.shape:
            raise ValueError(
                f"weight must have the mask's shape {tuple(self.multiplier.shape)}, got "
                f"{tuple(weight.shape)}"
            )
        zeros = check_integer("zeros", zeros, low=0, high=weight.numel() - 1)
        if self.monotone and zeros < self.n_zeros:
            raise ValueError(
                f"zeros={zeros} is less than the {self.n_zeros} that a monotone mask has; they "
                "only grow"
            )
        self._zeros, weight = None, weight.detach()  # None until all went well
        if zeros == 0:
            self.multiplier.fill_(1)
        elif not self._found_near(weight, zeros):
            magnitudes = weight.abs()
            if self.monotone:  # those masked are the smallest of all: -1
                magnitudes.mul_(self.multiplier).sub_(1 - self.multiplier)
            self._keep_above(magnitudes, zeros)
        self._zeros = zeros

    def _found_near(self, weight: Tensor, zeros: int) -> bool:
        """Set the mask if the threshold is where it is expected; whether it was."""
        if self.monotone or not _in_numpy(weight):
            return False
        flat = vectors(weight, self.multiplier)
        if flat is None:
            return False
        return self._search.mask(flat[0].numpy(), zeros, flat[1].numpy())

    def _keep_above(self, magnitudes: Tensor, zeros: int) -> None:
        threshold, following = _around(magnitudes, zeros)
        self._search.remember(float(threshold))
        if following > threshold:
            _greater(magnitudes, threshold, self.multiplier)
            return
        if bool(magnitudes.isnan().any()):
            self.multiplier.fill_(1)
            raise ValueError("weight must be numbers to be pruned, got NaN")
        keep = (magnitudes > threshold).reshape(-1)
        equal = (magnitudes == threshold).reshape(-1).nonzero()[:, 0]
        n_equal_kept = keep.numel() - zeros - int(keep.sum())
        keep[equal[len(equal) - n_equal_kept :]] = True
        self.multiplier.copy_(keep.reshape(self.multiplier.shape))


def _in_numpy(tensor) -> bool:
    """Where numpy is at hand, whose selection and comparison are vectorized, as torch's are not."""
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)


def _around(values: Tensor, n: int) -> tuple[float, float]:
    """The n-th smallest value and the one after it, 1 <= n < values.numel()."""
    flat = values.reshape(-1)
    if _in_numpy(flat):
        parts = np.partition(flat.numpy(), n - 1)
        return parts[n - 1], parts[n:].min()  # NaN, which numpy puts last, is the least here
    threshold, following = (float(flat.kthvalue(k).values) for k in (n, n + 1))
    return threshold, math.nan if bool(flat.isnan().any()) else following


def _greater(values: Tensor, threshold: float, out: Tensor) -> None:
    """1 in ``out`` where ``values`` exceed ``threshold``, else 0."""
    if _in_numpy(values):
        np.copyto(out.numpy(), values.numpy() > threshold)
    else:
        torch.gt(values, threshold, out=out)
