import numpy as np
import pytest
from scipy import stats as reference

import pqlib as pq
from pqlib import StudentT, Truncated
from pqlib import zoo_predictors as predictors


def test_curve_crosses_where_the_second_chapter_says():
    curve = predictors.theory_curve([2, 4], n_points=100)
    assert curve.crossing(2) == pytest.approx(8.873326077673738, rel=1e-9)  # reference_values
    assert curve.crossing(4) == pytest.approx(28.350272489282283, rel=1e-9)
    coarse = predictors.theory_curve([4], n_points=5)
    assert coarse.crossing(4) == pytest.approx(curve.crossing(4), rel=1e-9)
    dist = Truncated(StudentT(2), -20, 20)
    exact = pq.compare(dist, 4).margin_db
    assert curve.predict([dist.kurtosis()], 4) == pytest.approx(exact, abs=0.02)
    low, high = curve.margin_db[4][[0, -1]]
    assert curve.predict([1.0, 1e9], 4).tolist() == [low, high]


def test_curve_without_crossing():
    curve = predictors.TheoryCurve(
        np.array([2.0, 5.0]), {2: np.array([3.0, 1.0])}, np.array([1.0, 6.0])
    )
    assert np.isnan(curve.crossing(2))


@pytest.mark.parametrize("seed", range(5))
def test_auc_and_spearman_agree_with_definitions(seed):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 6, 40).astype(float)  # with ties
    positive = rng.uniform(size=40) > 0.6
    pairs = score[positive][:, None] - score[~positive]
    by_pairs = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    assert predictors.area_under_curve(score, positive) == pytest.approx(by_pairs)
    other = score + rng.normal(size=40)
    rho = reference.spearmanr(score, other).statistic
    assert predictors.spearman_correlation(score, other) == pytest.approx(rho)


def test_association_of_a_perfect_and_of_no_prediction():
    rng = np.random.default_rng(0)
    margin = rng.normal(1, 2, 400)
    perfect = predictors.association(margin, margin, rng)
    assert perfect.auc == perfect.spearman == (1.0, 1.0, 1.0)
    assert perfect.right == 1.0 and perfect.error_db == 0.0
    chance = predictors.association(rng.normal(size=400), margin, rng)
    for (_, low, high), truth in ((chance.auc, 0.5), (chance.spearman, 0.0)):
        assert low < truth < high and high - low < 0.3
    ranks_only = predictors.association(-margin, margin, rng, in_db=False)
    assert ranks_only.auc[0] == 0.0 and np.isnan(ranks_only.right)


def test_interval_covers_as_often_as_it_says():
    """Spearman's 95 % interval over samples of a known correlation."""
    rng, rho = np.random.default_rng(3), 0.8
    truth = 6 / np.pi * np.arcsin(rho / 2)  # of a bivariate normal
    covered = 0
    for _ in range(200):
        x, noise = rng.normal(size=(2, 60))
        y = rho * x + np.sqrt(1 - rho**2) * noise
        _, low, high = predictors.association(x, y, rng, n_resamples=200).spearman
        covered += low <= truth <= high
    assert 170 <= covered <= 200


def test_same_seed_same_interval():
    margin = np.random.default_rng(0).normal(size=30)
    a, b = (
        predictors.association(margin**3 + 1, margin, np.random.default_rng(7)) for _ in range(2)
    )
    assert a == b


def test_advantage_is_paired():
    rng = np.random.default_rng(0)
    margin = rng.normal(size=200)
    rough, fine = margin + rng.normal(size=200), margin + 0.2 * rng.normal(size=200)
    gain = predictors.advantage(fine, rough, margin, np.random.default_rng(1))
    assert gain["spearman"][1] > 0 and gain["auc"][1] > 0
    nothing = predictors.advantage(rough, rough, margin, np.random.default_rng(1))
    assert nothing["spearman"] == nothing["auc"] == (0.0, 0.0, 0.0)


def test_one_winner_has_no_auc_and_infinite_leads_have_ranks():
    rng = np.random.default_rng(0)
    found = predictors.association([1.0, 2.0, 4.0, np.inf], [1.0, 3.0, 5.0, np.inf], rng)
    assert np.isnan(found.auc).all() and found.spearman[0] == 1.0
    assert found.n_pruning == 0 and found.error_db == 0.5
    alone = predictors.association([1.0], [1.0], rng)
    assert np.isnan(alone.spearman).all()


def test_bad_predictions():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"equally long and not empty, got shapes \(2,\), \(3,\)"):
        predictors.association([1.0, 2.0], [1.0, 2.0, 3.0], rng)
    with pytest.raises(ValueError, match="not empty"):
        predictors.association([], [], rng)
    with pytest.raises(ValueError, match="margin_db must not hold NaN"):
        predictors.association([1.0, 2.0], [np.nan, 1.0], rng)
    with pytest.raises(ValueError, match="predicted must not hold NaN"):
        predictors.association([np.nan, 2.0], [2.0, 1.0], rng)
    with pytest.raises(ValueError, match="n_resamples"):
        predictors.association([1.0, 2.0], [2.0, 1.0], rng, n_resamples=1)
    with pytest.raises(ValueError, match="n_points"):
        predictors.theory_curve([4], n_points=1)


def test_hidden_weights_are_not_seen():
    rng = np.random.default_rng(0)
    weights = {"big": rng.normal(size=(50, 60)), "small": rng.normal(size=(10, 10))}
    rows = list(predictors.held_out_leads(weights, [2, 4], 500, np.random.default_rng(5)))
    assert [(r["layer"], r["n_bits"], r["n_seen"]) for r in rows] == [
        ("big", 2, 500), ("big", 4, 500), ("small", 2, 50), ("small", 4, 50),
    ]  # fmt: skip
    flat = np.random.default_rng(5).permutation(weights["big"].ravel())
    assert rows[1]["seen_margin_db"] == pq.compare(flat[:500], 4).margin_db
    assert rows[1]["hidden_margin_db"] == pq.compare(flat[500:], 4).margin_db
    assert rows[1]["seen_kurtosis"] == pq.kurtosis(flat[:500])


def test_tensors_that_cannot_be_split_are_left_out():
    weights = {"tiny": np.arange(9.0), "constant": np.ones(100), "zero": np.zeros((20, 20))}
    assert not list(predictors.held_out_leads(weights, [4], 100, np.random.default_rng(0)))
    with pytest.raises(ValueError, match="n_seen"):
        next(predictors.held_out_leads({"a": np.arange(99.0)}, [4], 2, np.random.default_rng(0)))
