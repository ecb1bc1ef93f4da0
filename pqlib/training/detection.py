"""Detection: EfficientDet's focal and box losses, and the mean average precision of COCO."""

import io
import math
from collections.abc import Iterable
from contextlib import redirect_stdout
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from pqlib.training.dense_networks import efficientdet_config, library
from pqlib.training.tasks import Batch, Task

# columns of a row of "per_image"
KIND, LABEL = 0, 6  # between them the box and its score
FOUND, WANTED, CROWD = 1, 2, 3  # kinds; 0 fills up
_IOU_OF_A_MATCH = 0.5  # of an anchor with a box
_MOST_FOUND = 100  # boxes of an image that count, those of the highest scores


@dataclass(frozen=True)
class Detection(Task):
    """Boxes with classes, for EfficientDet.

    Attributes
    ----------
    variant : str, optional
        Which EfficientDet, by effdet's name; its anchors and losses follow.

    Notes
    -----
    In a batch, ``"boxes"`` are a list of float32 (n, 4), left, top, right, bottom in pixels of the
    image that the network sees; ``"labels"`` a list of int64 (n,), from 0; ``"crowd"`` a list of
    bool (n,), boxes that are not trained on and that are ignored in the metric (COCO's crowds,
    VOC's difficult ones); ``"extents"`` float32 (batch, 2), width and height of what is picture and
    not padding. n may be 0.

    Effdet counts classes from 1 and takes boxes as top, left, bottom, right; both are converted
    here, so that nobody else has to know. Stretching or shrinking an image changes no intersection
    over union, so mAP in the network's pixels is mAP in the image's own, but for rounding.
    """

    variant: str | None = None
    _parts: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    name: ClassVar[str] = "detection"
    metric: ClassVar[str] = "mAP"

    def __post_init__(self):
        super().__post_init__()
        config = efficientdet_config(self.variant, self.n_classes, self.size)
        effdet, parts = library("effdet"), library("effdet.anchors")
        anchors = parts.Anchors.from_config(config)
        # effdet takes the best 5,000 and fails where a small image has fewer
        most = min(config.max_detection_points, len(anchors.boxes) * self.n_classes)
        config.max_detection_points = most
        labeler = parts.AnchorLabeler(anchors, self.n_classes, match_threshold=_IOU_OF_A_MATCH)
        bench = effdet.DetBenchPredict(_Slot(config))
        loss = library("effdet.loss").DetectionLoss(config)
        self._parts.update(anchors=anchors, labeler=labeler, loss=loss)
        self._parts["bench"] = bench

    def collate(self, examples: list[tuple[torch.Tensor, dict[str, torch.Tensor]]]) -> Batch:
        """A batch with ``"images"``, ``"boxes"``, ``"labels"``, ``"crowd"`` and ``"extents"``."""
        images, targets = zip(*examples, strict=True)
        batch = {key: [t[key] for t in targets] for key in ("boxes", "labels", "crowd")}
        extents = torch.stack([t["extent"] for t in targets])
        return {"images": torch.stack(images), "extents": extents, **batch}

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Focal loss of the classes plus 50 times the Huber loss of the boxes, effdet's."""
        classes, boxes = model(self.inputs(batch))
        self._parts["anchors"].to(batch["images"].device)
        wanted, labels = [], []
        for box, label, crowd in zip(batch["boxes"], batch["labels"], batch["crowd"], strict=True):
            wanted.append(box[~crowd][:, [1, 0, 3, 2]])  # top, left, bottom, right
            labels.append(label[~crowd] + 1)
        targets = self._parts["labeler"].batch_label_anchors(wanted, labels)
        return self._parts["loss"](classes, boxes, *targets)[0]

    def results(self, model: nn.Module, batch: Batch) -> np.ndarray:
        """Boxes found and wanted, float32 of shape (batch, rows, 7).

        A row holds the kind (`FOUND`, `WANTED`, `CROWD`, or 0 for no box), left, top, right,
        bottom, score and label.
        """
        images = self.inputs(batch)
        ones = torch.ones(len(images), device=images.device)
        bench = self._parts["bench"].to(images.device)
        bench.model.held.append(model)
        try:
            found = bench(images, {"img_scale": ones, "img_size": batch["extents"]}).float()
        finally:
            bench.model.held.clear()
        rows = []
        for i, detections in enumerate(found):  # (100, 6): box, score, class from 1
            detections = detections[detections[:, 4] > 0]  # zeros fill up
            kind = torch.full_like(detections[:, :1], FOUND)
            label = detections[:, 5:] - 1
            row = [torch.cat([kind, detections[:, :5], label], dim=1)]
            boxes, crowd = batch["boxes"][i], batch["crowd"][i]
            kind = torch.where(crowd, CROWD, WANTED)[:, None].to(boxes)
            label = batch["labels"][i][:, None].to(boxes)
            row.append(torch.cat([kind, boxes, torch.ones_like(label), label], dim=1))
            rows.append(torch.cat(row).cpu().numpy())
        return _filled_up(rows)

    def score(self, per_image: np.ndarray) -> float:
        """COCO's mean average precision in percent, by pycocotools.

        Notes
        -----
        The mean over classes and over the thresholds 0.5, 0.55, ..., 0.95 of the intersection over
        union, of at most 100 boxes per image.
        """
        if not (per_image[:, :, KIND] == WANTED).any():
            raise ValueError("the images have no boxes: mAP is not defined; check the annotations")
        return float(self.scores(per_image, [np.arange(len(per_image))])[0])

    def scores(self, per_image: np.ndarray, draws: Iterable[np.ndarray]) -> np.ndarray:
        """`score` of images drawn with replacement, for each draw; NaN where none has a box.

        Notes
        -----
        What is found is matched with what is wanted image by image, once; only the precision is
        accumulated for each draw.
        """
        evaluation = library("pycocotools.cocoeval").COCOeval
        with redirect_stdout(io.StringIO()):  # it prints its progress
            matched = evaluation(*_as_coco(per_image), "bbox")
            matched.params.areaRng, matched.params.areaRngLbl = [[0, 1e10]], ["all"]
            matched.params.maxDets = [_MOST_FOUND]
            matched.evaluate()
            return np.array([_precision(matched, len(per_image), draw) for draw in draws])

    def _padded(self, rows: list[np.ndarray]) -> list[np.ndarray]:
        return [_filled_up([image for batch in rows for image in batch])]


class _Slot(nn.Module):
    """Where effdet's bench looks for a network and its description; holds one for a while."""

    def __init__(self, config):
        super().__init__()
        self.config, self.held = config, []

    def forward(self, images):
        return self.held[0](images)


def _as_coco(per_image):
    """What is wanted and what is found, as pycocotools has them; images are numbered from 1."""
    coco = library("pycocotools.coco").COCO
    kinds = per_image[:, :, KIND]
    labels = [{"id": int(label)} for label in np.unique(per_image[kinds > 0][:, LABEL])]
    both = []
    for held in (kinds > FOUND, kinds == FOUND):
        annotations = []
        for image, row in zip(*np.nonzero(held), strict=True):
            kind, left, top, right, bottom, score, label = per_image[image, row].tolist()
            box = [left, top, right - left, bottom - top]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": int(image) + 1, "category_id": int(label)}
                | {"bbox": box, "area": box[2] * box[3], "iscrowd": int(kind == CROWD)}
                | {"score": score}
            )
        images = [{"id": i + 1} for i in range(len(per_image))]
        own = coco()
        own.dataset = {"images": images, "annotations": annotations, "categories": labels}
        own.createIndex()
        both.append(own)
    return both


def _precision(matched, n_images, draw):
    """Mean average precision in percent of matched images drawn with replacement."""
    drawn = copy(matched)
    n_labels = len(matched.params.catIds)
    drawn.evalImgs = [matched.evalImgs[k * n_images + i] for k in range(n_labels) for i in draw]
    drawn.params = copy(matched.params)
    drawn.params.imgIds = [*range(len(draw))]
    drawn._paramsEval = drawn.params
    drawn.accumulate()
    precision = drawn.eval["precision"]
    known = precision[precision > -1]  # that of a class which nobody wants is -1
    return 100 * float(known.mean()) if known.size else math.nan


def _filled_up(images: list[np.ndarray]) -> np.ndarray:
    filled = np.zeros((len(images), max(map(len, images)), 7), dtype=np.float32)
    for row, image in zip(filled, images, strict=True):
        row[: len(image)] = image
    return filled
