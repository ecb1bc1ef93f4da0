"""Make tests/bounds/stored_optima.csv: optima of pqlib's exact solvers, cross-checked by SCIP.

    python benchmarks/store_optima.py [--limit 30]

A row that is there already is kept, so that a run goes on where it was ended. Channels that SCIP
does not solve within the limit are not stored; others stand in for them.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from solvers import channels, scale_of, scip_pruning, scip_quantization

from pqlib import solve_pruning, solve_quantization

STORE = Path(__file__).parents[1] / "tests" / "bounds" / "stored_optima.csv"
FIELDS = ("problem", "n", "condition", "seed", "budget", "scale", "energy", "optimum", "scip")
CASES, WANTED = 400, 100  # tried in turn and stored, of each problem


def cases() -> Iterator[dict]:
    """Problems of all sizes, conditions and budgets; of the large ones those that SCIP can do."""
    rng = np.random.default_rng(0)
    for seed in range(CASES):
        n = int(rng.integers(16, 37))
        hardest = 6 if n <= 20 else 3 if n <= 28 else 2
        case = {"n": n, "condition": float(10 ** rng.integers(0, hardest)), "seed": seed}
        s = int(rng.integers(1, n if n <= 20 else n // 5 + 1))
        if n > 20 and rng.integers(2):
            s = n - s
        yield {"problem": "prune", **case, "budget": s}
        yield {"problem": "quantize", **case, "budget": int(rng.integers(2, 9))}


def solved(case: dict, limit: float) -> dict | None:
    (problem,) = channels(case["n"], case["condition"], case["seed"], 1)
    budget, scale = case["budget"], 0.0
    if case["problem"] == "prune":
        ours = solve_pruning(problem, budget)
        solution, claimed, _ = scip_pruning(problem, budget, limit)
    else:
        scale = scale_of([problem], budget)
        ours = solve_quantization(problem, budget, scale)
        solution, claimed, _ = scip_quantization(problem, budget, scale, limit)
    if np.isnan(claimed):
        return None
    theirs = problem.error(solution)
    if not ours.proven or theirs < ours.upper * (1 - 1e-4) or abs(claimed / ours.upper - 1) > 1e-4:
        raise AssertionError(f"{case}: ours {ours}, SCIP's solution {theirs!r}, claim {claimed!r}")
    energy, optimum, scip = map(repr, (problem.energy, ours.upper, float(claimed)))
    return case | {"scale": repr(scale), "energy": energy, "optimum": optimum, "scip": scip}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--limit", type=float, default=30.0, help="seconds for SCIP (default 30)")
    limit = parser.parse_args().limit
    rows = []
    if STORE.exists():
        with STORE.open(newline="") as file:
            rows = list(csv.DictReader(file))
    for case in cases():
        seeds = [int(row["seed"]) for row in rows if row["problem"] == case["problem"]]
        if len(seeds) >= WANTED or case["seed"] <= max(seeds, default=-1):
            continue
        row = solved(case, limit)
        print("stored" if row else "not in time", case, flush=True)
        if row:
            rows.append(row)
            with STORE.open("w", newline="") as file:
                writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
