"""Figures of the chapter on layer SNR and accuracy: tables of `snr_findings` in, Findings out."""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from pqlib.findings import Finding
from pqlib.plot_style import METHODS, NEUTRAL, PAPER, log_axes, subplots
from pqlib.snr_findings import (
    BOTH,
    EXPECTED,
    OUTCOMES,
    PREDICTORS,
    UNITS,
    at_equal_snr,
    dearer,
    ends_of,
    found_in,
    mean_gap,
    of_method,
    order_words,
    sensitivities,
    spread_words,
)
from pqlib.snr_statistics import correlation, finite_rows

_POOLED = NEUTRAL | {"marker": "D", "label": "both"}
_PLAIN = FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−"))
_FLOOR = 1e-4  # nats: a smaller increase is not drawn on a logarithmic axis
_TITLES = {"pearson": "Pearson, of the numbers", "spearman": "Spearman, of the ranks"}
_SHORT = {  # of `PREDICTORS`, on two lines
    "snr": "layer,\nlinear SNR",
    "snr_db": "layer,\nSNR in dB",
    "noise": "layer,\nnoise / signal",
    "logit_snr_db": "logits,\nSNR in dB",
}


def drop_against_snr(table: pd.DataFrame, name: str, *, n_draws: int, seed: int) -> Finding:
    """Fig 6: what the network loses against the SNR of the compressed layer, a panel per method.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib.snr_findings.prepared`.
    name : str
        Label of the figure.
    n_draws, seed : int
        Of the intervals.
    """
    figure, grid = subplots(2, 2, height=5.4, sharex=True, sharey="row")
    said = {}
    for axes in grid[1]:
        axes.set_yscale("symlog", linthresh=0.001)
    for column, (method, style) in zip(grid.T, METHODS.items(), strict=True):
        own = of_method(table, method)
        for axes, outcome in zip(column, OUTCOMES, strict=True):
            rows = finite_rows(own, "snr_db", outcome)
            axes.plot(rows["snr_db"], rows[outcome], linestyle="", marker=style["marker"],
                      color=style["color"], markersize=4.5,
                      markerfacecolor=PAPER if method == "quantization" else style["color"],
                      label=method)  # fmt: skip
            axes.axhline(0, color=NEUTRAL["color"], linewidth=0.8)
            options = {"n_draws": n_draws, "seed": seed}
            said[method, outcome] = correlation(own, "snr_db", outcome, "spearman", **options)
        column[0].set_title(method)
        column[1].set_xlabel("SNR of the layer's output (dB)")
    grid[0, 0].set_ylabel("accuracy lost (points)")
    grid[1, 0].yaxis.set_major_formatter(_PLAIN)
    grid[1, 0].set_ylabel("cross-entropy gained (nats)")
    parts = [
        f"for {method} the rank correlation with SNR is {said[method, 'drop']} for accuracy lost "
        f"and {said[method, 'increase']} for cross-entropy gained"
        for method in METHODS
    ]
    finding = "; ".join(parts)
    n_layers = table["layer"].nunique()
    return Finding(
        figure,
        alt=f"What the network loses against the SNR of one compressed layer: {finding}.",
        caption=(
            f"Each mark is the network with one of its {n_layers} layers compressed and the others "
            f"as they were; the lower axis is linear up to a thousandth and logarithmic beyond. "
            f"With 95 % intervals over layers, {finding}."
        ),
        name=name,
    )


def loss_against_noise(table: pd.DataFrame, name: str) -> Finding:
    """The increase of cross-entropy against noise over signal, a line per layer and method.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib.snr_findings.prepared`.
    name : str
        Label of the figure.
    """
    figure, panels = subplots(1, 2, height=3.8, sharex=True, sharey=True)
    slopes = sensitivities(table)
    shown = finite_rows(table, "noise", "increase")
    shown = shown[(shown["noise"] > 0) & (shown["increase"] > _FLOOR)]
    named = dict(zip(ends_of(slopes), "^v", strict=False))
    for axes, (method, style) in zip(panels, METHODS.items(), strict=True):
        for layer, rows in of_method(shown, method).groupby("layer", sort=False):
            rows = rows.sort_values("noise")
            look = {"linewidth": 2.2, "marker": named[layer]} if layer in named else {}
            axes.plot(rows["noise"], rows["increase"], linestyle=style["linestyle"],
                      **({"color": style["color"], "linewidth": 0.8} | look))  # fmt: skip
        axes.set(title=method, xlabel="noise / signal of the layer")
    if len(shown):
        ends = np.array([shown["noise"].min(), shown["noise"].max()])
        middle = np.exp(np.log(shown["increase"] / shown["noise"]).median())
        for axes in panels:
            axes.plot(ends, middle * ends, **(NEUTRAL | {"linewidth": 2.0}))
            log_axes(axes, "x")
            log_axes(axes, "y")
            axes.set_ylim(bottom=_FLOOR)
    panels[0].set_ylabel("cross-entropy gained (nats)")
    looks = [
        ("^", "-", "cheapest layer that costs"),
        ("v", "-", "dearest layer"),
        ("", ":", "proportional"),
    ]
    handles = [Line2D([], [], color=NEUTRAL["color"], marker=m, linestyle=s, label=t)
               for m, s, t in looks]  # fmt: skip
    figure.legend(handles=handles, frameon=False, fontsize=9, loc="outside upper left", ncols=3)
    finding = spread_words(slopes)
    left_out = len(table) - len(shown)
    return Finding(
        figure,
        alt=f"Cross-entropy gained against noise over signal, a line per layer: {finding}.",
        caption=(
            "Each line is one layer at its budgets, both axes logarithmic; the dotted line is "
            f"proportional to the noise. {finding[:1].upper()}{finding[1:]}. {left_out} of "
            f"{len(table)} points gained less than {_FLOOR:g} nats and are not drawn."
        ),
        name=name,
    )


def correlation_intervals(found: pd.DataFrame, outcome: str, name: str) -> Finding:
    """Both correlations of every predictor, with their intervals.

    Parameters
    ----------
    found : DataFrame
        Of `pqlib.snr_findings.correlations`.
    outcome : str
        The column whose correlations are shown.
    name : str
        Label of the figure.
    """
    figure, panels = subplots(1, 2, height=0.8 * len(_SHORT) + 1.4, sharey=True)
    looks = METHODS | {BOTH: _POOLED}
    for axes, kind in zip(panels, _TITLES, strict=True):
        for place, predictor in enumerate(_SHORT):
            for offset, (method, style) in zip((-0.22, 0, 0.22), looks.items(), strict=True):
                cell = found_in(found, method, predictor, outcome, kind)
                ends = [EXPECTED[predictor] * end for end in (cell.low, cell.high)]
                axes.hlines(place + offset, *sorted(ends), color=style["color"], linewidth=2)
                axes.plot(EXPECTED[predictor] * cell.value, place + offset, linestyle="",
                          marker=style["marker"], color=style["color"], markerfacecolor=PAPER,
                          markersize=6, label=None if place else method)  # fmt: skip
        axes.set(title=_TITLES[kind], xlabel="correlation, as expected > 0")
        axes.axvline(0, color=NEUTRAL["color"], linewidth=0.8)
    panels[0].set_yticks(range(len(_SHORT)), [*_SHORT.values()])
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside upper left", ncols=3)
    numbers = ", ".join(
        f"{found_in(found, BOTH, p, outcome, 'pearson')} with the {words}"
        for p, words in PREDICTORS.items()
    )
    ranks = found_in(found, BOTH, "snr_db", outcome, "spearman")
    finding = (
        f"for {OUTCOMES[outcome]} and both methods together, Pearson's correlation is {numbers}; "
        f"{order_words(ranks)}"
    )
    return Finding(
        figure,
        alt=f"Correlations with 95 % intervals: {finding}.",
        caption=(
            "Correlations, turned so that what one expects (more noise, more loss) counts as "
            f"positive, with 95 % intervals over layers: {finding}."
        ),
        name=name,
    )


def gap_at_equal_snr(
    table: pd.DataFrame, outcome: str, name: str, *, n_draws: int, seed: int
) -> Finding:
    """By how much pruning loses more than quantization at one SNR, layer by layer.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib.snr_findings.prepared`.
    outcome : str
        What is compared.
    name : str
        Label of the figure.
    n_draws, seed : int
        Of the intervals.
    """
    layers = table["layer"].unique().tolist()
    figure, axes = subplots(height=min(0.21 * len(layers) + 1.7, 7.5))
    axes.axvline(0, color=NEUTRAL["color"], linewidth=0.8)
    axes.set_xscale("symlog", linthresh=0.1)  # one layer may lose a hundred times another's
    axes.xaxis.set_major_formatter(_PLAIN)
    said = {}
    for at, style in METHODS.items():
        pairs = at_equal_snr(table, outcome, at)
        gap = mean_gap(pairs, n_draws=n_draws, seed=seed)
        own = pairs.groupby("layer")["difference"].mean()
        axes.plot(own, [layers.index(layer) for layer in own.index], linestyle="",
                  marker=style["marker"], color=style["color"], markerfacecolor=PAPER,
                  markersize=6, label=f"at the SNRs of {at}")  # fmt: skip
        place = len(layers) + 0.5 + (at == "pruning")
        axes.hlines(place, gap.low, gap.high, color=style["color"], linewidth=3)
        axes.plot(gap.value, place, marker=style["marker"], color=style["color"], markersize=7)
        said[at] = f"at the SNRs of {at}, {dearer(gap, UNITS[outcome])}"
    axes.set_yticks([*range(len(layers)), len(layers) + 1], [*layers, "mean"], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel(f"pruning's excess in {OUTCOMES[outcome]}")
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=9, ncols=2,
                  loc="outside upper left")  # fmt: skip
    finding = "; ".join(said.values())
    return Finding(
        figure,
        alt=f"What pruning loses more than quantization on the same layer at equal SNR: {finding}.",
        caption=(
            "The difference on the same layer at the same SNR of its output, averaged over the "
            "budgets; left of the line quantization loses more (the axis is linear up to a tenth, "
            "logarithmic beyond). The other method is interpolated "
            f"between two budgets. At the bottom the means with 95 % intervals over layers: "
            f"{finding}."
        ),
        name=name,
    )
