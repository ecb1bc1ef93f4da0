"""How sparsity and learning rate change from step to step."""

import math

from pqlib._validation import check_integer, check_number


def cubic_sparsity(step: float, start: float, end: float, initial: float, final: float) -> float:
    """Sparsity at a step of gradual pruning.

    s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (t_1 - t_0))^3 for t_0 <= t <= t_1

    Parameters
    ----------
    step : float
        The step t, in any unit: steps, epochs.
    start, end : float, start <= end
        The steps t_0 and t_1, in the same unit. If they are equal the sparsity jumps there.
    initial, final : float in [0, 1]
        The sparsities s_i up to t_0 and s_f from t_1 on.

    Returns
    -------
    float
        Exactly ``initial`` and ``final`` outside.

    Raises
    ------
    ValueError, TypeError
        On numbers that are not finite or not in their ranges.

    Notes
    -----
    Most weights go early, while the network is far from its last state and can recover: half of
    s_f is reached after 1 - 2^(-1/3), some 21 %, of the way.

    References
    ----------
    Zhu and Gupta, "To prune, or not to prune", arXiv 1710.01878, equation 1.

    Examples
    --------
    >>> [cubic_sparsity(t, 0, 4, 0.0, 0.8) for t in (0, 2, 4, 5)]
    [0.0, 0.7, 0.8, 0.8]
    """
    step = check_number("step", step)
    start = check_number("start", start)
    end = check_number("end", end, low=start)
    initial = check_number("initial", initial, low=0.0, high=1.0)
    final = check_number("final", final, low=0.0, high=1.0)
    if step >= end:
        return final
    if step <= start:
        return initial
    return final + (initial - final) * (1 - (step - start) / (end - start)) ** 3


def cosine(step: int, n_steps: int, floor: float = 0.01) -> float:
    """Factor of the learning rate at step ``step`` of ``n_steps``: half a cosine from 1 to a floor.

    f + (1 - f) (1 + cos(pi t / (T - 1))) / 2

    Parameters
    ----------
    step : int, 0..n_steps - 1
        The step t; later ones give ``floor``.
    n_steps : int >= 1
        All steps T of the run. The last one, T - 1, has factor ``floor``; a single one has 1.
    floor : float in [0, 1], default 0.01
        The share f that is left at the end.

    Returns
    -------
    float in [floor, 1]
    """
    n_steps = check_integer("n_steps", n_steps, low=1, high=2**62)
    step = check_integer("step", step, low=0, high=2**62)
    floor = check_number("floor", floor, low=0.0, high=1.0)
    if step == 0:
        return 1.0
    if step >= n_steps - 1:
        return floor
    return floor + (1 - floor) * (1 + math.cos(math.pi * step / (n_steps - 1))) / 2
