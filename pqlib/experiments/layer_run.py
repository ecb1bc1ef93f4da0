"""A per-layer run with progress, a ledger, an engine, and tables at its end."""

import dataclasses
import json
import os
import platform
import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import joblib
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from pqlib.experiments import layer_bounds
from pqlib.experiments.channel_optima import OUTPUT_GRID, Unit
from pqlib.experiments.layer_config import LayerBounds
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
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    bar = Progress(*columns, TimeElapsedColumn(), console=console)
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


def cost(units: Sequence[Unit], config: LayerBounds) -> str:
    """What a run will do, before it begins."""
    channels = sum(len(unit.weights) for unit in units)
    largest = max(unit.weights.shape[1] for unit in units)
    seconds = sum(unit_seconds(unit, config) for unit in units)
    text = (
        f"{len(units)} units, {channels} channels of at most {largest} inputs: "
        f"{channels * len(config.bits) * (len(OUTPUT_GRID) + 3)} exact quantizations and "
        f"{channels} pruning curves, some {max(seconds / 60, 0.1):.1f} minutes of one core; "
        "besides, some 10 s for each verdict for pruning that is to be proven between scales, and "
        "a minute or two of compilation in the first run"
    )
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


@contextmanager
def engine_of(
    engine: str, n_jobs: int | None
) -> Iterator[tuple[int, tuple[type[BaseException], ...]]]:
    """Run joblib on this machine or on a Ray cluster; how many workers, errors of a lost one."""
    if engine == "local":
        yield n_jobs or os.cpu_count() or 1, (BrokenProcessPool,)
        return
    try:
        import ray
        from ray.util.joblib import register_ray
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "engine ray needs Ray; pip install 'pqlib[cluster]', or take --engine local"
        ) from None
    register_ray()
    if not ray.is_initialized():
        ray.init(log_to_driver=False)  # of RAY_ADDRESS, one that runs here, or a new one
    n_there = int(ray.cluster_resources().get("CPU", 1))
    n_workers = min(n_jobs or n_there, n_there)
    with joblib.parallel_config("ray", n_jobs=n_workers):
        yield n_workers, (ray.exceptions.RayError,)


def provenance(config: LayerBounds) -> dict[str, object]:
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


def command(config: LayerBounds) -> str:
    """The command line of a config, without what is default."""
    words = ["pqlib", "layers", "solve", config.model]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "model" or value == field.default:
            continue
        option = "--" + field.name.replace("_", "-")
        if isinstance(value, tuple):
            value = ",".join(map(str, value)) or "all"
        words += [option, str(value)]
    return shlex.join(words)


def summary(verdicts: pd.DataFrame) -> Table:
    """Verdicts at each bit-width, counted over layers and chunks."""
    shown = Table(*(Column(c, overflow="fold") for c in ("bits", "verdict", "cases")))
    words = verdicts["verdict"].str.replace(r" (in \[.*|[\d.e+-]+$)", "", regex=True)
    for (n_bits, verdict), rows in verdicts.groupby(["n_bits", words]):
        shown.add_row(str(n_bits), verdict, str(len(rows)))
    return shown
