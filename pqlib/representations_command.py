"""`pqlib run representations`: what fine-tuning does to the layers of a network."""

import shlex
import signal
import sys
from pathlib import Path

import click

from pqlib.experiments.presets import CHANGES, MODELS, PRESETS
from pqlib.experiments.representations import METHODS, Representations
from pqlib.option_types import Bits, Names
from pqlib.run_command import TRAINING, Numbers

_RUNS = (
    click.option(
        "--preset",
        type=click.Choice(PRESETS),
        default="smoke",
        show_default=True,
        help="Settings of `pqlib run table1`; learning rates are the middle of its grid.",
    ),
    click.option(
        "--models",
        type=Names(),
        default="cifar_resnet20",
        show_default=True,
        help=f"With commas, of {', '.join(MODELS)}, cifar_resnet20, cifar_resnet32 and "
        "python:package.module:factory.",
    ),
    click.option("--bits", type=Bits(), default="2,4", show_default=True),
    click.option(
        "--methods",
        type=Names(),
        default=",".join(METHODS),
        show_default=True,
        help="prune follows the cubic schedule, prune_at_once has its final masks from the first "
        "step on, uncompressed shows what the training alone does.",
    ),
    click.option("--seeds", type=Numbers(), default="0", show_default=True),
    click.option("--data", multiple=True, help="Instead of the preset's, such as cifar10:PATH."),
    click.option(
        "--n-images",
        type=int,
        default=Representations.n_images,
        show_default=True,
        help="Test images on which layers are compared.",
    ),
    *TRAINING,
    click.option(
        "--folder",
        type=click.Path(path_type=Path, file_okay=False),
        help="For rows, checkpoints and the table; runs/representations-PRESET by default.",
    ),
    click.option(
        "--checkpoint-seconds",
        type=click.FloatRange(0),
        default=60.0,
        show_default=True,
        help="Least time between two checkpoints of a run.",
    ),
    click.option("--dry-run", is_flag=True, help="Print every run with its state, and stop."),
)


def _runs(command):
    for option in reversed(_RUNS):
        command = option(command)
    return command


@click.command(short_help="Layers beside the original's in training (Figures 7, 8).")
@_runs
def representations(folder, checkpoint_seconds, dry_run, **options):
    """Compare each layer with the original's while a network is fine-tuned (Figures 7 and 8).

    \b
    pqlib run representations --data digits --size 16 --epochs 4
    pqlib run representations --preset laptop --weights pretrained --baseline-epochs 0 \\
        --data cifar10:data --epochs 20
    pqlib run representations --preset laptop --models vit_small --bits 2,4

    Of every convolution and linear layer: the SNR of its output in dB, and linear CKA, against the
    network before compression, on the same test images. Epoch 0 is compressed and not yet
    trained. Gradual pruning is there shown with its final sparsity, which training reaches only
    after three quarters of the steps; prune_at_once has it throughout.

    Runs come one after another. The same command goes on where an interrupted one stopped; what
    is done is never run twice, and other bits, models and seeds may use the same folder.
    representations.csv has one row per run, epoch and layer.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command = shlex.join(["pqlib", *sys.argv[1:]])
    try:
        wanted = _wanted(options)
        from pqlib.experiments import representations_run

        folder = folder or Path("runs") / f"representations-{wanted.preset}"
        if dry_run:
            click.echo(representations_run.states(wanted, folder))
            return
        path = representations_run.run(
            wanted, folder, checkpoint_seconds=checkpoint_seconds, command=command
        )
    except (ValueError, TypeError, OSError, ModuleNotFoundError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; the same command goes on from here") from None
    click.echo(path)


def _wanted(options) -> Representations:
    changes = {name: options.pop(name) for name in CHANGES}
    changes = {k: v for k, v in changes.items() if v is not None and v is not False}
    options["models"] = options["models"] or MODELS
    options["methods"] = options["methods"] or METHODS
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    return Representations(changes=changes, **options)
