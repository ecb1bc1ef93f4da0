import http.server
import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_notebook

from pqlib.cli import main

pytest.importorskip("papermill", reason="the extra `book` is not installed")
COMMANDS = ("build", "run", "status", "parameters", "check", "clean", "zip", "serve")

ROOT = Path(__file__).parents[1]
SHOWN = sorted(
    (page.name, *found)
    for page in [ROOT / "README.md", *(ROOT / "book").glob("*.md")]
    for found in re.findall(r'^make chapter NAME=(\w+) ARGS="(.*)"$', page.read_text(), re.M)
)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "_config.yml").write_text("title: a")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: notebooks/tails\n")
    cell = new_code_cell(
        "n_bits: int = 4  # bits per weight; range: 2..8", metadata={"tags": ["parameters"]}
    )
    notebook = new_notebook(cells=[cell])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "x", "language": "python"}
    nbformat.write(notebook, tmp_path / "notebooks" / "tails.ipynb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(main, ["book", *arguments])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command):
    shown = call(command, "--help")
    assert shown.exit_code == 0
    assert len(shown.output.splitlines()) > 5


def test_version():
    shown = CliRunner().invoke(main, ["--version"])
    assert shown.exit_code == 0
    assert "0.1.0" in shown.output


def test_parameters_lists_type_default_limits_and_meaning(checkout):
    shown = call("parameters", "tails").output
    for part in ("n_bits", "int", "4", "range: 2..8", "bits per weight"):
        assert part in shown


def test_status_says_why(checkout):
    assert "not executed yet" in call("status").output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "tale"), "there are tails"),
        (("run", "tails", "-p", "n_bit", "3"), "did you mean 'n_bits'"),
        (("run", "tails", "-p", "n_bits", "x"), "not of type int"),
        (("run", "tails", "-p", "n_bits", "9"), "use 2..8"),
        (("run", "tails", "-y", "{n_bits: [3]}"), "not of type int"),
        (("run", "tails", "-y", "{n_bits: "), "not YAML"),
        (("run", "tails", "-y", "[1, 2]"), "not a mapping"),
        (("run", "tails", "-b", "%%%"), "'%%%' is not base64"),
        (("run", "tails", "-b", "//79"), "'//79' is not UTF-8 text"),
        (("run", "tails", "-y", "{a: 2020-13-45}"), "'{a: 2020-13-45}' is not YAML: month"),
        (("run", "tails", "-f", "_config.yml"), "title: no such parameter"),
        (("run", "tails", "-f", "none.yml"), "'none.yml' cannot be read: No such file"),
        (("zip",), "run `pqlib book build` first"),
        (("serve",), "run `pqlib book build` first"),
    ],
)
def test_a_mistake_is_answered_in_one_line(checkout, arguments, says):
    shown = call(*arguments)
    assert shown.exit_code != 0
    assert says in shown.output
    assert "Traceback" not in shown.output
    assert not (checkout / "_build").exists()


def test_check_refuses_outputs(checkout):
    assert call("check").exit_code == 0
    path = checkout / "notebooks" / "tails.ipynb"
    raw = json.loads(path.read_text())
    raw["cells"][0]["execution_count"] = 1
    path.write_text(json.dumps(raw))
    shown = call("check")
    assert shown.exit_code == 1
    assert "tails" in shown.output


def test_clean_removes_what_was_built_and_nothing_else(checkout):
    for folder in ("_build", "runs"):  # the latter may hold the trainings of nights
        (checkout / folder / "x").mkdir(parents=True)
    assert call("clean").exit_code == 0
    left = sorted(p.name for p in checkout.iterdir())
    assert left == ["_config.yml", "_toc.yml", "notebooks", "runs"]


def test_a_port_in_use_is_named(checkout):
    (checkout / "_build" / "html").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        shown = call("serve", "--port", str(port))
    assert shown.exit_code == 1 and f"port {port}: Address already in use" in shown.output


def test_ctrl_c_ends_serving_without_an_error(checkout, monkeypatch):
    (checkout / "_build" / "html").mkdir(parents=True)

    def interrupted(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(http.server.ThreadingHTTPServer, "serve_forever", interrupted)
    shown = call("serve", "--port", "0")
    assert shown.exit_code == 0 and "Ctrl-C ends" in shown.output


def test_a_slip_in_the_table_of_contents_is_answered(checkout):
    (checkout / "_toc.yml").write_text("format: [jb-book\n")
    shown = call("status")
    assert shown.exit_code == 1 and "_toc.yml" in shown.output and "Traceback" not in shown.output


@pytest.mark.parametrize("page", ["README.md", "book/preface.md", "pqlib/cli.py"])
def test_everyone_is_told_to_install_the_same(page):
    extras = re.compile(r'-e "(\.\[.*?\])"')
    wanted = extras.search((ROOT / "Makefile").read_text())[1]
    assert set(extras.findall((ROOT / page).read_text())) == {wanted}


def test_it_starts_where_there_is_no_fcntl():
    """As on Windows; no command is run there."""
    script = (
        "import sys; sys.modules['fcntl'] = None; import pqlib.cli, pqlib.book.build\n"
        "from pqlib import claims; print(claims.fcntl)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "None"), done.stderr


@pytest.mark.parametrize(("page", "name", "arguments"), SHOWN)
def test_what_a_page_shows_is_accepted(monkeypatch, page, name, arguments):
    """All but the run itself: the options, the chapter, its parameters and their ranges."""
    from pqlib.book import build, parameters

    def checked(book, name, texts, values):
        return parameters.check_overrides(book.chapter(name).parameters, texts, values)

    monkeypatch.setattr(build, "run_chapter", checked)
    monkeypatch.chdir(ROOT)
    shown = call("run", name, *shlex.split(arguments))
    assert shown.exit_code == 0 and shown.output.strip() != "{}", shown.output
