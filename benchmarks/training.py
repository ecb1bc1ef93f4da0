"""Seconds per training step with compressed weights, against the plain step and other libraries.

    python benchmarks/training.py --only resnet18_64 --out FOLDER

A step is forward, loss, backward and the optimizers' steps on one batch of random images. All
variants of a network take turns, one step each a round, in an order that rotates; each row has the
median over rounds of the step's time in relation to that of the plain step of the same round.
Weights only, 4 bits, one scale per tensor, all convolutions and linear layers:

- lsq: the scales in an Adam of their own, the weights in the same SGD as in the plain step.
- prune: from a third of the ramp on, in a run of 313 steps (four epochs of 5,000 images), each of
  which chooses new masks in all layers; prune_fixed: beyond the ramp, which is a quarter of a run.
- brevitas: its layers in place of the network's, scale learned from the initial maximum on.
- torchao: its fake quantizer with a learned range on the linear layers (it has no convolutions),
  on each weight as one row, since it has one scale per row or group of a row.

Needs ``pip install 'pqlib[torch]' brevitas torchao``. Other work on the machine shows: with
``--clock cpu --threads 1`` the processor's time is taken, which it changes less.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pandas as pd
import timm
import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize

from pqlib.training.compression import compress

N_BITS, N_CLASSES = 4, 10
RUN, UNCOUNTED = 313, 6  # steps of the run whose schedule is taken, and of a variant's start
PACKAGES = ("torch", "torchvision", "timm", "brevitas", "torchao")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Step = Callable[[], None]


def vit() -> nn.Module:
    return timm.create_model(
        "vit_small_patch16_224", img_size=32, patch_size=8, num_classes=N_CLASSES
    )


def resnet18() -> nn.Module:
    return torchvision.models.resnet18(num_classes=N_CLASSES)


def mobilenet_v2() -> nn.Module:
    return torchvision.models.mobilenet_v2(num_classes=N_CLASSES)


# name: the network and the side of its images
MODELS = {
    "resnet18_64": (resnet18, 64),
    "mobilenet_v2_32": (mobilenet_v2, 32),
    "vit_small_patch8_32": (vit, 32),
    "resnet18_32": (resnet18, 32),
}


def stepper(
    model: nn.Module, size: int, batch: int, scales: list = (), before: Callable | None = None
) -> Step:
    """One training step after the other, on the same images."""
    model.train()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, size, size, generator=generator)
    labels = torch.randint(N_CLASSES, (batch,), generator=generator)
    own = {id(scale) for scale in scales}
    weights = [p for p in model.parameters() if id(p) not in own and p.requires_grad]
    optimizers = [torch.optim.SGD(weights, lr=1e-3, momentum=0.9, weight_decay=1e-4)]
    if scales:
        optimizers.append(torch.optim.Adam(scales, lr=1e-5))

    def step() -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        if before is not None:
            before()
        for optimizer in optimizers:
            optimizer.step()

    return step


def plain(model, size, batch) -> Step:
    return stepper(model, size, batch)


def lsq(model, size, batch) -> Step:
    compression = compress(model, "lsq", N_BITS)
    return stepper(model, size, batch, compression.scales(), lambda: compression.step(0, 1))


def prune(model, size, batch) -> Step:
    compression, done = compress(model, "prune", N_BITS), iter(range(RUN // 4, 3 * RUN // 4))
    return stepper(model, size, batch, before=lambda: compression.step(next(done), RUN))


def prune_fixed(model, size, batch) -> Step:
    compression = compress(model, "prune", N_BITS)
    return stepper(model, size, batch, before=lambda: compression.step(4, 4))


def brevitas(model, size, batch) -> Step:
    from brevitas import nn as qnn
    from brevitas.inject.enum import ScalingImplType
    from brevitas.quant import Int8WeightPerTensorFloat

    class LearnedScale(Int8WeightPerTensorFloat):
        scaling_impl_type = ScalingImplType.PARAMETER_FROM_STATS
        bit_width = N_BITS
        narrow_range = False

    for name, layer in list(model.named_modules()):
        bias = getattr(layer, "bias", None) is not None
        if isinstance(layer, nn.Linear):
            sizes = (layer.in_features, layer.out_features)
            new = qnn.QuantLinear(*sizes, bias=bias, weight_quant=LearnedScale)
        elif isinstance(layer, nn.Conv2d):
            names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "groups")
            sizes = {name: getattr(layer, name) for name in names}
            new = qnn.QuantConv2d(**sizes, bias=bias, weight_quant=LearnedScale)
        else:
            continue
        new.weight = layer.weight
        new.bias = layer.bias
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, new)
    model(torch.zeros(2, 3, size, size))  # its scales are made in the first pass
    scales = [p for name, p in model.named_parameters() if "scaling_impl" in name]
    return stepper(model, size, batch, scales)


def torchao(model, size, batch) -> Step:
    from torchao.quantization.qat import initialize_fake_quantizers
    from torchao.quantization.qat.fake_quantize_config import IntxFakeQuantizeConfig
    from torchao.quantization.qat.fake_quantizer import IntxFakeQuantizer

    class OneRow(nn.Module):
        def __init__(self):
            super().__init__()
            self.quantizer = IntxFakeQuantizer(
                IntxFakeQuantizeConfig(
                    getattr(torch, f"int{N_BITS}"),
                    "per_channel",
                    is_symmetric=True,
                    is_dynamic=False,
                    range_learning=True,
                )
            )

        def forward(self, weight):
            return self.quantizer(weight.view(1, -1)).view_as(weight)

    quantizers = []
    for layer in list(model.modules()):
        if isinstance(layer, nn.Linear):
            part = OneRow()
            parametrize.register_parametrization(layer, "weight", part, unsafe=True)
            quantizers.append(part.quantizer)
    initialize_fake_quantizers(model, (torch.zeros(2, 3, size, size),))
    for quantizer in quantizers:
        quantizer.zero_point.requires_grad_(False)  # zero
    return stepper(model, size, batch, [quantizer.scale for quantizer in quantizers])


def measure(name: str, rounds: int, batch: int, clock: Callable[[], float]) -> list[dict]:
    """A row per variant of one network."""
    make, size = MODELS[name]
    variants = [plain, lsq, prune, prune_fixed, brevitas]
    variants += [torchao] if make is vit else []
    steps = {}
    for variant in variants:
        torch.manual_seed(0)
        steps[variant.__name__] = variant(make(), size, batch)
    seconds: dict[str, list[float]] = {variant: [] for variant in steps}
    order = list(steps)
    for turn in range(UNCOUNTED + rounds):
        for variant in order:
            start = clock()
            steps[variant]()
            if turn >= UNCOUNTED:
                seconds[variant].append(clock() - start)
        order = order[1:] + order[:1]
    rows = []
    for variant, taken in seconds.items():
        ratios = [a / b for a, b in zip(taken, seconds["plain"], strict=True)]
        own = [a / b for a, b in zip(taken, seconds["lsq"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        rows.append(
            {
                "model": name,
                "variant": variant,
                "batch": batch,
                "median_ms": round(1e3 * statistics.median(taken), 1),
                "to_plain": round(statistics.median(ratios), 3),
                "quartiles": f"{low:.3f}-{high:.3f}",
                "to_lsq": round(statistics.median(own), 3),
                "rounds": rounds,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="steps a variant (default 15)")
    parser.add_argument("--batch", type=int, default=64, help="images a step (default 64)")
    parser.add_argument("--threads", type=int, help="of torch (default: torch's)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--out", type=Path, help="folder for the table, with its provenance")
    options = parser.parse_args()
    if not 2 <= options.rounds <= RUN // 2 - UNCOUNTED:  # the rest of the ramp
        parser.error(f"--rounds must be 2 to {RUN // 2 - UNCOUNTED}, got {options.rounds}")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    threads = f"{torch.get_num_threads()} threads, {options.clock} clock"
    machine = {
        "command": shlex.join(["python", "benchmarks/training.py", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, {threads}",
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }
    print(json.dumps(machine), "\n")
    rows = []
    for name in options.only:
        for row in measure(name, options.rounds, options.batch, CLOCKS[options.clock]):
            rows.append(row)
            print("  ".join(f"{value!s:>14}" for value in row.values()), flush=True)
        print()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        file = options.out / "training_steps.csv"
        pd.DataFrame(rows).to_csv(file, index=False, lineterminator="\n")
        file.with_suffix(".json").write_text(json.dumps(machine, indent=1) + "\n")


if __name__ == "__main__":
    main()
