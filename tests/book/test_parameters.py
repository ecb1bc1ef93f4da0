from pathlib import Path

import nbformat
import pytest
from fixture_book import chapter
from hypothesis import given
from hypothesis import strategies as st
from papermill.inspection import inspect_notebook

from pqlib.book.chapters import Book
from pqlib.book.parameters import check_overrides, read_parameters

KNOWN = read_parameters(chapter())


def test_reads_name_type_default_constraint_and_meaning():
    p = KNOWN["bits"]
    assert list(KNOWN) == ["n_bits", "law", "bits", "tail"]
    assert (p.type, p.default, p.constraint) == ("list[int]", [2, 3], "range: 2..8")
    assert p.help == "bit-widths to compare"


def test_equals_what_papermill_sees(tmp_path):
    path = tmp_path / "chapter.ipynb"
    nbformat.write(chapter(), path)
    seen = {name: p["inferred_type_name"] for name, p in inspect_notebook(path).items()}
    assert seen == {name: p.type for name, p in KNOWN.items()}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a: tuple[int, int] = (1, 2)", "tuple"),
        ("a: int | None = 3", "None"),
        ("a: Literal['x'] = 'x'", "Literal"),
        ("a = 3", "name: type = value"),
        ("a: int = 3  # where x = y", "does not see"),
        ("a: int = 3  # bits; range: two to four", "LO..HI"),
        ("a: int = 9  # bits; range: 2..8", "out of range"),
        ("import os", "name: type = value"),
    ],
)
def test_refuses_what_papermill_would_drop_and_what_is_wrong(line, says):
    with pytest.raises(ValueError, match=says.replace(".", r"\.")):
        read_parameters(chapter(parameters=line))


def test_refuses_two_parameters_cells():
    notebook = chapter("b: int = 1")
    notebook.cells[-1].metadata.tags = ["parameters"]
    with pytest.raises(ValueError, match="2 cells"):
        read_parameters(notebook)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n_bits", "3", 3),
        ("law", "laplace", "laplace"),
        ("tail", "2", 2.0),
        ("tail", "1e-1", 0.1),
        ("bits", "[2, 8]", [2, 8]),
    ],
)
def test_parses_text_by_the_declared_type(name, text, value):
    parsed = check_overrides(KNOWN, [(name, text)])
    assert parsed == {name: value}
    assert type(parsed[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("n_bit", "3", "did you mean 'n_bits'"),
        ("n_bits", "three", "n_bits: 'three' is not of type int"),
        ("n_bits", "2.5", "n_bits: '2.5' is not of type int"),
        ("n_bits", "true", "not of type int"),
        ("n_bits", "9", "out of range; use 2..8"),
        ("law", "laplac", "did you mean 'laplace'"),
        ("tail", "nan", "out of range"),
        ("tail", "inf", "out of range"),
        ("tail", "heavy", "not of type float"),
        ("n_bits", "{", "not of type int"),
        ("bits", "3", "with elements"),
        ("bits", "[2, ", "with elements"),
        ("bits", "[]", "with elements"),
        ("bits", "[2, 9]", "out of range"),
    ],
)
def test_refuses_mistakes_naming_name_value_and_remedy(name, text, says):
    with pytest.raises((ValueError, TypeError), match=says):
        check_overrides(KNOWN, [(name, text)])


def test_text_wins_over_values_and_defaults_are_no_overrides():
    assert check_overrides(KNOWN, [("n_bits", "5")], {"n_bits": 3, "law": "normal"}) == {
        "n_bits": 5
    }


@given(st.integers())
def test_an_integer_is_taken_exactly_in_its_range(value):
    if 2 <= value <= 8:
        assert KNOWN["n_bits"].parse(str(value)) == value
    else:
        with pytest.raises(ValueError):
            KNOWN["n_bits"].parse(str(value))


def test_parameters_of_the_real_chapters_equal_papermills_inspection():
    chapters = Book.find(Path(__file__)).chapters()
    assert chapters
    for real in chapters:
        seen = {n: p["inferred_type_name"] for n, p in inspect_notebook(real.path).items()}
        assert seen == {name: p.type for name, p in real.parameters.items()}
