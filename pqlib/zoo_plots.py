"""Figures of the zoo chapter: the table of a scan in, a Finding out."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pqlib.findings import Finding
from pqlib.plot_style import (
    MANY,
    METHODS,
    NEUTRAL,
    PAPER,
    QUANTIZATION,
    legend,
    line,
    log_axes,
    marks,
    number,
    panels_and_legend,
    subplots,
)
from pqlib.verdicts import by_bits
from pqlib.zoo_statistics import ESTIMATORS, KurtosisSplit

# estimators of a crossing: color, marker, and line style where they are joined
_LOOKS = {
    "joint": ("#000000", "D", "-"),
    "class_conditional": ("#3f6b2a", "v", "-."),
    "logistic": ("#7a3e9d", "^", (0, (5, 1))),
    "theory": ("#444444", "x", ":"),
}
_NAMES = {
    "joint": "joint densities",
    "class_conditional": "class-conditional",
    "logistic": "logistic",
    "theory": "truncated Student-t",
}


def sqnr_scatter(table: pd.DataFrame, name: str, *, credited: bool = False) -> Finding:
    """Fig 3, left: pruning's SNR against quantization's, one mark per tensor, a panel per budget.

    Parameters
    ----------
    table : DataFrame
        Of a scan; shared tensors as given.
    name : str
        Label of the figure.
    credited : bool, default False
        Fig 3b: give quantization credit for its natural zeros, so that pruning keeps fewer.
    """
    column = "credited_sqnr_db" if credited else "prune_sqnr_db"
    table = table[table["skipped"] == ""]
    bits = sorted(map(int, table["n_bits"].unique()))
    finite = np.isfinite(table["quant_sqnr_db"]) & np.isfinite(table[column])
    shown = table[finite]
    if shown.empty:
        raise ValueError("table must hold a tensor on which neither method is exact")
    top = 1.05 * max(shown["quant_sqnr_db"].max(), shown[column].max())
    low = min(0.0, 1.05 * min(shown["quant_sqnr_db"].min(), shown[column].min()))
    figure, panels = panels_and_legend(len(bits), 1.7, sharex=True, sharey=True)
    shares = {}
    for axes, n_bits in zip(panels, bits, strict=False):
        rows = shown[shown["n_bits"] == n_bits]
        wins = rows["quant_sqnr_db"] > rows[column]
        everyone = table[table["n_bits"] == n_bits]
        shares[n_bits] = np.mean(everyone["quant_sqnr_db"] > everyone[column])
        axes.plot([low, top], [low, top], **line(NEUTRAL | {"label": "equal"}))
        for method, of_method in (("quantization", wins), ("pruning", ~wins)):
            x, y = rows["quant_sqnr_db"][of_method], rows[column][of_method]
            marks(axes, x, y, method, many=len(shown) > MANY * len(bits))
        axes.set(title=f"{n_bits} bits: {shares[n_bits]:.0%}", xlim=(low, top), ylim=(low, top))
        axes.set_aspect("equal")
    title = "mark: the tensor's winner\ntitle: won by quantization"
    legend(panels, len(bits), title)
    figure.supxlabel("SNR of quantization (dB)", fontsize=10)
    what = "pruning, zeros credited" if credited else "pruning"
    figure.supylabel(f"SNR of {what} (dB)", fontsize=10)
    won = by_bits({b: f"{share:.1%}" for b, share in shares.items()})
    rule = " when its natural zeros are credited" if credited else ""
    finding = f"quantization loses less on these shares of the tensors{rule}: {won}"
    exact = f" {int(np.sum(~finite))} points with an exact method are not drawn."
    return Finding(
        figure,
        alt=f"SNR of pruning against SNR of quantization, every tensor: {finding}.",
        caption=(
            f"Each mark is one tensor; below the diagonal quantization loses less. Of the "
            f"{len(table) // len(bits):,} tensors {finding}." + ("" if finite.all() else exact)
        ),
        name=name,
    )


def kurtosis_densities(
    splits: Sequence[KurtosisSplit], theory: Mapping[int, float], name: str
) -> Finding:
    """Fig 3, right: where along kurtosis each method wins, one panel per bit-width.

    Parameters
    ----------
    splits : sequence of KurtosisSplit
    theory : mapping of int to float
        Bits to the crossing of the truncated Student-t.
    name : str
        Label of the figure.
    """
    figure, panels = panels_and_legend(len(splits), 1.7, sharex=True)
    seen = np.concatenate([v for split in splits for v in split.tensors.values()])
    if not seen.size:
        raise ValueError("splits must hold a tensor that one of the methods wins")
    ends = 0.9 * seen.min(), 1.1 * seen.max()
    for axes, split in zip(panels, splits, strict=False):
        n = sum(values.size for values in split.tensors.values())
        curves = {m: d * split.tensors[m].size / n for m, d in split.density.items()}
        top = max((curve.max() for curve in curves.values()), default=1.0)
        for (method, style), height in zip(METHODS.items(), (-0.08, -0.2), strict=True):
            values = split.tensors[method]
            if method in curves:
                curve = curves[method]
                axes.fill_between(split.kurtosis, curve, color=style["color"], alpha=0.15)
                axes.plot(split.kurtosis, curve, **line(style))
            tick = {"color": style["color"], "marker": "|", "linestyle": "", "markersize": 5}
            axes.plot(values, np.full(values.size, height * top), rasterized=n > MANY, **tick)
        estimates = split.crossings | {"theory": theory.get(split.n_bits, np.nan)}
        for level, (estimator, at) in enumerate(estimates.items()):
            color, marker, style = _LOOKS[estimator]
            if ends[0] <= at <= ends[1]:
                axes.axvline(at, color=color, linestyle=style, linewidth=1)
                height = (1.3 - 0.12 * level) * top
                axes.plot(at, height, marker=marker, color=color, linestyle="")
        axes.set(title=f"{split.n_bits} bits", yticks=[], ylim=(-0.28 * top, 1.4 * top), xlim=ends)
        log_axes(axes, "x")
    handles = [panels[0].plot([], [], **line(style))[0] for style in METHODS.values()]
    for estimator, (color, marker, style) in _LOOKS.items():
        label = _NAMES[estimator]
        handles += panels[0].plot([], [], color=color, marker=marker, linestyle=style, label=label)
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    figure.supxlabel("kurtosis", fontsize=10)
    figure.supylabel("density", fontsize=10)
    found = by_bits({split.n_bits: _crossing_words(split) for split in splits}, "; ")
    return Finding(
        figure,
        alt=f"Densities of kurtosis where each method wins: {found}.",
        caption=(
            "Kurtosis of the tensors that each method wins, weighted by how many they are, and the "
            f"kurtosis from which pruning is the likelier winner: {found}."
        ),
        name=name,
    )


def crossings_by_bits(
    tables: Mapping[str, pd.DataFrame], theory: Mapping[int, float], name: str
) -> Finding:
    """The crossing kurtosis of every estimator against bits, beside that of the theory.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Whose tensors, in words, to their `crossing_table`. One or two; the second is drawn with
        hollow markers.
    theory : mapping of int to float
        Bits to the crossing of the truncated Student-t.
    name : str
        Label of the figure.
    """
    figure, axes = subplots(height=3.6)
    color, marker, style = _LOOKS["theory"]
    axes.plot(list(theory), list(theory.values()), color=color, marker=marker, linestyle=style,
              label=_NAMES["theory"])  # fmt: skip
    clauses = []
    for (whose, table), face in zip(tables.items(), (None, PAPER), strict=False):
        for estimator in ESTIMATORS:
            color, marker, style = _LOOKS[estimator]
            known = table[np.isfinite(table[estimator])]
            label = _NAMES[estimator] + (f", {whose}" if len(tables) > 1 else "")
            axes.plot(known["n_bits"], known[estimator], color=color, marker=marker,
                      linestyle=style, label=label, markerfacecolor=face or color)  # fmt: skip
        known = table[np.isfinite(table["joint"])]
        clauses.append(_range_words(whose, known))
    axes.set(xlabel="bits per weight", ylabel="kurtosis", xticks=list(theory))
    log_axes(axes, "y")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    first, last = min(theory), max(theory)
    finding = "; ".join(clauses)
    finding += (
        f"; the truncated Student-t crosses at {number(theory[first])} at {first} bits"
        + (f" and at {number(theory[last])} at {last} bits" if last > first else "")
    )  # fmt: skip
    return Finding(
        figure,
        alt=f"Kurtosis from which pruning is the likelier winner, against bits: {finding}.",
        caption=f"Kurtosis from which pruning is the likelier winner: {finding}.",
        name=name,
    )


def natural_zeros(rows: pd.DataFrame, printed: Mapping[int, float], name: str) -> Finding:
    """Table 2 as a figure: zeros that rounding makes, and what they are worth in bits.

    Parameters
    ----------
    rows : DataFrame
        From `natural_sparsity`.
    printed : mapping of int to float
        Bits to the mean share that the paper prints. Empty: none.
    name : str
        Label of the figure.
    """
    figure, (left, right) = subplots(1, 2, height=3.2)
    bits = rows["n_bits"].to_numpy()
    color = QUANTIZATION["color"]
    left.vlines(bits, 100 * rows["q1"], 100 * rows["q3"], color=color, linewidth=6, alpha=0.45)
    left.plot(bits, 100 * rows["mean"], color=color, marker="o", label="mean (bar: middle half)")
    if printed:
        left.plot(list(printed), [100 * v for v in printed.values()], color="black", marker="x",
                  linestyle="", label="mean, as the paper prints")  # fmt: skip
    left.set(
        xlabel="bits per weight", ylabel="zeros after rounding (%)", xticks=bits, ylim=(0, 115)
    )
    left.legend(frameon=False, fontsize=9, loc="upper right")
    right.plot(bits, rows["bits_saved"], color=color, marker="o", label="saved by the zeros")
    right.plot(bits, rows["mask_bits"], color="#8a5a00", marker="v", linestyle="--",
               label="to say where they are")  # fmt: skip
    right.plot(bits, rows["net"], color="black", marker="D", linestyle="-.", label="left over")
    right.axhline(0, color=NEUTRAL["color"], linewidth=0.8)
    right.set(xlabel="bits per weight", ylabel="bits per weight, mean", xticks=bits)
    right.set_ylim(top=1.45 * rows[["bits_saved", "mask_bits"]].to_numpy().max())
    right.legend(frameon=False, fontsize=9, loc="upper left")
    shares = by_bits({int(r["n_bits"]): f"{r['mean']:.1%}" for _, r in rows.iterrows()})
    best = rows.loc[rows["net"].idxmax()]
    finding = (
        f"the mean share of zeros is {shares}; after paying for their positions they are "
        f"worth most at {best['n_bits']:.0f} bits, {best['net']:.2f} bits per weight"
    )
    return Finding(
        figure,
        alt=f"Share of zeros that rounding makes, and their worth: {finding}.",
        caption=f"Zeros that rounding makes by itself: {finding}.",
        name=name,
    )


def _crossing_words(split: KurtosisSplit) -> str:
    at = split.crossings["joint"]
    if np.isfinite(at):
        return number(at)
    return f"none ({split.notes['joint']})"


def _range_words(whose: str, known: pd.DataFrame) -> str:
    if known.empty:
        return f"for {whose} the joint densities cross at no bit-width"
    first, last = known.iloc[0], known.iloc[-1]
    words = f"for {whose} the joint densities cross at {number(first['joint'])} at "
    words += f"{first['n_bits']:.0f} bits"
    if len(known) > 1:
        words += f" and at {number(last['joint'])} at {last['n_bits']:.0f} bits"
    return words
