"""`pqlib layers solve` on a package of someone else's: one command, interrupted anywhere."""

import dataclasses
import json
import os
import random
import shlex
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

import killing  # noqa: E402
from killing import ROOT, finish, kill, wait_for  # noqa: E402
from pruning_cases import brute_force  # noqa: E402

from pqlib import optimal_scale  # noqa: E402
from pqlib.cli import main  # noqa: E402
from pqlib.experiments import layer_bounds, layer_run  # noqa: E402
from pqlib.experiments.layer_config import LITE0_LAYERS, LayerBounds  # noqa: E402
from pqlib.layers.problem import LayerProblem  # noqa: E402

TOY = """
import numpy as np
import torch
from torch import nn

def tiny():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.ReLU(),
        nn.Conv2d(4, 6, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3),
    )

def small():
    def transform(image):
        values = torch.from_numpy(np.array(image.resize((24, 24)))).permute(2, 0, 1)
        return values / 128.0 - 1.0
    return transform
"""
# the linear layer reads 20 rows of 24 inputs, enough for chunks of 8
OPTIONS = [
    "--transform", "python:toy.nets:small", "--layers", "all", "--chunk", "8",
    "--n-images", "20", "--bits", "2,4", "--n-channels", "3", "--n-chunks", "2", "--jobs", "1",
    "--max-nodes", "1000000", "--reproved-share", "0.3",
]  # fmt: skip


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The folder of package ``toy``, its checkpoint and its photographs."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "toy").mkdir()
    (folder / "toy" / "__init__.py").write_text("")
    (folder / "toy" / "nets.py").write_text(TOY)
    space = {}
    exec(TOY, space)
    torch.manual_seed(3)
    module = space["tiny"]()
    torch.save(module.state_dict(), folder / "tiny.pth")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(20):
        rough = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(rough).resize((48, 36), Image.Resampling.BICUBIC)
        image.save(folder / "photos" / f"{i:02}.jpg")
    return folder


def arguments(package, folder, *more):
    return [
        "layers", "solve", "python:toy.nets:tiny", "--weights", str(package / "tiny.pth"),
        "--images", str(package / "photos"), *OPTIONS, "--folder", str(folder), *more,
    ]  # fmt: skip


def start(package, folder, *more):
    log = folder.parent / f"{folder.name}.log"
    return killing.start(arguments(package, folder, *more), log, package, cwd=package)


def tables(folder):
    """Both tables as text, but for the column that is a measurement."""
    table = pd.read_csv(folder / "table.csv", dtype=str, keep_default_na=False)
    assert "seconds" in table
    return table.drop(columns="seconds").to_csv(), (folder / "verdicts.csv").read_bytes()


@pytest.fixture(scope="module")
def whole(package):
    """A run from beginning to end: its folder and what it printed."""
    folder = package / "whole"
    return folder, finish(start(package, folder))


def test_one_command(whole):
    folder, output = whole
    for name in ("table.csv", "verdicts.csv", "provenance.json"):
        assert (folder / name).exists() and name in output
    assert "exact quantizations" in output and "minutes of one core" in output  # before the run
    table = pd.read_csv(folder / "table.csv")
    assert table["layer"].unique().tolist() == [0, 2, 4, 8]
    kinds = table.drop_duplicates("layer")["kind"].tolist()
    assert kinds == ["conv", "depthwise", "pointwise", "linear"]
    assert table["certificate"].notna().all() and (table["lower"] <= table["upper"]).all()
    exact = table[table["method"].isin(["prune_exact", "quantize_exact"])]
    assert (exact["unproven"] == 0).all() and exact["reproved"].sum() > 10
    stated = json.loads((folder / "provenance.json").read_text())
    assert stated["command"].startswith("pqlib layers solve python:toy.nets:tiny --weights ")
    assert "--bits 2,4" in stated["command"] and "--layers all" in stated["command"]


def test_the_table_is_what_direct_computation_gives(package, whole, monkeypatch):
    """Inputs unfolded by hand from the module itself, optima by brute force."""
    monkeypatch.syspath_prepend(package)
    from PIL import Image
    from toy import nets

    module = nets.tiny()
    module.load_state_dict(torch.load(package / "tiny.pth"))
    paths = sorted((package / "photos").glob("*.jpg"))
    batch = torch.stack([nets.small()(Image.open(path)) for path in paths])
    with torch.no_grad():
        inputs = module[:4](batch)  # of the point-wise convolution, 4 inputs
    x = inputs.permute(0, 2, 3, 1).reshape(-1, 4).double().numpy()
    weight = module[4].weight.detach().double().numpy().reshape(6, 4)
    table = pd.read_csv(whole[0] / "table.csv", keep_default_na=False)
    rows = table[table["layer"].astype(str) == "4"]
    config = LayerBounds(layers=("4",), n_channels=3, bits=(2, 4))
    drawn = np.random.default_rng([config.seed, *b"4"]).choice(6, 3, replace=False)
    problems = [LayerProblem(x.T @ x, weight[c]) for c in sorted(drawn)]
    energy = sum(p.energy for p in problems)
    for n_bits, keep in ((2, 1), (4, 1)):
        part = rows[rows["n_bits"] == n_bits]
        assert part["energy"].to_numpy() == pytest.approx(energy, rel=1e-6)
        prune = part[part["method"] == "prune_exact"].set_index("budget")["upper"].astype(float)
        curves = [brute_force(p) for p in problems]
        assert prune["channel"] == pytest.approx(sum(c[keep] for c in curves), rel=1e-5)
        quantize = part[part["method"] == "quantize_exact"].set_index("scale_choice")
        scale = optimal_scale(weight, n_bits)
        assert float(quantize.loc["tensor", "scale"]) == pytest.approx(scale, rel=1e-9)
        grid = np.arange(-(2 ** (n_bits - 1)), 2 ** (n_bits - 1))
        z = np.stack(np.meshgrid(*[grid] * 4), axis=-1).reshape(-1, 4)
        errors = [min(p.error(scale * row) for row in _nearby(z, p, scale)) for p in problems]
        assert quantize.loc["tensor", "upper"] == pytest.approx(sum(errors), rel=1e-5)


def _nearby(z, problem, scale):
    """The best 20 by plain float64, which settles all but the last digits."""
    d = scale * z - problem.weight
    return z[np.argsort(np.sum((d @ problem.gram) * d, axis=1))[:20]]


def killed_and_resumed(package, folder, n_kills, seconds, *more):
    """``n_kills`` processes killed at random moments, then one that ends; how many were alive."""
    rng, alive = random.Random(0), 0
    for _ in range(n_kills):
        process = start(package, folder, *more)
        time.sleep(rng.uniform(0.1, 1.1) * seconds)
        alive += kill(process)
        table = folder / "table.csv"
        if table.exists():  # it came to its end: begin again, but for one unit
            table.unlink()
            units = sorted(
                p for p in folder.glob("*.json") if p.stem.isalnum() and len(p.stem) == 16
            )
            for path in units[: len(units) // 2]:
                path.unlink()
    finish(start(package, folder, *more))
    return alive


def test_killed_three_times(package, whole, tmp_path):
    assert killed_and_resumed(package, tmp_path / "run", 3, 6.0) >= 1
    assert tables(tmp_path / "run") == tables(whole[0])


@pytest.mark.slow
def test_killed_twenty_times(package, whole, tmp_path):
    begun = time.monotonic()
    finish(start(package, tmp_path / "timed", "--jobs", "2"))
    seconds = time.monotonic() - begun
    assert killed_and_resumed(package, tmp_path / "run", 20, seconds, "--jobs", "2") >= 10
    assert tables(tmp_path / "run") == tables(whole[0])


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_real_ctrl_c(package, whole, tmp_path, jobs):
    folder = tmp_path / "run"
    process = start(package, folder, "--jobs", jobs)
    wait_for((folder / "running").exists, process)
    time.sleep(1.0 if jobs == "2" else 0.1)
    process.send_signal(signal.SIGINT)
    assert "interrupted; the same command goes on from here" in finish(process, code=1)
    finish(start(package, folder))
    assert tables(folder) == tables(whole[0])


@pytest.fixture
def here(package, monkeypatch):
    """The same command in this process, which spares the imports."""
    monkeypatch.syspath_prepend(package)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the other processes: sums of float32 depend on it

    def invoke(folder, *more):
        done = CliRunner().invoke(main, arguments(package, folder, *more))
        return done.exit_code, " ".join(done.output.split())

    yield invoke
    torch.set_num_threads(threads)


def test_damaged_units_are_solved_again_and_other_options_refused(
    here, whole, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    folder.mkdir()
    for path in whole[0].glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    units = sorted(p for p in folder.glob("*.json") if len(p.stem) == 16)
    units[0].write_text(units[0].read_text()[:-30])
    units[1].write_text("")
    solved = []
    run = layer_bounds.solve_unit
    monkeypatch.setattr(
        layer_bounds, "solve_unit", lambda unit, *rest: solved.append(unit.key) or run(unit, *rest)
    )
    code, output = here(folder)
    assert code == 0, output
    assert len(solved) <= 2  # a unit, or the scales between
    assert tables(folder) == tables(whole[0])
    code, output = here(folder, "--bits", "3")
    assert code == 1 and "other options" in output
    assert tables(folder) == tables(whole[0])


def test_other_photographs_in_the_same_folder_are_noticed(here, package, whole, tmp_path):
    from PIL import Image

    path = package / "photos" / "00.jpg"
    kept = path.read_bytes()
    try:
        Image.new("RGB", (48, 36), (200, 30, 90)).save(path)
        code, output = here(whole[0])
    finally:
        path.write_bytes(kept)
    assert code == 1 and "images have changed" in output


def test_a_second_process_is_refused(here, tmp_path):
    with layer_run.Ledger(tmp_path / "run", {}):
        (tmp_path / "run" / "config.json").unlink()
        code, output = here(tmp_path / "run")
    assert code == 1 and "another process is at work" in output


def test_ctrl_c(here, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(layer_bounds, "solve_unit", interrupted)
    code, output = here(tmp_path / "run")
    assert code == 1 and "interrupted; the same command goes on from here" in output


def test_a_full_disk(here, whole, tmp_path, monkeypatch):
    folder, written = tmp_path / "run", []
    sync = os.fsync

    def full(descriptor):
        written.append(descriptor)
        if len(written) > 3:  # config.json and two units
            raise OSError(28, os.strerror(28))
        return sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, output = here(folder)
    assert code == 1 and "No space left" in output and "same command goes on" in output
    assert len([p for p in folder.glob("*.json") if len(p.stem) == 16]) == 2
    assert here(folder)[0] == 0
    assert tables(folder) == tables(whole[0])


def test_dry_run_writes_nothing(here, tmp_path):
    code, output = here(tmp_path / "run", "--dry-run")
    assert code == 0 and "exact quantizations" in output
    assert not (tmp_path / "run").exists()


def test_messages(here, tmp_path):
    for more, text in (
        (("--layers", "nosuch"), "nosuch"),
        (("--n-images", "21"), "n_images must be <= 20"),
        (("--bits", "1"), "bit-widths"),
        (("--max-nodes", "0"), "max_nodes must be"),
        (("--reproved-share", "2"), "reproved_share must be"),
        (("--weights", "nosuch.pth"), "nosuch.pth"),
    ):
        code, output = here(tmp_path / "run", *more)
        assert code in (1, 2) and text in output, output
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("layers", [LITE0_LAYERS, (), ("a", "b")])
@pytest.mark.parametrize("model", [LayerBounds.model, "timm:tf_efficientnet_lite0"])
def test_a_command_makes_its_own_config_again(monkeypatch, model, layers):
    config, seen = LayerBounds(model=model, layers=layers), []
    monkeypatch.setattr(layer_run, "run", lambda found, *_: seen.append(found))
    words = shlex.split(layer_run.command(config))[1:]
    CliRunner().invoke(main, words)
    assert seen == [config]


def test_config():
    assert LayerBounds(bits=[2, 4]).bits == (2, 4)
    assert LayerBounds().hash == LayerBounds(layers=list(LITE0_LAYERS)).hash
    hashes = {
        dataclasses.replace(LayerBounds(), **{f: v}).hash for f, v in (("seed", 1), ("chunk", 9))
    }
    assert len(hashes | {LayerBounds().hash}) == 3
    with pytest.raises(TypeError, match="layers must be a sequence"):
        LayerBounds(layers="conv_stem")
    with pytest.raises(ValueError, match="bits must be one or several"):
        LayerBounds(bits=())
    with pytest.raises(ValueError, match="chunk must be"):
        LayerBounds(chunk=500)
    assert layer_run.command(LayerBounds(chunk=9, layers=("a b",))) == (
        "pqlib layers solve timm:efficientnet_lite0 --layers 'a b' --chunk 9"
    )


def descendants(pid, title):
    """Processes below ``pid`` whose command line begins with ``title``."""
    parents, found = {}, []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            stat, line = (path / "stat").read_text(), (path / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended
        parents[int(path.name)] = int(stat.rsplit(")", 1)[1].split()[1])
        if line.startswith(title):
            found.append(int(path.name))

    def below(child):
        return child == pid or (child in parents and below(parents[child]))

    return [child for child in found if below(child)]


@pytest.mark.slow
def test_a_ray_cluster_that_loses_a_worker(package, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    more = ["--n-channels", "0", "--n-chunks", "0", "--bits", "2-4", "--chunk", "9"]
    finish(start(package, tmp_path / "local", *more))
    folder = tmp_path / "ray"
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        process = start(package, folder, *more, "--engine", "ray", "--jobs", "2")
        done = {}
        while not done:
            assert process.poll() is None, process.log.read_text()
            time.sleep(0.05)
            done = {
                p.name: p.stat().st_mtime_ns for p in folder.glob("*.json") if len(p.stem) == 16
            }
        workers = descendants(os.getpid(), b"ray::PoolActor")
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        assert "a worker was lost" in finish(process)
    finally:
        cluster.shutdown()
    assert tables(folder) == tables(tmp_path / "local")
    assert done == {name: (folder / name).stat().st_mtime_ns for name in done}  # not solved again
