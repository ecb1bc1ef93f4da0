"""What one fine-tuning run computes."""

import dataclasses
from dataclasses import dataclass, field

from pqlib._validation import check_choice, check_integer
from pqlib.experiments.ledger import config_hash
from pqlib.grids import MAX_BITS
from pqlib.training.settings import Settings

TRAINED = ("lsq", "prune")
POST_TRAINING = ("post_training_quantize", "post_training_prune")
METHODS = ("none", *POST_TRAINING, *TRAINED)
CONTROLS = ("prune_at_once", "uncompressed")
_FORMAT = 1  # of the records; another one is not read from an old folder


def check_device(device: str) -> str:
    """Return ``device`` if torch may know it; whether it is there shows when it is used."""
    kind, _, number = device.partition(":") if isinstance(device, str) else ("", "", "")
    if kind not in ("cpu", "cuda", "mps", "xpu") or (number and not number.isdecimal()):
        raise ValueError(f"device must be such as cpu, cuda or cuda:1, got {device!r}")
    return device


@dataclass(frozen=True)
class FineTune:
    """One run: a network, data, one method at one budget, one learning rate, one seed.

    Attributes
    ----------
    model, size, stem, patch, weights, variant
        As `pqlib.training.models.build_model` takes them.
    data, limit, augment, validation
        As `pqlib.training.data.open_data` takes them.
    method : str
        "none" trains the network as it is, for the baseline; "lsq" and "prune" fine-tune it
        compressed; "post_training_quantize" and "post_training_prune" compress it and train
        nothing. For comparison "prune_at_once" has all its zeros before the first step, and
        "uncompressed" fine-tunes a baseline as it is.
    n_bits : int, 2..16
        Bits per weight; None for methods "none" and "uncompressed".
    settings : Settings
        Of the training; its seed also draws the data's split and the network's first weights.
    baseline : str, optional
        Hash of the run whose network this one starts from; None starts from ``weights``.
    keep_first_last : bool, default False
        Leave the first and the last layer at 8 bits, or at the sparsity that matches 8 bits.
    scaled_gradient : bool, default True
        LSQ's factor 1/sqrt(N qmax) of the scales' gradients.
    monotone : bool, default False
        What is pruned stays pruned.
    bn_batches : int, default 64
        Training batches, at most, on which batch norm is measured again before evaluation.
    device : str, default "cpu"
        "cuda" gives other bits.
    """

    model: str
    data: str
    settings: Settings = field(default_factory=lambda: Settings(1, 32, 0.01))
    method: str = "none"
    n_bits: int | None = None
    baseline: str | None = None
    size: int | tuple[int, int] = 32
    stem: str = "imagenet"
    patch: int | None = None
    weights: str | None = None
    variant: str | None = None
    limit: int | None = None
    augment: bool = True
    validation: str | None = None
    keep_first_last: bool = False
    scaled_gradient: bool = True
    monotone: bool = False
    bn_batches: int = 64
    device: str = "cpu"

    def __post_init__(self):
        for name in ("model", "data", "stem", "device"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise TypeError(f"{name} must be a text that is not empty, got {value!r}")
        if not isinstance(self.settings, Settings):
            raise TypeError(f"settings must be Settings, got {self.settings!r}")
        check_choice("method", self.method, (*METHODS, *CONTROLS))
        if self.method == "none":
            if self.n_bits is not None or self.baseline is not None:
                raise ValueError(
                    "n_bits and baseline must be None with method 'none', got "
                    f"{self.n_bits!r} and {self.baseline!r}"
                )
        elif self.method == "uncompressed":
            if self.n_bits is not None:
                raise ValueError(f"n_bits must be None if uncompressed, got {self.n_bits!r}")
        else:
            check_integer("n_bits", self.n_bits, low=2, high=MAX_BITS)
        if isinstance(self.size, list | tuple):
            object.__setattr__(self, "size", tuple(self.size))
        for name in ("augment", "keep_first_last", "scaled_gradient", "monotone"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.limit is not None:
            check_integer("limit", self.limit, low=1, high=10**9)
        check_integer("bn_batches", self.bn_batches, low=1, high=10**6)
        check_device(self.device)

    @property
    def seed(self) -> int:
        """Of everything that is drawn."""
        return self.settings.seed

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return self.method not in POST_TRAINING and self.settings.epochs > 0

    def as_json(self) -> dict[str, object]:
        """All of it, and the format of the records; ``n_workers`` changes no number.

        ``channels_last`` is named where it is True: the records without it are older than it.
        """
        plain = dataclasses.asdict(self)
        del plain["settings"]["n_workers"]
        if not self.settings.channels_last:
            del plain["settings"]["channels_last"]
        return plain | {"format": _FORMAT}

    @property
    def hash(self) -> str:
        """Names the run in the ledger, and its folder."""
        return config_hash(self.as_json())
