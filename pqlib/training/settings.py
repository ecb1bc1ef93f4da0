"""How a network is trained: everything about the loop that its numbers depend on."""

from dataclasses import dataclass

from pqlib._validation import check_choice, check_integer, check_number

OPTIMIZERS = ("sgd", "adam", "adamw")
PRECISIONS = ("float32", "bf16", "fp16")


@dataclass(frozen=True)
class Settings:
    """Epochs, batches, optimizer, precision, threads and the seed of one training run.

    Attributes
    ----------
    epochs : int >= 0
        Passes over the training images; 0 trains nothing.
    batch_size : int >= 1
        Images of a step, over all processes. A smaller last batch of an epoch is left out, unless
        it is the only one.
    learning_rate : float > 0
        Of the weights, at the start; it falls along a cosine.
    optimizer : str
        "sgd" (with ``momentum``), "adam" or "adamw" (decay apart from the gradient). With the
        first two, decay is a term of the gradient.
    momentum : float in [0, 1), default 0.9
    weight_decay : float >= 0, default 0
        Of all parameters but the learned scales.
    scale_learning_rate : float > 0, default 1e-5
        Of the learned scales, in an Adam of their own without decay (appendix G of the paper).
    floor : float in [0, 1], default 0.01
        Share of both learning rates that is left at the end of the cosine.
    precision : str, default "float32"
        "bf16" and "fp16" compute the loss in mixed precision; the weights stay float32.
    channels_last : bool, default False
        Hold images and kernels in memory with the channels innermost: other bits, and faster for
        convolutions in mixed precision.
    deterministic : bool, default True
        Only algorithms that give the same bits twice; one that has none raises an error.
    n_threads : int >= 1, default 1
        Of each process; one and two threads give different bits.
    n_workers : int >= 0, default 0
        Processes beside each that read images. Numbers do not depend on it.
    seed : int, 0..2**31, default 0
        Of the order of images and of what is drawn in the network (dropout).
    max_steps : int >= 1, optional
        The schedules and the training end here if the epochs have more steps.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    scale_learning_rate: float = 1e-5
    floor: float = 0.01
    precision: str = "float32"
    channels_last: bool = False
    deterministic: bool = True
    n_threads: int = 1
    n_workers: int = 0
    seed: int = 0
    max_steps: int | None = None

    def __post_init__(self):
        check_integer("epochs", self.epochs, low=0, high=10**5)
        check_integer("batch_size", self.batch_size, low=1, high=10**6)
        for name in ("learning_rate", "scale_learning_rate"):
            check_number(name, getattr(self, name), low=0, high=1e3, open_low=True)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_number("momentum", self.momentum, low=0, high=1, open_high=True)
        check_number("weight_decay", self.weight_decay, low=0, high=10)
        check_number("floor", self.floor, low=0, high=1)
        check_choice("precision", self.precision, PRECISIONS)
        for name in ("channels_last", "deterministic"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        check_integer("n_threads", self.n_threads, low=1, high=1024)
        check_integer("n_workers", self.n_workers, low=0, high=1024)
        check_integer("seed", self.seed, low=0, high=2**31)
        if self.max_steps is not None:
            check_integer("max_steps", self.max_steps, low=1, high=10**9)

    def n_steps(self, n_images: int) -> int:
        """Optimizer steps of the whole run over ``n_images`` training images."""
        all_steps = self.epochs * self.steps_per_epoch(n_images)
        return all_steps if self.max_steps is None else min(all_steps, self.max_steps)

    def steps_per_epoch(self, n_images: int) -> int:
        """Whole batches of an epoch, at least one."""
        return max(n_images // self.batch_size, 1)
