"""Layers against the original's after every epoch: what is measured, and going on after an end."""

import copy
import dataclasses
import json
import operator
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("torchmetrics", reason="the extra `training` is not installed")

from finetune_cases import CONFIG, opened, tiny  # noqa: E402

from pqlib import cka, sqnr_db  # noqa: E402
from pqlib.cli import main  # noqa: E402
from pqlib.experiments import finetune_run, representations, representations_run  # noqa: E402
from pqlib.experiments.ledger import Ledger  # noqa: E402
from pqlib.experiments.presets import Sweep  # noqa: E402
from pqlib.experiments.representations import COLUMNS, METHODS, Representations  # noqa: E402
from pqlib.experiments.table1 import CONFIG as TABLE1  # noqa: E402
from pqlib.training import checkpoint as checkpoints  # noqa: E402
from pqlib.training.activations import layer_outputs  # noqa: E402
from pqlib.training.batch_norm import reestimate  # noqa: E402
from pqlib.training.batches import batches_of  # noqa: E402
from pqlib.training.compression import post_training  # noqa: E402
from pqlib.training.loop import Stop  # noqa: E402

CHANGES = {"size": 8, "limit": 120, "epochs": 3, "baseline_epochs": 3, "bn_batches": 2}
WANTED = Representations(models=(CONFIG.model,), bits=(2,), changes=CHANGES, n_images=50)
RESULTS = Path(__file__).parents[2] / "book" / "results"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("watched") / "run"


@pytest.fixture(scope="module")
def table(folder):
    return representations.run(WANTED, folder)


def of(table, method, epoch):
    return table[(table["method"] == method) & (table["epoch"] == epoch)].set_index("layer")


def test_the_runs():
    cells = Representations(models=(CONFIG.model,), bits=(2, 4), changes=CHANGES).cells()
    assert [(c.method, c.n_bits) for c in cells] == [
        *[("none", None), ("lsq", 2), ("uncompressed", None), ("lsq", 4)],
        *[("prune", 2), ("prune_at_once", 2), ("prune", 4), ("prune_at_once", 4)],
    ]
    fine = cells[1:]
    assert len({c.settings for c in fine}) == 1 and {c.baseline for c in fine} == {cells[0].hash}
    alone = dataclasses.replace(WANTED, methods=("prune",)).cells()
    assert [c.method for c in alone] == ["none", "prune"]


def test_table_1_has_the_same_baselines():
    options = {"preset": "laptop", "models": ("vit_small", "cifar_resnet20"), "bits": (2,)}
    watched = Representations(**options, changes={"limit": 500, "baseline_limit": 0})
    swept = Sweep(**options, changes={"limit": 500, "baseline_limit": 0})
    assert [c.hash for c in watched.cells()[:2]] == [c.hash for c in swept.cells()[:2]]


def test_one_row_per_run_epoch_and_layer(table, folder):
    assert tuple(table.columns) == COLUMNS and len(table) == 4 * 4 * 2
    assert list(table["method"].unique()) == list(METHODS)
    assert not table.duplicated(["method", "n_bits", "epoch", "layer"]).any()
    untrained = table["epoch"] == 0
    assert table.loc[untrained, "loss"].isna().all() and table.loc[~untrained, "loss"].all()
    assert table["cka"].between(0, 1 + 1e-12).all() and (table["cka_unpaired"] < 0.5).all()
    runs = json.loads((folder / "representations.json").read_text())["runs"]
    assert [r["method"] for r in runs] == ["none", *METHODS]
    assert {r["hash"] for r in runs[1:]} == set(table["hash"])
    assert all({"versions", "hardware", "commit", "seconds", "command"} <= r.keys() for r in runs)
    read = pd.read_csv(folder / "representations.csv")
    pd.testing.assert_series_equal(read["sqnr_db"], table["sqnr_db"])


@pytest.mark.parametrize("method", METHODS)
def test_epoch_0_is_post_training_compression_by_hand(table, folder, method):
    data, task = opened(augment=False)
    base = WANTED.cells()[0]
    original = tiny()
    original.load_state_dict(
        checkpoints.load(finetune_run.weights_of(folder, base.hash), config=base.hash)["model"]
    )
    net = copy.deepcopy(original)
    if method != "uncompressed":
        compression = post_training(net, "lsq" if method == "lsq" else "prune", 2)
        compression.bake()
    images = [data.test[i][0] for i in range(50)]

    def settled(model):
        batches = batches_of(data.train, task, base.settings, n_batches=2)
        reestimate(model, batches, lambda m, b: m(task.inputs(b)))
        return layer_outputs(model, [task.inputs({"images": torch.stack(images)})], ["0", "5"])

    x, y = settled(original), settled(net)
    rows = of(table, method, 0)
    for layer in ("0", "5"):
        assert rows.loc[layer, "sqnr_db"] == pytest.approx(sqnr_db(x[layer], y[layer]), abs=1e-3)
        assert rows.loc[layer, "cka"] == pytest.approx(cka(x[layer], y[layer]), abs=1e-5)
    found = task.evaluate(net, batches_of(data.test, task, base.settings))
    assert rows["accuracy"].unique() == pytest.approx([found["accuracy"]])
    zeros = sum(int((net.get_submodule(n).weight == 0).sum()) for n in ("0", "5"))
    total = sum(net.get_submodule(n).weight.numel() for n in ("0", "5"))
    assert rows["sparsity"].unique() == pytest.approx([zeros / total], abs=1e-6)


def test_the_two_ways_to_prune(table):
    """Both have the final masks at epoch 0; then one starts anew from none and the other keeps."""
    once, slow = ([of(table, m, e) for e in range(4)] for m in ("prune_at_once", "prune"))
    np.testing.assert_array_equal(once[0]["sqnr_db"], slow[0]["sqnr_db"])
    assert [e["sparsity"].iloc[0] for e in once] == [pytest.approx(0.875, abs=1e-3)] * 4
    grown = [e["sparsity"].iloc[0] for e in slow]
    assert grown[1] < grown[2] <= grown[3] == pytest.approx(0.875, abs=1e-3)


def test_the_control_starts_at_the_original_and_leaves_it(table):
    rows = of(table, "uncompressed", 0)
    assert (rows["sqnr_db"] == np.inf).all() and (rows["sparsity"] < 0.01).all()
    assert rows["cka"].to_numpy() == pytest.approx([1, 1])
    assert (of(table, "uncompressed", 3)["sqnr_db"] < 40).all()


def test_watching_changes_nothing(folder, table, tmp_path):
    for config in WANTED.cells()[1:]:
        base = json.loads(next(folder.glob("config.json")).read_text())
        assert base["experiment"] == "representations"
        weights = finetune_run.weights_of(folder, config.baseline)
        copied = finetune_run.weights_of(tmp_path, config.baseline)
        copied.parent.mkdir(exist_ok=True)
        copied.write_bytes(weights.read_bytes())
        plain = finetune_run.run(config, tmp_path, baseline={"value": 1.0})
        kept = representations.Ledger(folder, WANTED.ledger_config).get(config.hash)
        assert plain["fingerprint"] == kept["fingerprint"] and plain["value"] == kept["value"]
        assert kept["watched"][-1]["accuracy"] == kept["value"]


def test_what_is_done_is_not_run_again(folder, table):
    before = {p: p.stat().st_mtime_ns for p in folder.glob("????????????????.json")}
    kinds = []
    again = representations.run(WANTED, folder, on_event=lambda c, kind, v: kinds.append(kind))
    assert set(kinds) == {"kept"} and len(kinds) == 5
    assert before == {p: p.stat().st_mtime_ns for p in before}
    pd.testing.assert_frame_equal(again, table)


def test_a_lost_baseline_is_trained_again_where_a_run_needs_it(folder, table, tmp_path):
    own = shutil.copytree(folder, tmp_path / "own")
    baseline, lost = (WANTED.cells()[i] for i in (0, -1))
    (own / baseline.hash / "weights.pt").unlink()

    def kinds():
        found = []
        representations.run(WANTED, own, on_event=lambda c, kind, v: found.append((c.method, kind)))
        return [method for method, kind in found if kind == "started"]

    assert kinds() == [] and "to do" not in representations_run.states(WANTED, own)
    rows = {json.loads(path.read_text()).get("key"): path for path in own.glob("*.json")}
    rows[lost.hash].unlink()
    assert representations_run.states(WANTED, own).count("to do") == 2
    assert kinds() == ["none", lost.method]


@pytest.mark.parametrize("at", [1, 4, 7, 8])
def test_interrupted_in_any_epoch_it_comes_to_the_same_rows(folder, table, tmp_path, at):
    """The step of each run at which it stops; a checkpoint is written and then gone on from."""
    n_steps, interrupted = {}, set()

    def stop(config, kind, value):
        if kind == "at":
            n_steps.setdefault(config.hash, []).append(value[0])
            if value[0] == at and config.hash not in interrupted:
                interrupted.add(config.hash)
                return True
        return None

    for _ in range(6):
        try:
            found = representations.run(WANTED, tmp_path / "run", on_event=stop)
            break
        except Stop:
            continue
    pd.testing.assert_frame_equal(found, table)
    assert len(interrupted) == 5
    for steps in n_steps.values():
        assert steps == list(range(1, len(steps) + 1))  # no step twice
    assert not [*(tmp_path / "run").glob("*/checkpoint.pt")]


def test_a_folder_is_of_one_number_of_images(folder, table):
    other = dataclasses.replace(WANTED, n_images=40)
    with pytest.raises(ValueError, match="holds a run with other options"):
        representations.run(other, folder)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"methods": ("qat",)}, "methods must be one of lsq, prune, prune_at_once, uncompressed"),
        ({"methods": ()}, "methods must be one or several"),
        ({"n_images": 1}, "n_images"),
        ({"bits": (1,)}, "n_bits"),
        ({"models": ("resnet19",)}, "'resnet19' is unknown"),
    ],
)
def test_mistakes(change, text):
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(WANTED, **change)


def call(*arguments):
    done = CliRunner().invoke(main, ["run", "representations", *map(str, arguments)])
    return done.exit_code, done.output


def test_the_command(tmp_path):
    options = ("--models", CONFIG.model, "--bits", "2", "--methods", "prune_at_once", "--size", "8")
    options += ("--limit", "64", "--epochs", "1", "--baseline-epochs", "1", "--n-images", "20")
    options += ("--folder", tmp_path / "run")
    code, output = call(*options, "--dry-run")
    assert code == 0 and "2 runs, 0 of them in" in output and not (tmp_path / "run").exists()
    code, output = call(*options)
    assert code == 0 and output.strip().endswith("representations.csv"), output
    assert len(pd.read_csv(tmp_path / "run" / "representations.csv")) == 2 * 2
    assert "prune_at_once 2 bits, seed 0, 1 epochs: done" in call(*options, "--dry-run")[1]
    code, output = call("--bits", "1")
    assert code == 2 and "different bit-widths" in output
    code, output = call("--methods", "qat")
    assert code == 1 and "methods must be one of lsq" in output and "Traceback" not in output


def test_help_teaches_and_is_light():
    code, output = call("--help")
    words = " ".join(output.split())
    for part in ("Figures 7 and 8", "never run twice", "prune_at_once", "vit_small", "--n-images"):
        assert code == 0 and part in words
    script = (
        "import sys; from click.testing import CliRunner; from pqlib.cli import main; "
        "CliRunner().invoke(main, ['run', 'representations', '--help']); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("model", "n_layers", "first", "last"),
    [("cifar_resnet20", 20, "conv1", "linear"), ("vit_small", 50, "patch_embed.proj", "head")],
)
def test_the_committed_table_is_whole(model, n_layers, first, last):
    """Every run has all its epochs and layers, and the file beside it says how it was made."""
    table = pd.read_csv(RESULTS / "representations.csv")
    table = table[table["model"] == model]
    runs = json.loads((RESULTS / "representations.json").read_text())["runs"]
    baseline, *runs = (run for run in runs if run["model"] == model)
    assert tuple(table.columns) == COLUMNS and baseline["method"] == "none"
    assert {r["hash"] for r in runs} == set(table["hash"])
    assert len({(r["learning_rate"], r["epochs"], r["seed"], r["n_train"]) for r in runs}) == 1
    cells = {(r["method"], r["n_bits"]) for r in runs}
    assert cells == {("uncompressed", None), *((m, b) for m in METHODS[:3] for b in (2, 4))}
    layers = list(dict.fromkeys(table["layer"]))
    assert (len(layers), layers[0], layers[-1]) == (n_layers, first, last)
    for run in runs:
        rows = table[table["hash"] == run["hash"]]
        assert list(rows["epoch"].unique()) == list(range(run["epochs"] + 1))
        assert all(list(g["layer"]) == layers for _, g in rows.groupby("epoch"))
        assert rows["accuracy"].iloc[-1] == pytest.approx(run["value"])
        assert rows["fp_value"].unique() == pytest.approx([run["fp_value"]])
        if run["method"] != "lsq":
            wanted = 0 if run["n_bits"] is None else 1 - run["n_bits"] / 16
            assert rows["sparsity"].iloc[-1] == pytest.approx(wanted, abs=1e-3)
        assert run["baseline_fingerprint"] == baseline["fingerprint"]
        assert "PQLIB_DATA" in run["command"]
    assert table["cka"].between(0, 1 + 1e-9).all() and table["cka_unpaired"].between(0, 0.9).all()
    untouched = (table["method"] == "uncompressed") & (table["epoch"] == 0)
    assert np.isinf(table.loc[untouched, "sqnr_db"]).all()


def test_committed_runs_of_two_experiments_are_the_same_run():
    """Watched, a run of Table 1 ends with the same bits, on the machine that it was made on."""
    watched = json.loads((RESULTS / "representations.json").read_text())["runs"]
    machine = operator.itemgetter("hardware", "versions")
    again = []
    for name in ("small_data", "cifar_resnets"):
        records = Ledger(RESULTS / "ledger" / name, TABLE1).records()
        again += [(run, records[run["hash"]]) for run in watched if run["hash"] in records]
    alike = [(run, record) for run, record in again if machine(run) == machine(record)]
    vit = {(r["method"], r["n_bits"]) for r, _ in alike if r["model"] == "vit_small"}
    assert vit == {(m, b) for m in ("lsq", "prune") for b in (2, 4)} | {("none", None)}
    assert all(run["fingerprint"] == record["fingerprint"] for run, record in alike)


def test_committed_files_name_no_place():
    text = (RESULTS / "representations.json").read_text()
    assert "/tmp" not in text and "/work" not in text and "-dirty" not in text
