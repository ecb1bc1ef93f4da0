"""What the chapter on layer SNR says and draws, on made-up rows and on the committed table."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figure_checks import assert_readable
from snr_cases import rows

from pqlib import snr_findings as findings
from pqlib import snr_plots as plots
from pqlib.snr_statistics import Estimate

ROOT = Path(__file__).parents[1]
OPTIONS = {"n_draws": 60, "seed": 0}


def drawn(table):
    found = findings.correlations(table, **OPTIONS)
    return [
        plots.drop_against_snr(table, "a", **OPTIONS),
        plots.loss_against_noise(table, "b"),
        plots.correlation_intervals(found, "drop", "c"),
        plots.gap_at_equal_snr(table, "increase", "d", **OPTIONS),
    ]


CASES = {
    "plain": rows(),
    "one budget": rows(bits=(8,)),
    "one layer": rows(n_layers=1),
    "nothing lost": rows(loss=0.0),
    "many layers": rows(n_layers=40),
    "exact": rows().assign(snr=np.inf, snr_db=np.inf, noise=0.0),
}


@pytest.mark.parametrize("table", CASES.values(), ids=CASES)
def test_figures_can_be_read_and_say_nothing_undefined(table):
    for finding in drawn(table):
        assert_readable(finding)
        words = f"{finding.alt} {finding.caption}"
        assert "nan" not in words and "inf" not in words and not finding.alt.endswith("..")


def test_prepared_rows_have_words_and_noise():
    table = rows()
    assert set(table["method"]) == {"quantization", "pruning"}
    assert np.allclose(table["noise"] * table["snr"], 1)
    assert findings.prepared(table.assign(snr=np.inf))["noise"].eq(0).all()
    assert len(findings.of_method(table, "both")) == len(table)
    assert findings.of_method(table, "pruning")["method"].eq("pruning").all()
    with pytest.raises(ValueError, match="method must be one of quantization, pruning, both"):
        findings.of_method(table, "prune")


@pytest.mark.parametrize("at", findings.METHODS)
def test_methods_that_cost_the_same_at_one_snr_tie(at):
    """A loss proportional to noise is interpolated without error."""
    pairs = findings.at_equal_snr(rows(), "increase", at)
    assert len(pairs) >= 5 and np.allclose(pairs["difference"], 0, atol=1e-12)


@pytest.mark.parametrize("at", findings.METHODS)
def test_the_dearer_method_is_named(at):
    pairs = findings.at_equal_snr(rows(dearer=1.5), "increase", at)
    assert np.allclose(pairs["pruning"], 1.5 * pairs["quantization"])
    assert np.allclose(pairs["difference"], pairs["pruning"] - pairs["quantization"])
    gap = findings.mean_gap(pairs, n_draws=100)
    assert findings.dearer(gap, "nats").startswith("pruning costs more, by 0.")
    less = findings.mean_gap(findings.at_equal_snr(rows(dearer=0.5), "increase", at), n_draws=100)
    assert findings.dearer(less, "nats").startswith("quantization costs more, by 0.")
    assert gap.n_layers == 5


def test_nothing_is_extrapolated():
    table = rows(bits=(2, 8))
    for at in findings.METHODS:
        for _, row in findings.at_equal_snr(table, "increase", at).iterrows():
            other = findings.of_method(table, ({*findings.METHODS} - {at}).pop())
            own = other[other["layer"] == row["layer"]]["snr_db"]
            assert own.min() <= row["snr_db"] <= own.max()
    one = findings.at_equal_snr(rows(bits=(8,)), "increase")
    assert one.empty and findings.mean_gap(one).n_points == 0
    assert findings.dearer(findings.mean_gap(one), "nats") == (
        "there is no pair of points with one SNR"
    )


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [
        (-0.8, -0.9, -0.7, "SNR orders the losses strongly (rank correlation −0.80"),
        (-0.79, -0.9, -0.7, "SNR orders the losses moderately (rank"),
        (-0.3, -0.5, -0.1, "SNR orders the losses weakly (rank"),
        (-0.9, -1.0, 0.1, "SNR does not order the losses beyond chance (rank"),
        (0.9, 0.8, 1.0, "SNR orders the losses strongly, but the wrong way round (rank"),
        (math.nan, math.nan, math.nan, "there is nothing to put into an order"),
    ],
)
def test_order_in_words(value, low, high, words):
    assert findings.order_words(Estimate(value, low, high, 9, 3)).startswith(words)


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [
        (0.2, 0.1, 0.3, "pruning costs more, by 0.2 nats (0.1 to 0.3)"),
        (-0.2, -0.3, -0.1, "quantization costs more, by 0.2 nats (0.1 to 0.3)"),
        (-0.2, -0.3, 0.1, "the two tie: pruning's excess is −0.2 nats (−0.3 to 0.1)"),
        (-0.0, -0.3, 0.1, "the two tie: pruning's excess is 0 nats (−0.3 to 0.1)"),
    ],
)
def test_the_gap_in_words(value, low, high, words):
    gap = Estimate(value, low, high, 9, 3)
    assert (
        findings.dearer(gap, "nats")
        .removeprefix("the two tie: ")
        .startswith(words.removeprefix("the two tie: "))
    )


def test_sensitivities():
    slopes = findings.sensitivities(rows())
    assert slopes["layer"].tolist() == [f"layer{i}" for i in range(5)]
    assert np.allclose(slopes["slope"], [1, 2, 3, 4, 5])
    small = "where the noise is at most a tenth of the signal, a unit of it costs"
    assert findings.spread_words(slopes) == (
        f"{small} from 1 nats (layer0) to 5 (layer4), 5 times as much"
    )
    assert findings.ends_of(slopes) == ["layer0", "layer4"]
    below = slopes.assign(slope=[-1.0, 0, 3, 4, 6])
    assert findings.spread_words(below) == (
        f"{small} from 3 nats (layer2) to 6 (layer4), 2 times as much; "
        "in 2 of 5 layers it costs nothing that can be seen"
    )
    assert findings.ends_of(below) == ["layer2", "layer4"]
    one = below.assign(slope=[-1.0, -1, -1, 0, 6])
    assert findings.spread_words(one) == (
        f"{small} 6 nats (layer4); in 4 of 5 layers it costs nothing that can be seen"
    )
    assert findings.ends_of(one) == ["layer4"]
    none = slopes.assign(slope=-1.0)
    assert findings.spread_words(none) == f"{small} nothing that can be seen, in any of 5 layers"
    assert findings.ends_of(none) == []
    assert findings.sensitivities(CASES["exact"]).empty
    assert findings.spread_words(findings.sensitivities(CASES["exact"])).startswith("no layer has")


def test_much_noise_has_no_part_in_a_sensitivity():
    table = rows()
    loud = table["noise"] > findings.SMALL_NOISE
    assert 0 < loud.sum() < len(table)
    other = table.assign(increase=table["increase"].where(~loud, 100.0))
    assert findings.sensitivities(other).equals(findings.sensitivities(table))
    assert findings.sensitivities(table[loud]).empty


def test_losses_that_fall():
    table = rows(bits=(2, 4))
    assert findings.falls_words(table, "pruning") == "0% at 2 and 4 bits"
    lower = (table["layer"] == "layer1") & (table["n_bits"] == 4)
    table["increase"] = table["increase"].where(~lower, -1.0)
    assert findings.falls_words(table, "pruning") == "0% at 2 bits, 20% at 4 bits"


def test_what_the_images_cannot_tell():
    table = pd.DataFrame(
        {"drop": [0.0, 1.0, -1.0, 1.3], "agreement": [100.0, 99.0, 99.0, 99.0], "n_images": 100}
    )  # one image of a hundred has changed: at most one point, and a standard error of one
    assert findings.unresolved(table).tolist() == [True, True, True, True]
    table = table.assign(n_images=10_000, agreement=99.0)  # 100 of 10,000: standard error 0.1
    assert findings.unresolved(table).tolist() == [True, False, False, False]


NETWORKS = {  # layers, images and accuracy of the original
    "cifar_resnet20": (20, 1017, 91.64),
    "resnet18": (21, 2000, 79.9),
}


@pytest.fixture(scope="module", params=NETWORKS)
def committed(request):
    return findings.read_tables(str(ROOT / "book" / "results"))[request.param]


def test_halves_of_the_budgets():
    bits = {name: sorted(set(part["n_bits"])) for name, part in findings.halves(rows()).items()}
    assert bits == {"2 and 3 bits": [2, 3], "4 and 8 bits": [4, 8]}
    five = findings.halves(rows(bits=(2, 3, 4, 5, 6)))
    assert [*five] == ["2 and 3 bits", "4 to 6 bits"]
    assert [*findings.halves(rows(bits=(4,)))] == ["4 bits"]


def test_the_committed_table_holds_these_networks():
    assert list(findings.read_tables(str(ROOT / "book" / "results"))) == list(NETWORKS)


def test_the_committed_table_is_whole(committed):
    n_layers, n_images, fp_accuracy = NETWORKS[committed["model"].iloc[0]]
    assert committed["model"].nunique() == 1
    assert len(committed) == 14 * n_layers and committed["layer"].nunique() == n_layers
    assert not committed.duplicated(["layer", "n_bits", "method"]).any()
    assert set(committed["n_bits"]) == set(range(2, 9))
    assert committed["n_images"].eq(n_images).all()
    assert committed["fp_accuracy"].nunique() == 1
    assert committed["fp_accuracy"].iloc[0] == pytest.approx(fp_accuracy, abs=1)
    assert np.allclose(committed["drop"], committed["fp_accuracy"] - committed["accuracy"])
    gained = committed["cross_entropy"] - committed["fp_cross_entropy"]
    assert np.allclose(committed["increase"], gained)
    assert np.allclose(committed["snr_db"], 10 * np.log10(committed["snr"]))
    assert committed["agreement"].between(0, 100).all()
    pruned = findings.of_method(committed, "pruning")
    zeros = np.floor(pruned["n_weights"] * (1 - pruned["n_bits"] / 16) + 1e-9)
    assert np.allclose(pruned["sparsity"] * pruned["n_weights"], zeros)
    assert pruned["scale"].isna().all()
    assert findings.of_method(committed, "quantization")["scale"].gt(0).all()
    for column in ("hardware", "versions", "commit", "command", "seconds"):
        assert committed[column].notna().all()
    assert not committed["commit"].str.contains("dirty").any()
    assert committed["command"].nunique() == 1
    for column in ("command", "hardware", "data"):
        assert not committed[column].str.contains("/work|/tmp|/home", regex=True).any()


def test_more_bits_give_more_snr(committed):
    for _, group in committed.groupby(["layer", "method"]):
        assert group.sort_values("n_bits")["snr_db"].is_monotonic_increasing


def test_a_table_that_is_not_there():
    assert findings.read_tables("") == {} and findings.read_tables("no such") == {}


def test_figures_of_the_committed_table(committed):
    for finding in drawn(committed):
        assert_readable(finding)
