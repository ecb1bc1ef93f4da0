"""Figures of the fine-tuning chapter: tables of `pqlib.training_findings` in, a Finding out."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from pqlib import agreement_findings
from pqlib.findings import Finding
from pqlib.plot_style import (
    METHODS,
    NEUTRAL,
    PAPER,
    PRUNING,
    QUANTIZATION,
    line,
    log_axes,
    subplots,
)
from pqlib.sweep_findings import swept
from pqlib.training_findings import (
    FINE_TUNED,
    NAMES,
    POST_TRAINING,
    ahead_words,
    count_words,
    exceptions,
)
from pqlib.verdicts import by_bits

_MARGIN = matplotlib.colors.LinearSegmentedColormap.from_list(
    "margin", [PRUNING["color"], "#f6e3d8", "#ffffff", "#d6e6f0", QUANTIZATION["color"]]
)
_DARK = 0.18  # luminance of a cell below which white has more contrast than black


def scale_gradient(
    ratio: ArrayLike, learned: ArrayLike, true: ArrayLike, n_bits: int, name: str
) -> Finding:
    """The slope of a quantized weight in the scale: what LSQ takes, and the rounded function's own.

    Parameters
    ----------
    ratio : array_like, sorted
        Weights in units of the scale, w / s.
    learned, true : array_like, same shape
    n_bits : int
    name : str
        Label of the figure.
    """
    ratio, learned, true = (np.asarray(v, dtype=float) for v in (ratio, learned, true))
    figure, axes = subplots(height=3.0)
    axes.plot(ratio, true, **line(NEUTRAL | {"label": "slope of the rounded function itself"}))
    axes.plot(ratio, learned, **line(QUANTIZATION | {"label": "LSQ's slope"}))
    axes.set(xlabel="weight / scale", ylabel="slope in the scale")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    qmin, qmax = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    inside = (ratio > qmin) & (ratio < qmax)
    most = float(np.abs(learned[inside]).max()) if inside.any() else 0.0
    finding = (
        f"within the grid LSQ's slope is a saw of height {most:.2f}, beyond it is {qmin} on one "
        f"side and {qmax} on the other; the rounded function's own slope is a staircase that "
        "agrees with it only beyond the grid and at zero"
    ).replace("-", "−")
    return Finding(
        figure,
        alt=f"Slope in the scale against weight over scale at {n_bits} bits: {finding}.",
        caption=f"What one weight says to its scale at {n_bits} bits: {finding}.",
        name=name,
    )


def schedule(
    steps: Sequence[int], sparsity: Mapping[int, Sequence[float]], end: float, name: str
) -> Finding:
    """The cubic schedule for several budgets.

    Parameters
    ----------
    steps : sequence of int
        Steps from 0.
    sparsity : mapping of int to sequence of float
        By bit-width, the sparsity at each step.
    end : float
        The step at which the final sparsity is reached.
    name : str
        Label of the figure.
    """
    figure, axes = subplots(height=3.0)
    halves, bits = {}, sorted(sparsity)
    for n_bits, widths in zip(bits, np.linspace(2.6, 1.0, len(bits)), strict=True):
        values = np.asarray(sparsity[n_bits], dtype=float)
        axes.plot(steps, values, **line(PRUNING, f"{n_bits} bits"), linewidth=widths)
        axes.annotate(f"{n_bits} bits", (steps[-1], values[-1]), xytext=(4, 0), fontsize=9,
                      textcoords="offset points", va="center")  # fmt: skip
        halves[n_bits] = steps[int(np.argmax(values >= values[-1] / 2))]
    axes.axvline(end, **(NEUTRAL | {"linewidth": 1.0}))
    axes.set(xlabel="step", ylabel="share of zeros", ylim=(0, 1))
    last = {b: f"{np.asarray(sparsity[b])[-1]:.3f}" for b in bits}
    finding = (
        f"it reaches {by_bits(last)}, half of that by step {max(halves.values())} of "
        f"{len(steps)}, and is flat after step {end:g}"
    )
    return Finding(
        figure,
        alt=f"Sparsity against the step of training: {finding}.",
        caption=f"The cubic schedule removes early and slows down: {finding}.",
        name=name,
    )


def loss_curves(
    curves: Mapping[int, Mapping[str, Sequence[float]]], ramp_end: float, name: str
) -> Finding:
    """The training loss of both methods, step by step, one panel for each bit-width.

    Parameters
    ----------
    curves : mapping of int to mapping of str to sequence of float
        By bit-width and method, "quantization" or "pruning".
    ramp_end : float
        The step from which the sparsity is final.
    name : str
        Label of the figure.
    """
    bits = sorted(curves)
    n_columns = min(len(bits), 4)
    n_rows = -(-len(bits) // n_columns)
    figure, grid = subplots(
        n_rows, n_columns, height=2.4 * n_rows + 0.5, sharex=True, sharey=True, squeeze=False
    )
    ends, peaks = {}, {}
    for axes, n_bits in zip(grid.flat, bits, strict=False):
        for method, losses in curves[n_bits].items():
            steps = np.arange(1, len(losses) + 1)
            axes.plot(steps, _smooth(losses), **line(METHODS[method]))
        axes.axvline(ramp_end, **(NEUTRAL | {"linewidth": 1.0}))
        axes.set_title(f"{n_bits} bits")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        last = {m: _smooth(v)[-1] for m, v in curves[n_bits].items()}
        ends[n_bits] = " and ".join(f"{v:.2g} ({m})" for m, v in last.items())
        peaks[n_bits] = f"{max(_smooth(curves[n_bits]['pruning'])):.2g}"
    log_axes(grid[0, 0], "y")
    for axes in list(grid.flat)[len(bits) :]:
        axes.axis("off")
    grid[0, 0].legend(frameon=False, fontsize=9)
    figure.supxlabel("step", fontsize=10)
    figure.supylabel("training loss", fontsize=10)
    finding = f"it ends at {by_bits(ends, '; ')}; the peak under pruning is {by_bits(peaks)}"
    return Finding(
        figure,
        alt=f"Training loss against steps for both methods: {finding}.",
        caption=(
            "Training loss, averaged over a few steps; at the vertical line the sparsity is final. "
            f"The loss is what the weights cost while they are compressed: {finding}."
        ),
        name=name,
    )


def value_by_bits(compared: pd.DataFrame, fp_value: float, metric: str, name: str) -> Finding:
    """Fine-tuned and post-training values of both methods against bits.

    Parameters
    ----------
    compared : DataFrame
        Of `pqlib.training_findings.compare_runs`.
    fp_value : float
        Of the uncompressed network.
    metric : str
        Name of the values.
    name : str
        Label of the figure.
    """
    figure, (axes, right) = subplots(1, 2, height=3.4)
    _values_and_leads(axes, right, compared, fp_value)
    axes.set(ylabel=metric)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside upper left", ncols=3)
    finding = f"after fine-tuning {ahead_words(compared)}"
    before = ahead_words(compared, POST_TRAINING)
    return Finding(
        figure,
        alt=f"{metric} against bits for both methods: {finding}; before it, {before}.",
        caption=(
            f"Left, {metric} on the test images with fine-tuning (full marks) and without it "
            "(hollow). Right, the lead with its paired bootstrap interval: "
            f"{finding}. Without fine-tuning, {before}."
        ),
        name=name,
    )


def sweep_by_bits(table: pd.DataFrame, name: str) -> Finding:
    """Values of both methods and leads against bits, a row of panels for each network.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib.table1_leads.leads`; networks without fine-tuned runs are left out.
    name : str
        Label of the figure.
    """
    table = swept(table)
    networks = [(NAMES.get(m, m), rows) for m, rows in table.groupby("model", sort=False)]
    figure, panels = subplots(len(networks), 2, height=2.6 * len(networks) + 0.8, squeeze=False)
    for (network, rows), (axes, right) in zip(networks, panels, strict=True):
        _values_and_leads(axes, right, rows, rows["fp_value"].mean())
        axes.set(ylabel=f"{network}: {rows['metric'].iloc[0]}")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside upper left", ncols=3)
    finding = "; ".join(f"for {network} {ahead_words(rows)}" for network, rows in networks)
    return Finding(
        figure,
        alt=f"Values of both methods and leads of quantization, against bits: {finding}.",
        caption=(
            "Left, values on the test images with fine-tuning (full marks) and without it "
            "(hollow), means over seeds. Right, leads after fine-tuning with paired intervals "
            f"over test images and seeds: {finding}."
        ),
        name=name,
    )


def answers_kept(table: pd.DataFrame, model: str, name: str) -> Finding:
    """What a network still answers after compression without training, and how near its logits are.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib.agreement_findings.prepared`, for one network and one set of images.
    model : str
        As readers call it.
    name : str
        Label of the figure.
    """
    bits = sorted(table["n_bits"].unique())
    figure, (axes, right) = subplots(1, 2, height=3.2)
    for method, style in METHODS.items():
        rows = table[table["method"] == method].sort_values("n_bits")
        axes.vlines(rows["n_bits"], rows["agreement_low"], rows["agreement_high"],
                    color=style["color"], linewidth=3, alpha=0.4)  # fmt: skip
        marked = {"marker": style["marker"], "markersize": 6, "linewidth": 1.2}
        axes.plot(rows["n_bits"], rows["agreement"], **line(style, method), **marked)
        right.plot(rows["n_bits"], rows["logit_snr_db"], **line(style, method), **marked)
    right.axhline(0, color=NEUTRAL["color"], linewidth=0.8)
    axes.set(xlabel="bits per weight", ylabel="answers kept (%)", xticks=bits, ylim=(-4, 104))
    right.set(xlabel="bits per weight", ylabel="SNR of the logits (dB)", xticks=bits)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    finding = agreement_findings.words(table)
    n_images = int(table["n_images"].iloc[0])
    return Finding(
        figure,
        alt=f"Answers that {model} keeps, and SNR of its logits, against bits: {finding}.",
        caption=(
            f"{model} compressed at once, on {n_images} images without labels. Left, the share of "
            "images whose largest logit stays the same, with 95 % intervals; right, the SNR of the "
            f"logits, below 0 dB where the error is larger than the signal. Here {finding}."
        ),
        name=name,
    )


def lead_map(found: pd.DataFrame, name: str) -> Finding:
    """Table 1 as a map: quantization's lead in each cell, networks against bits.

    Parameters
    ----------
    found : DataFrame
        Of `pqlib.training_findings.cells`, or the fine-tuned cells of `pqlib.table1_leads.leads`,
        where leads whose interval holds zero stand in brackets.
    name : str
        Label of the figure.
    """
    wide = found.pivot(index="model", columns="n_bits", values="lead")
    wide = wide.loc[wide.median(axis=1).sort_values().index]
    wide = wide[sorted(wide.columns, reverse=True)]
    ties = found[(found["winner"] == "neither") & (found["lead"] != 0)]
    tied = {*zip(ties["model"], ties["n_bits"], strict=True)}
    figure, axes = subplots(height=0.36 * len(wide) + 1.3)
    # a cube root, so that half a point shows beside sixty
    shade = np.cbrt(wide.to_numpy())
    most = float(np.nanmax(np.abs(shade))) or 1.0
    axes.imshow(shade, cmap=_MARGIN, vmin=-most, vmax=most, aspect="auto")
    axes.grid(visible=False)
    for (row, column), lead in np.ndenumerate(wide.to_numpy()):
        if np.isnan(lead):
            continue
        red, green, blue, _ = _MARGIN(0.5 + 0.5 * shade[row, column] / most)
        dark = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < _DARK
        text = f"{lead:+z.1f}".replace("-", "−").replace("+0.0", "0")
        text = f"({text})" if (wide.index[row], wide.columns[column]) in tied else text
        axes.text(column, row, text, fontsize=9, ha="center", va="center",
                  color="white" if dark else "black")  # fmt: skip
    axes.set_yticks(range(len(wide)), [NAMES.get(model, model) for model in wide.index])
    axes.set_xticks(range(len(wide.columns)), [f"{int(b)}" for b in wide.columns])
    axes.set_xlabel("bits per weight")
    bracketed = "; in brackets: a tie" if tied else ""
    finding = f"{count_words(found)}: {exceptions(found)}"
    return Finding(
        figure,
        alt=f"Lead of quantization after fine-tuning, networks against bits: {finding}.",
        caption=(
            f"Points by which quantization is ahead (negative: pruning{bracketed}), networks in "
            f"the order of their median lead: {finding}."
        ),
        name=name,
    )


def _values_and_leads(axes: Axes, right: Axes, compared: pd.DataFrame, fp_value: float) -> None:
    """Both methods with and without fine-tuning in one panel, fine-tuned leads in the other."""
    bits = sorted(compared["n_bits"].unique())
    for method, style in METHODS.items():
        for when, face in ((FINE_TUNED, style["color"]), (POST_TRAINING, PAPER)):
            rows = compared[compared["when"] == when].sort_values("n_bits")
            axes.plot(rows["n_bits"], rows[method], color=style["color"], marker=style["marker"],
                      linestyle=style["linestyle"], markerfacecolor=face, markersize=6,
                      linewidth=1.5 if when == FINE_TUNED else 0.8,
                      label=f"{method}, {when}")  # fmt: skip
    axes.axhline(fp_value, **(NEUTRAL | {"label": "uncompressed"}))
    _leads(right, compared[compared["when"] == FINE_TUNED].sort_values("n_bits"))
    axes.set(xlabel="bits per weight", xticks=bits)
    right.set(xlabel="bits per weight", ylabel="lead of quantization (points)", xticks=bits)


def _leads(axes: Axes, rows: pd.DataFrame) -> None:
    """Leads with their intervals, in the color of the method ahead."""
    axes.axhline(0, color=NEUTRAL["color"], linewidth=0.8)
    for _, row in rows.iterrows():
        style = METHODS.get(row["winner"], NEUTRAL | {"marker": "D"})
        axes.vlines(row["n_bits"], row["low"], row["high"], color=style["color"], linewidth=3)
        axes.plot(row["n_bits"], row["lead"], color=style["color"], marker=style["marker"],
                  markersize=8, markerfacecolor=PAPER, linestyle="")  # fmt: skip


def _smooth(losses: Sequence[float]) -> np.ndarray:
    """Means over a window that ends at each step."""
    values = np.asarray(losses, dtype=float)
    width = max(1, len(values) // 20)
    total = np.cumsum(np.r_[0.0, values])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (total[ends] - total[starts]) / (ends - starts)
