"""What our edition of Table 1 says beyond who is ahead: exceptions, floors, what training adds.

Its table is that of `pqlib.table1_leads.leads`; `pqlib.sweep_findings` counts its cells.
"""

import itertools
import math

import numpy as np
import pandas as pd
from scipy import stats

from pqlib.edition_tables import gain_of, remade_cells
from pqlib.rate_findings import METHODS, at_end, beyond_words
from pqlib.sweep_findings import fine_tuned, swept
from pqlib.training_findings import (
    ALIKE,
    FINE_TUNED,
    NAMES,
    POST_TRAINING,
    count_words,
    exceptions,
    lead_by_model,
)
from pqlib.verdicts import bits_phrase, listed, points


def words(
    table: pd.DataFrame, paper: pd.DataFrame, floor: pd.DataFrame | None = None
) -> dict[str, str]:
    """What is to be said of the cells, beside `pqlib.sweep_findings.edition_words`.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib.table1_leads.leads`; networks without fine-tuned runs are left out.
    paper : DataFrame
        `pqlib.training_findings.cells` of the paper's table.
    floor : DataFrame, optional
        `pqlib.simple_models.TABLE`: what a model without a network gets.

    Returns
    -------
    dict
        ``edition_ahead``: who is ahead after fine-tuning, and where it is not quantization;
        ``edition_range``: the smallest and the largest lead; ``edition_order``,
        ``edition_ranks``, ``edition_untested``: see `order_words`, `ranks_words` and `untested`;
        ``edition_below``: see `below_floor`, empty without a floor; those of `gain_words` and of
        `pqlib.rate_findings.beyond_words`.
    """
    fine = fine_tuned(table)
    return {
        "edition_ahead": ahead(fine),
        "edition_range": lead_range(fine),
        "edition_order": order_words(fine),
        "edition_ranks": ranks_words(fine, paper),
        "edition_untested": untested(fine, paper),
        "edition_below": below_floor(table, floor) if floor is not None else "",
        **gain_words(table),
        **beyond_words(fine),
    }


def ahead(cells: pd.DataFrame) -> str:
    """Who is ahead in how many cells, in one clause.

    "quantization is ahead in all 49 cells", or how the cells divide and where it is not ahead.
    """
    if (cells["winner"] == "quantization").all():
        return f"quantization is ahead in all {len(cells)} cells"
    return f"{count_words(cells)} ({exceptions(cells)})"


def lead_range(cells: pd.DataFrame) -> str:
    """The smallest and the largest lead of quantization, each with its cell.

    "from +0.8 points (ResNet-18 at 8 bits) to +29.8 points (MobileNet-V3-small at 2 bits)".
    """
    ordered = cells.sort_values("lead", kind="stable")
    ends = [
        f"{points(row['lead'])} ({NAMES[row['model']]} at {bits_phrase([int(row['n_bits'])])})"
        for _, row in ordered.iloc[[0, -1]].iterrows()
    ]
    return f"from {ends[0]} to {ends[1]}"


def order_words(cells: pd.DataFrame) -> str:
    """The networks in the order of their median leads.

    "ResNet-18 (+1.0 points) and ViT-small (+9.0 points)".
    """
    return listed(
        f"{NAMES[model]} ({points(lead)})" for model, lead in lead_by_model(cells)["median"].items()
    )


def ranks_words(cells: pd.DataFrame, paper: pd.DataFrame) -> str:
    """How like the paper's order of the networks ours is, by their median leads.

    Parameters
    ----------
    cells : DataFrame
        Fine-tuned cells of `pqlib.table1_leads.leads`.
    paper : DataFrame
        `pqlib.training_findings.cells` of the paper's table; of it the same networks count.

    Returns
    -------
    str
        "the rank correlation with the paper's medians is 1.00, and of all orders of 2 networks
        50 % would be as like the paper's, or more; of leads as shares of what a network has
        uncompressed it is 1.00"; "a single network has no order" of one alone.

    Notes
    -----
    The share of orders is exact, over all permutations of up to eight networks. A lead in points
    cannot be large where the network has few of them; a share can.
    """
    ours = lead_by_model(cells)["median"]
    theirs = lead_by_model(paper)["median"].reindex(ours.index).dropna()
    ours = ours.loc[theirs.index]
    if len(ours) < 2:
        return "a single network has no order"
    relative = [
        (own["lead"] / own["fp_value"]).groupby(own["model"]).median().loc[theirs.index]
        for own in (cells, paper)
    ]
    by_share = relative[0].corr(relative[1], "spearman")
    ranks = stats.zscore(stats.rankdata(ours)), stats.zscore(stats.rankdata(theirs))
    found = float(np.mean(ranks[0] * ranks[1]))
    every = np.array([*itertools.permutations(ranks[0])]) @ ranks[1] / len(ours)
    alike = np.mean(every > found - 1e-9)
    return (
        f"the rank correlation with the paper's medians is {found:.2f}, and of all orders "
        f"of {len(ours)} networks {100 * alike:.0f} % would be as like the paper's, or more; of "
        f"leads as shares of what a network has uncompressed it is {by_share:.2f}"
    ).replace("is -", "is −")


def untested(cells: pd.DataFrame, paper: pd.DataFrame) -> str:
    """A sentence where no cell in which the paper does not have quantization ahead was run here.

    Empty where one was, or where the paper has none: agreement could then have failed on it.
    """
    other = paper[paper["winner"] != "quantization"]
    run = set(zip(cells["model"], cells["n_bits"], strict=True))
    if other.empty or run & set(zip(other["model"], other["n_bits"], strict=True)):
        return ""
    whose = listed(f"{NAMES[m]}'s" for m in other["model"].unique())
    many = f"the {len(other)} cells" if len(other) > 1 else "the one cell"
    return (
        f"But {many} in which the paper does not have quantization ahead, {whose}, "
        f"{'are' if len(other) > 1 else 'is'} not among them. So this speaks of the paper's rule "
        "and not of its exceptions."
    )


def below_floor(table: pd.DataFrame, floor: pd.DataFrame) -> str:
    """Of the untrained cells in which quantization is not ahead, those where neither method counts.

    Parameters
    ----------
    table, floor : DataFrame
        As for `words`.

    Returns
    -------
    str
        A sentence that names the cells in which both methods have less than the model without a
        network; empty where there are none.
    """
    least = {m: row["value"] for _, row in floor.iterrows() for m in str(row["models"]).split()}
    rows = swept(table)
    rows = rows[(rows["when"] == POST_TRAINING) & (rows["winner"] != "quantization")]
    best = rows[[*METHODS]].max(axis=1)
    low = [v < least.get(m, -math.inf) for m, v in zip(rows["model"], best, strict=True)]
    found = rows[low]
    if found.empty:
        return ""
    where = listed(
        f"{NAMES[model]} at {bits_phrase(own['n_bits'].astype(int).tolist())}"
        for model, own in found.groupby("model", sort=False)
    )
    n = len(rows)
    of = f"The {'one' if n == 1 else n} in which it is not, {where},"
    if len(found) < n:
        of = f"Of the {n} in which it is not, {len(found)} ({where})"
    return (
        f"{of} {'says' if len(found) == 1 else 'say'} little: both methods have less there than "
        "the model that has learned next to nothing."
    )


def gain_words(table: pd.DataFrame) -> dict[str, str]:
    """In how many cells fine-tuning takes something away; `edition_tables.gains` has how much.

    Parameters
    ----------
    table : DataFrame
        As for `words`.

    Returns
    -------
    dict
        ``edition_lowered``: of how many cells training lowers each method; ``edition_smallest``: in
        how many of quantization's the smallest rate that was tried is the chosen one. "not run"
        where no network was also tested without training.
    """
    rows = swept(table)
    fine = rows[rows["when"] == FINE_TUNED].set_index(["model", "n_bits"], drop=False)
    gains = {method: gain_of(rows, method) for method in METHODS}
    if any(gain.empty for gain in gains.values()):
        return dict.fromkeys(("edition_lowered", "edition_smallest"), "not run")
    worse = {method: gain[gain < 0] for method, gain in gains.items()}
    first = METHODS[0]
    smallest = int(at_end(fine, first, min).loc[worse[first].index].sum())
    n = len(worse[first])
    return {
        "edition_lowered": " and ".join(
            f"{method} in {len(worse[method])} of {len(gains[method])} cells" for method in METHODS
        ),
        "edition_smallest": f"all {n}" if smallest == n else f"{smallest} of {n}",
    }


def untrained_words(table: pd.DataFrame, model: str, n_bits: int) -> str:
    """What a network has with each method and without training, beside its original: a clause.

    Parameters
    ----------
    table : DataFrame
        As for `words`.
    model : str
    n_bits : int

    Returns
    -------
    str
        "at 8 bits quantization has 80.6 % accuracy and pruning 71.0 %, the original 80.6 %", or
        "not run".
    """
    rows = table[(table["when"] == POST_TRAINING) & (table["comparison"] == ALIKE)]
    rows = rows[(rows["model"] == model) & (rows["n_bits"] == n_bits)]
    if rows.empty:
        return "not run"
    row = rows.iloc[0]
    first, second = METHODS
    return (
        f"at {bits_phrase([n_bits])} {first} has {row[first]:.1f} % {row['metric']} and {second} "
        f"{row[second]:.1f} %, the original {row['fp_value']:.1f} %"
    )


def again_words(table: pd.DataFrame) -> dict[str, str]:
    """What came of cells that were made again from scratch.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib.table1_again.compare`.

    Returns
    -------
    dict
        ``again_bits``: in how many of them the weights are the same to the last bit, and
        ``again_rate``: in how many validation chose the same learning rate; ``again_most``: the
        largest difference of values, either way, and ``again_machines``: in how many the processor
        was another.
    """
    rows = remade_cells(table)
    n = len(rows)
    most = rows["difference"].abs().max()
    other = rows["hardware"] != rows["hardware_again"]
    return {
        "again_bits": f"{int(rows['same_bits'].sum())} of {n}",
        "again_rate": f"{int(rows['chosen_again'].sum())} of {n}",
        "again_most": f"{most:.1f} points",
        "again_machines": f"{int(other.sum())} of {n}",
    }
