"""`pqlib run compare`: a run that was made again, beside what it was."""

import signal
from pathlib import Path

import click

_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command(short_help="Runs made again, beside what they were.")
@click.argument("folder", type=_FOLDER)
@click.argument("again", type=_FOLDER)
@click.option("--n-draws", type=int, default=1000, show_default=True, help="Of the bootstrap.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the bootstrap.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The table; compare.csv in AGAIN by default.",
)
def compare(folder, again, n_draws, seed, out):
    """Set the runs that FOLDER and AGAIN have in common side by side.

    \b
    pqlib run table1 --preset smoke --models resnet18 --bits 2 --folder runs/first
    pqlib run table1 --preset smoke --models resnet18 --bits 2 --folder runs/again
    pqlib run compare runs/first runs/again

    Each is the --folder of a `pqlib run table1`, or the book's ledger, such as
    book/results/ledger/small_data: every row of the book's Table 1 names the command that makes it
    again. Of each run the value on the test images then and now, their difference with a 95 %
    interval over test images, and whether the trained weights are the same to the last bit, as they
    are on the same kind of machine with the same versions. Nothing is run.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out = out or again / "compare.csv"
    try:
        from pqlib.table1_again import compare as side_by_side

        table = side_by_side(folder, again, n_draws=n_draws, seed=seed, on_row=_say)
        out.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(out, index=False, lineterminator="\n")
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; nothing was written") from None
    click.echo(f"table in {out}")


def _say(row):
    what = "uncompressed" if row["method"] == "none" else f"{row['method']} {row['n_bits']} bits"
    sure = f" ({row['low']:z.1f} to {row['high']:z.1f})" if row["low"] is not None else ""
    bits = "the same bits" if row["same_bits"] else "other bits"
    click.echo(
        f"{row['model']} {what}, rate {row['learning_rate']:.3g}: {row['value']:.1f} and again "
        f"{row['value_again']:.1f}, {row['difference']:+z.1f}{sure}; {bits}",
        err=True,
    )
