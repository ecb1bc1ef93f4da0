"""What an SNR says about a network's loss: tables and words.

The statistics are those of `pqlib.snr_statistics`, the figures those of `pqlib.snr_plots`.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pqlib import training_findings
from pqlib._validation import check_choice
from pqlib.snr_statistics import KINDS, Estimate, correlation, finite_rows, mean_over_layers
from pqlib.verdicts import bits_phrase, by_bits

TABLE = "layer_accuracy"
BOTH = "both"
METHODS = ("quantization", "pruning")
_METHODS = dict(zip(("quantize", "prune"), METHODS, strict=True))
PREDICTORS = {  # columns
    "snr": "SNR of the layer",
    "snr_db": "SNR of the layer in dB",
    "noise": "noise over signal of the layer",
    "logit_snr_db": "SNR of the logits in dB",
}
EXPECTED = {"snr": -1, "snr_db": -1, "noise": 1, "logit_snr_db": -1}  # sign, with a loss
OUTCOMES = {"drop": "accuracy lost (points)", "increase": "cross-entropy gained (nats)"}
UNITS = {"drop": "points", "increase": "nats"}
SMALL_NOISE = 0.1  # of the signal, "a tenth" in words: up to there the loss may be proportional
_STRONG, _MODERATE = 0.8, 0.5  # of a correlation's size, where it is put into a word


def read_tables(folder: str) -> dict[str, pd.DataFrame]:
    """The committed rows by network, looked for in the folder and above it; none without them.

    Parameters
    ----------
    folder : str
        "" for none.
    """
    table = training_findings.read_table(TABLE, folder)
    groups = () if table is None else prepared(table).groupby("model", sort=False)
    return {model: rows.reset_index(drop=True) for model, rows in groups}


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `pqlib.experiments.layer_accuracy` with ``method`` in words and ``noise`` = 1 / SNR.

    The noise is the squared error of the layer's output in units of its power, the normalized MSE.
    """
    with np.errstate(divide="ignore"):
        noise = 1 / table["snr"].to_numpy(float)
    return table.assign(method=table["method"].replace(_METHODS), noise=noise)


def halves(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows at the lower half of a table's budgets and at the rest: "2 to 4 bits", "5 to 8 bits".

    A single budget is a lower half, and there is no other.
    """
    bits = sorted(table["n_bits"].unique().tolist())
    lower = bits[: max(len(bits) // 2, 1)]
    parts = [lower, bits[len(lower) :]]
    return {bits_phrase(part): table[table["n_bits"].isin(part)] for part in parts if part}


def of_method(table: pd.DataFrame, method: str) -> pd.DataFrame:
    """Rows of "quantization" or "pruning", or all of them for "both"."""
    check_choice("method", method, (*METHODS, BOTH))
    return table if method == BOTH else table[table["method"] == method]


def shared_range(table: pd.DataFrame) -> pd.DataFrame:
    """Rows whose SNR lies where both methods have points: above the higher of the two least SNRs,
    below the lower of the two greatest.

    Quantization at many bits reaches SNRs that pruning does not. Losses are nothing but chance
    there, and weaken a correlation over all budgets for quantization alone.
    """
    snr = finite_rows(table, "snr_db", "snr_db").groupby("method")["snr_db"]
    return table[table["snr_db"].between(snr.min().max(), snr.max().min())]


def correlations(
    table: pd.DataFrame,
    predictors: Sequence[str] = tuple(PREDICTORS),
    outcomes: Sequence[str] = tuple(OUTCOMES),
    *,
    n_draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Both correlations of every predictor with every outcome, for each method and pooled.

    Returns
    -------
    DataFrame
        ``method``, ``predictor``, ``outcome``, ``kind`` and ``found``, an `Estimate`.
    """
    rows = []
    for method in (*METHODS, BOTH):
        own = of_method(table, method)
        for predictor in predictors:
            for outcome in outcomes:
                for kind in KINDS:
                    found = correlation(own, predictor, outcome, kind, n_draws=n_draws, seed=seed)
                    rows.append((method, predictor, outcome, kind, found))
    return pd.DataFrame(rows, columns=["method", "predictor", "outcome", "kind", "found"])


def found_in(found: pd.DataFrame, method: str, predictor: str, outcome: str, kind: str) -> Estimate:
    """One cell of `correlations`."""
    keys = {"method": method, "predictor": predictor, "outcome": outcome, "kind": kind}
    return found.set_index([*keys])["found"][tuple(keys.values())]


def at_equal_snr(table: pd.DataFrame, outcome: str, at: str = "pruning") -> pd.DataFrame:
    """Both methods on the same layer at the same SNR of its output.

    Parameters
    ----------
    table : DataFrame
        Of `prepared`.
    outcome : str
        Column that is compared.
    at : {"pruning", "quantization"}
        The method whose points are taken as they are; the other's are interpolated.

    Returns
    -------
    DataFrame
        One row per point of ``at`` whose SNR lies between two of the same layer by the other
        method: ``layer``, ``n_bits`` (of the point), ``snr_db``, ``pruning`` and ``quantization``
        (the outcome), and ``difference``, pruning less quantization.

    Notes
    -----
    Interpolation is linear in the noise, 1 / SNR: for small errors the loss is a quadratic form of
    the error, and so proportional to the noise along one direction. Where it bends upwards, the
    chord lies above, and makes the interpolated method look dearer. So take the points of either
    method in turn: a verdict that holds both times is not the chord's. Nothing is extrapolated.
    """
    check_choice("at", at, METHODS)
    other = METHODS[at == METHODS[0]]
    rows = []
    for layer, group in finite_rows(table, "noise", outcome).groupby("layer", sort=False):
        curve = of_method(group, other).sort_values("noise")
        x, y = curve["noise"].to_numpy(), curve[outcome].to_numpy()
        for _, row in of_method(group, at).iterrows():
            if len(x) > 1 and x[0] <= row["noise"] <= x[-1]:
                values = {at: row[outcome], other: float(np.interp(row["noise"], x, y))}
                difference = values["pruning"] - values["quantization"]
                named = {"layer": layer, "n_bits": int(row["n_bits"]), "snr_db": row["snr_db"]}
                rows.append(named | values | {"difference": difference})
    columns = ["layer", "n_bits", "snr_db", "pruning", "quantization", "difference"]
    return pd.DataFrame(rows, columns=columns)


def mean_gap(pairs: pd.DataFrame, *, n_draws: int = 1000, seed: int = 0) -> Estimate:
    """Mean over layers of the mean difference of `at_equal_snr` in each."""
    return mean_over_layers(pairs, "difference", n_draws=n_draws, seed=seed)


def sensitivities(table: pd.DataFrame, outcome: str = "increase") -> pd.DataFrame:
    """What a unit of noise costs in each layer while there is little of it, the cheapest first.

    Returns
    -------
    DataFrame
        ``layer`` and ``slope``: the line through the origin of least squares, sum(noise y) /
        sum(noise^2), over the rows of both methods in which the outcome y is finite and the noise
        at most `SMALL_NOISE`.

    Notes
    -----
    Squares weight the largest noise most. Were rows beyond taken, where the loss is no longer
    proportional, they would decide the slope.
    """
    rows = finite_rows(table, "noise", outcome)
    rows = rows[rows["noise"] <= SMALL_NOISE]
    slopes = {
        layer: float((g["noise"] * g[outcome]).sum() / (g["noise"] ** 2).sum())
        for layer, g in rows.groupby("layer", sort=False)
        if (g["noise"] ** 2).sum() > 0
    }
    found = pd.DataFrame({"layer": [*slopes], "slope": [*slopes.values()]})
    return found.sort_values("slope", ignore_index=True)


def unresolved(table: pd.DataFrame) -> pd.Series:
    """Whether the images cannot tell the accuracy of a row from the original's.

    Only images whose answer has changed can have changed the accuracy, each by one image more or
    less. Were both equally likely, the drop of m changed ones among n would have a standard error
    of at most sqrt(m) / n; a row counts as unresolved within 1.96 of these.
    """
    share = 1 - table["agreement"] / 100
    return table["drop"].abs() <= 196 * np.sqrt(share / table["n_images"]) + 1e-9


def falls_words(table: pd.DataFrame, method: str, outcome: str = "increase") -> str:
    """In which share of the layers the network is better for the damage, by bit-width."""
    shares = (of_method(table, method)[outcome] < 0).groupby(table["n_bits"]).mean()
    return by_bits({int(b): f"{share:.0%}" for b, share in shares.items()})


def strength(found: Estimate) -> str:
    """A correlation's size in a word: "strongly" from 0.8, "moderately" from 0.5, "weakly"."""
    size = abs(found.value)
    return "strongly" if size >= _STRONG else "moderately" if size >= _MODERATE else "weakly"


def order_words(found: Estimate) -> str:
    """Whether SNR orders the losses, as a clause with its rank correlation.

    The word for its size is that of `strength`; an interval that holds zero is no order, whatever
    the value.
    """
    if not math.isfinite(found.value):
        return "there is nothing to put into an order"
    word = strength(found)
    rank = f"rank correlation {found}"
    if found.sign == 0:
        return f"SNR does not order the losses beyond chance ({rank})"
    way = "" if found.sign < 0 else ", but the wrong way round"
    return f"SNR orders the losses {word}{way} ({rank})"


def ends_of(slopes: pd.DataFrame) -> list[str]:
    """The cheapest and the dearest of the layers of `sensitivities` that cost anything."""
    layers = slopes.loc[slopes["slope"] > 0, "layer"].tolist()
    return [*dict.fromkeys([layers[0], layers[-1]])] if layers else []


def spread_words(slopes: pd.DataFrame) -> str:
    """From which to which layer a unit of noise costs how much; of `sensitivities`.

    Layers whose slope is not positive are counted, and have no part in the range.
    """
    if slopes.empty:
        return "no layer has an error of at most a tenth of its signal to compare"
    where = "where the noise is at most a tenth of the signal, a unit of it costs"
    found = slopes[slopes["slope"] > 0]
    n_free = len(slopes) - len(found)
    if found.empty:
        return f"{where} nothing that can be seen, in any of {len(slopes)} layers"
    first, last = found.iloc[0], found.iloc[-1]
    text = f"{where} {_number(first['slope'])} nats ({first['layer']})"
    if len(found) > 1:
        text = (
            f"{where} from {_number(first['slope'])} nats ({first['layer']}) to "
            f"{_number(last['slope'])} ({last['layer']}), "
            f"{_number(last['slope'] / first['slope'])} times as much"
        )
    if n_free:
        text += f"; in {n_free} of {len(slopes)} layers it costs nothing that can be seen"
    return text


def dearer(gap: Estimate, unit: str) -> str:
    """Which method costs more at equal SNR: a clause."""
    if not gap.n_points:
        return "there is no pair of points with one SNR"
    sign = -1 if gap.sign < 0 else 1
    low, high = sorted((sign * gap.low, sign * gap.high))
    size = f"{sign * gap.value:z.3g} {unit} ({low:z.3g} to {high:z.3g})".replace("-", "−")
    if gap.sign == 0:
        return f"the two tie: pruning's excess is {size}"
    return f"{'pruning' if gap.sign > 0 else 'quantization'} costs more, by {size}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:z.3g}".replace("-", "−")
