import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from fixture_book import chapter

from pqlib.book.build import build_book, run_chapter, runs_of
from pqlib.book.chapters import Book
from pqlib.book.execute import BuildError, Run, execute
from pqlib.book.parameters import InputError
from pqlib.claims import claim

FAILING = {
    "raises": ("before = 1\nraise RuntimeError('the sky fell')", "RuntimeError: the sky fell"),
    "dies": ("import os\nos._exit(3)", "DeadKernelError"),
    "too slow": ("import time\ntime.sleep(60)", "ran past 2 s"),
    "leaves": ("import sys\nsys.exit()", "an earlier one ended"),
}


def rewrite(book, notebook):
    notebook.metadata.pqlib.cell_timeout_s = 2
    nbformat.write(notebook, book.root / "notebooks" / "second.ipynb")


@pytest.mark.parametrize("how", FAILING)
def test_a_failing_cell_fails_the_build_and_leaves_the_last_good_book(built, how):
    source, says = FAILING[how]
    good = (built.root / "notebooks" / "second.ipynb").read_bytes()
    html = built.output("smoke") / "html"
    pages = {path: path.stat().st_mtime_ns for path in html.rglob("*.html")}
    cached = sorted(path.name for path in (built.root / "_build" / "cache").rglob("*"))
    rewrite(built, chapter("1 + 1", source, "2 + 2"))
    try:
        with pytest.raises(BuildError) as caught:
            build_book(built, "smoke")
    finally:
        (built.root / "notebooks" / "second.ipynb").write_bytes(good)
    message = str(caught.value)
    assert f"chapter second with {{'n_bits': 3}}, cell {5 if how == 'leaves' else 4}:" in message
    assert says in message
    assert ("2 + 2" if how == "leaves" else source.splitlines()[0]) in message
    assert pages == {path: path.stat().st_mtime_ns for path in html.rglob("*.html")}
    assert cached == sorted(path.name for path in (built.root / "_build" / "cache").rglob("*"))


def test_what_a_reader_or_profile_full_asks_for_may_take_its_time(small_book):
    rewrite(small_book, chapter("import time\ntime.sleep(2.5)"))
    assert [run.limited for run in runs_of(small_book, "full")] == [False, False]
    assert [run.limited for run in runs_of(small_book, "smoke")] == [True, True]
    run_chapter(small_book, "second", [("n_bits", "5")])
    with pytest.raises(BuildError, match="ran past 2 s"):
        run_chapter(small_book, "second")


def test_a_second_build_is_refused_while_one_is_at_work(small_book):
    folder = small_book.output("smoke")
    folder.mkdir(parents=True)
    with (folder / ".running").open("a") as running:
        claim(running)
        with pytest.raises(
            InputError, match=f"another build is at work on {re.escape(str(folder))}"
        ):
            build_book(small_book, "smoke")


def test_the_command_reports_the_cell_and_exits_non_zero(small_book):
    rewrite(small_book, chapter("raise RuntimeError('the sky fell')"))
    done = subprocess.run(
        [sys.executable, "-m", "pqlib", "book", "run", "second"],
        cwd=small_book.root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "chapter second" in done.stderr and "cell 3:" in done.stderr
    assert "the sky fell" in done.stderr


def test_a_result_is_reused_until_something_changes(built):
    runs = runs_of(built, "smoke")
    assert [run.stale() for run in runs] == [[], []]
    edited = Run(built, built.chapter("first"), {"n_bits": 3})
    edited.chapter.notebook.cells[-1].source += "\n# edited"
    assert edited.stale() == ["first changed"]
    assert Run(built, built.chapter("first"), {"n_bits": 5}).stale() == ["not executed yet"]


def test_the_other_chapters_are_finished_when_one_fails(small_book):
    rewrite(small_book, chapter("raise RuntimeError"))
    runs = runs_of(small_book, "smoke")
    with pytest.raises(BuildError, match="chapter second"):
        execute(runs, jobs=2)
    assert runs[0].stale() == []
    assert runs[1].stale() == ["not executed yet"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no POSIX signals")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_kernels_too(sent, small_book):
    note = small_book.root / "kernel"
    slow = f"import os, pathlib, time\npathlib.Path({str(note)!r}).write_text(str(os.getpid()))"
    notebook = chapter(f"{slow}\ntime.sleep(300)")
    notebook.metadata.pqlib.cell_timeout_s = 300
    nbformat.write(notebook, small_book.root / "notebooks" / "second.ipynb")
    command = [sys.executable, "-m", "pqlib", "book", "run", "second"]
    process = subprocess.Popen(
        command,
        cwd=small_book.root,
        stderr=subprocess.PIPE,
        text=True,
        # a test run in the background of a shell ignores interrupts, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_until(note.is_file)
        process.send_signal(sent)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode != 0
    assert "interrupted" in err and "Traceback" not in err
    wait_until(lambda: not alive(int(note.read_text())))
    assert not list((small_book.root / "_build").rglob("*.ipynb"))


def wait_until(holds, seconds=30):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.is_dir() and Path("/proc/self").exists():
        return stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_book_is_found_from_below(small_book, tmp_path):
    assert Book.find(small_book.root / "notebooks") == small_book
    assert (Book.find(tmp_path).root / "_toc.yml").is_file()


def test_a_syntax_error_names_chapter_cell_and_line(small_book):
    nbformat.write(chapter("1 +"), small_book.root / "notebooks" / "second.ipynb")
    with pytest.raises(InputError, match=r"chapter second, cell \d+, line 1: invalid syntax: 1 \+"):
        run_chapter(small_book, "second")


def test_a_damaged_notebook_is_named(small_book):
    (small_book.root / "notebooks" / "second.ipynb").write_text('{"cells": [')
    with pytest.raises(InputError, match=r"second\.ipynb is not a readable notebook"):
        run_chapter(small_book, "second")
