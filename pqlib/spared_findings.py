"""The first and the last layer spared or not, in cells of a sweep: words and columns.

Its tables are those of `pqlib.table1_leads.leads`.
"""

import math

import pandas as pd

from pqlib.rate_findings import METHODS, numbers
from pqlib.training_findings import FINE_TUNED, NAMES, SPARED
from pqlib.training_words import lead_words, spared_table
from pqlib.verdicts import bits_phrase, listed


def columns(*tables: pd.DataFrame) -> dict[str, list]:
    """Fine-tuned cells that were also run with the first and the last layer spared.

    Parameters
    ----------
    *tables : DataFrame
        Of `pqlib.table1_leads.leads`.
    """
    found: dict[str, list] = {"network": [], "bits": [], "seeds": []}
    for model, n_bits, rows in _with_spared(tables):
        columns = {k: v for k, v in spared_table(rows).items() if not k.startswith("bits")}
        found["network"] += [NAMES[model]] * len(rows)
        found["bits"] += [n_bits] * len(rows)
        found["seeds"] += [len(str(seeds).split()) for seeds in rows["seeds"]]
        for name, values in columns.items():
            found.setdefault(name, []).extend(values)
    return found


def gains(*tables: pd.DataFrame) -> dict[str, list]:
    """What sparing both layers adds to each method, in points, with its interval.

    Parameters
    ----------
    *tables : DataFrame
        Of `pqlib.table1_leads.leads`.
    """
    found: dict[str, list] = {name: [] for name in ("network", "bits", *METHODS)}
    for model, n_bits, rows in _with_spared(tables):
        found["network"].append(NAMES[model])
        found["bits"].append(n_bits)
        for method in METHODS:
            found[method].append(_gain(rows.loc[[*SPARED][-1]], method))
    return found


def effects(*tables: pd.DataFrame) -> dict[str, str]:
    """Where sparing layers changes who is ahead, what it spends, and where it takes another rate.

    Parameters
    ----------
    *tables : DataFrame
        Of `pqlib.table1_leads.leads`.

    Returns
    -------
    dict
        ``effect_networks``: each with its value before compression; ``effect_alike``,
        ``effect_both``: in how many cells the verdict of the authors' default is another than with
        all layers treated alike, and than with both spared in both methods; ``effect_bits``: how
        many bits per weight that default spends more, at most; ``effect_rates``: where another
        learning rate was best once both layers were spared, of cells for which several were tried;
        ``effect_taken``: where another one was taken over from such a cell.
    """
    whole: dict[str, str] = {}
    apart: dict[bool, dict[str, list[int]]] = {True: {}, False: {}}  # by: were several tried?
    alike, both, beyond = [], [], [0.0]
    for model, n_bits, rows in _with_spared(tables):
        beyond += [*(rows["bits_quantization"] - rows["bits_pruning"])]
        fair, authors, spared = (rows.loc[comparison, "winner"] for comparison in SPARED)
        alike.append(fair != authors)
        both.append(spared != authors)
        whole[NAMES[model]] = f"{rows['fp_value'].mean():.1f} %"
        for method in METHODS:
            tried = rows[f"tried_{method}"].map(lambda text: len(numbers(text)))
            first, _, last = (set(numbers(rates)) for rates in rows[f"rate_{method}"])
            if first != last:
                own = apart[bool(tried.min() > 1)]
                own.setdefault(f"{method} of {NAMES[model]}", []).append(n_bits)
    return {
        "effect_networks": listed([f"{k} ({value})" for k, value in whole.items()] or [""]),
        "effect_alike": f"{sum(alike)} of {len(alike)}",
        "effect_both": f"{sum(both)} of {len(both)}",
        "effect_bits": f"{max(beyond):.2f}",
        "effect_rates": _cells(apart[True]),
        "effect_taken": _cells(apart[False]),
    }


def _cells(found):
    """By method and network, the budgets: "pruning of ResNet-20 at 2 bits", or "none"."""
    return listed([f"{name} at {bits_phrase(bits)}" for name, bits in found.items()] or ["none"])


def _gain(row, method):
    """What sparing adds: "+1.0 (0.2 to 1.9)"."""
    gain = {"lead": row.get(f"gain_{method}", math.nan)}
    gain |= {end: row.get(f"gain_{end}_{method}") for end in ("low", "high")}
    return "from other weights, unknown" if math.isnan(gain["lead"]) else lead_words(gain)


def _with_spared(tables):
    """Network, budget and its three comparisons, of all cells that have them over the same seeds.

    Seeds differ by as much as sparing layers does: means over different ones say nothing of it.
    """
    for table in tables:
        fine = table[table["when"] == FINE_TUNED]
        for (model, n_bits), rows in fine.groupby(["model", "n_bits"]):
            if set(rows["comparison"]) == set(SPARED) and rows["seeds"].nunique() == 1:
                yield model, int(n_bits), rows.set_index("comparison").loc[[*SPARED]]
