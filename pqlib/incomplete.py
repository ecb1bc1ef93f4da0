"""Incomplete gamma and beta functions between two limits, without cancellation in the tails."""

from functools import lru_cache, partial

import numpy as np
from scipy import special

_N_TERMS = 64  # 2^-64 < 1e-19: the power series are used for arguments <= 1/2


def gamma_between(a, lo, hi):
    """P(a, hi) - P(a, lo) for the regularized incomplete gamma function, tails without loss."""
    lower, upper = _ELEMENTARY.get(a) or (partial(f, a) for f in _GAMMA)
    far = lo > a
    if np.all(far):
        return upper(lo) - upper(hi)
    near = lower(hi) - lower(lo)
    if not np.any(far):
        return near
    return np.where(far, upper(lo) - upper(hi), near)


_GAMMA = special.gammainc, special.gammaincc
# a -> (P(a, x), Q(a, x)) where these are elementary, which is ten times faster
_ELEMENTARY = {
    0.5: (lambda x: special.erf(np.sqrt(x)), lambda x: special.erfc(np.sqrt(x))),
    1.0: (lambda x: -np.expm1(-x), lambda x: np.exp(-x)),
}


def beta_between(a, b, heads, tails):
    """Integral of t^(a-1) (1-t)^(b-1) from heads[0] to heads[1], a > 0, b any real number.

    heads = (z_lo, z_hi) and tails = (1 - z_lo, 1 - z_hi), both given to full precision. For b > 0
    it is a regularized incomplete beta function; for b <= 0, where that does not exist, and near
    it, where it cancels, two power series: one about t = 0 and one about t = 1.
    """
    if b >= 0.25:
        upper = [z > 0.5 for z in heads]  # there from the other end: I_z(a, b) = 1 - I_u(b, a)
        lo, hi = (
            special.betainc(np.where(up, b, a), np.where(up, a, b), np.where(up, u, z))
            for up, z, u in zip(upper, heads, tails, strict=True)
        )
        value = np.where(upper[0], lo - hi, np.where(upper[1], 1 - hi - lo, hi - lo))
        return special.beta(a, b) * value
    heads, tails = (np.array(np.broadcast_arrays(*pair)) for pair in (heads, tails))
    near_zero, near_one, pole = _beta_series(a, b)
    value = 0.0
    if (heads[0] < 0.5).any():
        value = np.diff(_power_series(near_zero, a, np.minimum(heads, 0.5)), axis=0)[0]
    if (tails[1] < 0.5).any():
        high = np.minimum(tails, 0.5)
        value = value - np.diff(_power_series(near_one, b, high), axis=0)[0]
        if pole is not None:
            s, coefficient = pole
            value = value + coefficient * high[0] ** s * power_difference(s, high)
    return value


@lru_cache(maxsize=1024)
def _beta_series(a, b):
    """Series of the integrand about t = 0, and about t = 1 as sum_k c_k (u_lo^s - u_hi^s) / s.

    There s = b + k; the term whose s is next to 0, where it is a logarithm, is given apart.
    """
    k = np.arange(_N_TERMS)
    factorials = special.factorial(k)
    near_zero = special.poch(1 - b, k) / factorials / (a + k)
    coefficients = special.poch(1 - a, k) / factorials
    pole = int(np.rint(-b))
    if not 0 <= pole < _N_TERMS:
        return near_zero, coefficients / (b + k), None
    near_one = np.where(k == pole, 0.0, coefficients / np.where(k == pole, 1.0, b + k))
    return near_zero, near_one, (b + pole, coefficients[pole])


def power_difference(s, tails):
    """(1 - (u_hi / u_lo)^s) / s, the logarithm of u_lo / u_hi at s = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio = np.where(tails[0] > 0, np.log(tails[0] / tails[1]), 0.0)
    return -np.expm1(-s * log_ratio) / s if s else log_ratio


def _power_series(coefficients, exponent, x):
    """x^exponent sum_k coefficients[k] x^k, in blocks of eight terms to save calls."""
    powers = np.empty((8, x.size))
    powers[0] = 1.0
    for k in range(1, 8):
        np.multiply(powers[k - 1], x.ravel(), out=powers[k])
    blocks = coefficients.reshape(-1, 8) @ powers
    value, eighth = blocks[-1], powers[-1] * x.ravel()
    for block in blocks[-2::-1]:  # Horner's rule in x^8
        value = value * eighth + block
    return x**exponent * value.reshape(x.shape)
