"""What a network is trained for: its batches, its loss, and the number that is reported."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import nn

from pqlib._validation import check_integer
from pqlib.training.models import Normalization, Size, as_size, normalization_of, task_of

if TYPE_CHECKING:
    from pqlib.training.data import Data

VOID = 255  # label of pixels that count neither in the loss nor in the metric
Batch = dict[str, Any]


@dataclass(frozen=True)
class Task(ABC):
    """A task with its metric; nothing in it belongs to one network's weights.

    Attributes
    ----------
    name : str
        "classification", "segmentation" or "detection".
    metric : str
        "accuracy", "mIoU" or "mAP", in percent.
    n_classes : int
    size : (height, width)
        Of the images in pixels.
    normalization : (means, standard deviations)
        Of three channels in 0..1, those of the network.

    Notes
    -----
    A batch is a dict; its ``"images"`` are uint8, (batch, 3, height, width), and are normalized
    where they are used, so that a batch travels at a quarter of its weight.
    """

    n_classes: int
    size: Size
    normalization: Normalization

    name: ClassVar[str]
    metric: ClassVar[str]

    def __post_init__(self):
        check_integer("n_classes", self.n_classes, low=1, high=10**6)
        object.__setattr__(self, "size", as_size(self.size))

    @abstractmethod
    def collate(self, examples: list[tuple[torch.Tensor, Any]]) -> Batch:
        """A batch of examples (image, target) as the datasets of `Data` give them."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The mean loss over the batch, 0-dim and in float32, with the model run on it."""

    @abstractmethod
    def results(self, model: nn.Module, batch: Batch) -> np.ndarray:
        """What each image of the batch adds to the metric, images first; see `score`."""

    @abstractmethod
    def score(self, per_image: np.ndarray) -> float:
        """The metric in 0..100 from the rows of `evaluate`'s ``"per_image"``."""

    def scores(self, per_image: np.ndarray, draws: Iterable[np.ndarray]) -> np.ndarray:
        """`score` of images drawn with replacement, for each draw: a bootstrap.

        Parameters
        ----------
        per_image : ndarray, one row per image
        draws : iterable of ndarray of int
            Places of the images drawn.
        """
        return np.array([self.score(per_image[draw]) for draw in draws])

    def evaluate(
        self,
        model: nn.Module,
        batches: Iterable[Batch],
        *,
        device: torch.device | str | None = None,
    ) -> dict[str, Any]:
        """The metric of a model on all batches.

        Parameters
        ----------
        model : torch.nn.Module
            Run in eval mode and without gradients; its training flags are restored.
        batches : iterable of dict
            As `collate` makes them.
        device : torch.device or str, optional
            Where the batches go; by default where they are.

        Returns
        -------
        dict
            ``{metric: float}`` in 0..100, and ``"per_image"``, an array with one row per image in
            the order given: correct or not (bool), the confusion matrix (truth, prediction), or
            boxes found and wanted.

        Raises
        ------
        ValueError
            Without any image, or where the metric is not defined.
        """
        rows = []
        with evaluating(model):
            for batch in batches:
                rows.append(self.results(model, self.to(batch, device)))
        if not rows:
            raise ValueError("batches must hold at least one image; the split is empty")
        per_image = np.concatenate(self._padded(rows))
        return {self.metric: self.score(per_image), "per_image": per_image}

    def to(self, batch: Batch, device: torch.device | str | None) -> Batch:
        """The batch with its tensors on a device; None leaves it where it is."""
        if device is None:
            return batch
        return {key: _moved(value, device) for key, value in batch.items()}

    def inputs(self, batch: Batch) -> torch.Tensor:
        """What the model takes: normalized float32 images, (batch, 3, height, width).

        Channels lie last in memory: on CPUs a step of a MobileNet then takes 0.6-0.8 of the time.
        """
        images = batch["images"]
        mean, deviation = (
            torch.tensor(values, device=images.device).view(3, 1, 1)  # (3, 1, 1)
            for values in self.normalization
        )
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        return pixels.div_(255).sub_(mean).div_(deviation)

    def _padded(self, rows: list[np.ndarray]) -> list[np.ndarray]:
        return rows


def open_task(model: str, data: "Data", *, variant: str | None = None) -> Task:
    """The task of a network on data.

    Parameters
    ----------
    model : str
        As in `pqlib.training.models.build_model`.
    data : Data
        As from `pqlib.training.data.open_data`.
    variant : str, optional
        Which EfficientDet; for detection alone.

    Raises
    ------
    ValueError
        If the network does something else than the data are for.
    """
    wanted = task_of(model)
    if wanted != data.task:
        raise ValueError(
            f"model {model!r} is for {wanted} and the data {data.name!r} were opened for "
            f"{data.task}; open them with task={wanted!r}"
        )
    normalization = normalization_of(model, variant)
    options = {"variant": variant} if wanted == "detection" else {}
    return task_class(wanted)(data.n_classes, data.size, normalization, **options)


def task_class(name: str) -> type[Task]:
    """The class of a task; what a task alone needs is imported with it."""
    if name == "classification":
        from pqlib.training.classification import Classification

        return Classification
    if name == "segmentation":
        from pqlib.training.segmentation import Segmentation

        return Segmentation
    if name == "detection":
        from pqlib.training.detection import Detection

        return Detection
    raise ValueError(f"task must be classification, segmentation or detection, got {name!r}")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients, in which each module has its own flag back afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training


def _moved(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, list):
        return [_moved(item, device) for item in value]
    return value
