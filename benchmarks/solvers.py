"""The exact solvers of one channel, each against what a user would take instead.

    python benchmarks/solvers.py [--instances 5] [--only scaling pruning ...] [--out FOLDER]

scaling
    Milliseconds a channel of both problems by n, budget and condition of the gram, pqlib alone.
large
    The same at n = 48, 64, 80 and 96 with a limit of time, and how often it ran out.
pruning
    The best subset, against the paper's mixed-integer program (eq. 8) in SCIP.
quantization
    The best integers, against the integer program in SCIP.
bound
    The box-QP's lower bound, against the same program in cvxpy with Clarabel.

Both sides get the same channels in one process, one after the other, on one thread; ratios are
those of medians. Grams are those of correlated ReLU activations (tests/relu_cases.py). Compilation
and what the channels of a gram share are excluded: a channel of the gram is solved first. Needs
``pip install 'pqlib[bounds]' pyscipopt``.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before numpy: threads would wait longer than they work

import argparse
import json
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import cvxpy as cp
import numpy as np
import pandas as pd
import pyscipopt

from pqlib import LayerProblem, optimal_scale, solve_pruning, solve_quantization

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from relu_cases import relu_gram

BITS = (2, 3, 4, 6, 8)
PACKAGES = ("numpy", "numba", "cvxpy", "clarabel", "pyscipopt")
Solve = Callable[[LayerProblem], object]
Row = dict[str, object]


def channels(n: int, condition: float, seed: int, count: int) -> list[LayerProblem]:
    """``count`` channels of one gram, weights normal."""
    rng = np.random.default_rng(seed)
    gram = relu_gram(rng, n, condition)
    return [LayerProblem(gram, w) for w in rng.normal(size=(count, n))]


def scale_of(problems: list[LayerProblem], n_bits: int) -> float:
    """The tensor's scale."""
    return optimal_scale(np.stack([p.weight for p in problems]), n_bits)


def clock(solve: Solve, problems: list[LayerProblem]) -> tuple[list[float], list]:
    """Seconds of each solve, after one that is not counted, and the results."""
    solve(problems[0])
    seconds, results = [], []
    for problem in problems:
        start = time.perf_counter()
        results.append(solve(problem))
        seconds.append(time.perf_counter() - start)
    return seconds, results


def scip(
    problem: LayerProblem, add: Callable, known: float, max_seconds: float
) -> tuple[np.ndarray | None, float, str]:
    """Minimize the error in SCIP; the weights of its solution, the optimum claimed, its status.

    ``add(model)`` returns expressions of the weights and adds their constraints. The objective is
    given as squares of R (w_hat - w), R upper triangular, a form in which SCIP was several times
    faster than with cvxpy's or with the products themselves; divided by ``known``, it is near 1.
    """
    model = pyscipopt.Model()
    model.hideOutput()
    model.setParam("limits/time", max_seconds)
    w_hat = add(model)
    factor = np.linalg.cholesky(problem.gram).T / np.sqrt(known)
    n, total = problem.n, model.addVar(lb=0.0)
    parts = [model.addVar(lb=None) for _ in range(n)]
    moved = [v - float(w) for v, w in zip(w_hat, problem.weight, strict=True)]
    for i in range(n):
        row = pyscipopt.quicksum(float(factor[i, j]) * moved[j] for j in range(i, n))
        model.addCons(parts[i] == row)
    model.addCons(pyscipopt.quicksum(part * part for part in parts) <= total)
    model.setObjective(total)
    model.optimize()
    status = model.getStatus()
    if model.getNSols() == 0:
        return None, np.nan, status
    best = model.getBestSol()
    solution = np.array([model.getSolVal(best, v) for v in w_hat])
    return solution, model.getObjVal() * known if status == "optimal" else np.nan, status


def scip_quantization(problem: LayerProblem, n_bits: int, scale: float, max_seconds: float):
    """`scip` on whole numbers in the box."""
    low, high = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1

    def add(model):
        return [scale * model.addVar(vtype="I", lb=low, ub=high) for _ in range(problem.n)]

    known = solve_quantization(problem, n_bits, scale, "feedback").upper
    return scip(problem, add, known, max_seconds)


def scip_pruning(problem: LayerProblem, n_nonzero: int, max_seconds: float):
    """`scip` on the paper's big-M program, with bounds that follow from the data."""
    known = solve_pruning(problem, n_nonzero, "backward").upper
    reach = np.sqrt(1.000001 * known * np.linalg.inv(problem.gram).diagonal())  # of an optimum
    least = np.minimum(problem.weight - reach, 0.0)
    most = np.maximum(problem.weight + reach, 0.0)

    def add(model):
        masks = [model.addVar(vtype="B") for _ in range(problem.n)]
        kept = [model.addVar(lb=None) for _ in range(problem.n)]
        for mask, value, low, high in zip(masks, kept, least, most, strict=True):
            model.addCons(value >= float(low) * mask)
            model.addCons(value <= float(high) * mask)
        model.addCons(pyscipopt.quicksum(masks) <= n_nonzero)
        return kept

    return scip(problem, add, known, max_seconds)


def box_program(problem: LayerProblem, n_bits: int, scale: float) -> float:
    """The box-QP in cvxpy with Clarabel, as one would write it."""
    root = np.linalg.cholesky(problem.gram).T
    z = cp.Variable(problem.n)
    program = cp.Problem(
        cp.Minimize(cp.sum_squares(root @ (scale * z - problem.weight))),
        [z >= -(2 ** (n_bits - 1)), z <= 2 ** (n_bits - 1) - 1],
    )
    return program.solve(solver=cp.CLARABEL)


def pqlib_alone(
    sizes: tuple, conditions: tuple, instances: int, limit: float | None
) -> Iterator[Row]:
    """Both problems at all budgets; a gram for every (n, condition), ``instances`` channels."""
    for n in sizes:
        for condition in conditions:
            problems = channels(n, condition, n, instances)
            own = {"n": n, "condition": condition}
            counts = range(1, n) if n <= 36 else (n // 8, n // 4, 3 * n // 8, n // 2, 3 * n // 4)
            timed = [
                clock(lambda p, s=s: solve_pruning(p, s, max_seconds=limit), problems)
                for s in counts
            ]
            budget = f"{'1..n-1' if n <= 36 else ', '.join(map(str, counts))} kept"
            yield {"problem": "prune", **own, "budget": budget} | summary(timed)
            for b in BITS:
                d = scale_of(problems, b)
                timed = clock(
                    lambda p, b=b, d=d: solve_quantization(p, b, d, max_seconds=limit), problems
                )
                yield {"problem": "quantize", **own, "budget": f"b = {b}"} | summary([timed])


def summary(timed: list[tuple[list[float], list]]) -> Row:
    """Median and worst milliseconds, how many were solved and how many not proven."""
    ms = [1e3 * second for seconds, _ in timed for second in seconds]
    results = [result for _, found in timed for result in found]
    return {
        "median_ms": round(statistics.median(ms), 3),
        "worst_ms": round(max(ms), 3),
        "channels": len(results),
        "unproven": sum(not r.proven for r in results),
    }


def scaling(instances: int, limit: float) -> Iterator[Row]:
    conditions = (1, 1e1, 1e2, 1e3, 1e4, 1e5)
    yield from pqlib_alone((16, 24, 32, 36), conditions, 2 * instances, None)


def large(instances: int, limit: float) -> Iterator[Row]:
    yield from pqlib_alone((48, 64, 80, 96), (1e2, 1e4), instances, 10.0)


def side_by_side(cases: Iterator[tuple[str, Solve, Solve, list[LayerProblem]]]) -> Iterator[Row]:
    for what, ours, theirs, problems in cases:
        fast, found = clock(ours, problems)
        slow, others = [], []
        for problem in problems:
            start = time.perf_counter()
            others.append(theirs(problem))
            slow.append(time.perf_counter() - start)
        a, b = 1e3 * statistics.median(fast), 1e3 * statistics.median(slow)
        yield {
            "what": what,
            "pqlib_ms": round(a, 3),
            "instead_ms": round(b, 1),
            "ratio": round(b / a),
            "remark": agreement(found, others),
        }


def agreement(found: list, others: list) -> str:
    """How far apart the optima or bounds are, and how many of theirs ended in time."""
    if isinstance(others[0], float):
        pairs = [(r.lower, o) for r, o in zip(found, others, strict=True)]
        ended = ""
    else:
        pairs = [(r.upper, o[1]) for r, o in zip(found, others, strict=True) if o[1] == o[1]]
        ended = f"{len(pairs)} of {len(others)} ended in time; "
    if not pairs:
        return ended.removesuffix("; ")
    return ended + f"optima agree to {max(abs(b / a - 1) for a, b in pairs):.0e}"


def pruning(instances: int, limit: float) -> Iterator[Row]:
    def cases():
        for n in (24, 32, 36):
            for s in (n // 4, n // 2):
                yield (
                    f"prune n = {n}, {s} kept",
                    lambda p, s=s: solve_pruning(p, s),
                    lambda p, s=s: scip_pruning(p, s, limit),
                    channels(n, 1e3, n, instances),
                )

    yield from side_by_side(cases())


def quantization(instances: int, limit: float) -> Iterator[Row]:
    def cases():
        for n in (24, 32, 36):
            for b in (2, 3, 4, 8):
                problems = channels(n, 1e3, n, instances)
                scale = scale_of(problems, b)
                yield (
                    f"quantize n = {n}, b = {b}",
                    lambda p, b=b, d=scale: solve_quantization(p, b, d),
                    lambda p, b=b, d=scale: scip_quantization(p, b, d, limit),
                    problems,
                )

    yield from side_by_side(cases())


def bound(instances: int, limit: float) -> Iterator[Row]:
    def cases():
        for n in (24, 36):
            for b in (2, 4):
                problems = channels(n, 1e3, n, 4 * instances)
                scale = scale_of(problems, b) / 4  # so that the box binds, or the bound is 0
                yield (
                    f"box-QP n = {n}, b = {b}",
                    lambda p, b=b, d=scale: solve_quantization(p, b, d, "box_qp"),
                    lambda p, b=b, d=scale: float(box_program(p, b, d)),
                    problems,
                )

    yield from side_by_side(cases())


# name: the rows, and the file that holds them
SECTIONS = {
    "scaling": (scaling, "solvers_scaling.csv"),
    "large": (large, "solvers_scaling.csv"),
    "pruning": (pruning, "solvers_side_by_side.csv"),
    "quantization": (quantization, "solvers_side_by_side.csv"),
    "bound": (bound, "solvers_side_by_side.csv"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--instances", type=int, default=5, help="channels a row (default 5)")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for SCIP (default 120)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--out", type=Path, help="folder for the tables, with their provenance")
    options = parser.parse_args()
    if options.instances < 1:
        parser.error(f"--instances must be at least 1, got {options.instances}")
    machine = {
        "command": shlex.join(["python", "benchmarks/solvers.py", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, one thread",
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }
    print(json.dumps(machine), "\n")
    tables: dict[str, list[Row]] = {}
    for name in options.only:
        rows, file = SECTIONS[name]
        for row in rows(options.instances, options.limit):
            tables.setdefault(file, []).append(row)
            print("  ".join(f"{value!s:>10}" for value in row.values()), flush=True)
        print()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    for file, rows in tables.items() if options.out else ():
        pd.DataFrame(rows).to_csv(options.out / file, index=False, lineterminator="\n")
        (options.out / file).with_suffix(".json").write_text(json.dumps(machine, indent=1) + "\n")


if __name__ == "__main__":
    main()
