"""A small book of its own, so that the machinery is tested without the real chapters."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

CONFIG = """
title: A fixture
author: nobody
repository: {url: "", branch: main}
html: {}
sphinx:
  extra_extensions: [sphinx-mathjax-offline]
"""
TOC = """
format: jb-book
root: book/preface
chapters:
- file: notebooks/first
- file: notebooks/second
"""
FIGURE = """\
import matplotlib.pyplot as plt
from IPython.display import display

fig, ax = plt.subplots()
ax.plot(range(n_bits))
plt.close(fig)
finding = {"alt": f"A line to {n_bits}.", "caption": f"It ends at {n_bits}.", "name": "fig-line"}
import io
stream = io.StringIO()
fig.savefig(stream, format="svg")
display({"image/svg+xml": stream.getvalue(), "text/plain": ""}, raw=True,
        metadata={"pqlib": finding})
"""
PARAMETERS = """\
n_bits: int = 4  # bits per weight; range: 2..8
law: str = "normal"  # family of the weights; one of: normal, laplace
bits: list[int] = [2, 3]  # bit-widths to compare; range: 2..8
tail: float = 0.5  # how heavy; range: 0.1..1e3
"""


def chapter(*code: str, parameters: str = PARAMETERS, tags: tuple[str, ...] = ()):
    """Return a chapter with a title, a parameters cell and the cells `code`."""
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# A chapter\n\nIts question. $x^2$"),
            new_code_cell(parameters, metadata={"tags": ["parameters", *tags]}),
            *(new_code_cell(source) for source in code),
        ]
    )
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    notebook.metadata.language_info = {"name": "python"}
    notebook.metadata.pqlib = {"profiles": {"smoke": {"n_bits": 3}}, "cell_timeout_s": 30}
    return notebook


def write_book(root: Path, **chapters) -> Path:
    """Write a book with two chapters into `root`, and return it."""
    (root / "book").mkdir(parents=True)
    (root / "notebooks").mkdir()
    (root / "_config.yml").write_text(CONFIG)
    (root / "_toc.yml").write_text(TOC)
    (root / "book" / "preface.md").write_text("# Preface\n\nRead {doc}`../notebooks/first`.\n")
    notebooks = {
        "first": chapter(FIGURE, tags=("hide-input",)),
        "second": chapter("from pqlib import matched_sparsity\n1 + n_bits"),
    }
    for name, notebook in (notebooks | chapters).items():
        nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")
    return root
