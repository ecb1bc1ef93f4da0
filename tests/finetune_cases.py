"""A network of a few hundred weights that trains on digits in a blink, and its mishaps."""

import os

import torch
from torch import nn

from pqlib.experiments.finetune_config import FineTune
from pqlib.training.data import open_data
from pqlib.training.settings import Settings
from pqlib.training.tasks import open_task

SETTINGS = Settings(3, 32, 0.1, weight_decay=1e-3, seed=4)
CONFIG = FineTune(
    "python:finetune_cases:tiny", "digits", SETTINGS, size=8, limit=120, augment=False, bn_batches=2
)


def tiny(n_classes=10):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(128, n_classes),
    )


def without_memory(n_classes=10):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def diverging(n_classes=10):
    net = tiny(n_classes)
    net.register_forward_hook(lambda module, given, out: out * float("nan"))
    return net


def killed(n_classes=10):
    os.kill(os.getpid(), 9)


def opened(**options):
    data = open_data("digits", task="classification", size=8, limit=120, **options)
    return data, open_task("python:finetune_cases:tiny", data)


def seeded(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return tiny()


def state_of(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    assert [k for k in a if not torch.equal(a[k], b[k])] == []
