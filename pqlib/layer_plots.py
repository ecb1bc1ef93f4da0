"""Figures of the per-layer chapter: tables of `pqlib.layer_findings` in, a Finding out."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pqlib.findings import Finding
from pqlib.layer_findings import BOUNDS, decibels, lead_words, scope
from pqlib.layer_words import draws_words, stability_words
from pqlib.plot_style import (
    MANY,
    METHODS,
    NEUTRAL,
    PAPER,
    PRUNING,
    QUANTIZATION,
    legend,
    line,
    marks,
    panels_and_legend,
    subplots,
)
from pqlib.verdicts import bits_phrase, by_bits

_BOUND_LOOKS = {  # the paper's relaxation, with the box, and the box alone
    "sdp": ("#00629b", "o", "eq. 6, corrected"),
    "sdp_box": ("#7a3e9d", "^", "with the box added"),
    "box_qp": ("#8a5a00", "v", "the box alone"),
}
_TERMS = {  # gains over the paper's terms
    "layer_budget": ("channel_budget", PRUNING["color"], "s", "pruning: budget of the layer"),
    "chunk_scale": ("tensor_scale", "#3f6b2a", "^", "quantization: scale of the chunk"),
    "output_scale": ("tensor_scale", QUANTIZATION["color"], "o", "quantization: best for output"),
}


def rectangles(found: pd.DataFrame, name: str) -> Finding:
    """Fig 4 as the paper draws it, with the exact optimum marked in each rectangle.

    Parameters
    ----------
    found : DataFrame
        Of `pqlib.layer_findings.rectangles`.
    name : str
        Label of the figure.
    """
    corners = ["park_boyd", "prune", "refit"]
    n_all = len(found)
    found = found[np.isfinite(found[corners]).all(axis=1)]
    if found.empty:
        return _nothing("on each chunk one of the methods is without error", name)
    bounded = np.isfinite(found["sdp"])
    furthest = found[[*corners, "sdp"]].where(lambda v: v < np.inf).max().max() + 10.0
    found = found.assign(sdp=found["sdp"].where(bounded, furthest))
    bits = sorted(map(int, found["n_bits"].unique()))
    figure, panels = panels_and_legend(len(bits), 2.3)
    for axes, b in zip(panels, bits, strict=False):
        rows = found[found["n_bits"] == b]
        ends = _diagonal(axes, rows[["sdp", "park_boyd", "prune", "refit"]])
        for _, row in rows.iterrows():
            color = METHODS.get(row["winner"], NEUTRAL)["color"]
            low, high = row["park_boyd"], row["sdp"]
            corner, height = (low, row["refit"]), row["prune"] - row["refit"]
            axes.add_patch(
                Rectangle(corner, high - low, height, facecolor=color, alpha=0.2, edgecolor="none")
            )
            axes.add_patch(
                Rectangle(corner, high - low, height, fill=False, edgecolor=color, linewidth=0.8)
            )
        for method in METHODS:
            won = rows[rows["winner"] == method]
            marks(axes, won["quantize"], won["prune"], method, many=False)
        axes.set(title=f"{b} bits", xlim=ends, ylim=ends)
        axes.set_aspect("equal")
    legend(panels, len(bits), "optimum, by winner;\nbox: the paper's range")
    _labels(figure)
    crossing = found[found["crosses"]]
    open_words = (
        f"{len(crossing)} of {len(found)} rectangles cross the diagonal, at "
        f"{bits_phrase(crossing['n_bits'].astype(int).tolist())}"
        if len(crossing)
        else f"none of {len(found)} rectangles crosses the diagonal"
    )
    closed = crossing["winner"].value_counts()
    settled = [f"{closed[m]} for {m}" for m in METHODS if m in closed]
    finding = open_words + (
        f"; the optima decide {' and '.join(settled)} at this scale and budget" if settled else ""
    )
    if len(crossing) > sum(closed.get(m, 0) for m in METHODS):
        finding += f", {len(crossing) - sum(closed.get(m, 0) for m in METHODS)} stay open"
    if not bounded.all():
        finding += f"; {int((~bounded).sum())} without a bound go on to the right"
    if len(found) < n_all:
        finding += f"; {n_all - len(found)} without error are not drawn"
    return Finding(
        figure,
        alt=f"Ranges of SNR of both methods, one rectangle per chunk: {finding}.",
        caption=(
            f"The {scope(found)} of this page. Each rectangle spans what a heuristic reaches and "
            "what a bound allows: quantization from Park and Boyd's heuristic to their bound, "
            "pruning from magnitude with refit to the optimum. The mark is the pair of exact "
            f"optima. {finding[0].upper()}{finding[1:]}."
        ),
        name=name,
    )


def exact_scatter(terms: pd.DataFrame, name: str) -> Finding:
    """Fig 4 with exact values: pruning's SNR against quantization's, at the paper's terms.

    Parameters
    ----------
    terms : DataFrame
        Of `pqlib.layer_findings.at_papers_terms`.
    name : str
        Label of the figure.
    """
    finite = np.isfinite(terms[["tensor_scale", "channel_budget"]]).all(axis=1)
    shown = terms[finite]
    if shown.empty:
        return _nothing("on each chunk one of the methods is without error", name)
    bits = sorted(map(int, shown["n_bits"].unique()))
    figure, panels = panels_and_legend(len(bits), 2.3, sharex=True, sharey=True)
    texts = {}
    for axes, b in zip(panels, bits, strict=False):
        rows = shown[shown["n_bits"] == b]
        ends = _diagonal(axes, shown[["tensor_scale", "channel_budget"]])
        wins = rows["lead"] > 0
        for method, of_method in (("quantization", wins), ("pruning", ~wins)):
            x, y = rows["tensor_scale"][of_method], rows["channel_budget"][of_method]
            marks(axes, x, y, method, many=len(shown) > MANY * len(bits))
        texts[b] = f"{wins.sum()} of {len(rows)}"
        axes.set(title=f"{b} bits: {texts[b]}", xlim=ends, ylim=ends)
        axes.set_aspect("equal")
    legend(panels, len(bits), "mark: smaller error\ntitle: by quantization")
    _labels(figure)
    finding = by_bits(texts)
    left_out = f" {int((~finite).sum())} without error are not drawn." if not finite.all() else ""
    return Finding(
        figure,
        alt=f"Exact SNR of pruning against quantization, per chunk. Quantization is ahead on: "
        f"{finding}.",
        caption=(
            f"Both optima of every chunk ({scope(terms)}), at the tensor's scale and one budget "
            "for each channel. "
            f"Below the diagonal quantization loses less: {finding}.{left_out}"
        ),
        name=name,
    )


def gains(terms: pd.DataFrame, name: str) -> Finding:
    """What another budget or another scale is worth, against bits: median and middle half."""
    figure, axes = subplots(height=3.2)
    axes.axhline(0, color=NEUTRAL["color"], linewidth=0.8)
    bits = sorted(map(int, terms["n_bits"].unique()))
    for shift, (column, (plain, color, marker, label)) in zip(
        (-0.12, 0.0, 0.12), _TERMS.items(), strict=True
    ):
        gain = (terms[column] - terms[plain]).replace([np.inf, -np.inf], np.nan)
        quartiles = gain.groupby(terms["n_bits"]).quantile([0.25, 0.5, 0.75]).unstack()
        quartiles = quartiles.reindex(bits)
        at = np.array(bits) + shift
        axes.vlines(at, quartiles[0.25], quartiles[0.75], color=color, linewidth=4, alpha=0.4)
        axes.plot(at, quartiles[0.5], color=color, marker=marker, linestyle=":", label=label)
    axes.set(xlabel="bits per weight", ylabel="gain (dB)", xticks=bits)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0.0, 1.3), ncols=2)
    words = lead_words(terms)
    finding = (
        f"a budget for the layer gives pruning {words['layer']}, the chunk's own scale gives "
        f"quantization {words['chunk']}, the best scale for the output {words['output']}"
    )
    return Finding(
        figure,
        alt=f"Gains over the paper's terms against bits: {finding}.",
        caption=f"What the paper's terms leave out, over {scope(terms)} "
        f"(mark: median, bar: middle half): {finding}.",
        name=name,
    )


def tightness(rows: pd.DataFrame, name: str) -> Finding:
    """Lower bounds as shares of the exact optimum, one mark per channel, against bits.

    Parameters
    ----------
    rows : DataFrame
        Of `pqlib.layer_findings.ranges`.
    name : str
        Label of the figure.
    """
    rows = rows[rows["quantize"] > 0]
    if rows.empty:
        return _nothing("each channel can be quantized without error", name)
    bits = sorted(map(int, rows["n_bits"].unique()))
    figure, axes = subplots(height=3.2)
    medians = {}
    for shift, bound in zip((-0.2, 0.0, 0.2), BOUNDS, strict=True):
        color, marker, label = _BOUND_LOOKS[bound]
        share = rows[bound] / rows["quantize"]
        middle = share.groupby(rows["n_bits"]).median().reindex(bits)
        axes.plot(rows["n_bits"] + shift, share, marker=marker, color=color, linestyle="",
                  markersize=3, markerfacecolor=PAPER, rasterized=len(rows) > MANY)  # fmt: skip
        axes.plot(np.array(bits) + shift, middle, marker=marker, color=color, linestyle="",
                  markersize=8, label=label)  # fmt: skip
        medians[bound] = share.median()
    axes.axhline(1, **(NEUTRAL | {"label": "optimum"}))
    axes.set(xlabel="bits per weight", ylabel="bound / optimum", xticks=bits, ylim=(-0.05, 1.08))
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0.0, 1.3), ncols=2)
    worst = (rows["sdp"] / rows["quantize"]).min()
    finding = (
        f"in the median the corrected eq. 6 reaches {medians['sdp']:.2f} of the optimum (worst "
        f"{worst:.2f}), with the box added {medians['sdp_box']:.2f}, the box alone "
        f"{medians['box_qp']:.2f}"
    )
    return Finding(
        figure,
        alt=f"Lower bounds as shares of the optimum against bits: {finding}.",
        caption=f"How tight the bounds are (large mark: median of the channels): {finding}.",
        name=name,
    )


def whole_layer(rows: pd.DataFrame, n_bits: int, name: str) -> Finding:
    """Sum of chunks, assembled error, best in hand and the bound, for both methods, in dB.

    Parameters
    ----------
    rows : DataFrame
        Of `pqlib.layer_findings.whole_layer`.
    n_bits : int
    name : str
        Label of the figure.
    """
    figure, axes = subplots(height=2.8)
    clauses = []
    looks = (("chunks", "D", "sum of the chunks' optima"), ("assembled", "x", "assembled"),
             ("best", "o", "best in hand"), ("lower", "|", "proven limit"))  # fmt: skip
    for height, (_, row) in zip((1, 0), rows.iterrows(), strict=True):
        style = METHODS[row["method"]]
        snr = {c: float(decibels(row["energy"], row[c])) for c, _, _ in looks}
        snr = {c: value if np.isfinite(value) else np.nan for c, value in snr.items()}
        if np.isfinite(snr["best"]) and np.isfinite(snr["lower"]):
            axes.plot([snr["best"], snr["lower"]], [height] * 2, **line(style), linewidth=5,
                      alpha=0.3, solid_capstyle="butt")  # fmt: skip
        for lift, (column, marker, _) in zip((0.22, 0.22, 0.0, 0.0), looks, strict=True):
            axes.plot(snr[column], height + lift, marker=marker, color=style["color"],
                      linestyle="", markersize=9, markerfacecolor=PAPER)  # fmt: skip
        limit = (
            f"and no more than {snr['lower']:.1f} dB is possible"
            if row["lower"] > 0
            else "and no limit is proven, the gram being singular"
        )
        clauses.append(
            f"for {row['method']} the chunks add up to {_db(snr['chunks'])}, assembled they give "
            f"{_db(snr['assembled'])}, {limit}"
        )
    for _, marker, label in looks:
        axes.plot([], [], marker=marker, color="black", linestyle="", label=label,
                  markerfacecolor=PAPER)  # fmt: skip
    axes.set(xlabel="SNR of the layer's output (dB)", ylim=(-0.5, 1.6))
    axes.set_yticks([1, 0], rows["method"])
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0.0, 1.35), ncols=2)
    finding = "; ".join(clauses)
    return Finding(
        figure,
        alt=f"Whole layer at {n_bits} bits: {finding}.",
        caption=f"The whole fan-in at {n_bits} bits: {finding}.",
        name=name,
    )


def stability(cases: pd.DataFrame, name: str) -> Finding:
    """How far the lead of quantization moves with the images, against the lead itself.

    Parameters
    ----------
    cases : DataFrame
        Of `pqlib.layer_findings.stability_cases`.
    name : str
        Label of the figure.
    """
    whole = cases["all_lead"].notna().any()
    centre = "all_lead" if whole else "lead"
    shown = cases[np.isfinite(cases[[centre, "lead"]].astype(float)).all(axis=1)]
    if shown.empty:
        return _nothing("on each chunk one of the methods is without error", name)
    sources = list(dict.fromkeys(shown["images"]))
    figure, grid = subplots(1, len(sources), height=3.2, sharex=True, sharey=True, squeeze=False)
    for axes, images in zip(grid.flat, sources, strict=True):
        rows = shown[shown["images"] == images]
        at = rows[centre]
        axes.axhline(0, color=NEUTRAL["color"], linewidth=0.8)
        for method, style in METHODS.items():
            own = rows["winner"].str.startswith(method)
            ends = ((rows[end] - at)[own] for end in ("low", "high"))
            axes.vlines(at[own], *ends, color=style["color"], linewidth=2, alpha=0.4)
            marks(axes, at[own], (rows["lead"] - at)[own], method, many=False)
        changed = rows["winners"] > 1
        axes.plot(at[changed], (rows["lead"] - at)[changed], linestyle="", marker="x",
                  color="black", markersize=7, label="winner changes")  # fmt: skip
        axes.set_title(draws_words(rows).replace(" images of ", " images\nof "), fontsize=9)
    low, high = grid[0, 0].get_ylim()
    for axes in grid.flat:
        axes.plot([-high, -low], [high, low], **line(NEUTRAL | {"label": "equal errors"}))
    of = f"all {shown['all_images'].iloc[0]:.0f} images" if whole else "the draws' median"
    figure.supxlabel(f"lead of quantization on {of} (dB)", fontsize=10)
    grid[0, 0].set(ylim=(low, high), ylabel="lead on a draw, minus that (dB)")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    words = stability_words(cases)
    finding = f"{words['same']}; {words['close']}"
    return Finding(
        figure,
        alt=f"Change of quantization's lead over pruning with the images: {finding}.",
        caption=(
            "One mark per chunk and bit-width, the median over the draws, with a bar from the "
            "least to the most; where a bar reaches the dotted line, the winner changes. "
            f"{finding[0].upper()}{finding[1:]}. Between draws the lead moves by {words['spread']}."
        ),
        name=name,
    )


def _nothing(why: str, name: str) -> Finding:
    """In place of a figure without a point to draw."""
    figure, axes = subplots(height=1.0)
    axes.axis("off")
    axes.text(0.5, 0.5, f"nothing to draw: {why}", ha="center", va="center")
    return Finding(figure, f"Nothing to draw: {why}.", f"Nothing to draw: {why}.", name)


def _db(value: float) -> str:
    return f"{value:.1f} dB" if np.isfinite(value) else "no error at all"


def _diagonal(axes: Axes, values: pd.DataFrame) -> tuple[float, float]:
    """Draw where both are equal; the limits of both axes."""
    low, high = float(values.min().min()), float(values.max().max())
    room = 0.06 * max(high - low, 1.0)
    ends = low - room, high + room
    axes.plot(ends, ends, **line(NEUTRAL | {"label": "equal"}))
    return ends


def _labels(figure: Figure) -> None:
    figure.supxlabel("SNR of quantization (dB)", fontsize=10)
    figure.supylabel("SNR of pruning (dB)", fontsize=10)
