"""Segmentation: cross-entropy per pixel, and the mean intersection over union."""

from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pqlib.training.dense_networks import library
from pqlib.training.tasks import VOID, Batch, Task


class Segmentation(Task):
    """One class per pixel; the batch's ``"masks"`` are uint8, (batch, height, width).

    The label 255 is void: such a pixel counts neither in the loss nor in the metric.
    """

    name: ClassVar[str] = "segmentation"
    metric: ClassVar[str] = "mIoU"

    def collate(self, examples: list[tuple[torch.Tensor, torch.Tensor]]) -> Batch:
        """A batch with ``"images"`` and ``"masks"``."""
        images, masks = zip(*examples, strict=True)
        return {"images": torch.stack(images), "masks": torch.stack(masks)}

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Cross-entropy in nats, the mean over the pixels that are not void; 0 without any."""
        masks = batch["masks"].long()
        logits = model(self.inputs(batch)).float()  # (batch, n_classes, height, width)
        total = functional.cross_entropy(logits, masks, ignore_index=VOID, reduction="sum")
        return total / (masks != VOID).sum().clamp(min=1)

    def results(self, model: nn.Module, batch: Batch) -> np.ndarray:
        """Confusion matrices, int64 of shape (batch, truth, prediction)."""
        metrics = library("torchmetrics.functional.classification")
        predicted = model(self.inputs(batch)).argmax(1)
        matrices = [
            metrics.multiclass_confusion_matrix(p, mask.long(), self.n_classes, ignore_index=VOID)
            for p, mask in zip(predicted, batch["masks"], strict=True)
        ]
        return torch.stack(matrices).cpu().numpy()

    def score(self, per_image: np.ndarray) -> float:
        """Mean intersection over union in percent.

        Notes
        -----
        For each class, true positives / (true + false positives + false negatives) over the pixels
        of all images; then the mean over the classes that occur in truth or prediction.
        """
        confusion = per_image.sum(axis=0)
        hits = np.diag(confusion)
        union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
        if not union.any():
            raise ValueError("all pixels are void: mIoU is not defined; check the label maps")
        return 100 * float(np.mean(hits[union > 0] / union[union > 0]))
