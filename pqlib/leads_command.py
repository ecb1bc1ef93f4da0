"""`pqlib run leads`: who is ahead in each cell of a sweep, and by how much."""

import signal
from pathlib import Path

import click

from pqlib.run_command import Numbers


@click.command(short_help="Both methods side by side, with intervals.")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--seeds", type=Numbers(), help="Runs of these alone, such as 0,1; by default all.")
@click.option("--n-draws", type=int, default=1000, show_default=True, help="Of the bootstrap.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the bootstrap.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The table; leads.csv in FOLDER by default.",
)
def leads(folder, seeds, n_draws, seed, out):
    """Set both methods side by side in each cell of the sweep in FOLDER.

    \b
    pqlib run table1 --preset laptop --models resnet18 --folder runs/first
    pqlib run leads runs/first

    FOLDER is that of a `pqlib run table1`, finished or not. A row per network and budget holds the
    value of both methods on the test images, each at the learning rate that was best on the
    validation images, their mean over the seeds that both have, and quantization's lead with a 95 %
    interval: test images, and seeds where there are several, are drawn with replacement, the same
    for both methods. A lead whose interval holds zero is called a tie. Nothing is run. Runs with
    --keep-first-last are compared with each other, and quantization with them to pruning without.

    Cells in which a method has no finished run are named, and have no row.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out = out or folder / "leads.csv"
    try:
        from pqlib.table1_leads import leads as side_by_side

        options = {"seeds": seeds, "n_draws": n_draws, "seed": seed}
        table, left_out = side_by_side(folder, **options, on_row=_say)
        if len(table):
            out.parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(out, index=False, lineterminator="\n")
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; nothing was written") from None
    for text in left_out:
        click.echo(f"left out: {text}", err=True)
    click.echo(f"table in {out}" if len(table) else "no cell has both methods yet")


def _say(row):
    from pqlib.training_findings import ALIKE

    spared = "" if row["comparison"] == ALIKE else f", {row['comparison']}"
    ahead = "a tie" if row["winner"] == "neither" else f"{row['winner']} is ahead"
    click.echo(
        f"{row['model']} {row['n_bits']} bits, {row['when']}{spared}: quantization "
        f"{row['quantization']:.1f}, pruning {row['pruning']:.1f}, lead {row['lead']:+z.1f} "
        f"({row['low']:z.1f} to {row['high']:z.1f}): {ahead}",
        err=True,
    )
