"""`pqlib run`: the experiments on whole networks."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from pqlib.experiments.finetune_config import METHODS, TRAINED
from pqlib.experiments.presets import CHANGES, MODELS, PRESETS, RATES_AT, Sweep
from pqlib.option_types import Bits, Names


class Numbers(click.ParamType):
    """Whole numbers such as 0,1,2 or -1,0,1."""

    name = "NUMBERS"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        if not isinstance(value, str):
            return value
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers such as -1,0,1")


class Size(click.ParamType):
    """Pixels such as 64, or height and width as 192x256."""

    name = "SIZE"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | tuple[int, ...]:
        if not isinstance(value, str):
            return value
        parts = value.split("x")
        if len(parts) > 2 or not all(part.isdecimal() for part in parts):
            self.fail(f"{value!r} is not a size such as 64 or 192x256")
        return int(parts[0]) if len(parts) == 1 else tuple(map(int, parts))


class RatesAt(Bits):
    """Bit-widths, or all."""

    def convert(self, value: Any, param: Any, ctx: Any) -> list[int] | str:
        return value if value == "all" else super().convert(value, param, ctx)


@click.group("run", short_help="Whole networks: fine-tuned, or one layer at a time.")
def runs() -> None:
    """Whole networks: fine-tuned at equal budgets (Table 1), or one layer at a time (Figure 6)."""


def _joined(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


_CELLS = (
    click.option(
        "--preset",
        type=click.Choice(PRESETS),
        default="smoke",
        show_default=True,
        help="smoke: seconds, on digits; laptop: a night of two cores; gpu: a day of one; paper: "
        "Table 4 on ImageNet, Pascal VOC and COCO.",
    ),
    click.option(
        "--models",
        type=Names(),
        default="all",
        show_default="all eight of Table 1",
        help=f"With commas, of {', '.join(MODELS)}, cifar_resnet20, cifar_resnet32 and "
        "python:package.module:factory.",
    ),
    click.option("--bits", type=Bits(), default="2-8", show_default=True),
    click.option(
        "--methods",
        type=Names(),
        default=",".join(TRAINED),
        show_default=True,
        help=f"Of {', '.join(METHODS)}; none is the baseline alone, which all others bring along.",
    ),
    click.option(
        "--seeds",
        type=Numbers(),
        default="0",
        show_default=True,
        help="With commas; each has a baseline of its own.",
    ),
    click.option(
        "--powers",
        type=Numbers(),
        help="Learning rates tried of each cell: the preset's times 0.33 to these powers, by "
        "default the preset's, too.",
    ),
    click.option(
        "--rates-at",
        type=RatesAt(),
        help="Try them at these of --bits only, with the first of --seeds; every other cell takes "
        "the rate that was best, on the validation images, at the nearest of these (of two as "
        "near, the larger), for the same model and method. At 2-8 bits with 3 seeds and 3 rates, "
        "2,4,8 takes 27 runs of a model and method, not 63. With 'all' each cell tries its own, "
        f"which is the default but for --preset laptop: {_joined(RATES_AT['laptop'])}.",
    ),
    click.option(
        "--data",
        multiple=True,
        help="Instead of the preset's: a source as below for all models, or TASK=SOURCE for those "
        "of one task, such as segmentation=camvid:PATH; may be repeated.",
    ),
)
TRAINING = (  # what `presets.CHANGES` names, for every experiment that trains networks
    click.option(
        "--size",
        type=Size(),
        help="Of the images in pixels, such as 64 or 192x256; by default the preset's, as all of "
        "the following.",
    ),
    click.option(
        "--stem",
        type=click.Choice(["imagenet", "small"]),
        help="First layers: as for ImageNet, or small ones for images of some 32 px.",
    ),
    click.option("--variant", help="tf_efficientdet_d1, ...; 'small' DeepLab-V3 for small images."),
    click.option("--limit", type=int, help="Use at most so many images of each split."),
    click.option(
        "--baseline-limit",
        type=click.IntRange(0),
        help="The same for the baselines' training; 0 for all images, by default as --limit.",
    ),
    click.option(
        "--weights",
        help="The baselines start from: 'pretrained', 'random', a checkpoint (a file, or an "
        "https address with its #sha256=HASH), or another network's, such as timm:NAME.",
    ),
    click.option(
        "--validation",
        type=click.Choice(["train", "test"]),
        help="What the images to choose learning rates on are cut from, where none are set apart.",
    ),
    click.option("--epochs", type=int, help="Of the fine-tuning."),
    click.option("--baseline-epochs", type=int, help="Of the baselines' training; 0 for none."),
    click.option("--batch-size", type=int, help="Images of a step."),
    click.option("--max-steps", type=int, help="End each training after so many."),
    click.option(
        "--precision",
        type=click.Choice(["float32", "bf16", "fp16"]),
        help="Of the layers' arithmetic, by autocast.",
    ),
    click.option(
        "--channels-last",
        is_flag=True,
        help="Hold the channels of images innermost: convolutions in bf16 are faster.",
    ),
    click.option("--n-threads", type=int, help="Of each run; other numbers give other bits."),
    click.option(
        "--baseline-threads",
        type=click.IntRange(1),
        help="Of the baselines' training, for which all other runs of a network wait.",
    ),
    click.option("--n-workers", type=int, help="Processes beside each run that read images."),
    click.option("--device", help="cpu or cuda."),
    click.option(
        "--keep-first-last",
        is_flag=True,
        help="Leave the first and the last layer at 8 bits, in both methods.",
    ),
)
_PLACE = (
    click.option(
        "--folder",
        type=click.Path(path_type=Path, file_okay=False),
        help="For rows, checkpoints and tables; runs/table1-PRESET by default.",
    ),
    click.option(
        "--checkpoint-seconds",
        type=click.FloatRange(0),
        default=60.0,
        show_default=True,
        help="Least time between two checkpoints of a run.",
    ),
)


def _cells(command: Callable) -> Callable:
    for option in reversed((*_CELLS, *TRAINING, *_PLACE)):
        command = option(command)
    return command


def _sweep(options: dict[str, Any]) -> Sweep:
    """Take what says which runs out of ``options``."""
    changes = {name: options.pop(name) for name in CHANGES}
    changes = {k: v for k, v in changes.items() if v is not None and v is not False}
    models = options.pop("models") or MODELS
    names = ("preset", "bits", "methods", "seeds", "powers", "rates_at", "data")
    named = {name: options.pop(name) for name in names}
    named["methods"] = named["methods"] or METHODS
    if named["rates_at"] is None:
        at = RATES_AT.get(named["preset"], ())
        named["rates_at"] = tuple(bits for bits in at if bits in named["bits"]) or None
    elif named["rates_at"] == "all":
        named["rates_at"] = None
    return Sweep(models=models, changes=changes, **named)


@runs.command(short_help="Fine-tune networks quantized and pruned, and compare (Table 1).")
@_cells
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or a Ray cluster (RAY_ADDRESS, or one that is started here) "
    "on which --folder is shared.",
)
@click.option("--jobs", type=click.IntRange(1), help="Runs at a time; by default all cores' worth.")
@click.option("--retry-failed", is_flag=True, help="Run those again that have failed.")
@click.option("--dry-run", is_flag=True, help="Print every run with its hours, and stop.")
@click.option("--measure", is_flag=True, help="With --dry-run: time a few steps of each model.")
def table1(engine, jobs, retry_failed, dry_run, measure, folder, checkpoint_seconds, **options):
    """Fine-tune networks quantized (LSQ) and pruned at equal budgets, and compare.

    \b
    pqlib run table1 --preset smoke --models resnet18 --bits 2,4
    pqlib run table1 --preset laptop --dry-run
    pqlib run table1 --preset laptop --models resnet18,vit_small --bits 2-8 --jobs 2
    pqlib run table1 --preset gpu --data cifar10:data --models resnet18 --engine ray
    pqlib run table1 --preset paper --data classification=folder:imagenet
    pqlib run table1 --preset laptop --seeds 0,1,2 --powers -1,0,1 --rates-at 2,8

    A baseline is trained first; both methods then start from it and see the same images in the
    same order, for the same epochs, at each learning rate of the same grid. The rate is chosen on
    validation images; the table reports the test images. With --rates-at the rates are tried for
    some cells only, first of all; the dry run has no hash of the others until these are done.

    \b
    SOURCE of --data is one of
      digits                   scikit-learn's, enlarged
      scenes, scenes:N         made from the digits, for every task
      folder:PATH              train/CLASS/*.jpg and test/, in a folder or a zip file
      cifar10:PATH             the folder that holds cifar-10-batches-py
      cifar10-npz:PATH         arrays x_train, y_train, x_test, y_test
      camvid:PATH, voc:PATH    images and label maps
      coco:PATH, boxes:PATH    images and boxes

    Every run has a row in the folder as soon as it ends, also if it fails, and a checkpoint
    before. The same command goes on where an interrupted one stopped, to the same numbers; what
    is done is never run twice, and another choice of models may use the same folder. table1.csv
    has the chosen run of each cell, runs.csv all of them. If a run failed, the exit status is 1.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if measure and not dry_run:
        raise click.UsageError("--measure times a few steps for --dry-run; add that, or leave it")
    try:
        swept = _sweep(options)
        from pqlib.experiments import table1_run

        if dry_run:
            click.echo(table1_run.cost(swept, folder, jobs, measure=measure))
            return
        folder, failed = table1_run.run(
            swept,
            folder,
            engine=engine,
            n_jobs=jobs,
            retry_failed=retry_failed,
            checkpoint_seconds=checkpoint_seconds,
        )
    except (ValueError, TypeError, OSError, ModuleNotFoundError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; the same command goes on from here") from None
    click.echo(f"table1.csv and runs.csv in {folder}")
    if failed:
        raise click.ClickException(
            f"{failed} runs failed; {folder / 'runs.csv'} says why, and --retry-failed runs them "
            "again"
        )


@runs.command(short_help="One run of table1 by its hash, also on many GPUs.")
@click.argument("run_hash", metavar="HASH")
@_cells
def cell(run_hash, folder, checkpoint_seconds, **options):
    """One run of table1, named by its HASH in the dry run; also on many GPUs.

    \b
    pqlib run table1 --preset paper --models resnet50 --dry-run
    accelerate launch -m pqlib run cell HASH --preset paper --models resnet50

    Options are those of table1, and so is the folder: the row counts there. Under `accelerate
    launch` each process takes its share of every batch. The baseline must be done before.
    """
    try:
        swept = _sweep(options)
        from pqlib.experiments import table1_run

        text = table1_run.run_one(swept, run_hash, folder, checkpoint_seconds=checkpoint_seconds)
    except (ValueError, TypeError, OSError, ModuleNotFoundError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; the same command goes on from here") from None
    if text:
        click.echo(text)
