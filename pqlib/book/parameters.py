"""Typed, checked parameters of a chapter, read from its cell tagged ``parameters``.

A line of that cell reads ``n_bits: int = 4  # bits per weight; range: 2..8``: after the semicolon
stands the constraint, ``range: LO..HI`` (inclusive) or ``one of: A, B``.
"""

import ast
import contextlib
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from papermill.inspection import _infer_parameters

_SCALARS = {"int": int, "float": float, "str": str, "bool": bool}
_READERS = {"int": int, "float": float, "str": str}  # YAML takes 1e-3 for text, 010 for 8
_TYPES = {*_SCALARS, "list[int]", "list[float]", "list[str]"}
_CONSTRAINT = re.compile(r"(?:^|;)\s*(range|one of)\s*:\s*(.*)$")
_RANGE = re.compile(r"([-+.\deE]*\d)\.\.([-+.\deE]*\d)")


class InputError(ValueError, TypeError):
    """What a user or an author gave cannot be used; the message names it and the remedy."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: `name`, `type` and `default` as in the cell, `help`, and `constraint`."""

    name: str
    type: str
    default: Any
    help: str
    constraint: str = ""

    def parse(self, text: str) -> Any:
        """Read a value from the command line by the declared type."""
        value: Any = text
        with contextlib.suppress(ValueError, yaml.YAMLError):
            value = _READERS.get(self.type, yaml.safe_load)(text)
        return self.check(value)

    def check(self, value: Any) -> Any:
        """Return `value` in the declared type, or raise InputError."""
        if not self.type.startswith("list["):
            return self._check_element(value)
        if not isinstance(value, list) or not value:
            raise InputError(
                f"{self.name}: {value!r} is not a {self.type} with elements; write it as "
                f"-y '{{{self.name}: {self.default}}}'"
            )
        return [self._check_element(item) for item in value]

    def _check_element(self, value: Any) -> Any:
        kind = _SCALARS[self.type.removeprefix("list[").removesuffix("]")]
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise InputError(
                f"{self.name}: {value!r} is not of type {kind.__name__}; "
                f"give a value like the default, {self.default!r}"
            )
        form, _, allowed = self.constraint.partition(": ")
        if form == "range":
            low, high = map(float, allowed.split(".."))
            if not low <= value <= high:
                raise InputError(f"{self.name}: {value!r} is out of range; use {allowed}")
        elif form == "one of" and str(value) not in allowed.split(", "):
            hint = _nearest(str(value), allowed.split(", "))
            raise InputError(f"{self.name}: {value!r} is not one of {allowed}{hint}")
        return value


def read_parameters(notebook: Any) -> dict[str, Parameter]:
    """Read the parameters of a notebook, refusing those that papermill would drop.

    Parameters
    ----------
    notebook : nbformat notebook
        With at most one cell tagged ``parameters``.

    Returns
    -------
    dict of str to Parameter
        In the order of the cell.
    """
    for cell in notebook.cells:
        cell.metadata.setdefault("tags", [])  # papermill takes them for granted
    source = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.tags]
    if len(source) > 1:
        raise InputError(f"{len(source)} cells are tagged 'parameters'; tag one")
    seen = {p.name: p for p in _infer_parameters(notebook)}
    found = {}
    for node in ast.parse("".join(source)).body:
        if not isinstance(node, ast.AnnAssign) or node.value is None:
            raise InputError(f"parameters cell: write {ast.unparse(node)!r} as name: type = value")
        name, kind = ast.unparse(node.target), ast.unparse(node.annotation)
        if kind not in _TYPES:
            raise InputError(f"parameters cell: {name}: {kind}; use {', '.join(sorted(_TYPES))}")
        if name not in seen or seen[name].inferred_type_name != kind:
            raise InputError(
                f"parameters cell: papermill does not see {name}: {kind}; write it on one line, "
                "without a further '=' in value or comment"
            )
        meaning, constraint = _split(name, seen[name].help)
        parameter = Parameter(name, kind, ast.literal_eval(node.value), meaning, constraint)
        parameter.check(parameter.default)
        found[name] = parameter
    return found


def check_overrides(
    parameters: Mapping[str, Parameter],
    texts: Iterable[tuple[str, str]] = (),
    values: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Check overrides before a kernel starts, and return those that differ from the defaults.

    Parameters
    ----------
    parameters : dict of str to Parameter
        What the chapter declares.
    texts : iterable of (name, text)
        From the command line, read by the declared type; they win over `values`.
    values : dict, optional
        Typed values, from YAML or a profile.

    Returns
    -------
    dict
        Checked values by name.
    """
    checked = {}
    for given, read in (((values or {}).items(), Parameter.check), (texts, Parameter.parse)):
        for name, value in given:
            if name not in parameters:
                raise InputError(f"{name}: no such parameter{_nearest(str(name), parameters)}")
            checked[name] = read(parameters[name], value)
    return {name: v for name, v in checked.items() if v != parameters[name].default}


def _split(name: str, comment: str) -> tuple[str, str]:
    match = _CONSTRAINT.search(comment)
    if match is None:
        return comment, ""
    form, allowed = match[1], ", ".join(part.strip() for part in match[2].split(","))
    if form == "range" and not _RANGE.fullmatch(allowed):
        raise InputError(f"parameters cell: {name}: write its range as LO..HI, not {allowed!r}")
    return comment[: match.start()].strip(), f"{form}: {allowed}"


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are {', '.join(known)}" if known else "; there is none"
