"""One run from config to record, in this process."""

import dataclasses
import errno
import json
import os
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchmetrics", reason="the extra `training` is not installed")

from finetune_cases import CONFIG, tiny  # noqa: E402

from pqlib.experiments import finetune_run, table1  # noqa: E402
from pqlib.experiments.ledger import Ledger  # noqa: E402
from pqlib.training import checkpoint as checkpoints  # noqa: E402
from pqlib.training.data import open_data  # noqa: E402
from pqlib.training.tasks import open_task  # noqa: E402

LSQ = dataclasses.replace(CONFIG, method="lsq", n_bits=2, baseline=CONFIG.hash)


def work(config, folder, seconds=0.0):
    return table1.work(config, folder, seconds, "pqlib run ...")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a baseline that is done."""
    folder = tmp_path_factory.mktemp("sweep")
    assert work(CONFIG, folder)["status"] == "done"
    return folder


def test_a_record_says_what_is_needed(folder):
    record = work(LSQ, folder)
    assert record["status"] == "done" and record["reason"] == "" and record["notes"] == ""
    assert record["metric"] == "accuracy" and 0 <= record["value"] <= 100
    baseline = Ledger(folder, table1.CONFIG).get(CONFIG.hash)
    assert record["fp_value"] == baseline["value"] == baseline["fp_value"] > 20
    assert record["baseline_fingerprint"] == baseline["fingerprint"] != record["fingerprint"]
    assert baseline["baseline_fingerprint"] is None
    assert record["bits_per_weight"] == 2.0 and record["sparsity"] > 0.1
    assert (record["n_train"], record["n_test"], record["n_steps"]) == (120, 120, 9)
    for name in ("hash", "learning_rate", "epochs", "seconds", "hardware", "versions", "commit"):
        assert name in record
    assert record["command"] == "pqlib run ..." and "torch=" in record["versions"]
    own = folder / LSQ.hash
    rows = np.load(own / "per_image.npz")
    assert 100 * rows["test"].mean() == pytest.approx(record["value"])
    assert 100 * rows["validation"].mean() == pytest.approx(record["validation_value"])
    assert len(json.loads((own / "history.json").read_text())) == 3
    assert [row["n_bits"] for row in json.loads((own / "layers.json").read_text())] == [2, 2]
    assert not (own / "checkpoint.pt").exists() and not (own / "weights.pt").exists()
    assert json.loads(json.dumps(record)) == record


def test_a_baseline_that_is_trained_again_to_other_bits_says_so(tmp_path):
    first = work(CONFIG, tmp_path)
    assert work(CONFIG, tmp_path)["notes"] == first["notes"] == ""
    elsewhere = first | {"fingerprint": "of another machine"}
    Ledger(tmp_path, table1.CONFIG).add(CONFIG.hash, elsewhere)
    finetune_run.weights_of(tmp_path, CONFIG.hash).unlink()
    again = work(CONFIG, tmp_path)
    assert again["fingerprint"] == first["fingerprint"]
    assert "trained again, to other bits" in again["notes"]


def test_a_baseline_of_more_images_is_measured_on_those_of_the_run(folder):
    few = dataclasses.replace(LSQ, limit=30, settings=dataclasses.replace(LSQ.settings, epochs=1))
    baseline = Ledger(folder, table1.CONFIG).get(CONFIG.hash)
    record = work(few, folder)
    assert (baseline["n_test"], record["n_test"], record["n_train"]) == (120, 30, 30)
    source = {"task": "classification", "size": CONFIG.size, "seed": CONFIG.seed}
    data = open_data(CONFIG.data, limit=30, **source)
    task, net = open_task(CONFIG.model, data), tiny()
    weights = finetune_run.weights_of(folder, CONFIG.hash)
    net.load_state_dict(checkpoints.load(weights, config=CONFIG.hash)["model"])
    found = task.evaluate(net, [task.collate([data.test[i] for i in range(30)])])
    assert record["fp_value"] == pytest.approx(found["accuracy"]) != baseline["value"]


@pytest.mark.parametrize("method", ["prune", "post_training_prune", "post_training_quantize"])
def test_methods(folder, method):
    epochs = 3 if method == "prune" else 0
    settings = dataclasses.replace(LSQ.settings, epochs=epochs)
    record = work(dataclasses.replace(LSQ, method=method, n_bits=4, settings=settings), folder)
    assert record["status"] == "done", record
    assert record["bits_per_weight"] == pytest.approx(4.0, abs=0.01)
    if "prune" in method:
        assert record["sparsity"] == pytest.approx(0.75, abs=0.001)
    assert record["n_steps"] == (9 if epochs else 0)


def test_a_baseline_that_is_not_trained_keeps_its_statistics(tmp_path):
    settings = dataclasses.replace(CONFIG.settings, epochs=0)
    record = work(dataclasses.replace(CONFIG, settings=settings), tmp_path)
    assert record["status"] == "done" and record["n_steps"] == 0
    state = checkpoints.load(tmp_path / record["hash"] / "weights.pt", config=record["hash"])
    assert (state["model"]["1.running_mean"] == 0).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": "python:finetune_cases:without_memory"}, "out of memory: CUDA.*smaller batch"),
        ({"model": "python:finetune_cases:diverging"}, "TrainingError: the loss is nan at step 0"),
        ({"data": "folder:/nowhere/at/all"}, "FileNotFoundError: .*nowhere"),
        ({"model": "python:finetune_cases:nosuch"}, "ValueError: .*nosuch"),
        ({"device": "cuda"}, "ValueError: device 'cuda' needs a GPU"),
    ],
)
def test_a_failure_is_a_row_with_its_reason(tmp_path, change, reason):
    if "device" in change and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    config = dataclasses.replace(CONFIG, **change)
    record = work(config, tmp_path)
    assert record["status"] == "failed"
    assert re.search(reason, record["reason"]), record["reason"]
    assert Ledger(tmp_path, table1.CONFIG).get(config.hash) == record
    assert "Traceback" in (tmp_path / config.hash / "error.txt").read_text()


def test_a_missing_baseline_network_is_a_failure(tmp_path):
    record = work(LSQ, tmp_path)
    assert record["status"] == "failed" and "FileNotFoundError" in record["reason"]


def full(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_at_the_end_costs_no_training(tmp_path, monkeypatch):
    """The row cannot be written: the checkpoint of the last step stays, and gives the same row."""
    whole = work(CONFIG, tmp_path / "whole")
    folder = tmp_path / "run"
    sync, state = os.fsync, {"full": False}
    monkeypatch.setattr(os, "fsync", lambda d: full(d) if state["full"] else sync(d))
    evaluate = finetune_run.open_task

    def filling(*arguments, **options):
        task = evaluate(*arguments, **options)
        found = type(task).evaluate

        def evaluated(*a, **o):
            state["full"] = True
            return found(task, *a, **o)

        object.__setattr__(task, "evaluate", evaluated)
        return task

    monkeypatch.setattr(finetune_run, "open_task", filling)
    record = work(CONFIG, folder)
    assert record["status"] == "failed" and record["reason"].startswith(
        "the disk is full: No space"
    )
    assert Ledger(folder, table1.CONFIG).get(CONFIG.hash) is None
    state["full"] = False
    monkeypatch.setattr(finetune_run, "open_task", evaluate)
    steps = []
    again = table1.work(CONFIG, folder, 0.0, "", lambda at: steps.append(at) and False)
    assert not steps  # no step was trained twice
    assert again["fingerprint"] == whole["fingerprint"] and again["value"] == whole["value"]


def test_told_to_stop_it_goes_on_later(tmp_path):
    whole = work(CONFIG, tmp_path / "whole")
    folder = tmp_path / "run"
    assert table1.work(CONFIG, folder, 60.0, "", lambda at: at[0] == 5) is None
    assert Ledger(folder, table1.CONFIG).records() == {}
    steps = []
    record = table1.work(CONFIG, folder, 60.0, "", lambda at: steps.append(at[0]) and False)
    assert steps == [6, 7, 8, 9]
    assert record["fingerprint"] == whole["fingerprint"]


def test_two_processes_do_not_work_on_one_run(tmp_path, monkeypatch):
    monkeypatch.setattr(finetune_run, "_CLAIM_S", 0.2)
    with finetune_run.claimed(tmp_path / CONFIG.hash):
        with (
            pytest.raises(ValueError, match="another process is at work"),
            finetune_run.claimed(tmp_path / CONFIG.hash),
        ):
            pass
        assert (tmp_path / CONFIG.hash / "running").read_text() == str(os.getpid())
    with finetune_run.claimed(tmp_path / CONFIG.hash):
        pass


def test_images_per_second():
    assert finetune_run.images_per_second(CONFIG) > 10
    assert finetune_run.sizes_of(CONFIG) == (120, 120 + 120)
