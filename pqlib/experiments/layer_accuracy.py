"""One layer of a trained network compressed at a time: its error, and what the network loses."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrize import is_parametrized

from pqlib._validation import check_choice, check_integer
from pqlib.budget import matched_sparsity
from pqlib.grids import MAX_BITS, IntegerGrid
from pqlib.prune import magnitude_mask
from pqlib.quantize import fake_quantize
from pqlib.ranges import optimal_scale
from pqlib.training.scope import compressible_layers, sharing_layers
from pqlib.training.tasks import evaluating

METHODS = ("quantize", "prune")
Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Original:
    """What the uncompressed network answers to the images, to compare with.

    Attributes
    ----------
    logits : Tensor, (n_images, n_classes)
    labels : Tensor of int64, (n_images,)
    """

    logits: Tensor
    labels: Tensor

    @property
    def accuracy(self) -> float:
        """Share of images whose largest logit is the label's, in percent."""
        return _accuracy(self.logits, self.labels)

    @property
    def cross_entropy(self) -> float:
        """Mean over images of -log softmax(logits)[label], in nats."""
        return _cross_entropy(self.logits, self.labels)


def answers(model: nn.Module, batches: Batches) -> Original:
    """Run a classifier on all batches, in eval mode and without gradients.

    Parameters
    ----------
    model : torch.nn.Module
        Returns logits, (batch, n_classes), from what stands first in each batch.
    batches : iterable of (inputs, labels)
        Gone through anew each time, in the same order: a list, or a DataLoader that does not
        shuffle. Labels are whole numbers in 0..n_classes - 1, (batch,).

    Raises
    ------
    TypeError, ValueError
        If the batches can be gone through only once, are none, or hold labels that the logits have
        no place for; if logits are not finite.
    """
    if isinstance(batches, Iterator):
        raise TypeError(
            "batches must be iterable anew for every layer, as a list or a DataLoader is; got "
            f"{type(batches).__name__}, which is used up after one pass: take list(batches)"
        )
    logits, labels = [], []
    with evaluating(model):
        for inputs, wanted in batches:
            logits.append(model(inputs))
            labels.append(wanted)
    if not labels:
        raise ValueError("batches must hold at least one image; the split is empty")
    for out, wanted in zip(logits, labels, strict=True):
        if not isinstance(out, Tensor) or out.dim() != 2 or wanted.shape != out.shape[:1]:
            raise ValueError(
                "model must return logits of shape (batch, n_classes), one row per label; got "
                f"{getattr(out, 'shape', type(out).__name__)} for labels {tuple(wanted.shape)}"
            )
    found = Original(torch.cat(logits).double(), torch.cat(labels).long())
    if not bool(found.logits.isfinite().all()):
        raise ValueError("model returns logits that are not finite; load trained weights first")
    low, high = int(found.labels.min()), int(found.labels.max())
    if low < 0 or high >= found.logits.shape[1]:
        raise ValueError(
            f"labels must lie in 0..{found.logits.shape[1] - 1}, the classes of the logits; got "
            f"{low}..{high}"
        )
    return found


def measure(
    model: nn.Module,
    batches: Batches,
    original: Original,
    layer: str,
    n_bits: int,
    method: str,
) -> dict[str, str | int | float]:
    """Compress one layer, leave all others as they are, and see what the network loses (Fig 6).

    Parameters
    ----------
    model : torch.nn.Module
        Its weights are the same bits afterwards, also after an error.
    batches : iterable of (inputs, labels)
        Those of `answers`.
    original : Original
        From `answers`, of this network and these batches.
    layer : str
        A name in `pqlib.training.scope.compressible_layers`.
    n_bits : int, 2..16
        The budget b.
    method : {"quantize", "prune"}
        Rounding to b bits at the MSE-optimal symmetric scale of the tensor, or removal of the share
        1 - b/16 of smallest magnitude.

    Returns
    -------
    dict
        - ``layer``, ``kind`` (class of the module), ``n_weights``, ``n_bits``, ``method``;
        - ``sparsity``, the share of zeros, and ``scale``, None for pruning;
        - ``snr``, ``snr_db``: of what the layer puts out, before any normalization behind it;
        - ``logit_snr``, ``logit_snr_db``: of what the network puts out;
        - ``accuracy`` and ``drop``, what the original has more, in points;
        - ``cross_entropy`` and ``increase``, what it has more than the original's, in nats;
        - ``agreement``: images of the same largest logit as the original, in percent;
        - ``fp_accuracy``, ``fp_cross_entropy``, ``n_images``.

    Raises
    ------
    ValueError, TypeError
        On an unknown layer, method or n_bits; if the layer is never called, has weights that are
        not finite or parametrized, or if the batches are not those of ``original``.

    Notes
    -----
    With y the original output and y_hat that of the compressed layer, over all images, positions
    and channels,

        SNR = sum y^2 / sum (y_hat - y)^2,   SNR_dB = 10 log10 SNR.

    It is infinite without error, and 0 where y is zero and y_hat is not. Both outputs are of the
    same input, the one that the layer has in the compressed network. As nothing before it has
    changed, that is the original input. Only a layer which is called several times in one pass,
    or shares its weight, sees its own errors come back; there the two differ. Batch norm keeps the
    statistics of the original network.

    References
    ----------
    Kuzmin et al., arXiv 2307.02973v1, appendix D and Figure 6.
    """
    check_choice("method", method, METHODS)
    n_bits = check_integer("n_bits", n_bits, low=2, high=MAX_BITS)
    module, weight = _weight_of(model, layer)
    small, scale = _compressed(weight, n_bits, method)
    noise = _Noise(weight)
    holders = sharing_layers(model)[layer].values()
    handles = [holder.register_forward_hook(noise.add, with_kwargs=True) for holder in holders]
    try:
        with _in_place_of(module.weight, small):
            found = answers(model, batches)
    finally:
        for handle in handles:
            handle.remove()
    if not noise.n_calls:
        raise ValueError(
            f"layer {layer!r} is never called in a forward pass; leave it out of the layers"
        )
    if not torch.equal(found.labels, original.labels):
        raise ValueError(
            "batches hold other labels than those of the original network; give the same images in "
            "the same order (shuffle=False)"
        )
    out = signal_to_noise(*_powers(original.logits, found.logits))
    own = signal_to_noise(noise.signal, noise.error)
    same = (found.logits.argmax(1) == original.logits.argmax(1)).double().mean()
    return {
        "layer": layer,
        "kind": type(module).__name__,
        "n_weights": weight.numel(),
        "n_bits": n_bits,
        "method": method,
        "sparsity": float((small == 0).double().mean()),
        "scale": scale,
        "snr": own,
        "snr_db": decibels(own),
        "logit_snr": out,
        "logit_snr_db": decibels(out),
        "accuracy": found.accuracy,
        "drop": original.accuracy - found.accuracy,
        "cross_entropy": found.cross_entropy,
        "increase": found.cross_entropy - original.cross_entropy,
        "agreement": 100 * float(same),
        "fp_accuracy": original.accuracy,
        "fp_cross_entropy": original.cross_entropy,
        "n_images": len(found.labels),
    }


def cases(
    model: nn.Module, bits: Sequence[int], layers: Sequence[str] = ()
) -> list[tuple[str, int, str]]:
    """Every (layer, n_bits, method) to measure, in the order of the network.

    Parameters
    ----------
    model : torch.nn.Module
    bits : sequence of int
    layers : sequence of str, default ()
        Names; none for all convolutions and linear layers.
    """
    for name in layers:
        _weight_of(model, name)
    names = layers or list(compressible_layers(model))
    return [(name, b, method) for name in names for b in bits for method in METHODS]


def signal_to_noise(signal: float, error: float) -> float:
    """signal / error of two sums of squares; infinite without error."""
    return signal / error if error else math.inf


def decibels(snr: float) -> float:
    """10 log10(snr); minus infinity for 0."""
    return 10 * math.log10(snr) if snr else -math.inf


class _Noise:
    """A forward hook that compares a layer's output with that of its original weight."""

    def __init__(self, weight: Tensor):
        self.weight, self.signal, self.error, self.n_calls = weight, 0.0, 0.0, 0

    def add(self, module: nn.Module, inputs: tuple, named: dict, output: Tensor) -> None:
        with _in_place_of(module.weight, self.weight):
            wanted = module.forward(*inputs, **named)  # past the hooks, this one among them
        signal, error = _powers(wanted, output)
        self.signal += signal
        self.error += error
        self.n_calls += 1


def _powers(wanted: Tensor, got: Tensor) -> tuple[float, float]:
    """Sums of squares of a signal and of its error, in double precision."""
    wanted, got = wanted.double(), got.double()
    return float((wanted**2).sum()), float(((got - wanted) ** 2).sum())


def _weight_of(model: nn.Module, layer: str) -> tuple[nn.Module, Tensor]:
    """A layer and a copy of its weight."""
    layers = compressible_layers(model)
    if layer not in layers:
        raise ValueError(
            f"layer {layer!r} is no convolution or linear layer with a weight of its own; take of "
            f"{', '.join(layers)}"
        )
    module = layers[layer]
    if is_parametrized(module, "weight"):
        raise ValueError(
            f"the weight of layer {layer!r} is parametrized; start from a plain network, or bake() "
            "its compression first"
        )
    weight = module.weight.detach().clone()
    if not bool(weight.isfinite().all()):
        raise ValueError(f"the weight of layer {layer!r} is not finite; load trained weights first")
    return module, weight


def _compressed(weight: Tensor, n_bits: int, method: str) -> tuple[Tensor, float | None]:
    """The weight at its budget, and its scale."""
    if method == "prune":
        return weight * magnitude_mask(weight, matched_sparsity(n_bits)), None
    scale = optimal_scale(weight, n_bits)
    return fake_quantize(weight, IntegerGrid(n_bits, scale)), scale


@contextmanager
def _in_place_of(weight: nn.Parameter, other: Tensor) -> Iterator[None]:
    """Other numbers in a weight for a while."""
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.copy_(other)
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return 100 * float(np.mean((logits.argmax(1) == labels).cpu().numpy()))


def _cross_entropy(logits: Tensor, labels: Tensor) -> float:
    return float(functional.cross_entropy(logits, labels))
