"""What several networks say to the claims of the chapter on layer SNR, side by side, in words."""

from collections.abc import Mapping

import pandas as pd

from pqlib.snr_findings import (
    METHODS,
    at_equal_snr,
    halves,
    mean_gap,
    of_method,
    shared_range,
    strength,
)
from pqlib.snr_statistics import (
    Estimate,
    across_layers,
    between_methods,
    correlation,
    within_layers,
)
from pqlib.snr_words import table_words
from pqlib.training_findings import NAMES
from pqlib.verdicts import listed

_BETWEEN = "SNR and cross-entropy gained, between methods"
_LOWER, _HIGHER = "lower budgets", "higher budgets"
_SHARED = "at SNRs of both, "
_EXCESS = "pruning's excess (nats) at the SNRs of"


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
        f"SNR and {name}, {where}{method}": correlation(
            of_method(rows, method), "snr_db", outcome, "spearman", **draws
        )
        for outcome, name in (("increase", "cross-entropy gained"), ("drop", "accuracy lost"))
        for where, rows in (("", table), (_SHARED, shared_range(table)))
        for method in METHODS
    }
    lower, higher = [*halves(table).values(), table.iloc[:0]][:2]
    for way, function, rows in (
        ("within a layer", within_layers, table),
        (f"between layers, {_LOWER}", across_layers, lower),
        (f"between layers, {_HIGHER}", across_layers, higher),
        (f"between methods, {_LOWER}", between_methods, lower),
        (f"between methods, {_HIGHER}", between_methods, higher),
    ):
        rank = function(rows, "snr_db", "increase", **draws)
        found[f"SNR and cross-entropy gained, {way}"] = rank
    for at in reversed(METHODS):
        excess = mean_gap(at_equal_snr(table, "increase", at), **draws)
        found[f"{_EXCESS} {at}"] = excess
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


def drop_words(found: Mapping[str, Mapping[str, Estimate]], *, shared: bool = False) -> str:
    """Rank correlations of SNR and the accuracy lost, by network and method; of `claims`.

    With ``shared``, over the SNRs that both methods have.
    """
    where = _SHARED if shared else ""
    return "; ".join(
        f"{network} "
        + " and ".join(str(own[f"SNR and accuracy lost, {where}{m}"]) for m in METHODS)
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


def agree_words(found: Mapping[str, Mapping[str, Estimate]]) -> str:
    """What becomes of the paper's "a strong correlation between SNR and accuracy", by network.

    Parameters
    ----------
    found : mapping of str to mapping
        By network; of `claims`. A correlation is strong as `pqlib.snr_findings.strength` has it,
        and none at all where its interval holds zero.
    """
    by_phrase: dict[str, list[str]] = {}
    for network, own in found.items():
        ranks = [own[f"SNR and accuracy lost, {m}"] for m in METHODS]
        by_phrase.setdefault(_together(*ranks), []).append(network)
    strong = by_phrase.pop("strongly under both methods", [])
    if not by_phrase:
        return f"We see it, for both methods, in {_networks(strong, len(found))}"
    less = "; ".join(f"{phrase} in {listed(names)}" for phrase, names in by_phrase.items())
    if strong:
        return f"We see it, for both methods, in {listed(strong)}. Elsewhere we see less: {less}"
    return f"We see less: SNR and the accuracy lost go together {less}"


def fig6_words(own: Mapping[str, Estimate]) -> dict[str, str]:
    """Rank correlations of SNR and the accuracy lost in one network; of `claims`.

    Returns
    -------
    dict
        ``fig6_quantization`` and ``fig6_pruning``, each over all rows and over `shared_range`.
    """
    ranks = {m: [own[f"SNR and accuracy lost, {w}{m}"] for w in ("", _SHARED)] for m in METHODS}
    return {
        f"fig6_{method}": f"{whole}; over the SNRs that both methods have, {shared}"
        for method, (whole, shared) in ranks.items()
    }


def right_words(found: Mapping[str, Mapping[str, Estimate]]) -> str:
    """How often the method of the higher SNR loses less, on one layer at one budget; of `claims`.

    "82 % (73 % to 90 %) at the lower budgets and ... at the higher in ResNet-20, ...".
    """
    said = []
    for network, own in found.items():
        known = {part: own[f"{_BETWEEN}, {part}"] for part in (_LOWER, _HIGHER)}
        shares = [f"{_share(e)} at the {part}" for part, e in known.items() if e.n_points]
        said.append(f"{listed(shares)} of {network}")
    return "; ".join(said)


def _share(rank: Estimate) -> str:
    """The share of pairs in order, of their mean rank correlation, -1 for all and 1 for none."""
    value, low, high = (f"{(1 - v) / 2:.0%}" for v in (rank.value, rank.high, rank.low))
    return f"{value} ({low} to {high})".replace("%", " %")


def cost_words(found: Mapping[str, Mapping[str, Estimate]]) -> str:
    """In how many networks a decibel costs more under which method; of `claims`.

    "At the SNRs of pruning, quantization costs more in 1 of 3 networks and the others tie; at the
    SNRs of quantization, ...".
    """
    said = []
    for at in reversed(METHODS):
        known = [own[f"{_EXCESS} {at}"] for own in found.values()]
        signs = [excess.sign for excess in known if excess.n_points]
        n, ties = len(signs), signs.count(0)
        of = f"{n} network{'s' if n > 1 else ''}"
        if not signs:
            said.append(f"at the SNRs of {at}, there is nothing to compare")
            continue
        dearer = [
            f"{method} costs more in {signs.count(sign)} of {of}"
            for method, sign in (("quantization", -1), ("pruning", 1))
            if sign in signs
        ]
        if ties == n:
            dearer = [f"it is a tie in {ties} of {of}"]
        elif ties:
            dearer.append("the others tie" if ties > 1 else "the other ties")
        said.append(f"at the SNRs of {at}, {listed(dearer)}")
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}"


def compared_words(found: Mapping[str, Mapping[str, Estimate]]) -> dict[str, str]:
    """How networks are set side by side, and what comes of it; of `claims`.

    Returns
    -------
    dict
        ``networks_intro``: a sentence ahead of their table; ``networks_said``: `claims_words` as
        sentences. Of a single network that there is no other.
    """
    if len(found) < 2:
        return {
            "networks_intro": "The finished table is not at hand, so one network has to do: here "
            "is what it says to the claims so far",
            "networks_said": "There is no other network to compare it with",
        }
    said = claims_words(found)
    all_of_them = "both" if len(found) == 2 else f"all {len(found)}"
    return {
        "networks_intro": f"Here is what {len(found)} networks say to the claims so far",
        "networks_said": f"Alike in {all_of_them} are {said['alike']} claims; claims on which none "
        f"of them can tell: {said['untold']}; not alike: {said['unlike']}",
    }


def elsewhere_words(tables: Mapping[str, pd.DataFrame], edition: pd.DataFrame | None) -> str:
    """Why a network has another accuracy here than in the chapter on fine-tuning.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        By model; of `pqlib.snr_findings.prepared`.
    edition : DataFrame, optional
        Of `pqlib.training_findings.alike_cells`.

    Returns
    -------
    str
        A sentence; empty if no network is in both.
    """
    said = []
    for model, table in ({} if edition is None else tables).items():
        cells = edition[edition["model"] == model]
        if len(cells):
            there, here = cells.iloc[0], table.iloc[0]
            said.append(
                f"{NAMES.get(model, model)} {there['fp_value']:.1f} % of {there['n_test']:,} "
                f"there and {here['fp_accuracy']:.1f} % of {int(here['n_images']):,} here"
            )
    if not said:
        return ""
    return (
        "The chapter on fine-tuning has the same weights, but not the same number of test images, "
        f"and so another accuracy to begin with: {'; '.join(said)}."
    )


def _together(quantization: Estimate, pruning: Estimate) -> str:
    """How strongly SNR and accuracy go together under both methods."""
    seen = [strength(e) if e.sign < 0 else "not beyond chance" for e in (quantization, pruning)]
    if seen[0] == seen[1]:
        return f"{seen[0]} under both methods"
    return f"{seen[0]} under quantization and {seen[1]} under pruning"


def _networks(names: list[str], total: int) -> str:
    return listed(names) if total == 1 else f"all {total} networks ({listed(names)})"
