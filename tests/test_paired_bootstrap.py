"""Intervals of leads: as wide as theory says, and as often right."""

import numpy as np
import pytest

from pqlib.paired_bootstrap import lead_interval


def means(per_image, draws):
    return np.array([per_image[draw].mean() for draw in draws])


def test_interval_is_that_of_a_mean():
    rng = np.random.default_rng(0)
    first = rng.random(400) < 0.9
    assert lead_interval(means, [(first, first)], n_draws=100, seed=0) == (0, 0)
    second = first & (rng.random(400) < 0.9)
    lost = first.astype(float) - second
    error = 1.96 * lost.std() / 20
    ends = lead_interval(means, [(first, second)], n_draws=2000, seed=0)
    assert ends == pytest.approx((lost.mean() - error, lost.mean() + error), abs=0.004)


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for repeat in range(200):
        first, second = rng.random(300) < 0.9, rng.random(300) < 0.8
        low, high = lead_interval(means, [(first, second)], n_draws=200, seed=repeat)
        held += low <= 0.1 <= high
    assert 178 <= held <= 200  # 190 expected, four standard deviations of 3


def test_interval_is_wider_where_seeds_differ():
    right = np.arange(400) < 360
    alike = [(right, np.arange(400) < n) for n in (320, 320, 320)]
    apart = [(right, np.arange(400) < n) for n in (280, 320, 360)]
    widths = [np.ptp(lead_interval(means, pairs, n_draws=400, seed=0)) for pairs in (alike, apart)]
    assert widths[1] > 1.5 * widths[0]


def test_pairs_must_be_of_the_same_images():
    with pytest.raises(ValueError, match=r"same test images, got 3 and 4"):
        lead_interval(means, [(np.ones(3), np.ones(4))], n_draws=2, seed=0)
