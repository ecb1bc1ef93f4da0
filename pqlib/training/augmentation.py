"""From a stored image and its target to what a network sees, of one size and in uint8."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import v2

from pqlib.training.tasks import VOID

FILL = {tv_tensors.Image: (124, 116, 104), tv_tensors.Mask: VOID, "others": 0}  # ImageNet's mean
_SMALL = 64  # pixels; up to here images are shifted, and beyond cut out at any size
_CROP = 0.875  # of a large image's shorter side that is looked at when not training
_SCALES = {"segmentation": (0.5, 2.0), "detection": (0.5, 1.5)}


@dataclass(frozen=True)
class Preparation:
    """Bring an image and its target to (height, width), the same way every time.

    Attributes
    ----------
    task : str
    size : (height, width)
    natural : bool, default True
        Whether they are photographs. Digits are neither mirrored nor cut out.

    Notes
    -----
    Classification of up to 64 pixels, or of digits: resized to the size, in training shifted by up
    to an eighth. Beyond: the central 7/8 of the shorter side, in training a part of 8-100 % of the
    area.

    Segmentation and detection: shrunk until it fits, with its aspect ratio, and padded to the right
    and below, void there; for detection it is enlarged too. In training a random part of the image
    at 0.5-2 times (detection: 0.5-1.5 times) that scale; boxes of which less than a pixel is left
    are dropped then. No box is dropped where the metric is measured.
    """

    task: str
    size: tuple[int, int]
    natural: bool = True

    def fixed(self, image: tv_tensors.Image, target: Any) -> tuple[torch.Tensor, Any]:
        """For validation and test, and for training without augmentation."""
        height, width = self.size
        area = image.shape[-2:]
        if self.task == "classification":
            if self._as_a_whole:
                image = v2.functional.resize(image, self.size) if area != self.size else image
                return image.as_subclass(torch.Tensor), target
            scale = max(height / area[0], width / area[1]) / _CROP
            image = v2.functional.resize(image, [_times(side, scale) for side in area])
            return v2.functional.center_crop(image, self.size).as_subclass(torch.Tensor), target
        scale = min(height / area[0], width / area[1])
        if self.task == "segmentation":
            scale = min(scale, 1.0)
        inner = [min(_times(a, scale), s) for a, s in zip(area, self.size, strict=True)]
        padding = [0, 0, width - inner[1], height - inner[0]]
        image, target = v2.Resize(inner)(image, target) if inner != [*area] else (image, target)
        image, target = v2.Pad(padding, fill=FILL)(image, target)
        return _finished(image, target, inner, 0.0)

    def augmented(
        self, image: tv_tensors.Image, target: Any, seed: list[int]
    ) -> tuple[torch.Tensor, Any]:
        """For training; what is drawn depends on ``seed`` alone."""
        if self.task == "classification" and self._as_a_whole:
            return self._shifted(image, np.random.default_rng(seed)), target
        number = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            image, target = self._drawn(image, target)
            if self.natural and torch.rand(()) < 0.5:
                image, target = v2.RandomHorizontalFlip(1.0)(image, target)
        if self.task == "classification":
            return image.as_subclass(torch.Tensor), target
        return _finished(image, target, self.size, 1.0)

    @property
    def _as_a_whole(self) -> bool:
        return max(self.size) <= _SMALL or not self.natural

    def _drawn(self, image: tv_tensors.Image, target: Any) -> tuple[tv_tensors.Image, Any]:
        if self.task == "classification":
            return v2.RandomResizedCrop(self.size)(image), target
        image, target = v2.ScaleJitter(self.size, _SCALES[self.task])(image, target)
        return v2.RandomCrop(self.size, pad_if_needed=True, fill=FILL)(image, target)

    def _shifted(self, image: tv_tensors.Image, rng: np.random.Generator) -> torch.Tensor:
        """Plain tensors and no global generator: a small net waits for nothing else."""
        image = self.fixed(image, None)[0]
        down, right = (side // 8 for side in self.size)
        image = functional.pad(image, (right, right, down, down))
        top, left = rng.integers(2 * down + 1), rng.integers(2 * right + 1)
        image = image[:, top : top + self.size[0], left : left + self.size[1]]
        return image.flip(-1) if self.natural and rng.random() < 0.5 else image.contiguous()


def _times(side: int, scale: float) -> int:
    return max(1, round(side * scale))


def _finished(image, target, inner, least: float) -> tuple[torch.Tensor, Any]:
    """Plain tensors, with the boxes that are longer than ``least`` pixels on both sides."""
    image = image.as_subclass(torch.Tensor)
    if isinstance(target, tv_tensors.Mask):
        return image, target.as_subclass(torch.Tensor)
    boxes = target["boxes"].as_subclass(torch.Tensor)
    right = torch.tensor([inner[1], inner[0]] * 2, dtype=boxes.dtype)
    boxes = torch.minimum(boxes.clamp(min=0), right)
    kept = (boxes[:, 2:] - boxes[:, :2] > least).all(dim=1)
    extent = torch.tensor([inner[1], inner[0]], dtype=torch.float32)
    return image, {
        "boxes": boxes[kept],
        "labels": target["labels"][kept],
        "crowd": target["crowd"][kept],
        "extent": extent,
    }
