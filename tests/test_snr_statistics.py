"""Correlations over layers against scipy, written-out draws, and cases with a known answer."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pqlib.snr_statistics import (
    Estimate,
    across_layers,
    advantage,
    between_methods,
    correlation,
    mean_over_layers,
    weighted_correlation,
    within_layers,
)

OF = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}


def rows(n_layers=6, bits=(2, 4, 8), seed=0, between=1.0, noise=0.1):
    """A loss that falls with SNR in each layer, and layers that differ by ``between``."""
    rng = np.random.default_rng(seed)
    table = []
    for i in range(n_layers):
        level = between * rng.normal()
        for b in bits:
            for method in ("quantization", "pruning"):
                x = 6 * b + rng.normal()
                y = level - x + noise * rng.normal()
                table.append((f"l{i}", b, method, x, y, -y))
    return pd.DataFrame(table, columns=["layer", "n_bits", "method", "x", "y", "z"])


@pytest.mark.parametrize("kind", OF)
def test_the_value_is_scipys(kind):
    table = rows()
    found = correlation(table, "x", "y", kind, n_draws=50)
    assert found.value == OF[kind](table["x"], table["y"]).statistic
    assert (found.n_points, found.n_layers) == (36, 6)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("kind", OF)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_draw_is_the_correlation_of_its_points_written_out(kind, data):
    """Counts of points instead of points, also among ties."""
    n = data.draw(st.integers(3, 12))
    whole = st.lists(st.integers(-3, 3), min_size=n, max_size=n)
    x, y = (np.array(data.draw(whole), float) for _ in range(2))
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    a, b = np.repeat(x, counts), np.repeat(y, counts)
    (found,) = weighted_correlation(x, y, counts[None], kind)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(OF[kind](a, b).statistic, abs=1e-12)


def test_the_interval_is_that_of_whole_layers():
    """Draws made one by one, layer by layer, give the same interval but for chance."""
    table, rng = rows(n_layers=8, between=20.0), np.random.default_rng(1)
    groups = [group for _, group in table.groupby("layer")]
    draws = []
    for _ in range(3000):
        drawn = pd.concat([groups[i] for i in rng.integers(0, 8, 8)])
        draws.append(stats.pearsonr(drawn["x"], drawn["y"]).statistic)
    low, high = np.quantile(draws, [0.025, 0.975])
    found = correlation(table, "x", "y", "pearson", n_draws=3000)
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.04)
    singly = table.assign(layer=[str(i) for i in range(len(table))])
    narrow = correlation(singly, "x", "y", "pearson", n_draws=3000)
    assert found.high - found.low > 1.3 * (narrow.high - narrow.low)


def test_spearman_does_not_see_a_monotone_scale_and_pearson_does():
    table = rows(noise=3.0)
    table["steep"] = 10 ** (table["x"] / 10)
    by_rank, by_number = (
        [correlation(table, x, "y", kind, n_draws=200) for x in ("x", "steep")]
        for kind in ("spearman", "pearson")
    )
    assert by_rank[0] == by_rank[1]
    assert by_number[0].value < by_number[1].value - 0.05


def test_what_cannot_be_correlated_is_not_defined():
    table = rows()
    for odd in (table.assign(y=1.0), table.iloc[:2], table.assign(x=np.inf), table.iloc[:0]):
        for kind in OF:
            found = correlation(odd, "x", "y", kind, n_draws=20)
            assert math.isnan(found.value) and str(found) == "not defined" and found.sign == 0
        assert math.isnan(across_layers(odd, "x", "y", n_draws=20).value)
        assert math.isnan(within_layers(odd, "x", "y", n_draws=20).value)
        assert math.isnan(advantage(odd, "x", "z", "y", n_draws=20).value)


def test_rows_without_error_are_left_out():
    table = rows()
    with_inf = table.assign(x=table["x"].where(table["n_bits"] < 8, np.inf))
    found = correlation(with_inf, "x", "y", "pearson", n_draws=50)
    finite = table[table["n_bits"] < 8]
    assert found == correlation(finite, "x", "y", "pearson", n_draws=50)
    assert found.n_points == 24


def test_within_and_across_layers_are_told_apart():
    """In each layer the loss falls with SNR; among layers it has nothing to do with it."""
    table = rows(n_layers=30, between=100.0, noise=0.0)
    within = within_layers(table, "x", "y", n_draws=200)
    assert (within.value, within.low, within.high) == (-1, -1, -1)
    across = across_layers(table, "x", "y", n_draws=500)
    assert across.low < 0 < across.high and across.sign == 0
    alike = across_layers(table.assign(y=-table["x"]), "x", "y", n_draws=200)
    assert alike.value == -1 and alike.sign == -1


def test_across_is_the_mean_over_budgets():
    table = rows()
    own = [stats.spearmanr(g["x"], g["y"]).statistic
           for _, g in table.groupby(["method", "n_bits"])]  # fmt: skip
    assert across_layers(table, "x", "y", n_draws=20).value == pytest.approx(np.mean(own))
    own = [stats.spearmanr(g["x"], g["y"]).statistic
           for _, g in table.groupby(["method", "layer"])]  # fmt: skip
    assert within_layers(table, "x", "y", n_draws=20).value == pytest.approx(np.mean(own))


def test_between_methods_is_the_share_of_pairs_in_order():
    pairs = [("a", 2, 1.0, 5.0), ("a", 3, 2.0, 4.0), ("b", 2, 3.0, 9.0), ("b", 3, 4.0, 7.0)]
    other = {("a", 2): (2.0, 3.0), ("a", 3): (1.0, 3.0), ("b", 2): (1.0, 9.0), ("b", 3): (5.0, 1.0)}
    table = pd.DataFrame(
        [(layer, b, "pruning", x, y) for layer, b, x, y in pairs]
        + [(layer, b, "quantization", *other[layer, b]) for layer, b, _, _ in pairs],
        columns=["layer", "n_bits", "method", "x", "y"],
    )
    found = between_methods(table, "x", "y", n_draws=20)
    # layer a: once in order, once not; layer b: an equal loss, which is left out, and one in order
    assert found.value == pytest.approx((0.0 + -1.0) / 2)
    assert found.low >= -1 and found.high <= 0 and found.n_layers == 2


def test_advantage_is_paired():
    table = rows(noise=5.0)
    table["better"] = table["y"] + 0.1 * np.random.default_rng(3).normal(size=len(table))
    found = advantage(table, "better", "x", "y", n_draws=300)
    sizes = [abs(stats.spearmanr(table[c], table["y"]).statistic) for c in ("better", "x")]
    assert found.value == pytest.approx(sizes[0] - sizes[1]) and found.sign == 1
    same = advantage(table, "x", "x", "y", n_draws=300)
    assert (same.value, same.low, same.high, same.sign) == (0, 0, 0, 0)
    turned = advantage(table, "y", "z", "y", n_draws=300)  # as strong, the other way round
    assert abs(turned.value) < 1e-12


def test_layers_count_alike_however_many_rows_they_have():
    table = pd.DataFrame({"layer": ["a"] * 9 + ["b"], "d": [0.0] * 9 + [1.0]})
    assert mean_over_layers(table, "d", n_draws=100).value == 0.5
    assert math.isnan(mean_over_layers(table.iloc[:0], "d", n_draws=100).value)


def test_the_same_seed_gives_the_same_interval():
    table = rows()
    one, two, other = (
        correlation(table, "x", "y", "pearson", n_draws=40, seed=s) for s in (1, 1, 2)
    )
    assert one == two != other


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"kind": "kendall"}, "kind must be one of pearson, spearman, got 'kendall'"),
        ({"n_draws": 5}, r"n_draws must be a whole number in 10\.\.100000, got 5"),
        ({"seed": -1}, "seed must be a whole number"),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(ValueError, match=text):
        correlation(rows(), "x", "y", **({"kind": "pearson"} | options))


def test_estimates_in_words():
    assert str(Estimate(-0.814, -0.9, -0.7, 9, 3)) == "−0.81 (−0.90 to −0.70)"
    assert str(Estimate(0.001, -0.001, 0.2, 9, 3)) == "0.00 (0.00 to 0.20)"
    assert [Estimate(0, a, b, 9, 3).sign for a, b in ((-1, -0.1), (-1, 1), (0.1, 1))] == [-1, 0, 1]
