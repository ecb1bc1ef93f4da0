"""Intervals of differences between networks that were tested on the same images."""

from collections.abc import Callable, Sequence

import numpy as np


def lead_interval(
    scores: Callable[[np.ndarray, Sequence[np.ndarray]], np.ndarray],
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    n_draws: int,
    seed: int,
) -> tuple[float, float]:
    """Middle 95 % of the mean over seeds of score(first) - score(second), by a paired bootstrap.

    Parameters
    ----------
    scores : callable
        From rows of images, and the places drawn of them in each draw, to the metric in each; see
        `pqlib.training.tasks.Task.scores`.
    pairs : sequence of (ndarray, ndarray)
        Of each seed what every test image adds to the metric of both methods, the same images in
        the same order throughout; one row per image.
    n_draws, seed : int

    Raises
    ------
    ValueError
        If two have different numbers of images.

    Notes
    -----
    Each draw takes as many test images as there are, with replacement, the same for both methods
    and all seeds; and, where there are several, as many seeds, with replacement. With few seeds the
    latter understates what other seeds would do.
    """
    n = len(pairs[0][0])
    for pair in pairs:
        for images in pair:
            if len(images) != n:
                raise ValueError(
                    f"pairs must be of the same test images, got {n} and {len(images)} of them"
                )
    rng = np.random.default_rng(seed)
    draws, times = [], np.zeros((n_draws, len(pairs)))
    for i in range(n_draws):
        draws.append(rng.integers(0, n, n))
        times[i] = np.bincount(rng.integers(0, len(pairs), len(pairs)), minlength=len(pairs))
    leads = np.stack([scores(first, draws) - scores(second, draws) for first, second in pairs])
    means = np.average(leads, axis=0, weights=times.T)
    low, high = np.nanquantile(means, [0.025, 0.975])
    return float(low), float(high)
