"""The real book as a reader meets it: links, images, formulas, phones, no network."""

import json
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup


@pytest.fixture(scope="module")
def pages(html):
    """Every page of the rendered book, parsed; not index.html, which leads to the first one."""
    found = [html / "search.html", html / "genindex.html"]
    found += sorted(path for name in ("book", "notebooks") for path in html.glob(f"{name}/*.html"))
    return {path: BeautifulSoup(path.read_text("utf-8"), "html.parser") for path in found}


@pytest.fixture(scope="module")
def chapters(html, pages):
    return {path: page for path, page in pages.items() if path.parent == html / "notebooks"}


@pytest.fixture(scope="module")
def visits(html, pages, browser):
    """What happened when each page was opened at phone width, from disk, without a network."""
    context = browser.new_context(viewport={"width": 360, "height": 800}, offline=True)
    seen = {}
    for path in pages:
        page, log = context.new_page(), {"requests": [], "errors": []}
        page.on("request", lambda r, log=log: log["requests"].append(r.url))
        page.on("requestfailed", lambda r, log=log: log["errors"].append(r.url))
        page.on("pageerror", lambda e, log=log: log["errors"].append(str(e)))
        page.on("console", lambda m, log=log: m.type == "error" and log["errors"].append(m.text))
        page.goto(path.as_uri(), wait_until="load")
        if page.query_selector("span.math, div.math"):
            page.wait_for_function("window.MathJax?.startup?.promise")
            page.evaluate("MathJax.startup.promise")
        log |= page.evaluate(
            """() => ({
                wide: document.documentElement.scrollWidth,
                math: document.querySelectorAll('span.math, div.math').length,
                typeset: document.querySelectorAll('mjx-container').length,
                broken: document.querySelectorAll('mjx-merror, [data-mjx-error]').length,
                images: [...document.images].filter(i => i.complete && !i.naturalWidth).length,
            })"""
        )
        seen[path.relative_to(html).as_posix()] = log
        page.close()
    context.close()
    return seen


def test_the_start_page_leads_to_the_first_one(html):
    start = BeautifulSoup((html / "index.html").read_text(), "html.parser")
    target = start.find("meta", attrs={"http-equiv": "Refresh"})["content"].split("url=")[1]
    assert (html / target).is_file()


def test_every_internal_link_and_anchor_resolves(pages):
    ids = {
        path: {tag["id"] for tag in page.find_all(id=True)}
        | {tag["name"] for tag in page.find_all("a", attrs={"name": True})}
        for path, page in pages.items()
    }
    broken = []
    for path, page in pages.items():
        for link in page.find_all("a", href=True):
            url = urlsplit(link["href"])
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            anchor = unquote(url.fragment)
            if not target.is_file() or (anchor and target in ids and anchor not in ids[target]):
                broken.append((path.name, link["href"]))
    assert broken == []


def test_every_image_exists_and_says_what_it_shows(pages):
    images = [(path, image) for path, page in pages.items() for image in page.find_all("img")]
    assert images
    assert [i["src"] for path, i in images if not (path.parent / unquote(i["src"])).is_file()] == []
    assert [(path.name, i["src"]) for path, i in images if not i.get("alt", "").strip()] == []


def test_every_chapter_carries_its_stamp_and_its_banner_where_due(html, chapters):
    state = json.loads((html / "build.json").read_text())
    assert chapters
    for path, page in chapters.items():
        assert f"Profile {state['profile']}" in page.select_one(".pq-stamp").text
        assert bool(page.select_one(".pq-banner")) == (path.stem in state["overrides"])


def test_every_chapter_can_be_downloaded_as_a_notebook(html, chapters):
    for path, page in chapters.items():
        links = [a["href"] for a in page.select("a.btn-download-source-button")]
        assert [link for link in links if link.endswith(f"{path.stem}.ipynb")]


def test_nothing_is_asked_of_the_network_and_nothing_fails(visits):
    outside = {
        u for v in visits.values() for u in v["requests"] if not u.startswith(("file:", "data:"))
    }
    assert outside == set()
    assert {name: v["errors"] for name, v in visits.items() if v["errors"]} == {}
    assert {name: v["images"] for name, v in visits.items() if v["images"]} == {}


def test_every_formula_is_rendered(visits):
    assert sum(v["math"] for v in visits.values()) > 0
    assert {name for name, v in visits.items() if v["typeset"] < v["math"]} == set()
    assert {name for name, v in visits.items() if v["broken"]} == set()


def test_no_page_scrolls_sideways_on_a_phone(visits):
    assert {name: v["wide"] for name, v in visits.items() if v["wide"] > 360} == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figures_keep_their_size_and_their_white_card(html, chapters, browser, theme):
    page = browser.new_page(viewport={"width": 360, "height": 800}, color_scheme=theme)
    figures = []
    for path in chapters:
        page.goto(path.as_uri())
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        figures += page.evaluate(
            """() => [...document.querySelectorAll('.cell_output img')].map(i => ({
                width: i.getBoundingClientRect().width,
                background: getComputedStyle(i).backgroundColor,
                filter: getComputedStyle(i).filter,
                focusable: i.closest('[tabindex="0"]') !== null,
            }))"""
        )
    page.close()
    assert figures
    for figure in figures:
        assert figure["width"] >= 620
        assert (figure["background"], figure["filter"]) == ("rgb(255, 255, 255)", "none")
        assert figure["focusable"]


def test_search_finds_pages_from_disk(html, browser):
    page = browser.new_page()
    page.goto(f"{(html / 'search.html').as_uri()}?q=quantization")
    page.wait_for_selector("#search-results li a", timeout=10_000)
    assert len(page.query_selector_all("#search-results li a")) > 1
    page.close()
