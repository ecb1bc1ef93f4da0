"""Sentences and small tables of the chapter on model-zoo tensors, made of its tables.

What is counted is in `pqlib.zoo_statistics` and `pqlib.zoo_predictors`.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pqlib.verdicts import bits_phrase, by_bits
from pqlib.zoo_predictors import Association
from pqlib.zoo_statistics import distinct, natural_sparsity, split_by_kurtosis

_MEASURED = {  # what both have, and what to call it
    "excess_kurtosis": "excess kurtosis",
    "quant_sqnr_db": "quantization (dB)",
    "prune_sqnr_db": "pruning (dB)",
    "natural_sparsity": "natural sparsity",
}


def networks_table(rows: pd.DataFrame) -> dict[str, list]:
    """Columns: tensors, weights and kinds of layers, a row per network, of one bit-width."""
    columns: dict[str, list] = {"network": [], "tensors": [], "weights": [], "kinds": []}
    for model, own in rows.groupby("model", sort=False):
        columns["network"].append(model)
        columns["tensors"].append(f"{len(own):,}")
        columns["weights"].append(f"{own['n_weights'].sum():,}")
        kinds = own["kind"].value_counts().items()
        columns["kinds"].append(", ".join(f"{n} {kind}" for kind, n in kinds))
    return columns


def source_words(
    table: pd.DataFrame, n_bits: int, absent: Sequence[str] = (), *, finished: bool
) -> str:
    """Where the rows come from, in a sentence or two.

    Parameters
    ----------
    table : DataFrame
        Of a scan, shared tensors included.
    n_bits : int
        The bit-width at which shared tensors are counted.
    absent : sequence of str
        Networks that were asked for and not measured.
    finished : bool
        Whether the table is the committed one. If so, it does not matter what is absent.
    """
    words = "All networks that were asked for were measured."
    if finished:
        words = f"This is the finished scan of {distinct(table)['model'].nunique()} networks."
    elif len(absent):
        reason = "Not measured, for the reason shown when the code is unfolded"
        words = f"{reason}: {', '.join(absent)}."
    shared = int((table.loc[table["n_bits"] == n_bits, "shared_with"] != "").sum())
    if shared:
        words += f" {shared} tensors are the same as an earlier one and are counted once."
    return words


def gain_words(gains: Mapping[int, Mapping[str, tuple[float, float, float]]]) -> str:
    """Where a prediction orders the tensors better than kurtosis, as clauses.

    ``gains`` are by bit-width, of `pqlib.zoo_predictors.advantage`; only where the interval of the
    rank correlation leaves zero out does one of the two count as better.
    """
    better = [b for b, gain in gains.items() if gain["spearman"][1] > 0]
    worse = [b for b, gain in gains.items() if gain["spearman"][2] < 0]
    rest = [b for b in gains if b not in better + worse]
    clauses = {
        "orders the tensors better": better,
        "orders them worse": worse,
        "cannot be told apart from kurtosis": rest,
    }
    return " and ".join(f"{text} at {bits_phrase(bits)}" for text, bits in clauses.items() if bits)


def error_words(kurtosis: Association, empirical: Association, n_bits: int) -> str:
    """The median errors of both predictions at one bit-width, as a clause."""
    return (
        f"its median error at {n_bits} bits is {empirical.error_db:.2f} dB, against "
        f"{kurtosis.error_db:.2f} dB through kurtosis"
    )


def seen_words(held_out: pd.DataFrame, n_seen: int) -> str:
    """How many weights of a tensor were seen, of `pqlib.zoo_predictors.held_out_leads`."""
    fewest = int(held_out["n_seen"].min())
    few = f", or half of a tensor that has fewer than twice as many (at least {fewest})"
    return f"{n_seen:,} weights{few if fewest < n_seen else ''}"


def rank_words(found: Association) -> str:
    """The rank correlation of a prediction and the lead, or why there is none."""
    rank = found.spearman[0]
    if not math.isfinite(rank):
        return "no rank correlation, too few tensors having been measured"
    return f"a rank correlation of {rank:z.2f}".replace("-", "−")


def beside_table(beside: pd.DataFrame) -> dict[str, list]:
    """Columns: the least and the largest difference of our rows and the authors'.

    ``beside`` is of `pqlib.authors.beside_authors`.
    """
    gaps = [beside[f"{name}_ours"] - beside[f"{name}_theirs"] for name in _MEASURED]
    return {
        "ours minus theirs": [*_MEASURED.values()],
        "least": [gap.min() for gap in gaps],
        "largest": [gap.max() for gap in gaps],
    }


def result_words(rows: pd.DataFrame, bits: Sequence[int], prefix: str) -> dict[str, str]:
    """The paper's Figure 3 and Table 2 on these tensors.

    Parameters
    ----------
    rows : DataFrame
        Of a scan, each tensor once.
    bits : sequence of int
        Bit-widths of the table at which to look for the crossing.
    prefix : str
        Of the keys.

    Returns
    -------
    dict
        ``prefix_left``: the share of tensors that quantization wins; ``prefix_right``: the
        kurtosis from which pruning is the likelier winner, or why there is none; and
        ``prefix_zeros``: natural sparsity on average over tensors; each by bit-width.
    """
    won = (rows["winner"] == "quantization").groupby(rows["n_bits"]).mean()
    zeros = natural_sparsity(rows).set_index("n_bits")["mean"]
    crossings = {}
    for n_bits in bits:
        split = split_by_kurtosis(rows, n_bits)
        kurtosis = split.crossings["joint"]
        none = f"none ({split.notes.get('joint')})"
        crossings[n_bits] = none if np.isnan(kurtosis) else f"{kurtosis:.1f}"
    return {
        f"{prefix}_left": by_bits({int(b): f"{share:.1%}" for b, share in won.items()}),
        f"{prefix}_right": by_bits(crossings, "; "),
        f"{prefix}_zeros": by_bits({int(b): f"{share:.0%}" for b, share in zeros.items()}),
    }


def released_words(released: pd.DataFrame | None, bits: Sequence[int]) -> dict[str, str]:
    """`result_words` of the authors' rows, under ``zoo_authors``.

    Parameters
    ----------
    released : DataFrame or None
        Of `pqlib.authors.authors_rows`. Without it each text says so.
    bits : sequence of int
        Bit-widths of the rows at which to look for the crossing.

    Notes
    -----
    Winners and zeros are counted over all rows, as they were released. The crossing is sought among
    those whose kurtosis and pruning error are reliable.
    """
    if released is None:
        absent = "not at hand where this page was made; `pqlib.authors.authors_rows` fetches them"
        return {f"zoo_authors_{what}": absent for what in ("left", "right", "zeros")}
    sound = released[released["kurtosis_reliable"] & np.isfinite(released["prune_sqnr_db"])]
    found = result_words(released, (), "zoo_authors")
    right = "zoo_authors_right"
    return found | {right: result_words(sound, bits, "zoo_authors")[right]}
