"""Table 1: a sweep over networks, methods and budgets that any end leaves where it was."""

import collections
import shlex
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pqlib.experiments.engines import processes_of
from pqlib.experiments.finetune_config import FineTune
from pqlib.experiments.ledger import Ledger, config_hash
from pqlib.experiments.presets import CHANGES, Sweep
from pqlib.experiments.rate_choice import best_of

CONFIG = {"experiment": "table1", "format": 1}  # of the folder: it takes any run of any preset
ATTEMPTS = 3  # of a run whose process is lost
_OTHER_BITS = "trained again, to other bits: rows made before started from others"
_COLUMNS = (
    *("model", "data", "method", "n_bits", "metric", "value", "fp_value", "seed"),
    *("learning_rate", "at_edge", "validation_value", "bits_per_weight", "sparsity", "epochs"),
    *("keep_first_last", "n_train", "n_test", "n_runs", "n_failed", "status", "reason", "seconds"),
    *("hardware", "versions", "commit", "command", "hash"),
)
OnEvent = Callable[[FineTune, str, Any], None]


def sweep(
    configs: Sequence[FineTune],
    folder: Path,
    *,
    engine: str = "local",
    n_jobs: int | None = None,
    retry_failed: bool | Collection[str] = False,
    checkpoint_seconds: float = 60.0,
    commands: Mapping[str, str] | None = None,
    on_event: OnEvent | None = None,
) -> dict[str, dict[str, Any]]:
    """Run what the folder's ledger lacks; the records by hash.

    Parameters
    ----------
    configs : sequence of FineTune
        Each with its baseline among them, or done in the folder before.
    folder : Path
        Made where it is missing. A run has a row of its own as soon as it ends, done or failed.
    engine : {"local", "ray"}
    n_jobs : int >= 1, optional
        Runs at a time; by default as many as there are cores for, on a GPU one.
    retry_failed : bool or collection of str, default False
        Run failed ones again, all or those with these hashes; their checkpoints are used.
    checkpoint_seconds : float, default 60
    commands : mapping, optional
        From the hash of a run to the command line that makes it.
    on_event : callable, optional
        ``on_event(config, kind, value)``: "kept" (its row was there), "started", "at" (step,
        n_steps, loss), "lost" (why; it is tried again), "done" or "failed" with the record.

    Returns
    -------
    dict
        Of every config, also of one whose row could not be written.

    Raises
    ------
    ValueError
        If a baseline is missing, or another process is at work on the folder; if ``engine`` or
        ``n_jobs`` is none of these.
    OSError
        If the folder cannot be made.

    Notes
    -----
    A worker writes its own row, so that a run is done exactly when its row is on disk; only then is
    its checkpoint deleted. A worker that is lost (killed, or out of memory) is tried again from its
    checkpoint, and the third time has a row that says so. The rest goes on in every case.

    A baseline whose network is missing is trained again for the runs that need it: on the same
    machine, with the same versions, to the same bits. Otherwise the notes of its row say that they
    differ; `pqlib.table1_leads.leads` compares no runs that started from different ones.
    """
    configs = {config.hash: config for config in configs}
    commands, tell = commands or {}, on_event or (lambda *_: None)
    with Ledger(folder, CONFIG) as ledger:
        records = _kept(ledger, configs, retry_failed)
        for key in records:
            tell(configs[key], "kept", records[key])
        waiting = collections.deque(key for key in configs if key not in records)
        attempts: collections.Counter[str] = collections.Counter()

        def ended(key, record):
            """Keep a record that no worker kept."""
            if ledger.get(key) != record:
                try:
                    ledger.add(key, record)
                except OSError as error:
                    record = record | {"reason": f"{record['reason']} (no row: {error.strerror})"}
            records[key] = record
            tell(configs[key], record["status"], record)

        def start(workers, key):
            config = configs[key]
            attempts[key] += 1
            tell(config, "started", attempts[key])
            options = checkpoint_seconds, commands.get(key, "")
            place = {
                "n_threads": config.settings.n_threads,
                "gpu": _on_gpu(config),
            }
            workers.start(key, work, config, folder.absolute(), *options, **place)

        if not waiting:
            return records
        preload = ("pqlib.experiments.finetune_run", "sklearn.datasets")
        with processes_of(engine, n_jobs, preload) as workers:
            running: set[str] = set()
            while waiting or running:
                while key := _next(workers, waiting, configs, records, ended, commands):
                    start(workers, key)
                    running.add(key)
                for event in workers.wait(1.0) if running else ():
                    config = configs[event.key]
                    if event.kind == "at":
                        tell(config, "at", event.value)
                        continue
                    running.discard(event.key)
                    record, why = event.value, "it was told to stop"
                    if event.kind == "lost":
                        record, why = ledger.get(event.key), event.value
                        whole = config.method != "none" or _sound(ledger.folder, event.key)
                        record = record if record and record["status"] == "done" and whole else None
                    if record is None and attempts[event.key] < ATTEMPTS:
                        tell(config, "lost", why)
                        waiting.appendleft(event.key)
                        continue
                    if record is None:
                        reason = f"{why}, {ATTEMPTS} times in a row"
                        record = _failed(config, reason, commands)
                    ended(event.key, record)
    return records


def _kept(ledger, configs, retry_failed) -> dict[str, dict]:
    """The rows that stand: not failed ones that are tried again, nor baselines that are damaged."""
    records = {}
    needed = set()
    again = configs if retry_failed is True else retry_failed or ()
    for key, config in configs.items():
        record = ledger.get(key)
        if record is None or (key in again and record["status"] != "done"):
            needed.add(config.baseline)
            continue
        records[key] = record
        if record["status"] == "done":
            for leftover in (ledger.folder / key).glob("checkpoint.pt*"):
                leftover.unlink()  # it was killed between row and deletion
    for key in needed - {None}:
        if key not in configs:
            raise ValueError(f"the baseline {key} of a run is not among the runs; add it")
        done = key in records and records[key]["status"] == "done"
        if done and not _sound(ledger.folder, key):
            del records[key]  # trained again
    return records


def _sound(folder, key):
    from pqlib.experiments.finetune_run import weights_are_sound  # with torch

    return weights_are_sound(folder, key)


def _next(workers, waiting, configs, records, ended, commands) -> str | None:
    """Take from ``waiting`` the first that can start now; what lacks its baseline has failed."""
    later = []
    while waiting:
        key = waiting.popleft()
        config = configs[key]
        baseline = records.get(config.baseline)
        if config.baseline is None or (baseline and baseline["status"] == "done"):
            if workers.has_room(config.settings.n_threads, _on_gpu(config)):
                waiting.extendleft(reversed(later))
                return key
            waiting.appendleft(key)
            break
        if baseline is not None:
            reason = f"its baseline {config.baseline} failed: {baseline['reason']}"
            ended(key, _failed(config, reason, commands))
        else:
            later.append(key)
    waiting.extendleft(reversed(later))
    return None


def _on_gpu(config):
    return config.device.startswith("cuda")


def _failed(config, reason, commands):
    from pqlib.experiments.finetune_record import failure

    return failure(config, reason, commands.get(config.hash, ""))


def work(
    config: FineTune,
    folder: Path,
    checkpoint_seconds: float,
    command: str,
    report: Any = None,
) -> dict[str, Any] | None:
    """One run with its row; None if it was told to stop, or in all but the first process of a run.

    Nothing that a run can raise leaves it.
    """
    from pqlib.experiments import finetune_record, finetune_run
    from pqlib.training.loop import Stop

    begun = time.monotonic()
    ledger = Ledger(folder, CONFIG)
    try:
        baseline = ledger.get(config.baseline) if config.baseline else None
        record = finetune_run.run(
            config,
            folder,
            baseline=baseline,
            checkpoint_seconds=checkpoint_seconds,
            command=command,
            report=report,
        )
        if record:  # only the first of several processes has one
            before = ledger.get(config.hash) or {}
            if before.get("fingerprint", record["fingerprint"]) != record["fingerprint"]:
                record["notes"] = "; ".join(filter(None, (record["notes"], _OTHER_BITS)))
            ledger.add(config.hash, record)
            finetune_run.forget_checkpoint(folder, config.hash)
        return ledger.get(config.hash) if record else None
    except Stop:
        return None
    except Exception as error:
        finetune_run.keep_trace(folder, config.hash, error)
        record = finetune_record.failure(config, error, command)
        record["seconds"] = time.monotonic() - begun
        try:
            ledger.add(config.hash, record)
        except OSError:
            return record  # its row is written by the parent, if that can
        return record


def command_of(swept: Sweep, config: FineTune, *, power: int | None = None) -> str:
    """The command line that makes the row of one run (and its baseline, where that is missing).

    With the grid of rates of its cell; for a run that took over a rate, with its ``power`` alone.
    "" where a change is none of `presets.CHANGES`, since no command can name it.
    """
    if not swept.changes.keys() <= {*CHANGES}:
        return ""
    words = ["pqlib", "run", "table1", "--preset", swept.preset, "--models", config.model]
    if config.method == "none":
        words += ["--methods", "none"]
    else:
        words += ["--methods", config.method, "--bits", str(config.n_bits)]
    if config.seed != 0:
        words += ["--seeds", str(config.seed)]
    powers = swept.powers if power is None else (power,)
    if powers is not None:
        words += ["--powers", ",".join(map(str, powers))]
    for text in swept.data:
        words += ["--data", text]
    for name, value in swept.changes.items():
        if value is None or value is False:
            continue
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            words.append("x".join(map(str, value)) if isinstance(value, tuple) else str(value))
    return shlex.join(words)


def export(folder: Path, wanted: Sequence[FineTune], commands: Mapping[str, str]) -> pd.DataFrame:
    """Write ``runs.csv`` (all rows of the folder) and ``table1.csv``; the latter.

    Notes
    -----
    ``table1.csv`` has a row for each cell that is wanted or that the folder holds. Of a cell's
    learning rates the one that is best on the validation images is taken (of equal ones the
    smallest), and its value on the test images is the cell's. A cell without any has no value and a
    status: "failed" with the reason, or "not run: <command>".
    """
    ledger = Ledger(folder, CONFIG)
    records = ledger.records()
    rows = [record | {"size": str(record["size"])} for record in records.values()]
    runs = pd.DataFrame(rows)
    ledger.write("runs.csv", runs.to_csv(index=False, lineterminator="\n"))
    table = table_of(list(records.values()), wanted, commands)
    ledger.write("table1.csv", table.to_csv(index=False, lineterminator="\n"))
    return table


def table_of(
    records: Sequence[Mapping[str, Any]], wanted: Sequence[FineTune], commands: Mapping[str, str]
) -> pd.DataFrame:
    """One row for each cell; see `export`."""
    known = {record["hash"] for record in records}
    missing = [
        {"status": f"not run: {commands.get(c.hash, '')}".rstrip(": "), **_fields(c)}
        for c in wanted
        if c.hash not in known
    ]
    cells: dict[str, list[dict[str, Any]]] = {}
    for record in [*records, *missing]:
        cells.setdefault(cell_of(record), []).append(record)
    rows = []
    for runs in cells.values():
        done = [r for r in runs if r["status"] == "done"]
        rates = sorted(r["learning_rate"] for r in runs)
        best = best_of(done or runs)
        row = dict(best)
        row["n_runs"], row["n_failed"] = len(done), sum(r["status"] == "failed" for r in runs)
        edges = (rates[0], rates[-1])
        row["at_edge"] = bool(done) and len(rates) > 2 and best["learning_rate"] in edges
        rows.append(row)
    table = pd.DataFrame(rows, columns=_COLUMNS)
    table["n_bits"] = table["n_bits"].astype("Int64")
    order = ["model", "data", "seed", "method", "n_bits"]
    return table.sort_values(order, kind="stable", na_position="first", ignore_index=True)


def _fields(config):
    plain = config.as_json()
    return {"hash": config.hash, **plain.pop("settings"), **plain}


RESULTS = (  # fields of a record that its config does not hold, and the learning rate
    *("hash", "learning_rate", "hardware", "versions", "commit", "command", "status", "reason"),
    *("notes", "task", "metric", "value", "validation_value", "fp_value", "bits_per_weight"),
    *("sparsity", "n_train", "n_test", "n_steps", "loss", "seconds", "fingerprint"),
    *("baseline_fingerprint", "format", "n_workers"),
)


def cell_of(record: Mapping[str, Any]) -> str:
    """What a record is a number of, whatever its learning rate."""
    return config_hash({k: v for k, v in record.items() if k not in RESULTS})
