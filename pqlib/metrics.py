"""How far a compressed tensor is from the original."""

import numpy as np
from numpy.typing import ArrayLike

from pqlib._validation import as_finite_array


def _pair(x: ArrayLike, x_hat: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, x_hat = as_finite_array("x", x), as_finite_array("x_hat", x_hat)
    if x.shape != x_hat.shape:
        raise ValueError(f"x and x_hat must have one shape, got {x.shape} and {x_hat.shape}")
    return x, x_hat


def mse(x: ArrayLike, x_hat: ArrayLike) -> float:
    """Mean squared error: the mean of (x - x_hat)^2 over all elements, in float64."""
    x, x_hat = _pair(x, x_hat)
    return float(np.mean((x - x_hat) ** 2))


def relative_error(x: ArrayLike, x_hat: ArrayLike) -> float:
    """Noise over signal, sum (x - x_hat)^2 / sum x^2: the linear scale of `sqnr_db`.

    0 if x_hat equals x, also where x is zero; inf if only x is zero.
    """
    x, x_hat = _pair(x, x_hat)
    size = max(np.max(abs(x)), np.max(abs(x_hat)))  # squares of tiny weights would underflow
    if size == 0:
        return 0.0
    noise, signal = np.sum(((x - x_hat) / size) ** 2), np.sum((x / size) ** 2)
    if noise == 0:
        return 0.0
    return float(noise / signal) if signal else np.inf


def sqnr_db(x: ArrayLike, x_hat: ArrayLike) -> float:
    """Signal-to-noise ratio 10 log10(sum x^2 / sum (x - x_hat)^2) in dB (section 3).

    Returns
    -------
    float
        +inf if x_hat equals x, -inf if x is zero and x_hat is not.
    """
    ratio = relative_error(x, x_hat)
    return float(-10 * np.log10(ratio)) if ratio else np.inf


def kurtosis(x: ArrayLike) -> float:
    """Sample kurtosis mean((x - m)^4) / mean((x - m)^2)^2, *not* the excess: 3 for a normal.

    Computed in float64 whatever the dtype of ``x`` (section 3.4; the authors' release has excess
    kurtosis computed in fp16, which underflows for small weights).

    Raises
    ------
    ValueError
        If all elements are equal: the ratio is then 0 / 0.
    """
    x = as_finite_array("x", x)
    largest = np.max(abs(x))
    x = x / (largest or 1.0)  # so that the sum does not overflow
    deviation = x - x.mean()
    size = np.max(abs(deviation))
    if np.ptp(x) == 0 or size == 0:
        raise ValueError(
            f"x is constant ({largest * x.flat[0]:g}): its kurtosis is 0/0; drop constant tensors"
        )
    deviation = deviation / size
    return float(np.mean(deviation**4) / np.mean(deviation**2) ** 2)


def cka(x: ArrayLike, y: ArrayLike) -> float:
    """Centered kernel alignment of two representations, linear kernel, in [0, 1].

    Parameters
    ----------
    x, y : array_like of shape (n_samples, n_features) and (n_samples, m_features)
        Activations of the same samples in two networks.

    Returns
    -------
    float
        1 if the one is the other, rotated or scaled as a whole.

    Raises
    ------
    ValueError
        If the shapes do not fit, or if one of them is the same for all samples.

    Notes
    -----
    ``|X'Y|^2 / (|X'X| |Y'Y|)`` in Frobenius norms, columns centered. It does not change when
    features are rotated or scaled as a whole. This is the biased estimator: of unrelated
    features it is not zero, and for p independent normal ones about p / (p + n_samples).

    With ``K = X X'`` and ``L = Y Y'`` it is ``<K, L> / (|K| |L|)``, which is what is computed where
    there are fewer samples than features: memory then grows with the square of the smaller number.

    References
    ----------
    Kornblith, Norouzi, Lee, Hinton, Similarity of Neural Network Representations Revisited, 2019.
    """
    x, y = as_finite_array("x", x), as_finite_array("y", y)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(
            "x and y must be 2-d with one row per sample, the same samples in both, "
            f"got shapes {x.shape} and {y.shape}"
        )
    x, y = _centered("x", x), _centered("y", y)
    if len(x) < max(x.shape[1], y.shape[1]):
        return gram_alignment(x @ x.T, y @ y.T)
    norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(x.T @ y) ** 2 / norms)


def centered_gram(x: ArrayLike) -> np.ndarray:
    """X X' of shape (n_samples, n_samples), the columns of X centered and scaled as a whole.

    With `gram_alignment` it gives `cka`, and saves work where one representation is compared with
    many. Parameters and errors as there.
    """
    x = as_finite_array("x", x)
    if x.ndim != 2:
        raise ValueError(f"x must be 2-d with one row per sample, got shape {x.shape}")
    x = _centered("x", x)
    return x @ x.T


def gram_alignment(gram: np.ndarray, other: np.ndarray) -> float:
    """``<K, L> / (|K| |L|)`` of two centered Gram matrices, in [0, 1]."""
    return float(np.sum(gram * other) / (np.linalg.norm(gram) * np.linalg.norm(other)))


def _centered(name, x):
    """Columns without their means, the largest element 1 in magnitude."""
    if not np.ptp(x, axis=0).any():
        raise ValueError(f"{name} is the same for all samples, so the alignment is 0/0")
    x = x / np.max(abs(x))
    x = x - x.mean(axis=0)
    return x / np.max(abs(x))
