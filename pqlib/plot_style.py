"""One look for all figures: colors, markers, sizes, and how numbers are written on them."""

from collections.abc import Mapping

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike

# one color, marker and line style for each method through the whole book
QUANTIZATION = {"color": "#00629b", "marker": "o", "linestyle": "-", "label": "quantization"}
PRUNING = {"color": "#b8420a", "marker": "s", "linestyle": "--", "label": "pruning"}
METHODS = {"quantization": QUANTIZATION, "pruning": PRUNING}
NEUTRAL = {"color": "#444444", "marker": "", "linestyle": ":"}
PAPER = "#ffffff"  # figures lie on white in both themes of the book
WIDTH = 6.8  # inches: the text column, so that 10 pt stays 10 pt
_RC = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.markersize": 5,
}
MANY = 400  # marks beyond which they are drawn small, and as pixels


def subplots(n_rows: int = 1, n_columns: int = 1, height: float = 3.2, **shared):
    """A figure as wide as the text column, ``height`` inches high, and its axes."""
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor=PAPER)
        return figure, figure.subplots(n_rows, n_columns, **shared)


def panels_and_legend(n: int, height: float, **shared) -> tuple[Figure, list[Axes]]:
    """``n`` panels, up to four in a row of ``height`` inches, and an empty one for a `legend`."""
    n_columns = 4 if n > 3 else n + 1
    n_rows = -(-(n + 1) // n_columns)
    height = height * n_rows + 0.6
    figure, grid = subplots(n_rows, n_columns, height=height, squeeze=False, **shared)
    panels = list(grid.ravel())
    for axes in panels[n:]:
        axes.set_axis_off()
    return figure, panels


def legend(panels: list[Axes], place: int, title: str) -> None:
    """What the first panel shows, written into the empty one at ``place``."""
    handles, labels = panels[0].get_legend_handles_labels()
    panels[place].legend(handles, labels, title=title, loc="center", frameon=False, fontsize=9,
                         title_fontsize=9)  # fmt: skip


def number(value: float) -> str:
    """Three digits, or a whole number with its thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def line(style: Mapping[str, object], label: str | None = None) -> dict[str, object]:
    """Keywords of a line without markers, in a method's style."""
    return {
        "color": style["color"],
        "linestyle": style["linestyle"],
        "label": label or style["label"],
    }


def marks(axes: Axes, x: ArrayLike, y: ArrayLike, method: str, *, many: bool) -> None:
    """One mark per tensor that ``method`` wins, hollow for quantization; ``many`` are small."""
    style = METHODS[method]
    axes.plot(
        x,
        y,
        linestyle="",
        marker=style["marker"],
        color=style["color"],
        label=method,
        markersize=1.5 if many else 3.5,
        markerfacecolor=style["color"] if many or method == "pruning" else PAPER,
        rasterized=many,
    )


def log_axes(axes: Axes, which: str) -> None:
    """Make the axis ``which``, "x" or "y", logarithmic, marked with plain numbers."""
    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    low, high = axis.get_view_interval()
    steps = (1, 2, 5) if high < 40 * low else (1,)
    axis.set_major_locator(LogLocator(subs=steps, numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
