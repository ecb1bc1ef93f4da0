"""The eight networks of section 5, small residual nets, and any network of one's own."""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from pqlib._validation import check_choice, check_integer
from pqlib.layers.models import open_model, python_object
from pqlib.training.cifar_resnet import CifarResNet
from pqlib.training.dense_networks import (
    EFFICIENTDET,
    deeplab,
    efficientdet,
    efficientdet_config,
    library,
)
from pqlib.training.weights import load, read_state

MODELS = (
    *("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_lite0"),
    *("vit_small", "deeplab_v3_mobilenet_v2", "efficientdet"),
)
SMALL_MODELS = ("cifar_resnet20", "cifar_resnet32")
TASKS = ("classification", "segmentation", "detection")
STEMS = ("imagenet", "small")
Size = int | tuple[int, int]
Normalization = tuple[tuple[float, ...], tuple[float, ...]]

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_PACKAGED_LITE0 = "pip:efficientnet-lite0"
_CIFAR_URL = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"


@dataclass(frozen=True)
class _Recipe:
    """How a network is made; ``source`` holds its pretrained weights, ``head`` its classifier."""

    make: Callable[..., nn.Module]
    head: str
    source: str
    task: str = "classification"
    normalization: Normalization = _IMAGENET
    shrink_stem: Callable[[nn.Module], None] | None = None


def build_model(
    name: str,
    *,
    n_classes: int,
    size: Size,
    stem: str = "imagenet",
    patch: int | None = None,
    weights: str | None = None,
    variant: str | None = None,
    seed: int = 0,
) -> nn.Module:
    """A network of full size, as its library makes it.

    Parameters
    ----------
    name : str
        One of `MODELS` or `SMALL_MODELS`, or ``python:package.module:factory`` (see Notes).
    n_classes : int >= 1
        Of the data; in segmentation with the background.
    size : int or (height, width)
        Of the images in pixels. DeepLab-V3 wants multiples of its output stride, 8 or 16,
        EfficientDet multiples of 32, a ViT multiples of its patch.
    stem : {"imagenet", "small"}, default "imagenet"
        "small" is for images of some 32 pixels. The first convolution keeps the resolution: in the
        ResNets it becomes 3 x 3 with stride 1 and the pooling behind it goes, in the MobileNets and
        EfficientNet-Lite0 its stride becomes 1. Nothing else has such a stem.
    patch : int, optional
        Side of the ViT's patches, 16 by default; for the ViT alone.
    weights : str, optional
        - None or ``"random"``: as initialized.
        - ``"pretrained"``: the library's, of ImageNet, COCO (EfficientDet) or CIFAR-10. Downloaded
          if need be. DeepLab-V3's are the backbone's alone.
        - ``"pip:efficientnet-lite0"``: from a pip package, for efficientnet_lite0 and for the
          backbone of EfficientDet-Lite0.
        - A path, an address with its hash, or any other source of `weights.read_state`.
    variant : str, optional
        - Which EfficientDet, by effdet's name: ``"tf_efficientdet_lite0"``, the default, or
          ``"tf_efficientdet_d1"``, the paper's, ...
        - ``"small"``: a DeepLab-V3 for images of some 100 pixels, of output stride 16 and atrous
          rates 1, 2 and 3. By default 8 and 12, 24, 36, which on features of 12 x 16 reach beyond
          the edges: eight of a kernel's nine weights, or six, would meet nothing but padding.
    seed : int >= 0, default 0
        Of torch's random numbers while the network is made; the global ones stay as they are.

    Returns
    -------
    torch.nn.Module
        In training mode, on the CPU. It takes normalized images: `Task.inputs` makes them.

    Raises
    ------
    ValueError, TypeError
        On an unknown name, an option that the network does not have, or weights that do not fit.
    OSError, ModuleNotFoundError
        If a file, a package or the network is absent; the message says what to do.

    Notes
    -----
    Where the weights are of other classes, the classifier stays random, and `logging` says so. The
    same holds for the first convolution of a ResNet with a small stem. A ViT's position embedding
    and patches are resampled to the size.

    A factory ``python:...`` is called with those of ``n_classes`` and ``size`` that are among its
    parameters. Its attributes ``task`` and ``normalization`` ((means, standard deviations) of three
    channels in 0..1), where it has them, say what it does; by default it classifies, with
    ImageNet's.
    """
    recipe = _recipe(name, variant)
    n_classes = check_integer("n_classes", n_classes, low=1, high=10**6)
    height, width = as_size(size)
    check_choice("stem", stem, STEMS)
    seed = check_integer("seed", seed, low=0, high=2**63 - 1)
    if stem == "small" and recipe.shrink_stem is None:
        raise ValueError(f"stem 'small' is none of {name}'s options; leave it 'imagenet'")
    options = {}
    if name == "vit_small":
        options["patch"] = check_integer("patch", 16 if patch is None else patch, low=1, high=1024)
    elif patch is not None:
        raise ValueError(f"patch is an option of vit_small alone; leave it None for {name}")
    if name == "efficientdet":
        options["variant"] = variant or EFFICIENTDET
    elif name == "deeplab_v3_mobilenet_v2":
        options["variant"] = variant
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = recipe.make(n_classes, (height, width), **options)
        if stem == "small":
            recipe.shrink_stem(model)
    if weights not in (None, "random"):
        _load(model, name, recipe, weights, stem, options.get("variant"))
    return model.train()


def task_of(name: str) -> str:
    """What a network does: "classification", "segmentation" or "detection"."""
    return _recipe(name).task


def normalization_of(name: str, variant: str | None = None) -> Normalization:
    """Means and standard deviations of three channels in 0..1 that a network's images want."""
    return _recipe(name, variant).normalization


def as_size(size: Size) -> tuple[int, int]:
    """Height and width in pixels, from both or from one number for both."""
    if isinstance(size, tuple | list):
        if len(size) != 2:
            raise ValueError(f"size must be a number or (height, width), got {size!r}")
        height, width = size
    else:
        height = width = size
    return (
        check_integer("size", height, low=8, high=10**5),
        check_integer("size", width, low=8, high=10**5),
    )


def _recipe(name: str, variant: str | None = None) -> _Recipe:
    if not isinstance(name, str):
        raise TypeError(f"model must be a str, got {name!r}")
    if variant is not None and name not in ("efficientdet", "deeplab_v3_mobilenet_v2"):
        raise ValueError(
            "variant is an option of efficientdet and deeplab_v3_mobilenet_v2 alone; leave it None "
            f"for {name}"
        )
    if name.startswith("python:"):
        return _recipe_of(python_object(name, "model"), name)
    if name not in _RECIPES:
        known = [*_RECIPES]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise ValueError(
            f"model {name!r} is unknown; the nearest is {near[0]!r}. Known are {', '.join(known)} "
            "and python:package.module:factory"
        )
    recipe = _RECIPES[name]
    if name == "efficientdet":
        config = efficientdet_config(variant, 1, (128, 128))
        means, deviations = config.get("mean", _IMAGENET[0]), config.get("std", _IMAGENET[1])
        return _Recipe(
            *(recipe.make, recipe.head, config.url, recipe.task),
            (tuple(means), tuple(deviations)),
        )
    return recipe


def _recipe_of(factory: Callable[..., nn.Module], name: str) -> _Recipe:
    def make(n_classes, size):
        given = {"n_classes": n_classes, "size": size}
        try:
            wanted = inspect.signature(factory).parameters
        except ValueError:  # of a built-in one
            wanted = {}
        module = factory(**{k: v for k, v in given.items() if k in wanted})
        if not isinstance(module, nn.Module):
            raise TypeError(f"model {name!r} made a {type(module).__name__}, no torch.nn.Module")
        return module

    task = check_choice(f"task of {name}", getattr(factory, "task", "classification"), TASKS)
    normalization = getattr(factory, "normalization", _IMAGENET)
    if [len(part) for part in normalization] != [3, 3]:
        raise ValueError(
            f"normalization of {name} must be (means, standard deviations) of three channels, got "
            f"{normalization!r}"
        )
    return _Recipe(make, "", "", task, normalization)


def _load(model, name, recipe, weights, stem, variant):
    what = f"weights {weights!r} of {name}"
    source = recipe.source if weights == "pretrained" else weights
    if not source:
        raise ValueError(f"{what} are unknown; give a path, or None")
    if weights == _PACKAGED_LITE0:
        if name not in ("efficientnet_lite0", "efficientdet") or variant not in (
            *(None, EFFICIENTDET),
        ):
            raise ValueError(
                f"{what} do not fit: they are efficientnet_lite0's, or {EFFICIENTDET}'s backbone"
            )
        state = open_model("timm:efficientnet_lite0").module.state_dict()  # names by their order
        state = {k: v for k, v in state.items() if v.is_floating_point()}
        if name == "efficientdet":
            own = model.backbone.state_dict()
            load(model.backbone, {k: v for k, v in state.items() if k in own}, what)
            return
    else:
        state = read_state(source)
    if name == "vit_small":
        from timm.models.vision_transformer import checkpoint_filter_fn

        state = checkpoint_filter_fn(state, model)
    if name == "deeplab_v3_mobilenet_v2" and weights == "pretrained":
        state = {k: v for k, v in state.items() if not k.startswith("classifier.")}
        load(model.encoder, state, what)
        return
    resnet_stem = ("conv1",) if stem == "small" and name in ("resnet18", "resnet50") else ()
    load(model, state, what, (*resnet_stem, recipe.head) if recipe.head else resnet_stem)


def _torchvision(name, **options):
    def make(n_classes, size):
        get_model = library("torchvision.models").get_model
        return get_model(name, weights=None, num_classes=n_classes, **options)

    return make


def _lite0(n_classes, size):
    return library("timm").create_model("tf_efficientnet_lite0", num_classes=n_classes)


_FEW_TOKENS = 64  # so few take longer in torch's fused attention, in bf16 on a CPU


def _vit(n_classes, size, patch):
    if any(side % patch for side in size):
        raise ValueError(f"size must be multiples of the patch {patch}, got {size}")
    model = library("timm").create_model(
        "vit_small_patch16_224", num_classes=n_classes, img_size=size, patch_size=patch
    )
    if (size[0] // patch) * (size[1] // patch) <= _FEW_TOKENS:
        for block in model.blocks:
            block.attn.fused_attn = False
    return model


def _shrink_resnet(model):
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()


def _shrink_mobilenet(model):
    model.features[0][0].stride = (1, 1)


def _shrink_lite0(model):
    model.conv_stem.stride = (1, 1)


_RESNET = {"shrink_stem": _shrink_resnet}
_MOBILENET = {"shrink_stem": _shrink_mobilenet}
_RECIPES = {
    "resnet18": _Recipe(_torchvision("resnet18"), "fc", "torchvision:resnet18", **_RESNET),
    "resnet50": _Recipe(  # each block begins as nothing, or the first steps go astray
        _torchvision("resnet50", zero_init_residual=True), "fc", "torchvision:resnet50", **_RESNET
    ),
    "mobilenet_v2": _Recipe(
        *(_torchvision("mobilenet_v2"), "classifier.1", "torchvision:mobilenet_v2"), **_MOBILENET
    ),
    "mobilenet_v3_small": _Recipe(
        *(_torchvision("mobilenet_v3_small"), "classifier.3", "torchvision:mobilenet_v3_small"),
        **_MOBILENET,
    ),
    "efficientnet_lite0": _Recipe(
        *(_lite0, "classifier", "timm:tf_efficientnet_lite0"),
        normalization=_HALF,
        shrink_stem=_shrink_lite0,
    ),
    "vit_small": _Recipe(_vit, "head", "timm:vit_small_patch16_224", normalization=_HALF),
    "deeplab_v3_mobilenet_v2": _Recipe(
        deeplab, "segmentation_head.0", "torchvision:mobilenet_v2", "segmentation"
    ),
    "efficientdet": _Recipe(efficientdet, "class_net.predict", "", "detection"),
    "cifar_resnet20": _Recipe(
        lambda n_classes, size: CifarResNet(3, n_classes),
        "linear",
        f"{_CIFAR_URL}resnet20-12fca82f.th",
    ),
    "cifar_resnet32": _Recipe(
        lambda n_classes, size: CifarResNet(5, n_classes),
        "linear",
        f"{_CIFAR_URL}resnet32-d509ac18.th",
    ),
}
