"""`pqlib run`: help, dry runs, and mistakes answered in one line."""

import dataclasses
import re
import shlex
import subprocess
import sys

import pytest
from click.testing import CliRunner

from pqlib.cli import main
from pqlib.experiments.presets import Sweep
from pqlib.experiments.rate_choice import followers
from pqlib.run_command import _sweep, table1


def call(*arguments):
    done = CliRunner().invoke(main, ["run", *map(str, arguments)])
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize("command", ["table1", "cell"])
def test_help_teaches(command):
    code, output = call(command, "--help")
    assert code == 0
    for part in ("--preset", "Table 4 on ImageNet", "pqlib run table1 --preset", "--folder"):
        assert part in output
    assert "--rates-at" in output and "2,4,8 takes 27 runs of a model and method, not 63" in output


def test_measuring_is_for_a_dry_run_alone(tmp_path):
    code, output = call("table1", "--measure", "--models", "resnet18", "--folder", tmp_path / "x")
    assert code == 2 and "--measure times a few steps for --dry-run; add that" in output
    assert not (tmp_path / "x").exists()


def test_help_lists_the_sources_of_images():
    from pqlib.training.data import FORMS

    _, output = call("table1", "--help")
    for form in re.split(", | or ", FORMS):
        assert form in output


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
        (("--bits", "2,4", "--rates-at", "2,8"), "rates_at must be among the bits (2, 4); add [8]"),
        (("--rates-at", "2,x"), "not a list of bit-widths"),
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
    from pqlib.experiments.presets import Sweep

    for config in Sweep("smoke", ("resnet18", "efficientdet"), (2, 4)).cells():
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
    from pqlib.experiments.presets import Sweep

    lsq = next(c for c in Sweep("smoke").cells() if c.method == "lsq")
    code, output = call("cell", lsq.hash, "--folder", tmp_path / "run")
    assert code == 1 and f"the baseline {lsq.baseline} is not done" in output


OPTIONS = ("--preset", "laptop", "--models", "resnet18", "--bits", "2-8", "--seeds", "0,1,2")
TRIED = (*OPTIONS, "--powers=-1,0,1", "--rates-at", "2,4,8")


def swept_by(*words):
    return _sweep(table1.make_context("table1", [*words]).params)


def ended(swept, best):
    """The records of all runs that can be named, the best of each cell at the power ``best``."""
    records = {c.hash: record(c, 1.0) for c in swept.cells()}
    return records | {c.hash: record(c, 2.0) for c, power in swept.grid() if power == best}


def record(config, validation, status="done"):
    measured = {"metric": "top1", "value": 50.0, "seconds": 1.0, "validation_value": validation}
    rate = {"learning_rate": config.settings.learning_rate}
    return {"hash": config.hash, "status": status, "reason": "x"} | rate | measured


def test_rates_at_some_budgets_take_fewer_runs():
    swept, plain = swept_by(*TRIED), swept_by(*OPTIONS, "--powers=-1,0,1", "--rates-at", "all")
    assert swept.rates_at == (2, 4, 8) and plain == dataclasses.replace(swept, rates_at=None)
    n_baselines = 3
    assert len(swept.cells()) + len(followers(swept)) == n_baselines + 2 * 27
    assert len(plain.cells()) == n_baselines + 2 * 63


def test_rates_are_tried_at_the_presets_budgets():
    assert swept_by(*OPTIONS).rates_at == (2, 4, 8)
    assert swept_by("--preset", "laptop", "--bits", "4,5,8").rates_at == (4, 8)
    assert swept_by("--preset", "laptop", "--bits", "3,5").rates_at is None
    assert all(swept_by("--preset", name).rates_at is None for name in ("smoke", "gpu", "paper"))


def _cell(config):
    """All but the learning rate."""
    settings = dataclasses.replace(config.settings, learning_rate=1.0)
    return dataclasses.replace(config, settings=settings)


@pytest.mark.parametrize("best", [-1, 0, 1])
@pytest.mark.parametrize(
    "more", [(), ("--size", "64", "--keep-first-last", "--data", "cifar10:a b", "--epochs", "3")]
)
def test_every_command_makes_its_row_again(best, more):
    from pqlib.experiments.table1 import command_of

    swept = swept_by(*TRIED, "--methods", "lsq,post_training_prune", *more)
    for config in swept.cells():
        program, run, name, *words = shlex.split(command_of(swept, config))
        assert (program, run, name) == ("pqlib", "run", "table1") and "--rates-at" not in words
        made = swept_by(*words)
        assert config in made.cells() and followers(made) == []
        assert {_cell(c) for c in made.cells() if c.method != "none"} <= {_cell(config)}
    for follower in followers(swept, ended(swept, best)):
        words = shlex.split(command_of(swept, follower.config, power=follower.power))[3:]
        baseline, config = swept_by(*words).cells()
        assert config == follower.config and config.hash == follower.config.hash
        assert baseline in swept.cells() and config.baseline == baseline.hash


def test_no_command_is_better_than_one_that_makes_another_row():
    from pqlib.experiments.presets import Sweep
    from pqlib.experiments.table1 import command_of

    for change in ({"augment": False}, {"learning_rate": 0.1}):
        swept = Sweep(models=("resnet18",), bits=(4,), changes=change)
        assert {command_of(swept, config) for config in swept.cells()} == {""}


def test_a_dry_run_names_what_follows_once_it_is_chosen(tmp_path):
    pytest.importorskip("torchmetrics", reason="the extra `training` is not installed")
    from pqlib.experiments.ledger import Ledger
    from pqlib.experiments.table1 import CONFIG

    folder, words = tmp_path / "run", ("--models", "resnet18", "--bits", "2,4", "--methods", "lsq")
    words = (*words, "--powers=1,2", "--rates-at", "4", "--folder", folder)
    swept = swept_by(*map(str, words))
    assert swept == Sweep("smoke", ("resnet18",), (2, 4), ("lsq",), powers=(1, 2), rates_at=(4,))

    def line(output, start):
        return next(text for text in output.splitlines() if text.startswith(start)).split()

    def shown():
        done = CliRunner().invoke(main, ["run", "table1", *map(str, words), "--dry-run"])
        assert done.exit_code == 0, done.output
        return done.output

    before = shown()
    assert " ".join(line(before, "- ")[:10]) == "- resnet18 digits 32 lsq 2 chosen at 4 bits"
    assert line(before, "- ")[-2] == "do" and "4 runs, 0 of them in" in before
    hours = [float(text.split()[-1]) for text in before.splitlines()[1:5]]
    total = float(before.split(" hours for the rest")[0].split()[-1])
    assert total == pytest.approx(sum(hours), abs=0.01) and min(hours) > 0
    assert not folder.exists()
    placeholder = followers(swept)[0].config.hash
    code, output = call("cell", placeholder, *words)
    assert code == 1 and "none of these 3 runs, and 1 have no hash until" in output

    ledger, records = Ledger(folder, CONFIG), ended(swept, 2)
    (follower,) = followers(swept, records)
    for number, (key, kept) in enumerate(records.items(), 1):
        assert "chosen at 4 bits" in shown() and follower.config.hash not in shown()
        ledger.add(key, kept)
        assert f"4 runs, {number} of them in" in shown()
    assert "chosen at" not in shown()
    assert line(shown(), follower.config.hash)[4:7] == ["lsq", "2", "0.00109"]
    code, output = call("cell", placeholder, *words)
    assert code == 1 and "none of these 4 runs; repeat" in output
    ledger.add(follower.config.hash, record(follower.config, 1.0))
    assert line(shown(), follower.config.hash)[-2] == "done" and "4 runs, 4 of them" in shown()
    assert call("cell", follower.config.hash, *words)[0] == 0

    for config, _ in swept.grid():
        ledger.add(config.hash, record(config, 0, "failed"))
    after = shown()
    assert line(after, "- ")[-3:-1] == ["not", "run"] and "0.00 hours for the rest" in after
    assert "4 runs, 3 of them in" in after
