"""Images with labels, masks or boxes on disk, in the layouts that people have."""

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors

from pqlib.training.tasks import VOID

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
N_CAMVID = 11  # label maps hold 0..10, and 11 for void
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Folder:
    """What was found: one sequence of (image, target) per split, and the number of classes."""

    splits: dict[str, "Files"]
    n_classes: int


class Files:
    """A sequence of (image, target) read from files when asked for.

    ``entries`` hold what ``read`` takes; a file that cannot be read is named in the message.
    """

    def __init__(self, entries: list[Any], read: Callable[[Any], tuple[tv_tensors.Image, Any]]):
        self.entries, self.read = entries, read

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Any]:
        return self.read(self.entries[index])


def open_classes(path: Path) -> Folder:
    """``train/<class>/*.jpg``, ``test/`` and perhaps ``val/``, as a folder or as one zip file.

    The bytes of a zip file are kept in memory.
    """
    if path.suffix == ".zip":
        files, load = _of_zip(path)
    else:
        expect(path, "train")
        files = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
        load = _Loader(path)
    by_split: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    for file in files:
        split, *parts = file.split("/")
        if split in by_split and len(parts) >= 2 and file.lower().endswith(SUFFIXES):
            by_split[split].append((file, parts[0]))
    classes = sorted({label for _, label in by_split["train"]})
    for split in ("train", "test"):
        if not by_split[split]:
            raise FileNotFoundError(
                f"{path} has no images as {split}/<class>/*.jpg; {what_is_there(path)}"
            )
    number = {label: i for i, label in enumerate(classes)}
    beyond = sorted({c for files in by_split.values() for _, c in files if c not in number})
    if beyond:
        raise ValueError(f"{path}: class {beyond[0]!r} has no images in train/; add or remove it")
    splits = {
        split: Files([(file, number[label]) for file, label in found], _ReadClass(load))
        for split, found in by_split.items()
        if found
    }
    return Folder(splits, len(classes))


def open_camvid(path: Path) -> Folder:
    """``train/``, ``val/``, ``test/`` with images, ``trainannot/``, ... with label maps.

    Label maps hold 0..10 and 11 for void, as CamVid's do; with a file ``classes.txt``, one name per
    line, of n lines: 0..n-1, and n for void. 255 is void in both.
    """
    expect(path, "train")
    names = path / "classes.txt"
    n_classes = N_CAMVID
    if names.is_file():
        n_classes = sum(bool(line.strip()) for line in names.read_text().splitlines())
    splits = {}
    for split in SPLITS:
        images = path / split
        if not images.is_dir() and split == "val":
            continue
        expect(path, split)
        expect(path, f"{split}annot")
        pairs = []
        for image in _images_in(images):
            label = path / f"{split}annot" / f"{image.stem}.png"
            label = label if label.is_file() else label.with_name(image.name)
            if not label.is_file():
                raise FileNotFoundError(f"{image} has no label map; {label} was expected")
            pairs.append((image, label))
        if not pairs:
            raise FileNotFoundError(f"{images} has no images; {what_is_there(images)}")
        splits[split] = Files(pairs, ReadMask(n_classes, void=n_classes))
    return Folder(splits, n_classes)


def read_image(file: str | Path | BytesIO, name: str = "") -> tv_tensors.Image:
    """An RGB image, uint8 (3, height, width)."""
    try:
        with Image.open(file) as image:
            values = np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{name or file} cannot be read as an image: {error}; replace or remove it"
        ) from None
    return tv_tensors.Image(torch.from_numpy(values).permute(2, 0, 1).contiguous())


def _read_mask(file: Path, n_classes: int, void: int, image: torch.Tensor) -> tv_tensors.Mask:
    """A label map of ``image``, uint8 (height, width), in which ``void`` has become 255."""
    try:
        with Image.open(file) as stored:
            values = np.array(stored)  # of a palette the numbers, not the colours
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(
            f"{file} cannot be read as a label map: {error}; replace or remove it"
        ) from None
    if values.shape != tuple(image.shape[-2:]):
        raise ValueError(
            f"{file} must hold one label for each pixel of its image, {tuple(image.shape[-2:])}, "
            f"got shape {values.shape}"
        )
    beyond = values[(values >= n_classes) & (values != void) & (values != VOID)]
    if beyond.size:
        raise ValueError(
            f"{file} has the label {beyond[0]}; expected are 0..{n_classes - 1}, and for void "
            f"{' or '.join(map(str, sorted({void, VOID})))}"
        )
    mask = np.where(values == void, VOID, values).astype(np.uint8)
    return tv_tensors.Mask(torch.from_numpy(mask))


class _Loader:
    def __init__(self, root: Path):
        self.root = root

    def __call__(self, file: str) -> tv_tensors.Image:
        return read_image(self.root / file)


class _ZipLoader:
    def __init__(self, stored: dict[str, bytes], name: str):
        self.stored, self.name = stored, name

    def __call__(self, file: str) -> tv_tensors.Image:
        return read_image(BytesIO(self.stored[file]), f"{file} in {self.name}")


class _ReadClass:
    def __init__(self, load: Callable[[str], tv_tensors.Image]):
        self.load = load

    def __call__(self, entry: tuple[str, int]) -> tuple[tv_tensors.Image, int]:
        return self.load(entry[0]), entry[1]


class ReadMask:
    """Reads an image and its label map of so many classes and of so many pixels."""

    def __init__(self, n_classes: int, void: int):
        self.n_classes, self.void = n_classes, void

    def __call__(
        self, entry: tuple[str | Path, str | Path]
    ) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        image = read_image(entry[0])
        return image, _read_mask(entry[1], self.n_classes, self.void, image)


def _of_zip(path: Path) -> tuple[list[str], _ZipLoader]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; {what_is_there(path.parent)}")
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(n for n in archive.namelist() if n.lower().endswith(SUFFIXES))
            return names, _ZipLoader({name: archive.read(name) for name in names}, path.name)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no zip file: {error}; get it again") from None


def _images_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)


def expect(path: Path, name: str) -> None:
    """Refuse a folder without a folder ``name``."""
    if not (path / name).is_dir():
        raise FileNotFoundError(f"{path} must have a folder {name}/; {what_is_there(path)}")


def what_is_there(path: Path) -> str:
    """Says what a folder holds, for messages."""
    if not path.is_dir():
        return f"{path} is no folder" if path.exists() else f"{path} is not there"
    found = sorted(os.listdir(path))
    named = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
    return f"there is {named}" if found else "it is empty"
