"""The second proof of an integer optimum: right about true optima, and about false ones."""

import numpy as np
import pytest
from bounds.test_quantization import KINDS, box, brute_force, instance
from relu_cases import relu_gram

from pqlib import LayerProblem, optimal_scale, solve_quantization
from pqlib.bounds.quantization_proof import reprove_quantization


@pytest.mark.parametrize("kind", KINDS)
def test_proves_optima_and_rejects_the_second_best(kind):
    rng = np.random.default_rng(300 + KINDS.index(kind))
    second_best = 0
    for _ in range(40):
        n_bits = int(rng.integers(2, 9))
        n = int(rng.integers(1, 12 // n_bits + 1))
        problem, scale = instance(kind, rng, n, n_bits)
        optimum = float(brute_force(problem, n_bits, scale))
        assert reprove_quantization(problem, n_bits, scale, optimum) is True
        d = scale * box(n_bits, n) - problem.weight
        errors = np.sort(np.einsum("ij,ij->i", d @ problem.gram, d))
        worse = errors[errors > optimum * (1 + 1e-9) + 1e-13 * problem.energy]
        if worse.size:
            second_best += 1
            assert reprove_quantization(problem, n_bits, scale, float(worse[0])) is False
    assert second_best >= 15


@pytest.mark.parametrize("n_bits", [2, 3, 4, 8])
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e5])
def test_proves_what_the_solver_found(condition, n_bits):
    rng = np.random.default_rng(n_bits)
    gram = relu_gram(rng, 28, condition)
    weights = rng.normal(size=(4, 28))
    scale = optimal_scale(weights, n_bits)
    for weight in weights:
        problem = LayerProblem(gram, weight)
        upper = solve_quantization(problem, n_bits, scale).upper
        assert reprove_quantization(problem, n_bits, scale, upper) is True
        assert reprove_quantization(problem, n_bits, scale, upper * (1 + 1e-6)) is False
        assert reprove_quantization(problem, n_bits, scale, upper, max_nodes=1) in (None, True)


def test_dead_inputs_cost_nothing():
    assert reprove_quantization(LayerProblem(np.zeros((2, 2)), [1.0, 2.0]), 4, 1.0, 0.0) is True


def test_grams_indefinite_by_rounding_are_answered():
    rng = np.random.default_rng(0)
    for _ in range(40):
        n, n_bits = int(rng.integers(2, 6)), int(rng.integers(2, 4))
        x = rng.normal(size=(max(n // 2, 1), n))
        gram = x.T @ x
        gram -= np.eye(n) * 0.4e-9 * gram.max() * rng.random()
        problem = LayerProblem(gram, rng.normal(size=n))
        optimum = float(brute_force(problem, n_bits, 0.4))
        if optimum > 1e-6 * problem.energy:
            assert reprove_quantization(problem, n_bits, 0.4, optimum) is not False
            assert reprove_quantization(problem, n_bits, 0.4, optimum * 1.001) is not True
