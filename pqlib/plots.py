"""Figures of the book: a table in, a Finding out. Nothing is computed here but positions.

Every sentence of an alternative text or caption is put together from the table that is drawn.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from numpy.typing import ArrayLike

from pqlib.comparison import Comparison, Profile
from pqlib.findings import Finding
from pqlib.plot_style import NEUTRAL, PAPER, PRUNING, QUANTIZATION, line, number, subplots
from pqlib.verdicts import verdict

# the sign of the margin, light where it is small: quantization's color to pruning's
_MARGIN = matplotlib.colors.LinearSegmentedColormap.from_list(
    "margin", [PRUNING["color"], "#f6e3d8", "#ffffff", "#d6e6f0", QUANTIZATION["color"]]
)


def compressed_density(table: Profile, record: Comparison, what: str, name: str) -> Finding:
    """Fig 1, left and middle: a density after both methods, and where their errors lie.

    Parameters
    ----------
    table : Profile
        From `profile`.
    record : Comparison
        The record that ``table`` details.
    what : str
        What is compressed, as a noun phrase for the caption.
    name : str
        Label of the figure.
    """
    figure, (top, bottom) = subplots(2, 1, height=4.8, sharex=True)
    kept = np.where(abs(table.w) > table.threshold, table.density, 0.0)
    top.fill_between(table.w, table.density, color="#e4e4e4", label="before", step="mid")
    top.plot(table.w, kept, **line(PRUNING, "after pruning"))
    inside = abs(table.levels) <= table.w[-1] + record.scale / 2
    top.vlines(
        table.levels[inside],
        0,
        table.level_mass[inside] / record.scale,
        **line(QUANTIZATION, "after quantization (share / scale)"),
    )
    top.set_ylabel("density")
    top.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    bottom.plot(table.w, table.quant_error, **line(QUANTIZATION))
    bottom.plot(table.w, table.prune_error, **line(PRUNING))
    bottom.set(xlabel="weight", ylabel="squared error × density")
    bottom.legend(loc="upper right", frameon=False)
    errors = {"quantization": record.quant_mse, "pruning": record.prune_mse}
    less, more = sorted(errors, key=errors.get)
    if errors[less] == 0:
        finding = f"{less} is exact" if errors[more] else "both methods are exact"
    else:
        finding = f"the error of {more} is {errors[more] / errors[less]:.3g} times that of {less}"
    finding = f"at {record.n_bits} bits and {record.sparsity:.1%} sparsity {finding}"
    removed = f"pruning errs within ±{table.threshold:.3g}, " if record.prune_mse else ""
    at_zero = "; the weights pruned, all at zero, are not drawn" if record.sparsity else ""
    areas = "the areas under its curves are the two expected errors"
    if table.quant_beyond >= 0.001:
        beyond = f"{table.quant_beyond:.1%} of quantization's"
        areas += f", but for {beyond}, made by weights beyond the picture"
    where = (
        f"{removed}quantization between levels {record.scale:.3g} apart and beyond the last of them"
    )
    return Finding(
        figure,
        alt=f"{what}: {finding}; {where}.",
        caption=(
            f"{what}, before and after both methods (above{at_zero}), and the squared error "
            f"weighted by the density (below; {areas}): {finding}; {where}."
        ),
        name=name,
    )


def sqnr_by_bits(records: Mapping[str, Sequence[Comparison]], name: str) -> Finding:
    """Fig 1, right: SNR of both methods against bits, one pair of lines for each entry.

    Parameters
    ----------
    records : mapping of str to sequence of Comparison
        What is compressed, as a noun phrase, to one record per bit-width. One or two entries: the
        second is drawn thinner, with hollow markers.
    name : str
        Label of the figure.
    """
    figure, axes = subplots()
    looks = ({}, {"markerfacecolor": PAPER, "linewidth": 0.9})
    for (what, rows), look in zip(records.items(), looks, strict=False):
        bits = [r.n_bits for r in rows]
        for style, attribute in ((QUANTIZATION, "quant_sqnr_db"), (PRUNING, "prune_sqnr_db")):
            label = f"{style['label']}, {what}" if len(records) > 1 else style["label"]
            values = [getattr(r, attribute) for r in rows]
            axes.plot(bits, values, **(style | look | {"label": label}))
    axes.set(xlabel="bits per weight", ylabel="SNR (dB)", xticks=bits)
    axes.legend(loc="upper left", frameon=False)
    clauses = "; ".join(f"for {what}, {verdict(rows)}" for what, rows in records.items())
    contests = [(what, r) for what, rows in records.items() for r in rows]
    whose, lead = min(contests, key=lambda pair: abs(pair[1].margin_db))
    return Finding(
        figure,
        alt=f"SNR against bits per weight: {clauses}.",
        caption=(
            f"Signal-to-noise ratio at equal size: {clauses}. The closest contest is at "
            f"{lead.n_bits} bits for {whose}, {abs(lead.margin_db):.2f} dB apart."
        ),
        name=name,
    )


def error_by_scale(
    scales: ArrayLike, mse: ArrayLike, best: float, minmax: float, n_bits: int, name: str
) -> Finding:
    """The MSE of quantization against the scale, with the optimum and the min-max scale.

    Parameters
    ----------
    scales, mse : array_like of shape (n_scales,)
        The curve.
    best, minmax : float
        Scales to mark: the global optimum, and the one whose range just holds all weights.
    n_bits : int
    name : str
        Label of the figure.
    """
    scales, mse = np.asarray(scales), np.asarray(mse)
    figure, axes = subplots()
    axes.plot(scales, mse, color=QUANTIZATION["color"])
    at_best, at_minmax = np.interp([best, minmax], scales, mse)
    axes.plot(best, at_best, "o", color=QUANTIZATION["color"], markersize=8, label="optimal")
    axes.plot(minmax, at_minmax, "D", color=NEUTRAL["color"], markersize=7, label="min-max")
    axes.set(xscale="log", yscale="log", xlabel="scale", ylabel="mean squared error")
    axes.legend(frameon=False)
    inner = mse[1:-1]
    n_minima = int(np.sum((inner < mse[:-2]) & (inner < mse[2:])))
    gain = 10 * np.log10(at_minmax / at_best) if at_best else np.inf
    finding = (
        f"at {n_bits} bits the optimal scale {best:.3g} is {minmax / best:.2f} times finer than "
        f"the min-max scale and gains {gain:.2f} dB"
        if best < minmax
        else f"at {n_bits} bits the optimal scale is no finer than the min-max scale"
    )
    minima = "one local minimum" if n_minima == 1 else f"{n_minima} local minima"
    return Finding(
        figure,
        alt=f"Squared error against scale: {finding}; the curve has {minima}.",
        caption=(
            f"Squared error of rounding against the scale. To the left weights are clipped, to the "
            f"right rounding is coarse: {finding}. The curve as drawn has {minima}."
        ),
        name=name,
    )


def sqnr_by_kurtosis(
    kurtosis: ArrayLike, records: Mapping[int, Sequence[Comparison]], family: str, name: str
) -> Finding:
    """Fig 2, left and middle: SNR of each method as the tails grow, one line per bit-width.

    Parameters
    ----------
    kurtosis : array_like of shape (n,)
        Not the excess, ascending.
    records : mapping of int to sequence of n Comparisons
        Bits to records, one for each kurtosis.
    family : str
        The distribution in words.
    name : str
        Label of the figure.
    """
    kurtosis = np.asarray(kurtosis)
    figure, panels = subplots(1, 2, height=3.6, sharey=True)
    changes = []
    for axes, style, attribute in zip(
        panels, (PRUNING, QUANTIZATION), ("prune_sqnr_db", "quant_sqnr_db"), strict=True
    ):
        look = {key: style[key] for key in ("color", "linestyle")}
        for n_bits, rows in records.items():
            values = [getattr(r, attribute) for r in rows]
            axes.plot(kurtosis, values, **look)
            if n_bits % 2 == 0:  # where the lines are farthest apart
                end, offset = (0, -9) if style is QUANTIZATION else (-1, 3)
                axes.annotate(
                    f"{n_bits}", (kurtosis[end], values[end]), (offset, 0),
                    textcoords="offset points", va="center", color=style["color"],
                )  # fmt: skip
        axes.set(xscale="log", xlabel="kurtosis", title=f"{style['label']} (lines: bits)")
        middle = list(records.values())[len(records) // 2]
        first, last = (getattr(middle[i], attribute) for i in (0, -1))
        verb = "rises" if last > first else "falls"
        changes.append(f"the SNR of {style['label']} {verb} from {first:.1f} to {last:.1f} dB")
    panels[0].set_ylabel("SNR (dB)")
    n_bits = list(records)[len(records) // 2]
    span = f"from kurtosis {number(kurtosis[0])} to {number(kurtosis[-1])} at {n_bits} bits"
    finding = f"{' and '.join(changes)} {span}"
    return Finding(
        figure,
        alt=f"SNR against kurtosis for a {family}: {finding}.",
        caption=f"As the tails of a {family} grow, {finding}. One line per bit-width.",
        name=name,
    )


def winner_map(
    kurtosis: ArrayLike,
    records: Mapping[int, Sequence[Comparison]],
    crossings: Mapping[int, float],
    real: Mapping[str, ArrayLike],
    family: str,
    name: str,
) -> Finding:
    """Fig 2, right: which method wins at each kurtosis and bit-width, real tensors marked.

    Parameters
    ----------
    kurtosis, records, family, name
        As in `sqnr_by_kurtosis`.
    crossings : mapping of int to float
        Bits to the kurtosis at which the winner changes, for each of ``records``.
    real : mapping of str to array_like
        Network to the kurtosis of its tensors; the quartiles and range of each are marked below
        the map. Empty: none.
    """
    bits = list(records)
    margins = np.array([[r.margin_db for r in rows] for rows in records.values()])
    figure, axes = subplots(height=3.8)
    limit = float(np.max(abs(margins)))
    steps = np.log(np.asarray(kurtosis))
    edges = np.exp(np.r_[steps[0], (steps[1:] + steps[:-1]) / 2, steps[-1]])
    mesh = axes.pcolormesh(
        edges, np.r_[np.array(bits) - 0.5, bits[-1] + 0.5], margins,
        cmap=_MARGIN, norm=matplotlib.colors.SymLogNorm(3.0, vmin=-limit, vmax=limit),
        rasterized=True,
    )  # fmt: skip
    axes.grid(visible=False)
    ticks = [t for t in (-30, -10, -3, 0, 3, 10, 30) if abs(t) <= limit]
    bar = figure.colorbar(mesh, ax=axes, ticks=ticks, format="%d")
    bar.set_label("quantization's lead (dB)")
    axes.plot(
        list(crossings.values()), list(crossings), color="black", marker="x", label="equal error"
    )
    for row, (network, values) in enumerate(real.items()):
        low, q1, median, q3, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
        y = bits[0] - 1.0 - 0.6 * row
        axes.plot([low, high], [y, y], color=NEUTRAL["color"], linewidth=1)
        axes.plot([q1, q3], [y, y], color=NEUTRAL["color"], linewidth=6, solid_capstyle="butt")
        axes.plot(median, y, "|", color="white", markersize=9, markeredgewidth=2)
        axes.annotate(network, (high, y), (5, 0), textcoords="offset points", va="center")
    axes.set(xscale="log", xlabel="kurtosis", ylabel="bits per weight", yticks=bits)
    axes.legend(loc="lower right", facecolor="white", frameon=True)
    ends = [crossings[b] for b in sorted(crossings)]
    boundary = (
        f"the boundary climbs from kurtosis {ends[0]:.1f} at {min(crossings)} bits to "
        f"{ends[-1]:.1f} at {max(crossings)} bits"
        if len(ends) > 1
        else (
            f"the boundary is at kurtosis {ends[0]:.1f}" if ends else "one method wins throughout"
        )
    )
    marks = "; ".join(
        f"the median tensor of {network} has kurtosis {np.median(v):.1f}"
        for network, v in real.items()
    )
    left, right = (rows[i].winner for rows in [next(iter(records.values()))] for i in (0, -1))
    sides = f"{left} wins to the left of it, {right} to the right"
    finding = "; ".join(part for part in (boundary, sides, marks) if part)
    return Finding(
        figure,
        alt=f"Map of the winner over kurtosis and bits for a {family}: {finding}.",
        caption=(
            f"Quantization's lead over pruning for a {family}: {finding}."
            + (" Bars below: range, quartiles and median of real tensors." if real else "")
        ),
        name=name,
    )


def kurtosis_by_range(ranges: ArrayLike, kurtosis: ArrayLike, family: str, name: str) -> Finding:
    """Fig 5: kurtosis of a truncated distribution against the truncation range.

    Parameters
    ----------
    ranges, kurtosis : array_like of shape (n,)
        r ascending, and the kurtosis (not the excess) on [-r, r].
    family, name : str
        As in `sqnr_by_kurtosis`.
    """
    ranges, kurtosis = np.asarray(ranges), np.asarray(kurtosis)
    figure, axes = subplots(height=3.0)
    axes.plot(ranges, kurtosis, color=NEUTRAL["color"])
    axes.set(xscale="log", yscale="log", xlabel="truncation range r", ylabel="kurtosis")
    slope = np.log(kurtosis[-1] / kurtosis[-2]) / np.log(ranges[-1] / ranges[-2])
    finding = (
        f"kurtosis goes from {number(kurtosis[0])} at r = {number(ranges[0])} to "
        f"{number(kurtosis[-1])} at r = {number(ranges[-1])}, there growing like r to the power "
        f"{slope:.2f}"
    )
    return Finding(
        figure,
        alt=f"Kurtosis of a {family} against its range: {finding}.",
        caption=f"Kurtosis of a {family} on [−r, r]: {finding}.",
        name=name,
    )


def gain_per_bit(bits: Sequence[int], sqnr_db: Mapping[str, Sequence[float]], name: str) -> Finding:
    """SNR gained by the last bit, against bits, for several distributions, beside 6.02 dB.

    Parameters
    ----------
    bits : sequence of int, ascending, consecutive
    sqnr_db : mapping of str to sequence of float
        Distribution in words to its quantization SNR at each of ``bits``.
    name : str
        Label of the figure.
    """
    law = 20 * np.log10(2)
    figure, axes = subplots()
    axes.axhline(law, **(NEUTRAL | {"label": f"{law:.2f} dB per bit"}))
    clauses = []
    for marker, shade, (what, values) in zip(
        "oDv^P", ("#00629b", "#3f6b2a", "#7a3e9d", "#8a5a00", "#555555"), sqnr_db.items(),
        strict=False,
    ):  # fmt: skip
        gains = np.diff(values)
        axes.plot(bits[1:], gains, marker=marker, color=shade, label=what)
        clauses.append(f"{what} {gains[-1]:.2f} dB")
    axes.set(xlabel="bits per weight", ylabel="gain of this bit (dB)", xticks=bits[1:])
    axes.legend(ncols=2, frameon=False)
    finding = f"the bit from {bits[-2]} to {bits[-1]} gains: {', '.join(clauses)}"
    return Finding(
        figure,
        alt=f"SNR gained per bit for several distributions: {finding}.",
        caption=f"What one more bit gains at the optimal scale; {finding}. The law says {law:.2f}.",
        name=name,
    )
