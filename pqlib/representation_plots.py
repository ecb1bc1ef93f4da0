"""Figures of what fine-tuning learns: a table of `pqlib run representations` in, a Finding out."""

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from pqlib.findings import Finding
from pqlib.plot_style import NEUTRAL, PAPER, PRUNING, QUANTIZATION, subplots
from pqlib.representation_findings import (
    MEASURES,
    NAMES,
    changes,
    count_words,
    last_layer,
    last_layer_words,
    plain,
    start_words,
    trends,
)

STYLES: Mapping[str, dict[str, object]] = {
    "lsq": QUANTIZATION,
    "prune": PRUNING,
    "prune_at_once": PRUNING | {"linestyle": ":", "markerfacecolor": PAPER},
    "uncompressed": NEUTRAL | {"marker": "D", "markersize": 3.5, "linestyle": "-."},
}
LABELS = {"sqnr_db": "SNR (dB)", "cka": "CKA"}


def layer_maps(table: pd.DataFrame, measure: str, name: str) -> Finding:
    """Every layer after every epoch, for each compressed method and bit-width (Figure 7).

    Parameters
    ----------
    table : DataFrame
        Of `pqlib run representations`, one network and one seed.
    measure : {"sqnr_db", "cka"}
    name : str
        Label of the figure.
    """
    table = table[table["method"] != "uncompressed"]
    methods = [method for method in NAMES if method in set(table["method"])]
    bits = sorted(table["n_bits"].astype(int).unique())
    layers = list(dict.fromkeys(table["layer"]))
    finite = table.loc[np.isfinite(table[measure]), measure]
    limits = {"vmin": finite.min(), "vmax": finite.max()}
    height = (0.11 * min(max(len(layers), 14), 30) + 0.45) * len(bits) + 0.6
    figure, grid = subplots(
        len(bits), len(methods), height=height, sharex=True, sharey=True, squeeze=False
    )
    for axes, (n_bits, method) in zip(grid.flat, itertools.product(bits, methods), strict=True):
        run = table[(table["n_bits"] == n_bits) & (table["method"] == method)]
        axes.grid(visible=False)
        axes.set_title(f"{NAMES[method]}, {n_bits} bits", fontsize=9)
        if run.empty:
            axes.text(0.5, 0.5, "not run", transform=axes.transAxes, ha="center", fontsize=9)
            continue
        wide = run.pivot(index="layer", columns="epoch", values=measure).loc[layers]
        image = axes.imshow(
            wide.to_numpy(), aspect="auto", cmap="viridis", origin="upper", **limits
        )
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.supxlabel("epoch of fine-tuning", fontsize=10)
    figure.supylabel("layer, from input to output", fontsize=10)
    bar = figure.colorbar(image, ax=grid, shrink=0.8, pad=0.01)
    bar.set_label(LABELS[measure], fontsize=10)
    bar.ax.tick_params(labelsize=9)
    found = trends(table)
    finding = "closer to the original come " + "; ".join(
        f"under {NAMES[m]} {count_words(found, m, measure)}" for m in methods
    )
    worst = table[table["epoch"] == table["epoch"].max()].groupby("layer")[measure].mean().idxmin()
    at = layers.index(worst)
    return Finding(
        figure,
        alt=(
            f"Maps of {MEASURES[measure]} over layers and epochs: {finding}. At the end the layer "
            f"farthest from the original, on average, is number {at}, {worst}."
        ),
        caption=(
            f"{MEASURES[measure]} of every layer's output against the original's, after each epoch "
            "(epoch 0: compressed, not yet trained); brighter is closer. From the first column of "
            f"each map to its last, {finding}. Farthest at the end, on average over the maps, is "
            f"layer {at}, `{worst}`."
        ),
        name=name,
    )


def last_layer_lines(table: pd.DataFrame, name: str) -> Finding:
    """Both measures of the last layer before the classifier against epochs (Figure 8).

    Parameters
    ----------
    table : DataFrame
        Of `pqlib run representations`; several seeds are averaged.
    name : str
        Label of the figure.
    """
    layer = last_layer(table)
    rows = table[table["layer"] == layer]
    bits = sorted(rows["n_bits"].dropna().astype(int).unique())
    figure, grid = subplots(2, len(bits), height=4.9, sharex=True, sharey="row", squeeze=False)
    end = None
    for column, n_bits in enumerate(bits):
        for axes, measure in zip(grid[:, column], MEASURES, strict=True):
            for method, style in STYLES.items():
                # the control has no bits and stands in every panel
                own = (
                    rows["n_bits"].isna() if method == "uncompressed" else rows["n_bits"] == n_bits
                )
                run = rows[(rows["method"] == method) & own]
                if run.empty:
                    continue
                values = run.groupby("epoch")[measure].mean()
                values = values[np.isfinite(values)]
                axes.plot(values.index, values, **(dict(style) | {"label": NAMES[method]}))
                if (method, measure) == ("uncompressed", "sqnr_db") and len(values):
                    end = values.iloc[-1]
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        grid[0, column].set_title(f"{n_bits} bits")
    for axes, measure in zip(grid[:, 0], MEASURES, strict=True):
        axes.set_ylabel(LABELS[measure])
    handles = {h.get_label(): h for axes in grid.flat for h in axes.lines}
    figure.legend(
        [*handles.values()],
        [*handles],
        frameon=False,
        fontsize=9,
        loc="outside upper left",
        ncols=4,
    )
    figure.supxlabel("epoch of fine-tuning", fontsize=10)
    found = trends(table)
    moved = "; ".join(
        f"{NAMES[m]} goes {last_layer_words(found, m, 'sqnr_db')}"
        for m in NAMES
        if m in set(found["method"])
    )
    control = ""
    if end is not None:
        control = f" Fine-tuning without compression ends at {plain(end, 'sqnr_db')} dB."
    return Finding(
        figure,
        alt=f"SNR and CKA of layer {layer} against epochs: in SNR, {moved}.{control}",
        caption=(
            f"Layer `{layer}`, the last before the classifier, against the original's. Above SNR, "
            "below CKA; higher is closer. Epoch 0 is compressed and not yet trained, for gradual "
            f"pruning with the sparsity that it has only at the end. In SNR, {moved}.{control}"
        ),
        name=name,
    )


def before_and_after(table: pd.DataFrame, name: str) -> Finding:
    """Every layer at the end of fine-tuning against the same layer at epoch 0.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib run representations`.
    name : str
        Label of the figure.
    """
    moved = changes(table)
    figure, grid = subplots(1, 2, height=3.6)
    for axes, measure in zip(grid, MEASURES, strict=True):
        low, high = np.inf, -np.inf
        for method, rows in moved.groupby("method", sort=False):
            style = dict(STYLES[method]) | {"linestyle": "", "markersize": 4}
            x, y = rows[f"{measure}_before"], rows[f"{measure}_after"]
            axes.plot(x, y, **(style | {"label": NAMES[method]}))
            low, high = min(low, x.min(), y.min()), max(high, x.max(), y.max())
        axes.plot([low, high], [low, high], color=NEUTRAL["color"], linewidth=0.8)
        axes.set(xlabel=f"{LABELS[measure]} at epoch 0", ylabel=f"{LABELS[measure]} at the end")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside upper left", ncols=3)
    by_snr, by_cka = (start_words(moved, measure) for measure in MEASURES)
    return Finding(
        figure,
        alt=f"Each layer's distance after fine-tuning against before: by SNR, {by_snr}.",
        caption=(
            "One mark per layer, method and bit-width; above the line it came closer to the "
            f"original. By SNR, {by_snr}. By CKA, {by_cka}."
        ),
        name=name,
    )
