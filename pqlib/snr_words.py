"""Sentences and small tables of the chapter on layer SNR and accuracy, made of its tables.

What is counted and judged is in `pqlib.snr_findings`, what several networks say side by side in
`pqlib.snr_networks`.
"""

from collections.abc import Mapping

import pandas as pd

from pqlib.snr_findings import (
    BOTH,
    METHODS,
    dearer,
    found_in,
    of_method,
    order_words,
    unresolved,
)
from pqlib.snr_statistics import Estimate

SCALES = {  # a column, what to call it in short, and in a table
    "snr": ("linear", "SNR, linear"),
    "snr_db": ("db", "SNR in dB"),
    "noise": ("noise", "noise over signal"),
}
_LOGITS = {
    1: "The SNR of the logits orders the losses better",
    0: "Between the SNR of the layer and that of the logits it is a tie",
    -1: "The SNR of the layer orders the losses better",
}
_DEARER = (
    "Whichever method is interpolated, {0} is the dearer one at equal SNR. A comparison by SNR "
    "flatters {0} here"
)


def scale_words(found: pd.DataFrame, prefix: str, outcome: str = "increase") -> dict[str, str]:
    """Pearson's correlation on every scale of `SCALES`, both methods pooled.

    Parameters
    ----------
    found : DataFrame
        Of `pqlib.snr_findings.correlations`.
    prefix : str
        Of the keys: ``prefix_linear``, ``prefix_db`` and ``prefix_noise``.
    outcome : str
        Column that is correlated with.
    """
    return {
        f"{prefix}_{short}": str(found_in(found, BOTH, column, outcome, "pearson"))
        for column, (short, _) in SCALES.items()
    }


def scales_table(found: pd.DataFrame) -> dict[str, list]:
    """Columns: both correlations with the cross-entropy gained, a row per scale of `SCALES`."""
    kinds = {"Pearson": "pearson", "Spearman": "spearman"}
    return {"with the cross-entropy gained": [name for _, name in SCALES.values()]} | {
        name: [str(found_in(found, BOTH, column, "increase", kind)) for column in SCALES]
        for name, kind in kinds.items()
    }


def table_words(table: pd.DataFrame, *, finished: bool) -> dict[str, str]:
    """What a table of `pqlib.snr_findings.prepared` holds, and where it comes from.

    Parameters
    ----------
    table : DataFrame
    finished : bool
        Whether it is the committed one, which says where and when it was made, or a stand-in.

    Returns
    -------
    dict
        ``table_rows``, ``table_layers`` and ``table_images``, as numbers alone; ``table_fp``, the
        accuracy of the original; ``table_made``; ``table_quiet``, in how many rows the images
        cannot tell the accuracy from the original's; ``table_worst``, the largest drop.
    """
    first = table.iloc[0]
    made = "It is not at hand, so the live rows stand in for it from here on"
    if finished:
        minutes = table["seconds"].sum() / 60
        made = (
            f"The table was made at commit {str(first['commit'])[:7]} on {first['hardware']} in "
            f"{minutes:.0f} minutes"
        )
    return {
        "table_rows": f"{len(table):,}",
        "table_layers": str(table["layer"].nunique()),
        "table_images": f"{int(first['n_images']):,}",
        "table_fp": f"{first['fp_accuracy']:.2f} %",
        "table_made": made,
        "table_quiet": f"{int(unresolved(table).sum())} of {len(table)}",
        "table_worst": f"{table['drop'].max():z.1f} points".replace("-", "−"),
    }


def rank_words(found: pd.DataFrame) -> dict[str, str]:
    """What the rank correlations of SNR and loss say.

    Parameters
    ----------
    found : DataFrame
        Of `pqlib.snr_findings.correlations`.

    Returns
    -------
    dict
        ``order_both``, ``order_drop``: see `pqlib.snr_findings.order_words`; ``rank_quant``,
        ``rank_prune``, ``drop_quant``, ``drop_prune``: correlations with the cross-entropy gained
        and the accuracy lost; ``fig6_scales``: Pearson's correlation of the accuracy lost with the
        linear SNR and with its inverse.
    """
    ranks = {
        (method, outcome): found_in(found, method, "snr_db", outcome, "spearman")
        for method in (*METHODS, BOTH)
        for outcome in ("drop", "increase")
    }
    drops = scale_words(found, "drop", "drop")
    return {
        "order_both": order_words(ranks[BOTH, "increase"]),
        "order_drop": order_words(ranks[BOTH, "drop"]),
        "rank_quant": str(ranks["quantization", "increase"]),
        "rank_prune": str(ranks["pruning", "increase"]),
        "drop_quant": str(ranks["quantization", "drop"]),
        "drop_prune": str(ranks["pruning", "drop"]),
        "fig6_scales": f"{drops['drop_linear']} and {drops['drop_noise']}",
    }


def ranks_table(found: pd.DataFrame) -> dict[str, list]:
    """Columns: rank correlations of SNR with both losses, a row per method and one for both."""
    methods = [*METHODS, BOTH]
    outcomes = {
        "rank correlation of SNR and accuracy lost": "drop",
        "of SNR and cross-entropy gained": "increase",
    }
    return {"": methods} | {
        name: [str(found_in(found, m, "snr_db", outcome, "spearman")) for m in methods]
        for name, outcome in outcomes.items()
    }


def logit_words(gain: Estimate) -> str:
    """Whether the SNR of the logits orders the losses better than that of the layer.

    ``gain`` is the `pqlib.snr_statistics.advantage` of the logits.
    """
    return f"{_LOGITS[gain.sign]}: the sizes of the rank correlations differ by {gain}"


def apart_words(
    within: Estimate, between: Mapping[str, Estimate], methods: Mapping[str, Estimate]
) -> dict[str, str]:
    """The correlations between layers, ``between_words``, and ``apart_claim`` of all three.

    Parameters
    ----------
    within : Estimate
        Of `pqlib.snr_statistics.within_layers`.
    between, methods : mapping of str to Estimate
        Of `pqlib.snr_statistics.across_layers` and `pqlib.snr_statistics.between_methods`, by
        budgets as of `pqlib.snr_findings.halves`.
    """
    known = {bits: found for bits, found in between.items() if found.n_points}
    orders, choices = (
        "; ".join(f"at {bits}, {order_words(found)}" for bits, found in ways.items())
        or "nothing to put into an order"
        for ways in (known, methods)
    )
    return {
        "between_words": ", ".join(f"{found} at {bits}" for bits, found in known.items()),
        "apart_claim": f"Within a layer {order_words(within)}. Between layers of one budget: "
        f"{orders}. Between the two methods on one layer at one budget: {choices}",
    }


def fair_words(gaps: Mapping[str, Estimate]) -> dict[str, str]:
    """Whether a decibel costs the same under both methods.

    Parameters
    ----------
    gaps : mapping of str to Estimate
        For "quantization" and "pruning", at whose points the other is interpolated, the mean
        excess of pruning in nats, see `pqlib.snr_findings.mean_gap`.

    Returns
    -------
    dict
        ``fair``: a verdict where both ways agree; ``fits``: whether they find pruning the cheaper
        one, which an explanation of the chapter wants; ``gap_quant``, ``gap_prune``: see
        `pqlib.snr_findings.dearer`.
    """
    quantization, pruning = (gaps[method] for method in METHODS)
    signs = {quantization.sign, pruning.sign}
    if not (quantization.n_points and pruning.n_points):
        fair = (
            "No layer has both methods at one SNR, so nothing can be said here; take more budgets"
        )
    elif signs == {0}:
        fair = (
            "Either way it is a tie. A comparison by SNR is fair to both here, as far as these "
            "layers can tell"
        )
    elif len(signs) == 1:
        fair = _DEARER.format(METHODS[1] if signs == {1} else METHODS[0])
    else:
        fair = (
            "The two ways do not agree, so these layers cannot tell whether a comparison by SNR is "
            "fair"
        )
    fits = "which is not what these layers show"
    if signs == {-1}:
        fits = (
            "and that is what we see. It is an explanation that fits, not one that the table proves"
        )
    words = {"fair": fair, "fits": fits}
    return words | {"gap_quant": dearer(quantization, "nats"), "gap_prune": dearer(pruning, "nats")}


def reach_words(table: pd.DataFrame, pairs: Mapping[str, pd.DataFrame]) -> str:
    """At how many points, and up to which SNR, both methods could be compared.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib.snr_findings.prepared`.
    pairs : mapping of str to DataFrame
        Of `pqlib.snr_findings.at_equal_snr`, for "quantization" and "pruning".
    """
    counts = " and ".join(
        f"{len(pairs[m])} of {len(of_method(table, m))} points of {m}" for m in METHODS
    )
    tops = [own["snr_db"].max() for own in pairs.values() if len(own)]
    return f"{counts}, none above {max(tops):.0f} dB" if tops else counts


def layer_gap_words(pairs: pd.DataFrame) -> dict[str, str]:
    """On how many layers pruning is the dearer one, ``gap_layers``, and the ``gap_median``.

    ``pairs`` are of `pqlib.snr_findings.at_equal_snr`, in nats; of each layer their mean counts.
    """
    own = pairs.groupby("layer")["difference"].mean()
    median = f"{own.median():+z.3f} nats".replace("-", "−") if len(own) else "not defined"
    return {"gap_layers": f"{int((own > 0).sum())} of {len(own)}", "gap_median": median}
