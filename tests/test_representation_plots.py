"""The figures of layers and epochs: readable, complete, and in words from their table."""

import numpy as np
import pytest
from figure_checks import assert_readable, contrast
from representation_cases import LAYERS, PAPER, made

from pqlib import plot_style, representation_plots
from pqlib.representation_findings import changes as moves
from pqlib.representation_findings import count_words, start_words, trends


@pytest.fixture(scope="module")
def table():
    return made(PAPER)


@pytest.mark.parametrize("measure", ["sqnr_db", "cka"])
def test_maps(table, measure):
    finding = representation_plots.layer_maps(table, measure, name="fig-maps")
    assert_readable(finding)
    *panels, bar = finding.figure.axes
    titles = [axes.get_title() for axes in panels]
    assert titles == [
        f"{m}, {b} bits" for b in (2, 4) for m in ("quantization", "pruning", "pruning at once")
    ]
    assert bar.get_ylabel() == representation_plots.LABELS[measure]
    for axes, title in zip(panels, titles, strict=True):
        (image,) = axes.images
        name, n_bits = title.split(", ")
        method = {v: k for k, v in representation_plots.NAMES.items()}[name]
        starts, steps = PAPER[method, int(n_bits[0])]
        shown = np.asarray(image.get_array())
        scale = 1 if measure == "sqnr_db" else 0.01
        assert shown.shape == (4, 4)
        np.testing.assert_allclose(shown[:, 0], np.multiply(starts, scale))
        np.testing.assert_allclose(shown[:, -1], np.add(starts, steps) * scale)
        assert image.get_clim() == panels[0].images[0].get_clim()
    said = count_words(trends(table), "lsq", measure)
    assert said in finding.alt and said in finding.caption
    compressed = [np.add(*run) for (m, _), run in PAPER.items() if m != "uncompressed"]
    farthest = int(np.argmin(np.mean(compressed, axis=0)))
    assert f"layer {farthest}, `{LAYERS[farthest]}`" in finding.caption


def test_maps_with_a_run_missing(table):
    rows = table[~((table["method"] == "prune") & (table["n_bits"] == 4))]
    finding = representation_plots.layer_maps(rows, "sqnr_db", name="fig-maps")
    assert_readable(finding)
    assert [t.get_text() for a in finding.figure.axes for t in a.texts] == ["not run"]


def test_lines_of_the_last_layer(table):
    finding = representation_plots.last_layer_lines(table, name="fig-last")
    assert_readable(finding)
    panels = finding.figure.axes
    assert len(panels) == 4 and [a.get_title() for a in panels[:2]] == ["2 bits", "4 bits"]
    lines = {line.get_label(): line for line in panels[0].lines}
    assert list(lines) == ["quantization", "pruning", "pruning at once", "no compression"]
    assert lines["quantization"].get_ydata().tolist() == pytest.approx([16, 14, 12, 10])
    assert lines["quantization"].get_color() == plot_style.QUANTIZATION["color"]
    assert lines["pruning"].get_marker() == plot_style.PRUNING["marker"]
    assert lines["no compression"].get_ydata().size == 0  # its SNR is infinite throughout
    assert "quantization goes from 16.0 to 10.0 dB at 2 bits" in finding.alt
    assert f"Layer `{LAYERS[-2]}`" in finding.caption


def test_the_control_is_named(table):
    rows = table.copy()
    control = (rows["method"] == "uncompressed") & (rows["epoch"] > 0)
    rows.loc[control, "sqnr_db"] = 12.34
    finding = representation_plots.last_layer_lines(rows, name="fig-last")
    assert "without compression ends at 12.3 dB" in finding.alt


def test_before_and_after(table):
    finding = representation_plots.before_and_after(table, name="fig-before-after")
    assert_readable(finding)
    left, right = finding.figure.axes
    for axes, scale in ((left, 1), (right, 0.01)):
        *marks, diagonal = axes.lines
        assert np.array_equal(diagonal.get_xdata(), diagonal.get_ydata())
        drawn = {m.get_label(): m for m in marks}
        starts, steps = np.array(PAPER["lsq", 2]), np.array(PAPER["lsq", 4])
        x = np.r_[starts[0], steps[0]] * scale
        y = np.r_[starts.sum(0), steps.sum(0)] * scale
        np.testing.assert_allclose(drawn["quantization"].get_xdata(), x)
        np.testing.assert_allclose(drawn["quantization"].get_ydata(), y)
    assert start_words(moves(table), "sqnr_db") in finding.alt


def test_methods_keep_apart():
    styles = representation_plots.STYLES
    looks = {(s["color"], s["marker"], s.get("markerfacecolor")) for s in styles.values()}
    assert len(looks) == len(styles)
    assert all(contrast(s["color"], plot_style.PAPER) >= 3 for s in styles.values())
