"""The second proof of an integer optimum: right about true optima, and about false ones."""

import numpy as np
import pytest
from bounds.test_quantization import KINDS, box, brute_force, instance
from relu_cases import relu_gram

from pqlib import LayerProblem, optimal_scale, solve_quantization
from pqlib.bounds import quantization_proof
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


@pytest.mark.parametrize("turn", [1, 7, 50])
def test_pauses_lose_nothing(turn, monkeypatch):
    """A pause may come right after a level is entered: its children are still to be visited."""
    rng = np.random.default_rng(turn)
    monkeypatch.setattr(quantization_proof, "_TURN", turn)
    for _ in range(12):
        gram = relu_gram(rng, 16, 1e3)
        problem = LayerProblem(gram, rng.normal(size=16))
        upper = solve_quantization(problem, 3, 0.4).upper
        for claim, expected in ((upper, True), (upper * 1.0001, False), (upper * 1.05, False)):
            assert reprove_quantization(problem, 3, 0.4, claim) is expected


@pytest.mark.parametrize("condition", [1e8, 1e10])
def test_ill_conditioned_grams_are_told_to_nine_digits(condition):
    rng = np.random.default_rng(4)
    for _ in range(20):
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        gram = rotation * np.geomspace(1, 1 / condition, 3) @ rotation.T
        problem = LayerProblem((gram + gram.T) / 2, rng.normal(size=3) * 40)
        upper = solve_quantization(problem, 8, 1.0).upper
        assert reprove_quantization(problem, 8, 1.0, upper) is True
        assert reprove_quantization(problem, 8, 1.0, upper * (1 + 1e-9)) is False


@pytest.mark.parametrize(
    ("change", "error", "message"),
    (
        ({"upper": np.nan}, ValueError, "upper must be a finite number"),
        ({"n_bits": 0}, ValueError, "n_bits must be"),
        ({"scale": 0.0}, ValueError, "scale must be"),
        ({"problem": "x"}, TypeError, "problem must be a LayerProblem"),
        ({"max_nodes": 0}, ValueError, "max_nodes must be"),
    ),
)
def test_bad_input_is_named(change, error, message):
    options = {"problem": LayerProblem([[1.0]], [0.5]), "n_bits": 3, "scale": 1.0, "upper": 0.2}
    with pytest.raises(error, match=message):
        reprove_quantization(**(options | change))
