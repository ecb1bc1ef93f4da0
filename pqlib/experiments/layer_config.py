"""What a per-layer run computes."""

import dataclasses
from dataclasses import dataclass

from pqlib._validation import check_integer, check_number
from pqlib.experiments.ledger import config_hash
from pqlib.grids import IntegerGrid

BITS = tuple(range(2, 9))
LITE0_LAYERS = (
    "conv_stem",
    "blocks.0.0.conv_dw",
    "blocks.1.0.conv_pw",
    "blocks.2.0.conv_dw",
    "blocks.2.1.conv_pwl",
    "blocks.4.0.conv_pw",
    "blocks.5.2.conv_dw",
    "blocks.6.0.conv_pwl",
    "conv_head",
    "classifier",
)
_FORMAT = 1  # of the records; another one is not read from an old folder


@dataclass(frozen=True)
class LayerBounds:
    """What a run computes; everything that its numbers depend on.

    Attributes
    ----------
    model, weights, images, transform, n_images, seed
        As `pqlib.layers.models.open_model` and `pqlib.layers.images.open_images` take them;
        ``seed`` also draws channels, chunks and the results that are proven again.
    image_seed : int, optional
        Draws the images in place of ``seed``, so that the same channels and chunks can be compared
        over different images.
    layers : tuple of str
        Names of modules; empty for all.
    chunk : int, optional
        Most inputs of a chunk; the paper's sizes by default.
    bits : tuple of int, 2..16
    n_channels, n_chunks : int
        Most channels of a layer and chunks of its fan-in, drawn by seed; 0 for all.
    n_positions : int, optional
        Outputs sampled per image and layer; all by default.
    max_nodes : int
        Of one exact search; 1e8 take some 10 seconds for quantization, 100 for pruning.
    reproved_share : float
        Of the exact results, proven again by another algorithm.
    """

    model: str = "timm:efficientnet_lite0"
    weights: str | None = None
    images: str | None = None
    transform: str = "imagenet"
    n_images: int = 64
    seed: int = 0
    image_seed: int | None = None
    layers: tuple[str, ...] = LITE0_LAYERS
    chunk: int | None = None
    bits: tuple[int, ...] = BITS
    n_channels: int = 32
    n_chunks: int = 4
    n_positions: int | None = None
    max_nodes: int = 10**8
    reproved_share: float = 0.05

    def __post_init__(self):
        for name in ("layers", "bits"):
            value = getattr(self, name)
            if isinstance(value, str | int):
                raise TypeError(f"{name} must be a sequence, got {value!r}")
            object.__setattr__(self, name, tuple(value))
        if not self.bits or len(set(self.bits)) < len(self.bits):
            raise ValueError(f"bits must be one or several different bit-widths, got {self.bits}")
        for b in self.bits:
            IntegerGrid(b, 1.0)
        check_integer("n_images", self.n_images, low=1, high=10**6)
        check_integer("seed", self.seed, low=0, high=2**31)
        if self.image_seed is not None:
            check_integer("image_seed", self.image_seed, low=0, high=2**31)
        check_integer("n_channels", self.n_channels, low=0, high=10**6)
        check_integer("n_chunks", self.n_chunks, low=0, high=10**6)
        if self.chunk is not None:
            check_integer("chunk", self.chunk, low=1, high=128)
        if self.n_positions is not None:
            check_integer("n_positions", self.n_positions, low=1, high=10**9)
        check_integer("max_nodes", self.max_nodes, low=1, high=10**15)
        check_number("reproved_share", self.reproved_share, low=0, high=1)

    def as_json(self) -> dict[str, object]:
        """All of it, and the format of the records; ``image_seed`` only where it is given."""
        stated = dataclasses.asdict(self) | {"format": _FORMAT}
        if self.image_seed is None:
            del stated["image_seed"]  # as in folders from before there was one
        return stated

    @property
    def hash(self) -> str:
        """Names the run's folder."""
        return config_hash(self.as_json())
