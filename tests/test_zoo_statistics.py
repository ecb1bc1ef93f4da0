from math import comb

import numpy as np
import pandas as pd
import pytest

from pqlib import zoo_statistics as stats


def made_up(kurtosis, pruning, n_bits=2):
    """A scan's table with what the statistics look at."""
    n = len(kurtosis)
    return pd.DataFrame(
        {
            "model": "m",
            "layer": [f"l{i}" for i in range(n)],
            "position": np.arange(n),
            "kind": np.where(np.arange(n) % 2, "linear", "conv2d"),
            "n_bits": n_bits,
            "kurtosis": kurtosis,
            "winner": np.where(pruning, "pruning", "quantization"),
            "margin_db": np.where(pruning, -1.0, 2.0),
            "shared_with": "",
            "skipped": "",
        }
    )


def two_normals(n_quant, n_prune, seed=0):
    rng = np.random.default_rng(seed)
    x = np.r_[rng.normal(0.7, 0.25, n_quant), rng.normal(1.2, 0.25, n_prune)]
    return made_up(10**x, np.arange(x.size) >= n_quant)


@pytest.mark.parametrize(("n_quant", "n_prune"), [(20_000, 20_000), (36_000, 4_000)])
def test_theorem_of_the_crossings(n_quant, n_prune):
    """Two normals of one variance: the crossings have a closed form."""
    split = stats.split_by_kurtosis(two_normals(n_quant, n_prune), 2)
    joint = 0.95 + 0.25**2 / 0.5 * np.log(n_quant / n_prune)
    found = {name: np.log10(k) for name, k in split.crossings.items()}
    assert found["joint"] == pytest.approx(joint, abs=0.03)
    assert found["class_conditional"] == pytest.approx(0.95, abs=0.03)
    assert found["logistic"] == pytest.approx(joint, abs=0.02)
    assert not split.notes


def test_densities_have_area_one():
    split = stats.split_by_kurtosis(two_normals(300, 200), 2, n_points=2000)
    for density in split.density.values():
        area = np.trapezoid(density, np.log10(split.kurtosis))
        assert 0.97 < area < 1.001  # a little lies beyond the tensors' range


def test_logistic_agrees_with_newton():
    table = two_normals(150, 50)
    x, y = np.log10(table["kurtosis"].to_numpy()), (table["winner"] == "pruning").to_numpy()
    design, beta = np.c_[np.ones_like(x), x], np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ beta))
        hessian = design.T @ (design * (p * (1 - p))[:, None])
        beta += np.linalg.solve(hessian, design.T @ (y - p))
    found = stats.split_by_kurtosis(table, 2).crossings["logistic"]
    assert found == pytest.approx(10 ** (-beta[0] / beta[1]), rel=1e-5)


@pytest.mark.parametrize(
    ("kurtosis", "pruning", "note"),
    [
        (np.arange(3.0, 23.0), np.zeros(20, bool), "pruning wins none of 20 tensors"),
        (np.arange(3.0, 23.0), np.ones(20, bool), "quantization wins none of 20 tensors"),
        (np.arange(3.0, 23.0), np.arange(20) > 17, "pruning wins only 2 of 20 tensors"),
        (np.full(20, 5.0), np.arange(20) > 9, "quantization wins only 10 of 20 tensors"),
    ],
)
def test_too_few_tensors_are_said_so(kurtosis, pruning, note):
    split = stats.split_by_kurtosis(made_up(kurtosis, pruning), 2)
    assert all(np.isnan(k) for k in split.crossings.values())
    assert set(split.notes.values()) == {note}
    table = stats.crossing_table([split])
    assert table.loc[0, "note"] == note and np.isnan(table.loc[0, "joint"])


def test_separated_winners_get_the_middle_of_the_gap():
    kurtosis = np.r_[np.linspace(3, 8, 20), np.linspace(18, 40, 20)]
    split = stats.split_by_kurtosis(made_up(kurtosis, kurtosis > 10), 2)
    assert split.crossings["logistic"] == pytest.approx(12.0)  # the geometric mean of 8 and 18
    assert split.notes == {
        "logistic": "kurtosis separates the winners, and the logistic curve may pass one half "
        "anywhere from 8.0 to 18.0"
    }


def test_reversed_winners_have_no_crossing():
    kurtosis = np.geomspace(3, 30, 60)
    rng = np.random.default_rng(1)
    pruning = rng.uniform(size=60) > np.linspace(0.1, 0.9, 60)
    split = stats.split_by_kurtosis(made_up(kurtosis, pruning), 2)
    assert split.notes["logistic"] == "pruning gets no likelier with kurtosis"
    assert np.isnan(split.crossings["logistic"])


def test_rows_without_winner_or_kurtosis_are_left_out():
    table = two_normals(30, 30)
    extra = table.head(3).assign(winner=["neither", "", "pruning"], kurtosis=[3.0, 3.0, np.nan])
    both = [stats.split_by_kurtosis(t, 2) for t in (table, pd.concat([table, extra]))]
    assert both[0].crossings == both[1].crossings
    with pytest.raises(ValueError, match=r"n_bits 5 is not in the table; it has \[2\]"):
        stats.split_by_kurtosis(table, 5)
    with pytest.raises(ValueError, match="n_points"):
        stats.split_by_kurtosis(table, 2, n_points=1)


@pytest.mark.parametrize(("n", "k"), [(1, 0), (10, 3), (288, 17), (1000, 875), (997, 500)])
def test_theorem_of_the_mask(n, k):
    per_weight = np.log2(float(comb(n, k))) / n
    price = stats.binary_entropy(k / n)
    assert price - np.log2(n + 1) / n - 1e-12 <= per_weight <= price + 1e-12


def test_binary_entropy_of_certainty_and_of_a_coin():
    np.testing.assert_allclose(stats.binary_entropy([0, 0.5, 1, 0.25]), [0, 1, 0, 0.811278], 1e-6)


def test_natural_sparsity_counts_bits():
    shares = [0.5, 0.75, np.nan, 0.25]  # one was skipped
    table = pd.DataFrame({"n_bits": [2, 2, 2, 4], "natural_sparsity": shares})
    found = stats.natural_sparsity(table).set_index("n_bits")
    assert found.loc[2, "mean"] == 0.625
    assert found.loc[2, "bits_saved"] == 1.25
    h = stats.binary_entropy(0.75)
    assert found.loc[2, "net"] == pytest.approx((0 + 1.5 - h) / 2)
    assert found.loc[2, "worth_it"] == 0.5  # at one half, what is saved just pays the mask
    assert found.loc[4, "prune_mask_bits"] == pytest.approx(h)


def test_breakdown_knows_first_and_last():
    table = made_up(np.linspace(3, 12, 10), np.arange(10) > 7)
    shared = table.iloc[[4]].assign(position=10, layer="again", shared_with="l4")
    skipped = table.iloc[[4]].assign(position=11, layer="broken", skipped="damaged")
    whole = pd.concat([table, shared, skipped])
    place = stats.breakdown(whole, 2, "place").set_index("group")
    assert place["n_tensors"].to_dict() == {"first": 1, "inner": 9}  # the last is counted already
    depth = stats.breakdown(table, 2, "depth").set_index("group")
    assert depth["n_tensors"].sum() == 10
    assert depth["quantization_wins"].to_dict() == {
        "first third": 1.0,
        "middle": 1.0,
        "last third": pytest.approx(1 / 3),
    }
    assert set(stats.breakdown(table, 2, "kind")["group"]) == {"conv2d", "linear"}
    with pytest.raises(ValueError, match="by must be one of kind, depth, place"):
        stats.breakdown(table, 2, "color")


def test_one_tensor_is_first():
    place = stats.breakdown(made_up([5.0], [False]), 2, "place")
    assert place["group"].tolist() == ["first"]


def test_wins_in_words():
    table = pd.concat([made_up([3.0, 4.0], [False, True], b) for b in (2, 3)])
    table = pd.concat([table, made_up([3.0, 4.0], [False, False], 4)])
    words = "quantization wins 1 of 2 tensors at 2 and 3 bits, all 2 tensors at 4 bits"
    assert stats.wins(table) == words
    tied = table[table["n_bits"] == 2].assign(winner=["quantization", "neither"])
    assert stats.wins(tied).endswith("1 of 2 tensors (both methods are exact on 1) at 2 bits")
