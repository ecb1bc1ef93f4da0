"""Families of distributions of weights, each stated by its density and closed forms.

`pqlib.density` derives everything else from them.
"""

from dataclasses import dataclass
from math import gamma, inf, nextafter, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from pqlib._validation import as_finite_array, check_number
from pqlib.density import Distribution, Pearson
from pqlib.incomplete import beta_between, gamma_between, power_difference
from pqlib.metrics import kurtosis


def _keep(dist, name, **limits):
    """Check a parameter and keep it as a float.

    In the arithmetic of a float32 moments would be rounded, and served from the cache to the equal
    distribution of a float.
    """
    object.__setattr__(dist, name, check_number(name, getattr(dist, name), **limits))


@dataclass(frozen=True)
class Normal(Pearson):
    """Normal distribution with mean ``loc`` and standard deviation ``scale`` > 0 (weight units)."""

    loc: float = 0.0
    scale: float = 1.0

    def __post_init__(self):
        _keep(self, "loc")
        _keep(self, "scale", low=0.0, open_low=True)

    def _standard_pdf(self, z):
        return np.exp(-0.5 * z * z) / sqrt(2 * pi)

    def _half_moment(self, order, lo, hi):
        # z^2 / 2 is gamma distributed, so partial moments are incomplete gamma functions
        factor = 2 ** (order / 2 - 1) * gamma((order + 1) / 2) / sqrt(pi)
        return factor * gamma_between((order + 1) / 2, lo * lo / 2, hi * hi / 2)

    def _pearson(self, z, branch):
        return 1.0, 0.0, 0.0, -z, -1.0  # p' = -z p

    def _rate(self, z):
        return 1.0 + abs(z)

    def _rough_ppf(self, q):
        return self.loc + self.scale * special.ndtri(q)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.normal(self.loc, self.scale, n)


@dataclass(frozen=True)
class Laplace(Pearson):
    """Laplace distribution ``exp(-|w| / scale) / (2 scale)``; variance 2 scale^2, kurtosis 6."""

    scale: float = 1.0

    def __post_init__(self):
        _keep(self, "scale", low=0.0, open_low=True)

    @property
    def breakpoints(self) -> tuple[float, ...]:
        return (0.0,)

    def _standard_pdf(self, z):
        return 0.5 * np.exp(-abs(z))

    def _half_moment(self, order, lo, hi):
        return 0.5 * gamma(order + 1) * gamma_between(order + 1, lo, hi)

    def _pearson(self, z, branch):
        return 1.0, 0.0, 0.0, -branch, 0.0  # p' = -p right of 0, p' = p left of it

    def _series_start(self, z, branch):
        return 0.5 * np.exp(-branch * z)

    def _rate(self, z):
        return np.ones_like(z)

    def _rough_ppf(self, q):
        with np.errstate(divide="ignore"):
            return self.scale * np.sign(q - 0.5) * -np.log(2 * np.minimum(q, 1 - q))

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.laplace(0.0, self.scale, n)


@dataclass(frozen=True)
class StudentT(Pearson):
    """Student's t with ``nu`` > 0 degrees of freedom, unit scale (eq 17 with its sign corrected).

    The moment of order k exists for nu > k only; truncated, all do, for every nu.
    """

    nu: float

    def __post_init__(self):
        _keep(self, "nu", low=0.0, open_low=True)

    def _standard_pdf(self, z):
        nu = self.nu
        log_kernel = -(nu + 1) / 2 * np.log1p(z * z / nu)
        return np.exp(log_kernel) / (sqrt(nu) * special.beta(0.5, nu / 2))

    def _half_moment(self, order, lo, hi):
        nu = self.nu
        if order >= nu and np.any(np.isinf(hi)):
            raise ValueError(
                f"StudentT(nu={nu:g}) has no moment of order {order} (it needs nu > {order}); "
                f"truncate it: Truncated(StudentT({nu:g}), -r, r)"
            )
        factor = nu ** (order / 2) / (2 * special.beta(0.5, nu / 2))
        # z = t^2/(nu + t^2) is beta distributed; u = 1 - z is kept apart to save the tail's digits
        squares = [x * x / nu for x in (lo, hi)]
        tails = [1 / (1 + square) for square in squares]
        if order == 1:  # elementary: (u_lo^b - u_hi^b) / b, a logarithm at b = 0
            b = (nu - 1) / 2
            return factor * tails[0] ** b * power_difference(b, tails)
        heads = [1 / (1 + 1 / np.maximum(square, 1e-300)) for square in squares]
        return factor * beta_between((order + 1) / 2, (nu - order) / 2, heads, tails)

    def _pearson(self, z, branch):
        nu = self.nu  # (nu + z^2) p' = -(nu + 1) z p
        return nu + z * z, 2 * z, 1.0, -(nu + 1) * z, -(nu + 1)

    def _rate(self, z):
        radius_sq = self.nu + z * z  # the poles of the density are at +- i sqrt(nu)
        return np.maximum(1 + abs(z) * (self.nu + 1) / radius_sq, 5 / np.sqrt(radius_sq))

    def _rough_ppf(self, q):
        # by the upper tail, since scipy's quantile of 0 is +inf for some nu
        return np.sign(q - 0.5) * abs(special.stdtrit(self.nu, np.maximum(q, 1 - q)))

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.standard_t(self.nu, n)


@dataclass(frozen=True)
class Uniform(Distribution):
    """Uniform distribution on [a, b], a < b."""

    a: float = -1.0
    b: float = 1.0

    def __post_init__(self):
        _keep(self, "a")
        _keep(self, "b", low=self.a, open_low=True)
        check_number("b - a", self.b - self.a)

    @property
    def support(self) -> tuple[float, float]:
        return (self.a, self.b)

    @property
    def mode(self) -> float:
        return self.a

    @property
    def symmetric(self) -> bool:
        return self.a == -self.b

    def pdf(self, x: ArrayLike) -> np.ndarray:
        x = np.asarray(x, float)
        return np.where((x >= self.a) & (x <= self.b), 1 / (self.b - self.a), 0.0)

    def _direct_moment(self, order, lo, hi, about):
        k = order + 1
        return ((hi - about) ** k - (lo - about) ** k) / (k * (self.b - self.a))

    def _rough_ppf(self, q):
        return self.a + q * (self.b - self.a)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(self.a, self.b, n)


@dataclass(frozen=True)
class Truncated(Distribution):
    """``dist`` conditioned on a <= W <= b (eq 16): the density is divided by the mass in [a, b].

    The variance is *not* one, whatever that of ``dist`` (appendix B says otherwise).
    """

    dist: Distribution
    a: float
    b: float

    def __post_init__(self):
        if not isinstance(self.dist, Distribution):
            raise TypeError(f"dist must be a Distribution such as Normal(), got {self.dist!r}")
        _keep(self, "a")
        _keep(self, "b", low=self.a, open_low=True)
        mass = float(self.dist.partial_moment(0, *self.support))
        if not mass > 0:
            raise ValueError(f"[a, b] = [{self.a}, {self.b}] has no mass; widen the interval")
        object.__setattr__(self, "_mass", mass)
        object.__setattr__(self, "_below", float(self.dist.cdf(self.support[0])))

    @property
    def support(self) -> tuple[float, float]:
        lo, hi = self.dist.support
        # one step below a: an Empirical counts lo < w <= hi, and a sample equal to a is kept
        lo, hi = max(lo, nextafter(self.a, -inf)), min(hi, self.b)
        return (lo, max(lo, hi))

    @property
    def breakpoints(self) -> tuple[float, ...]:
        lo, hi = self.support
        inner = (x for x in self.dist.breakpoints if lo < x < hi)
        return (lo, *inner, hi)

    @property
    def mode(self) -> float:
        return min(max(self.dist.mode, self.a), self.b)

    @property
    def symmetric(self) -> bool:
        return self.dist.symmetric and self.a == -self.b

    def pdf(self, x: ArrayLike) -> np.ndarray:
        x = np.asarray(x, float)
        return np.where((x >= self.a) & (x <= self.b), self.dist.pdf(x) / self._mass, 0.0)

    def moment(self, order: int, about: float = 0.0) -> float:
        samples = samples_of(self)
        if samples is None:
            return super().moment(order, about)
        return _mean_power(samples, order, about)  # the cache would keep hold of them

    def _direct_moment(self, order, lo, hi, about):
        return self.dist._direct_moment(order, lo, hi, about) / self._mass

    def _narrow(self, lo, hi, about):
        return self.dist._narrow(lo, hi, about)

    def _series_moment(self, order, lo, hi, about):
        return self.dist._series_moment(order, lo, hi, about) / self._mass

    def _rough_ppf(self, q):
        quantile = self.dist._rough_ppf(np.minimum(self._below + q * self._mass, 1.0))
        return np.clip(quantile, *self.support)

    def _finish_quantile(self, q, x):
        return x if isinstance(self.dist, Empirical) else super()._finish_quantile(q, x)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        if self._mass < 0.05:  # rejection would be slow
            return self.ppf(rng.uniform(size=n))
        kept = np.empty(0)
        while kept.size < n:
            draws = self.dist.sample(int((n - kept.size) / self._mass * 1.1) + 16, rng)
            kept = np.concatenate([kept, draws[(draws >= self.a) & (draws <= self.b)]])
        return kept[:n]


def samples_of(dist: Distribution) -> np.ndarray | None:
    """The samples that ``dist`` consists of, sorted, or None if it has a density."""
    if isinstance(dist, Empirical):
        return dist.samples
    if isinstance(dist, Truncated) and (samples := samples_of(dist.dist)) is not None:
        return samples[(samples >= dist.a) & (samples <= dist.b)]
    return None


def _mean_power(samples, order, about) -> float:
    return float(np.mean((samples - about) ** order))


class Empirical(Distribution):
    """The distribution that puts mass 1/n on each of n samples, such as the weights of a tensor.

    Parameters
    ----------
    samples : array_like of float, any shape, not empty, finite
        Copied, flattened, sorted, in float64. There is no density: expectations are exact sums,
        and ``partial_moment`` counts samples with a < w <= b.
    """

    def __init__(self, samples: ArrayLike):
        self.samples = np.sort(as_finite_array("samples", samples), axis=None)
        self.samples.flags.writeable = False

    def __repr__(self) -> str:
        return f"Empirical(<{self.samples.size} samples>)"

    @property
    def support(self) -> tuple[float, float]:
        return nextafter(self.samples[0], -inf), float(self.samples[-1])

    @property
    def mode(self) -> float:
        raise TypeError("Empirical has no density, hence no mode")

    @property
    def symmetric(self) -> bool:
        return bool(np.array_equal(self.samples, -self.samples[::-1]))

    def pdf(self, x: ArrayLike) -> np.ndarray:
        raise TypeError("Empirical has no density; use method='closed_form', an exact sum")

    def moment(self, order: int, about: float = 0.0) -> float:
        return _mean_power(self.samples, order, about)

    def kurtosis(self) -> float:
        return kurtosis(self.samples)

    def _direct_moment(self, order, lo, hi, about):
        lo, hi, about = np.broadcast_arrays(lo, hi, about)
        first = np.searchsorted(self.samples, lo, "right")
        last = np.searchsorted(self.samples, hi, "right")
        out = np.empty(np.shape(lo))
        for i in np.ndindex(out.shape):
            out[i] = np.sum((self.samples[first[i] : last[i]] - about[i]) ** order)
        return out / self.samples.size

    def cdf(self, x: ArrayLike) -> np.ndarray:
        return np.searchsorted(self.samples, np.asarray(x, float), "right") / self.samples.size

    def _rough_ppf(self, q):
        rank = np.ceil(q * self.samples.size - 1e-9).astype(int) - 1
        return self.samples[np.clip(rank, 0, self.samples.size - 1)]

    def _finish_quantile(self, q, x):
        return x

    def _magnitude_quantiles(self, shares: np.ndarray) -> np.ndarray:
        n_within = np.floor(self.samples.size * shares + 1e-9).astype(int)
        return np.r_[0.0, np.sort(abs(self.samples))][n_within]

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.choice(self.samples, n)
