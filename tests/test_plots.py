import io
import itertools

import matplotlib
import numpy as np
import pytest
from figure_checks import contrast
from matplotlib.text import Text

import pqlib as pq
from pqlib import IntegerGrid, Normal, StudentT, Truncated, plot_style, plots, verdicts


def records(dist, bits=range(2, 9)):
    return [pq.compare(dist, b) for b in bits]


def heavy(r=1000.0):
    return Truncated(StudentT(2), -r, r)


def all_findings():
    """One of each figure, drawn from real tables."""
    normal = pq.compare(Normal(), 4)
    profile = pq.profile(Normal(), IntegerGrid(4, normal.scale), 0.75)
    ranges = np.geomspace(3, 500, 12)
    cut = [Truncated(StudentT(2), -r, r) for r in ranges]
    kurtosis = [d.kurtosis() for d in cut]
    rows = {b: [pq.compare(d, b) for d in cut] for b in (2, 3, 4)}
    scales = np.geomspace(0.1, 2, 80)
    mse = [pq.expected_quantization_mse(Normal(), IntegerGrid(4, s)) for s in scales]
    return [
        plots.compressed_density(profile, normal, "The normal", name="fig-a"),
        plots.sqnr_by_bits({"one": records(Normal()), "two": records(heavy())}, name="fig-b"),
        plots.error_by_scale(scales, mse, normal.scale, 0.6, 4, name="fig-c"),
        plots.sqnr_by_kurtosis(kurtosis, rows, "truncated t", name="fig-d"),
        plots.winner_map(
            kurtosis, rows, {2: 8.87, 3: 15.99, 4: 28.35}, {"a net": [3.0, 4.0, 9.0]}, "t", "fig-e"
        ),
        plots.kurtosis_by_range(ranges, kurtosis, "truncated t", name="fig-f"),
        plots.gain_per_bit([2, 3, 4], {"normal": [8.3, 13.9, 19.3]}, name="fig-g"),
    ]


FINDINGS = all_findings()
ids = [f.name for f in FINDINGS]


def test_contrast_formula():
    assert contrast("black", "white") == pytest.approx(21)


@pytest.mark.parametrize("style", [plot_style.QUANTIZATION, plot_style.PRUNING, plot_style.NEUTRAL])
def test_colors_stand_out_from_the_paper(style):
    assert contrast(style["color"], plot_style.PAPER) >= 3


def test_methods_differ_in_more_than_color():
    for key in ("color", "marker", "linestyle", "label"):
        assert plot_style.QUANTIZATION[key] != plot_style.PRUNING[key]


@pytest.mark.parametrize("finding", FINDINGS, ids=ids)
def test_lines_stand_out_and_text_is_readable(finding):
    assert finding.figure.get_figwidth() == plot_style.WIDTH
    finding.figure.savefig(io.BytesIO(), format="svg")
    assert finding.figure.get_facecolor()[:3] == matplotlib.colors.to_rgb(plot_style.PAPER)
    for text in finding.figure.findobj(Text):
        assert not text.get_text() or text.get_fontsize() >= 9 or "$" in text.get_text()
    for axes in finding.figure.axes:
        for line in axes.lines:
            if line.get_color() != "white":
                alpha = line.get_alpha() or 1.0
                rgb = np.array(matplotlib.colors.to_rgb(line.get_color()))
                assert contrast(tuple(alpha * rgb + 1 - alpha), plot_style.PAPER) >= 3


@pytest.mark.parametrize("finding", FINDINGS, ids=ids)
def test_words_are_whole_sentences(finding):
    assert finding.alt.endswith(".") and finding.caption.endswith(".")
    assert "nan" not in finding.alt and "inf" not in finding.alt
    assert any(c.isdigit() for c in finding.alt)


def test_each_figure_of_the_book_has_its_own_name():
    assert len({f.name for f in FINDINGS}) == len(FINDINGS)


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        ([], "no bit-width"),
        ([4], "4 bits"),
        ([2, 3], "2 and 3 bits"),
        ([5, 2, 3], "2, 3 and 5 bits"),
        (range(2, 9), "2 to 8 bits"),
    ],
)
def test_bits_phrase(bits, words):
    assert verdicts.bits_phrase(bits) == words


def test_verdict_names_each_winner_once():
    rows = records(heavy(30))
    clause = verdicts.verdict(rows)
    winners = {r.n_bits: r.winner for r in rows}
    assert set(winners.values()) == {"quantization", "pruning"}  # the case at hand is mixed
    for method, group in itertools.groupby(rows, key=lambda r: r.winner):
        phrase = verdicts.bits_phrase([r.n_bits for r in group])
        assert f"{method} wins at {phrase}" in clause


def test_words_follow_the_data():
    quant, prune = (plots.sqnr_by_bits({"x": records(d)}, "fig-x") for d in (Normal(), heavy()))
    assert "quantization wins at every bit-width" in quant.alt
    assert "pruning wins at every bit-width" in prune.alt
    tie = pq.compare(np.array([0.0, 0.0, 0.0, 1.0]), 4)
    assert verdicts.verdict([tie]) == "both are equally good at 4 bits"
    flat = pq.compare(Normal(), 4, sparsity=0.0)
    table = pq.profile(Normal(), IntegerGrid(4, flat.scale), 0.0)
    assert "pruning is exact" in plots.compressed_density(table, flat, "x", "fig-y").alt
