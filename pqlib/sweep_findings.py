"""What a sweep over budgets and seeds says: who is ahead in each cell, in words and columns.

Its table is that of `pqlib.table1_leads.leads`.
"""

import pandas as pd

from pqlib.training_findings import FINE_TUNED, NAMES, POST_TRAINING, ahead_words
from pqlib.training_words import lead_words
from pqlib.verdicts import bits_phrase, by_bits


def swept(table: pd.DataFrame) -> pd.DataFrame:
    """The networks of a table of `pqlib.table1_leads.leads` that have fine-tuned cells, in order.

    Raises
    ------
    ValueError
        If no network has.
    """
    models = table.loc[table["when"] == FINE_TUNED, "model"].unique()
    if not len(models):
        raise ValueError(
            "table has no fine-tuned cell; run `pqlib run table1` and `pqlib run leads`"
        )
    own = table[table["model"].isin(models)]
    return own.sort_values(["model", "when", "n_bits"], ignore_index=True)


def words(table: pd.DataFrame) -> dict[str, str]:
    """Who is ahead in a sweep over several budgets and seeds, and how it was run.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib.table1_leads.leads`; networks without fine-tuned runs are left out.

    Returns
    -------
    dict
        ``sweep_after``, ``sweep_before``: who is ahead with fine-tuning and without, by network;
        ``sweep_closes``: what becomes of the largest lead without; ``sweep_fp``: what the networks
        have uncompressed; ``sweep_rates``: the learning rates chosen; ``sweep_spread``: by how much
        leads differ between seeds, beside the largest lead; ``sweep_seeds``, ``sweep_epochs``,
        ``sweep_tested``, ``sweep_trained``: how many.
    """
    table = swept(table)
    fine = table[table["when"] == FINE_TUNED]
    by_model = [(NAMES.get(m, m), rows) for m, rows in table.groupby("model", sort=False)]
    before = [(name, rows) for name, rows in by_model if (rows["when"] == POST_TRAINING).any()]
    metric = table["metric"].iloc[0]
    by_seed = [[float(lead) for lead in str(text).split()] for text in fine["lead_by_seed"]]
    spread = max(max(leads) - min(leads) for leads in by_seed)
    seeds = _several(len(leads) for leads in by_seed)
    return {
        "sweep_after": "; ".join(f"for {n} {ahead_words(rows)}" for n, rows in by_model),
        "sweep_before": "; ".join(
            f"for {name} {ahead_words(rows, POST_TRAINING)}" for name, rows in before
        )
        or "not run",
        "sweep_closes": _closes(table),
        "sweep_fp": " and ".join(
            f"{rows['fp_value'].mean():.1f} % {metric} ({name})" for name, rows in by_model
        ),
        "sweep_rates": "; ".join(f"{m} {_rates(fine, m)}" for m in ("quantization", "pruning")),
        "sweep_spread": f"{spread:.1f} points, the largest lead being {_most(fine['lead'])}",
        "sweep_seeds": "one seed" if seeds == "1" else f"{seeds} seeds",
        "sweep_epochs": _several(fine["epochs"]),
        "sweep_tested": _several(fine["n_test"]),
        "sweep_trained": _several(fine["n_train"]),
    }


def columns(table: pd.DataFrame) -> dict[str, list]:
    """Columns of `pqlib.table1_leads.leads`: its fine-tuned cells by network and budget."""
    rows = swept(table)
    rows = rows[rows["when"] == FINE_TUNED]
    return {
        "network": [NAMES.get(model, model) for model in rows["model"]],
        "bits": rows["n_bits"].tolist(),
        "quantization": rows["quantization"].tolist(),
        "pruning": rows["pruning"].tolist(),
        "lead (95 % interval)": [lead_words(row) for _, row in rows.iterrows()],
        "ahead": ["tie" if w == "neither" else w for w in rows["winner"]],
    }


def _rates(fine, method):
    """The rates chosen for a method, with the budgets: "0.01 at 2 and 4 bits, 0.003 at 8 bits"."""
    chosen = {}
    for n_bits, rows in fine.groupby("n_bits"):
        rates = {float(rate) for text in rows[f"rate_{method}"] for rate in str(text).split()}
        chosen[int(n_bits)] = " or ".join(f"{rate:.2g}" for rate in sorted(rates, reverse=True))
    return by_bits(chosen)


def _closes(table):
    """The largest lead without fine-tuning and what it becomes: "from 28.0 to 3.1 points (...)"."""
    keys = ["model", "n_bits"]
    wide = table.pivot_table(index=keys, columns="when", values="lead").dropna()
    if POST_TRAINING not in wide or wide.empty:
        return "unmeasured"
    model, n_bits = at = wide[POST_TRAINING].idxmax()
    before, after = (_signed(wide.loc[at, when]) for when in (POST_TRAINING, FINE_TUNED))
    return f"from {before} to {after} points ({NAMES.get(model, model)} at {bits_phrase([n_bits])})"


def _several(numbers):
    known = {int(number) for number in numbers}
    return " to ".join(f"{number:,}" for number in sorted({min(known), max(known)}))


def _most(leads):
    return _signed(leads.loc[leads.abs().idxmax()])


def _signed(value):
    return f"{value:z.1f}".replace("-", "−")
