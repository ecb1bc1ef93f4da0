"""What predicts the winner of a tensor: its kurtosis, or a few of its weights."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from pqlib._validation import as_finite_array, check_integer
from pqlib.comparison import compare_bits, crossing
from pqlib.distributions import StudentT, Truncated
from pqlib.metrics import kurtosis as kurtosis_of


@dataclass(frozen=True)
class TheoryCurve:
    """The lead that chapter 2 predicts from kurtosis alone, for a truncated Student-t.

    Attributes
    ----------
    kurtosis : ndarray of shape (n_points,)
        Non-excess, ascending.
    margin_db : dict of int to ndarray of shape (n_points,)
        Bits to quantization's lead in dB.
    reach : ndarray of shape (n_points,)
        Where the distribution is truncated, r for [-r, r].
    """

    kurtosis: Float[np.ndarray, " n_points"]
    margin_db: dict[int, Float[np.ndarray, " n_points"]]
    reach: Float[np.ndarray, " n_points"]

    def predict(self, kurtosis: ArrayLike, n_bits: int) -> np.ndarray:
        """Quantization's lead at each kurtosis; beyond the curve's ends, that at the end."""
        at = np.log(np.asarray(kurtosis, dtype=float))
        return np.interp(at, np.log(self.kurtosis), self.margin_db[n_bits])

    def crossing(self, n_bits: int) -> float:
        """The first kurtosis from which pruning is ahead; NaN if there is none on the curve.

        The points tell between which two it lies, `pqlib.crossing` where.
        """
        margin = self.margin_db[n_bits]
        falls = np.flatnonzero((margin[:-1] > 0) & (margin[1:] <= 0))
        if not falls.size:
            return float("nan")
        r = crossing(_cut_off, n_bits, *self.reach[falls[0] : falls[0] + 2])
        return _cut_off(r).kurtosis()


def theory_curve(bits: Sequence[int], n_points: int = 40) -> TheoryCurve:
    """Leads of quantization for Student-t with 2 degrees of freedom on [-r, r], r = 0.3..3000."""
    n_points = check_integer("n_points", n_points, low=2, high=10_000)
    reach = np.geomspace(0.3, 3000, n_points)
    family = [_cut_off(r) for r in reach]
    rows = [compare_bits(dist, bits) for dist in family]
    margins = np.array([[r.margin_db for r in row] for row in rows])
    return TheoryCurve(
        kurtosis=np.array([dist.kurtosis() for dist in family]),
        margin_db=dict(zip(bits, margins.T, strict=True)),
        reach=reach,
    )


def _cut_off(r: float) -> Truncated:
    return Truncated(StudentT(2), -r, r)


@dataclass(frozen=True)
class Association:
    """How well a prediction of quantization's lead orders the tensors, with 95 % intervals.

    Attributes
    ----------
    n_tensors, n_pruning : int
        All tensors, and those that pruning wins.
    auc, spearman : tuple of three floats
        Value, lower and upper end. ``auc`` is the probability that of two tensors, one won by each
        method, the one won by pruning has the smaller prediction; NaN where a method wins none.
        ``spearman`` is the rank correlation of predicted and true lead.
    right : float
        Share of tensors whose winner the sign of the prediction names; NaN for a prediction that
        is not in dB.
    error_db : float
        Median absolute error of the predicted lead; NaN likewise.
    """

    n_tensors: int
    n_pruning: int
    auc: tuple[float, float, float]
    spearman: tuple[float, float, float]
    right: float
    error_db: float


def association(
    predicted: ArrayLike,
    margin_db: ArrayLike,
    rng: np.random.Generator,
    *,
    in_db: bool = True,
    n_resamples: int = 1000,
) -> Association:
    """Compare a prediction, one for each tensor, with quantization's true lead.

    Parameters
    ----------
    predicted : array_like of shape (n,)
        Larger where quantization is expected to lead by more; ranks matter, the unit only for
        ``right`` and ``error_db``.
    margin_db : array_like of shape (n,)
        The true lead. Infinite leads, of a method that is exact, are allowed here and in
        ``predicted``; NaN is not.
    rng : numpy.random.Generator
        Of the bootstrap: tensors are drawn with replacement, for the AUC from each winner's own.
        Where a prediction separates the winners of all tensors, it does so in every draw, and the
        interval of the AUC has no width; it then says nothing about other tensors.
    in_db : bool, default True
        Whether the prediction is a lead in dB.
    n_resamples : int, default 1000
        10..100,000.
    """
    (predicted,), margin = _checked([predicted], margin_db)
    (auc,), (spearman,) = _resampled([predicted], margin, rng, n_resamples)
    prune = margin < 0
    with np.errstate(invalid="ignore"):  # of two infinite leads
        off = np.where(predicted == margin, 0.0, abs(predicted - margin))
    return Association(
        n_tensors=margin.size,
        n_pruning=int(np.sum(prune)),
        auc=_interval(*auc),
        spearman=_interval(*spearman),
        right=float(np.mean((predicted < 0) == prune)) if in_db else float("nan"),
        error_db=float(np.median(off)) if in_db else float("nan"),
    )


def advantage(
    predicted: ArrayLike,
    baseline: ArrayLike,
    margin_db: ArrayLike,
    rng: np.random.Generator,
    n_resamples: int = 1000,
) -> dict[str, tuple[float, float, float]]:
    """By how much a prediction is ahead of another: differences of AUC and of rank correlation.

    Parameters as in `association`; both predictions are judged on the same draws of tensors, so
    the intervals are those of paired differences.

    Returns
    -------
    dict
        "auc" and "spearman": value, lower and upper end.
    """
    pair, margin = _checked([predicted, baseline], margin_db)
    differences = {}
    for name, (ours, theirs) in zip(
        ("auc", "spearman"), _resampled(pair, margin, rng, n_resamples), strict=True
    ):
        differences[name] = _interval(*(a - b for a, b in zip(ours, theirs, strict=True)))
    return differences


def area_under_curve(
    score: Float[np.ndarray, "*batch n"], positive: Bool[np.ndarray, " n"]
) -> float | Float[np.ndarray, " batch"]:
    """Share of pairs of a positive and a negative in which the positive scores more, ties half."""
    n, n_positive = positive.size, int(np.sum(positive))
    ranks = rankdata(score, axis=-1)[..., positive].sum(axis=-1)
    return (ranks - n_positive * (n_positive + 1) / 2) / (n_positive * (n - n_positive))


def spearman_correlation(
    x: Float[np.ndarray, "*batch n"], y: Float[np.ndarray, "*batch n"]
) -> float | Float[np.ndarray, " batch"]:
    """Correlation of ranks along the last axis; NaN where all ranks are tied."""
    x, y = (rankdata(v, axis=-1) - (v.shape[-1] + 1) / 2 for v in (x, y))
    norm = np.sqrt(np.sum(x * x, axis=-1) * np.sum(y * y, axis=-1))
    with np.errstate(invalid="ignore"):
        return np.sum(x * y, axis=-1) / norm


def held_out_leads(
    weights: Mapping[str, np.ndarray], bits: Sequence[int], n_seen: int, rng: np.random.Generator
) -> Iterator[dict[str, object]]:
    """Show a few weights of each tensor, hide the rest: what is known, and what is to be predicted.

    The exact errors of a whole tensor are those of its `Empirical` distribution: predicting one by
    the other would be circular. So each tensor is split at random. The seen part has ``n_seen``
    weights, or half of a smaller tensor; the lead is then measured on the hidden part alone.

    Parameters
    ----------
    weights : mapping of str to ndarray
        Layer to weights. Tensors of fewer than 16 weights, and those of a single value, are left
        out.
    bits : sequence of int
    n_seen : int
        Weights shown, 8 or more.
    rng : numpy.random.Generator

    Yields
    ------
    dict
        layer, n_bits, n_seen, seen_kurtosis, seen_margin_db (of the `Empirical` distribution of
        the seen weights), hidden_margin_db.
    """
    n_seen = check_integer("n_seen", n_seen, low=8, high=2**40)
    for layer, values in weights.items():
        flat = rng.permutation(as_finite_array(layer, values).ravel())
        cut = min(n_seen, flat.size // 2)
        seen, hidden = flat[:cut], flat[cut:]
        if flat.size < 16 or np.ptp(seen) == 0 or np.ptp(hidden) == 0:
            continue
        pairs = zip(compare_bits(seen, bits), compare_bits(hidden, bits), strict=True)
        for known, truth in pairs:
            yield {
                "layer": layer,
                "n_bits": known.n_bits,
                "n_seen": cut,
                "seen_kurtosis": kurtosis_of(seen),
                "seen_margin_db": known.margin_db,
                "hidden_margin_db": truth.margin_db,
            }


def _checked(predictions, margin_db) -> tuple[list[np.ndarray], np.ndarray]:
    *predictions, margin = (np.asarray(v, dtype=float) for v in (*predictions, margin_db))
    if any(p.shape != margin.shape for p in predictions) or margin.ndim != 1 or not margin.size:
        raise ValueError(
            "predictions and margin_db must be 1-d, equally long and not empty, got shapes "
            + ", ".join(str(v.shape) for v in (*predictions, margin))
        )
    for name, values in (*(("predicted", p) for p in predictions), ("margin_db", margin)):
        if np.isnan(values).any():
            raise ValueError(f"{name} must not hold NaN; drop those tensors first")
    return predictions, margin


def _resampled(predictions, margin, rng, n_resamples) -> tuple[list, list]:
    """AUC and Spearman of each prediction: the value, and its resampled values."""
    check_integer("n_resamples", n_resamples, low=10, high=100_000)
    prune = margin < 0
    drawn = rng.integers(margin.size, size=(n_resamples, margin.size))
    spearman = [
        (spearman_correlation(p, margin), spearman_correlation(p[drawn], margin[drawn]))
        for p in predictions
    ]
    won, lost = np.flatnonzero(prune), np.flatnonzero(~prune)
    if not won.size or not lost.size:
        return [(np.nan, np.nan)] * len(predictions), spearman
    parts = [c[rng.integers(c.size, size=(n_resamples, c.size))] for c in (won, lost)]
    drawn, labels = np.hstack(parts), np.repeat([True, False], [won.size, lost.size])
    auc = [(area_under_curve(-p, prune), area_under_curve(-p[drawn], labels)) for p in predictions]
    return auc, spearman


def _interval(value, resampled) -> tuple[float, float, float]:
    known = np.asarray(resampled)[
        ~np.isnan(resampled)
    ]  # a draw of one tensor over and over has none
    if np.isnan(value) or not known.size:
        return (float("nan"),) * 3
    return float(value), *map(float, np.quantile(known, [0.025, 0.975]))
