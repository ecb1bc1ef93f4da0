"""One channel's problem: its error to the last digits, and bad input."""

from fractions import Fraction

import numpy as np
import pytest

from pqlib.layers.problem import LayerProblem


def rational_error(problem, w_hat):
    """(w_hat - w)' P (w_hat - w) without rounding."""
    d = [Fraction(a) - Fraction(b) for a, b in zip(w_hat, problem.weight.tolist(), strict=True)]
    rows = [[Fraction(p) for p in row] for row in problem.gram.tolist()]
    return sum(
        a * p * b for a, row in zip(d, rows, strict=True) for p, b in zip(row, d, strict=True)
    )


def weakest(n, condition, seed):
    """A gram of this condition number and its weakest direction."""
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    gram = (rotation * condition ** -np.linspace(0, 1, n)) @ rotation.T
    return gram, rotation[:, -1]


@pytest.mark.parametrize("n", [2, 9, 30])
@pytest.mark.parametrize("condition", [1.0, 1e6, 1e13])
@pytest.mark.parametrize("step", [1e-9, 1.0])
def test_error_is_good_to_the_last_digits(n, condition, step):
    """Along the weakest direction of P terms cancel, at small steps the differences round too."""
    gram, direction = weakest(n, condition, n)
    weight = 10 * np.random.default_rng(n + 1).normal(size=n)
    problem = LayerProblem(gram, weight)
    w_hat = weight + step * direction
    expected = float(rational_error(problem, w_hat.tolist()))
    assert problem.error(w_hat) == pytest.approx(expected, rel=1e-14, abs=0)
    assert problem.energy == pytest.approx(float(rational_error(problem, [0.0] * n)), rel=1e-14)


def test_error_by_hand():
    problem = LayerProblem([[2.0, 1.0], [1.0, 2.0]], [1.0, -1.0])
    assert problem.error([0.0, 0.0]) == problem.energy == 2.0
    assert problem.error([1, -1]) == 0.0
    assert problem.error([3.0, 0.0]) == 14.0  # d = (2, 1)


def test_error_is_never_negative_nor_nan():
    indefinite = np.array([[1.0, 1.0], [1.0, 1.0 - 1e-12]])
    assert LayerProblem(indefinite, [0.0, 0.0]).error([1.0, -1.0]) == 0.0
    assert LayerProblem(np.zeros((2, 2)), [1.0, 2.0]).error([5.0, 5.0]) == 0.0
    huge = LayerProblem(np.eye(2) * 1e50, [1e-25, 0.0])
    assert huge.energy == pytest.approx(1.0)
    assert huge.error([1e150, 0.0]) == np.inf


@pytest.mark.parametrize("power", [-140, 140])
def test_powers_of_two_change_no_digit(power):
    gram, _ = weakest(5, 1e4, 0)
    weight = np.random.default_rng(0).normal(size=5)
    error = LayerProblem(gram, weight).error(np.rint(weight))
    moved = LayerProblem(np.ldexp(gram, power), np.ldexp(weight, -power))
    assert moved.error(np.ldexp(np.rint(weight), -power)) == np.ldexp(error, -power)


def test_arrays_are_read_only_copies():
    gram, weight = np.eye(2), np.ones(2)
    problem = LayerProblem(gram, weight)
    gram[0, 0] = weight[0] = 9.0
    assert problem.gram[0, 0] == problem.weight[0] == 1.0
    for array in (problem.gram, problem.weight):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0


BAD = {
    "nan": (([[np.nan]], [1.0]), "gram must be finite|gram contains|gram"),
    "empty": ((np.zeros((0, 0)), []), "gram|weight"),
    "weight shape": ((np.eye(2), np.ones((2, 1))), r"weight must have shape \(n,\), got \(2, 1\)"),
    "gram shape": ((np.eye(3), np.ones(2)), r"gram must have shape \(2, 2\), got \(3, 3\)"),
    "asymmetric": (([[1.0, 1e-3], [0.0, 1.0]], np.ones(2)), "gram must be symmetric"),
    "indefinite": ((np.diag([1.0, -1e-3]), np.ones(2)), "gram must be positive semidefinite"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    arguments, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        LayerProblem(*arguments)


def test_bad_weights_are_named():
    problem = LayerProblem(np.eye(2), np.ones(2))
    with pytest.raises(ValueError, match=r"w_hat must have shape \(2,\), got \(3,\)"):
        problem.error(np.ones(3))
    with pytest.raises(ValueError, match="w_hat"):
        problem.error([1.0, np.inf])


@pytest.mark.parametrize("big", [1e6, 1e12, 1e15])
def test_terms_that_cancel_are_summed_exactly(big):
    """Weights on equal inputs whose sum all but vanishes: twice the precision is not enough."""
    rng = np.random.default_rng(int(np.log10(big)))
    gram = np.ones((3, 3)) + np.diag([1.0, 0, 0])
    for _ in range(50):
        weight = np.array([0.01 * rng.normal(), big, -big + 0.01 * rng.normal()])
        problem = LayerProblem(gram, weight)
        assert problem.energy == float(rational_error(problem, [0.0] * 3))
        w_hat = np.array([0.0, weight[1] * (1 + 2**-52), weight[2]])
        assert problem.error(w_hat) == pytest.approx(
            float(rational_error(problem, w_hat)), rel=1e-15
        )
    flat = LayerProblem(np.ones((2, 2)), [1.0, -1.0])
    assert flat.energy == 0.0
    assert flat.error([3.0, -1.0]) == 4.0


def test_the_ends_of_what_a_problem_may_hold():
    assert LayerProblem([[1e50]], [1e45]).energy == pytest.approx(1e140, rel=1e-15)
    assert LayerProblem([[1e-50]], [1e-45]).energy == pytest.approx(1e-140, rel=1e-15, abs=0)
    least = float(np.finfo(np.float32).smallest_subnormal)
    assert LayerProblem([[1.0]], [least]).energy == least**2
    assert LayerProblem(1e50 * np.array([[1.0, -1], [-1, 1]]), [1e45, 1e45]).energy == 0.0


@pytest.mark.parametrize(
    ("gram", "weight", "message"),
    [
        ([[1.0]], [9e-46], "weight must be 0 or from 1e-45 to 1e+45 in size, got 9e-46; rescale"),
        ([[1.0]], [-2e45], "weight must be 0 or from 1e-45 to 1e+45 in size, got 2e+45"),
        ([[2e50]], [1.0], "the diagonal of gram must be 0 or from 1e-50 to 1e+50 in size, got 2e"),
        (np.diag([1, 9e-51]), [1.0, 1.0], "the diagonal of gram must be 0 or from .*, got 9e-51"),
        ([[1.0, 1e308], [1e308, 1.0]], [1.0, 1.0], "gram must be positive semidefinite"),
        ([[1.0]], [10**400], "weight must be finite, got a number beyond float64"),
    ],
)
def test_what_leaves_no_digits_is_refused(gram, weight, message):
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        LayerProblem(gram, weight)


def test_a_small_weight_beside_an_enormous_one_counts():
    problem = LayerProblem(np.diag([0.0, 1e50]), [1e45, 1e-45])
    assert problem.error([1e45, 0.0]) == pytest.approx(1e-40, rel=1e-15, abs=0)
    assert problem.error([1e45, 1e-45]) == 0.0
