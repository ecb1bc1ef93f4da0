"""The built book and a browser, for the tests of what a reader sees."""

import os
import shutil
from pathlib import Path

import pytest
from fixture_book import write_book
from playwright.sync_api import Error, sync_playwright

from pqlib.book.build import build_book, runs_of
from pqlib.book.chapters import Book

ROOT = Path(__file__).parents[2]
# Profile smoke is always tested (and missed when absent), profile book where it was built.
RENDERED = {"smoke": ROOT / "_build" / "smoke" / "html"}
if (ROOT / "_build" / "html").is_dir():
    RENDERED["book"] = ROOT / "_build" / "html"


@pytest.fixture
def small_book(tmp_path):
    """A book of two short chapters, not built, in a folder with a space in its name."""
    return Book(write_book(tmp_path / "a book"))


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The small book, built with profile smoke; tests leave it as they found it."""
    book = Book(write_book(tmp_path_factory.mktemp("built") / "a book"))
    build_book(book, "smoke")
    return book


@pytest.fixture(scope="session")
def browser():
    """Chromium: PQLIB_CHROMIUM, or the one on the PATH, or Playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = [os.environ.get("PQLIB_CHROMIUM"), *map(shutil.which, names)]
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=next(filter(None, found), None), args=options
            )
        except Error as error:
            pytest.skip(f"no Chromium (set PQLIB_CHROMIUM): {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="session", params=RENDERED)
def html(request):
    """The folder of the real book as rendered, with profile smoke and with profile book."""
    folder = RENDERED[request.param]
    if not folder.is_dir():
        pytest.skip("no smoke book; `make test` builds it")
    if stale := [r.chapter.name for r in runs_of(Book(ROOT), request.param) if r.stale()]:
        pytest.skip(f"{folder} is older than {', '.join(stale)}; run `make {request.param}` first")
    return folder
