"""What a fine-tuning run costs, before it is run."""

import math

from pqlib.experiments.finetune_config import FineTune

# Training images a second of one thread, on a core with AVX2, in batches of 64, with the pixels.
_RATES = {
    ("resnet18", "imagenet"): (95, 32 * 32),
    ("resnet18", "small"): (13, 32 * 32),
    ("resnet50", "imagenet"): (50, 32 * 32),
    ("resnet50", "small"): (4.5, 32 * 32),
    ("mobilenet_v2", "imagenet"): (145, 32 * 32),
    ("mobilenet_v2", "small"): (90, 32 * 32),
    ("mobilenet_v3_small", "imagenet"): (193, 32 * 32),
    ("efficientnet_lite0", "imagenet"): (87, 32 * 32),
    ("cifar_resnet20", "imagenet"): (134, 32 * 32),
    ("cifar_resnet32", "imagenet"): (75, 32 * 32),
    ("deeplab_v3_mobilenet_v2", "imagenet"): (8, 64 * 64),  # in batches of 16
    ("efficientdet", "imagenet"): (2, 320 * 320),  # in batches of 4
}
_VIT_TOKENS = 450  # a second
_SLOWER = {"lsq": 1.2, "prune": 1.05}
_START_S = 10  # imports, data, the network, its evaluation's start
_EVALUATION = 3.0  # times as fast as training


def rate_of(config: FineTune) -> float | None:
    """Training images a second of the plain network, None where it is not known.

    From measurements, see above, for other sizes in proportion to the pixels, for other numbers of
    threads in proportion to these. Processors differ by several times, and small images cost more
    than their share: `--measure` times the one at hand. Other devices, and networks of one's own,
    want that in any case.
    """
    if config.device != "cpu" or config.variant is not None:
        return None
    size = config.size if isinstance(config.size, tuple) else (config.size, config.size)
    pixels = math.prod(size)
    if config.model == "vit_small":
        alone = _VIT_TOKENS / (pixels / (config.patch or 16) ** 2)
    elif (config.model, config.stem) in _RATES:
        rate, measured = _RATES[config.model, config.stem]
        alone = rate * measured / pixels
    else:
        return None
    return alone * config.settings.n_threads


def hours(config: FineTune, n_images: tuple[int, int], rate: float | None) -> float | None:
    """An estimate of what a run takes, alone on its cores.

    Parameters
    ----------
    config : FineTune
    n_images : (int, int)
        For training, and for validation and test together.
    rate : float or None
        Training images a second of the plain network; None gives None.
    """
    if rate is None:
        return None
    n_train, n_evaluated = n_images
    trained = 0
    if config.trains:
        settings = config.settings
        trained = settings.n_steps(n_train) * min(settings.batch_size, n_train)
    n_norm = config.bn_batches * config.settings.batch_size
    evaluated = (n_evaluated + min(n_norm, n_train)) / _EVALUATION
    seconds = (trained * _SLOWER.get(config.method, 1.0) + evaluated) / rate
    return (_START_S + seconds) / 3600
