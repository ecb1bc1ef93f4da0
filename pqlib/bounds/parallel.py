"""Many channels at once, through joblib."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import joblib

from pqlib.bounds.result import Result
from pqlib.layers.problem import LayerProblem

_BATCH = 16  # channels sent to a worker at once: some 10 ms of work


def solve_channels(
    problems: Iterable[LayerProblem],
    solve: Callable[[LayerProblem], Result],
    *,
    n_jobs: int | None = None,
) -> Iterator[Result]:
    """Apply a solver to many channels, in order, each result as soon as it and all before are done.

    Parameters
    ----------
    problems : iterable of LayerProblem
        Keep channels of one gram together: what they share is prepared once per worker.
    solve : callable
        Problem in, Result out, such as ``functools.partial(solve_pruning, n_nonzero=9)``. With more
        than one process it has to be picklable, which a lambda is not.
    n_jobs : int, optional
        Processes; -1 for all cores. By default what `joblib.parallel_config` says, or one. Its
        backends work too: ``with joblib.parallel_config("ray", n_jobs=64):`` runs on a cluster.

    Yields
    ------
    Result
        Of the first problem, the second, and so on, whatever the number of processes.

    Raises
    ------
    Exception
        What ``solve`` raises, after the other processes have been stopped. So it is with Ctrl-C.

    Notes
    -----
    A process starts in about a second and takes its kernels from the cache. For threads instead
    (the kernels release Python's lock, what surrounds them does not), use
    ``joblib.parallel_config("threading")``; Ctrl-C then waits for the channels under way.

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> from pqlib import LayerProblem, solve_channels, solve_pruning
    >>> problems = [LayerProblem(np.eye(2), w) for w in ([3.0, 1.0], [1.0, 2.0])]
    >>> [r.upper for r in solve_channels(problems, partial(solve_pruning, n_nonzero=1))]
    [1.0, 1.0]
    """
    if not callable(solve):
        raise TypeError(f"solve must take a LayerProblem and return a Result, got {solve!r}")
    if not isinstance(problems, Iterable):
        raise TypeError(f"problems must be several, such as [problem], got {problems!r}")
    if n_jobs == 0:
        raise ValueError("n_jobs must be a number of processes, or -1 for all cores, got 0")
    remaining = iter(problems)
    batches = iter(lambda: list(islice(remaining, _BATCH)), [])
    parallel = joblib.Parallel(n_jobs=n_jobs, batch_size=1, return_as="generator")
    for results in parallel(joblib.delayed(_solve_batch)(batch, solve) for batch in batches):
        yield from results


def _solve_batch(problems, solve):
    return [solve(problem) for problem in problems]
