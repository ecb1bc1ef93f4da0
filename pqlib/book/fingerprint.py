"""What the result of a chapter depends on, part by part: the key of its cache.

jupyter-cache sees only the cells. Here the edit of a module re-executes the chapters that use
it, directly or not, and no others.
"""

import ast
import hashlib
import os
import platform
import re
import uuid
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import grimp
from IPython.core.inputtransformer2 import TransformerManager

import pqlib
from pqlib import authors
from pqlib.book.chapters import Chapter

_PACKAGE = Path(pqlib.__file__).resolve().parent
_RELATIVE = re.compile(r"\w[\w.-]*(/\w[\w.-]*)+")
_APART = ("pqlib.book", "pqlib.cli", "pqlib.__main__")


def digest(*parts: Any) -> str:
    """Return a short hash of `parts`, as text."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def hash_path(path: Path) -> str:
    """Return a short hash of a file's bytes, or of the names and bytes in a folder.

    Empty where there is nothing.
    """
    if not os.path.exists(path):  # which no odd text of a parameter can break
        return ""
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".pyc")
    return digest(*((p.relative_to(path).as_posix(), hash_path(p)) for p in files))


def hash_listing(path: Path) -> str:
    """Return a short hash of names, sizes and times in a folder, which may hold gigabytes."""
    if not os.path.exists(path):
        return ""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    states = [(p.as_posix(), p.stat()) for p in files]
    return digest(*((name, state.st_size, state.st_mtime_ns) for name, state in states))


def _place(text: str) -> str:
    """The path in a source such as ``folder:PATH`` or ``segmentation=camvid:PATH``."""
    return os.path.expanduser(os.path.expandvars(text.partition(":")[2]))


def _literals(code: Iterable[str]) -> set[str]:
    """Texts in the cells that may be paths, such as that of committed results."""
    cells = [ast.parse(TransformerManager().transform_cell(cell)) for cell in code]
    nodes = (node for cell in cells for node in ast.walk(cell) if isinstance(node, ast.Constant))
    return {n.value for n in nodes if isinstance(n.value, str) and _RELATIVE.fullmatch(n.value)}


@lru_cache
def installed() -> dict[str, str]:
    """Return the version of Python and of every installed distribution."""
    versions = {d.name.lower(): d.version for d in distributions()}
    own = {"pqlib": pqlib.__version__, "Python": platform.python_version()}
    return dict(sorted((versions | own).items()))


def fingerprint(
    chapter: Chapter, overrides: Mapping[str, Any], root: Path
) -> dict[str, dict[str, Any]]:
    """Return all that the result of running `chapter` depends on.

    Parameters
    ----------
    chapter : Chapter
        What is to be run.
    overrides : dict
        Parameters that differ from the defaults.
    root : Path
        Parameters that name files do so relative to it.

    Returns
    -------
    dict of str to dict
        The parts notebook, parameters, modules, versions and data.
    """
    code = [c.source for c in chapter.notebook.cells if c.cell_type == "code"]
    cells = [(c.cell_type, c.source, c.metadata) for c in chapter.notebook.cells]
    values = {p.name: p.default for p in chapter.parameters.values()} | dict(overrides)
    lists = [v if isinstance(v, list) else [v] for v in values.values()]
    texts = [v for items in lists for v in items if isinstance(v, str) and v]
    used = used_modules(code)
    data = {v: hash_path(root / os.path.expanduser(v)) for v in {*texts, *_literals(code)}}
    data |= {v: hash_listing(root / _place(v)) for v in texts if _place(v)}
    data |= {v: uuid.uuid4().hex for v in texts if v.startswith("python:")}  # any code at all
    if "pqlib.authors" in used:
        archive = authors.archive()
        data |= {archive.name: hash_path(archive)}
    if "PQLIB_DATA" in os.environ and any("PQLIB_DATA" in text for text in code):
        # the folders that the chapter names, of a place that may hold gigabytes
        folder = Path(os.environ["PQLIB_DATA"])
        named = [d.name for d in folder.iterdir() if d.is_dir()] if folder.is_dir() else []
        named = [d for d in named if any(f'"{d}"' in c for c in code)]
        data |= {f"PQLIB_DATA/{d}": hash_path(folder / d) for d in named}
    return {
        "notebook": {chapter.name: digest(cells, chapter.notebook.metadata)},
        "parameters": dict(overrides),
        "modules": {name: hash_path(_file(name)) for name in sorted(used)}
        | {path.name: hash_path(path) for path in _PACKAGE.glob("*.csv")},
        "versions": installed(),
        "data": {name: value for name, value in sorted(data.items()) if value},
    }


def used_modules(cells: Iterable[str]) -> set[str]:
    """Return the modules of pqlib that code cells use, transitively, lazy imports included.

    Parameters
    ----------
    cells : iterable of str
        Sources of code cells; magics are understood.

    Returns
    -------
    set of str
        Dotted names. All but the book machinery when a use cannot be told from the source, as
        in ``getattr(pq, name)``.
    """
    graph = grimp.build_graph("pqlib", cache_dir=None)
    text = "\n".join(TransformerManager().transform_cell(cell) for cell in cells)
    todo, found = _named(text, graph.modules), set()
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        if name == "pqlib":  # its __init__ is lazy: it imports what is asked of it by name
            continue
        todo.add(name.rpartition(".")[0])
        direct = graph.find_modules_directly_imported_by(name)
        if "pqlib" in direct:
            todo |= _named(_file(name).read_text("utf-8"), graph.modules)
        todo |= direct
    return found


def _named(source: str, modules: set[str]) -> set[str]:
    """Modules that `source` imports, or reaches as attributes of the package."""
    everything = {m for m in modules if not m.startswith(_APART)}
    home, roots, found, uses = _home(), set(), set(), {}

    def reach(name: str) -> set[str]:
        module = f"pqlib.{home.get(name, name)}"
        return {module} if module in modules else set() if name.startswith("__") else everything

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "pqlib":
                    found |= {"pqlib", alias.name}
                    if alias.name == "pqlib" or not alias.asname:
                        roots.add(alias.asname or "pqlib")
        elif isinstance(node, ast.ImportFrom) and node.module == "pqlib":
            found |= {"pqlib"}.union(*(reach(alias.name) for alias in node.names))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pqlib."):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {node.module} | inner & modules
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            found |= everything
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            uses[node.value] = node.attr  # an attribute is walked before the name in it
        elif isinstance(node, ast.Name):
            uses.setdefault(node, "*")
    for node, attribute in uses.items():
        if node.id in roots:
            found |= reach(attribute)
    return found


def _home() -> dict[str, str]:
    """Read the table of the package's __init__ that says which module holds which name."""
    for node in ast.parse(_file("pqlib").read_text("utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and "_HOME" in ast.unparse(node):
            return ast.literal_eval(node.value)
    return {}


def _file(module: str) -> Path:
    path = _PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
