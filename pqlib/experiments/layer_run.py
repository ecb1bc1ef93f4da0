"""A per-layer run with progress, a ledger, an engine, and tables at its end."""

import dataclasses
import json
import os
import platform
import shlex
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from pqlib.experiments import layer_bounds, layer_stability
from pqlib.experiments.channel_optima import OUTPUT_GRID, Unit
from pqlib.experiments.engines import engine_of
from pqlib.experiments.layer_config import LayerBounds
from pqlib.experiments.layer_stability import LayerStability
from pqlib.experiments.layer_table import layer_table
from pqlib.experiments.layer_verdicts import layer_verdicts, open_to_scale
from pqlib.experiments.ledger import Ledger

_ATTEMPTS = 4  # on a cluster that loses workers


def run(
    config: LayerBounds, folder: Path | None, engine: str, n_jobs: int | None, dry_run: bool
) -> Path | None:
    """Capture, solve, write ``table.csv``, ``verdicts.csv`` and ``provenance.json``; the folder."""
    console = Console(stderr=True, markup=False)
    console.print(f"running {config.model} on {config.n_images} images", soft_wrap=True)
    layers = layer_bounds.capture(config)
    units = [unit for layer in layers for unit in layer_bounds.units_of(layer, config)]
    console.print(cost(units, config), soft_wrap=True)
    if dry_run:
        return None
    folder = folder or Path("runs") / f"layers-{config.hash}"
    bar = _progress(console)
    task = bar.add_task("", total=len(units))

    def solve(step, jobs, *arguments):
        """One of the two steps, again where a worker was lost: what is done is in the ledger."""
        attempt = 0
        while True:
            attempt += 1
            bar.reset(task, total=len(jobs))
            with engine_of(engine, n_jobs) as (n_workers, lost_worker):
                try:
                    return step(
                        config,
                        ledger,
                        jobs,
                        *arguments,
                        n_jobs=n_workers,
                        on_done=lambda key: bar.update(task, advance=1, description=key),
                    )
                except lost_worker as error:
                    if attempt == _ATTEMPTS:
                        raise RuntimeError(
                            f"workers were lost {attempt} times, at last with {error!r}; "
                            "the same command goes on from here"
                        ) from None
                    console.print("a worker was lost; what it was at is solved again")

    with Ledger(folder, config.as_json()) as ledger, bar:
        solved = solve(layer_bounds.solve_units, units)
        table = layer_table(config.model, solved)
        found = solve(layer_bounds.prove_intervals, open_to_scale(table), solved)
        verdicts = layer_verdicts(table, lambda *case: found[case])
        ledger.write("table.csv", table.to_csv(index=False, lineterminator="\n"))
        ledger.write("verdicts.csv", verdicts.to_csv(index=False, lineterminator="\n"))
        ledger.write("provenance.json", json.dumps(provenance(config), indent=1) + "\n")
    Console(markup=False).print(summary(verdicts))
    return folder


def run_stability(
    config: LayerStability, folder: Path | None, n_jobs: int | None, dry_run: bool
) -> Path | None:
    """Solve all draws of images, write ``stability.csv`` and ``provenance.json``; the folder."""
    console = Console(stderr=True, markup=False)
    draws = layer_stability.draws_of(config)
    begun = time.monotonic()
    layers = layer_bounds.capture(draws[0].config)
    seconds = time.monotonic() - begun
    units = [unit for layer in layers for unit in layer_bounds.units_of(layer, config.base)]
    sizes = [len(draw.files) for draw in draws]
    console.print(cost(units, config.base, sizes, seconds), soft_wrap=True)
    if dry_run:
        return None
    folder = folder or Path("runs") / f"stability-{config.hash}"
    bar = _progress(console)
    task, keys = bar.add_task("", total=len(draws)), {draw.key for draw in draws}
    n_jobs = n_jobs or os.cpu_count()
    with Ledger(folder, config.as_json()) as ledger, bar:
        table = layer_stability.run(
            config,
            ledger,
            n_jobs=n_jobs,
            on_done=lambda key: bar.update(task, advance=int(key in keys), description=key),
        )
        ledger.write("stability.csv", table.to_csv(index=False, lineterminator="\n"))
        ledger.write("provenance.json", json.dumps(provenance(config), indent=1) + "\n")
    return folder


def _progress(console):
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, TimeElapsedColumn(), console=console)


def cost(
    units: Sequence[Unit],
    config: LayerBounds,
    draws: Sequence[int] = (),
    capture_seconds: float = 0.0,
) -> str:
    """What a run will do, before it begins.

    Of a `LayerStability`, ``draws`` are the images of each draw and ``capture_seconds`` what the
    first of them took to capture.
    """
    channels = sum(len(unit.weights) for unit in units)
    largest = max(unit.weights.shape[1] for unit in units)
    seconds = sum(unit_seconds(unit, config) for unit in units)
    text = (
        f"{len(units)} units, {channels} channels of at most {largest} inputs: "
        f"{channels * len(config.bits) * (len(OUTPUT_GRID) + 3)} exact quantizations and "
        f"{channels} pruning curves"
    )
    if draws:
        seconds = len(draws) * seconds + capture_seconds * sum(draws) / draws[0]
        text = f"{len(draws)} draws of images, {sum(draws)} images in all; for each, {text}"
    text += f"{'; in all' if draws else ''}, some {max(seconds / 60, 0.1):.1f} minutes of one core"
    if not draws:
        text += (
            "; besides, some 10 s for each verdict for pruning that is to be proven between scales"
        )
    text += ", and a minute or two of compilation in the first run"
    singular = [unit.key for unit in units if unit.singular]
    if singular:
        named = ", ".join(singular[:5]) + ", ..." * (len(singular) > 5)
        text += (
            f"; too few outputs for the inputs of {named}: there the gram is singular, and many "
            "searches will end at their node budget; take more images or positions"
        )
    if largest > 40:
        text += (
            f"; above 40 inputs a search can go on to its {config.max_nodes:g} nodes, minutes, "
            "and this is an underestimate"
        )
    return text


def unit_seconds(unit: Unit, config: LayerBounds) -> float:
    """Some seconds of one core that a unit takes.

    Measured on EfficientNet-Lite0 at 9 to 36 inputs: per channel and bit-width, all 22 searches
    took 20 ms at few inputs and 44 at 36; a channel's pruning curve 1.6 at 9 inputs, 10 at 27 and
    73 at 36.
    """
    channels, n = unit.weights.shape
    quantize, curve = 20 * (1 + (n / 36) ** 4), 1.2 * 2 ** (min(n - 9, 60) / 5)
    return 1e-3 * channels * (len(config.bits) * quantize + curve)


def provenance(config: LayerBounds | LayerStability) -> dict[str, object]:
    """What is needed to make the rows again."""
    packages = ("pqlib", "numpy", "scipy", "numba", "torch", "timm", "torchvision")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "command": command(config),
        "config": dataclasses.asdict(config),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": versions,
    }


def command(config: LayerBounds | LayerStability) -> str:
    """The command line of a config, without what is default."""
    if isinstance(config, LayerBounds):
        return shlex.join(["pqlib", "layers", "solve", config.model, *_options(config)])
    words = ["pqlib", "layers", "stability", config.base.model, *_options(config.base)]
    return shlex.join([*words, *_options(config)])


def _options(config):
    words = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        as_default = value == field.default
        if field.name == "layers" and config.model != LayerBounds.model:
            as_default = False  # the command line has another default for other networks
        if field.name in ("model", "base") or as_default:
            continue
        words.append("--" + field.name.replace("_", "-"))
        if isinstance(value, tuple):
            value = ",".join(map(str, value)) or "all"
        words += [] if value is True else [str(value)]
    return words


def summary(verdicts: pd.DataFrame) -> Table:
    """Verdicts at each bit-width, counted over layers and chunks."""
    shown = Table(*(Column(c, overflow="fold") for c in ("bits", "verdict", "cases")))
    words = verdicts["verdict"].str.replace(r" (in \[.*|[\d.e+-]+$)", "", regex=True)
    for (n_bits, verdict), rows in verdicts.groupby(["n_bits", words]):
        shown.add_row(str(n_bits), verdict, str(len(rows)))
    return shown
