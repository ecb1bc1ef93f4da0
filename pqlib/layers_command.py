"""`pqlib layers`: both problems solved exactly on the layers of any network, on any images."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from pqlib.experiments.layer_config import LITE0_LAYERS, LayerBounds
from pqlib.option_types import Bits, Names

_CONFIG = (
    click.argument("model", default=LayerBounds.model),
    click.option("--weights", help="A checkpoint, 'pretrained' or 'random'; see MODEL."),
    click.option(
        "--images", help="A folder of JPEG and PNG; by default photographs of pip packages."
    ),
    click.option(
        "--transform",
        default=LayerBounds.transform,
        show_default=True,
        help="'imagenet' (with the model's own size and mean), or python:package.module:factory.",
    ),
    click.option(
        "--n-images",
        type=int,
        default=LayerBounds.n_images,
        show_default=True,
        help="Drawn of the images, for the Gram matrices.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of every draw."),
    click.option("--image-seed", type=int, help="Of the draw of images; by default the seed."),
    click.option(
        "--layers",
        "names",
        type=Names(),
        help="Module names, with commas, or 'all'. Ten layers of EfficientNet-Lite0 by default, of "
        "another model all.",
    ),
    click.option(
        "--chunk", type=int, help="Most inputs of a chunk; by default the paper's 32 and 36."
    ),
    click.option(
        "--bits", type=Bits(), default="2-8", show_default=True, help="Such as 4 or 2,4,8."
    ),
    click.option(
        "--n-channels",
        type=int,
        default=LayerBounds.n_channels,
        show_default=True,
        help="Output channels drawn of each layer; 0 for all.",
    ),
    click.option(
        "--n-chunks",
        type=int,
        default=LayerBounds.n_chunks,
        show_default=True,
        help="Chunks drawn of each layer's fan-in; 0 for all.",
    ),
    click.option(
        "--n-positions",
        type=int,
        help="Outputs drawn of each image and layer, if it puts out more; by default all.",
    ),
    click.option(
        "--max-nodes",
        type=int,
        default=LayerBounds.max_nodes,
        show_default=True,
        help="Of one exact search; the default takes 10 seconds to two minutes.",
    ),
    click.option(
        "--reproved-share",
        type=float,
        default=LayerBounds.reproved_share,
        show_default=True,
        help="Of the optima, proven again by another algorithm.",
    ),
)
_RUN = (
    click.option("--jobs", type=click.IntRange(1), help="Processes; all cores by default."),
    click.option(
        "--folder",
        type=click.Path(path_type=Path, file_okay=False),
        help="For the results; by default one in runs/, named by a hash of the options.",
    ),
    click.option("--dry-run", is_flag=True, help="Say what it would cost, and stop."),
)


def _with(options: tuple[Callable, ...]) -> Callable:
    """All of these options, in this order."""

    def decorate(function):
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@click.group(short_help="The layers of a network, solved to proven optimality.")
def layers() -> None:
    """Compare both methods on the layers of a network, each solved to proven optimality."""


@layers.command(short_help="Each channel to its proven optimum, by both methods.")
@_with(_CONFIG)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or a Ray cluster (RAY_ADDRESS, or one that is started here).",
)
@_with(_RUN)
def solve(names, engine, jobs, folder, dry_run, **options) -> None:
    """Prune and quantize channels of MODEL's layers, each to its proven optimum.

    \b
    MODEL is one of
      timm:efficientnet_lite0           the default; its weights come from a pip package
      torchvision:resnet18              weights downloaded by torchvision
      timm:vit_small_patch16_224        weights downloaded by timm
      python:package.module:factory     a callable that returns your module

    \b
    pqlib layers solve --dry-run
    pqlib layers solve --layers conv_stem,classifier --n-channels 8
    pqlib layers solve python:mine.nets:tiny --weights tiny.pth --images photos --layers all

    Of each channel: the best subset at every number of non-zeros, and the best integers at the
    tensor's scale, the chunk's, and the best of 17 scales round the tensor's. Where pruning wins
    at all of these, every scale between half and twice the tensor's is looked at. Units (layer,
    chunk) that are done are kept in the folder: the same command goes on where an interrupted one
    stopped.
    """
    with _answered():
        from pqlib.experiments.layer_run import run  # slow to import

        done = run(_config(names, options), folder, engine, jobs, dry_run)
    if done:
        click.echo(f"table.csv, verdicts.csv and provenance.json in {done}")


@layers.command()
@_with(_CONFIG)
@click.option(
    "--n-subsets", type=int, default=20, show_default=True, help="Draws of the images, N each."
)
@click.option(
    "--photographs",
    is_flag=True,
    help="Beside a folder of images, as many draws of the photographs of pip packages.",
)
@_with(_RUN)
def stability(names, n_subsets, photographs, jobs, folder, dry_run, **options) -> None:
    """Do the verdicts on MODEL's layers depend on the images?

    Runs `pqlib layers solve` on the same channels and chunks with one draw of images after another,
    and with all images of the folder at once. What is proven between scales is left out. MODEL and
    the other options are those of `pqlib layers solve`.

    \b
    pqlib layers stability --images photos --n-images 48 --photographs --dry-run
    pqlib layers stability --n-subsets 5 --layers conv_stem,classifier --n-channels 8

    Draws that are done are kept in the folder: the same command goes on where an interrupted one
    stopped.
    """
    with _answered():
        from pqlib.experiments.layer_run import run_stability  # slow to import
        from pqlib.experiments.layer_stability import LayerStability

        config = LayerStability(_config(names, options), n_subsets, photographs)
        done = run_stability(config, folder, jobs, dry_run)
    if done:
        click.echo(f"stability.csv and provenance.json in {done}")


def _config(names, options) -> LayerBounds:
    if names is None:
        names = LITE0_LAYERS if options["model"] == LayerBounds.model else ()
    return LayerBounds(layers=names, **options)


@contextmanager
def _answered() -> Iterator[None]:
    """Errors that a user can mend as messages, and an interruption as one."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except (ValueError, TypeError, OSError, ModuleNotFoundError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; the same command goes on from here") from None
