"""Sorted weights: every sum against the plain computation; the search itself in test_ranges."""

import math

import numpy as np
import pytest

from pqlib import IntegerGrid, fake_quantize, kernels, magnitude_mask, mse
from pqlib.scale_search import SortedWeights

WEIGHTS = {
    "normal": lambda rng: rng.normal(size=999),
    "single precision": lambda rng: rng.normal(size=999).astype(np.float32),
    "positive": lambda rng: rng.gamma(1.0, size=300),
    "negative": lambda rng: -rng.gamma(1.0, size=300),
    "ties": lambda rng: rng.choice([-2.0, -0.5, 0.0, 0.5, 1.0, 3.0], 200),
    "many zeros": lambda rng: rng.normal(size=200) * rng.integers(0, 2, 200),
    "one": lambda rng: rng.normal(size=1),
    "heavy": lambda rng: rng.standard_t(0.7, 500),
    "matrix": lambda rng: rng.normal(size=(7, 5, 3)),
}


@pytest.fixture(params=WEIGHTS)
def w(request):
    return WEIGHTS[request.param](np.random.default_rng(0))


def test_pruning_is_that_of_the_mask(w):
    weights = SortedWeights(w)
    for sparsity in (0.0, 0.1, 0.5, 0.75, 0.875, 0.99):
        mask = magnitude_mask(w.astype(float), sparsity)
        n_zeros = int(mask.size - mask.sum())
        expected = mse(w.astype(float), w * mask)
        assert weights.pruning_mse(n_zeros) == pytest.approx(expected, rel=1e-12)
    assert weights.pruning_mse(w.size) == pytest.approx(np.mean(w.astype(float) ** 2), rel=1e-12)


def test_quantization_is_that_of_the_grid(w):
    weights = SortedWeights(w)
    for n_bits in (2, 4, 8):
        found = weights.search(IntegerGrid(n_bits, 1.0))
        for scale in (found.scale, 0.1, 3.0):
            grid = IntegerGrid(n_bits, scale)
            expected = mse(w.astype(float), fake_quantize(w.astype(float), grid))
            assert weights.quantization_mse(grid) == pytest.approx(expected, rel=1e-12, abs=1e-30)
        assert found.mse == pytest.approx(
            weights.quantization_mse(IntegerGrid(n_bits, found.scale)), rel=1e-12, abs=1e-30
        )
        zeros = fake_quantize(w.astype(float), IntegerGrid(n_bits, found.scale)) == 0
        assert found.natural_sparsity == pytest.approx(zeros.mean(), abs=2 / w.size)


def test_minmax_clips_nothing_and_is_the_smallest_that_does(w):
    for n_bits in (2, 4, 8):
        grid = IntegerGrid(n_bits, 1.0)
        scale = SortedWeights(w).minmax_scale(grid)
        reach = np.array([-grid.qmin * scale, grid.qmax * scale])
        ends = np.array([-w.min(), w.max()], dtype=float)
        assert (ends <= reach * (1 + 1e-12)).all()
        assert (ends >= reach * (1 - 1e-12)).any()


def test_input_is_left_alone_and_single_precision_is_exact():
    w = np.random.default_rng(1).normal(size=500).astype(np.float32)
    kept = w.copy()
    single, double = SortedWeights(w), SortedWeights(w.astype(np.float64))
    assert np.array_equal(w, kept)
    for n_bits in range(2, 9):
        grid = IntegerGrid(n_bits, 1.0)
        assert single.search(grid) == double.search(grid)
    assert single.mean_square == double.mean_square


def test_zero_weights():
    weights = SortedWeights(np.zeros(5))
    assert weights.mean_square == weights.pruning_mse(3) == 0.0
    assert weights.minmax_scale(IntegerGrid(4, 1.0)) == 1.0


def test_sums_of_a_million_terms_lose_no_digits():
    """The proof of a scale allows for 64 units in the last place, less than plain sums lose."""
    side = np.sort(abs(np.random.default_rng(0).normal(size=10**6)))
    for found, terms in (
        (kernels.tail_sums(side)[0], side),
        (kernels.head_squares(side)[-1], side * side),
    ):
        assert found == pytest.approx(math.fsum(terms), rel=4e-16, abs=0)


def test_the_bound_holds_before_it_is_kept_below_the_error(monkeypatch):
    raw, best_scale = [], kernels.best_scale

    def seen(*arguments):
        found = best_scale(*arguments)
        raw.append(found[2] - arguments[-2])
        return found

    monkeypatch.setattr(kernels, "best_scale", seen)
    x = np.random.default_rng(0).normal(size=4_000_000)
    scale = SortedWeights(x).search(IntegerGrid(8, 1.0)).scale
    error = math.fsum((np.clip(np.rint(x / scale), -128, 127) * scale - x) ** 2)
    assert error * (1 - 1e-9) < raw[0] <= error
