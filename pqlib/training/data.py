"""Images to train and test on: three splits, each the same for the same seed."""

import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torchvision import datasets

from pqlib._validation import check_choice, check_integer
from pqlib.training import folders
from pqlib.training.augmentation import Preparation
from pqlib.training.box_files import (
    N_COCO,
    VOC_CLASSES,
    coco_files,
    open_boxes,
    read_coco,
    xml_files,
)
from pqlib.training.digit_scenes import N_DIGITS, Digits, DigitScenes
from pqlib.training.examples import Arrays, Examples
from pqlib.training.models import TASKS, Size, as_size
from pqlib.training.tasks import VOID

FORMS = (
    "digits, scenes, scenes:N, folder:PATH, cifar10:PATH, cifar10-npz:PATH, camvid:PATH, voc:PATH, "
    "coco:PATH or boxes:PATH"
)
_N_SCENES = 2000  # for training; a quarter as many for testing
_VALIDATION_SHARE = 0.1
_TEST_SHARE = 0.15  # where nothing is set apart for testing
_FIXED_SEED = 8  # of what must be the same for everyone: the test images


@dataclass(frozen=True)
class Data:
    """What a network is trained, chosen and tested on.

    Attributes
    ----------
    train, validation, test : Examples
        Map-style datasets of (image, target); `Task.collate` makes batches of them.
    task : str
        "classification", "segmentation" or "detection".
    n_classes : int
    size : (height, width)
    name : str
        What `open_data` was given.
    """

    train: Examples
    validation: Examples
    test: Examples
    task: str
    n_classes: int
    size: tuple[int, int]
    name: str

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the training images' augmentation, from 0."""
        self.train.set_epoch(epoch)


@dataclass(frozen=True)
class _Opened:
    """Sources by split: train and test and perhaps val, or all in "all"."""

    splits: dict[str, Sequence]
    n_classes: int
    natural: bool = True


def open_data(
    source: str,
    *,
    task: str,
    size: Size,
    seed: int = 0,
    limit: int | None = None,
    augment: bool = True,
    validation: str | None = None,
) -> Data:
    """Open images with what is known about them.

    Parameters
    ----------
    source : str
        Classification:

        - ``"digits"``: the 1,797 digits of 8 x 8 pixels that scikit-learn ships, enlarged.
        - ``"folder:PATH"``: ``train/<class>/*.jpg``, ``test/`` and perhaps ``val/``, in a folder or
          in a zip file.
        - ``"cifar10:PATH"``: torchvision's, the folder that holds ``cifar-10-batches-py``.
        - ``"cifar10-npz:PATH"``: arrays ``x_train``, ``y_train``, ``x_test``, ``y_test``, images
          uint8 of shape (n, 3, height, width).

        Segmentation:

        - ``"camvid:PATH"``: images and label maps, see `folders.open_camvid`.
        - ``"voc:PATH"``: Pascal VOC 2012, the folder that holds ``VOCdevkit``; its train and val
          are our train and test.

        Detection:

        - ``"voc:PATH"``, too.
        - ``"coco:PATH"``: COCO 2017, ``train2017/``, ``val2017/`` (our test) and ``annotations/``;
          classes are COCO's numbers less 1, of 90, as trained detectors have them.
        - ``"boxes:PATH"``: VOC's XML files or COCO's JSON, see `box_files.open_boxes`.

        All three: ``"scenes"`` or ``"scenes:N"``, made from the digits, 2,000 or N for training and
        a quarter of that for testing, see `DigitScenes`.
    task : {"classification", "segmentation", "detection"}
    size : int or (height, width)
        Of the images that the network sees, in pixels.
    seed : int >= 0, default 0
        Of the validation split, of ``limit`` and of the augmentation. The test images do not depend
        on it.
    limit : int >= 1, optional
        Use at most so many images of each split, drawn at random; of the test the same for all
        seeds.
    augment : bool, default True
        Vary the training images; how is told by `Preparation`.
    validation : {"train", "test"}, optional
        What the validation split is cut from where there is none: "train", a tenth of the training
        images, drawn by the seed; "test", a fixed half of the test images, for networks that were
        trained before on all training images. By default "test" for ``cifar10-npz:``, else "train".

    Returns
    -------
    Data

    Raises
    ------
    FileNotFoundError, ModuleNotFoundError
        If something is missing; the message says what was expected and what is there.
    ValueError, TypeError
        On an unknown source, or one that does not serve the task. While iterating, on a file that
        cannot be read.
    """
    if not isinstance(source, str):
        raise TypeError(f"source must be a str such as 'digits', got {source!r}")
    check_choice("task", task, TASKS)
    height_width = as_size(size)
    seed = check_integer("seed", seed, low=0, high=2**63 - 1)
    if limit is not None:
        limit = check_integer("limit", limit, low=1, high=10**9)
    if validation is not None:
        check_choice("validation", validation, ("train", "test"))
    opened = _open(source, task, height_width)
    cut_from = validation or ("test" if source.startswith("cifar10-npz:") else "train")
    chosen = _split(opened.splits, cut_from, seed)
    preparation = Preparation(task, height_width, opened.natural)
    parts = {}
    for name, (images, indices) in chosen.items():
        if limit is not None and len(indices) > limit:
            draw = np.random.default_rng([_FIXED_SEED if name == "test" else seed, len(indices)])
            indices = np.sort(draw.choice(indices, limit, replace=False))
        if not len(indices):
            raise ValueError(f"source {source!r} has no images for {name}; it has too few in all")
        parts[name] = Examples(
            images, indices, preparation, augment=augment and name == "train", seed=seed
        )
    return Data(**parts, task=task, n_classes=opened.n_classes, size=height_width, name=source)


def _split(splits, cut_from: str, seed: int) -> dict[str, tuple[Sequence, np.ndarray]]:
    """Source and indices of each split."""
    if "all" in splits:
        images = splits["all"]
        rest, test = _cut(np.arange(len(images)), _TEST_SHARE, _FIXED_SEED)
        splits = {"train": images, "test": images}
    else:
        rest, test = (np.arange(len(splits[name])) for name in ("train", "test"))
    if "val" in splits:
        validation = splits["val"], np.arange(len(splits["val"]))
    elif cut_from == "test":
        test, half = _cut(test, 0.5, _FIXED_SEED)
        validation = splits["test"], half
    else:
        rest, share = _cut(rest, _VALIDATION_SHARE, seed)
        validation = splits["train"], share
    return {
        "train": (splits["train"], rest),
        "validation": validation,
        "test": (splits["test"], test),
    }


def _cut(indices: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What stays, and a share drawn at random, at least one; both in order."""
    order = np.random.default_rng([seed, len(indices)]).permutation(indices)
    n = max(1, round(share * len(indices)))
    return np.sort(order[n:]), np.sort(order[:n])


def _open(source: str, task: str, size: tuple[int, int]) -> _Opened:
    kind, _, rest = source.partition(":")
    if kind not in _OPENERS:
        raise ValueError(f"source must be {FORMS}; got {source!r}")
    tasks, opener = _OPENERS[kind]
    if task not in tasks:
        raise ValueError(f"source {source!r} serves {' and '.join(tasks)}, not {task}")
    if kind in ("digits", "scenes"):
        return opener(rest, task, size)
    if not rest:
        raise ValueError(f"source must be {kind}:PATH, got {source!r}")
    path = Path(os.path.expandvars(rest)).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"source {source!r}: {path} is not there; give the path of the data"
        )
    return opener(path, task, size)


def _digits(rest, task, size) -> _Opened:
    if rest:
        raise ValueError(f"source digits takes nothing behind it, got {rest!r}")
    return _Opened({s: Digits(s, size) for s in ("train", "test")}, N_DIGITS, natural=False)


def _scenes(rest, task, size) -> _Opened:
    if rest and not rest.isdecimal():
        raise ValueError(f"source must be scenes or scenes:N, got 'scenes:{rest}'")
    n = check_integer("N of scenes", int(rest or _N_SCENES), low=4, high=10**7)
    n_classes = N_DIGITS + (task == "segmentation")
    splits = {s: DigitScenes(s, k, size, task) for s, k in (("train", n), ("test", n // 4))}
    return _Opened(splits, n_classes, natural=False)


def _cifar10(path, task, size) -> _Opened:
    try:
        stored = {s: datasets.CIFAR10(path, train=s == "train") for s in ("train", "test")}
    except RuntimeError:
        raise FileNotFoundError(
            f"{path} must hold torchvision's cifar-10-batches-py, whole; "
            "torchvision.datasets.CIFAR10(root, download=True) gets it"
        ) from None
    splits = {s: Arrays(d.data, d.targets, channels_last=True) for s, d in stored.items()}
    return _Opened(splits, 10)


def _cifar10_npz(path, task, size) -> _Opened:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} must be an .npz with x_train, y_train, x_test and y_test: {error}"
        ) from None
    splits = {}
    for split in ("train", "test"):
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[1] != 3 or y.shape != (len(x),):
            raise ValueError(
                f"{path}: x_{split} must be uint8 of shape (n, 3, height, width) with n labels, "
                f"got {x.dtype} {x.shape} with {y.shape}"
            )
        splits[split] = Arrays(x, y)
    return _Opened(splits, int(max(arrays["y_train"].max(), arrays["y_test"].max())) + 1)


def _voc(path, task, size) -> _Opened:
    reader = datasets.VOCSegmentation if task == "segmentation" else datasets.VOCDetection
    try:
        stored = {s: reader(path, image_set=f) for s, f in (("train", "train"), ("test", "val"))}
    except (RuntimeError, FileNotFoundError):
        raise FileNotFoundError(
            f"{path} must hold VOCdevkit/VOC2012 with JPEGImages, Annotations, ImageSets and "
            f"SegmentationClass; {folders.what_is_there(path)}"
        ) from None
    if task == "segmentation":
        read = folders.ReadMask(len(VOC_CLASSES) + 1, VOID)
        pairs = {s: [*zip(d.images, d.masks, strict=True)] for s, d in stored.items()}
        splits = {split: folders.Files(own, read) for split, own in pairs.items()}
        return _Opened(splits, len(VOC_CLASSES) + 1)
    number = {name: i for i, name in enumerate(VOC_CLASSES)}
    splits = {s: xml_files(d.images, d.annotations, number) for s, d in stored.items()}
    return _Opened(splits, len(number))


def _coco(path, task, size) -> _Opened:
    number = {category: category - 1 for category in range(1, N_COCO + 1)}
    splits = {}
    for split, folder in (("train", "train2017"), ("test", "val2017")):
        file = path / "annotations" / f"instances_{folder}.json"
        if not file.is_file():
            raise FileNotFoundError(f"{file} is not there; {folders.what_is_there(path)}")
        splits[split] = coco_files(path / folder, read_coco(path / folder, file), number)
    return _Opened(splits, N_COCO)


def _folder(opener: Callable[[Path], folders.Folder]):
    def open_it(path, task, size) -> _Opened:
        found = opener(path)
        return _Opened(found.splits, found.n_classes)

    return open_it


_OPENERS = {
    "digits": (("classification",), _digits),
    "scenes": (TASKS, _scenes),
    "folder": (("classification",), _folder(folders.open_classes)),
    "cifar10": (("classification",), _cifar10),
    "cifar10-npz": (("classification",), _cifar10_npz),
    "camvid": (("segmentation",), _folder(folders.open_camvid)),
    "voc": (("segmentation", "detection"), _voc),
    "coco": (("detection",), _coco),
    "boxes": (("detection",), _folder(open_boxes)),
}
