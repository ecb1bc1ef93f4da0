"""What a sweep over budgets and seeds says: who is ahead in each cell, in words and columns.

Its table is that of `pqlib.table1_leads.leads`.
"""

import pandas as pd

from pqlib.experiments.presets import MODELS
from pqlib.rate_findings import METHODS, chosen_words, ends_words
from pqlib.training_findings import (
    ALIKE,
    FINE_TUNED,
    NAMES,
    POST_TRAINING,
    ahead_words,
    count_words,
    exceptions,
    lead_by_bits,
)
from pqlib.training_words import lead_words
from pqlib.verdicts import bits_phrase, listed, signed


def swept(table: pd.DataFrame) -> pd.DataFrame:
    """The networks of a table of `pqlib.table1_leads.leads` that have fine-tuned cells, in order.

    Cells with layers spared are left to `pqlib.spared_findings`.

    Raises
    ------
    ValueError
        If no network has, or one has several at the same budget, of different settings.
    """
    alike = table[table["comparison"] == ALIKE]
    models = alike.loc[alike["when"] == FINE_TUNED, "model"].unique()
    if not len(models):
        raise ValueError(
            "table has no fine-tuned cell with all layers treated alike; run `pqlib run table1` "
            "and `pqlib run leads`"
        )
    keys = ["model", "when", "n_bits"]
    own = alike[alike["model"].isin(models)].sort_values(keys, ignore_index=True)
    twice = own[own.duplicated(keys)]
    if len(twice):
        model, when, n_bits = twice.iloc[0][keys]
        raise ValueError(
            f"table has {when} {NAMES.get(model, model)} at {bits_phrase([n_bits])} several times, "
            "of different settings; keep the rows of one, or give each a folder of its own"
        )
    return own


def fine_tuned(table: pd.DataFrame) -> pd.DataFrame:
    """The cells of `swept` that are fine-tuned."""
    rows = swept(table)
    return rows[rows["when"] == FINE_TUNED]


def words(table: pd.DataFrame) -> dict[str, str]:
    """Who is ahead in a sweep over several budgets and seeds, and how it was run.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib.table1_leads.leads`; of networks without fine-tuned runs only what they are
        without training is told.

    Returns
    -------
    dict
        ``sweep_after``, ``sweep_before``: who is ahead with fine-tuning and without, by network;
        ``sweep_closes``: what becomes of the largest lead without; ``sweep_fp``: what the networks
        have uncompressed; ``sweep_rates``: the learning rates chosen where several were tried,
        ``sweep_tried``: how many, ``sweep_largest`` and ``sweep_smallest``: where the best was at
        an end, see `pqlib.rate_findings.ends_words`; ``sweep_spread``: by how much leads differ
        between seeds, beside the largest lead; ``sweep_seeds``, ``sweep_epochs``, ``sweep_tested``,
        ``sweep_trained``: how many; ``sweep_missing``: a sentence on networks that have no
        fine-tuned cell, empty if there are none.
    """
    whole, table = table[table["comparison"] == ALIKE], swept(table)
    missing = [NAMES.get(m, m) for m in whole["model"].unique() if m not in set(table["model"])]
    untrained = whole[whole["when"] == POST_TRAINING].groupby("model", sort=False)
    fine = table[table["when"] == FINE_TUNED]
    by_model = [(NAMES.get(m, m), rows) for m, rows in table.groupby("model", sort=False)]
    ends = ends_words(fine)
    metric = table["metric"].iloc[0]
    by_seed = [[float(lead) for lead in str(text).split()] for text in fine["lead_by_seed"]]
    spread = max(max(leads) - min(leads) for leads in by_seed)
    return {
        "sweep_after": "; ".join(f"for {n} {ahead_words(rows)}" for n, rows in by_model),
        "sweep_before": "; ".join(
            f"for {NAMES.get(m, m)} {ahead_words(rows, POST_TRAINING)}" for m, rows in untrained
        )
        or "not run",
        "sweep_closes": _closes(table),
        "sweep_fp": " and ".join(
            f"{rows['fp_value'].mean():.1f} % {metric} ({name})" for name, rows in by_model
        ),
        "sweep_rates": "; ".join(f"{m} {chosen_words(fine, m)}" for m in METHODS),
        **{f"sweep_{k.removeprefix('rates_')}": text for k, text in ends.items()},
        "sweep_spread": f"{spread:.1f} points, the largest lead being {_most(fine['lead'])}",
        "sweep_missing": f"Not fine-tuned yet: {listed(missing)}." if missing else "",
        "sweep_seeds": _seeds(fine),
        "sweep_epochs": _several(fine["epochs"]),
        "sweep_tested": _several(fine["n_test"]),
        "sweep_trained": _several(fine["n_train"]),
    }


def columns(table: pd.DataFrame) -> dict[str, list]:
    """Columns of `pqlib.table1_leads.leads`: its fine-tuned cells by network and budget."""
    rows = fine_tuned(table)
    return {
        "network": [NAMES.get(model, model) for model in rows["model"]],
        "bits": rows["n_bits"].tolist(),
        "quantization": rows["quantization"].tolist(),
        "pruning": rows["pruning"].tolist(),
        "lead (95 % interval)": [lead_words(row) for _, row in rows.iterrows()],
        "ahead": ["tie" if w == "neither" else w for w in rows["winner"]],
    }


def edition_words(table: pd.DataFrame, paper: pd.DataFrame) -> dict[str, str]:
    """What our edition of Table 1 says, and what it says beside the paper's.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib.table1_leads.leads`; networks without fine-tuned runs are left out.
    paper : DataFrame
        `pqlib.training_findings.cells` of the paper's table.

    Returns
    -------
    dict
        ``edition_networks``: how many of the eight, ``edition_missing``: a sentence on the others,
        empty if there are none; ``edition_fp``: what the networks have uncompressed;
        ``edition_sizes``: how its leads compare with the paper's;
        ``edition_counts``, ``edition_exceptions``, ``edition_by_bits``: who is
        ahead after it; ``edition_beside``: how many cells agree with the paper's;
        ``edition_before``: who is ahead without training; ``edition_over``: in how many cells a
        compressed network has at least the original's value; ``edition_seeds``: how many; and
        `pqlib.rate_findings.ends_words`.
    """
    table = in_paper_order(swept(table))
    fine, before = (table[table["when"] == when] for when in (FINE_TUNED, POST_TRAINING))
    own = dict([*fine.groupby("model", sort=False)])
    missing = [NAMES[m] for m in MODELS if m not in own]
    over = {m: int((fine[m] >= fine["fp_value"]).sum()) for m in METHODS}
    n = f"{len(own)} of the" if missing else "all"
    absent = [NAMES[m] for m in own if m not in set(before["model"])]
    not_run = f" (not run for {listed(absent)})" if absent else ""
    return {
        "edition_networks": f"{n} {len(MODELS)} networks",
        "edition_missing": f"Still to be run: {listed(missing)}." if missing else "",
        "edition_fp": listed(
            f"{NAMES[m]} {rows['fp_value'].mean():.1f} % {rows['metric'].iloc[0]}"
            for m, rows in own.items()
        ),
        "edition_counts": count_words(fine),
        "edition_exceptions": exceptions(fine),
        "edition_by_bits": lead_by_bits(fine),
        "edition_beside": _beside(fine, paper),
        "edition_sizes": _sizes(fine, paper),
        "edition_before": count_words(before) + not_run if len(before) else "not run",
        "edition_over": f"{over['quantization']} of {len(fine)} cells of quantization and "
        f"{over['pruning']} of pruning",
        "edition_seeds": _seeds(fine),
        **ends_words(fine),
    }


def in_paper_order(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table by network, in the order of the paper's Table 1."""
    order = {model: place for place, model in enumerate(MODELS)}
    return table.sort_values("model", key=lambda models: models.map(order), kind="stable")


def _beside(fine, paper):
    """In how many cells the method ahead is the paper's, or is not, or one of us has a tie."""
    both = fine.merge(paper, on=["model", "n_bits"], suffixes=("", "_paper"))
    told = both[both["winner"] != "neither"]
    same = told["winner"] == told["winner_paper"]
    tied = told["winner_paper"] == "neither"
    other = told[~same & ~tied]
    rest = {
        "our test images cannot tell": len(both) - len(told),
        "the paper prints the same value twice": int(tied.sum()),
        "the paper has the other method ahead": len(other),
    }
    text = f"in {same.sum()} of {len(both)} cells the same method is ahead as in the paper"
    text += "".join(f", in {n} {what}" for what, n in rest.items() if n)
    named = [
        f"{NAMES[m]} at {bits_phrase(rows['n_bits'].astype(int).tolist())}"
        for m, rows in other.groupby("model", sort=False)
    ]
    return text + (f" ({listed(named)})" if named else "")


def _sizes(fine, paper):
    """In how many cells quantization's lead is the larger one here, and where most, either way."""
    both = fine.merge(paper, on=["model", "n_bits"], suffixes=("", "_paper"))
    if both.empty:
        return "no cell of the paper's"
    more = both["lead"] - both["lead_paper"]
    text = (
        f"quantization leads by more than in the paper in {(more > 0).sum()} of {len(both)} cells"
    )

    def cell(at):
        row = both.loc[at]
        leads = f"{signed(row['lead'])} points against {signed(row['lead_paper'])}"
        return f"{NAMES[row['model']]} at {bits_phrase([int(row['n_bits'])])}, {leads}"

    if (more > 0).any():
        text += f", most for {cell(more.idxmax())}"
    if (more < 0).any():
        text += f"; by less in {(more < 0).sum()}, most for {cell(more.idxmin())}"
    leads = [both[f"lead{of}"] for of in ("", "_paper")]
    if len(both) > 2 and min(own.nunique() for own in leads) > 1:
        shares = [both[f"lead{of}"] / both[f"fp_value{of}"] for of in ("", "_paper")]
        ranks = [a.corr(b, "spearman") for a, b in (leads, shares)]
        text += (
            f"; cell by cell the rank correlation of both leads is {ranks[0]:.2f}, and "
            f"{ranks[1]:.2f} of leads as shares of what a network has uncompressed"
        ).replace("-", "−")
    return text


def _closes(table):
    """The largest lead without fine-tuning and what it becomes: "from 28.0 to 3.1 points (...)"."""
    keys = ["model", "n_bits"]
    wide = table.pivot_table(index=keys, columns="when", values="lead").dropna()
    if POST_TRAINING not in wide or wide.empty:
        return "unmeasured"
    model, n_bits = at = wide[POST_TRAINING].idxmax()
    before, after = (signed(wide.loc[at, when]) for when in (POST_TRAINING, FINE_TUNED))
    return f"from {before} to {after} points ({NAMES.get(model, model)} at {bits_phrase([n_bits])})"


def _seeds(fine):
    many = _several(len(str(seeds).split()) for seeds in fine["seeds"])
    return "one seed" if many == "1" else f"{many} seeds"


def _several(numbers):
    known = {int(number) for number in numbers}
    return " to ".join(f"{number:,}" for number in sorted({min(known), max(known)}))


def _most(leads):
    return signed(leads.loc[leads.abs().idxmax()])
