"""`pqlib scan`: a scan with progress, a ledger to go on from, and a summary."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from pqlib.scan import Ledger, as_table, check_format, open_all, scan_checkpoint, write_table


def run(
    sources: Sequence[str],
    bits: Sequence[int],
    granularity: str,
    out: Path | None,
    overwrite: bool,
    n_jobs: int,
) -> bool:
    """Scan, write ``out`` if given, print a summary; returns whether something failed."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    bar = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))
    task = bar.add_task("", total=None)

    def downloading(file, there, total):
        of = f" of {total / 2**20:.0f}" if total else ""
        bar.update(task, description=f"download {file}: {there / 2**20:.0f}{of} MB")

    checkpoints = open_all(sources, bits, granularity, downloading)
    bar.update(task, total=len(checkpoints))

    def measure(ledger):
        with bar:
            return _scan(checkpoints, bits, granularity, n_jobs, ledger, bar, task)

    if out is None:
        table, failures = measure(None)
    else:
        check_format(out)
        if out.exists() and not overwrite:
            raise ValueError(f"{out} exists; give --overwrite, or another --out")
        config = {"sources": list(sources), "bits": list(bits), "granularity": granularity}
        with Ledger(f"{out}.ledger.jsonl", config) as ledger:
            table, failures = measure(ledger)
        write_table(table, out)
        if not failures:  # what failed is tried again by the same command, with --overwrite
            ledger.path.unlink()
    console = Console(markup=False)
    console.print(summary(table))
    for model, layer, reason in _skipped(table):
        console.print(f"skipped {model} {layer}".rstrip() + f": {reason}")
    if out is not None:
        console.print(f"{len(table)} rows in {out}", soft_wrap=True)
    return failures or bool((table["skipped"] != "").all())


def _scan(checkpoints, bits, granularity, n_jobs, ledger, bar, task):
    """(table, whether a checkpoint could not be read to its end)."""
    rows, failures = [], []
    for checkpoint in checkpoints:
        bar.update(task, description=checkpoint.model)
        if ledger and ledger.is_complete(checkpoint.source):
            bar.advance(task)
            continue
        n_done = ledger.n_done(checkpoint.source) if ledger else 0
        failed = False
        for group in scan_checkpoint(checkpoint, bits, granularity, n_jobs, n_done):
            if "n_bits" not in group[0]:  # the checkpoint itself
                failed = True
                failures += group
                continue
            bar.update(task, description=f"{checkpoint.model} {group[0]['layer']}")
            if ledger:
                ledger.add(checkpoint.source, group)
            else:
                rows += group
        if ledger and not failed:
            ledger.finish(checkpoint.source)
        bar.advance(task)
    return as_table([*(ledger.rows() if ledger else rows), *failures]), bool(failures)


def summary(table: pd.DataFrame) -> Table:
    """Per model and bit-width: tensors, median SNRs, and how often each method wins."""
    columns = ("model", "bits", "tensors", "quantization dB", "pruning dB", "quantization wins")
    shown = Table(*(Column(c, overflow="fold") for c in columns), title="medians over the tensors")
    measured = table[table["skipped"] == ""]
    for (model, n_bits), rows in measured.groupby(["model", "n_bits"], sort=False):
        medians = rows[["quant_sqnr_db", "prune_sqnr_db"]].median()
        wins = int((rows["winner"] == "quantization").sum())
        shown.add_row(
            str(model),
            str(n_bits),
            str(len(rows)),
            *(f"{m:.2f}" for m in medians),
            f"{wins} of {len(rows)}",
        )
    return shown


def _skipped(table):
    rows = table.loc[table["skipped"] != "", ["model", "layer", "skipped"]]
    return rows.drop_duplicates().itertuples(index=False)
