"""Rows of the per-layer run, from its records alone."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from pqlib.bounds.allocation import allocate
from pqlib.bounds.verification import DUAL, FEASIBLE, REPROVED
from pqlib.budget import REFERENCE_BITS
from pqlib.experiments.channel_optima import CERTIFICATES, ENDED, Unit, kept_weights

COLUMNS = (
    *("model", "layer", "kind", "chunk", "n", "channels", "n_bits", "method"),
    *("scale_choice", "scale", "budget", "n_nonzero", "energy", "lower", "upper", "sqnr_db"),
    *("unproven", "reproved", "certificate", "seconds"),
)
TOTAL = "sum"  # in column chunk
CHANNEL, CHANNEL_UP, LAYER = "channel", "channel, zeros rounded up", "layer"
_COUNTS = ("n_nonzero", "unproven", "reproved")

Solved = tuple[Unit, Mapping]


def groups_of(solved: Iterable[Solved]) -> dict[tuple[str, str], list[Solved]]:
    """Units by (layer, chunk), and of layers with several chunks all of them as `TOTAL`."""
    layers: dict[str, list[Solved]] = {}
    for unit, record in solved:
        layers.setdefault(unit.layer, []).append((unit, record))
    groups = {}
    for layer, parts in layers.items():
        groups |= {(layer, str(unit.chunk)): [(unit, record)] for unit, record in parts}
        if len(parts) > 1:
            groups[layer, TOTAL] = parts
    return groups


def weakest(certificates: Iterable[str]) -> str:
    """Of several kinds the one that shows least."""
    return max(certificates, key=CERTIFICATES.index)


def layer_table(model: str, solved: Iterable[Solved]) -> pd.DataFrame:
    """One row per layer, chunk, bit-width, method, choice of scale and kind of budget.

    Parameters
    ----------
    model : str
    solved : iterable of (Unit, record)
        As of `pqlib.experiments.layer_bounds.solve_units`.

    Returns
    -------
    pandas.DataFrame
        With these columns.

        - ``chunk``: its place in the fan-in, or "sum": errors added over the chunks solved, which
          is not the error of the layer with all of them changed (cross terms are not in it).
        - ``n``: inputs, the most of any chunk. ``channels``: problems in the row.
        - ``method``: "prune_exact", "quantize_exact", or a heuristic.
        - ``scale_choice``: "tensor" and "chunk" minimize the MSE of the weights, over the layer and
          over the chunk; "output" is the best of 17 scales from half to twice the tensor's. Each
          chunk of a "sum" has its own, and ``scale`` is empty where they differ.
        - ``budget``: "channel", the same number of non-zeros for each, by the authors' rounding;
          "channel, zeros rounded up", the other rounding; "layer", the non-zeros of the row's
          weights together, split at the least error; "" for quantization.
        - ``n_nonzero``: non-zeros in all. ``energy``: sum of w'Pw. ``lower``, ``upper``: bounds of
          the sum of errors, ``upper`` that of solutions in hand.
        - ``sqnr_db``: 10 log10(energy / upper); infinite without error, empty without energy.
        - ``certificate``: the weakest of the row's channels, see `CERTIFICATES`. ``unproven``:
          channels whose search ended early, empty for heuristics. ``reproved``: channels that a
          second algorithm or a dual point proved again.
        - ``seconds``: of one process, compilation on a first run included.
    """
    rows = []
    for (layer, chunk), members in groups_of(solved).items():
        own = {"model": model, "layer": layer, "kind": members[0][0].kind, "chunk": chunk}
        own["n"] = max(record["n"] for _, record in members)
        own["channels"] = sum(len(record["energy"]) for _, record in members)
        own["energy"] = float(sum(sum(record["energy"]) for _, record in members))
        records = [record for _, record in members]
        bits = dict.fromkeys(result["n_bits"] for result in records[0]["results"])
        for b in bits:
            rows += [own | {"n_bits": b} | row for row in _methods(records, b)]
            rows += [own | {"n_bits": b} | row for row in _budgets(records, b)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    with np.errstate(divide="ignore", invalid="ignore"):
        table["sqnr_db"] = 10 * np.log10(table["energy"] / table["upper"])
    return table.astype(dict.fromkeys(_COUNTS, "Int64"))


def _methods(records, n_bits):
    """Rows of what the units solved, errors added over channels and chunks."""
    by_name: dict[tuple, list] = {}
    for record in records:
        for result in record["results"]:
            if result["n_bits"] == n_bits:
                name = result["method"], result["scale_choice"]
                by_name.setdefault(name, []).append(result)
    kept = sum(kept_weights(r["n"], n_bits) * len(r["energy"]) for r in records)
    for (method, choice), results in by_name.items():
        scales = {result["scale"] for result in results}
        pruned = method.startswith("prune")
        yield {
            "method": method,
            "scale_choice": choice,
            "scale": scales.pop() if len(scales) == 1 else None,
            "budget": CHANNEL if pruned else "",
            "n_nonzero": kept if pruned else None,
            "lower": float(sum(sum(result["lower"]) for result in results)),
            "upper": float(sum(sum(result["upper"]) for result in results)),
            **_shown([kind for result in results for kind in result["certificate"]]),
            "seconds": float(sum(result["seconds"] for result in results)),
        }


def _budgets(records, n_bits):
    """Rows of exact pruning at the other budgets, from the curves."""
    curves = {
        what: [curve for record in records for curve in record[f"curve_{what}"]]
        for what in ("lower", "upper", "certificate")
    }
    sizes = [len(curve) - 1 for curve in curves["upper"]]
    each = [n * n_bits // REFERENCE_BITS for n in sizes]
    yield _pruned(CHANNEL_UP, each, curves)
    budget = kept_weights(sum(sizes), n_bits)
    row = _pruned(LAYER, allocate(curves["upper"], budget).n_nonzero, curves)
    row["lower"] = min(allocate(curves["lower"], budget).error, row["upper"])
    kinds = [kind for curve in curves["certificate"] for kind in curve]  # all splits enter
    row["unproven"] = sum(ENDED in curve for curve in curves["certificate"])
    resolution = 1e-13 * sum(sum(record["energy"]) for record in records)
    if row["upper"] - row["lower"] <= 1e-10 * row["upper"] + resolution:  # what is open is not used
        row["unproven"], kinds = 0, [kind for kind in kinds if kind != ENDED]
    row["certificate"] = weakest(kinds)
    yield row | {"n_nonzero": budget}


def _pruned(budget, split, curves):
    at = {what: [c[s] for c, s in zip(curves[what], split, strict=True)] for what in curves}
    return {
        "method": "prune_exact",
        "scale_choice": "",
        "budget": budget,
        "n_nonzero": int(sum(split)),
        "lower": float(sum(at["lower"])),
        "upper": float(sum(at["upper"])),
        **_shown(at["certificate"]),
        "seconds": 0.0,  # the curves are in the row of budget "channel"
    }


def _shown(kinds: Sequence[str]):
    """What a row says of its channels' certificates."""
    return {
        "certificate": weakest(kinds),
        "unproven": None if FEASIBLE in kinds else kinds.count(ENDED),
        "reproved": sum(kind in (DUAL, REPROVED) for kind in kinds),
    }
