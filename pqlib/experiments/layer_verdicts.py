"""Who wins a layer, and how far that holds, in words that come from the table's cells alone."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from pqlib.bounds.scale_interval import ScaleInterval
from pqlib.experiments.channel_optima import RESTRICTED
from pqlib.experiments.layer_table import CHANNEL, CHANNEL_UP, LAYER, TOTAL, weakest

QUANTIZATION, PRUNING = "quantization wins", "pruning wins"
BUDGET, LOSSLESS, OPEN = "depends on the budget", "both lose nothing", "not proven"
SCALE_INTERVAL = (0.5, 2.0)  # times the tensor's scale: where "at every scale" is proven
_ROUNDING = 1e-13  # of the energy: an error that counts as none

Interval = Callable[[str, str, int], ScaleInterval]


def judge(
    quantize: tuple[float, float], prune: Mapping[str, tuple[float, float]], energy: float
) -> str:
    """Compare one (lower, upper) of quantization with those of pruning at each kind of budget.

    A method wins if its upper bound is below the other's lower bound at all budgets. "depends on
    the budget" is proven as well: quantization wins at one and loses at another.
    """
    lower, upper = quantize
    if max(upper, *(p[1] for p in prune.values())) <= _ROUNDING * energy:
        return LOSSLESS
    better = [upper < p[0] for p in prune.values()]
    worse = [p[1] < lower for p in prune.values()]
    if all(better):
        return QUANTIZATION
    if all(worse):
        return PRUNING
    return BUDGET if any(better) and any(worse) else OPEN


def layer_verdicts(table: pd.DataFrame, interval: Interval | None = None) -> pd.DataFrame:
    """Who wins each (layer, chunk, bit-width).

    Parameters
    ----------
    table : pandas.DataFrame
        Of `pqlib.experiments.layer_table.layer_table`.
    interval : callable of (layer, chunk, n_bits), optional
        What is proven between scales, for the rows of `open_to_scale`.

    Returns
    -------
    pandas.DataFrame
        ``quantize_db`` and ``quantize_best_db``: SNR at the tensor's scale and at the best of the
        three choices. ``prune_db``, ``prune_up_db``, ``prune_layer_db``: at the authors' budget per
        channel, with the other rounding, and at the layer's. ``at_tensor_scale`` and
        ``at_best_scale``: what `judge` says of quantization at the one and at the other and of
        pruning at the authors' budget and at the layer's. ``scale_low`` to ``scale_high``: where
        pruning is better at *every* scale common to the row, if that was proven; ``beaten_at``: a
        scale there at which it is not better at both budgets. ``verdict``: a sentence;
        ``certificate``: the weakest of the rows that it rests on.

    Notes
    -----
    "quantization wins" needs one scale only, as whoever quantizes may choose it. "pruning wins"
    stands alone nowhere: it names the scales for which it is proven. Scales are common to all
    channels of a row; a scale for each channel would serve quantization better.
    """
    rows = []
    for (layer, chunk, n_bits), part in table.groupby(["layer", "chunk", "n_bits"], sort=False):
        exact = part[part["method"] == "quantize_exact"].set_index("scale_choice")
        prune = part[part["method"] == "prune_exact"].set_index("budget")
        energy = float(part["energy"].iloc[0])
        tensor = exact.loc["tensor"]
        budgets = {b: (prune.loc[b, "lower"], prune.loc[b, "upper"]) for b in (CHANNEL, LAYER)}
        used = [*exact["certificate"], *prune.loc[[CHANNEL, LAYER], "certificate"]]
        at_tensor = judge((tensor["lower"], tensor["upper"]), budgets, energy)
        at_best = judge((exact["lower"].min(), exact["upper"].min()), budgets, energy)
        row = {
            "layer": layer,
            "chunk": chunk,
            "n_bits": n_bits,
            "quantize_db": tensor["sqnr_db"],
            "quantize_best_db": exact["sqnr_db"].max(),
            "prune_db": prune.loc[CHANNEL, "sqnr_db"],
            "prune_up_db": prune.loc[CHANNEL_UP, "sqnr_db"],
            "prune_layer_db": prune.loc[LAYER, "sqnr_db"],
            "at_tensor_scale": at_tensor,
            "at_best_scale": at_best,
            "scale_low": np.nan,
            "scale_high": np.nan,
            "beaten_at": np.nan,
            "verdict": at_best,
            "certificate": weakest(used),
        }
        if at_best == PRUNING:
            found = interval(layer, chunk, int(n_bits)) if interval else None
            row |= _between_scales(found, chunk)
        elif at_best != at_tensor:
            row["verdict"] = f"{at_best} at the best scale; at the tensor's, {at_tensor}"
        if energy == 0:
            row["verdict"] = "no output to lose"
        elif RESTRICTED in used and at_tensor not in (PRUNING, LOSSLESS):
            row["verdict"] += " (pruned weights restricted, as the gram is singular)"
        rows.append(row)
    return pd.DataFrame(rows)


def open_to_scale(table: pd.DataFrame) -> dict[tuple[str, str, int], tuple[float, float, float]]:
    """Where pruning wins at all scales tried: its larger error, and the interval to be proven."""
    verdicts = layer_verdicts(table)
    wins = verdicts[verdicts["at_best_scale"] == PRUNING]
    cases = {}
    for layer, chunk, n_bits in wins[["layer", "chunk", "n_bits"]].itertuples(index=False):
        part = table[
            (table["layer"] == layer) & (table["chunk"] == chunk) & (table["n_bits"] == n_bits)
        ]
        prune = part[(part["method"] == "prune_exact") & part["budget"].isin([CHANNEL, LAYER])]
        exact = part[(part["method"] == "quantize_exact") & (part["scale_choice"] == "tensor")]
        low, high = (float(f * exact["scale"].iloc[0]) for f in SCALE_INTERVAL)
        cases[layer, chunk, int(n_bits)] = float(prune["upper"].max()), low, high
    return cases


def _between_scales(found, chunk):
    """The verdict where pruning wins at all scales of the table."""
    tried = f"{PRUNING} at the scales tried"
    if found is None or found.exceeds is None:
        return {"verdict": f"{tried}; between them it is not proven"}
    if not found.exceeds:
        return {
            "verdict": f"{tried}, but not at {found.best_scale:.3g}",
            "beaten_at": found.best_scale,
        }
    common = " common" if chunk == TOTAL else ""
    text = f"{PRUNING} at every{common} scale in [{found.low:.3g}, {found.high:.3g}]"
    return {"verdict": text, "scale_low": found.low, "scale_high": found.high}
