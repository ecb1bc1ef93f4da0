"""One fine-tuning run, from its config to its record."""

import dataclasses
import io
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pqlib.claims import claim
from pqlib.experiments.finetune_config import POST_TRAINING, FineTune
from pqlib.experiments.finetune_record import described, fingerprint
from pqlib.training import checkpoint as checkpoints
from pqlib.training.batch_norm import reestimate
from pqlib.training.batches import batches_of
from pqlib.training.compression import compress, post_training
from pqlib.training.data import open_data
from pqlib.training.loop import History, Stop, reproducible, train
from pqlib.training.models import build_model, task_of
from pqlib.training.tasks import open_task

Report = Callable[[tuple[int, int, float]], bool]
Watch = Callable[[torch.nn.Module, Any, Any], Callable[[int, torch.nn.Module], dict[str, Any]]]
_CLAIM_S = 60  # to wait for a process that is about to end


def run(
    config: FineTune,
    folder: Path,
    *,
    baseline: Mapping[str, Any] | None = None,
    checkpoint_seconds: float = 60.0,
    command: str = "",
    report: Report | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Train, measure batch norm again, evaluate; what the ledger keeps.

    Parameters
    ----------
    config : FineTune
    folder : Path
        Of the sweep. The run's own, ``folder/HASH``, holds its checkpoint, ``history.json``,
        ``per_image.npz`` (what each test image adds to the metric) and, of a baseline,
        ``weights.pt``.
    baseline : mapping, optional
        The record of the run that ``config.baseline`` names.
    checkpoint_seconds : float, default 60
    command : str
        Makes the row again; kept in the record.
    report : callable, optional
        Given (step, n_steps, loss) after each step; where it returns True, the checkpoint is
        written and `Stop` raised.
    watch : callable, optional
        Given (model, task, data) before anything is compressed, it returns ``on_epoch`` of `train`.

    Returns
    -------
    dict
        Of JSON's types: the config's fields, "value" (on the test images), "validation_value" (on
        the validation images: learning rates are chosen by it), "fp_value" (of the baseline, on
        this run's test images), "bits_per_weight", "sparsity", "fingerprint" (SHA-256 of the
        weights, equal for equal bits), "baseline_fingerprint" (of those it started from), and what
        is needed to make the row again.

    Raises
    ------
    ValueError, OSError, TrainingError, torch.OutOfMemoryError, ...
        Whatever goes wrong; `finetune_record.failure` makes a record of it.
    """
    begun = time.monotonic()
    own = folder / config.hash
    rank = int(os.environ.get("RANK", 0))
    settings, device = config.settings, _device(config)
    with claimed(own, wait=rank == 0), reproducible(settings, device):
        data = _opened(config)
        task = open_task(config.model, data, variant=config.variant)
        model = build_model(
            config.model,
            n_classes=data.n_classes,
            size=config.size,
            stem=config.stem,
            patch=config.patch,
            weights=config.weights if config.baseline is None else None,
            variant=config.variant,
            seed=config.seed,
        )
        if config.baseline is not None:
            kept = checkpoints.load(weights_of(folder, config.baseline), config=config.baseline)
            model.load_state_dict(kept["model"])
        whole, n_test = (baseline or {}).get("value"), len(data.test)
        if baseline is not None and baseline.get("n_test", n_test) != n_test and rank == 0:
            batches = batches_of(data.test, task, settings)  # it had more images, or fewer
            whole = task.evaluate(model.to(device), batches, device=device)[task.metric]
        on_epoch = watch(model, task, data) if watch is not None else None
        compression = _compressed(model, config)
        history = History((), 0, 0.0)
        if config.trains:

            def on_step(*at):
                if report is not None and report(at):
                    raise Stop

            history = train(
                model,
                task,
                data,
                settings,
                compression=compression,
                checkpoint=own / "checkpoint.pt",
                config=config.hash,
                checkpoint_seconds=checkpoint_seconds,
                on_step=on_step,
                on_epoch=on_epoch,
                device=device,
            )
        if rank > 0:
            return {}
        model.to(device)
        if config.trains or config.method != "none":  # untouched pretrained ones keep their own
            data.set_epoch(0)
            batches = batches_of(data.train, task, settings, n_batches=config.bn_batches)
            reestimate(
                model,
                (task.to(batch, device) for batch in batches),
                forward=lambda net, batch: net(task.inputs(batch)),
            )
        bits, sparsity = 16.0, 0.0
        if compression is not None:
            bits, table = compression.bits_per_weight(), compression.table()
            n = sum(row["n_weights"] for row in table)
            sparsity = sum(row["n_weights"] * row["sparsity"] for row in table) / n
            _write(own / "layers.json", json.dumps(table, indent=1).encode())
            compression.bake()
        found = {
            split: task.evaluate(model, batches_of(images, task, settings), device=device)
            for split, images in (("validation", data.validation), ("test", data.test))
        }
        for split, result in found.items():
            if not np.isfinite(result[task.metric]):
                raise ValueError(f"{task.metric} on the {split} images is {result[task.metric]}")
        _write(own / "history.json", json.dumps(history.epochs, indent=1).encode())
        _write(own / "per_image.npz", _packed({k: v.get("per_image") for k, v in found.items()}))
        if config.method == "none":
            state = {k: v.cpu() for k, v in model.state_dict().items()}
            checkpoints.save(weights_of(folder, config.hash), {"model": state}, config=config.hash)
        value = found["test"][task.metric]
        return described(config, command) | {
            "status": "done",
            "reason": "",
            "notes": "; ".join(history.notes),
            "task": data.task,
            "metric": task.metric,
            "value": value,
            "validation_value": found["validation"][task.metric],
            "fp_value": value if config.method == "none" else whole,
            "baseline_fingerprint": (baseline or {}).get("fingerprint"),
            "bits_per_weight": bits,
            "sparsity": sparsity,
            "n_train": len(data.train),
            "n_test": len(data.test),
            "n_steps": history.n_steps,
            "loss": history.epochs[-1]["loss"] if history.epochs else None,
            "seconds": history.seconds or time.monotonic() - begun,
            "fingerprint": fingerprint(model),
        }


def weights_of(folder: Path, run_hash: str) -> Path:
    """Where the network of a baseline is kept."""
    return folder / run_hash / "weights.pt"


def weights_are_sound(folder: Path, run_hash: str) -> bool:
    """Whether a baseline's network is there and undamaged."""
    try:
        checkpoints.load(weights_of(folder, run_hash), config=run_hash)
    except (OSError, checkpoints.CheckpointError):
        return False
    return True


def forget_checkpoint(folder: Path, run_hash: str) -> None:
    """Delete the checkpoint of a run that has its row."""
    checkpoints.remove(folder / run_hash / "checkpoint.pt")


def keep_trace(folder: Path, run_hash: str, error: BaseException) -> None:
    """Write the traceback beside the run, if that can be done."""
    text = "".join(traceback.format_exception(error))
    try:
        (folder / run_hash).mkdir(parents=True, exist_ok=True)
        _write(folder / run_hash / "error.txt", text.encode())
    except OSError:
        return


def images_per_second(config: FineTune, n_steps: int = 3) -> float:
    """Training images a second here and now: one step unmeasured, then ``n_steps``."""
    times = []

    def on_step(step, *_):
        if torch.device(config.device).type == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic())
        if step > n_steps:
            raise Stop

    settings = dataclasses.replace(config.settings, max_steps=None, epochs=n_steps + 1)
    data = _opened(config)
    options = {"stem": config.stem, "patch": config.patch, "variant": config.variant}
    model = build_model(config.model, n_classes=data.n_classes, size=config.size, **options)
    try:
        task = open_task(config.model, data, variant=config.variant)
        train(model, task, data, settings, on_step=on_step, device=_device(config))
    except Stop:
        pass
    images = min(settings.batch_size, len(data.train)) * (len(times) - 1)
    return images / (times[-1] - times[0])


def sizes_of(config: FineTune) -> tuple[int, int]:
    """Images for training, and for validation and test together."""
    data = _opened(config)
    return len(data.train), len(data.validation) + len(data.test)


@contextmanager
def claimed(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Work on the folder of one run alone; the claim ends with the process, however that ends.

    A process that was about to end, such as the orphan of a killed sweep, is waited for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not wait:  # the first of several processes has the claim for all
        yield
        return
    with (folder / "running").open("a+") as running:
        end = time.monotonic() + _CLAIM_S
        while True:
            try:
                claim(running)
                break
            except OSError:
                if time.monotonic() > end:
                    raise ValueError(
                        f"another process is at work on {folder}; wait for it, or end it"
                    ) from None
                time.sleep(0.1)
        for torn in folder.glob("*.tmp"):
            torn.unlink(missing_ok=True)
        running.truncate(0)
        running.write(str(os.getpid()))
        running.flush()
        yield


def _opened(config):
    return open_data(
        config.data,
        task=task_of(config.model),
        size=config.size,
        seed=config.seed,
        limit=config.limit,
        augment=config.augment,
        validation=config.validation,
    )


def _compressed(model, config):
    if config.n_bits is None:
        return None
    options = {"keep_first_last": config.keep_first_last}
    if config.method in POST_TRAINING:
        method = "prune" if config.method == "post_training_prune" else "lsq"
        return post_training(model, method, config.n_bits, **options)
    options |= {"scaled_gradient": config.scaled_gradient, "monotone": config.monotone}
    if config.method == "prune_at_once":
        return compress(model, "prune", config.n_bits, at_once=True, **options)
    return compress(model, config.method, config.n_bits, **options)


def _device(config):
    device = torch.device(config.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' needs a GPU, and torch finds none; take --device cpu")
    return device


def _packed(arrays) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **{k: v for k, v in arrays.items() if v is not None})
    return stream.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Replace a file as a whole."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, f"{error.strerror}: {path.name} in {path.parent}") from None
