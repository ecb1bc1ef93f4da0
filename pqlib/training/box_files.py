"""Images with boxes on disk: VOC's XML files and COCO's JSON."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import torch
from torchvision import datasets, tv_tensors

from pqlib.training.digit_scenes import as_boxes
from pqlib.training.folders import (
    SPLITS,
    SUFFIXES,
    Files,
    Folder,
    expect,
    read_image,
    what_is_there,
)

if TYPE_CHECKING:
    from pycocotools.coco import COCO

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
N_COCO = 90  # the largest of COCO's 80 category numbers, which is what detectors are trained for
_COCO_FILE = "instances.json"


def open_boxes(path: Path) -> Folder:
    """Boxes: VOC's XML files, or COCO's JSON.

    - ``JPEGImages/``, ``Annotations/*.xml`` and ``ImageSets/Main/train.txt``, ``val.txt``,
      ``test.txt``; without lists all images are one split, "all".
    - ``instances.json`` and ``images/``, one split "all"; or these two in ``train/``, ``val/`` and
      ``test/``.
    """
    if (path / "Annotations").is_dir():
        return _open_xml(path)
    if (path / _COCO_FILE).is_file():
        found = {"all": (path / "images", path / _COCO_FILE)}
    else:
        found = {s: (path / s / "images", path / s / _COCO_FILE) for s in SPLITS}
        found = {s: both for s, both in found.items() if both[1].is_file()}
        if not {"train", "test"} <= {*found}:
            raise FileNotFoundError(
                f"{path} has no Annotations/ with VOC's XML files, no {_COCO_FILE} with images/, "
                f"and not both in train/ and test/; {what_is_there(path)}"
            )
    stored = {split: read_coco(*both) for split, both in found.items()}
    categories = sorted({category for coco in stored.values() for category in coco.cats})
    number = {category: i for i, category in enumerate(categories)}
    splits = {s: coco_files(found[s][0], coco, number) for s, coco in stored.items()}
    return Folder(splits, len(number))


def read_coco(images: Path, annotations: Path) -> "COCO":
    """Annotations in COCO's format, by torchvision."""
    if not images.is_dir():
        raise FileNotFoundError(f"{images} is no folder; {what_is_there(images.parent)}")
    try:
        with redirect_stdout(StringIO()):  # it tells how long it takes
            coco = datasets.CocoDetection(images, annotations).coco
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise ValueError(f"{annotations} cannot be read: {error}; get it again") from None
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "COCO's format needs pycocotools; pip install 'pqlib[training]'"
        ) from None
    if not {"images", "annotations", "categories"} <= {*coco.dataset}:
        raise ValueError(
            f"{annotations} must have images, annotations and categories, as COCO's files do"
        )
    return coco


def coco_files(images: Path, coco: "COCO", number: dict[int, int]) -> Files:
    """One split in COCO's format; ``number`` gives the class of a category's id."""
    stray = {*coco.imgToAnns} - {*coco.imgs}, {*coco.catToImgs} - {*number}
    if any(stray):
        raise ValueError(
            f"annotations of {images} are of images {sorted(stray[0])[:5]} and categories "
            f"{sorted(stray[1])[:5]} that are not listed"
        )
    entries = []
    for key in sorted(coco.imgs):
        own = coco.imgToAnns.get(key, [])
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in own)]
        labels = [number[a["category_id"]] for a in own]
        crowd = [bool(a.get("iscrowd", 0)) for a in own]
        entries.append((images / coco.imgs[key]["file_name"], boxes, labels, crowd))
    return Files(entries, read_boxes)


def _open_xml(path: Path) -> Folder:
    expect(path, "JPEGImages")
    lists = {s: path / "ImageSets" / "Main" / f"{s}.txt" for s in SPLITS}
    names = {s: file.read_text().split() for s, file in lists.items() if file.is_file()}
    if not {"train", "test"} <= {*names}:
        lists = {"all": path / "Annotations"}
        names = {"all": sorted(p.stem for p in lists["all"].glob("*.xml"))}
    empty = [lists[split] for split, own in names.items() if not own]
    if empty:
        raise FileNotFoundError(f"{empty[0]} names no image; {what_is_there(empty[0].parent)}")
    pairs = {
        split: [(_image_of(path, n), path / "Annotations" / f"{n}.xml") for n in own]
        for split, own in names.items()
    }
    classes = {name for own in pairs.values() for _, file in own for name in _parsed(file)[1]}
    number = {name: i for i, name in enumerate(sorted(classes))}
    splits = {split: xml_files(*zip(*own, strict=True), number) for split, own in pairs.items()}
    return Folder(splits, len(number))


def _image_of(path: Path, name: str) -> Path:
    files = [path / "JPEGImages" / f"{name}{suffix}" for suffix in SUFFIXES]
    return next((file for file in files if file.is_file()), files[0])


def xml_files(images: Sequence, annotations: Sequence, number: dict[str, int]) -> Files:
    """One split in VOC's format; ``number`` gives the class of an object's name."""
    entries = []
    for image, annotation in zip(images, annotations, strict=True):
        boxes, names, difficult = _parsed(Path(annotation))
        unknown = sorted({*names} - {*number})
        if unknown:
            raise ValueError(f"{annotation} has an object {unknown[0]!r}, not one of {[*number]}")
        entries.append((Path(image), boxes, [number[name] for name in names], difficult))
    return Files(entries, read_boxes)


def _parsed(file: Path) -> tuple[list[tuple[float, ...]], list[str], list[bool]]:
    """Boxes, names and difficult flags; VOC counts pixels from 1 and the last one belongs."""
    boxes, names, difficult = [], [], []
    try:
        for item in ElementTree.parse(file).getroot().findall("object"):
            corners = [item.findtext(f"bndbox/{c}") for c in ("xmin", "ymin", "xmax", "ymax")]
            left, top, right, bottom = map(float, corners)
            boxes.append((left - 1, top - 1, right, bottom))
            names.append(item.findtext("name").strip())
            difficult.append(item.findtext("difficult", "0").strip() == "1")
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} is listed and not there") from None
    except (ElementTree.ParseError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{file} is no annotation in VOC's format: {error}") from None
    return boxes, names, difficult


def read_boxes(entry) -> tuple[tv_tensors.Image, dict[str, torch.Tensor]]:
    """An image with its boxes, those without area left out."""
    file, boxes, labels, crowd = entry
    image = read_image(file)
    height, width = image.shape[-2:]
    kept = []
    for i, (left, top, right, bottom) in enumerate(boxes):
        box = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        if box[0] < box[2] and box[1] < box[3]:
            kept.append((box, labels[i], crowd[i]))
    boxes, labels, crowd = ([k[j] for k in kept] for j in range(3))
    return image, as_boxes(boxes, labels, (height, width), crowd)
