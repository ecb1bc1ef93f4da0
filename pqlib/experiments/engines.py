"""Where the parts of a long run are computed: processes of this machine, or a Ray cluster."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any

import joblib

from pqlib._validation import check_choice, check_integer

ENGINES = ("local", "ray")
_GRACE_S = 15  # for a process that is told to stop
_REPORT_S = 0.5  # between two reports


@dataclass(frozen=True)
class Event:
    """What a worker has to say: "at" (a report), "done" (what it returned) or "lost" (why)."""

    key: str
    kind: str
    value: Any


@contextmanager
def engine_of(
    engine: str, n_jobs: int | None
) -> Iterator[tuple[int, tuple[type[BaseException], ...]]]:
    """Run joblib on this machine or on a Ray cluster; how many workers, errors of a lost one."""
    _check(engine, n_jobs)
    if engine == "local":
        yield n_jobs or os.cpu_count() or 1, (BrokenProcessPool,)
        return
    ray = _connected_ray()
    from ray.util.joblib import register_ray

    register_ray()
    n_there = int(ray.cluster_resources().get("CPU", 1))
    n_workers = min(n_jobs or n_there, n_there)
    with joblib.parallel_config("ray", n_jobs=n_workers):
        yield n_workers, (ray.exceptions.RayError,)


def _check(engine, n_jobs):
    check_choice("engine", engine, ENGINES)
    if n_jobs is not None:
        check_integer("n_jobs", n_jobs, low=1, high=10**6)


def _connected_ray():
    try:
        import ray
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "engine ray needs Ray; pip install 'pqlib[cluster]', or take --engine local"
        ) from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False)  # of RAY_ADDRESS, one that runs here, or a new one
    return ray


class LocalProcesses:
    """Each call in a process of its own, so that one that is killed takes nothing else along.

    Parameters
    ----------
    n_jobs : int, optional
        Processes at a time; by default as many as there are cores for their threads, at least one,
        and of those that need a GPU one: its memory is not known to suffice for more.
    preload : tuple of str
        Modules that all calls need, imported once.
    """

    def __init__(self, n_jobs: int | None, preload: tuple[str, ...] = ()):
        self._n_jobs = n_jobs
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        self._context = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            self._context.set_forkserver_preload(list(preload))
        self._running: dict[Connection, tuple[str, Any, int, bool]] = {}

    def __enter__(self) -> "LocalProcesses":
        return self

    def __exit__(self, *_: object) -> None:
        """Tell what still runs to stop, and end what does not in time."""
        for _, process, *_ in self._running.values():
            process.terminate()
        end = time.monotonic() + _GRACE_S
        for connection, (_, process, *_) in self._running.items():
            process.join(max(end - time.monotonic(), 0))
            if process.is_alive():
                process.kill()
                process.join()
            connection.close()
        self._running.clear()

    def has_room(self, n_threads: int, gpu: bool) -> bool:
        """Whether a call of so many threads, on the CPU or on a GPU, can start now."""
        if self._n_jobs is not None:
            return len(self._running) < self._n_jobs
        if gpu and any(on_gpu for *_, on_gpu in self._running.values()):
            return False
        busy = sum(threads for _, _, threads, _ in self._running.values())
        return not self._running or busy + n_threads <= (os.cpu_count() or 1)

    def start(
        self, key: str, function: Callable[..., Any], *arguments: Any, n_threads: int, gpu: bool
    ) -> None:
        """Call ``function(*arguments, report=...)``; ``report(x)`` is true once it shall stop."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, function, arguments))
        process.start()
        theirs.close()
        self._running[ours] = key, process, n_threads, gpu

    def wait(self, timeout: float) -> list[Event]:
        """What came within ``timeout`` seconds."""
        events = []
        for connection in wait_for(list(self._running), timeout):
            key, process, *_ = self._running[connection]
            try:
                kind, value = connection.recv()
            except (EOFError, OSError):
                process.join()
                kind, value = "lost", _ending(process.exitcode)
            if kind != "at":
                process.join()
                connection.close()
                del self._running[connection]
            events.append(Event(key, kind, value))
        return events


class RayTasks:
    """The same on a Ray cluster, by cores and GPUs; the folder of the run must be shared by all."""

    def __init__(self, n_jobs: int | None, preload: tuple[str, ...] = ()):
        self._ray = _connected_ray()
        self._n_jobs = n_jobs
        self._running: dict[Any, str] = {}

    def __enter__(self) -> "RayTasks":
        return self

    def __exit__(self, *_: object) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()

    def has_room(self, n_threads: int, gpu: bool) -> bool:
        """Whether Ray shall be asked for a call of so many threads now."""
        there = self._ray.cluster_resources()
        n_there = max(int(there.get("GPU", 0)), int(there["CPU"]) // n_threads, 1)
        return len(self._running) < (self._n_jobs or n_there)

    def start(
        self, key: str, function: Callable[..., Any], *arguments: Any, n_threads: int, gpu: bool
    ) -> None:
        """Queue the call; Ray starts it where there are cores, and a GPU if it needs one."""
        options = {"num_cpus": n_threads, "num_gpus": int(gpu), "max_retries": 0}
        task = self._ray.remote(**options)(function)
        self._running[task.remote(*arguments)] = key

    def wait(self, timeout: float) -> list[Event]:
        """What ended within ``timeout`` seconds."""
        ended, _ = (
            self._ray.wait(list(self._running), timeout=timeout) if self._running else ([], 0)
        )
        events = []
        for reference in ended:
            key = self._running.pop(reference)
            try:
                events.append(Event(key, "done", self._ray.get(reference)))
            except self._ray.exceptions.RayError as error:
                text = str(error).strip().splitlines()
                events.append(Event(key, "lost", f"{type(error).__name__}: {text[-1]}"))
        return events


def processes_of(
    engine: str, n_jobs: int | None, preload: tuple[str, ...] = ()
) -> LocalProcesses | RayTasks:
    """The engine by name.

    Raises
    ------
    ValueError
        If there is no such engine, or ``n_jobs`` is less than one.
    """
    _check(engine, n_jobs)
    kind = LocalProcesses if engine == "local" else RayTasks
    return kind(n_jobs, preload)


def _work(connection, function, arguments):
    """A worker's life: it ends with its parent, and stops where it can when told to."""
    stop, reported = threading.Event(), 0.0
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def report(value):
        nonlocal reported
        if time.monotonic() - reported >= _REPORT_S:
            reported = time.monotonic()
            connection.send(("at", value))
        return stop.is_set()

    connection.send(("done", function(*arguments, report=report)))


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _ending(code):
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = "; perhaps for want of memory" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with status {code}"
