"""DeepLab-V3 and EfficientDet, from the libraries that have them."""

import difflib
from importlib import import_module
from types import ModuleType

from torch import nn

EFFICIENTDET = "tf_efficientdet_lite0"
_DEEPLABS = {None: (8, (12, 24, 36)), "small": (16, (1, 2, 3))}  # output stride, atrous rates


def deeplab(n_classes: int, size: tuple[int, int], variant: str | None) -> nn.Module:
    """DeepLab-V3 on a MobileNet-V2, random, for images of (height, width)."""
    if variant not in _DEEPLABS:
        raise ValueError(f"variant of DeepLab-V3 must be 'small' or None, got {variant!r}")
    stride, rates = _DEEPLABS[variant]
    if any(side % stride for side in size):
        raise ValueError(
            f"size must be multiples of {stride} for this DeepLab-V3, got {size}; pad the images"
        )
    return library("segmentation_models_pytorch").DeepLabV3(
        *("mobilenet_v2", 5, None),  # depth of the encoder, and its weights
        classes=n_classes,
        encoder_output_stride=stride,
        decoder_atrous_rates=rates,
    )


def efficientdet(n_classes: int, size: tuple[int, int], variant: str | None) -> nn.Module:
    """One of effdet's detectors, random, for images of (height, width)."""
    config = efficientdet_config(variant, n_classes, size)
    return library("effdet").EfficientDet(config, pretrained_backbone=False)


def efficientdet_config(variant: str | None, n_classes: int, size: tuple[int, int]):
    """Effdet's own description of a detector, for images of (height, width)."""
    effdet = library("effdet")
    variant = variant or EFFICIENTDET
    known = list(effdet.config.model_config.efficientdet_model_param_dict)
    if variant not in known:
        near = difflib.get_close_matches(variant, known, n=1, cutoff=0.0)
        raise ValueError(f"effdet has no variant {variant!r}; the nearest is {near[0]!r}")
    if any(side % 32 or side < 64 for side in size):
        raise ValueError(
            f"size must be multiples of 32 and >= 64 for {variant}, got {size}; its pyramid halves "
            "an image seven times"
        )
    config = effdet.get_efficientdet_config(variant)
    config.num_classes = n_classes
    config.image_size = size
    return config


def library(module: str) -> ModuleType:
    """A module of a package that not everyone has installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"this needs {error.name}; pip install 'pqlib[torch,training]'"
        ) from None
