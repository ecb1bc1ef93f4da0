"""What fine-tuning learns: each layer against the original's after every epoch (appendix H)."""

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pqlib._validation import check_choice, check_integer
from pqlib.experiments.finetune_config import CONTROLS, TRAINED, FineTune
from pqlib.experiments.ledger import Ledger
from pqlib.experiments.presets import Sweep

METHODS = (*TRAINED, *CONTROLS)
KEYS = ("model", "data", "method", "n_bits", "seed")
COLUMNS = (
    *(*KEYS, "epoch", "layer", "sqnr_db", "cka", "cka_unpaired"),
    *("accuracy", "fp_value", "sparsity", "loss", "hash"),
)
_DECIMALS = dict.fromkeys(("sqnr_db", "accuracy", "fp_value"), 4) | dict.fromkeys(
    ("cka", "cka_unpaired", "sparsity", "loss"), 6
)
OnEvent = Callable[[FineTune, str, Any], None]


@dataclasses.dataclass(frozen=True)
class Representations:
    """All that `pqlib run representations` takes and that its numbers depend on.

    Attributes
    ----------
    preset, models, bits, seeds, data, changes
        As in `Sweep`; learning rates are the preset's.
    methods : tuple of str
        "lsq" and "prune" (the cubic schedule) and the controls: "prune_at_once" has its final
        masks from the first step on, "uncompressed" is fine-tuned as it is, once for all bits.
    n_images : int >= 2, default 256
        Test images, the first of them or all there are, on which layers are compared.
    """

    preset: str = "smoke"
    models: tuple[str, ...] = ("cifar_resnet20",)
    bits: tuple[int, ...] = (2, 4)
    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (0,)
    data: tuple[str, ...] = ()
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    n_images: int = 256

    def __post_init__(self):
        check_integer("n_images", self.n_images, low=2, high=10**6)
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods must be one or several, all different; got {self.methods}")
        for method in self.methods:
            check_choice("methods", method, METHODS)
        self.cells()

    def cells(self) -> list[FineTune]:
        """All runs, baselines first; those of "lsq" and "prune" are also runs of `Sweep`."""
        options = {"seeds": self.seeds, "data": self.data, "changes": self.changes}
        swept = Sweep(self.preset, self.models, self.bits, TRAINED, powers=(0,), **options).cells()
        found = {config: None for config in swept if config.method == "none"}
        for config in swept:
            twins = {"lsq": ("lsq", "uncompressed"), "prune": ("prune", "prune_at_once")}
            for method in twins.get(config.method, ()):
                if method in self.methods:
                    n_bits = None if method == "uncompressed" else config.n_bits
                    found[dataclasses.replace(config, method=method, n_bits=n_bits)] = None
        return list(found)

    @property
    def ledger_config(self) -> dict[str, Any]:
        """What a folder of runs is of; it takes any preset, network and budget."""
        return {"experiment": "representations", "format": 1, "n_images": self.n_images}


def run(
    wanted: Representations,
    folder: Path,
    *,
    checkpoint_seconds: float = 60.0,
    command: str = "",
    on_event: OnEvent | None = None,
) -> pd.DataFrame:
    """Run what the folder lacks, one after another, and write its table.

    ``representations.csv`` has the rows, ``representations.json`` says how each run was made.

    Parameters
    ----------
    wanted : Representations
    folder : Path
        Made where it is missing. A run has its row there as soon as it ends, and before that a
        checkpoint that holds what was measured so far. A baseline whose network is lost is trained
        again only for runs that lack a row.
    checkpoint_seconds : float, default 60
    command : str
        Makes the runs again; kept in the records.
    on_event : callable, optional
        ``on_event(config, kind, value)``: "kept" (its row was there), "started", "at" (step,
        n_steps, loss) or "done", with the record. It may raise `Stop` at "at".

    Returns
    -------
    DataFrame
        `table_of` all records of the folder.

    Raises
    ------
    ValueError, OSError, TrainingError, ...
        Whatever goes wrong with a run; those that are done stay, and the next call goes on.
    """
    from pqlib.experiments import finetune_run

    tell = on_event or (lambda *_: None)
    with Ledger(folder, wanted.ledger_config) as ledger:
        missing = lacking(wanted, ledger)
        for config in wanted.cells():
            if config.hash not in missing:
                tell(config, "kept", ledger.get(config.hash))
                continue
            tell(config, "started", None)
            record = work(
                config,
                ledger.folder,
                n_images=wanted.n_images,
                baseline=ledger.get(config.baseline) if config.baseline else None,
                checkpoint_seconds=checkpoint_seconds,
                command=command,
                report=lambda at, config=config: tell(config, "at", at),
            )
            ledger.add(config.hash, record)
            finetune_run.forget_checkpoint(ledger.folder, config.hash)
            tell(config, "done", record)
        records = ledger.records().values()
        table = table_of(records)
        ledger.write("representations.csv", table.to_csv(index=False, lineterminator="\n"))
        ledger.write("representations.json", json.dumps(made_by(records), indent=1) + "\n")
    return table


def lacking(wanted: Representations, ledger: Ledger) -> set[str]:
    """Hashes of what is to be run: what has no row, and baselines of such whose network is lost."""
    from pqlib.experiments.finetune_run import weights_are_sound

    missing = [config for config in wanted.cells() if ledger.get(config.hash) is None]
    needed = {config.baseline for config in missing} - {None}
    lost = {key for key in needed if not weights_are_sound(ledger.folder, key)}
    return {config.hash for config in missing} | lost


def work(
    config: FineTune,
    folder: Path,
    *,
    n_images: int = Representations.n_images,
    baseline: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """One run, watched.

    Parameters
    ----------
    config, folder, baseline, **options
        As `finetune_run.run` takes them.
    n_images : int

    Returns
    -------
    dict
        Its record, with ``watched``: of epoch 0 (compressed, not yet trained) and of each epoch
        after it, ``epoch``, ``accuracy`` (or the task's metric), ``sparsity``, ``loss`` and, of
        each layer, what `Original.compare` says. Of a baseline none.
    """
    from pqlib.experiments import finetune_run

    if config.method == "none":
        return finetune_run.run(config, folder, **options) | {"watched": []}
    first = []

    def watch(model, task, data):
        measure = _measurement(model, task, data, config, n_images)
        first.append(measure(_untrained(model, config)))
        return lambda epoch, net: {"watched": measure(net)}

    record = finetune_run.run(config, folder, baseline=baseline, watch=watch, **options)
    history = json.loads((folder / config.hash / "history.json").read_text("utf-8"))
    watched = [first[0] | {"epoch": 0, "loss": None}]
    for epoch in history:
        watched.append(epoch["watched"] | {"epoch": epoch["epoch"] + 1, "loss": epoch["loss"]})
    return record | {"watched": watched}


def table_of(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per run, epoch and layer, in the order of methods, bits, epochs and the network."""
    rows = []
    for record in records:
        run = {key: record[key] for key in (*KEYS, "fp_value", "hash")}
        for epoch in record["watched"]:
            whole = {key: epoch[key] for key in ("epoch", "accuracy", "sparsity", "loss")}
            rows += [run | whole | layer for layer in epoch["layers"]]
    table = pd.DataFrame(rows, columns=COLUMNS)
    table = table.round(_DECIMALS).astype({"n_bits": "Int64"})
    order = table["method"].map({method: place for place, method in enumerate(METHODS)})
    keys = ["model", "data", "seed", "_order", "n_bits", "epoch"]
    return table.assign(_order=order).sort_values(keys, kind="stable", ignore_index=True)[
        list(COLUMNS)
    ]


def made_by(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How runs were made: settings, results, seconds, machine and versions; baselines first."""
    rows = [{k: v for k, v in record.items() if k != "watched"} for record in records]
    order = ("none", *METHODS)
    return {
        "runs": sorted(
            rows, key=lambda r: (order.index(r["method"]), r["n_bits"] or 0, r["seed"], r["hash"])
        )
    }


def _measurement(model, task, data, config, n_images):
    """A function that compares a network with ``model`` as it is now."""
    from torch.utils.data import Subset

    from pqlib.training.activations import Original
    from pqlib.training.batch_norm import reestimate
    from pqlib.training.batches import batches_of
    from pqlib.training.scope import compressible_layers

    device, settings = config.device, config.settings

    def forward(net, batch):
        return net(task.inputs(batch))

    def settle(net):
        """Batch norm as before every evaluation: what then differs comes from the weights."""
        data.set_epoch(0)
        batches = batches_of(data.train, task, settings, n_batches=config.bn_batches)
        reestimate(net.to(device), (task.to(batch, device) for batch in batches), forward)

    original = copy.deepcopy(model)
    settle(original)
    images = Subset(data.test, range(min(n_images, len(data.test))))
    images = batches_of(images, task, settings)
    reference = Original(original, [task.to(batch, device) for batch in images], forward)

    def measure(net):
        settle(net)
        found = task.evaluate(net, batches_of(data.test, task, settings), device=device)
        weights = [layer.weight.detach() for layer in compressible_layers(net).values()]
        zeros = sum(int((weight == 0).sum()) for weight in weights)
        return {
            "accuracy": found[task.metric],
            "sparsity": zeros / sum(weight.numel() for weight in weights),
            "layers": reference.compare(net),
        }

    return measure


def _untrained(model, config):
    """The network compressed and not trained; for gradual pruning with its final sparsity."""
    from pqlib.training.compression import post_training

    twin = copy.deepcopy(model)
    if config.n_bits is not None:
        method = "lsq" if config.method == "lsq" else "prune"
        post_training(twin, method, config.n_bits, keep_first_last=config.keep_first_last)
    return twin
