"""Lay the executed chapters and the pages round them out for Jupyter Book."""

import re
import shutil
from ast import literal_eval
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat.v4 import new_markdown_cell

from pqlib.book.execute import BuildError, Run

STATUSES = ("reproduced", "computed", "corrected", "partly", "differs", "not in this edition")
_MARKER = "<!-- paper-versus-book -->"
_COMPUTED = re.compile(r"\{computed\}`(\w+):(\w+)`")  # {computed}`chapter:name`, in a page of prose


def stage(root: Path, runs: Sequence[Run], profile: str, site: Path, toc: Any) -> None:
    """Write a source tree that ``jupyter-book build`` renders as it stands.

    Parameters
    ----------
    root : Path
        The checkout.
    runs : sequence of Run
        Executed chapters.
    profile : str
        Named in the stamp of each chapter.
    site : Path
        Replaced. Files keep their relative paths, or launch buttons would point nowhere.
    toc : dict
        The table of contents.
    """
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(root / "book", site / "book")
    (site / "notebooks").mkdir()
    config = yaml.safe_load((root / "_config.yml").read_text("utf-8"))
    config["execute"] = {"execute_notebooks": "off"}
    if config["repository"]["url"]:
        buttons = ("use_repository_button", "use_edit_page_button", "use_issues_button")
        config["html"] |= dict.fromkeys(buttons, True)
        config["launch_buttons"] = {"colab_url": "https://colab.research.google.com"}
    for name, content in (("_config.yml", config), ("_toc.yml", toc)):
        (site / name).write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    texts = {}
    for run in runs:
        notebook = nbformat.read(run.output, as_version=4)
        texts[run.chapter.name] = _glued(notebook)
        _carry_tags(notebook)
        _carry_findings(run.chapter.name, notebook)
        if run.overrides:
            _insert_banner(run, profile, notebook)
        notebook.cells.append(new_markdown_cell(_stamp(run, profile), id="stamp"))
        nbformat.write(notebook, site / "notebooks" / f"{run.chapter.name}.ipynb")
    for page in sorted((site / "book").glob("*.md")):
        if f"book/{page.stem}'" not in str(toc):
            continue
        text = quoted(page.read_text("utf-8"), texts, page.name)
        if page.stem == "paper_versus_book":
            parts = yaml.safe_load(page.with_suffix(".yml").read_text("utf-8"))
            text = text.replace(_MARKER, comparison(parts, texts))
        page.write_text(text, "utf-8")


def quoted(text: str, texts: Mapping[str, Mapping[str, str]], page: str) -> str:
    """Put what a chapter glued in the place of each ``{computed}`chapter:name` `` of a page.

    Parameters
    ----------
    text : str
        Of the page.
    texts : dict of str to dict
        What each chapter glued, by chapter and name.
    page : str
        Named if a value is missing.
    """

    def value(found: re.Match[str]) -> str:
        chapter, name = found.groups()
        if name not in texts.get(chapter, {}):
            raise BuildError(f"{page}: chapter {chapter} glues no {name}; see {found[0]}")
        return texts[chapter][name]

    return _COMPUTED.sub(value, text)


def comparison(parts: Mapping[str, Sequence[Mapping[str, Any]]], texts: Mapping[str, Any]) -> str:
    """Return the tables of `comparison_table`, each as wide as the page and below its heading.

    Parameters
    ----------
    parts : dict of str to sequence of dict
        Rows by heading.
    texts : dict of str to dict
        What each chapter glued, by chapter and name.
    """
    div = "::::{div} full-width pq-comparison"
    return "\n\n".join(
        f"## {heading}\n\n{div}\n{comparison_table(rows, texts)}\n::::"
        for heading, rows in parts.items()
    )


def comparison_table(rows: Sequence[Mapping[str, Any]], texts: Mapping[str, Any]) -> str:
    """Return the Markdown table of the paper's values beside the book's.

    Parameters
    ----------
    rows : sequence of dict
        Keys item, paper, ours (None, or chapter and glue), unit, command, status, note.
    texts : dict of str to dict
        What each chapter glued, by chapter and name.

    Returns
    -------
    str
        The table.

    Raises
    ------
    BuildError
        On a value that no cell glued, a status that is not one of `STATUSES`, and any but the last
        of them on a row without a value.
    """
    lines = ["| In the paper | Paper | Here | Status | Command | Note |", "|---" * 6 + "|"]
    for row in rows:
        value, ours = "not run", row.get("ours")
        where = f"paper_versus_book.yml, {row['item']}"
        if row["status"] not in STATUSES:
            raise BuildError(f"{where}: status must be of {STATUSES}, got {row['status']!r}")
        if not ours and row["status"] != STATUSES[-1]:
            raise BuildError(f"{where}: status {row['status']!r} needs a value; name what is glued")
        if ours:
            value = texts.get(ours["chapter"], {}).get(ours["glue"])
            if value is None:
                raise BuildError(f"{where}: {ours} is not glued")
            unit = row.get("unit") or ""
            value += "" if value.endswith(unit) else f" {unit}"
        command = f"`{row['command']}`" if row.get("command") else ""
        cells = (row["item"], row["paper"], value, row["status"], command, row.get("note") or "")
        lines.append("| " + " | ".join(str(c).replace("|", r"\|") for c in cells) + " |")
    return "\n".join(lines)


def _glued(notebook: Any) -> dict[str, str]:
    """Texts that the cells glued, by name."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", []) if "metadata" in o]
    glued = [o for o in outputs if "scrapbook" in o.metadata]
    mime = "application/papermill.record/text/plain"
    return {o.metadata.scrapbook.name: str(literal_eval(o.data[mime])) for o in glued}


def _carry_tags(notebook: Any) -> None:
    """Give the cell that papermill injects the tags of the parameters cell, hide-input say."""
    by_tag = {t: cell.metadata for cell in notebook.cells for t in cell.metadata.get("tags", [])}
    if "injected-parameters" in by_tag and "parameters" in by_tag:
        tags = by_tag["injected-parameters"].tags
        tags += [t for t in by_tag["parameters"].tags if t not in ("parameters", *tags)]


def _carry_findings(chapter: str, notebook: Any) -> None:
    """Write what each figure found into its alternative text and caption."""
    written = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    for number, cell in enumerate(written, 1):
        shown = cell.metadata.get("mystnb", {})
        for output in cell.get("outputs", []):
            if not any(mime.startswith("image/") for mime in output.get("data", {})):
                continue
            finding = output.metadata.get("pqlib", {})
            if "alt" in finding:
                shown["image"] = shown.get("image", {}) | {"alt": finding["alt"]}
                figure = {key: finding[key] for key in ("caption", "name") if finding.get(key)}
                shown |= {"figure": figure} if figure else {}
            if not shown.get("image", {}).get("alt"):
                raise BuildError(
                    f"chapter {chapter}, cell {number}: a figure without alternative text; end "
                    "the cell in a pqlib.findings.Finding"
                )
            cell.metadata["mystnb"] = shown


def _insert_banner(run: Run, profile: str, notebook: Any) -> None:
    """Say under the title what differs from the published page."""
    published = {name: run.chapter.parameters[name].default for name in run.overrides}
    lines = [
        "\n\n:::{admonition} Not the published page: it was run with other parameters",
        ":class: warning pq-banner",
        f"Profile `{profile}`. All numbers, figures and verdicts below belong to these values:\n",
        *(f"- `{k} = {v!r}` (published: `{published[k]!r}`)" for k, v in run.overrides.items()),
        ":::\n",
    ]
    title = re.compile(r"^# .*$", re.M)
    cell = next((c for c in notebook.cells if title.search(c.source)), None)
    if cell is None or cell.cell_type != "markdown":
        raise BuildError(f"chapter {run.chapter.name}: it has no title; begin it with `# ...`")
    cell.source = title.sub(lambda m: m[0] + "\n".join(lines), cell.source, count=1)


def _stamp(run: Run, profile: str) -> str:
    record = run.record()
    values = {p.name: p.default for p in run.chapter.parameters.values()} | dict(run.overrides)
    versions = record["fingerprint"]["versions"]
    return (
        f":::{{div}} pq-stamp\nProfile `{profile}`. Parameters: "
        + (", ".join(f"`{name} = {value!r}`" for name, value in values.items()) or "none")
        + f". pqlib {versions['pqlib']}, Python {versions['Python']}; executed in "
        f"{record['seconds']} s on {record['date']}.\n:::"
    )
