"""What the closed forms and the scale searches save, each against what a user would write instead.

    python benchmarks/theory.py [--repeats 5] [--only quadrature map array]

quadrature
    The optimal scale of the standard normal and its expected MSE at 2-8 bits, against
    scipy.integrate.quad over each cell and scipy.optimize.minimize_scalar over the scale.
map
    The map of Fig 2: 100 truncations of Student's t with nu = 2 times 2-8 bits, for each the
    optimal scale, the quantization MSE and the pruning MSE. 2 s are the target.
array
    The optimal scale of normal weights, against the best of 100 thresholds.

Both sides run in one process, one after the other; medians over the repeats.
"""

import argparse
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import scipy
from scipy import integrate, optimize, stats

import pqlib
from pqlib import (
    IntegerGrid,
    Normal,
    StudentT,
    Truncated,
    compare_bits,
    distribution_scale,
    expected_quantization_mse,
    incomplete,
    optimal_scales,
    search_scale,
)

BITS = range(2, 9)
Row = tuple[str, float, float, str]  # what, seconds, seconds of the other side, remark


def clear_caches() -> None:
    """Forget what earlier repeats left behind."""
    for module in (distribution_scale, incomplete, pqlib.density):
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def clock(function: Callable, repeats: int) -> tuple[float, object]:
    """Median seconds of ``function()`` without warm caches, and its last result."""
    seconds = []
    for _ in range(repeats):
        clear_caches()
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def closed_form() -> list[float]:
    scales = optimal_scales(Normal(), BITS)
    grids = [IntegerGrid(b, s) for b, s in zip(BITS, scales, strict=True)]
    return [expected_quantization_mse(Normal(), grid) for grid in grids]


def by_quadrature(n_bits: int, density: Callable[[float], float]) -> float:
    low, high = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1

    def error(scale: float) -> float:
        def integrand(w: float) -> float:
            return (scale * min(max(round(w / scale), low), high) - w) ** 2 * density(w)

        edges = [-math.inf, *scale * (np.arange(low, high) + 0.5), math.inf]
        return sum(integrate.quad(integrand, *ends)[0] for ends in pairwise(edges))

    guess = 4 / 2**n_bits * math.sqrt(n_bits)  # what a plot of the error suggests
    found = optimize.minimize_scalar(error, bounds=(guess / 2, guess * 2), method="bounded")
    return found.fun


def inlined(w: float) -> float:
    return math.exp(-w * w / 2) / math.sqrt(2 * math.pi)


def quadrature(repeats: int) -> Iterator[Row]:
    ours, closed = clock(closed_form, 20 * repeats)
    for density, name in ((stats.norm.pdf, "scipy.stats' pdf"), (inlined, "pdf by math.exp")):
        theirs, quad = clock(lambda d=density: [by_quadrature(b, d) for b in BITS], repeats)
        worst = max(abs(b / a - 1) for a, b in zip(closed, quad, strict=True))
        remark = f"quad of {name}; MSEs agree to {worst:.0e}"
        yield "normal, 2-8 bits: scale and MSE", ours, theirs, remark


def fig_2() -> list:
    ranges = np.geomspace(2, 200, 100).tolist()
    return [compare_bits(Truncated(StudentT(2.0), -r, r), BITS) for r in ranges]


def full_map(repeats: int) -> Iterator[Row]:
    seconds, records = clock(fig_2, repeats)
    cells = sum(map(len, records))
    yield "Fig 2: 100 ranges x 7 bits", seconds, math.nan, f"{cells} cells, target 2 s"


def best_of_100_thresholds(w: np.ndarray, n_bits: int) -> tuple[float, float]:
    low, high = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    scales = np.max(abs(w)) * np.arange(1, 101) / 100 / high
    errors = [np.mean((np.clip(np.rint(w / s), low, high) * s - w) ** 2) for s in scales]
    best = int(np.argmin(errors))
    return float(scales[best]), float(errors[best])


def array(repeats: int) -> Iterator[Row]:
    for size in (100_000, 1_000_000):
        w = np.random.default_rng(0).normal(size=size)
        for n_bits in (4, 8):
            ours, found = clock(lambda w=w, b=n_bits: search_scale(w, b), repeats)
            theirs, (_, mse) = clock(
                lambda w=w, b=n_bits: best_of_100_thresholds(w, b), min(repeats, 3)
            )
            remark = f"MSE {100 * (1 - found.mse / mse):.2f} % lower, "
            remark += f"proven gap {100 * (1 - found.lower / found.mse):.3f} %"
            yield f"{size:.0e} weights, {n_bits} bits: scale", ours, theirs, remark


SECTIONS = {"quadrature": quadrature, "map": full_map, "array": array}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side (default 5)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    print(f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}")
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"pqlib {pqlib.__version__}; medians of {options.repeats}\n"
    )
    print(f"{'what':36} {'pqlib':>10} {'instead':>10} {'ratio':>7}  remark")
    for name in options.only:
        for what, ours, theirs, remark in SECTIONS[name](options.repeats):
            other = "" if math.isnan(theirs) else f"{theirs:.4f} s"
            ratio = "" if math.isnan(theirs) else f"{theirs / ours:.1f}x"
            print(f"{what:36} {ours:8.4f} s {other:>10} {ratio:>7}  {remark}", flush=True)


if __name__ == "__main__":
    main()
