"""Every layer of a network compressed by itself: the run, its rows as they come, its table."""

import dataclasses
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from pqlib._validation import check_choice, check_integer
from pqlib.experiments.finetune_config import check_device
from pqlib.experiments.finetune_record import fingerprint, made_with
from pqlib.experiments.layer_accuracy import answers, cases, measure
from pqlib.experiments.ledger import Ledger, config_hash
from pqlib.grids import MAX_BITS
from pqlib.training.batches import batches_of
from pqlib.training.data import open_data
from pqlib.training.examples import Examples
from pqlib.training.models import build_model, task_of
from pqlib.training.settings import Settings
from pqlib.training.tasks import Task, open_task

SPLITS = ("train", "test")
TABLE = "layer_accuracy.csv"
_ORIGINAL = "original"  # key of what the ledger says about the network itself
_FORMAT = 1  # of the records; another one is not read from an old folder


@dataclass(frozen=True)
class LayerAccuracy:
    """What a run computes; everything that its numbers depend on.

    Attributes
    ----------
    model, weights, size, stem : as `pqlib.training.models.build_model` takes them
        The network classifies. None for ``weights`` leaves it random, to try things out.
    data, limit : as `pqlib.training.data.open_data` takes them
    split : {"test", "train"}
        Whose images the network is evaluated on: all test images, or the training images as they
        are, without augmentation.
    bits : tuple of int, 2..16
    layers : tuple of str
        Names of modules; empty for all convolutions and linear layers.
    batch_size : int
    n_threads : int
        Others give other last digits.
    seed : int
        Of random weights, and of the images drawn if there is a ``limit``.
    device : str
    """

    model: str
    data: str
    weights: str | None = None
    size: int | tuple[int, int] = 32
    stem: str = "imagenet"
    split: str = "test"
    limit: int | None = None
    bits: tuple[int, ...] = tuple(range(2, 9))
    layers: tuple[str, ...] = ()
    batch_size: int = 64
    n_threads: int = 1
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self):
        check_choice("split", self.split, SPLITS)
        for name in ("bits", "layers"):
            value = getattr(self, name)
            if isinstance(value, str | int):
                raise TypeError(f"{name} must be a sequence, got {value!r}")
            object.__setattr__(self, name, tuple(value))
        if not self.bits or len(set(self.bits)) < len(self.bits):
            raise ValueError(f"bits must be one or several different bit-widths, got {self.bits}")
        for b in self.bits:
            check_integer("bits", b, low=2, high=MAX_BITS)
        check_integer("batch_size", self.batch_size, low=1, high=10**6)
        check_integer("n_threads", self.n_threads, low=1, high=1024)
        check_integer("seed", self.seed, low=0, high=2**31)
        check_device(self.device)
        if task_of(self.model) != "classification":
            raise ValueError(
                f"model must classify, and {self.model!r} is for {task_of(self.model)}; accuracy "
                "and cross-entropy are those of a classifier"
            )

    def as_json(self) -> dict[str, object]:
        """All of it, and the format of the records."""
        return dataclasses.asdict(self) | {"format": _FORMAT}

    @property
    def hash(self) -> str:
        """Names the run's folder."""
        return config_hash(self.as_json())

    @property
    def command(self) -> str:
        """The command line, without what is default."""
        words = ["pqlib", "run", "layer-accuracy"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                text = "x" if field.name == "size" else ","
                value = text.join(map(str, value)) if isinstance(value, tuple) else str(value)
                words += ["--" + field.name.replace("_", "-"), value]
        return shlex.join(words)


@dataclass(frozen=True)
class TaskBatches:
    """Inputs and labels of a split, read anew each time they are gone through."""

    images: Examples
    task: Task
    settings: Settings
    device: str = "cpu"

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches_of(self.images, self.task, self.settings):
            batch = self.task.to(batch, self.device)
            yield self.task.inputs(batch), batch["labels"]


def open_run(config: LayerAccuracy) -> tuple[nn.Module, TaskBatches]:
    """The network of a run and its images."""
    data = open_data(
        config.data,
        task="classification",
        size=config.size,
        seed=config.seed,
        limit=config.limit,
        augment=False,
        validation="train",  # leaves all test images
    )
    model = build_model(
        config.model,
        n_classes=data.n_classes,
        size=config.size,
        stem=config.stem,
        weights=config.weights,
        seed=config.seed,
    )
    task = open_task(config.model, data)
    settings = Settings(0, config.batch_size, 1.0)
    batches = TaskBatches(getattr(data, config.split), task, settings, config.device)
    return model.to(config.device), batches


def run(
    config: LayerAccuracy,
    folder: Path,
    *,
    on_start: Callable[[int, int], None] | None = None,
    on_row: Callable[[dict], None] | None = None,
) -> pd.DataFrame:
    """Measure what the folder's ledger lacks; the table.

    Parameters
    ----------
    config : LayerAccuracy
    folder : Path
        Made where it is missing. Each row is a file there as soon as it is measured, and `TABLE`
        holds all of them whenever this returns or raises.
    on_start : callable, optional
        Given how many rows there will be, and how many are there.
    on_row : callable, optional
        Given each new row.

    Returns
    -------
    pandas.DataFrame
        A row per layer, bit-width and method, in the order of the network: ``model``, ``data``,
        what `measure` returns, and what is needed to make the row again.

    Raises
    ------
    ValueError
        If the folder is of another config, of a network with other weights, or another process is
        at work on it; and what `measure` raises.
    """
    model, batches = open_run(config)
    wanted = cases(model, config.bits, config.layers)
    with _threads(config.n_threads), Ledger(folder, config.as_json()) as ledger:
        own = {"fingerprint": fingerprint(model)}
        stated = ledger.get(_ORIGINAL)
        if stated not in (None, own):
            raise ValueError(
                f"{folder} holds rows of a network with other weights ({stated['fingerprint']} "
                f"there, {own['fingerprint']} now); name another folder"
            )
        ledger.add(_ORIGINAL, own)
        open_cases = [case for case in wanted if ledger.get(_key(case)) is None]
        if on_start is not None:
            on_start(len(wanted), len(wanted) - len(open_cases))
        try:
            if open_cases:
                _fill(ledger, config, model, batches, open_cases, on_row)
        finally:
            table = _table(ledger, wanted)
            ledger.write(TABLE, table.to_csv(index=False, lineterminator="\n"))
    return table


def run_with_progress(config: LayerAccuracy, folder: Path | None) -> Path:
    """`run`, with a bar; the folder."""
    folder = folder or Path("runs") / f"layer_accuracy-{config.hash}"
    console = Console(stderr=True, markup=False)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task(config.model, total=None)
        run(
            config,
            folder,
            on_start=lambda total, done: bar.update(task, total=total, completed=done),
            on_row=lambda row: bar.update(task, advance=1, description=_said(row)),
        )
    return folder


def cost(config: LayerAccuracy) -> str:
    """What a run will do, with the time of one row, measured here."""
    model, batches = open_run(config)
    wanted = cases(model, config.bits, config.layers)
    with _threads(config.n_threads):
        original = answers(model, batches)
        begun = time.monotonic()
        measure(model, batches, original, *wanted[0])
        seconds = (time.monotonic() - begun) * len(wanted)
    layers = len({layer for layer, *_ in wanted})
    return (
        f"{len(wanted)} rows: {layers} layers at {len(config.bits)} budgets by two methods, each "
        f"on {len(original.labels):,} images; the network itself has {original.accuracy:.2f} % "
        f"accuracy; some {max(seconds / 60, 0.1):.1f} minutes"
    )


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Torch computes with so many, then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fill(ledger, config, model, batches, open_cases, on_row):
    """Measure and keep one case after the other."""
    original = answers(model, batches)
    made = made_with(config.device) | {"command": config.command}
    for case in open_cases:
        begun = time.monotonic()
        row = measure(model, batches, original, *case)
        row["seconds"] = round(time.monotonic() - begun, 3)
        named = {"model": config.model, "data": config.data, "split": config.split}
        ledger.add(_key(case), named | row | made)
        if on_row is not None:
            on_row(row)


def _table(ledger, wanted) -> pd.DataFrame:
    records = (ledger.get(_key(case)) for case in wanted)
    return pd.DataFrame([record for record in records if record is not None])


def _key(case) -> str:
    return " ".join(map(str, case))


def _said(row) -> str:
    return f"{row['layer']} {row['method']} {row['n_bits']} bits: {row['drop']:+.2f} points lost"
