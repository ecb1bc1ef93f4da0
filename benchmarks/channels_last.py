"""Training steps with images and kernels held channels last, against the usual layout.

    python benchmarks/channels_last.py --only resnet50_48 --out FOLDER

A step is forward, loss, backward and SGD on one batch of random images, in float32 or under
autocast to bf16. The four ways of a network take turns, one step each a round, in an order that
rotates; each row has the median over rounds of the usual step's time in relation to that of the
same round channels last: above 1, channels last is faster. On processors without bf16 arithmetic
mixed precision is slow in both layouts.
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
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path

import pandas as pd
import torch
from torch.nn.functional import cross_entropy

from pqlib.training.models import build_model

N_CLASSES, UNCOUNTED = 10, 2
PRECISIONS = ("float32", "bf16")
MODELS = {  # name: the network and the side of its images
    "cifar_resnet32_32": ("cifar_resnet32", 32),
    "resnet18_48": ("resnet18", 48),
    "resnet50_48": ("resnet50", 48),
    "mobilenet_v2_32": ("mobilenet_v2", 32),
}


def stepper(model: str, size: int, batch: int, precision: str, last: bool) -> Callable[[], None]:
    """One training step after the other, on the same images."""
    net = build_model(model, n_classes=N_CLASSES, size=size).train()
    if last:
        net.to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, size, size, generator=generator)
    labels = torch.randint(N_CLASSES, (batch,), generator=generator)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        half = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
        with half:
            loss = cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()

    return step


def measure(name: str, rounds: int, batch: int) -> list[dict]:
    """A row per precision of one network."""
    ways = [(precision, last) for precision in PRECISIONS for last in (False, True)]
    steps = {way: stepper(*MODELS[name], batch, *way) for way in ways}
    seconds: dict[tuple[str, bool], list[float]] = {way: [] for way in ways}
    for turn in range(UNCOUNTED + rounds):
        for way in ways:
            start = time.perf_counter()
            steps[way]()
            if turn >= UNCOUNTED:
                seconds[way].append(time.perf_counter() - start)
        ways = ways[1:] + ways[:1]
    rows = []
    for precision in PRECISIONS:
        usual, last = seconds[precision, False], seconds[precision, True]
        gains = [a / b for a, b in zip(usual, last, strict=True)]
        low, _, high = statistics.quantiles(gains, n=4)
        rows.append(
            {
                "model": name,
                "precision": precision,
                "batch": batch,
                "images_per_second": round(batch / statistics.median(last), 1),
                "gain": round(statistics.median(gains), 2),
                "quartiles": f"{low:.2f}-{high:.2f}",
                "rounds": rounds,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="steps a way (default 9)")
    parser.add_argument("--batch", type=int, default=128, help="images a step (default 128)")
    parser.add_argument("--threads", type=int, help="of torch (default: torch's)")
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--out", type=Path, help="folder for the table, with its provenance")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds must be 2 or more, got {options.rounds}")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    machine = {
        "command": shlex.join(["python", "benchmarks/channels_last.py", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, "
        f"{torch.get_num_threads()} threads",
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("torch", "torchvision")},
    }
    print(json.dumps(machine), "\n")
    rows = []
    for name in options.only:
        for row in measure(name, options.rounds, options.batch):
            rows.append(row)
            print("  ".join(f"{value!s:>18}" for value in row.values()), flush=True)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        file = options.out / "channels_last.csv"
        pd.DataFrame(rows).to_csv(file, index=False, lineterminator="\n")
        file.with_suffix(".json").write_text(json.dumps(machine, indent=1) + "\n")


if __name__ == "__main__":
    main()
