"""Sentences and small tables of the chapter on layer SNR and accuracy, made of its tables.

What is counted and judged is in `pqlib.snr_findings`.
"""

from collections.abc import Mapping

import pandas as pd

from pqlib.snr_findings import (
    BOTH,
    METHODS,
    at_equal_snr,
    dearer,
    found_in,
    halves,
    mean_gap,
    of_method,
    order_words,
    strength,
    unresolved,
)
from pqlib.snr_statistics import Estimate, across_layers, correlation, within_layers

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
    """What the rank correlations of SNR and loss say, and what becomes of the paper's claim.

    Parameters
    ----------
    found : DataFrame
        Of `pqlib.snr_findings.correlations`.

    Returns
    -------
    dict
        ``agree``: how strongly SNR and the accuracy lost go together; ``order_both``,
        ``order_drop``: see `pqlib.snr_findings.order_words`; ``rank_quant``, ``rank_prune``,
        ``drop_quant``, ``drop_prune``: correlations with the cross-entropy gained and the accuracy
        lost; ``fig6_quantization``, ``fig6_pruning``: the latter again; ``fig6_scales``: Pearson's
        correlation of the accuracy lost with the linear SNR and with its inverse.
    """
    ranks = {
        (method, outcome): found_in(found, method, "snr_db", outcome, "spearman")
        for method in (*METHODS, BOTH)
        for outcome in ("drop", "increase")
    }
    quantization, pruning = METHODS
    drops = scale_words(found, "drop", "drop")
    return {
        "agree": _agree(ranks[quantization, "drop"], ranks[pruning, "drop"]),
        "order_both": order_words(ranks[BOTH, "increase"]),
        "order_drop": order_words(ranks[BOTH, "drop"]),
        "rank_quant": str(ranks[quantization, "increase"]),
        "rank_prune": str(ranks[pruning, "increase"]),
        "drop_quant": str(ranks[quantization, "drop"]),
        "drop_prune": str(ranks[pruning, "drop"]),
        "fig6_quantization": str(ranks[quantization, "drop"]),
        "fig6_pruning": str(ranks[pruning, "drop"]),
        "fig6_scales": f"{drops['drop_linear']} and {drops['drop_noise']}",
    }


def _agree(quantization: Estimate, pruning: Estimate) -> str:
    """What becomes of "a strong correlation between SNR and accuracy"."""
    seen = [strength(e) if e.sign < 0 else "not beyond chance" for e in (quantization, pruning)]
    if seen == ["strongly", "strongly"]:
        return "We see it, for both methods"
    both = f"{seen[0]} under quantization and {seen[1]} under pruning"
    both = f"{seen[0]} under both methods" if seen[0] == seen[1] else both
    return f"We see less: SNR and the accuracy lost go together {both}"


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


def apart_words(within: Estimate, between: Mapping[str, Estimate]) -> dict[str, str]:
    """The correlations, ``within_words`` and ``between_words``, and ``within_claim`` of them.

    Parameters
    ----------
    within : Estimate
        Of `pqlib.snr_statistics.within_layers`.
    between : mapping of str to Estimate
        Of `pqlib.snr_statistics.across_layers`, by budgets as of `pqlib.snr_findings.halves`.
    """
    known = {bits: found for bits, found in between.items() if found.n_points}
    orders = "; ".join(f"at {bits}, {order_words(found)}" for bits, found in known.items())
    return {
        "within_words": str(within),
        "between_words": ", ".join(f"{found} at {bits}" for bits, found in known.items()),
        "within_claim": f"Within a layer {order_words(within)}. Between layers of one budget: "
        f"{orders or 'nothing to put into an order'}",
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


def claims(table: pd.DataFrame, *, n_draws: int, seed: int) -> dict[str, Estimate]:
    """The estimates that the chapter's claims rest on, by name.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib.snr_findings.prepared`, for one network.
    n_draws, seed : int
        Of layers, for the intervals.
    """
    draws = {"n_draws": n_draws, "seed": seed}
    found = {
        f"SNR and {name}, {method}": correlation(
            of_method(table, method), "snr_db", outcome, "spearman", **draws
        )
        for outcome, name in (("increase", "cross-entropy gained"), ("drop", "accuracy lost"))
        for method in METHODS
    }
    lower, higher = [*halves(table).values(), table.iloc[:0]][:2]
    for way, function, rows in (
        ("within a layer", within_layers, table),
        ("between layers, lower budgets", across_layers, lower),
        ("between layers, higher budgets", across_layers, higher),
    ):
        rank = function(rows, "snr_db", "increase", **draws)
        found[f"SNR and cross-entropy gained, {way}"] = rank
    for at in reversed(METHODS):
        excess = mean_gap(at_equal_snr(table, "increase", at), **draws)
        found[f"pruning's excess (nats) at the SNRs of {at}"] = excess
    return found


def claims_words(found: Mapping[str, Mapping[str, Estimate]]) -> dict[str, str]:
    """What networks say to the claims, by the signs of intervals.

    Parameters
    ----------
    found : mapping of str to mapping
        By network; of `claims`.

    Returns
    -------
    dict
        ``alike``: how many have one sign in all networks; ``untold``: in how many all intervals
        hold zero; ``unlike``: the others.
    """
    signs = pd.DataFrame({n: {c: e.sign for c, e in own.items()} for n, own in found.items()})
    same = signs.nunique(axis=1) == 1
    untold = (signs == 0).all(axis=1)
    return {
        "alike": f"{(same & ~untold).sum()} of {len(signs)}",
        "untold": str(untold.sum()),
        "unlike": "; ".join(signs.index[~same]) or "none",
    }


def drop_words(found: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Rank correlations of SNR and the accuracy lost, by network and method; of `claims`."""
    return "; ".join(
        f"{network} {' and '.join(str(own[f'SNR and accuracy lost, {m}']) for m in METHODS)}"
        for network, own in found.items()
    )


def claims_table(
    tables: Mapping[str, pd.DataFrame], found: Mapping[str, Mapping[str, Estimate]]
) -> dict[str, list[str]]:
    """Columns: what each network's rows hold, and what they say to each claim.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        By network as readers call it; of `pqlib.snr_findings.prepared`.
    found : mapping of str to mapping
        Of `claims`, for the same networks.
    """
    columns: dict[str, list[str]] = {}
    for network, table in tables.items():
        held = table_words(table, finished=False)
        said = {
            "layers": held["table_layers"],
            "images": held["table_images"],
            "accuracy to begin with": held["table_fp"],
            "rows that accuracy cannot tell from the original": held["table_quiet"],
            **{claim: str(estimate) for claim, estimate in found[network].items()},
        }
        columns.setdefault("claim", [*said])
        columns[network] = [*said.values()]
    return columns
