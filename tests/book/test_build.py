import json
import time
import zipfile

import nbformat
import pytest
from bs4 import BeautifulSoup
from fixture_book import chapter

from pqlib.book.build import build_book, pack, run_chapter
from pqlib.book.execute import BuildError


def test_an_unchanged_book_is_neither_executed_nor_rendered_again(built):
    page = built.output("smoke") / "html" / "index.html"
    before, start = page.stat().st_mtime_ns, time.monotonic()
    assert build_book(built, "smoke") == page
    assert page.stat().st_mtime_ns == before
    assert time.monotonic() - start < 10


def test_a_warning_fails_the_build_and_leaves_the_last_good_book(built):
    preface = built.root / "book" / "preface.md"
    good = preface.read_text()
    page = built.output("smoke") / "html" / "index.html"
    before = page.stat().st_mtime_ns
    preface.write_text(good + "\n{doc}`nowhere`\n")
    try:
        with pytest.raises(BuildError, match="nowhere"):
            build_book(built, "smoke")
    finally:
        preface.write_text(good)
    assert page.stat().st_mtime_ns == before
    left = sorted(p.name for p in built.output("smoke").iterdir())
    assert left == [".running", "html", "site"]


def test_a_run_goes_to_a_folder_of_its_own_with_a_banner(built):
    before = (built.output("smoke") / "html" / "build.json").read_text()
    page = run_chapter(built, "first", [("n_bits", "5")], {"bits": [2, 8], "law": "laplace"})
    assert page.relative_to(built.root).parts[:2] == (
        "runs",
        "first-bits-_2__8_-law-laplace-n_bits-5",
    )
    banner = BeautifulSoup(page.read_text(), "html.parser").select_one(".pq-banner").text
    assert "n_bits = 5 (published: 4)" in banner and "law = 'laplace'" in banner
    notebook = nbformat.read(page.parents[2] / "first.ipynb", as_version=4)
    assert any("n_bits = 5" in cell.source for cell in notebook.cells)
    assert (built.output("smoke") / "html" / "build.json").read_text() == before


def test_a_smoke_book_and_one_with_overrides_are_not_packed(built):
    with pytest.raises(ValueError, match="no book book"):
        pack(built)
    with pytest.raises(ValueError, match="smoke"):
        pack(built, "smoke")
    state = built.output("smoke") / "html" / "build.json"
    text = state.read_text()
    state.write_text(json.dumps(json.loads(text) | {"profile": "book"}))
    try:
        with pytest.raises(ValueError, match="n_bits"):
            pack(built, "smoke")
    finally:
        state.write_text(text)


def test_a_book_with_defaults_is_packed_whole(small_book):
    for name in ("first", "second"):
        nbformat.write(chapter("1"), small_book.root / "notebooks" / f"{name}.ipynb")
    build_book(small_book, "book")
    html = small_book.output("book") / "html"
    with zipfile.ZipFile(pack(small_book)) as archive:
        names = set(archive.namelist())
    assert names == {
        f"pqlib-book/{p.relative_to(html).as_posix()}" for p in html.rglob("*") if p.is_file()
    }
    assert "pqlib-book/_static/mathjax/tex-chtml.js" in names
