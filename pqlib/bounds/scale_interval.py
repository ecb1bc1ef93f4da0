r"""Does quantization cost more than a given error at *every* scale of an interval? A proof.

With P = L L', and e(s)^2 the sum over channels of the least quantization error at the common scale
s, let z be optimal at s. Then at any other scale s0, norms over all channels together,

.. math:: e(s_0) \le |L' (s_0 z - w)| \le |L' (s z - w)| + |s - s_0|\, |L' z|
          \le e(s) + \frac{|s - s_0|}{s} \left(e(s) + E\right),

since \|L' s z\| <= \|L' (s z - w)\| + \|L' w\|, with E^2 the sum of w' P w. So with r = \|s - s0\|
/ s

.. math:: e(s) \ge \frac{e(s_0) - r E}{1 + r}.

Errors are those of the products s z in float64, each within u = 2^-53 of itself, which moves the
norm of L' (s z - w) by beta = u s 2^(b-1) (sum over channels of (sum_i P_ii^(1/2))^2)^(1/2) at
most. That is lost at s and at s_0, 2 + r times in all; 4 beta are taken from the numerator.

An optimum at one scale thus bounds the error at all scales near it. The interval is split where
this bound is least, until it exceeds the given error everywhere or a scale is found that does not.
Bounds from unfinished searches serve as well, so hard channels (small scales, where most weights
are clipped) are searched to the end only where their root bounds do not suffice.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pqlib._validation import check_integer, check_number
from pqlib.bounds.quantization import solve_quantization
from pqlib.layers.problem import LayerProblem

_QUICK_NODES = 20_000


@dataclass(frozen=True)
class ScaleInterval:
    """What is known of the quantization error at every scale of an interval.

    Attributes
    ----------
    exceeds : bool or None
        True if every scale of [low, high] costs more than the given error; False if one was found
        that does not; None if the searches allowed did not suffice.
    low, high : float
        The interval.
    lower : float
        Proven: no scale of the interval costs less.
    best_scale, best_error : float
        The best scale tried and the sum of errors there.
    n_scales : int
        Scales tried.
    """

    exceeds: bool | None
    low: float
    high: float
    lower: float
    best_scale: float
    best_error: float
    n_scales: int


def exceeds_at_every_scale(
    problems: Sequence[LayerProblem],
    n_bits: int,
    error: float,
    low: float,
    high: float,
    *,
    max_searches: int = 10_000,
    max_nodes: int = 10**8,
) -> ScaleInterval:
    """Whether quantizing all channels at one common scale costs more than ``error`` at any scale.

    Parameters
    ----------
    problems : sequence of LayerProblem
        The channels, at least one; their errors add.
    n_bits : int, 2..16
    error : float >= 0
        What the other method costs.
    low, high : float > 0
        The interval of scales, in weight units.
    max_searches : int >= 1, default 10_000
        Channels times scales: some 10 seconds. One scale is tried in any case.
    max_nodes : int >= 1, default 1e8
        Of all searches that a short one did not finish, together; some 10 seconds.

    Returns
    -------
    ScaleInterval

    Raises
    ------
    ValueError, TypeError
        On no problem, or arguments out of range.

    Notes
    -----
    See `pqlib.bounds.scale_interval` for the bound. Where e(s) is near e throughout, it takes
    about E / (2 (e - sqrt(error))) scales per factor 2.718 of the interval: with the error at
    20 dB and the other method's at 21 dB some 60 for an interval of a factor 4.

    Examples
    --------
    >>> import numpy as np
    >>> from pqlib import LayerProblem
    >>> from pqlib.bounds.scale_interval import exceeds_at_every_scale
    >>> problem = LayerProblem(np.eye(3), [1.0, 0.3, 0.1])
    >>> exceeds_at_every_scale([problem], n_bits=2, error=0.01, low=0.1, high=2.0).exceeds
    True
    >>> found = exceeds_at_every_scale([problem], n_bits=2, error=0.1, low=0.1, high=2.0)
    >>> found.exceeds, bool(found.best_error <= 0.1)
    (False, True)
    """
    problems = list(problems)
    if not problems:
        raise ValueError("problems must hold at least one channel, got none")
    for problem in problems:
        if not isinstance(problem, LayerProblem):
            raise TypeError(f"problems must be LayerProblem(gram, weight), got {problem!r}")
    low = check_number("low", low, low=0, open_low=True)
    high = check_number("high", high, low=low)
    error = check_number("error", error, low=0)
    check_integer("max_searches", max_searches, low=1, high=10**12)
    check_integer("max_nodes", max_nodes, low=1, high=10**18)
    energy = math.sqrt(sum(p.energy for p in problems))
    sizes = (float(np.sqrt(abs(p.gram.diagonal())).sum()) for p in problems)
    rounding = 2.0 ** (n_bits - 52) * math.hypot(*sizes)  # 4 beta of a scale of 1
    best_scale, best_error, n_scales, nodes_left = math.nan, math.inf, 0, max_nodes
    floor = math.inf  # least bound of the parts that are done
    parts = [(0.0, low, high)]  # bound of the error there, by the scales tried so far

    def state(exceeds):
        lower = min([floor, *(bound for bound, _, _ in parts)])
        return ScaleInterval(
            exceeds, low, high, min(lower, best_error), best_scale, best_error, n_scales
        )

    while parts:
        if n_scales and (n_scales + 1) * len(problems) > max_searches:
            return state(None)
        known, a, b = parts[0]
        ratio = a / b
        middle = a * (2 / (1 + ratio))  # 2 a b / (a + b), as far from both ends, by r
        reach = (b - a) / b / (1 + ratio) * (1 + 1e-12) + 2.0**-50  # the middle is rounded

        def bound(squares, reach=reach, moved=rounding * b):
            least = math.sqrt(math.fsum(squares)) * (1 - 1e-12)  # room for rounding
            return max(least - reach * energy - moved, 0.0) ** 2 / (1 + reach) ** 2

        quick = min(_QUICK_NODES, max_nodes)
        results = [solve_quantization(p, n_bits, middle, max_nodes=quick) for p in problems]
        n_scales += 1
        may_do = bound(r.upper for r in results) > error >= bound(r.lower for r in results)
        for i, result in enumerate(results):
            if may_do and not result.proven and nodes_left > 0:
                results[i] = solve_quantization(problems[i], n_bits, middle, max_nodes=nodes_left)
                nodes_left -= results[i].nodes
        upper = math.fsum(r.upper for r in results)
        if upper < best_error:
            best_scale, best_error = middle, upper
        if upper <= error:
            return state(False)
        here = max(known, bound(r.lower for r in results))
        heapq.heappop(parts)
        if here > error:
            floor = min(floor, here)
        elif not a < middle < b:  # no float between: an interval of a point that is not resolved
            heapq.heappush(parts, (here, a, b))
            return state(None)
        else:
            heapq.heappush(parts, (here, a, middle))
            heapq.heappush(parts, (here, middle, b))
    return state(True)
