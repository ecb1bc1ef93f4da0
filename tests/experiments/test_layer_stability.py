"""`pqlib layers stability`: the same channels on other images, interrupted anywhere."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from pqlib.cli import main  # noqa: E402
from pqlib.experiments import layer_bounds, layer_run, layer_stability  # noqa: E402
from pqlib.experiments.layer_config import LayerBounds  # noqa: E402
from pqlib.experiments.layer_stability import COLUMNS, LayerStability, draws_of  # noqa: E402
from pqlib.experiments.layer_verdicts import LOSSLESS, PRUNING, QUANTIZATION  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TOY = """
import numpy as np
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1))

def small():
    def transform(image):
        values = torch.from_numpy(np.array(image.resize((12, 12)))).permute(2, 0, 1)
        return values / 128.0 - 1.0
    return transform
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The folder of module ``redrawn_toy``, its checkpoint and six photographs."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "redrawn_toy.py").write_text(TOY)
    space = {}
    exec(TOY, space)
    torch.manual_seed(3)
    torch.save(space["net"]().state_dict(), folder / "net.pth")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        rough = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(rough).resize((24, 18)).save(folder / "photos" / f"{i}.png")
    return folder


@pytest.fixture(autouse=True)
def _here(package, monkeypatch):
    monkeypatch.syspath_prepend(package)


def config_of(package, **changes):
    options = {
        "model": "python:redrawn_toy:net", "weights": str(package / "net.pth"), "n_images": 3,
        "images": str(package / "photos"), "transform": "python:redrawn_toy:small",
        "layers": ("2",), "bits": (3,), "n_channels": 2, "max_nodes": 10**6,
    }  # fmt: skip
    return LayerBounds(**options | changes)


def arguments(package, folder, *more):
    return [
        "layers", "stability", "python:redrawn_toy:net", "--weights", str(package / "net.pth"),
        "--images", str(package / "photos"), "--transform", "python:redrawn_toy:small",
        "--n-images", "3", "--layers", "2", "--bits", "3", "--n-channels", "2", "--n-subsets",
        "2", "--max-nodes", "1000000", "--photographs", "--jobs", "1", "--folder", str(folder),
        *more,
    ]  # fmt: skip


def invoke(package, folder, *more):
    done = CliRunner().invoke(main, arguments(package, folder, *more))
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture(scope="module")
def whole(package):
    folder = package / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(package)
        code, output = invoke(package, folder)
    assert code == 0, output
    return folder, output


def read(folder):
    return pd.read_csv(folder / "stability.csv", dtype={"subset": str, "chunk": str})


def test_the_image_seed_draws_images_and_nothing_else(package):
    captured = {}
    for seed in (None, 0, 1):
        config = config_of(package, image_seed=seed)
        layers = layer_bounds.capture(config)
        captured[seed] = [u for layer in layers for u in layer_bounds.units_of(layer, config)]
    for own, same, other in zip(*captured.values(), strict=True):
        assert own.channels == same.channels == other.channels and own.scales == other.scales
        np.testing.assert_array_equal(own.weights, other.weights)
        np.testing.assert_array_equal(own.grams, same.grams)
        assert not np.allclose(own.grams, other.grams)


def test_a_run_without_an_image_seed_has_the_folder_it_had(package):
    stated = LayerBounds().as_json()
    assert "image_seed" not in stated and stated["format"] == 1
    hashes = {replace(LayerBounds(), image_seed=seed).hash for seed in (None, 0, 1)}
    assert len(hashes) == 3  # 0 is stated: it stays what it is where the seed changes
    with pytest.raises(ValueError, match="image_seed must be"):
        LayerBounds(image_seed=-1)


def test_draws(package):
    config = LayerStability(config_of(package, seed=5), 3, photographs=True)
    draws = draws_of(config)
    names = [(draw.images, draw.subset) for draw in draws]
    assert names == [("photos", "0"), ("photos", "1"), ("photos", "2"), ("photos", "all"),
                     *(("photographs", str(k)) for k in range(3))]  # fmt: skip
    assert [draw.config.image_seed for draw in draws[:3]] == [5, 6, 7]
    assert len({draw.files for draw in draws}) == 7
    assert [len(draw.files) for draw in draws] == [3, 3, 3, 6, 3, 3, 3]
    for draw in draws:
        own = asdict(draw.config) | dict.fromkeys(("images", "image_seed", "n_images"))
        assert own == asdict(config.base) | dict.fromkeys(("images", "image_seed", "n_images"))
    (package / "photographs").mkdir()
    (package / "photographs" / "0.png").write_bytes((package / "photos" / "0.png").read_bytes())
    confusing = config_of(package, images=str(package / "photographs"), n_images=1)
    keys = [draw.key for draw in draws_of(LayerStability(confusing, 2, photographs=True))]
    assert len(set(keys)) == 5 and keys[0] == "folder photographs 0"
    shifted = replace(config, base=replace(config.base, image_seed=6))
    assert draws_of(shifted)[0].files == draws[1].files


def test_rows(whole, package):
    folder, output = whole
    table = read(folder)
    assert list(table.columns) == list(COLUMNS) and not table.duplicated(list(COLUMNS[:6])).any()
    assert "5 draws of images, 18 images in all" in output and "some 0.1 minutes" in output
    assert "between scales" not in output  # that step is left out
    assert table.groupby("images")["subset"].unique().map(list).to_dict() == {
        "photographs": ["0", "1"], "photos": ["0", "1", "all"],
    }  # fmt: skip
    assert len(table) == 5  # one layer of one chunk at one bit-width
    alone = layer_stability.winners(_table_of(config_of(package, image_seed=1)))
    own = table[(table["images"] == "photos") & (table["subset"] == "1")]
    assert own["winner"].tolist() == alone["winner"].tolist()
    lead = table["quantize_db"] - table["prune_channel_db"]
    assert (lead[table["winner"] == QUANTIZATION] > 0).all()
    assert (lead[table["winner"] == PRUNING] < 0).all()
    stated = json.loads((folder / "provenance.json").read_text())
    assert stated["command"].startswith("pqlib layers stability python:redrawn_toy:net --weights ")
    assert stated["command"].endswith("--n-subsets 2 --photographs")
    assert stated["config"]["base"]["n_images"] == 3


def _table_of(config):
    from pqlib.experiments.channel_optima import solve_unit
    from pqlib.experiments.layer_table import layer_table

    layers = layer_bounds.capture(config)
    units = [u for layer in layers for u in layer_bounds.units_of(layer, config)]
    rest = config.bits, config.max_nodes, 0.0, 0
    return layer_table(config.model, [(unit, solve_unit(unit, *rest)) for unit in units])


def test_interrupted_and_resumed(package, whole, tmp_path, monkeypatch):
    solve, solved = layer_bounds.solve_unit, []

    def until(most):
        def solve_unit(unit, *rest):
            if len(solved) == most:
                raise KeyboardInterrupt
            solved.append(unit.key)
            return solve(unit, *rest)

        monkeypatch.setattr(layer_bounds, "solve_unit", solve_unit)

    folder = tmp_path / "run"
    for most in (1, 4):
        until(most)
        code, output = invoke(package, folder)
        assert code == 1 and "the same command goes on from here" in output
    until(-1)
    assert invoke(package, folder)[0] == 0
    assert len(solved) == len(set(solved)) == 5  # the unit of each draw once
    assert (folder / "stability.csv").read_bytes() == (whole[0] / "stability.csv").read_bytes()
    captured = []
    capture = layer_bounds.capture
    monkeypatch.setattr(
        layer_bounds, "capture", lambda config: captured.append(config) or capture(config)
    )
    assert invoke(package, folder)[0] == 0
    assert len(solved) == 5 and len(captured) == 1  # for the cost alone
    assert (folder / "stability.csv").read_bytes() == (whole[0] / "stability.csv").read_bytes()


@pytest.mark.slow
def test_killed_and_resumed(package, whole, tmp_path):
    folder = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(package), str(ROOT)])}
    command = [sys.executable, "-m", "pqlib", *arguments(package, folder)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    while len([*folder.glob("*.json")]) < 4 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert not (folder / "stability.csv").exists()
    assert invoke(package, folder)[0] == 0
    pd.testing.assert_frame_equal(read(folder), read(whole[0]), rtol=1e-6)


def test_other_images_in_the_same_folder_are_noticed(package, whole):
    path = package / "photos" / "5.png"
    try:
        path.rename(package / "photos" / "new.png")
        code, output = invoke(package, whole[0])
    finally:
        (package / "photos" / "new.png").rename(path)
    assert code == 1 and "the images have changed" in output and "delete that folder" in output


def test_messages(package, tmp_path):
    folder = tmp_path / "run"
    for more, text in (
        (("--n-subsets", "1"), "n_subsets must be"),
        (("--image-seed", "-1"), "image_seed must be"),
        (("--n-images", "7"), "n_images must be <= 6"),
        (("--images", str(tmp_path / "nosuch")), "images must be a folder"),
        (("--layers", "nosuch"), "nosuch"),
    ):
        code, output = invoke(package, folder, *more)
        assert code == 1 and text in output, output
    with pytest.raises(ValueError, match="name a folder, or leave photographs out"):
        LayerStability(LayerBounds(), photographs=True)
    with pytest.raises(TypeError, match="base must be a LayerBounds"):
        LayerStability("timm:efficientnet_lite0")
    code, output = invoke(package, folder, "--dry-run")
    assert code == 0 and "5 draws of images" in output
    assert not folder.exists()


def test_no_output_is_said_so():
    blank = {"layer": "a", "chunk": "0", "n_bits": 2, "energy": 0.0, "lower": 0.0, "upper": 0.0}
    pair = [
        blank | {"method": "quantize_exact", "scale_choice": "tensor", "budget": ""},
        blank | {"method": "prune_exact", "scale_choice": "", "budget": "channel"},
    ]
    winners = layer_stability.winners(pd.DataFrame(pair))["winner"]
    assert winners.tolist() == [layer_stability.NO_OUTPUT]
    pair = pd.DataFrame([row | {"energy": 1.0} for row in pair])
    assert layer_stability.winners(pair)["winner"].tolist() == [LOSSLESS]


def test_the_commands_are_repeated():
    config = LayerStability(LayerBounds(images="photos", image_seed=0), 5, photographs=True)
    assert layer_run.command(config) == (
        "pqlib layers stability timm:efficientnet_lite0 --images photos --image-seed 0 "
        "--n-subsets 5 --photographs"
    )
    assert layer_run.command(LayerBounds(image_seed=3)) == (
        "pqlib layers solve timm:efficientnet_lite0 --image-seed 3"
    )


def test_the_committed_table():
    path = ROOT / "book" / "results" / "fig4_stability.csv"
    table = pd.read_csv(path, dtype={"subset": str, "chunk": str})
    assert list(table.columns) == list(COLUMNS) and not table.duplicated(list(COLUMNS[:6])).any()
    draws = {str(k) for k in range(20)}
    subsets = table.groupby("images")["subset"].agg(set).to_dict()
    assert subsets == {"imagenet-sample": draws | {"all"}, "photographs": draws}
    cases = table.groupby(["images", "subset"]).size()
    assert cases.nunique() == 1  # every draw has every chunk and bit-width
    decibels = table[[column for column in COLUMNS if column.endswith("_db")]]
    explained = table["winner"].isin([LOSSLESS, layer_stability.NO_OUTPUT])
    assert (np.isfinite(decibels).all(axis=1) | explained).all()
    assert table[["winner", "verdict"]].notna().all(axis=None)
    stated = json.loads(path.with_suffix(".json").read_text())
    chapter = (ROOT / "notebooks" / "layer_bounds.ipynb").read_text("utf-8")
    [shown] = re.findall(r'"(pqlib layers stability [^"\\]*)', chapter)
    words = stated["command"].replace(" timm:efficientnet_lite0", "").split(" --")
    assert sorted(shown.split(" --")) == sorted(words)
