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
from pqlib.experiments.rate_choice import followers

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
    """Run the sweep and write its tables; the folder, and how many runs failed.

    Those that take over a learning rate come last; where all runs to choose it from have failed
    they are not run, and count as failed.
    """
    configs = swept.cells()
    folder = folder or default_folder(swept)
    commands = {c.hash: table1.command_of(swept, c) for c in configs}
    console = Console(stderr=True, markup=False, highlight=False)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    bar = Progress(*columns, TimeElapsedColumn(), console=console)
    total = len(configs) + len(followers(swept))
    whole, tasks, ended = bar.add_task("runs", total=total), {}, set()

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
            seen = config.hash in ended  # the second sweep keeps all of the first
            ended.add(config.hash)
            bar.update(whole, completed=len(ended))
            if kind != "kept" or (value["status"] == "failed" and not seen):
                console.print(f"{config.hash} {name}: {outcome(value)}", soft_wrap=True)

    def sweep(configs, retry_failed):
        return table1.sweep(
            configs,
            folder,
            engine=engine,
            n_jobs=n_jobs,
            retry_failed=retry_failed,
            checkpoint_seconds=checkpoint_seconds,
            commands=commands,
            on_event=show,
        )

    with bar:
        records = sweep(configs, retry_failed)
        following = followers(swept, records)
        commands |= {f.config.hash: _command(swept, f) for f in following}
        chosen = {f.config.hash: f.config for f in following if f.power is not None}
        if chosen:
            records = sweep([*configs, *chosen.values()], chosen if retry_failed else False)
        lost = [f for f in following if f.power is None]
        for follower in lost:
            console.print(_why_not(follower), soft_wrap=True)
    table1.export(folder, [*configs, *(f.config for f in following)], commands)
    return folder, len(lost) + sum(record["status"] != "done" for record in records.values())


def _command(swept, follower):
    return table1.command_of(swept, follower.config, power=follower.power)


def _why_not(follower):
    config = follower.config
    return (
        f"{_name(config)}, seed {config.seed}: not run, since none of the runs that were to choose "
        f"its learning rate ({follower.choosing[0].n_bits} bits, seed {follower.choosing[0].seed}) "
        "is done"
    )


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
    folder = folder or default_folder(swept)
    following = followers(swept, _records(folder))
    commands = {config: table1.command_of(swept, config) for config in swept.cells()}
    commands |= {f.config: _command(swept, f) for f in following if f.power is not None}
    configs = {config.hash: config for config in commands}
    if run_hash not in configs:
        n_open = sum(f.power is None for f in following)
        more = f", and {n_open} have no hash until their learning rates are chosen" * (n_open > 0)
        raise ValueError(
            f"{run_hash!r} is none of these {len(configs)} runs{more}; repeat the options with "
            "which `pqlib run table1 --dry-run` shows it"
        )
    config = configs[run_hash]
    ledger = Ledger(folder, table1.CONFIG)
    record = ledger.get(run_hash)
    if record is None or record["status"] != "done":
        baseline = ledger.get(config.baseline) if config.baseline else None
        if config.baseline and (baseline is None or baseline["status"] != "done"):
            raise ValueError(
                f"the baseline {config.baseline} is not done in {folder}; run that cell first"
            )
        record = table1.work(config, folder, checkpoint_seconds, commands[config])
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
    rate = f" at {config.settings.learning_rate:.3g}" if config.trains else ""
    return f"{_name(config)}{rate}"


def _name(config):
    return f"{config.model} {config.method} {config.n_bits} bits"


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

    A run that takes over a learning rate has no hash until the folder holds all runs that choose.
    Hours come from measurements on one core. Where these do not apply (another device, a network
    of one's own), or with ``measure``, a few steps are timed here and now.
    """
    folder = folder or default_folder(swept)
    records = _records(folder)
    following = {f.config: f for f in followers(swept, records)}
    configs = [*swept.cells(), *following]
    states = {key: record["status"] for key, record in records.items()}
    estimates, problems = _estimates(configs, measure)
    last = configs[-1]  # a baseline, of which there are few, comes first
    fitting = 1 if last.device.startswith("cuda") else (os.cpu_count() or 1)
    n_jobs = n_jobs or max(fitting // last.settings.n_threads, 1)
    lines = [("hash", *_FIELDS, "seed", "state", "hours")]
    total, unknown, n_there = 0.0, 0, 0
    for config in configs:
        name, rate, time = config.hash, None, estimates[config.hash]
        state = states.get(name, "to do")
        follower = following.get(config)
        if follower and follower.power is None:
            name, rate = "-", f"chosen at {follower.choosing[0].n_bits} bits"
            failed = all(states.get(c.hash) == "failed" for c in follower.choosing)
            state = "not run" if failed else "to do"
        if state == "to do":
            unknown += time is None
            total += time or 0.0
        n_there += state in ("done", "failed")
        hours_shown = "?" if time is None else f"{time:.3f}"
        lines.append((name, *_shown(config, rate), str(config.seed), state, hours_shown))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    more = f", and {unknown} runs of unknown length" if unknown else ""
    text.append(
        f"{len(configs)} runs, {n_there} of them in {folder}; {total:.2f} hours for the rest{more}"
        f"; with {n_jobs} at a time some {total / n_jobs:.2f} hours"
    )
    return "\n".join([*text, *problems])


def _shown(config, rate):
    settings = config.settings
    size = "x".join(map(str, config.size)) if isinstance(config.size, tuple) else str(config.size)
    rate = (rate or f"{settings.learning_rate:.3g}") if config.trains else "-"
    bits = "-" if config.n_bits is None else str(config.n_bits)
    epochs = str(settings.epochs) if config.method == "none" or config.trains else "-"
    return (
        *(config.model, config.data, size, config.method, bits, rate, epochs),
        *(str(settings.batch_size), settings.optimizer),
    )


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    """What the folder holds, if it is there; nothing is made."""
    if not (folder / "config.json").exists():
        return {}
    return Ledger(folder, table1.CONFIG).records()


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
