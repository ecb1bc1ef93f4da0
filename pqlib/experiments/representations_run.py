"""The comparison of layers from a command: the runs with progress, or which are done."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pqlib.experiments import representations
from pqlib.experiments.finetune_config import FineTune
from pqlib.experiments.ledger import Ledger
from pqlib.experiments.representations import Representations


def run(
    wanted: Representations, folder: Path, *, checkpoint_seconds: float = 60.0, command: str = ""
) -> Path:
    """Run what is missing, with progress; where the table is."""
    console = Console(stderr=True, markup=False, highlight=False)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    bar = Progress(*columns, TimeElapsedColumn(), console=console)
    whole = bar.add_task("runs", total=len(wanted.cells()))
    current = bar.add_task("", total=None, visible=False)

    def show(config, kind, value):
        if kind == "started":
            bar.reset(current, description=f"  {label(config)}", total=None, visible=True)
        elif kind == "at":
            step, n_steps, loss = value
            text = f"  {label(config)}, loss {loss:.3g}"
            bar.update(current, completed=step, total=n_steps, description=text)
        else:
            bar.advance(whole)
            bar.update(current, visible=False)
            text = f"{value['metric']} {value['value']:.2f}, {value['seconds']:.0f} s"
            console.print(f"{config.hash} {label(config)}: {kind}, {text}", soft_wrap=True)

    with bar:
        options = {"checkpoint_seconds": checkpoint_seconds, "command": command}
        representations.run(wanted, folder, on_event=show, **options)
    return folder / "representations.csv"


def states(wanted: Representations, folder: Path) -> str:
    """Every run with its hash, and whether it is done; nothing is made."""
    cells = wanted.cells()
    missing = {config.hash for config in cells}
    if (folder / "config.json").exists():
        missing = representations.lacking(wanted, Ledger(folder, wanted.ledger_config))
    lines = [f"{c.hash}  {label(c)}: {'to do' if c.hash in missing else 'done'}" for c in cells]
    return "\n".join(
        [*lines, f"{len(cells)} runs, {len(cells) - len(missing)} of them in {folder}"]
    )


def label(config: FineTune) -> str:
    """A run in a few words."""
    bits = "" if config.n_bits is None else f" {config.n_bits} bits"
    method = "baseline" if config.method == "none" else config.method
    return f"{config.model} {method}{bits}, seed {config.seed}, {config.settings.epochs} epochs"
