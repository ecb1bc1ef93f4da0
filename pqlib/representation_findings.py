"""What layers do during fine-tuning, said in words: tables in, tables and words out.

The figures are drawn by `pqlib.representation_plots`.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pqlib.verdicts import by_bits

TABLE = "representations"  # the committed one, see `training_findings.read_table`
NAMES = {
    "lsq": "quantization",
    "prune": "pruning",
    "prune_at_once": "pruning at once",
    "uncompressed": "no compression",
}
MEASURES = {"sqnr_db": "SNR", "cka": "CKA"}
CLOSER, FARTHER, OPEN = "closer", "farther", "no verdict"
_RUN = ["model", "data", "method", "n_bits"]


def check_table(table: pd.DataFrame) -> pd.DataFrame:
    """The rows as they are, if they can be read as a table of `pqlib run representations`.

    Raises
    ------
    ValueError
        If columns or epochs are missing, or a method is unknown.
    """
    wanted = [*_RUN, "seed", "epoch", "layer", "sqnr_db", "cka", "accuracy", "sparsity"]
    missing = [name for name in wanted if name not in table.columns]
    if missing or table.empty:
        what = f"lacks {', '.join(missing)}" if missing else "has no row"
        raise ValueError(f"table {what}; make it by `pqlib run representations`")
    unknown = sorted(set(table["method"]) - NAMES.keys())
    if unknown:
        raise ValueError(f"method {unknown[0]!r} is unknown; it must be one of {', '.join(NAMES)}")
    for key, run in table.groupby([*_RUN, "seed"], sort=False, dropna=False):
        epochs = sorted(map(int, run["epoch"].unique()))
        if epochs != list(range(len(epochs))) or len(epochs) < 2:
            raise ValueError(f"run {key} has epochs {epochs}; it must have 0, 1, ... to its last")
    return table


def changes(table: pd.DataFrame) -> pd.DataFrame:
    """How far each layer of each compressed run came from epoch 0 to the last.

    Returns
    -------
    DataFrame
        One row per (run, layer): ``before``, ``after`` and ``change`` of each measure, as
        ``sqnr_db_change`` and so on; ``place`` of the layer in the network, ``n_layers``.

    Notes
    -----
    Of both measures more is closer to the original. Runs without compression begin at no distance
    at all, so that they cannot come closer, and are left out.
    """
    table = check_table(table)
    rows = []
    compressed = table[table["method"] != "uncompressed"]
    for key, run in compressed.groupby([*_RUN, "seed"], sort=False):
        last = run["epoch"].max()
        layers = list(run.loc[run["epoch"] == 0, "layer"])
        of = {e: run[run["epoch"] == e].set_index("layer") for e in (0, last)}
        for place, layer in enumerate(layers):
            row = dict(zip([*_RUN, "seed"], key, strict=True))
            row |= {"layer": layer, "place": place, "n_layers": len(layers)}
            for measure in MEASURES:
                before, after = (float(of[e].loc[layer, measure]) for e in (0, last))
                row |= {f"{measure}_before": before, f"{measure}_after": after}
                row[f"{measure}_change"] = after - before
            rows.append(row)
    return pd.DataFrame(rows)


def trends(table: pd.DataFrame, *, n_draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Whether layers come closer to the original while they are fine-tuned.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib run representations`.
    n_draws, seed : int
        Of the bootstrap over layers.

    Returns
    -------
    DataFrame
        One row per (method, n_bits, measure): mean ``change`` over layers with the middle 95 %
        of its bootstrap, ``low`` to ``high``; ``n_closer`` of ``n_layers``; ``last_before``,
        ``last_after`` and ``last_change`` of the last layer before the classifier; ``verdict``:
        "closer", "farther", or "no verdict" where the interval holds zero.

    Notes
    -----
    The interval says how much hangs on the choice of layers. Layers of one network depend on each
    other, and it says nothing of other seeds; with several seeds all layers of all are drawn from.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for (method, n_bits), group in changes(table).groupby(["method", "n_bits"], sort=False):
        last = group[group["place"] == np.maximum(group["n_layers"] - 2, 0)]
        for measure in MEASURES:
            change = group[f"{measure}_change"].to_numpy()
            low, high = _interval(change, n_draws, rng)
            ends = {f"last_{k}": last[f"{measure}_{k}"].mean() for k in ("before", "after")}
            rows.append(
                {"method": method, "n_bits": int(n_bits), "measure": measure}
                | {"change": change.mean(), "low": low, "high": high, **ends}
                | {"last_change": ends["last_after"] - ends["last_before"]}
                | {"n_closer": int((change > 0).sum()), "n_layers": len(change)}
                | {"verdict": CLOSER if low > 0 else FARTHER if high < 0 else OPEN}
            )
    return pd.DataFrame(rows)


def differences(
    table: pd.DataFrame, pruning: str = "prune", *, n_draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """By how much layers come closer under quantization than under pruning.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib run representations`.
    pruning : {"prune", "prune_at_once"}
    n_draws, seed : int
        Of the bootstrap over layers.

    Returns
    -------
    DataFrame
        One row per (n_bits, measure) that both methods have: mean ``difference`` over layers, each
        layer's change under quantization less its change under pruning, with the middle 95 % of its
        bootstrap, ``low`` to ``high``.

    Notes
    -----
    Two verdicts of `trends` that are not the same do not show that two methods differ; this
    interval does, of the same layers. Both end where they end also because of where they begin.
    """
    rng = np.random.default_rng(seed)
    moved = changes(table).set_index(["n_bits", "model", "data", "seed", "layer"])
    rows = []
    for measure in MEASURES:
        of = {m: moved.loc[moved["method"] == m, f"{measure}_change"] for m in ("lsq", pruning)}
        paired = (of["lsq"] - of[pruning]).dropna()
        for n_bits, group in paired.groupby("n_bits"):
            own = group.to_numpy()
            low, high = _interval(own, n_draws, rng)
            row = {"n_bits": int(n_bits), "measure": measure, "difference": own.mean()}
            rows.append(row | {"low": low, "high": high})
    return pd.DataFrame(rows, columns=["n_bits", "measure", "difference", "low", "high"])


def rows_of(found: pd.DataFrame, method: str, measure: str) -> pd.DataFrame:
    """Rows of `trends` of one method by one measure, the fewest bits first."""
    rows = found[(found["method"] == method) & (found["measure"] == measure)]
    return rows.sort_values("n_bits")


def by_start(moved: pd.DataFrame, measure: str) -> dict[str, float]:
    """Whether those that begin farther away are those that come closer.

    Parameters
    ----------
    moved : DataFrame
        Of `changes`: layers of all runs together.
    measure : str

    Returns
    -------
    dict
        ``median`` of the measure at epoch 0; of the layers up to it, ``far``, and of those beyond
        it, ``near``, the share that comes closer (NaN where there are none).
    """
    start, change = moved[f"{measure}_before"], moved[f"{measure}_change"]
    far = start <= start.median()
    return {
        "median": float(start.median()),
        "far": float((change[far] > 0).mean()),
        "near": float((change[~far] > 0).mean()),
    }


def start_words(moved: pd.DataFrame, measure: str) -> str:
    """`by_start` as a clause."""
    found = by_start(moved, measure)
    unit = " dB" if measure == "sqnr_db" else ""
    nearer = "" if np.isnan(found["near"]) else f", of the nearer half {found['near']:.0%}"
    median = f"{plain(found['median'], measure)}{unit}"
    far = f"of the half that begins farther from the original (up to {median})"
    return f"{far} {found['far']:.0%} come closer{nearer}"


def start_ranks(moved: pd.DataFrame, measure: str) -> str:
    """Rank correlation of start and change over the layers of each run, by method and bit-width.

    "quantization −0.12 at 2 bits, 0.44 at 4 bits; pruning ...", without runs of a single layer or
    of equal starts. The change is the end less the start, and a CKA ends at 1: numbers below zero
    are to be expected even if the end had nothing to do with the start.
    """
    said = []
    for method, runs in moved.groupby("method", sort=False):
        ranks = {
            int(n_bits): run[f"{measure}_before"].corr(run[f"{measure}_change"], "spearman")
            for n_bits, run in runs.groupby("n_bits")
            if min(run[f"{measure}_before"].nunique(), run[f"{measure}_change"].nunique()) > 1
        }
        known = {b: f"{r:z.2f}".replace("-", "−") for b, r in ranks.items() if np.isfinite(r)}
        said += [f"{NAMES[method]} {by_bits(known)}"] if known else []
    return "; ".join(said) or "not defined"


def verdict_words(found: pd.DataFrame, method: str, measure: str) -> str:
    """Where the layers go: "closer to the original at 2 bits, farther from it at 4 bits"."""
    said = {CLOSER: "closer to the original", FARTHER: "farther from it", OPEN: "no verdict"}
    rows = rows_of(found, method, measure)
    return by_bits({int(r["n_bits"]): said[r["verdict"]] for _, r in rows.iterrows()})


def change_words(found: pd.DataFrame, method: str, measure: str) -> str:
    """Mean changes with their intervals: "+1.2 dB (0.4 to 2.0) at 2 bits"."""
    rows = rows_of(found, method, measure)
    return by_bits(
        {
            int(r["n_bits"]): f"{signed(r['change'], measure)} ("
            f"{plain(r['low'], measure)} to {plain(r['high'], measure)})"
            for _, r in rows.iterrows()
        },
        "; ",
    )


def difference_words(found: pd.DataFrame, measure: str) -> str:
    """Rows of `differences` by one measure: "+2.2 dB (1.5 to 2.9) at 2 bits"."""
    rows = found[found["measure"] == measure].rename(columns={"difference": "change"})
    return change_words(rows.assign(method="lsq"), "lsq", measure) or "not run"


def count_words(found: pd.DataFrame, method: str, measure: str) -> str:
    """How many layers come closer: "12 of 20 layers at 2 bits, 3 of 20 layers at 4 bits"."""
    rows = rows_of(found, method, measure)
    return by_bits(
        {int(r["n_bits"]): f"{r['n_closer']} of {r['n_layers']} layers" for _, r in rows.iterrows()}
    )


def last_layer_words(found: pd.DataFrame, method: str, measure: str) -> str:
    """The last layer before the classifier: "from 3.1 to 5.0 dB at 2 bits"."""
    rows = rows_of(found, method, measure)
    unit = " dB" if measure == "sqnr_db" else ""
    return by_bits(
        {
            int(r["n_bits"]): f"from {plain(r['last_before'], measure)} to "
            f"{plain(r['last_after'], measure)}{unit}"
            for _, r in rows.iterrows()
        }
    )


def last_layer_moves(found: pd.DataFrame, method: str, measure: str) -> str:
    """Where that one layer goes: "comes closer at 2 bits, goes farther at 4 bits"."""
    said = {1: "comes closer", 0: "stays", -1: "goes farther"}
    rows = rows_of(found, method, measure)
    return by_bits(
        {int(r["n_bits"]): said[int(np.sign(r["last_change"]))] for _, r in rows.iterrows()}
    )


def claim_words(found: pd.DataFrame, pruning: str = "prune") -> str:
    """What becomes of the paper's claim, at each bit-width by both measures.

    The claim: in fine-tuning pruned networks come closer to the original, quantized ones do not.
    """
    said = {}
    for n_bits in sorted(found["n_bits"].unique()):
        by = {}
        for measure, word in MEASURES.items():
            rows = found[(found["n_bits"] == n_bits) & (found["measure"] == measure)]
            verdict: Mapping[str, str] = dict(zip(rows["method"], rows["verdict"], strict=True))
            if {"lsq", pruning} <= verdict.keys():
                by[word] = _claim(verdict[pruning], verdict["lsq"])
        if not by:
            said[int(n_bits)] = "not run"
        elif len(set(by.values())) == 1:
            said[int(n_bits)] = f"{by['SNR']} by both measures"
        else:
            said[int(n_bits)] = ", ".join(f"{text} by {word}" for word, text in by.items())
    return by_bits(said, "; ")


def level(table: pd.DataFrame, method: str, measure: str, epoch: int) -> pd.Series:
    """A measure averaged over layers and seeds at an epoch, -1 for the last, by bit-width.

    Runs without compression have bit-width 16.
    """
    rows = table[table["method"] == method]
    rows = rows[rows["epoch"] == (rows["epoch"].max() if epoch < 0 else epoch)]
    return rows.groupby(rows["n_bits"].fillna(16).astype(int))[measure].mean()


def last_layer(table: pd.DataFrame) -> str:
    """Name of the last layer before the classifier, which is the last in the order of modules."""
    layers = list(dict.fromkeys(table["layer"]))
    return layers[max(len(layers) - 2, 0)]


def final_epoch(table: pd.DataFrame) -> int:
    """The first epoch after which gradual pruning has its final sparsity."""
    rows = table[(table["method"] == "prune") & (table["epoch"] > 0)]
    last = rows.groupby("n_bits")["sparsity"].transform("max")
    return int(rows.loc[rows["sparsity"] >= last - 1e-9, "epoch"].min())


def signed(value: float, measure: str) -> str:
    """A change with its sign and unit."""
    digits, unit = (1, " dB") if measure == "sqnr_db" else (3, "")
    return f"{value:+z.{digits}f}{unit}".replace("-", "−")


def plain(value: float, measure: str) -> str:
    """A value of a measure, without unit."""
    digits = 1 if measure == "sqnr_db" else 3
    return f"{value:z.{digits}f}".replace("-", "−").replace("inf", "∞")


def _interval(values, n_draws, rng):
    """Middle 95 % of the bootstrap of the mean."""
    draws = values[rng.integers(0, len(values), (n_draws, len(values)))].mean(axis=1)
    return np.quantile(draws, [0.025, 0.975])


def _claim(pruning: str, quantization: str) -> str:
    if (pruning, quantization) == (CLOSER, FARTHER):
        return "as the paper has it"
    if pruning == quantization:
        return {
            CLOSER: "both come closer",
            FARTHER: "both go farther",
            OPEN: "no verdict on either",
        }[pruning]
    said = {CLOSER: "comes closer", FARTHER: "goes farther", OPEN: "has no verdict"}
    return f"pruning {said[pruning]} and quantization {said[quantization]}"
