"""Datasets that give the same example for the same seed, epoch and index."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

from pqlib._validation import check_integer
from pqlib.training.augmentation import Preparation

_CACHE_BYTES = 256 * 2**20  # of decoded images, per split


class Examples(Dataset):
    """Examples (image, target), each the same for the same (seed, epoch, index).

    Images are uint8 of shape (3, height, width).

    Parameters
    ----------
    source : sequence
        Of (image, target) as stored.
    indices : (n,) ints
        Which of them, in this order.
    preparation : Preparation
    augment : bool
        Whether an example differs from epoch to epoch.
    seed : int
        Of what is drawn for that.

    Notes
    -----
    Decoded images are kept in memory, as they are stored and in uint8, up to 256 MiB per split (and
    per worker of a DataLoader). The epoch lives in shared memory, so that workers see it.
    """

    def __init__(
        self,
        source: Sequence[tuple[tv_tensors.Image, Any]],
        indices: np.ndarray,
        preparation: Preparation,
        *,
        augment: bool,
        seed: int,
    ):
        self.source, self.indices = source, np.asarray(indices, dtype=np.int64)
        self.preparation, self.augment, self.seed = preparation, augment, seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._kept: dict[int, tuple[tv_tensors.Image, Any]] = {}
        self._n_bytes = 0

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Any]:
        image, target = self._stored(int(self.indices[index]))
        if not self.augment:
            return self.preparation.fixed(image, target)
        seed = [self.seed, int(self._epoch), int(self.indices[index])]
        return self.preparation.augmented(image, target, seed)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, that the next examples belong to."""
        self._epoch.fill_(check_integer("epoch", epoch, low=0, high=2**31))

    def _stored(self, index: int) -> tuple[tv_tensors.Image, Any]:
        if index in self._kept:
            return self._kept[index]
        example = self.source[index]
        n_bytes = example[0].nbytes * (2 if isinstance(example[1], tv_tensors.Mask) else 1)
        if self._n_bytes + n_bytes <= _CACHE_BYTES:
            self._kept[index] = example
            self._n_bytes += n_bytes
        return example

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}, "_n_bytes": 0}


class Arrays:
    """Images (n, 3, height, width) or (n, height, width, 3) in memory, with labels."""

    def __init__(self, images: np.ndarray, labels: Sequence[int], *, channels_last: bool = False):
        self.images, self.labels, self.channels_last = images, labels, channels_last

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, int]:
        image = self.images[index]
        image = image.transpose(2, 0, 1) if self.channels_last else image
        return tv_tensors.Image(torch.from_numpy(image.copy())), int(self.labels[index])
