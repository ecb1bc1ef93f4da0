import pytest
from matplotlib.figure import Figure

from pqlib.findings import Finding, Table, glue


def test_finding_shows_svg_with_its_words():
    figure = Figure()
    figure.subplots().plot([1, 2])
    finding = Finding(figure, alt="a line rises", caption="It *rises*.", name="fig-line")
    data, metadata = finding._repr_mimebundle_()
    assert data["image/svg+xml"].startswith("<?xml")
    assert data["text/plain"] == "a line rises"
    words = {"alt": "a line rises", "caption": "It *rises*.", "name": "fig-line"}
    assert metadata == {"pqlib": words}
    assert finding.svg() == finding.svg()


def test_table_is_markdown():
    table = Table({"": ["a|b", "c"], "x": [1.0, float("inf")], "n": [3, None]}, digits=1)
    assert table._repr_markdown_().splitlines() == [
        "|  | x | n |",
        "| --- | --: | --: |",
        r"| a\|b | 1.0 | 3 |",
        "| c | ∞ | – |",
    ]


def test_no_zero_of_a_table_has_a_sign():
    table = Table({"x": [-0.001, -0.0, -0.006, float("-inf")]})
    assert table._repr_markdown_().splitlines()[2:] == [
        "| 0.00 |",
        "| 0.00 |",
        "| −0.01 |",
        "| −∞ |",
    ]


def test_table_columns_have_one_length():
    with pytest.raises(ValueError, match="shorter"):
        repr(Table({"a": [1, 2], "b": [1]}))


def test_glue_is_what_the_book_reads(monkeypatch):
    glued = pytest.importorskip("myst_nb")
    seen = []
    capture = lambda data, metadata, raw=True: seen.append((data, metadata))  # noqa: E731
    monkeypatch.setattr("IPython.display.display", capture)
    glue(answer="forty-two")
    monkeypatch.setattr("myst_nb.ext.glue.display", capture, raising=False)
    monkeypatch.setattr("myst_nb.ext.glue.IPython.display.display", capture, raising=False)
    glued.glue("answer", "forty-two", display=False)
    (ours, our_metadata), (theirs, their_metadata) = seen
    assert ours == theirs == {"application/papermill.record/text/plain": "'forty-two'"}
    assert our_metadata["scrapbook"]["name"] == their_metadata["scrapbook"]["name"]
    assert our_metadata["scrapbook"]["mime_prefix"] == their_metadata["scrapbook"]["mime_prefix"]
