"""How loops are compiled: on first use, cached on disk where that is possible."""

from collections.abc import Callable

import numba


def compiled(function: Callable | None = None, *, reorder_sums: bool = False) -> Callable:
    """Compile a function of numbers and arrays with numba; it then runs without the interpreter.

    Parameters
    ----------
    function : callable
        Also marked ``typing.no_type_check``, since numba cannot compile what a checker has wrapped.
        All that it calls stands in its own file: a cached kernel does not notice edits in another.
    reorder_sums : bool, default False
        Let the compiler reorder sums, so that they fill vector registers. Nothing else is relaxed.

    Notes
    -----
    The global interpreter lock is released. Where no folder can be written for the cache, the
    function is compiled anew in each process.
    """
    if function is None:
        return lambda f: compiled(f, reorder_sums=reorder_sums)
    options = {"nogil": True, "fastmath": {"reassoc", "contract"} if reorder_sums else False}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found nowhere to cache
        return numba.njit(**options)(function)
