import numpy as np
import pandas as pd
import pytest
from figure_checks import assert_readable

from pqlib import prediction_plots, zoo_plots
from pqlib import zoo_statistics as stats
from pqlib.verdicts import by_bits
from pqlib.zoo_predictors import association, theory_curve

BITS = [2, 3, 4, 8]
CURVE = theory_curve(BITS, 20)
THEORY = {b: CURVE.crossing(b) for b in BITS}


def zoo(n=60, pruning_share=0.3, seed=0):
    """A scan's table in which heavy tails belong to pruning."""
    rng = np.random.default_rng(seed)
    kurtosis = 10 ** rng.normal(0.8, 0.3, n)
    limit = np.quantile(kurtosis, 1 - pruning_share) if pruning_share < 1 else 0.0
    frames = []
    for b in BITS:
        margin = 6 * np.log10(limit / kurtosis) + rng.normal(0, 1, n) if limit else np.full(n, -3.0)
        prune = rng.uniform(4, 9, n)
        frames.append(
            pd.DataFrame(
                {
                    "model": "m", "layer": [f"l{i}" for i in range(n)], "position": range(n),
                    "kind": "conv2d", "n_bits": b, "kurtosis": kurtosis, "skipped": "",
                    "shared_with": "", "quant_sqnr_db": prune + margin, "prune_sqnr_db": prune,
                    "credited_sqnr_db": prune - 2, "margin_db": margin,
                    "winner": np.where(margin > 0, "quantization", "pruning"),
                    "natural_sparsity": rng.uniform(0.1, 0.6, n),
                }
            )
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def draw(table, bits=BITS):
    splits = [stats.split_by_kurtosis(table, b) for b in bits]
    crossings = stats.crossing_table(splits)
    rng = np.random.default_rng(0)
    found = {}
    for b in bits:
        rows = table[table["n_bits"] == b]
        guess = CURVE.predict(rows["kurtosis"], b)
        found[b] = association(guess, rows["margin_db"], rng, n_resamples=20)
    return [
        zoo_plots.sqnr_scatter(table, "fig-a"),
        zoo_plots.sqnr_scatter(table, "fig-b", credited=True),
        zoo_plots.kurtosis_densities(splits, THEORY, "fig-c"),
        zoo_plots.crossings_by_bits({"one": crossings, "two": crossings}, THEORY, "fig-d"),
        zoo_plots.natural_zeros(stats.natural_sparsity(table), {2: 0.59}, "fig-e"),
        prediction_plots.margin_by_kurtosis(table, CURVE, bits[:3], "fig-f"),
        prediction_plots.prediction({"kurtosis": found, "weights": found}, "fig-g"),
    ]


FINDINGS = draw(zoo())
ONE_WINNER = draw(zoo(pruning_share=1.0))
ONE_BUDGET = draw(zoo()[lambda t: t["n_bits"] == 4], [4])
MANY = draw(zoo(n=3000))
ALL = [*FINDINGS, *ONE_WINNER, *ONE_BUDGET, *MANY]
ids = [f"{f.name}-{i // len(FINDINGS)}" for i, f in enumerate(ALL)]


@pytest.mark.filterwarnings("error")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of others
@pytest.mark.parametrize("finding", ALL, ids=ids)
def test_figures_are_readable(finding):
    assert_readable(finding)


@pytest.mark.parametrize("finding", ALL, ids=ids)
def test_words_are_whole_sentences(finding):
    assert finding.alt.endswith(".") and finding.caption.endswith(".")
    assert "nan" not in finding.alt and "inf" not in finding.alt
    assert "nan" not in finding.caption and "inf" not in finding.caption


def test_words_follow_the_data():
    scatter, credited, densities, *_ = FINDINGS
    table = zoo()
    for finding, column in ((scatter, "prune_sqnr_db"), (credited, "credited_sqnr_db")):
        won = (table["quant_sqnr_db"] > table[column]).groupby(table["n_bits"]).mean()
        assert by_bits({b: f"{share:.1%}" for b, share in won.items()}) in finding.alt
    at = stats.split_by_kurtosis(table, 2).crossings["joint"]
    assert f"{at:.3g} at 2 bits" in densities.alt
    assert "0.0% at 2, 3, 4 and 8 bits" in ONE_WINNER[0].alt
    assert "none (quantization wins none of 60 tensors)" in ONE_WINNER[2].alt
    assert "for one the joint densities cross at no bit-width" in ONE_WINNER[3].alt


def test_tensors_with_an_exact_method_are_counted():
    table = zoo()
    table.loc[0, ["prune_sqnr_db", "margin_db"]] = [np.inf, -np.inf]
    table.loc[0, "winner"] = "pruning"
    finding = zoo_plots.sqnr_scatter(table, "fig-x")
    assert "1 points with an exact method are not drawn" in finding.caption
    with pytest.raises(ValueError, match="a tensor on which neither method is exact"):
        zoo_plots.sqnr_scatter(table.head(1), "fig-x")


def test_nothing_to_split():
    table = zoo().assign(winner="neither")
    splits = [stats.split_by_kurtosis(table, 2)]
    with pytest.raises(ValueError, match="a tensor that one of the methods wins"):
        zoo_plots.kurtosis_densities(splits, THEORY, "fig-x")


def test_many_marks_become_pixels():
    scatter = MANY[0]
    assert any(line.get_rasterized() for axes in scatter.figure.axes for line in axes.lines)
    assert len(scatter.svg()) < 1_000_000
