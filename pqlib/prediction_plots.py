"""Figures of what predicts the winner of a tensor: a table in, a Finding out."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pqlib.findings import Finding
from pqlib.plot_style import MANY, METHODS, NEUTRAL, log_axes, marks, subplots
from pqlib.zoo_predictors import Association, TheoryCurve


def margin_by_kurtosis(
    table: pd.DataFrame, curve: TheoryCurve, bits: Sequence[int], name: str
) -> Finding:
    """Quantization's lead against kurtosis for real tensors, with the theory's curve.

    Parameters
    ----------
    table : DataFrame
        Of a scan.
    curve : TheoryCurve
    bits : sequence of int
        The panels, three at most.
    name : str
        Label of the figure.
    """
    figure, panels = subplots(1, len(bits), height=3.0, squeeze=False)
    rows = table[np.isfinite(table["margin_db"]) & np.isfinite(table["kurtosis"])]
    inside = (curve.kurtosis >= 0.9 * rows["kurtosis"].min()) & (
        curve.kurtosis <= 1.1 * rows["kurtosis"].max()
    )
    clauses = []
    for axes, n_bits in zip(panels[0], bits, strict=True):
        at = rows[rows["n_bits"] == n_bits]
        for method in METHODS:
            of_method = at[at["winner"] == method]
            x, y = of_method["kurtosis"], of_method["margin_db"]
            marks(axes, x, y, method, many=len(at) > MANY)
        axes.plot(curve.kurtosis[inside], curve.margin_db[n_bits][inside], color="black",
                  linestyle=":", label="truncated Student-t")  # fmt: skip
        axes.axhline(0, color=NEUTRAL["color"], linewidth=0.8)
        axes.set(title=f"{n_bits} bits")
        log_axes(axes, "x")
        off = at["margin_db"] - curve.predict(at["kurtosis"], n_bits)
        side = "above" if off.median() > 0 else "below"
        clauses.append(
            f"at {n_bits} bits {np.mean(off > 0):.0%} of the tensors lie above the curve, the "
            f"median {abs(off.median()):.1f} dB {side} it"
        )
    figure.supxlabel("kurtosis", fontsize=10)
    panels[0][0].set_ylabel("quantization's lead (dB)")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    finding = "; ".join(clauses)
    return Finding(
        figure,
        alt=f"Quantization's lead against kurtosis, real tensors and theory: {finding}.",
        caption=f"Real tensors and the truncated Student-t of the same kurtosis: {finding}.",
        name=name,
    )


def prediction(found: Mapping[str, Mapping[int, Association]], name: str) -> Finding:
    """How well predictions order the tensors, and how far off they are, against bits.

    Parameters
    ----------
    found : mapping of str to mapping of int to Association
        Predictor in words to bits to its `association`; three at most.
    name : str
        Label of the figure.
    """
    figure, (left, right) = subplots(1, 2, height=3.2)
    looks = (("#444444", "x", ":"), ("#8a5a00", "v", "--"), ("#00629b", "o", "-"))
    clauses = []
    for shift, (what, by_bits) in enumerate(found.items()):
        color, marker, style = looks[shift]
        bits = np.array(list(by_bits))
        value, low, high = np.array([a.spearman for a in by_bits.values()]).T
        left.errorbar(bits + 0.12 * (shift - 1), value, (value - low, high - value), color=color,
                      marker=marker, linestyle=style, capsize=2, label=what)  # fmt: skip
        error = [a.error_db for a in by_bits.values()]
        right.plot(bits, error, color=color, marker=marker, linestyle=style, label=what)
        ends = (0, -1) if len(bits) > 1 else (0,)
        known = [f"{v:.3f}" if np.isfinite(v) else "none" for v in value]
        at = (f"{known[i]} and {error[i]:.2f} dB at {bits[i]} bits" for i in ends)
        clauses.append(f"{what}: rank correlation and median error {', '.join(at)}")
    left.set(xlabel="bits per weight", ylabel="rank correlation with the true lead", xticks=bits)
    right.set(xlabel="bits per weight", ylabel="median error of the lead (dB)", xticks=bits)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    finding = "; ".join(clauses)
    return Finding(
        figure,
        alt=f"Predictions of quantization's lead: {finding}.",
        caption=(
            f"Predicting quantization's lead on weights not seen (bars: 95 % intervals): {finding}."
        ),
        name=name,
    )
