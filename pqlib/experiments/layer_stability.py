"""The per-layer comparison over again on other images: how far its verdicts depend on them."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pqlib._validation import check_integer
from pqlib.experiments import layer_bounds
from pqlib.experiments.layer_bounds import OnDone
from pqlib.experiments.layer_config import LayerBounds
from pqlib.experiments.layer_table import CHANNEL, TOTAL, layer_table
from pqlib.experiments.layer_verdicts import judge, layer_verdicts
from pqlib.experiments.ledger import Ledger, config_hash

PHOTOGRAPHS, ALL = "photographs", "all"  # in columns images and subset
NO_OUTPUT = "no output to lose"
COLUMNS = (
    *("images", "subset", "n_images", "layer", "chunk", "n_bits", "quantize_db"),
    *("prune_channel_db", "prune_layer_db", "winner", "verdict"),
)


@dataclass(frozen=True)
class LayerStability:
    """The same channels and chunks on one draw of images after another.

    Attributes
    ----------
    base : LayerBounds
        What is computed on each draw. Draw k has the image seed of ``base`` (its seed, where it
        has none) plus k; all else is the same on all draws.
    n_subsets : int
        Draws of ``base.n_images`` images.
    photographs : bool
        Beside a folder of images, as many draws of the photographs that pip packages bring along.
    """

    base: LayerBounds
    n_subsets: int = 20
    photographs: bool = False

    def __post_init__(self):
        if not isinstance(self.base, LayerBounds):
            raise TypeError(f"base must be a LayerBounds, got {self.base!r}")
        check_integer("n_subsets", self.n_subsets, low=2, high=1000)
        if self.photographs and self.base.images is None:
            raise ValueError(
                "photographs are set beside a folder of images, but images is None, which stands "
                "for the photographs alone; name a folder, or leave photographs out"
            )

    def as_json(self) -> dict[str, object]:
        """All of it, and the format of the records."""
        return dataclasses.asdict(self) | {"base": self.base.as_json()}

    @property
    def hash(self) -> str:
        """Names the run's folder."""
        return config_hash(self.as_json())


@dataclass(frozen=True)
class Draw:
    """One draw of images: the name of their source, the draw's, and what is run on them."""

    images: str
    subset: str
    config: LayerBounds
    files: tuple[str, ...] = dataclasses.field(repr=False)

    @property
    def key(self) -> str:
        """Names the draw in the ledger."""
        return f"{self.images} {self.subset}"


def draws_of(config: LayerStability) -> list[Draw]:
    """The subsets of the folder, all of it at once, and the draws of the photographs.

    Raises
    ------
    ValueError, OSError
        If the folder is absent or holds fewer images than a subset.
    """
    from pqlib.layers.images import open_images

    base = config.base
    first = base.seed if base.image_seed is None else base.image_seed
    sources = [base.images] + [None] * config.photographs
    draws = []
    for images in sources:
        name = PHOTOGRAPHS if images is None else Path(images).expanduser().resolve().name
        if images is not None and name in ("", PHOTOGRAPHS):
            name = f"folder {name}"
        for k in range(config.n_subsets):
            own = dataclasses.replace(base, images=images, image_seed=first + k)
            files = open_images(images, n_images=own.n_images, seed=own.image_seed).names
            draws.append(Draw(name, str(k), own, files))
        if images is not None:
            files = open_images(images).names
            own = dataclasses.replace(base, n_images=len(files))
            draws.append(Draw(name, ALL, own, files))
    return draws


def run(
    config: LayerStability,
    ledger: Ledger,
    *,
    n_jobs: int | None = None,
    on_done: OnDone | None = None,
) -> pd.DataFrame:
    """Solve all draws that the ledger lacks; one row per (images, subset, layer, chunk, n_bits).

    Parameters
    ----------
    config : LayerStability
    ledger : Ledger
        Entered (``with ledger:``). Each unit of a draw is on disk before the next, and so is each
        draw, of which no image is read again.
    n_jobs : int, optional
        As in `pqlib.experiments.layer_bounds.solve_units`.
    on_done : callable, optional
        Called with the key of each unit that is done, and of each draw, also of one done before.

    Returns
    -------
    pandas.DataFrame
        With these columns.

        - ``images``: name of the folder, or "photographs". ``subset``: the number of the draw,
          or "all" for all images of the folder. ``n_images``: of the draw.
        - ``layer, chunk, n_bits, prune_layer_db``: as of `layer_verdicts`, of single chunks.
        - ``quantize_db``, ``prune_channel_db``: SNR at the paper's terms, the tensor's scale and
          one budget for each channel; ``winner``: what `judge` says of these two.
        - ``verdict``: that of `layer_verdicts`, at both budgets and the best of the scales tried.
          Nothing is proven between scales here, which takes longer than all the rest.

    Raises
    ------
    ValueError
        If the folder holds other files than when a draw was solved.
    """
    tables = []
    for draw in draws_of(config):
        record = ledger.get(draw.key)
        if record is None:
            record = {"files": list(draw.files), "rows": _rows(draw, ledger, n_jobs, on_done)}
            ledger.add(draw.key, record)
        elif record["files"] != list(draw.files):
            raise ValueError(
                f"the images have changed since {ledger.folder} was begun ({draw.key} had other "
                "files); delete that folder, or name another"
            )
        tables.append(pd.DataFrame(record["rows"], columns=list(COLUMNS)))
        if on_done:
            on_done(draw.key)
    return pd.concat(tables, ignore_index=True)


def _rows(draw, ledger, n_jobs, on_done):
    """The rows of one draw, as JSON's types."""
    units = [
        dataclasses.replace(unit, key=f"{draw.key} {unit.key}")
        for layer in layer_bounds.capture(draw.config)
        for unit in layer_bounds.units_of(layer, draw.config)
    ]
    solved = layer_bounds.solve_units(draw.config, ledger, units, n_jobs=n_jobs, on_done=on_done)
    table = layer_table(draw.config.model, solved)
    table = table[table["chunk"] != TOTAL]
    found = layer_verdicts(table).merge(winners(table), on=["layer", "chunk", "n_bits"])
    found = found.rename(columns={"prune_db": "prune_channel_db"})
    found = found.assign(images=draw.images, subset=draw.subset, n_images=len(draw.files))
    return found[list(COLUMNS)].astype(object).to_dict("records")


def winners(table: pd.DataFrame) -> pd.DataFrame:
    """Who wins each (layer, chunk, n_bits) at the tensor's scale and one budget a channel."""
    rows = []
    for (layer, chunk, n_bits), part in table.groupby(["layer", "chunk", "n_bits"], sort=False):
        exact = part.set_index("method")
        quantize = exact[exact["scale_choice"] == "tensor"].loc["quantize_exact"]
        prune = exact[exact["budget"] == CHANNEL].loc["prune_exact"]
        pair = [(m["lower"], m["upper"]) for m in (quantize, prune)]
        energy = quantize["energy"]
        winner = judge(pair[0], {CHANNEL: pair[1]}, energy) if energy else NO_OUTPUT
        rows.append({"layer": layer, "chunk": chunk, "n_bits": n_bits, "winner": winner})
    return pd.DataFrame(rows)
