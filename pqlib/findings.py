"""What a cell leaves for the page: figures with their finding, numbers, tables."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure

_RECORD = "application/papermill.record/"


@dataclass(frozen=True)
class Finding:
    """A figure together with what it shows, in words that come from its data.

    A notebook cell that ends in a Finding shows the figure as SVG. The book takes its alternative
    text and caption from here, so that no sentence can contradict the data.

    Attributes
    ----------
    figure : matplotlib.figure.Figure
    alt : str
        The finding in a sentence or two, plain text, for those who do not see the figure.
    caption : str
        The argument that the figure carries, MyST Markdown.
    name : str
        Label for cross references, such as ``fig-sqnr-by-bits``.
    """

    figure: Figure
    alt: str
    caption: str
    name: str

    def svg(self) -> str:
        """The figure as SVG, the same text for the same data."""
        buffer = io.StringIO()
        with matplotlib.rc_context({"svg.hashsalt": self.name, "svg.fonttype": "path"}):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None):
        words = {"alt": self.alt, "caption": self.caption, "name": self.name}
        return {"image/svg+xml": self.svg(), "text/plain": self.alt}, {"pqlib": words}


@dataclass(frozen=True)
class Table:
    """Named columns, shown as a Markdown table.

    Attributes
    ----------
    columns : mapping of str to iterable
        Heading to values, all of one length. Floats are shown with ``digits`` decimals, infinity
        by its sign, None as a dash.
    digits : int, default 2
    """

    columns: Mapping[str, Iterable[object]]
    digits: int = 2

    def __post_init__(self):
        if not isinstance(self.columns, Mapping):
            raise TypeError(f"columns must map headings to values, got {self.columns!r}")

    def _cell(self, value: object) -> str:
        if value is None:
            return "–"
        if isinstance(value, float):
            return f"{value:z.{self.digits}f}".replace("inf", "∞").replace("-", "−")
        return str(value).replace("|", r"\|")

    def _repr_markdown_(self) -> str:
        rows = list(zip(*self.columns.values(), strict=True))
        if not rows:
            raise ValueError("columns must hold at least one row")
        aligned = ["---" if isinstance(v, str) else "--:" for v in rows[0]]
        lines = [self.columns, aligned, *([self._cell(v) for v in row] for row in rows)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def __repr__(self) -> str:
        return self._repr_markdown_()


def glue(**values: object) -> None:
    """Hand values to the page, where the role ``glue:text`` with the name stands for the value.

    The output is what ``myst_nb.glue`` writes, without importing it, so that a chapter runs where
    the book's tools are not installed. Strings are shown as they are; format numbers first.
    """
    from IPython.display import display

    for name, value in values.items():
        display(
            {_RECORD + "text/plain": repr(str(value))},
            raw=True,
            metadata={"scrapbook": {"name": name, "mime_prefix": _RECORD}},
        )
