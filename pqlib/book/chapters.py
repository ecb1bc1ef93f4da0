"""Where a book's files lie, and what a chapter declares about itself."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from sphinx_external_toc.parsing import parse_toc_yaml

import pqlib
from pqlib.book.parameters import InputError, Parameter, check_overrides, read_parameters


@dataclass(frozen=True)
class Chapter:
    """A chapter as its notebook declares it; `name` is the file name without suffix."""

    name: str
    path: Path
    notebook: Any
    parameters: dict[str, Parameter]

    @property
    def timeout(self) -> int:
        """Seconds that one cell may take."""
        return self.notebook.metadata.get("pqlib", {}).get("cell_timeout_s", 120)

    def overrides(self, profile: str) -> dict[str, Any]:
        """Return the parameters that `profile` sets to other than their defaults."""
        profiles = self.notebook.metadata.get("pqlib", {}).get("profiles", {})
        return check_overrides(self.parameters, values=profiles.get(profile))


@dataclass(frozen=True)
class Book:
    """A checkout: `root` is the folder that holds ``_config.yml`` and ``_toc.yml``."""

    root: Path

    @classmethod
    def find(cls, start: Path) -> "Book":
        """Find the book that `start` lies in, else the one that this package lies in."""
        package = Path(pqlib.__file__).resolve().parent
        for folder in (start.resolve(), *start.resolve().parents, package.parent):
            if (folder / "_toc.yml").is_file() and (folder / "_config.yml").is_file():
                return cls(folder)
        raise InputError(f"{start}: no book here; go to a checkout, where _toc.yml lies")

    def output(self, profile: str) -> Path:
        """Return the folder that `profile` builds into; only ``book`` has ``_build`` itself."""
        return self.root / "_build" / ("" if profile == "book" else profile)

    @property
    def toc(self) -> dict[str, Any]:
        """The table of contents."""
        return yaml.safe_load((self.root / "_toc.yml").read_text("utf-8"))

    @property
    def pages(self) -> list[str]:
        """The pages in the table of contents, in order, without suffix."""
        return list(parse_toc_yaml(self.root / "_toc.yml"))

    def chapters(self) -> list[Chapter]:
        """Read the chapters in the table of contents, in order."""
        return [self.chapter(Path(p).name) for p in self.pages if p.startswith("notebooks/")]

    def chapter(self, name: str) -> Chapter:
        """Read the chapter `name`."""
        folder = self.root / "notebooks"
        known = {p.stem: p for p in sorted(folder.glob("*.ipynb"))}
        if name not in known:
            raise InputError(f"{name}: no such chapter; there are {', '.join(known)}")
        path = known[name]
        try:
            notebook = nbformat.read(path, as_version=4)
        except (ValueError, nbformat.ValidationError) as error:
            first = str(error).splitlines()[0][:80]
            raise InputError(f"{path.name} is not a readable notebook: {first}") from None
        _check_syntax(name, notebook)
        try:
            return Chapter(name, path, notebook, read_parameters(notebook))
        except InputError as error:
            raise InputError(f"{path.name}: {error}") from None


def _check_syntax(name: str, notebook: Any) -> None:
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "code":
            try:
                ast.parse(TransformerManager().transform_cell(cell.source))
            except SyntaxError as error:
                where = f"chapter {name}, cell {number}, line {error.lineno}"
                raise InputError(f"{where}: {error.msg}: {error.text}") from None
