"""Run chapters through papermill, in parallel, and keep what succeeds."""

import json
import logging
import multiprocessing
import os
import queue
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import papermill
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pqlib.book.chapters import Book, Chapter
from pqlib.book.fingerprint import digest, fingerprint

log = logging.getLogger(__name__)


class BuildError(RuntimeError):
    """A chapter or the rendering failed; the message says where and why."""


@dataclass(frozen=True)
class Run:
    """One execution of a chapter.

    Attributes
    ----------
    book : Book
    chapter : Chapter
    overrides : dict
        Parameters that differ from the defaults.
    limited : bool, default True
        End a cell that passes the chapter's ``cell_timeout_s``.
    """

    book: Book
    chapter: Chapter
    overrides: Mapping[str, Any]
    limited: bool = True

    @property
    def output(self) -> Path:
        """The executed notebook; its record lies beside it with the suffix ``.json``."""
        slot = digest(json.dumps(dict(self.overrides), sort_keys=True))
        return self.book.root / "_build" / "cache" / self.chapter.name / f"{slot}.ipynb"

    def record(self) -> dict[str, Any]:
        """Return what was noted when the result was made; empty when there is no result."""
        path = self.output.with_suffix(".json")
        return json.loads(path.read_text("utf-8")) if path.is_file() else {}

    def stale(self) -> list[str]:
        """Return why the result cannot be used, a phrase per change; empty when it can."""
        old = self.record().get("fingerprint")
        if not old or not self.output.is_file():
            return ["not executed yet"]
        new = fingerprint(self.chapter, self.overrides, self.book.root)
        reasons = []
        for part, now in new.items():
            before = old[part]
            for name in sorted({*before, *now}):
                if before.get(name) != now.get(name):
                    versions = f"{before.get(name, 'absent')} -> {now.get(name, 'absent')}"
                    reasons.append(f"{name} {versions if part == 'versions' else 'changed'}")
        return reasons


def execute(runs: Sequence[Run], jobs: int) -> None:
    """Execute `runs`, `jobs` at a time, each in a process of its own.

    Parameters
    ----------
    runs : sequence of Run
        What to execute.
    jobs : int
        How many at a time.

    Raises
    ------
    BuildError
        If a cell raises, a kernel dies or a cell passes its limit. The other chapters are
        finished first; nothing is kept of those that failed.
    """
    context = multiprocessing.get_context("spawn")
    events, waiting, alive, failures = context.Queue(), list(enumerate(runs)), {}, {}
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as bars:
        tasks = [bars.add_task(r.chapter.name, total=len(r.chapter.notebook.cells)) for r in runs]
        try:
            while waiting or alive:
                while waiting and len(alive) < jobs:
                    number, run = waiting.pop(0)
                    alive[number] = context.Process(target=_work, args=(number, run, events))
                    alive[number].start()
                # of what has ended by now, all events are there to be read
                ended = [n for n, process in alive.items() if not process.is_alive()]
                try:
                    number, cells, failure = events.get(timeout=0.2)
                    bars.update(tasks[number], completed=cells)
                    if failure:
                        failures[number] = failure
                except queue.Empty:
                    for number in ended:
                        name = runs[number].chapter.name
                        if alive.pop(number).exitcode:
                            failures.setdefault(number, f"chapter {name}: its process died")
                        if not console.is_terminal:
                            log.info("%s %s", "failed" if number in failures else "executed", name)
        finally:
            for process in alive.values():
                process.terminate()
            for process in alive.values():
                process.join()
    if failures:
        raise BuildError("\n\n".join(failures.values()))


class _TellingEngine(NBClientEngine):
    """papermill's engine, telling which cell it is at."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, at_cell=None, **kwargs):
        start = nb_man.cell_start
        nb_man.cell_start = lambda cell, index: (at_cell(index, cell), start(cell, index))
        return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)


def _work(number: int, run: Run, events: Any) -> None:
    """Execute one chapter; in a process of its own because papermill changes the folder."""
    # Ctrl-C is the parent's: it ends this process by an exit, which ends the kernel too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # Chapters run beside each other: threads that spin while they wait take cores from the rest.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # asyncio speaks up for a cell that is given up on an exit: nobody awaits its end any more.
    for name in ("papermill", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    papermill_engines.register("telling", _TellingEngine)
    place = {"number": 0, "source": ""}

    def at_cell(index: int, cell: Any) -> None:
        # Counted as in the author's notebook, where the injected cell is not.
        place.update(number=index + 1 - bool(run.overrides), source=cell.source)
        events.put((number, index, None))

    partial = run.output.with_name(f".{os.getpid()}.ipynb")
    partial.parent.mkdir(parents=True, exist_ok=True)
    start, made_of = time.monotonic(), fingerprint(run.chapter, run.overrides, run.book.root)
    try:
        notebook = papermill.execute_notebook(
            run.chapter.path,
            partial,
            dict(run.overrides),
            engine_name="telling",
            request_save_on_cell_execute=False,
            progress_bar=False,
            cwd=run.book.root,
            execution_timeout=run.chapter.timeout if run.limited else None,
            at_cell=at_cell,
            extra_arguments=["--log-level=50"],  # no word on each kernel's transport
        )
        for index, cell in enumerate(notebook.cells):
            cell.metadata.pop("papermill", None)
            if cell.cell_type == "code" and cell.source.strip() and not cell.execution_count:
                at_cell(index, cell)  # papermill takes sys.exit() in a cell for success
                raise RuntimeError("the cell was not executed: an earlier one ended the kernel")
        notebook.metadata.pop("papermill", None)
        seconds = round(time.monotonic() - start, 1)
        record = {"fingerprint": made_of, "seconds": seconds, "date": str(datetime.now(UTC).date())}
        run.output.with_suffix(".json").unlink(missing_ok=True)
        nbformat.write(notebook, partial)
        os.replace(partial, run.output)
        partial.write_text(json.dumps(record, indent=1), "utf-8")
        os.replace(partial, run.output.with_suffix(".json"))
        events.put((number, len(run.chapter.notebook.cells), None))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, PapermillExecutionError):
            whole = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
            reason = f"{error.ename}: {error.evalue}\n\n{whole}"
        elif isinstance(error, TimeoutError):
            reason = f"It ran past {run.chapter.timeout} s (cell_timeout_s in the metadata)."
        source = place["source"].replace("\n", "\n    ")
        values = f" with {dict(run.overrides)}" if run.overrides else ""
        where = f"chapter {run.chapter.name}{values}, cell {place['number']}"
        events.put((number, 0, f"{where}:\n\n    {source}\n\n{reason}"))
    finally:
        partial.unlink(missing_ok=True)
