"""Runs made again, beside what they were."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from pqlib.cli import main
from pqlib.experiments.finetune_config import FineTune
from pqlib.experiments.finetune_record import described
from pqlib.experiments.ledger import Ledger
from pqlib.experiments.table1 import CONFIG
from pqlib.table1_again import compare
from pqlib.training.settings import Settings

N_IMAGES = 400


def add(folder, method, n_bits, right, *, validation=50.0, rate=0.01, fingerprint="a", **fields):
    """A run that has the first ``right`` of 400 test images right."""
    settings = Settings(4, 64, rate)
    baseline = "base" if method != "none" else None
    config = FineTune("resnet18", "digits", settings, method, n_bits, baseline)
    record = described(config, f"pqlib run {method}") | {
        "status": "done", "reason": "", "task": "classification", "metric": "accuracy",
        "value": right / 4, "validation_value": validation, "fp_value": 98.0,
        "n_test": N_IMAGES, "fingerprint": fingerprint,
    } | fields  # fmt: skip
    Ledger(folder, CONFIG).add(config.hash, record)
    (folder / config.hash).mkdir(exist_ok=True)
    np.savez(folder / config.hash / "per_image.npz", test=np.arange(N_IMAGES) < right)
    return config.hash


@pytest.fixture
def folders(tmp_path):
    """Of a baseline, two rates of one cell, and a cell that was not made again."""
    first, again = tmp_path / "first", tmp_path / "again"
    add(first, "none", None, 392)
    add(first, "lsq", 4, 380, validation=90.0, rate=0.01)
    add(first, "lsq", 4, 396, validation=80.0, rate=0.03)
    add(first, "prune", 4, 300)
    add(again, "none", None, 392, hardware="another")
    add(again, "lsq", 4, 380, validation=70.0, rate=0.01, fingerprint="b")
    add(again, "lsq", 4, 390, validation=80.0, rate=0.03, fingerprint="b", fp_value=97.0)
    return first, again


def test_runs_of_both_folders_side_by_side(folders):
    told = []
    table = compare(*folders, n_draws=200, on_row=told.append)
    assert table["method"].tolist() == ["none", "lsq", "lsq"] and len(told) == 3
    baseline, *cells = (row for _, row in table.iterrows())
    assert baseline["same_bits"] and baseline["difference"] == baseline["low"] == 0
    assert baseline["hardware"] != baseline["hardware_again"] == "another"
    by_rate = {row["learning_rate"]: row for row in cells}
    same, other = by_rate[0.01], by_rate[0.03]
    assert not same["same_bits"] and same["difference"] == 0
    assert (other["value"], other["value_again"], other["difference"]) == (99.0, 97.5, -1.5)
    assert other["low"] < -1.5 < other["high"] < 0
    assert (other["fp_value"], other["fp_value_again"]) == (98.0, 97.0)
    assert [same["chosen"], same["chosen_again"]] == [True, False]  # by validation images
    assert [other["chosen"], other["chosen_again"]] == [False, True]


def test_the_interval_is_that_of_the_images(folders):
    first, again = folders
    row = compare(first, again, n_draws=500, seed=3).query("learning_rate == 0.03").iloc[0]
    rng = np.random.default_rng(3)
    draws = []
    for _ in range(500):
        draws.append(rng.integers(0, N_IMAGES, N_IMAGES))
        rng.integers(0, 1, 1)  # of the seeds, of which there is one
    gone = (np.arange(N_IMAGES) >= 390) & (np.arange(N_IMAGES) < 396)
    expected = np.quantile([-100 * gone[draw].mean() for draw in draws], [0.025, 0.975])
    assert np.allclose([row["low"], row["high"]], expected)


def test_without_the_images_there_is_no_interval(folders):
    first, again = folders
    for per_image in again.glob("*/per_image.npz"):
        per_image.unlink()
    table = compare(first, again)
    assert table["low"].isna().all() and table["difference"].notna().all()


def test_unfinished_runs_are_left_out(folders):
    first, again = folders
    key = add(again, "prune", 4, 300, status="failed")
    assert key not in set(compare(first, again)["hash"])
    path = next(p for p in again.glob("*.json") if key in p.read_text("utf-8"))
    entry = json.loads(path.read_text("utf-8"))
    entry["record"]["status"] = "done"
    path.write_text(json.dumps(entry), "utf-8")
    assert key in set(compare(first, again)["hash"])


def test_folders_that_cannot_be_compared(folders, tmp_path):
    first, again = folders
    with pytest.raises(FileNotFoundError, match="holds no sweep; name the --folder"):
        compare(first, tmp_path)
    shutil.rmtree(again)
    add(again, "prune", 8, 300)
    with pytest.raises(ValueError, match="no finished run in common; make one of FOLDER's again"):
        compare(first, again)
    with pytest.raises(ValueError, match="n_draws must be"):
        compare(first, again, n_draws=1)


def test_the_command(folders, tmp_path):
    first, again = map(str, folders)
    done = CliRunner().invoke(main, ["run", "compare", first, again, "--n-draws", "100"])
    assert done.exit_code == 0 and "table in" in done.output
    assert "resnet18 uncompressed, rate 0.01: 98.0 and again 98.0, +0.0" in done.output
    assert "rate 0.03: 99.0 and again 97.5, -1.5 (-" in done.output
    assert done.output.count("other bits") == 2 and done.output.count("the same bits") == 1
    table = pd.read_csv(folders[1] / "compare.csv")
    assert len(table) == 3 and table["hash"].is_unique
    failed = CliRunner().invoke(main, ["run", "compare", first, str(tmp_path)])
    assert failed.exit_code == 1 and "holds no sweep" in failed.output
    assert "Traceback" not in failed.output
