"""Sentences and small tables of the fine-tuning chapter, made of its tables.

What is counted and judged is in `pqlib.training_findings`.
"""

from collections.abc import Iterable, Mapping

import pandas as pd

from pqlib.experiments.finetune_config import FineTune
from pqlib.experiments.presets import Recipe
from pqlib.training.settings import Settings
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
    within_noise,
)
from pqlib.verdicts import by_bits, signed

_N_IMAGENET = 1_281_167  # training images
_KEPT_BITS = 8  # of the layers that are spared


def lead_words(row: Mapping[str, float]) -> str:
    """A lead and its interval."""
    text = f"{row['lead']:+z.1f} ({row['low']:z.1f} to {row['high']:z.1f})"
    return text.replace("-", "−")


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
        alone spares them, ``fair_lead`` where no method does, ``both_lead`` where both do.
    """
    alike, authors, both = (spared.loc[comparison] for comparison in SPARED)
    quantization, pruning = (both[m] - alike[m] for m in ("quantization", "pruning"))
    effect = f"{quantization:+z.1f} points for quantization and {pruning:+z.1f} for pruning"
    return {
        "spared_effect": effect.replace("-", "−"),
        "authors_lead": lead_words(authors),
        "fair_lead": lead_words(alike),
        "both_lead": lead_words(both),
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


def reach_words(settings: Settings, n_images: int = _N_IMAGENET) -> str:
    """How far Adam can take a scale in a training: "0.0006 in 57 steps".

    Parameters
    ----------
    settings : Settings
    n_images : int, default those of ImageNet

    Notes
    -----
    A step of Adam has about the size of its rate, whatever the gradient's; this is the rate times
    the number of steps. The cosine lowers it to about half.
    """
    n_steps = settings.n_steps(n_images)
    return f"{n_steps * settings.scale_learning_rate:.1g} in {n_steps:,} steps"


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
        "decay": [power(r.weight_decay) for r in recipes.values()],
        "optimizer": [r.optimizer for r in recipes.values()],
        "epochs": [r.epochs for r in recipes.values()],
        "rate": [power(r.learning_rate) for r in recipes.values()],
    }


def table1_words(found: pd.DataFrame) -> dict[str, str]:
    """What the paper's Table 1 says; `pqlib.sweep_findings.edition_words` has ours beside it.

    Parameters
    ----------
    found : DataFrame
        `pqlib.training_findings.cells` of the paper's table.

    Returns
    -------
    dict
        ``table1_counts``, ``table1_exceptions``, ``table1_by_bits`` and ``table1_noise``: see
        `pqlib.training_findings.count_words`, ``exceptions``, ``lead_by_bits``, ``within_noise``;
        ``table1_close``, ``table1_far``: the networks with the smallest and the largest median
        lead; ``table1_small``: in how many cells quantization leads by at most a point;
        ``table1_over``: in how many a compressed network is as good as the original.
    """
    medians = lead_by_model(found)["median"]
    ends = medians.iloc[[0, -1]].items()
    close, far = (f"{NAMES[model]} (median {signed(lead)} points)" for model, lead in ends)
    small = int(((found["lead"] > 0) & (found["lead"] <= 1)).sum())
    over = {m: int((found[m] >= found["fp_value"]).sum()) for m in ("quantization", "pruning")}
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
    }


def power(value: float) -> str:
    """A small number, such as a learning rate, in short: "1e−5"."""
    return f"{value:g}".replace("e-0", "e−")
