import numpy as np
import pandas as pd
import pytest
from figure_checks import assert_readable
from hypothesis import given, settings
from hypothesis import strategies as st
from redrawn_cases import redrawn
from relu_cases import relu_gram

from pqlib import layer_findings, layer_plots
from pqlib.experiments.channel_optima import solve_unit
from pqlib.experiments.layer_bounds import units_of
from pqlib.experiments.layer_config import LayerBounds
from pqlib.experiments.layer_table import layer_table
from pqlib.experiments.layer_verdicts import layer_verdicts
from pqlib.layer_findings import stability_cases
from pqlib.layers.captured import CapturedLayer, Chunk, chunk_bounds
from pqlib.layers.problem import LayerProblem

BITS = (2, 4)


def layer(n=12, size=6, channels=3, gram=None, weight=None, name="made up"):
    """A linear layer of correlated inputs, in chunks."""
    rng = np.random.default_rng(0)
    gram = relu_gram(rng, n, 1e3) if gram is None else gram
    weight = rng.normal(size=(channels, n)) if weight is None else weight
    who = range(len(weight))
    whole = (Chunk(0, 0, n, who, gram, weight),)
    chunks = tuple(
        Chunk(0, a, b, who, gram[a:b, a:b], weight[:, a:b]) for a, b in chunk_bounds(n, size)
    )
    return CapturedLayer(name, "linear", weight, chunks, whole, 100, 100)


def solved(captured, bits=BITS):
    config = LayerBounds(bits=bits, n_channels=0, n_chunks=0, reproved_share=0.0)
    units = [*units_of(captured, config)]
    pairs = [(unit, solve_unit(unit, bits, 10**6, 0.0, 0)) for unit in units]
    return units, layer_table("toy", pairs)


CAPTURED = layer()
UNITS, TABLE = solved(CAPTURED)
TERMS = layer_findings.at_papers_terms(TABLE)
VERDICTS = layer_verdicts(TABLE)


@pytest.fixture(scope="module")
def rows():
    pytest.importorskip("cvxpy")
    return layer_findings.ranges(UNITS, BITS, 0)


def whole(n_bits=4, **changes):
    captured = layer(**changes)
    return layer_findings.whole_layer(captured, range(len(captured.weight)), n_bits, 0.3, 10**6)


@pytest.fixture(scope="module")
def findings(rows):
    found = layer_findings.rectangles(rows)
    singular = np.ones((12, 12))
    return [
        layer_plots.rectangles(found, "fig-a"),
        layer_plots.rectangles(found.assign(crosses=False), "fig-b"),
        layer_plots.rectangles(found.assign(crosses=True, winner="neither"), "fig-c"),
        layer_plots.exact_scatter(TERMS, "fig-d"),
        layer_plots.exact_scatter(TERMS[TERMS["n_bits"] == 2], "fig-e"),
        layer_plots.gains(TERMS, "fig-f"),
        layer_plots.tightness(rows, "fig-g"),
        layer_plots.whole_layer(whole(), 4, "fig-h"),
        layer_plots.whole_layer(whole(gram=singular), 4, "fig-i"),
        layer_plots.whole_layer(whole(weight=np.ones((1, 12)) * 0.3), 4, "fig-j"),
        layer_plots.stability(stability_cases(redrawn()), "fig-k"),
        layer_plots.stability(stability_cases(redrawn("photographs")), "fig-l"),
    ]


@pytest.mark.filterwarnings("error")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of others
def test_figures_are_readable(findings):
    for finding in findings:
        assert_readable(finding)


def test_words_are_whole_sentences(findings):
    for finding in findings:
        for words in (finding.alt, finding.caption):
            assert words.endswith(".") and "nan" not in words and "inf" not in words.split()


def test_words_follow_the_data(rows, findings):
    found = layer_findings.rectangles(rows)
    crossing = found["crosses"].sum()
    start = f"{crossing} of {len(found)} rectangles" if crossing else f"none of {len(found)}"
    assert start in findings[0].alt
    assert f"none of {len(found)} rectangles crosses" in findings[1].alt
    assert f"{len(found)} stay open" in findings[2].alt
    wins = (TERMS[TERMS["n_bits"] == 2]["lead"] > 0).sum()
    assert f"{wins} of 2 at 2 bits" in findings[4].alt
    assert f"(worst {(rows['sdp'] / rows['quantize']).min():.2f})" in findings[6].alt
    assert "no limit is proven, the gram being singular" in findings[8].alt


def test_nothing_to_draw(rows):
    found = layer_findings.rectangles(rows)
    empty = [
        layer_plots.tightness(rows.assign(quantize=0.0), "fig-x"),
        layer_plots.exact_scatter(TERMS.assign(tensor_scale=np.inf), "fig-x"),
        layer_plots.rectangles(found.assign(prune=np.inf), "fig-x"),
    ]
    for finding in empty:
        assert finding.alt.startswith("Nothing to draw: ") and finding.svg()
    unbounded = layer_plots.rectangles(found.assign(sdp=np.inf), "fig-x")
    assert f"{len(found)} without a bound go on to the right" in unbounded.alt
    partly = found.assign(prune=[np.inf, *found["prune"].iloc[1:]])
    assert "1 without error are not drawn" in layer_plots.rectangles(partly, "fig-x").alt


def test_ranges_hold_the_optima(rows):
    for bound in layer_findings.BOUNDS:
        assert (rows[bound] <= rows["quantize"] * (1 + 1e-9)).all()
    assert (rows["quantize"] <= rows["park_boyd"] * (1 + 1e-9)).all()
    assert (rows["prune"] <= rows["refit"] * (1 + 1e-9)).all()
    exact = layer_findings.chunks_alone(TABLE).query("method == 'quantize_exact'")
    exact = exact[exact["scale_choice"] == "tensor"]
    assert rows["quantize"].sum() == pytest.approx(exact["upper"].sum())


@given(st.integers(2, 20), st.floats(1, 1e6), st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_the_diagonal_is_below_the_gram(n, condition, seed):
    rng = np.random.default_rng(seed)
    gram = relu_gram(rng, n, condition) * rng.uniform(1e-3, 1e3)
    d = layer_findings.diagonal_below(gram)
    assert (d >= 0).all() and d.sum() > 0
    assert np.linalg.eigvalsh(gram - np.diag(d))[0] >= -1e-12 * np.max(gram)


def test_the_diagonal_of_grams_that_have_none():
    assert not layer_findings.diagonal_below(np.zeros((3, 3))).any()
    assert not layer_findings.diagonal_below(np.ones((3, 3))).any()
    dead = layer_findings.diagonal_below(np.diag([4.0, 0.0, 9.0]))
    assert dead == pytest.approx([4, 0, 9], rel=1e-6)
    with pytest.raises(ValueError, match="gram"):
        layer_findings.diagonal_below(np.full((2, 2), np.nan))


def test_whole_layer_bounds_every_error():
    for n_bits in (2, 4):
        rows = whole(n_bits).set_index("method")
        assert (rows["lower"] > 0).all() and (rows["unproven"] == 0).all()
        assert (rows["lower"] <= rows["best"]).all()
        assert (rows["best"] <= rows["assembled"]).all()
    one = whole(n_bits=3, size=12).set_index("method")
    assert np.allclose(one["chunks"], one["assembled"]) and np.allclose(
        one["best"], one["assembled"]
    )


def test_whole_layer_against_direct_sums():
    captured = layer(channels=1)
    rows = layer_findings.whole_layer(captured, [0], 4, 0.3, 10**6).set_index("method")
    parts = [c.problem(0) for c in captured.chunks]
    found = [layer_findings.solve_quantization(p, 4, 0.3) for p in parts]
    joined = np.concatenate([r.solution for r in found])
    assert rows.loc["quantization", "chunks"] == pytest.approx(sum(r.upper for r in found))
    direct = LayerProblem(captured.whole[0].gram, captured.weight[0]).error(joined)
    assert rows.loc["quantization", "assembled"] == pytest.approx(direct)


def test_kinds_of_verdicts():
    kinds = {
        "quantization wins": layer_findings.QUANTIZATION,
        "quantization wins at the best scale; at the tensor's, pruning wins": (
            layer_findings.AT_BEST
        ),
        "pruning wins at every scale in [0.1, 0.4]": layer_findings.PRUNING,
        "pruning wins at every common scale in [0.1, 0.4]": layer_findings.PRUNING,
        "pruning wins at the scales tried, but not at 0.3": layer_findings.AT_SCALES,
        "pruning wins at the scales tried; between them it is not proven": (
            layer_findings.AT_SCALES
        ),
        "depends on the budget": layer_findings.OPEN,
        "not proven at the best scale; at the tensor's, pruning wins": layer_findings.OPEN,
        "both lose nothing": layer_findings.OPEN,
    }
    assert {words: layer_findings.kind_of(words) for words in kinds} == kinds
    table = pd.DataFrame({"n_bits": 2, "chunk": "0", "verdict": list(kinds)})
    total = table.head(1).assign(chunk="sum")
    words = layer_findings.verdict_words(pd.concat([table, total]))
    assert words == (
        "quantization wins 1 of 9 chunks, 1 more at the best scale only, pruning wins 2 at every "
        "scale of an interval, pruning wins 2 at the scales tried, 3 depend on the budget or stay "
        "open at 2 bits"
    )


def test_results_survive_a_file(tmp_path):
    TABLE.to_csv(tmp_path / "fig4_layers.csv", index=False)
    VERDICTS.to_csv(tmp_path / "fig4_verdicts.csv", index=False)
    found = layer_findings.read_results(str(tmp_path))
    assert set(found) == {"fig4_layers", "fig4_verdicts"}
    terms = layer_findings.at_papers_terms(found["fig4_layers"])
    pd.testing.assert_frame_equal(terms, TERMS, check_dtype=False)
    assert layer_findings.verdict_words(found["fig4_verdicts"]) == layer_findings.verdict_words(
        VERDICTS
    )
    assert layer_findings.read_results("") == {}
