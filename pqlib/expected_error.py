"""Expected error of quantization and of pruning under a distribution, three independent ways.

``closed_form`` sums partial moments of the distribution (appendix A of the paper), ``quadrature``
integrates the squared error against the density and uses no closed form, ``monte_carlo`` draws
weights and compresses them. They share only the density's definition, so agreement is evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import integrate, optimize

from pqlib._validation import check_choice, check_integer, check_number
from pqlib.budget import n_zeros
from pqlib.density import Distribution, check_power
from pqlib.distributions import samples_of
from pqlib.grids import IntegerGrid
from pqlib.prune import magnitude_mask
from pqlib.quantize import fake_quantize

METHODS = ("closed_form", "quadrature", "monte_carlo")
_QUAD = {"epsabs": 0.0, "epsrel": 1e-11, "limit": 200}


@dataclass(frozen=True)
class QuantizationError:
    """The two parts of the expected quantization MSE (eq 9), in squared weight units."""

    rounding: float
    clipping: float

    @property
    def total(self) -> float:
        """Their sum, the expected MSE."""
        return self.rounding + self.clipping


@dataclass(frozen=True)
class MonteCarlo:
    """A Monte Carlo estimate and its standard error, both in squared weight units."""

    mean: float
    standard_error: float


def expected_quantization_mse(
    dist: Distribution,
    grid: IntegerGrid,
    method: str = "closed_form",
    *,
    n_samples: int = 1_000_000,
    rng: np.random.Generator | None = None,
) -> float:
    """E[(Q(W) - W)^2] for W ~ dist and Q rounding to the nearest level of ``grid`` (eq 2).

    Parameters
    ----------
    dist : Distribution
        Needs a second moment, E[W^2] < inf.
    grid : IntegerGrid
        With one scale.
    method : {"closed_form", "quadrature", "monte_carlo"}
        Which of the three ways. ``Empirical`` has no density, hence no quadrature.
    n_samples : int, default 1,000,000
        Draws, for "monte_carlo" only.
    rng : numpy.random.Generator, optional
        For "monte_carlo" only, and required there.

    Returns
    -------
    float
        In squared weight units. `quantization_error_parts` gives rounding and clipping apart,
        `monte_carlo_quantization_mse` the standard error.

    Raises
    ------
    ValueError, TypeError
        If a moment does not exist or an argument is out of range; the message says which.

    Notes
    -----
    With levels q_i and cells between midpoints, eqs 9-15 come down to one partial moment
    M_2(cell; q_i) about the level for each cell, and one for each tail.

    Examples
    --------
    >>> from pqlib import IntegerGrid, Normal, expected_quantization_mse
    >>> round(expected_quantization_mse(Normal(), IntegerGrid(4, 0.35)), 8)
    0.01195199
    """
    if check_choice("method", method, METHODS) == "monte_carlo":
        return monte_carlo_quantization_mse(dist, grid, n_samples, rng).mean
    return quantization_error_parts(dist, grid, method).total


def quantization_error_parts(
    dist: Distribution, grid: IntegerGrid, method: str = "closed_form"
) -> QuantizationError:
    """Rounding error within [qmin, qmax] and clipping error beyond (eqs 10 and 11).

    Arguments and errors as in `expected_quantization_mse`; method "closed_form" or "quadrature".
    """
    return quantization_errors(dist, [grid], method)[0]


def quantization_errors(
    dist: Distribution, grids: Sequence[IntegerGrid], method: str = "closed_form"
) -> list[QuantizationError]:
    """`quantization_error_parts` for several grids, in one evaluation of the partial moments."""
    check_choice("method", method, METHODS[:2])
    for grid in grids:
        _check_quantizable(dist, grid)
    if method == "quadrature" and samples_of(dist) is not None:
        raise ValueError("Empirical has no density to integrate; use method='closed_form'")
    second_moment = _closed_form if method == "closed_form" else _quadrature
    lo, hi = dist.support
    knots, about = [], []
    for grid in grids:
        levels, edges = grid.levels(), grid.edges()
        ends = min(lo, levels[0]), max(hi, levels[-1])
        knots.append(np.r_[ends[0], levels[0], edges, levels[-1], ends[1]])
        about.append(np.r_[levels[0], levels, levels[-1]])
    pieces = second_moment(
        dist,
        np.concatenate([k[:-1] for k in knots]),
        np.concatenate([k[1:] for k in knots]),
        np.concatenate(about),
    )
    by_grid = np.split(pieces, np.cumsum([a.size for a in about])[:-1])  # tail, cells, tail
    return [
        QuantizationError(rounding=float(p[1:-1].sum()), clipping=float(p[0] + p[-1]))
        for p in by_grid
    ]


def expected_pruning_mse(
    dist: Distribution,
    sparsity: float,
    method: str = "closed_form",
    *,
    n_samples: int = 1_000_000,
    rng: np.random.Generator | None = None,
) -> float:
    """``E[W^2; |W| <= t]`` with t such that ``P(|W| <= t) = sparsity`` (eq 3, limits corrected).

    Parameters
    ----------
    dist : Distribution
        May be asymmetric: the threshold is on the magnitude. For ``Empirical`` the budget rule
        holds: exactly floor(n * sparsity + 1e-9) samples are set to zero.
    sparsity : float in [0, 1)
        Share of weights set to zero.
    method, n_samples, rng
        As in `expected_quantization_mse`.

    Returns
    -------
    float
        In squared weight units.

    Notes
    -----
    The paper prints the lower limit -1 for -t, and the operator as if small weights were kept.

    Examples
    --------
    >>> from pqlib import Normal, expected_pruning_mse
    >>> round(expected_pruning_mse(Normal(), 0.75), 8)
    0.27639304
    """
    check_choice("method", method, METHODS)
    _check_distribution(dist)
    sparsity = check_number("sparsity", sparsity, low=0.0, high=1.0, open_high=True)
    if method == "monte_carlo":
        return monte_carlo_pruning_mse(dist, sparsity, n_samples, rng).mean
    if method == "closed_form":
        return pruning_errors(dist, [sparsity])[0]
    if samples_of(dist) is not None:
        raise ValueError("Empirical has no density to integrate; use method='closed_form'")
    return _pruning_quadrature(dist, sparsity)


def pruning_errors(dist: Distribution, sparsities: Sequence[float]) -> list[float]:
    """`expected_pruning_mse` in closed form at several sparsities, in one evaluation."""
    _check_distribution(dist)
    sparsities = [
        check_number("sparsity", s, low=0.0, high=1.0, open_high=True) for s in sparsities
    ]
    samples = samples_of(dist)
    if samples is not None:
        squares = np.sort(abs(samples)) ** 2
        return [float(squares[: n_zeros(squares.size, s)].sum() / squares.size) for s in sparsities]
    check_power(dist)
    t = dist._magnitude_quantiles(np.array(sparsities))
    return dist.partial_moment(2, -t, t).tolist()


def monte_carlo_quantization_mse(
    dist: Distribution,
    grid: IntegerGrid,
    n_samples: int = 1_000_000,
    rng: np.random.Generator | None = None,
) -> MonteCarlo:
    """Estimate E[(Q(W) - W)^2] from ``n_samples`` draws (>= 2) of ``dist``, with standard error."""
    _check_quantizable(dist, grid)
    w = _draw(dist, n_samples, rng)
    squared = (fake_quantize(w, grid) - w) ** 2
    return MonteCarlo(float(squared.mean()), float(squared.std(ddof=1) / np.sqrt(w.size)))


def monte_carlo_pruning_mse(
    dist: Distribution,
    sparsity: float,
    n_samples: int = 1_000_000,
    rng: np.random.Generator | None = None,
) -> MonteCarlo:
    """Estimate ``E[W^2; |W| <= t]`` by pruning ``n_samples`` draws, with standard error.

    The threshold is the sample's own, so each draw moves it: the influence of a weight is
    ``(w^2 - t^2) 1{|w| <= t}``, whose spread gives the standard error.
    """
    _check_distribution(dist)
    w = _draw(dist, n_samples, rng)
    removed = ~magnitude_mask(w, sparsity)
    squared = np.where(removed, w * w, 0.0)
    threshold_sq = squared.max()
    influence = np.where(removed, w * w - threshold_sq, 0.0)
    return MonteCarlo(float(squared.mean()), float(influence.std(ddof=1) / np.sqrt(w.size)))


def expected_sqnr_db(dist: Distribution, mse: float) -> float:
    """SNR 10 log10(E[W^2] / mse) in dB of an expected MSE >= 0 (section 3); +inf if it is 0."""
    _check_distribution(dist)
    mse = check_number("mse", mse, low=0.0)
    return float(10 * np.log10(dist.moment(2) / mse)) if mse else np.inf


def _closed_form(dist, lo, hi, about):
    return dist.partial_moment(2, lo, hi, about)


def _quadrature(dist, lo, hi, about):
    """The same integrals by adaptive quadrature of the density, split where it has a kink."""
    out, marks = np.zeros(lo.size), _marks(dist)
    for i in range(lo.size):
        a, b = np.clip([lo[i], hi[i]], *dist.support)
        out[i] = _integrate(lambda w, q=about[i]: (w - q) ** 2 * dist.pdf(w), a, b, marks)
    return out


def _marks(dist):
    """Where to split an integral, so that no needle is missed: kinks, quantiles, decades beyond."""
    quantiles = dist.ppf(np.array([1e-9, 1e-4, 0.02, 0.25, 0.5, 0.75, 0.98, 1 - 1e-4, 1 - 1e-9]))
    far = np.max(abs(quantiles)) * 10.0 ** np.arange(1, 40)
    return np.unique(np.r_[-far, 0.0, far, quantiles, dist.breakpoints])


def _integrate(f, a, b, marks):
    """Adaptive quadrature between the marks."""
    knots = [a, *marks[(a < marks) & (marks < b)].tolist(), b]
    return sum(
        integrate.quad(f, *ends, **_QUAD)[0] for ends in pairwise(knots) if ends[0] < ends[1]
    )


def _pruning_quadrature(dist, sparsity):
    """Eq 3 from the density alone: the threshold too is the root of an integral."""
    lo, hi = dist.support
    marks = _marks(dist)

    def within(power, t):
        return _integrate(lambda w: w**power * dist.pdf(w), max(lo, -t), min(hi, t), marks)

    top = np.max(abs(dist.ppf(np.array([0.25, 0.75]))))
    while within(0, top) < sparsity:
        top *= 2.0
    t = optimize.brentq(lambda t: within(0, t) - sparsity, 0.0, top, xtol=1e-15 * top, rtol=1e-14)
    return within(2, t)


def _draw(dist, n_samples, rng):
    n_samples = check_integer("n_samples", n_samples, low=2, high=2**31)
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"rng must be a numpy.random.Generator such as numpy.random.default_rng(0), got {rng!r}"
        )
    return dist.sample(n_samples, rng)


def _check_distribution(dist):
    if not isinstance(dist, Distribution):
        raise TypeError(
            f"dist must be a Distribution such as Normal() or Empirical(samples), got {type(dist)}"
        )


def _check_quantizable(dist, grid):
    _check_distribution(dist)
    if not isinstance(grid, IntegerGrid):
        raise TypeError(f"grid must be an IntegerGrid, got {type(grid)}")
    if grid.granularity != "tensor":
        raise ValueError("grid must have one scale, not one per channel, under a distribution")
    dist.moment(2)  # raises, naming the parameter, where the error would be infinite
