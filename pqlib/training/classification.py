"""Classification: cross-entropy, and the share of images that are classified correctly."""

from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pqlib.training.tasks import Batch, Task


class Classification(Task):
    """One class per image; the batch's ``"labels"`` are int64, (batch,)."""

    name: ClassVar[str] = "classification"
    metric: ClassVar[str] = "accuracy"

    def collate(self, examples: list[tuple[torch.Tensor, int]]) -> Batch:
        """A batch with ``"images"`` and ``"labels"``."""
        images, labels = zip(*examples, strict=True)
        return {"images": torch.stack(images), "labels": torch.tensor(labels)}

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Cross-entropy in nats, the mean over the batch."""
        return functional.cross_entropy(model(self.inputs(batch)).float(), batch["labels"])

    def results(self, model: nn.Module, batch: Batch) -> np.ndarray:
        """Whether the largest logit is the label's, bool of shape (batch,)."""
        return (model(self.inputs(batch)).argmax(1) == batch["labels"]).cpu().numpy()

    def score(self, per_image: np.ndarray) -> float:
        """Top-1 accuracy in percent."""
        return 100 * float(np.mean(per_image))
