"""Digits that scikit-learn ships, and scenes made from them that serve all three tasks."""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torchvision import tv_tensors

N_DIGITS = 10
_TEST_SHARE = 0.2
_SPLIT_SEED = 8  # the test digits are the same for everyone
_SIDES = (0.28, 0.5)  # of a digit, as a share of the scene's shorter side
_LARGE = (0.6, 0.95)  # of the one digit in a scene that is not for detection
_N_TRIES = 20  # to find a place without overlap
_INK = 0.35  # share of full ink from which a pixel belongs to the digit
_PLACES = {"train": 0, "test": 1}


@cache
def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (n, 8, 8) in 0..255, and labels, int64 (n,), of "train" or "test".

    1,797 handwritten digits, a fifth of them for testing.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "the digits come from scikit-learn; pip install 'pqlib[torch]'"
        ) from None
    loaded = load_digits()
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(loaded.target))
    n_test = round(_TEST_SHARE * len(order))
    chosen = np.sort(order[:n_test] if split == "test" else order[n_test:])
    images = np.rint(loaded.images[chosen] * (255 / 16)).astype(np.uint8)
    return images, loaded.target[chosen].astype(np.int64)


class Digits:
    """The digits, enlarged to (height, width) by bilinear interpolation, as (image, label)."""

    def __init__(self, split: str, size: tuple[int, int]):
        self.images, self.labels = digits(split)
        self.size = size

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, int]:
        image = _enlarged(torch.from_numpy(self.images[index]), self.size).round()
        return tv_tensors.Image(image.to(torch.uint8).expand(3, -1, -1)), int(self.labels[index])


class DigitScenes:
    """Scenes of one large digit, or for detection of up to three, made when asked for.

    Parameters
    ----------
    split : {"train", "test"}
        No digit is in scenes of both.
    n_scenes : int
    size : (height, width)
        In pixels, 32 at least.
    task : str
        What comes with the image: the label of the one digit ("classification"), its mask
        ("segmentation": 0 is the ground, d + 1 the digit d), or the boxes and labels of one to
        three smaller digits ("detection").

    Notes
    -----
    Scene i depends on the split, its size, i and on whether it is for detection: the digits, their
    colours, sizes and places, and the ground, smooth noise between two colours. No two boxes
    overlap, and no two digits of a scene are of the same size. Digits are bright on dark, as they
    are in scikit-learn, and but for detection one fills most of the scene: of smaller ones, dark or
    bright, MobileNet-V2 learnt nothing at 32 pixels in 15 epochs of 5,040 at a rate of 0.05, nor
    did DeepLab-V3 at 64 pixels in 20 epochs of 720.
    """

    def __init__(self, split: str, n_scenes: int, size: tuple[int, int], task: str):
        if min(size) < 32:
            raise ValueError(f"size must be >= 32 for scenes, got {size}; three digits need room")
        self.split, self.n_scenes, self.size, self.task = split, n_scenes, size, task

    def __len__(self) -> int:
        return self.n_scenes

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Any]:
        if not 0 <= index < self.n_scenes:
            raise IndexError(f"scene {index} is not among {self.n_scenes}")
        image, mask, boxes, labels = self._scene(index)
        image = tv_tensors.Image(image)
        if self.task == "classification":
            return image, labels[0]
        if self.task == "segmentation":
            return image, tv_tensors.Mask(mask)
        return image, as_boxes(boxes, labels, self.size)

    def _scene(self, index: int):
        rng = np.random.default_rng([_SPLIT_SEED, _PLACES[self.split], index])
        images, labels = digits(self.split)
        ground, ink = _colours(rng)
        noise = torch.from_numpy(rng.random((2, 6, 6), dtype=np.float32))
        texture = _enlarged(noise, self.size)  # (2, height, width)
        canvas = ground[:, None, None] + 60 * (texture[:1] - 0.5)
        mask = torch.zeros(self.size, dtype=torch.uint8)
        boxes, shown = [], []
        if self.task != "detection":
            shares = rng.uniform(*_LARGE, size=1)
        else:
            shares = np.sort(rng.uniform(*_SIDES, size=rng.integers(1, 4)))[::-1]
        sides = np.rint(shares * min(self.size)).astype(int)
        for side in sides[np.r_[True, np.diff(sides) < 0]]:
            chosen = rng.integers(len(labels))
            glyph = _enlarged(torch.from_numpy(images[chosen]), (side, side))[0] / 255
            rows, columns = (np.flatnonzero((glyph > _INK).any(d).numpy()) for d in (1, 0))
            top_left = _free_place(rng, side, self.size, boxes, rows, columns)
            if top_left is None:
                continue
            top, left = top_left
            place = slice(top, top + side), slice(left, left + side)
            here = ink[:, None, None] + 40 * (texture[1:, *place] - 0.5)
            canvas[:, *place] = torch.lerp(canvas[:, *place], here, glyph)
            mask[place][glyph > _INK] = int(labels[chosen]) + 1
            boxes.append(
                (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)
            )
            shown.append(int(labels[chosen]))
        return canvas.clamp(0, 255).round().to(torch.uint8), mask, boxes, shown


def as_boxes(boxes, labels, size: tuple[int, int], crowd=None) -> dict[str, torch.Tensor]:
    """A target of detection: boxes (n, 4) as left, top, right, bottom, labels and crowd flags."""
    boxes = torch.tensor(np.asarray(boxes, dtype=np.float32).reshape(-1, 4))
    crowd = [False] * len(boxes) if crowd is None else crowd
    return {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "crowd": torch.tensor(crowd, dtype=torch.bool),
    }


def _colours(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the ground and the ink, (3,) each, which is brighter by 90 levels or more."""
    while True:
        ground, ink = rng.uniform(20, 235, size=(2, 3)).astype(np.float32)
        if ink.mean() - ground.mean() >= 90:
            return torch.from_numpy(ground), torch.from_numpy(ink)


def _free_place(rng, side, size, boxes, rows, columns) -> tuple[int, int] | None:
    for _ in range(_N_TRIES):
        top, left = (int(rng.integers(s - side + 1)) for s in size)
        x0, y0 = left + columns[0], top + rows[0]
        x1, y1 = left + columns[-1] + 1, top + rows[-1] + 1
        if all(x1 <= a or c <= x0 or y1 <= b or d <= y0 for a, b, c, d in boxes):
            return top, left
    return None


def _enlarged(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Of shape (channels, height, width) in float32, from (channels, ...) or one channel."""
    images = images.float()
    images = images[None] if images.dim() == 2 else images
    return functional.interpolate(images[None], size=tuple(map(int, size)), mode="bilinear")[0]
