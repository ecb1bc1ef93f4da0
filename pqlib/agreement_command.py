"""`pqlib run agreement`: what a network answers once it is compressed, without labels."""

import shlex
import signal
from pathlib import Path

import click

from pqlib.option_types import Bits

_ALL_BITS = [2, 3, 4, 5, 6, 7, 8]  # the default, which the printed command leaves out


@click.command(short_help="How often a compressed network answers as before.")
@click.argument("model", default="timm:efficientnet_lite0")
@click.option("--weights", help="A checkpoint, 'pretrained' or 'random'; see `pqlib layers solve`.")
@click.option("--images", help="A folder of JPEG and PNG; by default photographs of pip packages.")
@click.option("--n-images", type=int, help="Draw so many; by default all, or 32 crops.")
@click.option("--bits", type=Bits(), default="2-8", show_default=True)
@click.option("--keep-first-last", is_flag=True, help="Leave the first and the last layer 8 bits.")
@click.option(
    "--measure-batch-norm",
    is_flag=True,
    help="Measure batch norm's statistics again on the images, for each compressed network.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="agreement.csv",
    show_default=True,
    help="The table; it holds all rows so far whenever the command ends.",
)
def agreement(model, **options):
    """Compress MODEL without training and compare its answers with those it gave before.

    \b
    pqlib run agreement
    pqlib run agreement torchvision:resnet18 --weights pretrained --images photos --bits 4,8

    All convolutions and linear layers are quantized, at the MSE-optimal scale of each, or pruned to
    the same size. A row per method and budget tells how many images keep their largest logit, and
    the SNR of the logits, with 95 % intervals. Labels are not needed and accuracy is not claimed.
    With --measure-batch-norm, a network with batch norm may adapt to its new weights as far as a
    look at the same images allows.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _run(model, **options)
    except (ValueError, TypeError, OSError, ModuleNotFoundError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        done = f"interrupted; {options['out']} has the rows that were done"
        raise click.ClickException(done) from None
    click.echo(f"table in {options['out']}")


def _run(model, weights, images, n_images, bits, keep_first_last, measure_batch_norm, seed, out):
    import os.path

    import pandas as pd

    from pqlib.experiments.agreement import agreement as compare
    from pqlib.experiments.finetune_record import made_with
    from pqlib.layers.images import open_images
    from pqlib.layers.models import open_model

    opened = open_model(model, weights, seed=seed)
    folder = os.path.expandvars(images) if images else None
    pictures = open_images(folder, n_images=n_images, seed=seed, preprocessing=opened.preprocessing)
    out.parent.mkdir(parents=True, exist_ok=True)
    words = ["pqlib", "run", "agreement", model]
    for name, value in (("weights", weights), ("images", images), ("n-images", n_images)):
        words += [f"--{name}", str(value)] if value is not None else []
    words += ["--bits", ",".join(map(str, bits))] if bits != _ALL_BITS else []
    words += ["--keep-first-last"] if keep_first_last else []
    words += ["--measure-batch-norm"] if measure_batch_norm else []
    words += ["--seed", str(seed)] if seed else []
    made = made_with("cpu") | {"command": shlex.join(words)}
    named = {"model": model, "images": images or "photographs"}
    named["batch_norm"] = "measured again" if measure_batch_norm else "original"
    rows = []

    def on_row(row):
        rows.append(named | row | made)
        pd.DataFrame(rows).to_csv(out, index=False, lineterminator="\n")
        said = f"{row['method']} {row['n_bits']} bits: {row['agreement']:.1f} % as before"
        click.echo(f"{said}, logits at {row['logit_snr_db']:.1f} dB", err=True)

    compare(
        opened.module,
        pictures,
        bits,
        keep_first_last=keep_first_last,
        measure_batch_norm=measure_batch_norm,
        seed=seed,
        on_row=on_row,
    )
