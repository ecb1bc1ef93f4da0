import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fixture_book import chapter

import pqlib
from pqlib import authors
from pqlib.book.chapters import Chapter
from pqlib.book.fingerprint import fingerprint, used_modules
from pqlib.book.parameters import read_parameters

PACKAGE = Path(pqlib.__file__).parent
APART = {"pqlib.cli", "pqlib.__main__"}


def made_of(*code, overrides=None, root=Path(), **options):
    notebook = chapter(*code, **options)
    real = Chapter("x", Path("x.ipynb"), notebook, read_parameters(notebook))
    return fingerprint(real, overrides or {}, root)


@pytest.mark.parametrize(
    ("code", "inside", "outside"),
    [
        ("import pqlib as pq\npq.matched_sparsity(4)", "budget", "ranges"),
        ("from pqlib import optimal_scale", "ranges", "comparison"),
        ("from pqlib import budget", "budget", "ranges"),
        ("import pqlib.budget", "budget", "ranges"),
        ("from pqlib.budget import n_zeros", "budget", "ranges"),
        ("def late():\n    from pqlib.ranges import optimal_scale", "ranges", "comparison"),
        ("%matplotlib inline\nfrom pqlib import budget", "budget", "ranges"),
    ],
)
def test_a_chapter_depends_on_the_modules_that_it_names(code, inside, outside):
    used = used_modules([code])
    assert {"pqlib", f"pqlib.{inside}"} <= used
    assert f"pqlib.{outside}" not in used


def test_dependence_is_transitive():
    assert "pqlib.distributions" in used_modules(["from pqlib.expected_error import *"])


@pytest.mark.parametrize(
    "code",
    [
        "from pqlib import *",
        "import pqlib as pq\ngetattr(pq, 'ranges')",
        "import importlib\nimportlib.import_module('pqlib.ranges')",
        "import pqlib\npqlib.no_such_name",
    ],
)
def test_what_cannot_be_told_depends_on_all_but_the_machinery(code):
    used = used_modules([code])
    names = {f"pqlib.{path.stem}" for path in PACKAGE.glob("*.py")} - {"pqlib.__init__"}
    assert names - APART <= used
    assert not used & APART and not any(name.startswith("pqlib.book") for name in used)


def test_cells_without_pqlib_depend_on_no_module():
    assert used_modules(["import numpy as np"]) == set()


def test_parts_change_with_what_they_describe(tmp_path, monkeypatch):
    base = made_of("1 + 1")
    assert base == made_of("1 + 1")
    assert base["notebook"] != made_of("1 + 2")["notebook"]
    assert base["parameters"] != made_of("1 + 1", overrides={"n_bits": 3})["parameters"]
    assert base["versions"]["numpy"] and base["versions"]["Python"] == sys.version.split()[0]

    (tmp_path / "rows.csv").write_text("1")
    reads = {"parameters": 'rows: str = "rows.csv"  # where they lie', "root": tmp_path}
    before = made_of(**reads)
    assert set(before["data"]) == {"rows.csv"}
    (tmp_path / "rows.csv").write_text("2")
    assert made_of(**reads)["data"] != before["data"]

    monkeypatch.setenv("PQLIB_DATA", str(tmp_path))
    for folder in ("zoo", "images"):
        (tmp_path / folder).mkdir()
    assert made_of("1 + 1")["data"] == {}
    reads = 'import os\nopen(os.environ["PQLIB_DATA"] + "/" + "zoo")'
    before = made_of(reads)["data"]
    assert set(before) == {"PQLIB_DATA/zoo"}  # of what may be gigabytes, the part that is named
    (tmp_path / "images" / "a").write_text("1")
    assert made_of(reads)["data"] == before
    (tmp_path / "zoo" / "a").write_text("1")
    assert made_of(reads)["data"] != before

    several = {"parameters": 'files: list[str] = ["rows.csv"]  # they too', "root": tmp_path}
    assert set(made_of(**several)["data"]) == {"rows.csv"}


def test_files_that_are_not_the_value_of_a_parameter(tmp_path, monkeypatch):
    """Named in a cell, behind a prefix, fetched by the library, or lying beside its modules."""
    (tmp_path / "book" / "results").mkdir(parents=True)
    rows = tmp_path / "book" / "results" / "rows.csv"
    rows.write_text("1")
    cell = 'open("book/results/rows.csv"); "/"; "book"; "https://a/b"'
    before = made_of(cell, root=tmp_path)["data"]
    assert set(before) == {"book/results/rows.csv"}
    rows.write_text("2")
    assert made_of(cell, root=tmp_path)["data"] != before

    monkeypatch.setenv("HERE", str(tmp_path))
    for source in ("folder:$HERE/book", "segmentation=camvid:book"):
        reads = {"parameters": 'data: str = "digits"  # or another', "root": tmp_path}
        reads |= {"overrides": {"data": source}}
        before = made_of(**reads)["data"]
        assert set(before) == {source}
        rows.write_text(rows.read_text() + "3")
        assert made_of(**reads)["data"] != before

    own = {"parameters": 'model: str = "python:own_nets:net"  # or another', "root": tmp_path}
    assert made_of(**own)["data"] != made_of(**own)["data"]  # its code can do anything

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reads = "from pqlib.authors import authors_rows"
    assert made_of(reads)["data"] == {}
    authors.archive().parent.mkdir()
    authors.archive().write_bytes(b"x")
    assert set(made_of(reads)["data"]) == {authors.archive().name} and made_of("1")["data"] == {}
    assert "zoo_paper.csv" in made_of("import pqlib")["modules"]


def test_an_edit_of_a_module_reaches_its_chapters_and_no_others(tmp_path):
    """On a copy of the package, as an editor would leave it."""
    shutil.copytree(PACKAGE, tmp_path / "pqlib", ignore=shutil.ignore_patterns("__pycache__"))
    chapters = {
        "ranges": "import pqlib as pq\npq.optimal_scale",
        "budget": "from pqlib import matched_sparsity",
        "none": "import numpy",
    }

    def modules():
        script = (
            "import json, sys; from pqlib.book.fingerprint import _file, hash_path, used_modules\n"
            "print(json.dumps({k: {m: hash_path(_file(m)) for m in used_modules([c])} "
            "for k, c in json.loads(sys.argv[1]).items()}, sort_keys=True))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, json.dumps(chapters)],
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    before = modules()
    with (tmp_path / "pqlib" / "ranges.py").open("a") as stream:
        stream.write("# edited\n")
    after = modules()
    assert {name for name in chapters if before[name] != after[name]} == {"ranges"}
    with (tmp_path / "pqlib" / "book" / "stage.py").open("a") as stream:
        stream.write("# edited\n")
    assert modules() == after
