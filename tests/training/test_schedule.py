"""Schedules: the formulas at every step, and outside."""

import math

import pytest

from pqlib import matched_sparsity
from pqlib.training.schedule import cosine, cubic_sparsity


@pytest.mark.parametrize("n_bits", (2, 4, 8))
def test_cubic_at_every_step(n_bits):
    final, n = matched_sparsity(n_bits), 137
    got = [cubic_sparsity(t, 5, n, 0.1, final) for t in range(n + 20)]
    for t, value in enumerate(got):
        inside = min(max((t - 5) / (n - 5), 0), 1)
        assert value == pytest.approx(final + (0.1 - final) * (1 - inside) ** 3, abs=1e-15)
    assert got[:6] == [0.1] * 6
    assert got[n:] == [final] * 20
    assert sorted(got) == got


def test_cubic_jumps_where_there_is_no_ramp():
    assert cubic_sparsity(0, 0, 0, 0.0, 0.75) == 0.75
    assert cubic_sparsity(-1, 0, 0, 0.0, 0.75) == 0.0


@pytest.mark.parametrize(
    "arguments",
    ((1, 2, 1, 0, 0.5), (0, 0, 1, -0.1, 0.5), (0, 0, 1, 0, 1.5), (math.nan, 0, 1, 0, 1)),
)
def test_cubic_refuses(arguments):
    with pytest.raises(ValueError, match="must be a finite number"):
        cubic_sparsity(*arguments)


def test_cosine():
    assert [cosine(t, 3) for t in range(5)] == pytest.approx([1, 0.505, 0.01, 0.01, 0.01])
    assert (cosine(0, 1), cosine(0, 7), cosine(6, 7, floor=0.25)) == (1.0, 1.0, 0.25)
    values = [cosine(t, 100) for t in range(100)]
    assert sorted(values, reverse=True) == values
    with pytest.raises(ValueError, match="n_steps"):
        cosine(0, 0)
    with pytest.raises(ValueError, match="step"):
        cosine(-1, 4)
