"""200 optima that SCIP, a general solver, agreed with (`benchmarks/store_optima.py` made them)."""

import csv
from pathlib import Path

import numpy as np
import pytest
from relu_cases import relu_gram

from pqlib import LayerProblem, solve_pruning, solve_quantization

ROWS = list(csv.DictReader((Path(__file__).parent / "stored_optima.csv").open(newline="")))


def problem_of(row):
    """The instance, as `benchmarks/solvers.py` draws it."""
    rng = np.random.default_rng(int(row["seed"]))
    n = int(row["n"])
    gram = relu_gram(rng, n, float(row["condition"]))
    return LayerProblem(gram, rng.normal(size=(1, n))[0])


def test_two_hundred_are_stored():
    assert len(ROWS) == 200
    sizes = {int(row["n"]) for row in ROWS}
    assert sizes <= set(range(16, 37)) and max(sizes) >= 34
    for row in ROWS:  # a general solver's optimum holds within its tolerances
        assert float(row["scip"]) == pytest.approx(float(row["optimum"]), rel=1e-3)


@pytest.mark.parametrize("kind", ["prune", "quantize"])
def test_optima_are_found_again(kind):
    rows = [row for row in ROWS if row["problem"] == kind]
    assert len(rows) == 100
    for row in rows:
        problem, budget = problem_of(row), int(row["budget"])
        assert problem.energy == pytest.approx(float(row["energy"]), rel=1e-9)
        if kind == "prune":
            result = solve_pruning(problem, budget)
        else:
            result = solve_quantization(problem, budget, float(row["scale"]))
        assert result.proven
        assert result.upper == pytest.approx(float(row["optimum"]), rel=1e-8), row
