"""Which images a step sees: the same for every method, and again after an interruption."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pqlib.training.settings import Settings

ORDER, DRAWS = 0, 1  # what a seed is for


def batches_of(
    dataset: Dataset, task: Any, settings: Settings, *, n_batches: int | None = None
) -> Iterator[Any]:
    """All images in batches, in order, the last one smaller.

    With ``n_batches``, so many whole ones instead: the first that an epoch of training has.
    """
    n, size = len(dataset), settings.batch_size
    if n_batches is None:
        indices = [list(range(i, min(i + size, n))) for i in range(0, n, size)]
    else:
        indices = order_of(n, settings, 0)[:n_batches]
    return load(dataset, indices, task, settings)


def order_of(n_images: int, settings: Settings, epoch: int) -> list[list[int]]:
    """The batches of an epoch, as indices."""
    generator = torch.Generator().manual_seed(seed_of(ORDER, settings.seed, epoch))
    order = torch.randperm(n_images, generator=generator).tolist()
    size = settings.batch_size
    return [order[i * size : (i + 1) * size] for i in range(settings.steps_per_epoch(n_images))]


def load(
    dataset: Dataset, indices: Sequence[Sequence[int]], task: Any, settings: Settings
) -> Iterator[Any]:
    """The batches of these indices, as ``task.collate`` makes them."""
    loader = DataLoader(
        dataset,
        batch_sampler=indices,
        collate_fn=task.collate,
        num_workers=settings.n_workers,
        generator=torch.Generator(),  # else it draws from the global one
    )
    return iter(loader)


def seed_of(*numbers: int) -> int:
    """A seed of torch's from what it is for (`ORDER`, `DRAWS`) and for whom."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
