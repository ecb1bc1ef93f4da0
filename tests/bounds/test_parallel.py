"""Many channels at once: order, errors, interruption."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest

from pqlib import LayerProblem, solve_channels, solve_pruning, solve_quantization

HARD = """
import sys
from functools import partial
import numpy as np
from pqlib import LayerProblem, solve_channels, solve_pruning
x = np.random.default_rng(0).normal(size=(400, 96))
x = np.maximum(x @ np.random.default_rng(1).normal(size=(96, 96)), 0)
gram = x.T @ x
weights = np.random.default_rng(2).normal(size=(200, 96))
problems = [LayerProblem(gram, w) for w in weights]
if __name__ == "__main__":
    print("started", flush=True)
    for result in solve_channels(problems, partial(solve_pruning, n_nonzero=30), n_jobs=2):
        print("done", flush=True)
"""


def problems(count, n=12):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, n))
    return [LayerProblem(x.T @ x, w) for w in rng.normal(size=(count, n))]


@pytest.mark.parametrize(
    "solve",
    [partial(solve_pruning, n_nonzero=5), partial(solve_quantization, n_bits=3, scale=0.5)],
)
def test_two_processes_give_what_one_gives(solve):
    many = problems(40)
    one = list(solve_channels(many, solve))
    two = list(solve_channels(many, solve, n_jobs=2))
    assert len(one) == len(two) == 40
    for problem, a, b in zip(many, one, two, strict=True):
        assert np.array_equal(a.solution, b.solution) and a.upper == b.upper
        assert np.array_equal(a.solution, solve(problem).solution)


def test_results_come_as_they_are_done():
    seen = []

    def solve(problem):
        seen.append(problem)
        return solve_pruning(problem, 3)

    results = solve_channels(problems(64), solve)
    next(results)
    assert len(seen) < 64


def test_none_gives_none():
    assert list(solve_channels([], partial(solve_pruning, n_nonzero=1))) == []


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_error_arrives(n_jobs):
    with pytest.raises(ValueError, match="n_nonzero"):
        list(solve_channels(problems(40), partial(solve_pruning, n_nonzero=13), n_jobs=n_jobs))


def test_bad_solver_is_named():
    with pytest.raises(TypeError, match="solve must take a LayerProblem"):
        next(solve_channels(problems(1), "exact"))


def children(pid):
    """Processes whose parent is ``pid``, and theirs."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    parent = int(file.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent == pid:
                found += [int(entry), *children(int(entry))]
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for children in /proc")
def test_ctrl_c_ends_a_parallel_run(tmp_path):
    """As a terminal does it: SIGINT to the whole group, in the middle of searches of minutes."""
    script = tmp_path / "hard.py"
    script.write_text(HARD)
    run = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    try:
        assert run.stdout.readline() == "started\n"
        deadline = time.monotonic() + 60
        while len(children(run.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(3)  # into the searches
        workers = children(run.pid)
        assert len(workers) >= 2
        os.killpg(run.pid, signal.SIGINT)
        _, messages = run.communicate(timeout=30)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
    assert run.returncode != 0
    assert messages.rstrip().endswith("KeyboardInterrupt")
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") for pid in workers):
        assert time.monotonic() < deadline, "a worker is left"
        time.sleep(0.1)
