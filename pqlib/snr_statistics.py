"""Correlations over the layers of a network, with intervals that take layers as they come: whole.

Tables are those of `pqlib.experiments.layer_accuracy`, one row per layer, budget and method.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats

from pqlib._validation import as_finite_array, check_choice, check_integer

KINDS = ("pearson", "spearman")


@dataclass(frozen=True)
class Estimate:
    """A number with the middle 95 % of its bootstrap over layers.

    Attributes
    ----------
    value, low, high : float
        NaN where the number is not defined, as the correlation with something constant.
    n_points, n_layers : int
        What it is made of.
    """

    value: float
    low: float
    high: float
    n_points: int
    n_layers: int

    def __str__(self) -> str:
        if not math.isfinite(self.value):
            return "not defined"
        text = f"{self.value:z.2f} ({self.low:z.2f} to {self.high:z.2f})"
        return text.replace("-", "−")

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval is above or below zero; else 0, a tie."""
        return int(self.low > 0) - int(self.high < 0)


_UNDEFINED = Estimate(math.nan, math.nan, math.nan, 0, 0)


def correlation(
    table: pd.DataFrame, x: str, y: str, kind: str, *, n_draws: int = 1000, seed: int = 0
) -> Estimate:
    """Correlation of two columns, with an interval over layers.

    Parameters
    ----------
    table : DataFrame
        Of `prepared`, one row per layer, budget and method.
    x, y : str
        Columns. Rows in which one is infinite are left out.
    kind : {"pearson", "spearman"}
        r = cov(x, y) / (sd(x) sd(y)), of the numbers, or of their ranks, where equal ones share
        the mean of theirs.
    n_draws : int, 10..100000
    seed : int

    Notes
    -----
    The rows of one layer belong together: they share its inputs, its size and its place in the
    network. So a draw takes *layers* with replacement, as many as there are, each with all its
    rows. An interval over single rows would be too narrow. Draws in which x or y is constant say
    nothing and are left out.

    References
    ----------
    Efron, Bootstrap methods: another look at the jackknife, 1979. Cameron, Gelbach, Miller,
    Bootstrap-based improvements for inference with clustered errors, 2008.
    """
    check_choice("kind", kind, KINDS)
    rows = finite_rows(table, x, y)
    a, b = rows[x].to_numpy(float), rows[y].to_numpy(float)
    if len(rows) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return _UNDEFINED
    of = stats.pearsonr if kind == "pearson" else stats.spearmanr
    value = of(a, b).statistic
    weights = _draws(rows["layer"], n_draws, seed)
    return _estimate(value, weighted_correlation(a, b, weights, kind), rows)


def weighted_correlation(
    x: ArrayLike, y: ArrayLike, weights: ArrayLike, kind: str
) -> Float[np.ndarray, " n_draws"]:
    """Correlation in each draw, in which point i stands ``weights[draw, i]`` times.

    NaN where x or y is constant in the draw.
    """
    x, y = as_finite_array("x", x), as_finite_array("y", y)
    weights = np.asarray(weights, dtype=float)
    if kind == "spearman":
        x, y = _ranks(x, weights), _ranks(y, weights)
    total = np.maximum(weights.sum(1, keepdims=True), 1)  # a draw may hold none of these points
    x = x - (weights * x).sum(1, keepdims=True) / total
    y = y - (weights * y).sum(1, keepdims=True) / total
    powers = (weights * x**2).sum(1) * (weights * y**2).sum(1)
    scale = (np.abs(x).max(1) * np.abs(y).max(1)) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (weights * x * y).sum(1) / np.sqrt(powers)
    return np.where(powers > 1e-24 * scale, found, np.nan)


def within_layers(
    table: pd.DataFrame, x: str, y: str, *, n_draws: int = 1000, seed: int = 0
) -> Estimate:
    """Mean over layers of the rank correlation among the rows of one layer and one method.

    Where x rises with every bit, as an SNR mostly does, it is that of the bits with y.
    """
    return _mean_rank(table, x, y, "method", n_draws, seed)


def between_methods(
    table: pd.DataFrame, x: str, y: str, *, n_draws: int = 1000, seed: int = 0
) -> Estimate:
    """Mean over layers of the rank correlation of the two methods at one layer and one budget.

    Of two rows it is -1 where the method of the larger x has the smaller y, and else +1. So it is
    one less twice the share of such pairs; pairs with an equal x or y have no order and no part.
    """
    return _mean_rank(table, x, y, "n_bits", n_draws, seed)


def _mean_rank(table, x, y, alike, n_draws, seed) -> Estimate:
    """Mean over layers of the rank correlation among a layer's rows that are alike in a column."""
    rows = finite_rows(table, x, y)
    own = [
        (layer, _spearman(group, x, y))
        for (layer, _), group in rows.groupby(["layer", alike], sort=False)
    ]
    found = pd.DataFrame(own, columns=["layer", "found"]).dropna()
    return mean_over_layers(found, "found", n_draws=n_draws, seed=seed)


def mean_over_layers(
    table: pd.DataFrame, column: str, *, n_draws: int = 1000, seed: int = 0
) -> Estimate:
    """Mean over layers of the mean of a column in each layer."""
    if table.empty:
        return _UNDEFINED
    own = table.groupby("layer", sort=False)[column].mean()
    weights = _draws(own.index, n_draws, seed)
    return _estimate(own.mean(), weights @ own.to_numpy() / weights.sum(1), table)


def across_layers(
    table: pd.DataFrame, x: str, y: str, *, n_draws: int = 1000, seed: int = 0
) -> Estimate:
    """Mean over (method, budget) of the rank correlation among the layers at that budget."""
    rows = finite_rows(table, x, y)
    if rows.empty:
        return _UNDEFINED
    weights = pd.DataFrame(_draws(rows["layer"], n_draws, seed).T, index=rows.index)
    values, draws = [], []
    for _, group in rows.groupby(["method", "n_bits"]):
        value = _spearman(group, x, y)
        if math.isfinite(value):
            values.append(value)
            own = weights.loc[group.index].to_numpy().T
            draws.append(weighted_correlation(group[x], group[y], own, "spearman"))
    if not values:
        return _UNDEFINED
    return _estimate(np.mean(values), _mean_of_defined(np.array(draws)), rows)


def advantage(
    table: pd.DataFrame, first: str, second: str, y: str, *, n_draws: int = 1000, seed: int = 0
) -> Estimate:
    """By how much the size of the rank correlation with y is larger for ``first`` than ``second``.

    Both are computed on the same draws of layers.
    """
    rows = finite_rows(finite_rows(table, first, y), second, y)
    value = abs(_spearman(rows, first, y)) - abs(_spearman(rows, second, y))
    if len(rows) < 3 or not math.isfinite(value):
        return _UNDEFINED
    weights = _draws(rows["layer"], n_draws, seed)
    sizes = [np.abs(weighted_correlation(rows[x], rows[y], weights, "spearman"))
             for x in (first, second)]  # fmt: skip
    return _estimate(value, sizes[0] - sizes[1], rows)


def finite_rows(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Rows in which both columns are finite."""
    return table[np.isfinite(table[x].astype(float)) & np.isfinite(table[y].astype(float))]


def _spearman(rows, x, y) -> float:
    """Rank correlation of two columns; NaN if one is constant."""
    if len(rows) < 2 or rows[x].nunique() < 2 or rows[y].nunique() < 2:
        return math.nan
    return float(stats.spearmanr(rows[x], rows[y]).statistic)


def _ranks(values, weights):
    """Mid-ranks in each draw, (n_draws, n): equal values share the mean of theirs."""
    _, group = np.unique(values, return_inverse=True)
    counts = np.zeros((len(weights), group.max() + 1))
    np.add.at(counts.T, group, weights.T)
    return (counts.cumsum(1) - (counts - 1) / 2)[:, group]


def _draws(layers, n_draws, seed) -> np.ndarray:
    """How often each row stands in each draw of layers, (n_draws, n_rows)."""
    n_draws = check_integer("n_draws", n_draws, low=10, high=100_000)
    seed = check_integer("seed", seed, low=0, high=2**63 - 1)
    names, own = np.unique(np.asarray(layers, dtype=str), return_inverse=True)
    shares = np.full(names.size, 1 / names.size)
    return np.random.default_rng(seed).multinomial(names.size, shares, n_draws)[:, own]


def _mean_of_defined(draws):
    defined = np.isfinite(draws)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(defined, draws, 0).sum(0) / defined.sum(0)


def _estimate(value, draws, rows) -> Estimate:
    low, high = (float(v) for v in np.nanquantile(draws, [0.025, 0.975]))
    return Estimate(float(value), low, high, len(rows), rows["layer"].nunique())
