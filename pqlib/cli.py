"""The command line: build the book, re-run a chapter, see what is stale."""

import base64
import binascii
import contextlib
import functools
import http.server
import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console
from rich.table import Column, Table

from pqlib.agreement_command import agreement
from pqlib.compare_command import compare
from pqlib.layer_accuracy_command import layer_accuracy
from pqlib.layers_command import layers
from pqlib.leads_command import leads
from pqlib.option_types import Bits
from pqlib.representations_command import representations
from pqlib.run_command import runs


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pqlib")
def main() -> None:
    """Pruning vs quantization, executed: the textbook and its library."""


@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--bits", type=Bits(), default="2-8", show_default=True, help="Such as 4 or 2,4,8.")
@click.option(
    "--granularity",
    type=click.Choice(["tensor", "channel"]),
    default="tensor",
    show_default=True,
    help="One scale per tensor, or one per output channel.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A .csv or .parquet file for the rows; without it only the summary is shown.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    show_default="all cores",
    help="Bit-widths at a time.",
)
@main.command("scan", short_help="Every weight tensor of any checkpoint, both methods.")
def scan_sources(
    sources: tuple[str, ...],
    bits: list[int],
    granularity: str,
    out: Path | None,
    overwrite: bool,
    jobs: int,
) -> None:
    """Quantize and prune every weight tensor of SOURCE..., and say which loses less.

    \b
    SOURCE is one of
      pip:efficientnet-lite0        weights that a pip package carries, as pip:minilm
      torchvision:resnet18          downloaded once, into $TORCH_HOME; or NAME:WEIGHTS
      timm:efficientnet_lite0
      weights.safetensors           or .pth .pt .th .npz, an index of shards,
      some/folder                   or a directory of these
      paper                         the 45 networks of the paper's appendix E, 8 GB in all

    \b
    pqlib scan pip:efficientnet-lite0
    pqlib scan model.safetensors --bits 2,4,8 --granularity channel --out rows.parquet
    pqlib scan paper --out book/results/fig3_zoo.csv

    With --out, tensors that are done are kept beside it in OUT.ledger.jsonl: the same command
    goes on where an interrupted one stopped. A tensor that cannot be measured is a row that says
    why; if none could, or a checkpoint could not be opened, the exit status is 1.
    """
    from pqlib import scan_command

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        failed = scan_command.run(sources, bits, granularity, out, overwrite, jobs)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        kept = f"; the same command goes on from {out}.ledger.jsonl" if out else ""
        raise click.ClickException(f"interrupted{kept}") from None
    if failed:
        raise click.exceptions.Exit(1)


main.add_command(layers)
main.add_command(runs)
runs.add_command(agreement)
runs.add_command(layer_accuracy)
runs.add_command(representations)
runs.add_command(leads)
runs.add_command(compare)


@main.group()
def book() -> None:
    """Build the book, or re-run a chapter with other parameters.

    \b
    pqlib book build                                the whole book, into _build/html
    pqlib book parameters distribution_error        what a chapter lets you change
    pqlib book run distribution_error -p n_bits 3   one chapter, other values, into runs/
    pqlib book status                               what a build would execute, and why
    """


def _command(function: Callable) -> Callable:
    """Make a subcommand that is given the book and answers mistakes in one message."""

    @functools.wraps(function)
    def wrapped(**options: Any) -> None:
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        logging.getLogger("pqlib").setLevel(logging.INFO)
        # a polite kill ends as Ctrl-C does: kernels gone, the last good book in place
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            from pqlib.book import build, chapters, parameters
        except ModuleNotFoundError as error:
            raise click.ClickException(
                f"{error.name} is not installed; install the book's tools with "
                'pip install -c constraints.txt -e ".[training,bounds,book,test]"'
            ) from None
        try:
            function(chapters.Book.find(Path.cwd()), **options)
        except (build.BuildError, parameters.InputError, OSError, yaml.YAMLError) as error:
            raise click.ClickException(str(error)) from None
        except KeyboardInterrupt:
            raise click.ClickException("interrupted; the last good book stays") from None

    return book.command()(wrapped)


_profile = click.option(
    "--profile",
    type=click.Choice(["smoke", "book", "full"]),
    default="book",
    show_default=True,
    help="smoke: seconds, for tests; book: what is published; full: hours or a GPU.",
)
_jobs = click.option(
    "--jobs",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    show_default="all cores",
    help="Chapters at a time.",
)


@_profile
@_jobs
@_command
def build(book: Any, profile: str, jobs: int) -> None:
    """Execute what changed, and render the book.

    \b
    pqlib book build                  into _build/html
    pqlib book build --profile smoke  into _build/smoke/html, in seconds
    """
    from pqlib.book.build import build_book

    click.echo(build_book(book, profile, jobs))


def _mappings(context: click.Context, option: click.Parameter, given: Any) -> list[dict]:
    """Read YAML from texts, from files, or from base64, as papermill's options do."""
    found = []
    for text in given:
        try:
            value = yaml.safe_load(_READ.get(option.name or "", str)(text))
        except OSError as error:
            raise click.BadParameter(f"{text!r} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise click.BadParameter(f"{text!r} is not UTF-8 text") from None
        except binascii.Error:
            raise click.BadParameter(f"{text!r} is not base64") from None
        except (yaml.YAMLError, ValueError) as error:  # the latter of a date that there is not
            raise click.BadParameter(f"{text!r} is not YAML: {error}") from None
        if not isinstance(value, dict):
            raise click.BadParameter(f"{text!r} is not a mapping; write '{{name: value}}'")
        found.append(value)
    return found


_READ = {
    "files": lambda path: Path(path).read_text("utf-8"),
    "encoded": lambda text: base64.b64decode(text, validate=True).decode(),
}


def _yaml_option(short: str, long: str, name: str, metavar: str, text: str) -> Callable:
    return click.option(
        short, long, name, metavar=metavar, multiple=True, callback=_mappings, help=text
    )


@_yaml_option("-b", "--parameters_base64", "encoded", "TEXT", "YAML in base64.")
@_yaml_option("-f", "--parameters_file", "files", "PATH", "A YAML file.")
@_yaml_option(
    "-y", "--parameters_yaml", "yamls", "YAML", "Several values, lists too: -y '{n_bits: 3}'."
)
@click.option(
    "-p",
    "--parameters",
    "texts",
    type=(str, str),
    metavar="NAME VALUE",
    multiple=True,
    help="One value, read by its declared type; wins over YAML.",
)
@click.argument("name")
@_command
def run(book: Any, name: str, texts: Any, yamls: Any, files: Any, encoded: Any) -> None:
    """Execute chapter NAME with other parameters into runs/, never over the book.

    \b
    pqlib book run distribution_error -p n_bits 3
    pqlib book run distribution_error -p distribution laplace -y '{n_bits: 3, seed: 1}'

    Names, types and ranges are checked before anything runs; `pqlib book parameters NAME` lists
    them, and `pqlib book status` the chapters.
    """
    from pqlib.book.build import run_chapter

    values: dict[str, Any] = {}
    for mapping in (*files, *encoded, *yamls):
        values |= mapping
    click.echo(run_chapter(book, name, texts, values))


def _table(*headers: str, title: str) -> Table:
    return Table(*(Column(header, overflow="fold") for header in headers), title=title)


@click.argument("name")
@_command
def parameters(book: Any, name: str) -> None:
    """List what chapter NAME lets you change: types, defaults and limits.

    `pqlib book status` lists the chapters.
    """
    table = _table("name", "type", "default", "allowed", "meaning", title=name)
    for p in book.chapter(name).parameters.values():
        table.add_row(p.name, p.type, repr(p.default), p.constraint, p.help)
    Console(markup=False).print(table)


@_profile
@_command
def status(book: Any, profile: str) -> None:
    """Say for each chapter whether its result is cached, or what made it stale."""
    from pqlib.book.build import runs_of

    table = _table("chapter", "state", "because", title=f"profile {profile}")
    for run in runs_of(book, profile):
        reasons = run.stale()
        table.add_row(run.chapter.name, "stale" if reasons else "cached", "\n".join(reasons))
    Console(markup=False).print(table)


@_command
def check(book: Any) -> None:
    """Check that no notebook carries outputs and that every parameters cell is sound."""
    paths = sorted((book.root / "notebooks").glob("*.ipynb"))
    cells = [(path.stem, c) for path in paths for c in book.chapter(path.stem).notebook.cells]
    full = sorted({name for name, c in cells if c.get("outputs") or c.get("execution_count")})
    if full:
        raise click.ClickException(f"outputs in {', '.join(full)}; clear them before committing")
    click.echo(f"{len(paths)} notebooks, no outputs")


@_command
def clean(book: Any) -> None:
    """Remove _build: the book and the cache. What is in runs, trainings too, stays."""
    shutil.rmtree(book.root / "_build", ignore_errors=True)


@_command
def zip(book: Any) -> None:
    """Pack the book into _build/pqlib-book.zip, which needs no network.

    The smoke book is refused, and so is one whose chapters ran with other parameters.
    """
    from pqlib.book.build import pack

    click.echo(pack(book))


@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port on this machine.",
)
@_command
def serve(book: Any, port: int) -> None:
    """Serve the built book on this machine until Ctrl-C."""
    folder = book.output("book") / "html"
    if not folder.is_dir():
        raise click.ClickException("there is no book yet; run `pqlib book build` first")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise click.ClickException(f"port {port}: {error.strerror}; take another --port") from None
    with server, contextlib.suppress(KeyboardInterrupt):
        click.echo(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C ends)")
        server.serve_forever()
