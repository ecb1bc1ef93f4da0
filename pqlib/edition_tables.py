"""Our edition of Table 1 as columns: how its networks were trained, what they have, who leads.

Its table is that of `pqlib.table1_leads.leads`, of which networks without fine-tuned runs are left
out; the columns are for `pqlib.Table`.
"""

import math

import pandas as pd

from pqlib.rate_findings import METHODS
from pqlib.sweep_findings import fine_tuned, in_paper_order, swept
from pqlib.training_findings import (
    FINE_TUNED,
    METHODS_OF_RUNS,
    NAMES,
    POST_TRAINING,
    lead_by_model,
)
from pqlib.training_words import lead_words
from pqlib.verdicts import bits_phrase


def trained(table: pd.DataFrame) -> dict[str, list]:
    """How each network was trained, what it has uncompressed, and how its cells are fine-tuned."""
    found: dict[str, list] = {}
    for model, rows in in_paper_order(fine_tuned(table)).groupby("model", sort=False):
        row = rows.iloc[0]
        columns = {
            "network": NAMES[model],
            "pixels": str(row["size"]),
            "epochs": int(row["fp_epochs"]),
            "images": f"{row['fp_n_train']:,.0f}",
            "uncompressed": f"{rows['fp_value'].mean():.1f} % {row['metric']}",
            "epochs of each cell": int(row["epochs"]),
            "its images": f"{row['n_train']:,}",
            "test images": f"{row['n_test']:,}",
        }
        for name, value in columns.items():
            found.setdefault(name, []).append(value)
    return found


def values(table: pd.DataFrame) -> dict[str, list]:
    """Table 1 in the paper's form: for each network both methods, trained or not, against bits."""
    table = in_paper_order(swept(table))
    bits = sorted(table["n_bits"].unique(), reverse=True)
    found: dict[str, list] = {"network": [], "original": [], "method": []}
    found |= {f"{n} bits": [] for n in bits}
    for model, own in table.groupby("model", sort=False):
        for when, after in ((FINE_TUNED, ""), (POST_TRAINING, ", no training")):
            cells = own[own["when"] == when].set_index("n_bits")
            for method in METHODS if len(cells) else ():
                found["network"].append(NAMES[model])
                found["original"].append(float(cells["fp_value"].mean()))
                found["method"].append(method + after)
                for n in bits:
                    value = float(cells.loc[n, method]) if n in cells.index else None
                    found[f"{n} bits"].append(value)
    return found


def leads(table: pd.DataFrame, paper: pd.DataFrame) -> dict[str, list]:
    """Quantization's median lead at each budget, here and in the paper's table.

    Parameters
    ----------
    table : DataFrame
    paper : DataFrame
        `pqlib.training_findings.cells` of the paper's table; of it the same networks count.
    """
    rows = swept(table)
    medians = rows.groupby(["when", "n_bits"])["lead"].median().unstack("when")
    same = paper[paper["model"].isin(rows["model"])]
    medians = medians.assign(paper=same.groupby("n_bits")["lead"].median())
    medians = medians.sort_index(ascending=False)
    n = same["model"].nunique()
    theirs = f"in the paper, same {n} networks" if n > 1 else "in the paper, same network"
    named = {"here": FINE_TUNED, theirs: "paper", "here, no training": POST_TRAINING}
    columns: dict[str, list] = {"bits": medians.index.astype(int).tolist()}
    for name, column in named.items():
        found = medians[column] if column in medians else [math.nan] * len(medians)
        columns[name] = [_known(value) for value in found]
    return columns


def networks(table: pd.DataFrame, paper: pd.DataFrame) -> dict[str, list]:
    """Quantization's median lead of each network over budgets, the smallest first.

    In points, and as a share of what the network has uncompressed, in percent; here and in the
    paper.

    Parameters
    ----------
    table, paper : DataFrame
        As for `leads`.
    """
    fine = fine_tuned(table)
    order = lead_by_model(fine).index
    found: dict[str, list] = {"network": [NAMES[model] for model in order]}
    for unit in ("points", "%"):
        for where, cells in (("here", fine), ("in the paper", paper)):
            lead = cells["lead"] if unit == "points" else 100 * cells["lead"] / cells["fp_value"]
            median = lead.groupby(cells["model"]).median().reindex(order)
            name = f"{where} ({unit})" if unit == "points" else f"{where}, as a share ({unit})"
            found[name] = [_known(value) for value in median]
    return found


def gains(table: pd.DataFrame) -> dict[str, list]:
    """What fine-tuning adds at each budget: the median over networks, and how many it lowers.

    Raises
    ------
    ValueError
        If no network was also tested without training.
    """
    rows = swept(table)
    found: dict[str, list] = {}
    for method in METHODS:
        gain = gain_of(rows, method)
        if gain.empty:
            raise ValueError(
                "table has no cell both fine-tuned and without training; run `pqlib run table1 "
                "--methods post_training_quantize,post_training_prune`"
            )
        by_budget = gain.groupby("n_bits")
        found.setdefault("bits", [int(n) for n in by_budget.groups])
        found[f"added to {method}"] = by_budget.median().tolist()
        lowered = by_budget.agg(lambda own: f"{int((own < 0).sum())} of {len(own)}")
        found[f"networks that lose, {method}"] = lowered.tolist()
    return {name: column[::-1] for name, column in found.items()}


def remade(table: pd.DataFrame) -> dict[str, list]:
    """Cells that were made again from scratch, beside what they were.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib.table1_again.compare`; of its runs those whose rate was the chosen one before.
    """
    rows = remade_cells(table)
    return {
        "network": [NAMES[model] for model in rows["model"]],
        "cell": [
            f"{METHODS_OF_RUNS[method][0]}, {bits_phrase([int(n)])}"
            for method, n in zip(rows["method"], rows["n_bits"], strict=True)
        ],
        "value": rows["value"].tolist(),
        "again": rows["value_again"].tolist(),
        "difference (95 % interval)": [
            lead_words({"lead": row["difference"], "low": row["low"], "high": row["high"]})
            for _, row in rows.iterrows()
        ],
        "original": rows["fp_value"].tolist(),
        "original, again": rows["fp_value_again"].tolist(),
        "weights": ["same bits" if same else "others" for same in rows["same_bits"]],
    }


def remade_cells(table: pd.DataFrame) -> pd.DataFrame:
    """The runs of `pqlib.table1_again.compare` that are cells of the table, in the paper's order.

    Raises
    ------
    ValueError
        If there are none.
    """
    rows = table[table["chosen"] & table["method"].isin([*METHODS_OF_RUNS])]
    if rows.empty:
        raise ValueError("table has no cell that was made again; run `pqlib run compare`")
    return in_paper_order(rows)


def gain_of(rows: pd.DataFrame, method: str) -> pd.Series:
    """What fine-tuning adds to a method in each cell, in points, by network and budget.

    Parameters
    ----------
    rows : DataFrame
        Of `pqlib.sweep_findings.swept`.
    method : str
        "quantization" or "pruning".

    Returns
    -------
    Series
        Of the cells that were also tested without training; empty if there are none.
    """
    wide = rows.pivot_table(index=["model", "n_bits"], columns="when", values=method)
    before = wide.get(POST_TRAINING, pd.Series(math.nan, index=wide.index))
    return (wide[FINE_TUNED] - before).dropna()


def _known(value) -> float | None:
    return None if math.isnan(value) else float(value)
