"""Sentences and small tables of the fine-tuning chapter, made of its tables.

What is counted and judged is in `pqlib.training_findings`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from pqlib.experiments.finetune_config import FineTune
from pqlib.experiments.presets import Recipe
from pqlib.training_findings import (
    FINE_TUNED,
    NAMES,
    POST_TRAINING,
    SPARED,
    ahead_words,
    count_words,
    exceptions,
    gain_words,
    lead_by_bits,
    lead_by_model,
    mean_bits,
    nearest_mean_accuracy,
    swept,
    within_noise,
)
from pqlib.verdicts import bits_phrase, by_bits

_N_IMAGENET = 1_281_167  # training images
_KEPT_BITS = 8  # of the layers that are spared


def lead_words(row: Mapping[str, float]) -> str:
    """A lead and its interval."""
    text = f"{row['lead']:+z.1f} ({row['low']:z.1f} to {row['high']:z.1f})"
    return text.replace("-", "−")


def nearest_words(data: Any, task: str) -> str:
    """A sentence on the simplest classifier, empty for a task other than "classification".

    ``data`` is that of `pqlib.training_findings.nearest_mean_accuracy`.
    """
    if task != "classification":
        return ""
    accuracy = nearest_mean_accuracy(data)
    return f"The class whose mean image is nearest gives {accuracy:.1f} % on the same test images."


def live_words(compared: pd.DataFrame, runs: pd.DataFrame) -> dict[str, str]:
    """Who is ahead, what fine-tuning adds, and how many zeros quantized weights have.

    Parameters
    ----------
    compared : DataFrame
        Of `pqlib.training_findings.compare_runs`.
    runs : DataFrame
        Of `pqlib.training_findings.runs_table`.

    Returns
    -------
    dict
        ``live_verdict`` and ``live_before``: who is ahead after fine-tuning and without it;
        ``gain_quant``, ``gain_prune``: what it adds; ``natural_words``: zeros of the fine-tuned
        quantized weights.
    """
    natural = runs[(runs["method"] == "quantization") & (runs["when"] == FINE_TUNED)]
    zeros = {int(r["n_bits"]): f"{r['sparsity']:.0%}" for _, r in natural.iterrows()}
    return {
        "live_verdict": ahead_words(compared),
        "live_before": ahead_words(compared, POST_TRAINING),
        "gain_quant": gain_words(compared, "quantization"),
        "gain_prune": gain_words(compared, "pruning"),
        "natural_words": by_bits(zeros),
    }


def values_table(compared: pd.DataFrame) -> dict[str, list]:
    """Columns of `pqlib.training_findings.compare_runs`: fine-tuned first, by bit-width."""
    rows = compared.sort_values(["when", "n_bits"])
    intervals = zip(rows["low"], rows["high"], strict=True)
    return {
        "": rows["when"].tolist(),
        "bits": rows["n_bits"].tolist(),
        **{name: rows[name].astype(float).tolist() for name in ("quantization", "pruning", "lead")},
        "95 % interval": [f"{a:z.1f} to {b:z.1f}".replace("-", "−") for a, b in intervals],
        "ahead": ["tie" if w == "neither" else w for w in rows["winner"]],
    }


def sweep_words(table: pd.DataFrame) -> dict[str, str]:
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


def sweep_table(table: pd.DataFrame) -> dict[str, list]:
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


def shares_words(shares: pd.DataFrame, n_bits: int) -> dict[str, str]:
    """What it means to spare the first and the last layer.

    Parameters
    ----------
    shares : DataFrame
        Of `pqlib.training_findings.spared_weights`, with MobileNet-V2 among its networks.
    n_bits : int
        What the other layers have.

    Returns
    -------
    dict
        ``spared_top``: the network with the largest share and its share; ``spared_many``: in how
        many it is more than a fifth; ``spared_mobilenet``: the share of MobileNet-V2, and
        ``spared_bits``, a clause on its mean bits.
    """
    share = shares.set_index("model")["share"].sort_values(ascending=False)
    mobilenet = share["mobilenet_v2"]
    bits = f"which changes nothing where all layers have {_KEPT_BITS} bits anyway"
    if n_bits < _KEPT_BITS:
        bits = (
            f"so that a nominal {n_bits} bits are really {mean_bits(mobilenet, n_bits):.2f} bits "
            f"per weight for quantization, while pruning is held to {n_bits}"
        )
    return {
        "spared_top": f"{NAMES[share.index[0]]} with {share.iloc[0]:.1%}",
        "spared_many": f"{int((share > 0.2).sum())} of {int(share.count())}",
        "spared_mobilenet": f"{mobilenet:.1%}",
        "spared_bits": bits,
    }


def shares_table(shares: pd.DataFrame, n_bits: int) -> dict[str, list]:
    """Columns of `pqlib.training_findings.spared_weights`, the largest share first.

    Where a package is missing its message stands for the share.
    """
    rows = shares.sort_values("share", ascending=False)
    known = zip(rows["missing"], rows["share"], strict=True)
    return {
        "network": [NAMES[model] for model in rows["model"]],
        "last layer": [f"`{name}`" for name in rows["last"]],
        "share of the weights": [missing or f"{share:.1%}" for missing, share in known],
        f"mean bits at {n_bits}": [mean_bits(share, n_bits) for share in rows["share"]],
    }


def spared_words(spared: pd.DataFrame) -> dict[str, str]:
    """What sparing the first and the last layer adds, and whom it helps.

    Parameters
    ----------
    spared : DataFrame
        Of `pqlib.training_findings.compare_spared`.

    Returns
    -------
    dict
        ``spared_effect`` on each method, in points; ``authors_lead`` of quantization where it
        alone spares them, and ``fair_lead`` where no method does.
    """
    alike, authors, both = (spared.loc[comparison] for comparison in SPARED)
    quantization, pruning = (both[m] - alike[m] for m in ("quantization", "pruning"))
    effect = f"{quantization:+z.1f} points for quantization and {pruning:+z.1f} for pruning"
    return {
        "spared_effect": effect.replace("-", "−"),
        "authors_lead": lead_words(authors),
        "fair_lead": lead_words(alike),
    }


def spared_table(spared: pd.DataFrame) -> dict[str, list]:
    """Columns of `pqlib.training_findings.compare_spared`, a row per comparison."""
    columns = {
        "bits, quantization": "bits_quantization",
        "bits, pruning": "bits_pruning",
        "quantization": "quantization",
        "pruning": "pruning",
    }
    return {
        "comparison": spared.index.tolist(),
        **{name: spared[column].tolist() for name, column in columns.items()},
        "lead (95 % interval)": [lead_words(row) for _, row in spared.iterrows()],
    }


def grid_words(grid: Iterable[tuple[FineTune, int]]) -> dict[str, str]:
    """How much there is to run in a sweep.

    Parameters
    ----------
    grid : iterable of (FineTune, int)
        Of `pqlib.experiments.presets.Sweep.grid`: runs, each with the power of its learning rate.

    Returns
    -------
    dict
        ``grid_words``: the powers that are tried, and ``grid_n``, how many; ``paper_runs``;
        ``passes_words``: how many images of ImageNet the runs see.
    """
    grid = list(grid)
    powers = sorted({power for _, power in grid})
    passes = sum(_N_IMAGENET * run.settings.epochs for run, _ in grid if "imagenet" in run.data)
    return {
        "grid_words": ", ".join(map(str, powers)).replace("-", "−"),
        "grid_n": str(len(powers)),
        "paper_runs": f"{len(grid):,}",
        "passes_words": (
            f"On ImageNet alone they show {passes / 1e9:.0f} billion images to the networks; "
            "divide by what your GPUs do in a second."
        ),
    }


def recipes_table(recipes: Mapping[str, Recipe], plans: Mapping[str, FineTune]) -> dict[str, list]:
    """Columns of the paper's Table 4, a row per network.

    Parameters
    ----------
    recipes, plans : mapping by network
        `pqlib.experiments.presets.TABLE4`, and a run of each, which holds the name of its data.
    """
    return {
        "network": [NAMES[model] for model in recipes],
        "data": [plans[model].data.split("/")[-1] for model in recipes],
        "batch": [r.batch_size for r in recipes.values()],
        "decay": [_power(r.weight_decay) for r in recipes.values()],
        "optimizer": [r.optimizer for r in recipes.values()],
        "epochs": [r.epochs for r in recipes.values()],
        "rate": [_power(r.learning_rate) for r in recipes.values()],
    }


def table1_words(found: pd.DataFrame, own: pd.DataFrame | None) -> dict[str, str]:
    """What the paper's Table 1 says, and ours beside it.

    Parameters
    ----------
    found : DataFrame
        `pqlib.training_findings.cells` of the paper's table.
    own : DataFrame or None
        Our own table, of `pqlib.table1_leads.leads`; None if there is none.

    Returns
    -------
    dict
        ``table1_counts``, ``table1_exceptions``, ``table1_by_bits`` and ``table1_noise``: see
        `pqlib.training_findings.count_words`, ``exceptions``, ``lead_by_bits``, ``within_noise``;
        ``table1_close``, ``table1_far``: the networks with the smallest and the largest median
        lead; ``table1_small``: in how many cells quantization leads by at most a point;
        ``table1_over``: in how many a compressed network is as good as the original; ``own_words``
        and ``table1_own``: how our cells divide.
    """
    medians = lead_by_model(found)["median"]
    ends = medians.iloc[[0, -1]].items()
    close, far = (f"{NAMES[model]} (median {_signed(lead)} points)" for model, lead in ends)
    small = int(((found["lead"] > 0) & (found["lead"] <= 1)).sum())
    over = {m: int((found[m] >= found["fp_value"]).sum()) for m in ("quantization", "pruning")}
    counted = None if own is None else count_words(own[own["when"] == FINE_TUNED])
    return {
        "table1_counts": count_words(found),
        "table1_exceptions": exceptions(found),
        "table1_by_bits": lead_by_bits(found),
        "table1_close": close,
        "table1_far": far,
        "table1_small": f"{small} of {len(found)}",
        "table1_noise": within_noise(found),
        "table1_over": (
            f"{over['quantization']} of {len(found)} cells of quantization and {over['pruning']} "
            "of pruning"
        ),
        "own_words": counted or "not run here",
        "table1_own": counted or "not run: `pqlib run table1 --preset laptop`",
    }


def _power(value: float) -> str:
    return f"{value:g}".replace("e-0", "e−")


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


def _signed(value: float) -> str:
    return f"{value:z.1f}".replace("-", "−")
