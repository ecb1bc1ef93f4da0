"""The loop gives the same bits, whatever stands between its steps."""

import dataclasses
import errno
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchmetrics", reason="the extra `training` is not installed")

from finetune_cases import SETTINGS, assert_same_bits, opened, seeded, state_of  # noqa: E402

from pqlib.training import batches, loop  # noqa: E402
from pqlib.training.compression import compress  # noqa: E402
from pqlib.training.loop import Stop, TrainingError, train  # noqa: E402
from pqlib.training.settings import Settings  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
METHODS = (None, "lsq", "prune")
N_STEPS = 9  # three epochs of three


def begun(method, **options):
    data, task = opened(**options)
    model = seeded()
    return model, task, data, compress(model, method, 3) if method else None


def trained(method, settings=SETTINGS, checkpoint=None, **options):
    model, task, data, compression = begun(method)
    history = train(
        model,
        task,
        data,
        settings,
        compression=compression,
        checkpoint=checkpoint,
        checkpoint_seconds=0,
        **options,
    )
    return state_of(model), history


def stopping(at):
    def on_step(step, n_steps, loss):
        assert n_steps == N_STEPS and math.isfinite(loss)
        if step == at:
            raise Stop

    return on_step


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, method):
    whole, history = trained(method)
    assert history.n_steps == N_STEPS and len(history.epochs) == 3
    assert history.epochs[0]["loss"] > history.epochs[-1]["loss"]
    for stops in ((1,), (3,), (5,), (8,), (2, 4, 7)):
        path = tmp_path / f"{stops}.pt"
        for at in stops:
            with pytest.raises(Stop):
                trained(method, checkpoint=path, on_step=stopping(at))
        torch.rand(3)  # the global generator is somewhere else
        state, resumed = trained(method, checkpoint=path)
        assert_same_bits(state, whole)
        assert resumed.epochs == history.epochs
        assert resumed.resumed_from == stops[-1] and not resumed.notes
        assert trained(method, checkpoint=path)[1].epochs == history.epochs  # at its end already


def test_a_run_killed_at_any_write_ends_with_the_same_bits(tmp_path, monkeypatch):
    whole, _ = trained("lsq")
    rename = Path.replace
    for n in range(1, 8):
        path, calls = tmp_path / f"{n}.pt", []

        def replace(self, target, n=n, calls=calls):
            calls.append(target)
            if len(calls) == n:
                raise KeyboardInterrupt
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            with pytest.raises(KeyboardInterrupt):
                trained("lsq", checkpoint=path)
        assert_same_bits(trained("lsq", checkpoint=path)[0], whole)


@pytest.mark.parametrize("damaged", [(".pt",), (".pt", ".pt.before")])
def test_damaged_checkpoints_cost_time_and_are_noted(tmp_path, damaged):
    whole, _ = trained("prune")
    path = tmp_path / "run.pt"
    with pytest.raises(Stop):
        trained("prune", checkpoint=path, on_step=stopping(6))
    for end in damaged:
        file = tmp_path / f"run{end}"
        file.write_bytes(file.read_bytes()[:-100])
    state, history = trained("prune", checkpoint=path)
    assert_same_bits(state, whole)
    came = "went on from step 5" if len(damaged) == 1 else "began again"
    assert len(history.notes) == len(damaged) and all(came in note for note in history.notes)


def test_a_full_disk_does_not_stop_the_training(tmp_path, monkeypatch):
    whole, _ = trained("lsq")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    state, history = trained("lsq", checkpoint=tmp_path / "run.pt")
    assert_same_bits(state, whole)
    assert len(history.notes) == 1 and "No space left" in history.notes[0]


def test_both_methods_see_the_same_images_in_the_same_order(monkeypatch):
    seen = {}
    for method in METHODS:
        model, task, data, compression = begun(method)
        batches = seen[method] = []
        collate = type(task).collate
        monkeypatch.setattr(
            type(task),
            "collate",
            lambda self, examples, keep=batches, make=collate: (
                keep.append(make(self, examples)) or keep[-1]
            ),
        )
        train(model, task, data, SETTINGS, compression=compression)
        monkeypatch.undo()
    labels = {m: [b["labels"].tolist() for b in batches] for m, batches in seen.items()}
    assert labels[None] == labels["lsq"] == labels["prune"]
    assert labels[None][:3] != labels[None][3:6]  # another order in each epoch
    one = [label for batch in labels[None][:3] for label in batch]
    assert len(one) == 96 and len(set(map(tuple, labels[None]))) == 9


def test_worker_processes_change_nothing():
    whole, _ = trained("lsq")
    assert_same_bits(trained("lsq", dataclasses.replace(SETTINGS, n_workers=2))[0], whole)


def test_seed_and_settings_change_the_numbers():
    whole, _ = trained(None)
    for change in ({"seed": 5}, {"learning_rate": 0.09}, {"momentum": 0.8}, {"floor": 0.5}):
        other, _ = trained(None, dataclasses.replace(SETTINGS, **change))
        assert not torch.equal(other["0.weight"], whole["0.weight"])


def test_scales_have_an_adam_of_their_own():
    model, _, _, compression = begun("lsq")
    settings = dataclasses.replace(SETTINGS, optimizer="adamw")
    weights, scales = loop._optimizers(model, settings, compression)
    assert isinstance(weights, torch.optim.AdamW) and type(scales) is torch.optim.Adam
    group = scales.param_groups[0]
    assert group["lr"] == 1e-5 and group["weight_decay"] == 0
    assert {id(p) for p in group["params"]} == {id(s) for s in compression.scales()}
    assert not {id(p) for p in weights.param_groups[0]["params"]} & {id(p) for p in group["params"]}
    n = len(weights.param_groups[0]["params"]) + len(group["params"])
    assert n == len(list(model.parameters())) == 8  # two layers, batch norm, two scales
    assert weights.param_groups[0]["weight_decay"] == 1e-3
    assert len(loop._optimizers(seeded(), settings, None)) == 1


def test_a_plain_step_is_that_of_the_formula():
    """One epoch of SGD with momentum along the cosine, written out."""
    settings = dataclasses.replace(SETTINGS, epochs=1)
    found, history = trained(None, settings)
    model, task, data, _ = begun(None)
    velocity = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data.set_epoch(0)
    for step, indices in enumerate(batches.order_of(len(data.train), settings, 0)):
        with torch.random.fork_rng():
            torch.manual_seed(batches.seed_of(batches.DRAWS, settings.seed, step, 0))
            loss = task.loss(model, task.collate([data.train[i] for i in indices]))
        model.zero_grad()
        loss.backward()
        rate = 0.1 * (0.01 + 0.99 * (1 + math.cos(math.pi * step / 2)) / 2)
        with torch.no_grad():
            for name, p in model.named_parameters():
                velocity[name] = 0.9 * velocity[name] + p.grad + 1e-3 * p
                p -= rate * velocity[name]
    torch.set_num_threads(threads)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    assert history.epochs[0]["learning_rate"] == pytest.approx(0.1 * 0.01)


def test_epochs_and_steps():
    seen = []

    def on_epoch(epoch, model):
        model.eval()
        seen.append(epoch)
        return {"seen": epoch}

    _, history = trained("lsq", dataclasses.replace(SETTINGS, max_steps=5), on_epoch=on_epoch)
    assert history.n_steps == 5 and seen == [0, 1]
    assert [e["seen"] for e in history.epochs] == [0, 1]
    assert history.epochs[1]["learning_rate"] == pytest.approx(0.001)  # the cosine has ended
    assert trained(None, dataclasses.replace(SETTINGS, epochs=0))[1].epochs == ()
    assert Settings(2, 200, 0.1).n_steps(120) == 2  # one batch, smaller
    assert trained(None, dataclasses.replace(SETTINGS, batch_size=200))[1].n_steps == 3


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains(precision):
    state, history = trained("lsq", dataclasses.replace(SETTINGS, precision=precision))
    assert history.epochs[0]["loss"] > history.epochs[-1]["loss"]
    assert state["0.bias"].dtype == torch.float32


@pytest.mark.parametrize("method", METHODS)
def test_channels_last_changes_the_memory_alone(tmp_path, method):
    settings = dataclasses.replace(SETTINGS, channels_last=True)
    plain, _ = trained(method)
    whole, history = trained(method, settings)
    weights = [value for value in whole.values() if value.dim() == 4 and value.shape[1] > 1]
    assert weights
    for value in weights:
        assert value.is_contiguous(memory_format=torch.channels_last) != value.is_contiguous()
    for name, value in plain.items():  # rounding apart; with LSQ a weight can go to its neighbour
        torch.testing.assert_close(whole[name], value, rtol=1e-3, atol=1e-4)
    with pytest.raises(Stop):
        trained(method, settings, tmp_path / "run.pt", on_step=stopping(5))
    state, resumed = trained(method, settings, tmp_path / "run.pt")
    assert_same_bits(state, whole)
    assert resumed.epochs == history.epochs and resumed.resumed_from == 5


def test_a_loss_that_is_none_ends_the_training():
    model, task, data, _ = begun(None)

    def on_step(step, n_steps, loss):
        if step == 4:
            with torch.no_grad():
                model[5].weight[0, 0] = math.nan

    with pytest.raises(TrainingError, match=r"loss is nan at step 4 of 9.*smaller learning_rate"):
        train(model, task, data, SETTINGS, on_step=on_step)


def test_weights_that_are_none_at_the_end_are_noticed():
    model, task, data, _ = begun(None)

    def on_step(step, n_steps, loss):
        if step == n_steps:
            with torch.no_grad():
                model[5].weight[0, 0] = math.inf

    with pytest.raises(TrainingError, match=r"5\.weight is not finite"):
        train(model, task, data, SETTINGS, on_step=on_step)


def test_global_state_is_put_back():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        trained("prune")
        assert torch.get_num_threads() == 2
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.utils.deterministic.fill_uninitialized_memory
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_num_threads(threads)


def test_batches_for_evaluation():
    data, task = opened()
    sizes = [len(b["labels"]) for b in batches.batches_of(data.test, task, SETTINGS)]
    assert sizes == [32, 32, 32, 24]
    whole = [len(b["labels"]) for b in batches.batches_of(data.train, task, SETTINGS, n_batches=9)]
    assert whole == [32, 32, 32]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"epochs": -1}, "epochs must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"learning_rate": 0}, "learning_rate must be"),
        ({"learning_rate": math.nan}, "learning_rate must be"),
        ({"optimizer": "lion"}, "optimizer must be one of sgd"),
        ({"momentum": 1.0}, "momentum must be"),
        ({"precision": "fp8"}, "precision must be one of"),
        ({"n_threads": 0}, "n_threads must be"),
        ({"max_steps": 0}, "max_steps must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_settings_are_checked(change, text):
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(SETTINGS, **change)


def test_flags_are_true_or_false():
    for name in ("channels_last", "deterministic"):
        with pytest.raises(TypeError, match=f"{name} must be True or False, got 1"):
            dataclasses.replace(SETTINGS, **{name: 1})


PARALLEL = """
import json, os, sys
import torch
from finetune_cases import SETTINGS, opened
from pqlib.training.compression import compress
from pqlib.training.loop import Stop, train

data, task = opened()
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 16), torch.nn.ReLU(),
                            torch.nn.Linear(16, 10))
compression = compress(model, "lsq", 3)
stop = int(sys.argv[2])

def on_step(step, *_):
    if step == stop:
        raise Stop

try:
    history = train(model, task, data, SETTINGS, compression=compression, on_step=on_step,
                    checkpoint=sys.argv[1] + ".pt", checkpoint_seconds=0)
except Stop:
    sys.exit()
assert int(os.environ.get("WORLD_SIZE", 1)) == int(sys.argv[3])
if int(os.environ.get("RANK", 0)) == 0:
    torch.save(model.state_dict(), sys.argv[1])
"""


@pytest.mark.slow
def test_two_processes_under_accelerate(tmp_path):
    """Half of each batch each: the same training, but for the order of sums; and resumed."""
    pytest.importorskip("accelerate")
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    # on CPUs `accelerate launch` starts one process; torchrun gives them the same variables
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    states = {}
    for name, words, n, stops in (
        ("one", [sys.executable], "1", (0,)),
        ("two", launch, "2", (0,)),
        ("resumed", launch, "2", (4, 0)),
    ):
        for stop in stops:
            command = [*words, str(script), str(tmp_path / name), str(stop), n]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, done.stderr[-3000:]
        states[name] = torch.load(tmp_path / name)
    for name, value in states["one"].items():
        torch.testing.assert_close(states["two"][name], value, rtol=1e-3, atol=1e-4)
    assert_same_bits(states["resumed"], states["two"])


def test_a_batch_must_divide_among_the_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="batch of 32 does not divide among 3 processes"):
        trained(None)
