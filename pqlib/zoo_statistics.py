"""What a scan of many tensors says: who wins, from which kurtosis on, and where in a network.

All functions take the table of `pqlib.scan`, or `authors_rows`, and leave it as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize import brentq, minimize
from scipy.special import entr, expit
from scipy.stats import gaussian_kde

from pqlib._validation import check_choice, check_integer
from pqlib.budget import matched_sparsity
from pqlib.verdicts import by_bits

METHODS = ("quantization", "pruning")
ESTIMATORS = ("joint", "class_conditional", "logistic")
FEWEST = 5  # tensors on each side: fewer carry no density
_LN2 = np.log(2)


def distinct(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that were measured, each shared tensor once."""
    return table[(table["skipped"] == "") & (table["shared_with"] == "")]


def wins(table: pd.DataFrame) -> str:
    """Who wins how many tensors, as a clause: "quantization wins 43 of 50 tensors at 2 bits"."""
    texts = {}
    for n_bits, rows in distinct(table).groupby("n_bits"):
        won, n = int((rows["winner"] == "quantization").sum()), len(rows)
        exact = int((rows["winner"] == "neither").sum())
        share = f"all {n}" if won == n else f"{won:,} of {n:,}"
        tied = f" (both methods are exact on {exact})" if exact else ""
        texts[int(n_bits)] = f"{share} tensors{tied}"
    return "quantization wins " + by_bits(texts)


@dataclass(frozen=True)
class KurtosisSplit:
    """Tensors at one bit-width, split by winner, and where the winner changes (Fig 3, right).

    Attributes
    ----------
    n_bits : int
    kurtosis : ndarray of shape (n_points,)
        Non-excess, ascending, from the least to the largest of the tensors.
    density : dict of str to ndarray of shape (n_points,)
        Winner to the class-conditional density of log10(kurtosis); no entry for a winner of too
        few tensors.
    tensors : dict of str to ndarray
        Winner to the kurtosis of each of its tensors.
    crossings : dict of str to float
        For "joint", "class_conditional" and "logistic" the kurtosis from which pruning is the
        likelier winner, NaN where the tensors do not say.
    notes : dict of str to str
        Why a crossing is NaN, or what else must be said about it.
    """

    n_bits: int
    kurtosis: Float[np.ndarray, " n_points"]
    density: dict[str, Float[np.ndarray, " n_points"]]
    tensors: dict[str, np.ndarray]
    crossings: dict[str, float]
    notes: dict[str, str]


def split_by_kurtosis(table: pd.DataFrame, n_bits: int, n_points: int = 400) -> KurtosisSplit:
    """Densities of kurtosis where each method wins, and the crossings of three estimators.

    Parameters
    ----------
    table : DataFrame
        Of a scan.
    n_bits : int
        One of the table's bit-widths.
    n_points : int, default 400
        Points of the densities, 10..100,000.

    Notes
    -----
    With x the logarithm of kurtosis, densities are estimated with Gaussian kernels of Scott's
    bandwidth, p(x | winner). "joint" weighs them by the number of tensors: it is where
    P(pruning wins | x) passes one half. "class_conditional" does not weigh them: it is where the
    likelihood ratio passes one, which answers the same question for a zoo in which both methods
    win equally often. "logistic" fits P(pruning wins | x) = 1 / (1 + exp(-a - b x)) by maximum
    likelihood. Where kurtosis separates the winners there is no maximum, and the middle of the gap
    is given, to which the fits with growing b tend. Of several crossings of two densities the first
    with growing kurtosis is given.
    """
    rows = _contested(table, n_bits)
    n_points = check_integer("n_points", n_points, low=10, high=100_000)
    x, prune = np.log10(rows["kurtosis"].to_numpy(float)), (rows["winner"] == "pruning").to_numpy()
    classes = {"quantization": x[~prune], "pruning": x[prune]}
    grid = np.linspace(x.min(), x.max(), n_points) if x.size else np.full(n_points, np.nan)
    kernels, lacking = {}, ""
    for method, of_class in classes.items():
        if np.unique(of_class).size >= FEWEST:
            kernels[method] = gaussian_kde(of_class)
        else:
            wins = f"only {of_class.size}" if of_class.size else "none"
            lacking = lacking or f"{method} wins {wins} of {x.size} tensors"
    density = {method: kernel(grid) for method, kernel in kernels.items()}
    crossings, notes = {}, {}
    for name in ESTIMATORS:
        if lacking:
            root, note = np.nan, lacking
        elif name == "logistic":
            root, note = _logistic_crossing(x, prune)
        else:
            weights = {m: c.size if name == "joint" else 1 for m, c in classes.items()}
            root, note = _density_crossing(kernels, weights, grid)
        crossings[name] = float(10**root)
        notes |= {name: note} if note else {}
    tensors = {method: 10**of_class for method, of_class in classes.items()}
    return KurtosisSplit(n_bits, 10**grid, density, tensors, crossings, notes)


def crossing_table(splits: Sequence[KurtosisSplit]) -> pd.DataFrame:
    """One row per bit-width: tensors won by each method, three crossings, notes on them."""
    return pd.DataFrame(
        {
            "n_bits": s.n_bits,
            **{f"n_{method}": values.size for method, values in s.tensors.items()},
            **s.crossings,
            "note": "; ".join(dict.fromkeys(s.notes.values())),
        }
        for s in splits
    )


def natural_sparsity(table: pd.DataFrame) -> pd.DataFrame:
    """Zeros that rounding makes by itself, per bit-width, and what they are worth (Table 2).

    Returns
    -------
    DataFrame
        n_bits; mean, median, q1, q3 of the share p of zeros over the tensors; bits_saved, p * b,
        if zeros need not be stored; mask_bits, the entropy H(p) of saying where they are; net,
        the difference, all in bits per weight averaged over tensors; worth_it, the share of
        tensors with a positive net; prune_mask_bits, the entropy of pruning's own mask. Rows that
        were skipped do not count; take `distinct` first to count shared tensors once.
    """
    records = []
    table = table[table["natural_sparsity"].notna()]
    for n_bits, rows in table.groupby("n_bits"):
        p = rows["natural_sparsity"].to_numpy(float)
        saved, mask = p * n_bits, binary_entropy(p)
        q1, median, q3 = np.quantile(p, [0.25, 0.5, 0.75])
        records.append(
            {
                "n_bits": int(n_bits),
                "mean": p.mean(),
                "median": median,
                "q1": q1,
                "q3": q3,
                "bits_saved": saved.mean(),
                "mask_bits": mask.mean(),
                "net": np.mean(saved - mask),
                "worth_it": np.mean(saved > mask),
                "prune_mask_bits": float(binary_entropy(matched_sparsity(int(n_bits)))),
            }
        )
    return pd.DataFrame(records)


def binary_entropy(p: ArrayLike) -> float | Float[np.ndarray, "..."]:
    """H(p) in bits: what each of many independent choices costs, one side of which has share p."""
    p = np.asarray(p, dtype=float)
    return (entr(p) + entr(1 - p)) / _LN2


def breakdown(table: pd.DataFrame, n_bits: int, by: str) -> pd.DataFrame:
    """Who wins where in the networks, at one bit-width.

    Parameters
    ----------
    table : DataFrame
        Of a scan, each network whole, so that its first and last tensor are known.
    n_bits : int
    by : {"kind", "depth", "place"}
        Kind of layer; third of the network; first, inner or last tensor.

    Returns
    -------
    DataFrame
        One row per group: group, n_tensors, quantization_wins (share), median_margin_db,
        median_kurtosis.
    """
    check_choice("by", by, ("kind", "depth", "place"))
    rows = table[(table["n_bits"] == n_bits) & (table["skipped"] == "")]
    rank = rows.groupby("model")["position"].rank(method="first").astype(float) - 1
    depth = rank / rank.groupby(rows["model"]).transform("max").clip(lower=1)
    if by == "depth":
        group = pd.cut(depth, [-1, 1 / 3, 2 / 3, 2], labels=["first third", "middle", "last third"])
    elif by == "place":
        place = np.select([depth == 0, depth == 1], ["first", "last"], "inner")
        group = pd.Categorical(place, ["first", "inner", "last"], ordered=True)
    else:
        group = rows["kind"]
    rows = distinct(rows.assign(group=group, won=rows["winner"] == "quantization"))
    found = rows.groupby("group", observed=True).agg(
        n_tensors=("won", "size"),
        quantization_wins=("won", "mean"),
        median_margin_db=("margin_db", "median"),
        median_kurtosis=("kurtosis", "median"),
    )
    return found.reset_index()


def _contested(table: pd.DataFrame, n_bits: int) -> pd.DataFrame:
    """Rows of one bit-width with a winner and a kurtosis whose logarithm exists."""
    known = sorted(map(int, table["n_bits"].dropna().unique()))
    if n_bits not in known:
        raise ValueError(f"n_bits {n_bits} is not in the table; it has {known}")
    rows = table[(table["n_bits"] == n_bits) & table["winner"].isin(METHODS)]
    return rows[np.isfinite(rows["kurtosis"]) & (rows["kurtosis"] > 0)]


def _density_crossing(kernels, weights, grid) -> tuple[float, str]:
    def lead(x):
        return sum(
            sign * weights[m] * kernels[m](x) for m, sign in zip(METHODS, (-1, 1), strict=True)
        )

    ahead = lead(grid) > 0
    rises = np.flatnonzero(~ahead[:-1] & ahead[1:])
    if rises.size:
        i = rises[0]
        return float(brentq(lambda x: lead(x)[0], grid[i], grid[i + 1])), ""
    stays = "above" if ahead.all() else "below"
    return np.nan, f"pruning's density never rises past quantization's, it stays {stays}"


def _logistic_crossing(x, prune) -> tuple[float, str]:
    if x[prune].min() > x[~prune].max():
        low, high = x[~prune].max(), x[prune].min()
        note = (
            f"kurtosis separates the winners, and the logistic curve may pass one half anywhere "
            f"from {10**low:.1f} to {10**high:.1f}"
        )
        return (low + high) / 2, note
    center, spread = x.mean(), x.std()
    z, sign = (x - center) / spread, np.where(prune, 1.0, -1.0)

    def loss(ab):
        margin = sign * (ab[0] + ab[1] * z)
        weight = -sign * expit(-margin)
        return np.sum(np.logaddexp(0, -margin)), np.array([weight.sum(), (weight * z).sum()])

    a, b = minimize(loss, np.zeros(2), jac=True, method="BFGS").x
    if b <= 0:
        return np.nan, "pruning gets no likelier with kurtosis"
    root = center - a / b * spread
    if not x.min() <= root <= x.max():
        return np.nan, "the logistic curve reaches one half beyond all tensors"
    return float(root), ""
