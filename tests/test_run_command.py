"""`pqlib run`: help, dry runs, and mistakes answered in one line."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from pqlib.cli import main


def call(*arguments):
    done = CliRunner().invoke(main, ["run", *map(str, arguments)])
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize("command", ["table1", "cell"])
def test_help_teaches(command):
    code, output = call(command, "--help")
    assert code == 0
    for part in ("--preset", "Table 4 on ImageNet", "pqlib run table1 --preset", "--folder"):
        assert part in output


def test_help_is_light():
    code = (
        "import sys; from click.testing import CliRunner; from pqlib.cli import main; "
        "CliRunner().invoke(main, ['run', 'table1', '--help']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--models", "resnet19"), "'resnet19' is unknown; take one of resnet18"),
        (("--methods", "qat"), "methods must be one of none"),
        (("--bits", "1"), "different bit-widths from 2 to 16"),
        (("--seeds", "0,x"), "not a list of whole numbers"),
        (("--seeds", "0,0"), "seeds must be one or several, all different"),
        (("--size", "32y32"), "not a size such as 64"),
        (("--preset", "tiny"), "'tiny' is not one of"),
        (("--data", "audio=x"), "data must be one of classification"),
        (("--epochs", "-1"), "epochs must be"),
    ],
)
def test_mistakes(tmp_path, options, text):
    code, output = call("table1", "--folder", tmp_path / "run", *options)
    assert code in (1, 2) and text in output, output
    assert "Traceback" not in output and not (tmp_path / "run").exists()


def test_a_dry_run_prints_every_run_and_writes_nothing(tmp_path):
    pytest.importorskip("torchmetrics", reason="the extra `training` is not installed")
    folder = tmp_path / "run"
    options = ("--models", "resnet18,efficientdet", "--bits", "2,4", "--folder", folder)
    code, output = call("table1", "--preset", "smoke", *options, "--dry-run")
    assert code == 0, output
    from pqlib.experiments.presets import cells

    for config in cells("smoke", ("resnet18", "efficientdet"), (2, 4)):
        assert config.hash in output
    assert "10 runs, 0 of them in" in output and "hours for the rest; with" in output
    assert not folder.exists()


def test_a_dry_run_says_what_is_missing(tmp_path):
    pytest.importorskip("torchmetrics", reason="the extra `training` is not installed")
    options = ("--preset", "laptop", "--models", "resnet18", "--bits", "4", "--powers", "0")
    code, output = call("table1", *options, "--data", f"folder:{tmp_path / 'no'}", "--dry-run")
    assert code == 0 and "FileNotFoundError" in output and "3 runs of unknown length" in output


def test_a_cell_is_one_of_the_runs(tmp_path):
    code, output = call("cell", "abc", "--folder", tmp_path / "run")
    assert code == 1 and "'abc' is none of these 120 runs" in output
    from pqlib.experiments.presets import cells

    lsq = next(c for c in cells("smoke") if c.method == "lsq")
    code, output = call("cell", lsq.hash, "--folder", tmp_path / "run")
    assert code == 1 and f"the baseline {lsq.baseline} is not done" in output
