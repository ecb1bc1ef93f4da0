import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from pqlib.cli import main
from pqlib.experiments.finetune_config import FineTune
from pqlib.experiments.finetune_record import described
from pqlib.experiments.ledger import Ledger
from pqlib.experiments.table1 import CONFIG
from pqlib.table1_leads import leads
from pqlib.training.settings import Settings
from pqlib.training_findings import SPARED

N_IMAGES = 400


def settings(seed=0, rate=0.01, epochs=4):
    return Settings(epochs, 64, rate, seed=seed)


def add(
    folder,
    method,
    n_bits,
    right,
    *,
    validation=50.0,
    status="done",
    kept=False,
    start="a",
    **options,
):
    """A run that has the first ``right`` of 400 test images right."""
    config = FineTune(
        "resnet18", "digits", settings(**options), method, n_bits, "base", keep_first_last=kept
    )
    record = described(config, f"pqlib run {method} {n_bits} {options}") | {
        "status": status, "reason": "", "task": "classification", "metric": "accuracy",
        "value": right / 4, "validation_value": validation, "fp_value": 98.0, "n_train": 5000,
        "n_test": N_IMAGES, "bits_per_weight": n_bits + kept / 2, "baseline_fingerprint": start,
    }  # fmt: skip
    Ledger(folder, CONFIG).add(config.hash, record)
    (folder / config.hash).mkdir(exist_ok=True)
    np.savez(folder / config.hash / "per_image.npz", test=np.arange(N_IMAGES) < right)
    return config.hash


def means(per_image, draws):
    return np.array([per_image[draw].mean() for draw in draws])


def test_lead_is_that_of_the_runs_chosen_on_validation_images(tmp_path):
    add(tmp_path, "lsq", 4, 380, validation=90.0, rate=0.01)
    add(tmp_path, "lsq", 4, 396, validation=80.0, rate=0.03)  # better on the test images alone
    pruned = add(tmp_path, "prune", 4, 300)
    table, left_out = leads(tmp_path, n_draws=200)
    row = table.iloc[0]
    assert (len(table), left_out) == (1, [])
    assert (row["quantization"], row["pruning"], row["lead"]) == (95.0, 75.0, 20.0)
    assert 14 < row["low"] < 18 < 22 < row["high"] < 26  # 20 +- 2 standard errors of 2 points
    assert row["winner"] == "quantization"
    assert (row["rate_quantization"], row["tried_quantization"]) == ("0.01", "0.01 0.03")
    assert row["hash_pruning"] == pruned
    assert row["command_pruning"].startswith("pqlib run prune 4")


def test_a_detector_is_compared_by_its_boxes(tmp_path):
    for package in ("effdet", "pycocotools"):
        pytest.importorskip(package, reason="the extra `training` is not installed")
    box, far = [10, 10, 40, 40], [60, 60, 90, 90]  # found a box, wanted it
    for method, found in (("lsq", box), ("prune", far)):
        config = FineTune("efficientdet", "boxes", settings(), method, 2, "base", size=128)
        record = described(config, "pqlib run") | {
            "status": "done", "reason": "", "task": "detection", "metric": "mAP", "fp_value": 90.0,
            "value": 100.0 if found is box else 0.0, "validation_value": 1.0, "n_train": 4,
            "n_test": 4, "bits_per_weight": 2.0,
        }  # fmt: skip
        Ledger(tmp_path, CONFIG).add(config.hash, record)
        (tmp_path / config.hash).mkdir()
        image = [[1, *found, 0.9, 0], [2, *box, 1, 0]]
        np.savez(tmp_path / config.hash / "per_image.npz", test=np.float32([image] * 4))
    row = leads(tmp_path, n_draws=20)[0].iloc[0]
    assert (row["lead"], row["low"], row["high"]) == (100.0, 100.0, 100.0)


def test_tie_and_winner_follow_the_interval(tmp_path):
    add(tmp_path, "lsq", 2, 200)
    add(tmp_path, "prune", 2, 300)
    add(tmp_path, "lsq", 8, 380)
    add(tmp_path, "prune", 8, 379)
    table, _ = leads(tmp_path, n_draws=300)
    assert table["n_bits"].tolist() == [2, 8]
    assert table["winner"].tolist() == ["pruning", "neither"]
    assert table["high"][0] < 0
    assert table["low"][1] <= 0 <= table["high"][1]


def test_seeds_are_averaged_where_both_methods_have_them(tmp_path):
    for seed, quantized, pruned in ((0, 380, 340), (1, 376, 352), (2, 390, None)):
        add(tmp_path, "lsq", 3, quantized, seed=seed)
        if pruned:
            add(tmp_path, "prune", 3, pruned, seed=seed)
    row = leads(tmp_path, n_draws=200)[0].iloc[0]
    assert row["seeds"] == "0 1"
    assert row["lead_by_seed"] == "10 6"
    assert row["quantization"] == pytest.approx(94.5, abs=1e-9)
    assert row["lead"] == pytest.approx(8.0, abs=1e-9)


def test_some_seeds_alone(tmp_path):
    for seed, quantized in ((0, 380), (1, 376), (2, 390)):
        add(tmp_path, "lsq", 3, quantized, seed=seed)
        add(tmp_path, "prune", 3, 340, seed=seed)
    row = leads(tmp_path, seeds=(0, 1), n_draws=50)[0].iloc[0]
    assert (row["seeds"], row["lead_by_seed"]) == ("0 1", "10 9")
    with pytest.raises(ValueError, match="no finished run of quantization or pruning, of seeds 7"):
        leads(tmp_path, seeds=(7,), n_draws=50)
    out = tmp_path / "leads.csv"
    done = CliRunner().invoke(main, ["run", "leads", str(tmp_path), "--seeds", "2"])
    assert done.exit_code == 0, done.output
    assert pd.read_csv(out)["lead"].tolist() == [12.5]


def test_spared_layers_are_compared_in_three_ways(tmp_path):
    for method, n_bits, right, kept in (
        ("lsq", 2, 300, False), ("lsq", 2, 360, True), ("prune", 2, 200, False),
        ("prune", 2, 240, True), ("lsq", 3, 300, True), ("lsq", 4, 300, False),
    ):  # fmt: skip
        add(tmp_path, method, n_bits, right, kept=kept)
    table, left_out = leads(tmp_path, n_draws=50)
    assert table["comparison"].tolist() == [*SPARED]
    assert table["lead"].tolist() == [25.0, 40.0, 30.0]
    assert table["bits_quantization"].tolist() == [2.0, 2.5, 2.5]
    assert table["bits_pruning"].tolist() == [2.0, 2.0, 2.5]
    both = table.iloc[-1]
    assert (both["gain_quantization"], both["gain_pruning"]) == (15.0, 10.0)
    assert 10 < both["gain_low_quantization"] < 13 < 17 < both["gain_high_quantization"] < 20
    assert table["gain_quantization"].isna().tolist() == [True, True, False]
    assert left_out == [
        "resnet18 3 bits, fine-tuned, first and last layer spared: no pruning",
        "resnet18 4 bits, fine-tuned: no pruning",
    ]


def test_gains_are_of_runs_from_the_same_weights(tmp_path):
    for kept, start in ((False, "a"), (True, "b")):
        for method in ("lsq", "prune"):
            add(tmp_path, method, 2, 300 + 20 * kept, kept=kept, start=start)
    table, _ = leads(tmp_path, n_draws=50)
    assert table["comparison"].tolist() == [name for name in SPARED if name.startswith("fair")]
    assert not any(name.startswith("gain_") for name in table.columns)


def test_the_training_of_the_baseline_is_named(tmp_path):
    baseline = FineTune("resnet18", "digits", settings(epochs=15))
    record = described(baseline, "pqlib run none") | {"status": "done", "n_train": 45_000}
    Ledger(tmp_path, CONFIG).add("base", record)
    for method in ("lsq", "prune"):
        add(tmp_path, method, 2, 300)
    row = leads(tmp_path, n_draws=50)[0].iloc[0]
    assert (row["fp_epochs"], row["fp_n_train"], row["fp_value"]) == (15, 45_000, 98.0)


def test_what_has_no_partner_is_named_and_has_no_row(tmp_path):
    add(tmp_path, "lsq", 2, 200)
    add(tmp_path, "lsq", 3, 200)
    add(tmp_path, "prune", 3, 0, status="failed")
    add(tmp_path, "prune", 4, 300, seed=0)
    add(tmp_path, "lsq", 4, 300, seed=1)
    add(tmp_path, "post_training_prune", 8, 300, epochs=0)
    add(tmp_path, "post_training_quantize", 8, 380, epochs=0)
    table, left_out = leads(tmp_path, n_draws=50)
    assert table[["when", "n_bits"]].to_numpy().tolist() == [["post-training", 8]]
    assert left_out == [
        "resnet18 2 bits, fine-tuned: no pruning",
        "resnet18 3 bits, fine-tuned: no pruning",
        "resnet18 4 bits, fine-tuned: no seed in common",
    ]


def test_runs_from_different_trainings_of_the_baseline_are_not_compared(tmp_path):
    for seed, pruned_from in ((0, "a"), (1, "b"), (2, None)):  # older rows do not say
        add(tmp_path, "lsq", 4, 380, seed=seed, rate=0.01)
        add(tmp_path, "lsq", 4, 380, seed=seed, rate=0.03)
        add(tmp_path, "prune", 4, 300, seed=seed, start=pruned_from)
    add(tmp_path, "lsq", 8, 380)
    add(tmp_path, "prune", 8, 300, start="b")
    table, left_out = leads(tmp_path, n_draws=50)
    assert table[["n_bits", "seeds"]].to_numpy().tolist() == [[4, "0 2"]]
    assert left_out == [
        "resnet18 4 bits, fine-tuned: runs of seed 1 started from different trainings of the "
        "baseline",
        "resnet18 8 bits, fine-tuned: runs of seed 0 started from different trainings of the "
        "baseline",
    ]


def test_other_settings_are_other_rows(tmp_path):
    for epochs, pruned in ((4, 300), (8, 320)):
        add(tmp_path, "lsq", 4, 380, epochs=epochs)
        add(tmp_path, "prune", 4, pruned, epochs=epochs)
    table, _ = leads(tmp_path, n_draws=50)
    assert sorted(table["lead"]) == [15.0, 20.0]


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no sweep; name the --folder"):
        leads(tmp_path)
    add(tmp_path, "lsq", 2, 0, status="failed")
    with pytest.raises(ValueError, match="no finished run of quantization or pruning"):
        leads(tmp_path)


def test_a_run_without_its_images_is_named(tmp_path):
    lost = add(tmp_path, "lsq", 4, 380)
    add(tmp_path, "prune", 4, 300)
    (tmp_path / lost / "per_image.npz").unlink()
    with pytest.raises(FileNotFoundError, match=rf"per_image.npz is missing; copy it .*{lost}"):
        leads(tmp_path)


def test_command_writes_the_table_and_says_what_is_left_out(tmp_path):
    add(tmp_path, "lsq", 4, 380)
    add(tmp_path, "prune", 4, 381)
    add(tmp_path, "lsq", 5, 380)
    done = CliRunner().invoke(main, ["run", "leads", str(tmp_path), "--n-draws", "50"])
    assert done.exit_code == 0, done.output
    assert "resnet18 4 bits, fine-tuned: quantization 95.0, pruning 95.2, lead -0.2" in done.output
    assert "a tie" in done.output
    assert "left out: resnet18 5 bits, fine-tuned: no pruning" in done.output
    table = pd.read_csv(tmp_path / "leads.csv")
    assert table["winner"].tolist() == ["neither"]


def test_command_leaves_no_table_without_pairs(tmp_path):
    add(tmp_path, "lsq", 4, 380)
    done = CliRunner().invoke(main, ["run", "leads", str(tmp_path)])
    assert "no cell has both methods yet" in done.output
    assert not (tmp_path / "leads.csv").exists()
    missing = tmp_path / json.loads((tmp_path / "config.json").read_text())["experiment"]
    done = CliRunner().invoke(main, ["run", "leads", str(missing)])
    assert done.exit_code == 2
