"""Distributions of weights: a density, and its partial moments in closed form.

Every error of the book is a sum of partial moments (appendix A of the paper, eq 13)

    M_k(a, b; c) = integral from a to b of (w - c)^k p(w) dw,

so a distribution here states its density and these integrals; the base class supplies everything
else. Two formulas serve them. *Directly*, the moments about zero are regularized incomplete gamma
or beta functions, and the binomial theorem moves the center to c. That subtraction loses all
digits when the interval is narrow and far from zero, as a cell of a 16-bit grid is. All the
families obey Pearson's equation A(w) p'(w) = B(w) p(w) with polynomials A and B, which gives the
Taylor coefficients of p about c by a three-term recurrence; *narrow* intervals are integrated term
by term about c itself, where nothing cancels.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from math import comb, gamma, inf, isfinite, nextafter, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from pqlib._validation import as_finite_array, check_number

# A series is used where interval length x rate of change <= this; 24 terms then leave < 1e-15.
_NARROW = 1.0
_N_TERMS = 24
_N_BETA_TERMS = 60  # 2^-60 < 1e-18: the incomplete-beta series are used for arguments <= 1/2


class Distribution(ABC):
    """A distribution of a real weight W.

    Subclasses are frozen dataclasses of their parameters. Where a method takes arrays, the
    arguments broadcast and the result is float64.
    """

    @property
    @abstractmethod
    def support(self) -> tuple[float, float]:
        """Smallest interval (lo, hi) that carries all the mass."""

    @property
    def breakpoints(self) -> tuple[float, ...]:
        """Points where the density is not analytic: ends of the support, kinks."""
        return tuple(x for x in self.support if isfinite(x))

    @property
    @abstractmethod
    def symmetric(self) -> bool:
        """Whether W and -W have the same distribution."""

    @abstractmethod
    def pdf(self, x: ArrayLike) -> np.ndarray:
        """Density at ``x``, an array of any shape."""

    @abstractmethod
    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw ``n`` independent weights, shape (n,), with the generator ``rng``."""

    @abstractmethod
    def _direct_moment(self, order: int, lo, hi, about) -> np.ndarray:
        """M_order(lo, hi; about) for lo <= hi within the support, by moments about zero."""

    def _narrow(self, lo, hi, about) -> np.ndarray:
        """Where the Taylor series about ``about`` represents the density on [lo, hi]."""
        return np.zeros(np.shape(lo), dtype=bool)

    def _series_moment(self, order: int, lo, hi, about) -> np.ndarray:
        """M_order(lo, hi; about) by Taylor series; called only where ``_narrow`` holds."""
        raise AssertionError("a distribution whose intervals are narrow has a series")

    def partial_moment(
        self, order: int, a: ArrayLike, b: ArrayLike, about: ArrayLike = 0.0
    ) -> np.ndarray:
        """Partial moment, eq 13 of the paper: the integral of (w - about)^order p(w) over [a, b].

        Parameters
        ----------
        order : int
            0 (mass), 1, 2, 3 or 4.
        a, b : array_like of float
            Limits, a <= b; may be infinite where the moment exists. They broadcast.
        about : array_like of float, default 0
            Center, finite; for a quantization cell the level.

        Returns
        -------
        ndarray of float64
            Relative error about 1e-13 for every term that matters in a sum over cells.

        Raises
        ------
        ValueError
            If a > b, a limit is NaN, or an infinite limit meets a moment that does not exist.
        """
        if order not in (0, 1, 2, 3, 4):
            raise ValueError(f"order must be 0, 1, 2, 3 or 4, got {order!r}")
        a, b, about = (np.asarray(x, dtype=float) for x in (a, b, about))
        if not (a <= b).all():
            raise ValueError("a must be <= b and neither may be NaN; swap or clean the limits")
        if not np.isfinite(about).all():
            raise ValueError(f"about must be finite, got {about}; it is the center of the moment")
        first, last = self.support
        lo, hi = (np.minimum(np.maximum(x, first), last) for x in (a, b))
        narrow = self._narrow(lo, hi, about)
        if not narrow.any():
            return self._direct_moment(order, lo, hi, about)
        lo, hi, about, narrow = np.broadcast_arrays(lo, hi, about, narrow)
        if narrow.all():
            return self._series_moment(order, lo, hi, about)
        out = np.empty(lo.shape)
        for where, formula in ((narrow, self._series_moment), (~narrow, self._direct_moment)):
            out[where] = formula(order, lo[where], hi[where], about[where])
        return out

    def moment(self, order: int, about: float = 0.0) -> float:
        """E[(W - about)^order]; a ValueError where it does not exist."""
        return _moment(self, order, about)

    def mean(self) -> float:
        """E[W]."""
        return self.moment(1)

    def variance(self) -> float:
        """E[(W - E W)^2]."""
        return self.moment(2, about=self.mean())

    def kurtosis(self) -> float:
        """Kurtosis E[(W - m)^4] / Var[W]^2, *not* the excess: 3 for a normal (section 3.3)."""
        center = self.mean()
        return self.moment(4, about=center) / self.moment(2, about=center) ** 2

    def cdf(self, x: ArrayLike) -> np.ndarray:
        """P(W <= x)."""
        return self.partial_moment(0, -inf, x)

    def ppf(self, q: ArrayLike) -> np.ndarray:
        """Quantile function: the x with P(W <= x) = q, for q in [0, 1]."""
        q = _probabilities(q)
        return self._finish_quantile(q, self._rough_ppf(q))

    def _finish_quantile(self, q, x):
        """Newton steps on the cdf: what library inverses leave at 1e-8 becomes 1e-15."""
        for _ in range(4):
            excess = self.cdf(x) - q
            if np.max(abs(excess), initial=0.0) <= 4e-15:
                return x
            with np.errstate(divide="ignore", invalid="ignore"):
                step = excess / self.pdf(x)
                x = np.clip(np.where(np.isfinite(step), x - step, x), *self.support)
        far = abs(self.cdf(x) - q) > 1e-12
        if np.any(far) and np.all(np.isfinite(self.support)):  # a truncation deep in a tail
            lo, hi = (np.full(np.shape(q), end) for end in self.support)
            for _ in range(64):
                middle = (lo + hi) / 2
                below = self.cdf(middle) < q
                lo, hi = np.where(below, middle, lo), np.where(below, hi, middle)
            x = np.where(far, hi, x)
        return x

    @abstractmethod
    def _rough_ppf(self, q: np.ndarray) -> np.ndarray:
        """Quantiles to at least a few digits."""

    def magnitude_quantile(self, share: float) -> float:
        """The t with ``P(|W| <= t) = share``, the threshold of magnitude pruning (section 3.2).

        Right for asymmetric distributions too: the condition is F(t) - F(-t) = share.
        """
        share = check_number("share", share, low=0.0, high=1.0)
        if self.symmetric:
            return float(self.ppf(0.5 + share / 2))
        lo, hi = self.support
        if share == 1.0:
            return max(abs(lo), abs(hi))
        if share == 0.0:
            return 0.0
        top = 1.0
        while self._mass_within(top) < share:
            top *= 2.0
        while self._mass_within(bottom := top / 2) >= share:
            top = bottom
        root = optimize.brentq(
            lambda t: self._mass_within(t) - share, bottom, top, xtol=1e-323, rtol=1e-15
        )
        return float(root)

    def _mass_within(self, t: float) -> float:
        return float(self.partial_moment(0, -t, t))


class _Pearson(Distribution):
    """Families c + scale * Z with Z symmetric about 0 and (A0 + Z^2 A2) p' = B1 Z p for Z."""

    loc = 0.0
    scale = 1.0

    @property
    def support(self) -> tuple[float, float]:
        return (-inf, inf)

    @property
    def symmetric(self) -> bool:
        return self.loc == 0.0

    @abstractmethod
    def _standard_pdf(self, z):
        """Density of Z."""

    @abstractmethod
    def _half_moment(self, order: int, lo, hi):
        """Integral of z^order p(z) from lo to hi, 0 <= lo <= hi <= inf, for Z."""

    @abstractmethod
    def _pearson(self, z, branch):
        """A0, A1, A2, B0, B1 with (A0 + A1 u + A2 u^2) p'(z + u) = (B0 + B1 u) p(z + u)."""

    @abstractmethod
    def _rate(self, z):
        """How fast the density changes at z, in 1/z units: the series needs length x rate small."""

    def _series_start(self, z, branch):
        return self._standard_pdf(z)

    def pdf(self, x: ArrayLike) -> np.ndarray:
        return self._standard_pdf((np.asarray(x, float) - self.loc) / self.scale) / self.scale

    def _direct_moment(self, order, lo, hi, about):
        if (self.loc, self.scale) != (0.0, 1.0):
            lo, hi, about = ((x - self.loc) / self.scale for x in (lo, hi, about))
        total = self._signed_moment(order, lo, hi)
        if about.any():
            for j in range(order):
                total = total + comb(order, j) * (-about) ** (order - j) * self._signed_moment(
                    j, lo, hi
                )
        return self.scale**order * total

    def _signed_moment(self, order, lo, hi):
        sign = (-1.0) ** order
        if (lo >= 0).all():
            return self._half_moment(order, lo, hi)
        if (lo == -hi).all():
            return (1 + sign) * self._half_moment(order, np.zeros_like(hi), hi)
        negative = hi <= 0
        near, far = np.where(negative, -hi, np.maximum(lo, 0.0)), np.where(negative, -lo, hi)
        total = np.asarray(np.where(negative, sign, 1.0) * self._half_moment(order, near, far))
        straddles = (lo < 0) & ~negative
        if straddles.any():  # the part left of zero is still missing
            left = np.broadcast_to(-lo, total.shape)[straddles]
            total[straddles] += sign * self._half_moment(order, np.zeros_like(left), left)
        return total

    def _narrow(self, lo, hi, about):
        reach = np.maximum(abs(lo - about), abs(hi - about)) / self.scale
        narrow = reach * self._rate((about - self.loc) / self.scale) <= _NARROW
        for point in self.breakpoints:
            narrow = narrow & ~((lo < point) & (point < hi))
        return narrow

    def _series_moment(self, order, lo, hi, about):
        z = (about - self.loc) / self.scale
        left, right = (lo - about) / self.scale, (hi - about) / self.scale
        branch = np.sign(left + right + 2 * z)
        a0, a1, a2, b0, b1 = self._pearson(z, branch)
        previous, current = np.zeros_like(z), self._series_start(z, branch)
        power_left, power_right = left ** (order + 1), right ** (order + 1)
        total = np.zeros_like(z)
        for k in range(_N_TERMS):
            total += current * (power_right - power_left) / (k + order + 1)
            power_left, power_right = power_left * left, power_right * right
            # Pearson's equation, coefficient of u^k: a three-term recurrence for p's Taylor series
            following = ((b0 - a1 * k) * current + (b1 - a2 * (k - 1)) * previous) / (a0 * (k + 1))
            previous, current = current, following
        return self.scale**order * total


@dataclass(frozen=True)
class Normal(_Pearson):
    """Normal distribution with mean ``loc`` and standard deviation ``scale`` > 0 (weight units)."""

    loc: float = 0.0
    scale: float = 1.0

    def __post_init__(self):
        check_number("loc", self.loc)
        check_number("scale", self.scale, low=0.0, open_low=True)

    def _standard_pdf(self, z):
        return np.exp(-0.5 * z * z) / sqrt(2 * pi)

    def _half_moment(self, order, lo, hi):
        # z^2 / 2 is gamma distributed, so partial moments are incomplete gamma functions
        factor = 2 ** (order / 2 - 1) * gamma((order + 1) / 2) / sqrt(pi)
        return factor * _gamma_between((order + 1) / 2, lo * lo / 2, hi * hi / 2)

    def _pearson(self, z, branch):
        return 1.0, 0.0, 0.0, -z, -1.0  # p' = -z p

    def _rate(self, z):
        return 1.0 + abs(z)

    def _rough_ppf(self, q):
        return self.loc + self.scale * special.ndtri(q)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.normal(self.loc, self.scale, n)


@dataclass(frozen=True)
class Laplace(_Pearson):
    """Laplace distribution ``exp(-|w| / scale) / (2 scale)``; variance 2 scale^2, kurtosis 6."""

    scale: float = 1.0

    def __post_init__(self):
        check_number("scale", self.scale, low=0.0, open_low=True)

    @property
    def breakpoints(self) -> tuple[float, ...]:
        return (0.0,)

    def _standard_pdf(self, z):
        return 0.5 * np.exp(-abs(z))

    def _half_moment(self, order, lo, hi):
        return 0.5 * gamma(order + 1) * _gamma_between(order + 1, lo, hi)

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
class StudentT(_Pearson):
    """Student's t with ``nu`` > 0 degrees of freedom, unit scale (eq 17 with its sign corrected).

    The moment of order k exists for nu > k only; truncated, all do, for every nu.
    """

    nu: float

    def __post_init__(self):
        check_number("nu", self.nu, low=0.0, open_low=True)

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
        tails = [1 / (1 + x * x / nu) for x in (lo, hi)]
        a, b = (order + 1) / 2, (nu - order) / 2
        if order == 0:  # what this loses next to zero, a narrow interval, is the series' business
            return 0.5 * (special.betainc(b, a, tails[0]) - special.betainc(b, a, tails[1]))
        if order == 1:  # elementary: (u_lo^b - u_hi^b) / b, a logarithm at b = 0
            return factor * tails[0] ** b * _power_difference(b, tails)
        heads = [1 / (1 + nu / np.maximum(x * x, 1e-300)) for x in (lo, hi)]
        return factor * _beta_between(
            a, b, np.array(np.broadcast_arrays(*heads)), np.array(np.broadcast_arrays(*tails))
        )

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
        check_number("a", self.a)
        check_number("b", self.b, low=self.a, open_low=True)

    @property
    def support(self) -> tuple[float, float]:
        return (self.a, self.b)

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
        check_number("a", self.a)
        check_number("b", self.b, low=self.a, open_low=True)
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
    def symmetric(self) -> bool:
        return self.dist.symmetric and self.a == -self.b

    def pdf(self, x: ArrayLike) -> np.ndarray:
        x = np.asarray(x, float)
        return np.where((x >= self.a) & (x <= self.b), self.dist.pdf(x) / self._mass, 0.0)

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
    def symmetric(self) -> bool:
        return bool(np.array_equal(self.samples, -self.samples[::-1]))

    def pdf(self, x: ArrayLike) -> np.ndarray:
        raise TypeError("Empirical has no density; use method='closed_form', an exact sum")

    def moment(self, order: int, about: float = 0.0) -> float:
        return float(np.mean((self.samples - about) ** order))

    def kurtosis(self) -> float:
        first, last = self.samples[[0, -1]]
        deviation = self.samples - self.mean()
        size = np.max(abs(deviation))  # fourth powers of tiny weights would underflow
        if first == last or size == 0:
            raise ValueError(f"all samples are {first:g}: kurtosis of a constant is 0/0")
        deviation = deviation / size
        return float(np.mean(deviation**4) / np.mean(deviation**2) ** 2)

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

    def magnitude_quantile(self, share: float) -> float:
        share = check_number("share", share, low=0.0, high=1.0)
        n_within = int(np.floor(self.samples.size * share + 1e-9))
        magnitudes = np.sort(abs(self.samples))
        return float(magnitudes[n_within - 1]) if n_within else 0.0

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.choice(self.samples, n)


@lru_cache(maxsize=1024)
def _moment(dist, order, about):
    return float(dist.partial_moment(order, *dist.support, about=about))


def _probabilities(q):
    q = np.asarray(q, dtype=float)
    if not np.all((q >= 0) & (q <= 1)):
        raise ValueError("q must lie in [0, 1]; it is a probability")
    return q


def _gamma_between(a, lo, hi):
    """P(a, hi) - P(a, lo) for the regularized incomplete gamma function, tails without loss."""
    upper = lo > a
    if np.all(upper):
        return special.gammaincc(a, lo) - special.gammaincc(a, hi)
    lower = special.gammainc(a, hi) - special.gammainc(a, lo)
    if not np.any(upper):
        return lower
    return np.where(upper, special.gammaincc(a, lo) - special.gammaincc(a, hi), lower)


def _beta_between(a, b, heads, tails):
    """Integral of t^(a-1) (1-t)^(b-1) from heads[0] to heads[1], a > 0, b any real number.

    heads = (z_lo, z_hi) and tails = (1 - z_lo, 1 - z_hi), both given to full precision. For b > 0
    it is a regularized incomplete beta function; for b <= 0, where that does not exist, and near
    it, where it cancels, two power series: one about t = 0 and one about t = 1.
    """
    if b >= 0.25:
        upper = heads[0] > 0.5
        # next to t = 1, of the two ends the distance to 1 has the digits
        below = np.where(
            heads[1] > 0.5, 1 - special.betainc(b, a, tails[1]), special.betainc(a, b, heads[1])
        ) - special.betainc(a, b, heads[0])
        above = special.betainc(b, a, tails[0]) - special.betainc(b, a, tails[1])
        return special.beta(a, b) * np.where(upper, above, below)
    near_zero, near_one, pole = _beta_series(a, b)
    value = 0.0
    if (heads[0] < 0.5).any():
        value = np.diff(_power_series(near_zero, a, np.minimum(heads, 0.5)), axis=0)[0]
    if (tails[1] < 0.5).any():
        high = np.minimum(tails, 0.5)
        value = value - np.diff(_power_series(near_one, b, high), axis=0)[0]
        if pole is not None:
            s, coefficient = pole
            value = value + coefficient * high[0] ** s * _power_difference(s, high)
    return value


@lru_cache(maxsize=1024)
def _beta_series(a, b):
    """Series of the integrand about t = 0, and about t = 1 as sum_k c_k (u_lo^s - u_hi^s) / s.

    There s = b + k; the term whose s is next to 0, where it is a logarithm, is given apart.
    """
    k = np.arange(_N_BETA_TERMS)
    factorials = special.factorial(k)
    near_zero = special.poch(1 - b, k) / factorials / (a + k)
    coefficients = special.poch(1 - a, k) / factorials
    pole = int(np.rint(-b))
    if not 0 <= pole < _N_BETA_TERMS:
        return near_zero, coefficients / (b + k), None
    near_one = np.where(k == pole, 0.0, coefficients / np.where(k == pole, 1.0, b + k))
    return near_zero, near_one, (b + pole, coefficients[pole])


def _power_difference(s, tails):
    """(1 - (u_hi / u_lo)^s) / s, the logarithm of u_lo / u_hi at s = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio = np.where(tails[0] > 0, np.log(tails[0] / tails[1]), 0.0)
    return -np.expm1(-s * log_ratio) / s if s else log_ratio


def _power_series(coefficients, exponent, x):
    """x^exponent sum_k coefficients[k] x^k."""
    value = np.full(x.shape, coefficients[-1])
    for c in coefficients[-2::-1].tolist():  # Horner's rule, in place
        value *= x
        value += c
    return x**exponent * value
