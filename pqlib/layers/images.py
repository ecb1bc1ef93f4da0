"""Pictures to run a network on: a folder of them, or photographs that pip packages carry."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pqlib._validation import check_integer
from pqlib.layers.models import Preprocessing, python_object

if TYPE_CHECKING:
    import PIL.Image
    import torch

SUFFIXES = (".jpg", ".jpeg", ".png")
# the colour photographs in their wheels; scikit-image downloads others, which are not used
PHOTOGRAPHS = {
    "scikit-learn": ("sklearn/datasets/images/china.jpg", "sklearn/datasets/images/flower.jpg"),
    "scikit-image": tuple(
        f"skimage/data/{file}"
        for file in (
            "astronaut.png",
            "chelsea.png",
            "coffee.png",
            "motorcycle_left.png",
            "rocket.jpg",
        )
    ),
}
_N_CROPS = 32
_SHORTEST = 0.5  # side of a crop, of the photograph's shorter side

Transform = Callable[["PIL.Image.Image"], "torch.Tensor"]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Images:
    """Images in batches of one, read and prepared anew each time they are iterated over.

    Attributes
    ----------
    names : tuple of str
        What each is: its path in the folder, or the photograph and the crop (left, top, right,
        bottom; "mirrored" where it is).
    """

    names: tuple[str, ...] = field(repr=False)
    _read: Callable[[int], "PIL.Image.Image"] = field(repr=False)
    _transform: Transform

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> "Iterator[torch.Tensor]":
        import torch

        for i, name in enumerate(self.names):
            values = self._transform(self._read(i))
            if not isinstance(values, torch.Tensor):
                raise TypeError(
                    f"transform must give a torch.Tensor, got {type(values).__name__} for {name}"
                )
            yield values[None]


def open_images(
    images: str | Path | None = None,
    transform: str | Transform = "imagenet",
    *,
    n_images: int | None = None,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
) -> Images:
    """Images for `pqlib.layers.capture.capture_layers`.

    Parameters
    ----------
    images : str or Path, optional
        A folder of JPEG and PNG files, searched with all its folders. By default crops of seven
        photographs that scikit-learn and scikit-image bring along.
    transform : str or callable, default "imagenet"
        From an RGB PIL image to a Tensor of one example. ``"imagenet"`` is ``preprocessing``;
        ``"python:package.module:factory"`` a callable without arguments that returns the transform.
    n_images : int >= 1, optional
        How many: drawn without replacement from a folder, by default all of it; or crops, by
        default 32.
    seed : int >= 0, default 0
        Of the draw. Crop i depends on the seed and i alone.
    preprocessing : Preprocessing, optional
        What "imagenet" stands for, such as that of `pqlib.layers.models.open_model`.

    Returns
    -------
    Images

    Raises
    ------
    ValueError, TypeError
        On a folder without enough images; while iterating, on a file that cannot be read.
    OSError, ModuleNotFoundError
        If the folder or the packages are absent.

    Notes
    -----
    A crop is a square with a side of half to all of the photograph's shorter one, anywhere, and
    mirrored every other time. Crops of seven photographs are no substitute for as many images: how
    far results depend on them has to be looked at.
    """
    if n_images is not None:
        n_images = check_integer("n_images", n_images, low=1, high=10**9)
    seed = check_integer("seed", seed, low=0, high=2**63 - 1)
    if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
        raise TypeError(f"preprocessing must be a Preprocessing or None, got {preprocessing!r}")
    if transform == "imagenet":
        transform = preprocessing or Preprocessing()
    elif isinstance(transform, str) and not transform.startswith("python:"):
        raise ValueError(
            "transform must be 'imagenet', python:package.module:factory or a callable, got "
            f"{transform!r}"
        )
    elif isinstance(transform, str):
        made = python_object(transform, "transform")()
        if not callable(made):
            raise TypeError(f"transform {transform!r} made a {type(made).__name__}, not a callable")
        transform = made
    elif not callable(transform):
        raise TypeError(
            f"transform must be 'imagenet', python:... or a callable, got {transform!r}"
        )
    if images is None:
        return _crops(n_images or _N_CROPS, seed, transform)
    if not isinstance(images, str | Path):
        raise TypeError(f"images must be the path of a folder or None, got {images!r}")
    folder = Path(images).expanduser()
    if not folder.is_dir():
        raise NotADirectoryError(f"images must be a folder, {images!r} is none")
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    files = sorted(p.relative_to(folder).as_posix() for p in found if not p.name.startswith("."))
    if not files:
        raise ValueError(f"folder {images!r} has no file that ends in {', '.join(SUFFIXES)}")
    if n_images is not None:
        if n_images > len(files):
            raise ValueError(f"n_images must be <= {len(files)}, all in {images!r}; got {n_images}")
        drawn = np.random.default_rng(seed).choice(len(files), n_images, replace=False)
        files = [files[i] for i in sorted(drawn)]
    return Images(tuple(files), lambda i: _read(folder / files[i]), transform)


def _crops(n_images: int, seed: int, transform: Transform) -> Images:
    photographs = [_packaged(p, file) for p, files in PHOTOGRAPHS.items() for file in files]
    crops = [_crop(photographs[i % len(photographs)], seed, i) for i in range(n_images)]

    def read(i: int) -> "PIL.Image.Image":
        path, box, mirrored = crops[i]
        image = _read(path).crop(box)
        return image.transpose(0) if mirrored else image  # FLIP_LEFT_RIGHT

    names = (
        f"{path.name} {' '.join(map(str, box))}{' mirrored' * mirrored}"
        for path, box, mirrored in crops
    )
    return Images(tuple(names), read, transform)


def _crop(path: Path, seed: int, i: int) -> tuple[Path, Box, bool]:
    from PIL import Image

    rng = np.random.default_rng([seed, i])
    with Image.open(path) as image:
        width, height = image.size
    side = round(min(width, height) * rng.uniform(_SHORTEST, 1))
    left = int(rng.integers(width - side + 1))
    top = int(rng.integers(height - side + 1))
    return path, (left, top, left + side, top + side), bool(rng.integers(2))


def _packaged(package: str, file: str) -> Path:
    try:
        path = Path(metadata.distribution(package).locate_file(file))
    except metadata.PackageNotFoundError:
        raise ModuleNotFoundError(
            f"the photographs need {package}, which is not installed; pip install {package}, or "
            "give a folder of images"
        ) from None
    if not path.is_file():
        raise FileNotFoundError(f"{package} has no {file}; reinstall it, or give a folder")
    return path


def _read(path: Path) -> "PIL.Image.Image":
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path} cannot be read as an image: {error}; replace or remove it"
        ) from None
