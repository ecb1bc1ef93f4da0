import json

import nbformat
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_notebook

from pqlib.cli import main

pytest.importorskip("papermill", reason="the extra `book` is not installed")
COMMANDS = ("build", "run", "status", "parameters", "check", "clean", "zip", "serve")


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
        (("run", "tails", "-b", "%%%"), "not base64"),
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
    for folder in ("_build", "runs"):
        (checkout / folder / "x").mkdir(parents=True)
    assert call("clean").exit_code == 0
    assert sorted(p.name for p in checkout.iterdir()) == ["_config.yml", "_toc.yml", "notebooks"]
