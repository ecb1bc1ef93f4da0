"""Grams of correlated ReLU activations of a wanted condition, for tests and benchmarks."""

import numpy as np


def relu_gram(rng, n, condition):
    """X'X / n_samples of ReLU activations, its spectrum bent to condition number ``condition``.

    The inputs are 40 n + 200 normal samples with correlated columns of unit variance, shifted by
    0.3 N(0, 1) a column, negatives set to 0; their gram has a condition number of some 1e2 to 1e4.
    Its eigenvectors, its trace and the order of its eigenvalues are kept, the eigenvalues are
    raised to the power that makes largest / smallest equal ``condition``. 1 gives a multiple of the
    identity.
    """
    n_samples = 40 * n + 200
    rotation = np.linalg.qr(rng.normal(size=(n, n)))[0]
    mixed = rng.normal(size=(n_samples, n)) * 1e3 ** -np.linspace(0, 0.5, n) @ rotation
    x = np.maximum(mixed / mixed.std(axis=0) + 0.3 * rng.normal(size=n), 0)
    values, vectors = np.linalg.eigh(x.T @ x / n_samples)
    if n == 1 or condition == 1:
        return np.eye(n) * values.mean()
    power = np.log(condition) / np.log(values[-1] / values[0])
    bent = (values / values[-1]) ** power
    bent *= values.sum() / bent.sum()
    gram = (vectors * bent) @ vectors.T
    return (gram + gram.T) / 2
