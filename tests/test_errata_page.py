"""What the page of errata calls computed: each figure there is the one found here."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import norm

import pqlib as pq
from pqlib import authors, training_findings, zoo_statistics

PAGE = (Path(__file__).parents[1] / "book" / "errata.md").read_text("utf-8")
NORMAL = pq.Normal()


def entry(title, containing):
    """The one entry of that title that contains a text, its line breaks made blanks."""
    found = [" ".join(e.split()) for e in re.split(r"\n\s*\n", PAGE) if e.startswith(f"{title}\n")]
    (text,) = [e for e in found if containing in e]
    return text


def sqnr(n_bits, factor=1.0, **grid):
    scale = factor * pq.optimal_scale(NORMAL, n_bits, **grid)
    mse = pq.expected_quantization_mse(NORMAL, pq.IntegerGrid(n_bits, scale, **grid))
    return pq.expected_sqnr_db(NORMAL, mse)


def mid_rise_error(scale, n_bits=4):
    """Of the levels (i + 1/2) scale, i = -2^(b-1) .. 2^(b-1) - 1, from the moments of each cell."""
    half = 2 ** (n_bits - 1)
    levels = scale * (np.arange(-half, half) + 0.5)
    ends = np.array([-40.0, *(levels[1:] - scale / 2), 40.0])  # beyond them there is nothing left
    mass, density = np.diff(norm.cdf(ends)), norm.pdf(ends)
    first, second = -np.diff(density), mass - np.diff(ends * density)
    return float((second - 2 * levels * first + levels**2 * mass).sum())


def test_figures_of_the_standard_normal():
    assert f"{sqnr(5):.2f} dB, which is what five honest bits" in entry(
        "Section 3.1, before eq. 1", ""
    )
    text = entry("Section 3.3", "INT4")
    assert (
        f"{sqnr(4):.3f} dB at the optimal scale $\\delta = {pq.optimal_scale(NORMAL, 4):.6f}$"
        in text
    )
    assert f"$-7..7$ reaches {sqnr(4, narrow_range=True):.3f} dB" in text
    best = minimize_scalar(mid_rise_error, bounds=(0.1, 1), options={"xatol": 1e-9}).fun
    assert f"(half-integers) {-10 * np.log10(best):.3f} dB" in text
    assert "some 7 % off" in text and f"{sqnr(4, 0.93):.1f}" == f"{sqnr(4, 1.07):.1f}" == "19.1"
    pruned, text = pq.expected_pruning_mse(NORMAL, 0.75), entry("Section 3.3", "75 % pruning")
    assert f"{pq.expected_sqnr_db(NORMAL, pruned):.4f} dB: confirmed" in text
    assert f"= {norm.ppf(0.875):.5f}$" in text and f"= {pruned:.6f}$" in text


def test_figures_of_the_truncated_t():
    cut = [pq.truncation_at_kurtosis(pq.StudentT(2), k) for k in (5, 100)]
    near, far = [pq.Truncated(pq.StudentT(2), -r, r) for r in cut]
    text = entry("Fig. 2, caption", "")
    errors = [pq.expected_pruning_mse(dist, 0.75) for dist in (near, far)]
    powers = [dist.variance() for dist in (near, far)]
    decibels = [pq.expected_sqnr_db(*pair) for pair in zip((near, far), errors, strict=True)]
    assert "the error goes from {:.3f} to {:.3f}".format(*errors) in text
    assert "$\\mathbb E[W^2]$ from {:.2f} to {:.2f}".format(*powers) in text
    assert "the SNR from {:.2f} to {:.2f} dB".format(*decibels) in text
    variances = [pq.Truncated(pq.StudentT(2), -r, r).variance() for r in (5, 20, 100)]
    wanted = "variance {:.3f} at range 5, {:.3f} at 20, {:.3f} at 100".format(*variances)
    assert wanted in entry("App. B", "")


def test_crossing_table():
    rows = re.search(r":name: tab-errata-crossing\n\n(.*?)```", PAGE, re.S).group(1).split("\n* ")
    columns = [re.findall(r"- ([\d.]+)$", row, re.M) for row in rows]
    for n_bits, r, kurtosis in zip(*columns, strict=True):
        found = pq.crossing(lambda r: pq.Truncated(pq.StudentT(2), -r, r), int(n_bits), 2, 2000)
        own = pq.Truncated(pq.StudentT(2), -found, found).kurtosis()
        for text, value in ((r, found), (kurtosis, own)):
            assert text == f"{value:.{len(text.partition('.')[2])}f}"
    assert entry("Section 8", "cross at 4 bits").count(columns[2][2]) == 1


def eq6(top, side, energy, n):
    """energy - min gamma with [top, side; side', gamma] psd, lambda >= 0: a bound of the error."""
    cp = pytest.importorskip("cvxpy")
    lam, gamma = cp.Variable(n, nonneg=True), cp.Variable((1, 1))
    corner = cp.reshape(side(lam), (n, 1), order="C")
    block = cp.bmat([[top(cp.diag(lam)), corner], [corner.T, gamma]])
    cp.Problem(cp.Minimize(gamma), [block >> 0]).solve(solver="CLARABEL")
    return energy - float(gamma.value[0, 0])


def test_figures_of_equation_6():
    rng, n, rows = np.random.default_rng(0), 4, []
    for _ in range(5):
        inputs, w = rng.normal(size=(6, n)), rng.normal(0, 2, n)
        gram = inputs.T @ inputs
        exact = pq.solve_quantization(pq.LayerProblem(gram, w), n_bits=8, scale=1.0).upper / 2

        def bound(w, printed, gram=gram):
            q, energy = gram @ w, w @ gram @ w / 2
            if printed:
                return eq6(lambda lam: gram - lam, lambda lam: q + lam / 2, energy, n)
            return eq6(lambda lam: gram / 2 - lam, lambda lam: (lam - q) / 2, energy, n)

        energy = w @ gram @ w / 2
        found = exact, bound(w, True), bound(w, False), bound(w - np.floor(w), False)
        assert max(found[1:]) <= exact + 1e-6 and found[1] <= 2 * exact - energy + 1e-6
        rows.append(found)
    (exact, printed, corrected, shifted) = zip(*rows, strict=True)
    wanted = (
        f"exact minima between {min(exact):.2f} and {max(exact):.2f} it ran from "
        f"$-{-min(printed):.0f}$ to $-{-max(printed):.0f}$. The corrected block gave "
        f"{min(corrected):.2f} to {max(corrected):.2f}, with the shifted origin "
        f"{min(shifted):.2f} to {max(shifted):.2f}."
    )
    assert wanted in entry("Eq. 6", "corrected block")


def test_shares_of_a_mask():
    text = entry("Section 6", "mask")
    assert f"{100 / 16} % of the dense" in text
    for sparsity in (0.5, 0.75, 0.875):
        assert f"{100 / (16 * (1 - sparsity)):g} % at {100 * sparsity:g} %" in text


def test_share_of_the_spared_layers():
    (share,) = training_findings.spared_weights(["mobilenet_v2"])["share"]
    assert f"hold {100 * share:.1f} % of the convolutional" in entry(
        "Quantization-aware training", ""
    )


def test_figures_of_the_released_rows():
    rows = authors.authors_rows()
    if rows is None:
        pytest.skip("the authors' rows are not at hand; see pqlib.authors")
    eight = rows[rows["n_bits"] == 8]
    n = f"{len(eight):,}"
    assert f"{(eight['excess_kurtosis'] == -3).sum()} of {n} tensors" in entry(
        "Section 3.4", "2,704"
    )
    infinite = np.isposinf(eight["prune_sqnr_db"]).sum()
    assert f"at 8 bits {infinite} of {n} rows" in entry("Weight statistics", "")
    assert f"hold {rows['model'].nunique()}." in entry("Section 3.4, Fig. 3", "")
    single = rows.groupby("model")["layer"].nunique()
    assert (single == 1).sum() == 3 and "three video models" in entry("App. E", "Conv3d")
    shares = [f"{100 * share:.1f}" for share in zoo_statistics.natural_sparsity(rows)["mean"]][::-1]
    wanted = f"{', '.join(shares[:-1])} and {shares[-1]} %"
    assert f"*computed*: {wanted}" in " ".join(PAGE.partition("## Confirmed")[2].split())
