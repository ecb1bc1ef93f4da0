import re
from pathlib import Path

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from fixture_book import chapter

from pqlib.book.build import build_book, runs_of
from pqlib.book.execute import BuildError
from pqlib.book.stage import STATUSES, comparison_table, quoted, stage

ROOT = Path(__file__).resolve().parents[2]

ROW = {
    "item": "Fig 1",
    "paper": "19.1 | dB",
    "ours": {"chapter": "a", "glue": "sqnr"},
    "unit": "dB",
    "command": "pqlib book run a",
    "status": "reproduced",
    "note": None,
}


@pytest.fixture(scope="module")
def staged(built):
    notebook = nbformat.read(built.output("smoke") / "site/notebooks/first.ipynb", as_version=4)
    by_tag = {tag: c for c in notebook.cells for tag in c.metadata.get("tags", [])}
    return notebook, by_tag


@pytest.fixture(scope="module")
def page(built):
    text = (built.output("smoke") / "html" / "notebooks" / "first.html").read_text()
    return BeautifulSoup(text, "html.parser")


def test_the_injected_cell_keeps_hide_input_and_papermill_leaves_no_time_stamps(staged):
    notebook, by_tag = staged
    assert by_tag["injected-parameters"].metadata.tags == ["injected-parameters", "hide-input"]
    assert "papermill" not in notebook.metadata
    assert not any("papermill" in cell.metadata for cell in notebook.cells)


def test_a_finding_becomes_alternative_text_caption_and_label(page):
    figure = page.find("figure", id="fig-line")
    assert figure.img["alt"] == "A line to 3."
    assert "It ends at 3." in figure.figcaption.text
    assert "Fig. 1" in figure.figcaption.text


def test_a_figure_without_alternative_text_is_refused(small_book):
    plain = chapter("import matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()")
    nbformat.write(plain, small_book.root / "notebooks" / "second.ipynb")
    with pytest.raises(BuildError, match="second, cell 3: a figure without alternative text"):
        build_book(small_book, "smoke")


def test_the_banner_names_what_differs_and_is_absent_otherwise(page, small_book):
    banner = page.select_one(".pq-banner")
    assert "n_bits = 3 (published: 4)" in banner.text
    assert "Profile smoke" in banner.text
    assert page.h1.find_next("div", class_="admonition") is banner
    assert "pq-banner" not in (small_book.root / "notebooks" / "first.ipynb").read_text()


def test_the_stamp_says_what_made_the_page(page):
    stamp = page.select_one(".pq-stamp").text
    for part in ("Profile smoke", "n_bits = 3", "law = 'normal'", "pqlib", "Python", "executed in"):
        assert part in stamp


def test_a_comparison_shows_the_glued_value_with_its_unit():
    absent = ROW | {"ours": None, "status": "not in this edition"}
    table = comparison_table([ROW, absent], {"a": {"sqnr": "19.09"}})
    assert r"| Fig 1 | 19.1 \| dB | 19.09 dB | reproduced | `pqlib book run a` |  |" in table
    assert "not run" in table.splitlines()[-1]


def test_a_comparison_with_a_value_that_no_cell_glued_is_refused():
    with pytest.raises(BuildError, match=r"Fig 1: .* is not glued"):
        comparison_table([ROW], {"a": {}})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"status": "fine"}, r"Fig 1: status must be of .*'differs', .* got 'fine'"),
        ({"ours": None}, "Fig 1: status 'reproduced' needs a value"),
    ],
)
def test_a_status_says_what_there_is(change, text):
    with pytest.raises(BuildError, match=text):
        comparison_table([ROW | change], {"a": {"sqnr": "19.09"}})


def test_the_page_explains_each_status_and_uses_it():
    page = (ROOT / "book" / "paper_versus_book.md").read_text()
    assert tuple(re.findall(r"^- \*\*(.+?)\*\*:", page, re.MULTILINE)) == STATUSES
    parts = yaml.safe_load((ROOT / "book" / "paper_versus_book.yml").read_text())
    rows = [row for rows in parts.values() for row in rows]
    assert {row["status"] for row in rows} == set(STATUSES)
    assert len({row["item"] for row in rows}) == len(rows)


def test_the_page_of_comparisons_reads_the_executed_chapter(small_book):
    root = small_book.root
    glue = (
        "from IPython.display import display\n"
        "prefix = 'application/papermill.record/'\n"
        "display({prefix + 'text/plain': repr(f'{n_bits}.0')}, raw=True,\n"
        "        metadata={'scrapbook': {'name': 'sqnr', 'mime_prefix': prefix}})"
    )
    with (root / "_toc.yml").open("a") as stream:
        stream.write("- file: book/paper_versus_book\n")
    nbformat.write(chapter(glue), root / "notebooks" / "second.ipynb")
    (root / "book" / "paper_versus_book.md").write_text("# A\n\n<!-- paper-versus-book -->\n")
    row = ROW | {"ours": {"chapter": "second", "glue": "sqnr"}}
    (root / "book" / "paper_versus_book.yml").write_text(
        yaml.safe_dump({"One": [row], "Two": [row]})
    )
    build_book(small_book, "smoke")
    text = (small_book.output("smoke") / "site/book/paper_versus_book.md").read_text()
    assert text.index("## One") < text.index("3.0 dB") < text.index("## Two")


def test_buttons_appear_only_when_the_address_is_set(built, tmp_path):
    def config(site):
        stage(built.root, runs_of(built, "smoke"), "smoke", site, built.toc)
        return yaml.safe_load((site / "_config.yml").read_text())

    path = built.root / "_config.yml"
    plain = path.read_text()
    assert "launch_buttons" not in config(tmp_path / "without")
    path.write_text(plain.replace('url: ""', 'url: "https://example.org/a/b"'))
    try:
        linked = config(tmp_path / "with")
    finally:
        path.write_text(plain)
    assert linked["html"]["use_edit_page_button"]
    assert linked["launch_buttons"]["colab_url"]


def test_pages_quote_what_chapters_glued():
    texts = {"a": {"words": "quantization wins", "n": "3"}}
    text = "At {computed}`a:n` bits {computed}`a:words`. {glue:text}`n` stays."
    assert quoted(text, texts, "p.md") == "At 3 bits quantization wins. {glue:text}`n` stays."
    for missing in ("{computed}`a:other`", "{computed}`b:words`"):
        with pytest.raises(BuildError, match=r"p\.md: chapter . glues no \w+; see \{computed"):
            quoted(f"x {missing}", texts, "p.md")
