"""The training loop: the same for plain, quantized and pruned networks, and for all three tasks."""

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pqlib.training import checkpoint as checkpoints
from pqlib.training.batches import DRAWS, load, order_of, seed_of
from pqlib.training.schedule import cosine
from pqlib.training.settings import Settings

if TYPE_CHECKING:
    from pqlib.training.compression import Compression


class TrainingError(RuntimeError):
    """Training that came to nothing; the message says at which step, and what to try."""


class Stop(Exception):
    """Raised by ``on_step``: the checkpoint is written, and `train` ends with this."""


@dataclass(frozen=True)
class History:
    """What a training run went through.

    Attributes
    ----------
    epochs : tuple of dict
        Of each epoch: "epoch" from 0, "loss" (mean over its steps), "learning_rate" (of its last
        step), and what ``on_epoch`` returned.
    n_steps : int
    seconds : float
        Of training, over all the processes that took part one after another.
    resumed_from : int, optional
        The step at which this process went on.
    notes : tuple of str
        Damaged or unwritable checkpoints, another version of torch.
    """

    epochs: tuple[dict[str, Any], ...]
    n_steps: int
    seconds: float
    resumed_from: int | None = None
    notes: tuple[str, ...] = ()


def train(
    model: nn.Module,
    task: Any,
    data: Any,
    settings: Settings,
    *,
    compression: "Compression | None" = None,
    checkpoint: str | os.PathLike | None = None,
    config: str | None = None,
    checkpoint_seconds: float = 60.0,
    on_step: Callable[[int, int, float], None] | None = None,
    on_epoch: Callable[[int, nn.Module], dict[str, Any] | None] | None = None,
    device: torch.device | str | None = None,
) -> History:
    """Train ``model`` in place.

    Parameters
    ----------
    model : torch.nn.Module
        Plain, or what `pqlib.training.compression.compress` made of it. Left on ``device``.
    task : pqlib.training.tasks.Task
        Gives the loss.
    data : pqlib.training.data.Data
        Its ``train`` is used, its ``set_epoch`` called.
    settings : Settings
    compression : Compression, optional
        Of ``model``; stepped before every forward pass, its scales trained in an Adam of their own.
    checkpoint : path-like, optional
        Where the state is kept. If there is one of the same ``config``, training goes on from it.
    config : str, optional
        Names the run in the checkpoint; by default a hash of settings, data and method.
    checkpoint_seconds : float, default 60
        Least time between two checkpoints; 0 writes one after each step.
    on_step : callable, optional
        ``on_step(step, n_steps, loss)`` after each step, ``step`` from 1. It may raise `Stop`.
    on_epoch : callable, optional
        ``on_epoch(epoch, model)`` after each epoch; what it returns, of JSON's types, goes into the
        history.
    device : optional
        The CPU by default; under ``accelerate launch``, what Accelerate gives the process.

    Returns
    -------
    History

    Raises
    ------
    TrainingError
        If the loss or, at the end, a weight is not finite.
    ValueError
        If there are no training images, or batches do not divide among the processes.

    Notes
    -----
    The order of the images comes from (seed, epoch) alone, and torch's generator is seeded from
    (seed, step) before each step. So both methods see the same images in the same order, and a run
    that goes on from a checkpoint, also from within an epoch, ends with the same bits as one that
    was never interrupted (same machine, versions and number of threads).

    Under ``accelerate launch`` each process takes its share of every batch, gradients are averaged
    (DistributedDataParallel), and the first process writes checkpoints. ``batch_size`` stays that
    of the whole step. Batch norm's statistics and the loss in the history are each process's own.
    """
    n_images = len(data.train)
    if n_images == 0:
        raise ValueError("data has no training images")
    rank, n_processes = _place()
    share = min(settings.batch_size, n_images)
    if share % n_processes:
        raise ValueError(
            f"a batch of {share} does not divide among {n_processes} processes; take a batch_size "
            "that does"
        )
    device = torch.device("cpu" if device is None else device)
    n_steps, per_epoch = settings.n_steps(n_images), settings.steps_per_epoch(n_images)
    config = config or _name(settings, data, compression)
    with reproducible(settings, device):
        if settings.channels_last:
            model.to(memory_format=torch.channels_last)
        wrapped = model.to(device)
        if n_processes > 1:
            wrapped, device = _distributed(model, device)
        optimizers = _optimizers(model, settings, compression)
        rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
        scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        step, losses, epochs, notes = 0, [], [], []
        before, resumed_from, begun = 0.0, None, time.monotonic()

        if checkpoint is not None:
            state, wrong = checkpoints.latest(checkpoint, config=config, device=device)
            if state is not None:
                model.load_state_dict(state["model"])
                for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
                    optimizer.load_state_dict(kept)
                scaler.load_state_dict(state["scaler"])
                step, losses, epochs = state["step"], state["losses"], state["epochs"]
                notes, before, resumed_from = state["notes"], state["seconds"], step
                if state["torch"] != torch.__version__:
                    wrong.append(f"begun with torch {state['torch']}: bits can differ")
            came = "began again" if state is None else f"went on from step {step}"
            notes += [f"{text}; {came}" for text in wrong]

        def seconds():
            return before + time.monotonic() - begun

        def keep():
            """Write the checkpoint; where it cannot be written, training goes on all the same."""
            state = {
                "step": step,
                "losses": losses,
                "epochs": epochs,
                "notes": notes,
                "seconds": seconds(),
                "torch": str(torch.__version__),
                "model": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "scaler": scaler.state_dict(),
            }
            try:
                checkpoints.save(checkpoint, state, config=config)
            except OSError as error:
                note = f"no checkpoint at some steps: {error.strerror}"
                if note not in notes:
                    notes.append(note)

        if n_processes > 1:
            torch.distributed.barrier()  # all have read the same checkpoint
        writes = checkpoint is not None and rank == 0
        written, kept_step = time.monotonic(), step
        while step < n_steps:
            epoch, done = divmod(step, per_epoch)
            data.set_epoch(epoch)
            wrapped.train()
            indices = order_of(n_images, settings, epoch)
            indices = [batch[rank::n_processes] for batch in indices[done : done + n_steps - step]]
            for batch in load(data.train, indices, task, settings):
                torch.manual_seed(seed_of(DRAWS, settings.seed, step, rank))
                if compression is not None:
                    compression.step(step, n_steps)
                factor = cosine(step, n_steps, settings.floor)
                for optimizer, starts in zip(optimizers, rates, strict=True):
                    for group, start in zip(optimizer.param_groups, starts, strict=True):
                        group["lr"] = start * factor
                    optimizer.zero_grad(set_to_none=True)
                with _precision(settings, device):
                    loss = task.loss(wrapped, task.to(batch, device))
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise TrainingError(
                        f"the loss is {value} at step {step} of {n_steps} (epoch {epoch}, learning "
                        f"rate {settings.learning_rate * factor:.3g}); the training has diverged: "
                        "take a smaller learning_rate"
                        + (", or precision bf16" if settings.precision == "fp16" else "")
                    )
                scaler.scale(loss).backward()
                for optimizer in optimizers:
                    scaler.step(optimizer)
                scaler.update()
                step += 1
                losses.append(value)
                if step % per_epoch == 0 or step == n_steps:
                    record = {
                        "epoch": epoch,
                        "loss": math.fsum(losses) / len(losses),
                        "learning_rate": settings.learning_rate * factor,
                    }
                    losses = []
                    if on_epoch is not None and rank == 0:
                        record |= on_epoch(epoch, model) or {}
                        wrapped.train()
                    epochs.append(record)
                if writes and step < n_steps and time.monotonic() - written >= checkpoint_seconds:
                    keep()
                    written, kept_step = time.monotonic(), step
                if on_step is not None:
                    try:
                        on_step(step, n_steps, value)
                    except Stop:
                        if writes and step != kept_step:
                            keep()
                        raise
        bad = next((n for n, p in model.named_parameters() if not p.isfinite().all()), None)
        if bad is not None:
            raise TrainingError(
                f"{bad} is not finite after {n_steps} steps; take a smaller learning_rate"
            )
        if writes and resumed_from != n_steps:
            keep()
    return History(tuple(epochs), n_steps, seconds(), resumed_from, tuple(notes))


@contextmanager
def reproducible(settings: Settings, device: torch.device | str) -> Iterator[None]:
    """Threads, algorithms and torch's generator as ``settings`` say; all put back at the end."""
    device = torch.device(device)
    threads = torch.get_num_threads()
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    benchmark = torch.backends.cudnn.benchmark
    if settings.deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        torch.set_num_threads(settings.n_threads)
        torch.use_deterministic_algorithms(settings.deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = False  # finds mistakes, costs time
        torch.backends.cudnn.benchmark = not settings.deterministic
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(settings.seed)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(algorithms, warn_only=warn)
        torch.utils.deterministic.fill_uninitialized_memory = fill
        torch.backends.cudnn.benchmark = benchmark


def _optimizers(model, settings, compression) -> list[torch.optim.Optimizer]:
    """One for the weights, and one for the learned scales where there are any."""
    scales = compression.scales() if compression is not None else []
    weights = compression.weights() if compression is not None else list(model.parameters())
    weights = [weight for weight in weights if weight.requires_grad]
    options = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, "fused": True}
    if settings.optimizer == "sgd":
        found = [torch.optim.SGD(weights, momentum=settings.momentum, **options)]
    else:
        kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
        found = [kind(weights, **options)]
    if scales:
        found.append(torch.optim.Adam(scales, lr=settings.scale_learning_rate, fused=True))
    return found


def _precision(settings, device):
    if settings.precision == "float32":
        return nullcontext()
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)


def _place() -> tuple[int, int]:
    """This process among those that ``accelerate launch`` started: its number, how many."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def _distributed(model, device):
    try:
        from accelerate import Accelerator
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "several processes need Accelerate; pip install 'pqlib[training]'"
        ) from None
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
    place = accelerator.device
    if place.type == "cpu":  # Accelerate numbers CPUs, which torch.load does not know
        place = torch.device("cpu")
    return accelerator.prepare(model), place


def _name(settings, data, compression) -> str:
    method = (compression.method, compression.n_bits) if compression is not None else None
    parts = settings, getattr(data, "name", ""), getattr(data, "size", None), method
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]
