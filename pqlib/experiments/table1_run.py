"""Table 1 from a command: what it would cost, or the sweep with its progress and its tables."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pqlib.experiments import table1
from pqlib.experiments.finetune_config import FineTune
from pqlib.experiments.finetune_cost import hours, rate_of
from pqlib.experiments.ledger import Ledger
from pqlib.experiments.presets import Sweep

_FIELDS = ("model", "data", "size", "method", "bits", "rate", "epochs", "batch", "optimizer")


def run(
    swept: Sweep,
    folder: Path | None,
    *,
    engine: str = "local",
    n_jobs: int | None = None,
    retry_failed: bool = False,
    checkpoint_seconds: float = 60.0,
) -> tuple[Path, int]:
    """Run the sweep and write its tables; the folder, and how many runs failed."""
    configs = swept.cells()
    folder = folder or default_folder(swept)
    commands = {c.hash: table1.command_of(swept, c) for c in configs}
    console = Console(stderr=True, markup=False, highlight=False)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    bar = Progress(*columns, TimeElapsedColumn(), console=console)
    whole, tasks = bar.add_task("runs", total=len(configs)), {}

    def show(config, kind, value):
        name = label(config)
        if kind == "started":
            tasks[config.hash] = bar.add_task(f"  {name}", total=None)
            if value == 1:
                console.print(f"{config.hash} {name}: started", soft_wrap=True)
        elif kind == "at":
            step, n_steps, loss = value
            text = f"  {name}, loss {loss:.3g}"
            bar.update(tasks[config.hash], completed=step, total=n_steps, description=text)
        else:
            if config.hash in tasks:
                bar.remove_task(tasks.pop(config.hash))
            if kind == "lost":
                console.print(
                    f"{config.hash} {name}: {value}; it goes on from its checkpoint", soft_wrap=True
                )
                return
            bar.advance(whole)
            if kind != "kept" or value["status"] == "failed":
                console.print(f"{config.hash} {name}: {outcome(value)}", soft_wrap=True)

    with bar:
        records = table1.sweep(
            configs,
            folder,
            engine=engine,
            n_jobs=n_jobs,
            retry_failed=retry_failed,
            checkpoint_seconds=checkpoint_seconds,
            commands=commands,
            on_event=show,
        )
    table1.export(folder, configs, commands)
    return folder, sum(record["status"] != "done" for record in records.values())


def run_one(
    swept: Sweep, run_hash: str, folder: Path | None, *, checkpoint_seconds: float = 60.0
) -> str:
    """One run of a sweep, in this process and its companions; what came of it.

    Raises
    ------
    ValueError
        If the hash is of none of the sweep's runs, or its baseline is not done.
    RuntimeError
        If the run fails. Its row says why.
    """
    configs = {config.hash: config for config in swept.cells()}
    if run_hash not in configs:
        raise ValueError(
            f"{run_hash!r} is none of these {len(configs)} runs; repeat the options with which "
            "`pqlib run table1 --dry-run` shows it"
        )
    config, folder = configs[run_hash], folder or default_folder(swept)
    ledger = Ledger(folder, table1.CONFIG)
    record = ledger.get(run_hash)
    if record is None or record["status"] != "done":
        baseline = ledger.get(config.baseline) if config.baseline else None
        if config.baseline and (baseline is None or baseline["status"] != "done"):
            raise ValueError(
                f"the baseline {config.baseline} is not done in {folder}; run that cell first"
            )
        command = table1.command_of(swept, config)
        record = table1.work(config, folder, checkpoint_seconds, command)
    if record is None:  # not the first of several processes
        return ""
    if record["status"] != "done":
        raise RuntimeError(f"{run_hash} {label(config)}: {outcome(record)}")
    return f"{run_hash} {label(config)}: {outcome(record)}"


def default_folder(swept: Sweep) -> Path:
    """Where a sweep goes without --folder."""
    return Path("runs") / f"table1-{swept.preset}"


def label(config: FineTune) -> str:
    """A run in a few words."""
    if config.method == "none":
        return f"{config.model} baseline"
    words = f"{config.model} {config.method} {config.n_bits} bits"
    return f"{words} at {config.settings.learning_rate:.3g}" if config.trains else words


def outcome(record: Mapping[str, Any]) -> str:
    """A row in a few words."""
    if record["status"] != "done":
        return f"failed: {record['reason']}"
    notes = f" ({record['notes']})" if record.get("notes") else ""
    return f"{record['metric']} {record['value']:.2f}, {record['seconds']:.0f} s{notes}"


def cost(
    swept: Sweep, folder: Path | None, n_jobs: int | None = None, *, measure: bool = False
) -> str:
    """Every run with its hash, config, state and hours, and the total.

    Hours come from measurements on two cores. Where these do not apply (another device, a network
    of one's own), or with ``measure``, a few steps are timed here and now.
    """
    configs = swept.cells()
    done = _states(folder or default_folder(swept))
    estimates, problems = _estimates(configs, measure)
    n_threads = max(config.settings.n_threads for config in configs)
    n_jobs = n_jobs or max((os.cpu_count() or 1) // n_threads, 1)
    lines = [("hash", *_FIELDS, "seed", "state", "hours")]
    total, unknown, n_open = 0.0, 0, 0
    for config in configs:
        state, time = done.get(config.hash, "to do"), estimates[config.hash]
        if state == "to do":
            n_open += 1
            unknown += time is None
            total += time or 0.0
        shown = "?" if time is None else f"{time:.3f}"
        lines.append((config.hash, *_shown(config), str(config.seed), state, shown))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    more = f", and {unknown} runs of unknown length" if unknown else ""
    text.append(
        f"{len(configs)} runs, {len(configs) - n_open} of them in {folder or default_folder(swept)}"
        f"; {total:.2f} hours for the rest{more}; with {n_jobs} at a time some "
        f"{total / n_jobs:.2f} hours"
    )
    return "\n".join([*text, *problems])


def _shown(config):
    settings = config.settings
    size = "x".join(map(str, config.size)) if isinstance(config.size, tuple) else str(config.size)
    rate = f"{settings.learning_rate:.3g}" if config.trains else "-"
    bits = "-" if config.n_bits is None else str(config.n_bits)
    epochs = str(settings.epochs) if config.method == "none" or config.trains else "-"
    return (
        *(config.model, config.data, size, config.method, bits, rate, epochs),
        *(str(settings.batch_size), settings.optimizer),
    )


def _states(folder: Path) -> dict[str, str]:
    """What the folder holds, if it is there; nothing is made."""
    if not (folder / "config.json").exists():
        return {}
    records = Ledger(folder, table1.CONFIG).records()
    return {key: record["status"] for key, record in records.items()}


def _estimates(configs: Sequence[FineTune], measure: bool) -> tuple[dict[str, Any], list[str]]:
    """Hours by hash, and in lines what could not be found out."""
    from pqlib.experiments.finetune_record import reason_of
    from pqlib.experiments.finetune_run import images_per_second, sizes_of

    images: dict[tuple, tuple[int, int] | None] = {}
    rates: dict[tuple, float | None] = {}
    found, problems = {}, []
    for config in configs:
        source = (config.data, config.model, config.size, config.limit, config.validation)
        if source not in images:
            try:
                images[source] = sizes_of(config)
            except Exception as error:  # the row of each such run will say the same
                images[source] = None
                problems.append(f"{config.model} on {config.data}: {reason_of(error)}")
        built = (config.device, config.stem, config.patch, config.variant)
        key = (*source, *built, config.settings.batch_size, config.settings.n_threads)
        if key not in rates:
            rates[key] = None if measure else rate_of(config)
            if rates[key] is None and images[source] is not None:
                try:
                    rates[key] = images_per_second(config)
                except Exception as error:
                    problems.append(f"{config.model} was not timed: {reason_of(error)}")
        known = images[source]
        found[config.hash] = None if known is None else hours(config, known, rates[key])
    return found, problems
