"""`pqlib run layer-accuracy`: one layer compressed at a time, and what the network loses."""

import signal
from pathlib import Path

import click

from pqlib.option_types import Bits, Names
from pqlib.run_command import Size


@click.command(
    "layer-accuracy", short_help="One layer compressed at a time: what the network loses."
)
@click.option(
    "--model",
    default="cifar_resnet20",
    show_default=True,
    help="A classifier: a name as in `pqlib run table1`, or python:package.module:factory.",
)
@click.option(
    "--data",
    default="digits",
    show_default=True,
    help="digits, folder:PATH, cifar10:PATH or cifar10-npz:PATH, as in `pqlib run table1`.",
)
@click.option(
    "--weights",
    help="Of MODEL: 'pretrained', or a checkpoint as in `pqlib run table1`; without them it is "
    "random.",
)
@click.option("--size", type=Size(), default=32, show_default=True, help="Of the images, pixels.")
@click.option(
    "--stem",
    type=click.Choice(["imagenet", "small"]),
    default="imagenet",
    show_default=True,
    help="First layers: as for ImageNet, or small ones for images of some 32 px.",
)
@click.option(
    "--split",
    type=click.Choice(["test", "train"]),
    default="test",
    show_default=True,
    help="Evaluate on these images.",
)
@click.option("--limit", type=int, help="Use at most so many of them.")
@click.option("--bits", type=Bits(), default="2-8", show_default=True, help="Such as 4 or 2,4,8.")
@click.option("--layers", type=Names(), default="all", show_default=True, help="With commas.")
@click.option(
    "--batch-size", type=int, default=64, show_default=True, help="Images evaluated at a time."
)
@click.option(
    "--n-threads", type=int, default=1, show_default=True, help="Other numbers give other bits."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of what --limit draws.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="For rows and table; by default one in runs/, named by a hash of the options.",
)
@click.option("--dry-run", is_flag=True, help="Say what it would cost, and stop.")
def layer_accuracy(folder, dry_run, **options):
    """Compress one layer at a time and see what the network loses (Figure 6).

    \b
    pqlib run layer-accuracy --weights trained.pth --data digits --size 16
    pqlib run layer-accuracy --weights runs/table1-laptop/HASH/weights.pt --data digits
    pqlib run layer-accuracy --weights pretrained --data cifar10:data --dry-run
    pqlib run layer-accuracy --model resnet18 --weights pretrained --data folder:imagenet --size 224

    Each convolution and each linear layer is quantized, at its MSE-optimal scale, and pruned to the
    same size, at every budget, while all other layers stay as they are. A row holds the SNR of the
    layer's output and that of the logits, the points of accuracy lost, the increase of the
    cross-entropy, and how often the network still gives its original answer. Nothing is trained.

    A row is kept as soon as it is measured: the same command goes on where an interrupted one
    stopped, and repeats nothing. layer_accuracy.csv in the folder has all of them.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from pqlib.experiments.layer_accuracy_run import LayerAccuracy, cost, run_with_progress

        config = LayerAccuracy(**options)
        if dry_run:
            click.echo(cost(config))
            return
        folder = run_with_progress(config, folder)
    except (ValueError, TypeError, OSError, ModuleNotFoundError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; the same command goes on from here") from None
    click.echo(f"layer_accuracy.csv in {folder}")
