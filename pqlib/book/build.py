"""Build the book, re-run one chapter, pack the result."""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pqlib.book.chapters import Book
from pqlib.book.execute import BuildError, Run, execute
from pqlib.book.fingerprint import digest, hash_path, installed
from pqlib.book.parameters import InputError, check_overrides
from pqlib.book.stage import stage
from pqlib.claims import claim

log = logging.getLogger(__name__)


def runs_of(book: Book, profile: str) -> list[Run]:
    """Return a run per chapter of `book`, with the parameters that `profile` sets.

    Profile full, which may take hours, has no limit on a cell.
    """
    limited = profile != "full"
    return [Run(book, chapter, chapter.overrides(profile), limited) for chapter in book.chapters()]


def build_book(book: Book, profile: str = "book", jobs: int = 2) -> Path:
    """Execute what is stale, stage, render; the last good book stays until the new one stands.

    Parameters
    ----------
    book : Book
        The checkout.
    profile : {"book", "smoke", "full"}
        Which parameters the chapters take.
    jobs : int, default 2
        Chapters executed at a time.

    Returns
    -------
    Path
        The start page.
    """
    runs, stale = runs_of(book, profile), []
    with _alone(book.output(profile)):
        for run in runs:
            if reasons := run.stale():
                stale.append(run)
                log.info("%s: to execute (%s)", run.chapter.name, ", ".join(reasons[:3]))
        execute(stale, jobs)
        site, html = book.output(profile) / "site", book.output(profile) / "html"
        stage(book.root, runs, profile, site, book.toc)
        state = {
            "profile": profile,
            "overrides": {run.chapter.name: dict(run.overrides) for run in runs if run.overrides},
            "made_of": digest(hash_path(site), installed(), hash_path(Path(__file__).parents[1])),
        }
        if _state(html) == state:
            log.info("up to date")
        else:
            log.info("render %d pages", len(book.pages))
            _render(site, html, state)
    return html / "index.html"


def run_chapter(
    book: Book,
    name: str,
    texts: Sequence[tuple[str, str]] = (),
    values: Mapping[str, Any] | None = None,
) -> Path:
    """Execute one chapter with other parameters into ``runs/``, never over the book.

    Parameters
    ----------
    book : Book
        The checkout.
    name : str
        The chapter.
    texts : sequence of (name, text)
        Values to be read by the declared types.
    values : dict, optional
        Typed values.

    Returns
    -------
    Path
        The page; the executed notebook lies beside its folder ``html``.
    """
    chapter = book.chapter(name)
    overrides = check_overrides(chapter.parameters, texts, values)
    run = Run(book, chapter, overrides, limited=not overrides)
    words = "-".join(f"{key}-{value}" for key, value in run.overrides.items()) or "defaults"
    words = "".join(c if c.isalnum() or c in ".-_" else "_" for c in words)
    short = words if len(words) <= 80 else f"{words[:60]}-{digest(words)}"
    folder = book.root / "runs" / f"{name}-{short}"
    toc = {"format": "jb-book", "root": f"notebooks/{name}"}
    if "book/references" in book.pages:
        toc["chapters"] = [{"file": "book/references"}]
    with _alone(folder), tempfile.TemporaryDirectory() as temporary:
        if run.stale():
            execute([run], jobs=1)
        site = Path(temporary) / "site"
        stage(book.root, [run], "run", site, toc)
        # References to pages that are not here become plain text: warnings are no errors.
        _render(site, folder / "html", {"profile": "run"}, strict=False)
        shutil.copy(run.output, folder / f"{name}.ipynb")
    return folder / "html" / "notebooks" / f"{name}.html"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Build into `folder` as the only process; a second one is refused."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".running").open("a") as running:
        try:
            claim(running)
        except OSError:
            raise InputError(
                f"another build is at work on {folder}; wait for it, or end it"
            ) from None
        yield


def _render(site: Path, html: Path, state: Mapping[str, Any], strict: bool = True) -> None:
    """Run Jupyter Book on `site`, and put the result in the place of `html` by a rename."""
    # Each time a fresh folder: Sphinx would take over what another builder left in .doctrees.
    work, old = html.with_name(".work"), html.with_name(".old")
    built = work / "_build" / "html"
    call = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build"]
    call += [str(site), "--path-output", str(work), "--keep-going", "-q"]
    call += ["-W"] if strict else []
    shutil.rmtree(work, ignore_errors=True)
    try:
        # UTF-8, because Jupyter Book reads its settings in the encoding of the machine.
        utf8 = os.environ | {"PYTHONUTF8": "1"}
        done = subprocess.run(call, capture_output=True, encoding="utf-8", env=utf8)
        if done.returncode or not (built / "index.html").is_file():
            raise BuildError(f"Jupyter Book failed on {site}:\n{done.stderr or done.stdout}")
        (built / "build.json").write_text(json.dumps(state, indent=1), "utf-8")
        shutil.rmtree(old, ignore_errors=True)
        if html.exists():
            html.rename(old)
        built.rename(html)
    finally:
        if old.exists() and not html.exists():
            old.rename(html)
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def pack(book: Book, profile: str = "book") -> Path:
    """Pack a rendered book, which needs no network; what is not publishable is refused.

    Parameters
    ----------
    book : Book
        The checkout.
    profile : str, default "book"
        Which rendered book.

    Returns
    -------
    Path
        ``_build/pqlib-book.zip``.
    """
    html = book.output(profile) / "html"
    state = _state(html)
    if state is None:
        raise InputError(f"there is no {profile} book; run `pqlib book build` first")
    if state["profile"] == "smoke" or state["overrides"]:
        raise InputError(
            f"a book of profile {state['profile']} with parameters {state['overrides']} is not "
            "published; build profile book, with defaults only"
        )
    target = book.root / "_build" / "pqlib-book.zip"
    partial = target.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(p for p in html.rglob("*") if p.is_file()):
            archive.write(path, Path("pqlib-book") / path.relative_to(html))
    return partial.replace(target)


def _state(html: Path) -> dict[str, Any] | None:
    path = html / "build.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else None
