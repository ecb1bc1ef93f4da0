"""A whole network compressed: attached to any module tree, stepped by the loop, baked."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.utils import parametrize

from pqlib._validation import check_choice, check_integer
from pqlib.budget import REFERENCE_BITS, matched_sparsity, n_zeros
from pqlib.grids import MAX_BITS
from pqlib.training.lsq import LSQ
from pqlib.training.magnitude import MagnitudeMask
from pqlib.training.schedule import cubic_sparsity
from pqlib.training.scope import compressible_layers, sharing_layers, weight_of

METHODS = ("lsq", "prune")
SPARED_BITS = 8  # of the first and the last layer, where they are spared
Row = dict[str, str | int | float | None]


@dataclass
class Compression:
    """A network whose weights are compressed while it trains; made by `compress`.

    Attributes
    ----------
    method : {"lsq", "prune"}
    n_bits : int
        Bits per weight.
    layers : tuple of str
        Names of the compressed layers, in the order of the network.
    model : torch.nn.Module
        The network itself, whose forward pass now sees compressed weights.
    layer_bits : dict of str to int
        Bits per weight of each layer.
    at_once : bool, default False
        Prune to the final sparsity before the first step.

    Notes
    -----
    ``model.state_dict()`` holds weights, scales and masks: compress a network of the same kind in
    the same way, and load it. `copy.deepcopy` and pickling of this object take the network along;
    torch refuses to pickle a parametrized network by itself. A layer that is called several times
    in a forward pass (EfficientDet's heads) is compressed once if the pass runs within
    ``torch.nn.utils.parametrize.cached()``.
    """

    method: str
    n_bits: int
    layers: tuple[str, ...]
    model: nn.Module = field(repr=False)
    layer_bits: dict[str, int] = field(repr=False)
    at_once: bool = False
    _baked: list[Row] | None = field(default=None, init=False, repr=False)
    _attached: list[tuple] | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        check_choice("method", self.method, METHODS)
        check_integer("n_bits", self.n_bits, low=2, high=MAX_BITS)
        list(self._parts())

    def step(self, step: int, n_steps: int) -> None:
        """What is due before the optimizer's step ``step`` of ``n_steps``, counted from 0.

        Pruning: each layer gets exactly the zeros that the budget rule states for the sparsity

            s_t = s_f (1 - (1 - t / t_1)^3),   t_1 = floor(3 n_steps / 4),   s_f = 1 - b / 16

        (`cubic_sparsity`), chosen anew among all its weights, or added if monotone. Beyond t_1 the
        masks stay as they are; with ``at_once``, t_1 is 0. LSQ: scales below their least value are
        moved back to it.
        """
        n_steps = check_integer("n_steps", n_steps, low=1, high=2**62)
        step = check_integer("step", step, low=0, high=2**62)
        if self.method == "lsq":
            for _, _, part in self._stepped():
                part.project()
            return
        end = 0 if self.at_once else 3 * n_steps // 4
        sparsity = {
            bits: cubic_sparsity(step, 0, end, 0.0, matched_sparsity(bits))
            for bits in set(self.layer_bits.values())
        }
        for name, weight, part in self._stepped():
            zeros = n_zeros(weight.numel(), sparsity[self.layer_bits[name]])
            if step <= end or part.n_zeros != zeros:
                _named(name, part.set_zeros, weight, zeros)

    def scales(self) -> list[nn.Parameter]:
        """The scales, for an optimizer of their own; none for pruning."""
        return [part.scale for _, _, part in self._parts()] if self.method == "lsq" else []

    def weights(self) -> list[nn.Parameter]:
        """All other parameters of the network, those of normalizations and biases included."""
        scales = {id(scale) for scale in self.scales()}
        return [p for p in self.model.parameters() if id(p) not in scales]

    @torch.no_grad()
    def table(self) -> list[Row]:
        """One record per layer as it is now.

        layer, n_weights, n_bits (its budget), sparsity (share of zeros: the mask's, or those that
        rounding makes), scale (None for pruning).
        """
        if self._baked is not None:
            return copy.deepcopy(self._baked)
        rows = []
        for name, layer, part in self._parts():
            n = weight_of(layer).numel()
            lsq = self.method == "lsq"
            zeros = int((layer.weight == 0).sum()) if lsq else part.n_zeros
            scale = max(part.scale.item(), part.least_scale.item()) if lsq else None
            bits = self.layer_bits[name]
            rows.append(dict(zip(_COLUMNS, (name, n, bits, zeros / n, scale), strict=True)))
        return rows

    def bits_per_weight(self) -> float:
        """Bits per weight reached, over all convolutions and linear layers of the network.

        Quantized weights count their bits, pruned ones 0 and kept ones 16, as in `pqlib.budget`;
        a layer that is not compressed, 16 per weight. The scale, and where the zeros are, is not
        counted (section 2).
        """
        sizes = {k: weight_of(v).numel() for k, v in compressible_layers(self.model).items()}
        bits = REFERENCE_BITS * sum(sizes.values())
        for row in self.table():
            n, zeros = row["n_weights"], round(row["sparsity"] * row["n_weights"])
            spared = n * (REFERENCE_BITS - row["n_bits"])
            bits -= spared if self.method == "lsq" else zeros * REFERENCE_BITS
        return bits / sum(sizes.values())

    def bake(self) -> None:
        """Leave plain weights, rounded or with zeros, in place of the parametrizations.

        The parameters stay the same objects. `table` and `bits_per_weight` keep their answers; the
        rest of this object raises ValueError from then on, and ``model`` may be compressed again.
        """
        rows = self.table()
        if self._baked is None:
            _detach(self, leave_parametrized=True)
        self._baked, self._attached = rows, None

    def _parts(self) -> Iterator[tuple[str, nn.Module, LSQ | MagnitudeMask]]:
        """Name, layer and parametrization."""
        if self._baked is not None:
            raise ValueError("this compression is baked; compress the model anew to go on")
        for name in self.layers:
            layer = self.model.get_submodule(name)
            if not _is_compressed(layer):
                raise ValueError(
                    f"layer {name!r} is not compressed any more; make a Compression by compress() "
                    "and undo it by its bake()"
                )
            yield name, layer, layer.parametrizations.weight[0]

    def _stepped(self) -> Iterator[tuple[str, nn.Parameter, LSQ | MagnitudeMask]]:
        """Name, trained weight and parametrization of each layer, for every step.

        They are looked up once, which takes as long as a hundredth of a step of MobileNet-V2.
        """
        if self._attached is None:
            self._attached = [
                (name, layer, layer.parametrizations, layer.parametrizations.weight, part)
                for name, layer, part in self._parts()
            ]
        for name, layer, attached, chain, part in self._attached:
            if layer._modules.get("parametrizations") is not attached:
                list(self._parts())  # says which layer is not compressed any more
            yield name, chain.original, part

    def __deepcopy__(self, memo) -> "Compression":
        twin = object.__new__(type(self))
        twin.__dict__ = copy.deepcopy(vars(self) | {"_attached": None}, memo)
        return twin

    def __getstate__(self) -> dict:
        if self._baked is not None:
            return vars(self)
        twin = copy.deepcopy(self)
        parts = {name: part for name, _, part in twin._parts()}
        _detach(twin, leave_parametrized=False)
        return vars(twin) | {"parts": parts, "_attached": None}

    def __setstate__(self, state: dict) -> None:
        parts = state.pop("parts", {})
        self.__dict__ = state
        _attach(self.model, parts)


_COLUMNS = ("layer", "n_weights", "n_bits", "sparsity", "scale")


def compress(
    model: nn.Module,
    method: str,
    n_bits: int,
    *,
    keep_first_last: bool = False,
    scaled_gradient: bool = True,
    monotone: bool = False,
    at_once: bool = False,
) -> Compression:
    """Compress all convolutions and linear layers of a network while it trains (section 5).

    Parameters
    ----------
    model : torch.nn.Module
        Any, with float32 or float64 weights (for half precision use autocast). Its layers get a
        parametrization of ``weight``; nothing else of it changes.
    method : {"lsq", "prune"}
        `LSQ`, from the MSE-optimal scale of each tensor on; or `MagnitudeMask`, from no zeros on,
        until `Compression.step` is called.
    n_bits : int, 2..16
        Bits per weight b; pruning removes the share 1 - b/16 of each layer, which costs the same.
    keep_first_last : bool, default False
        Give the first and the last layer 8 bits if ``n_bits`` is less, as the authors' code does
        for quantization, but not for pruning. Here both methods spend the same bits: pruning then
        removes half of those two layers.
    scaled_gradient : bool, default True
        For LSQ, see there.
    monotone : bool, default False
        For pruning, see `MagnitudeMask`.
    at_once : bool, default False
        For pruning: reach the final sparsity before the first step, and keep those masks.

    Returns
    -------
    Compression

    Raises
    ------
    ValueError, TypeError
        If a layer is compressed or parametrized already, is all zero, not finite or of another
        dtype; of what `compressible_layers` refuses; on a bad method or n_bits. The network is then
        as it was.

    Notes
    -----
    Layers that share a weight share its compression, too.
    """
    check_choice("method", method, METHODS)
    n_bits = check_integer("n_bits", n_bits, low=2, high=MAX_BITS)
    bits = dict.fromkeys(compressible_layers(model), n_bits)
    if keep_first_last:
        inner = compressible_layers(model, keep_first_last=True)
        bits |= {name: max(n_bits, SPARED_BITS) for name in bits if name not in inner}
    parts: dict[str, LSQ | MagnitudeMask] = {}
    for name, sharing in sharing_layers(model).items():
        weight = _plain_weight(sharing)
        if method == "lsq":
            parts[name] = _named(name, LSQ, weight, bits[name], scaled_gradient=scaled_gradient)
        else:
            parts[name] = MagnitudeMask(weight, monotone=monotone)
    _attach(model, parts)
    return Compression(method, n_bits, tuple(bits), model, bits, at_once)


def post_training(
    model: nn.Module, method: str, n_bits: int, *, keep_first_last: bool = False
) -> Compression:
    """Compress a network at once, without training: MSE-optimal scales, or the final masks.

    Parameters, results and errors as in `compress`.
    """
    compression = compress(model, method, n_bits, keep_first_last=keep_first_last)
    compression.step(1, 1)
    return compression


def _plain_weight(sharing: dict[str, nn.Module]) -> torch.Tensor:
    """The weight of layers that may be compressed."""
    for name, layer in sharing.items():
        if parametrize.is_parametrized(layer, "weight"):
            what = type(layer.parametrizations.weight[0]).__name__
            raise ValueError(
                f"the weight of layer {name!r} is parametrized already, by {what}; "
                "start from a plain network, or bake() that compression first"
            )
    weight = layer.weight.detach()
    if weight.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"the weight of layer {name!r} has dtype {weight.dtype}; keep weights in float32 "
            "(model.float()) and train with autocast"
        )
    if not bool(weight.isfinite().all()) or not bool(weight.any()):
        state = "is all zero" if bool(weight.isfinite().all()) else "is not finite"
        raise ValueError(f"the weight of layer {name!r} {state}; load trained weights first")
    return weight


def _attach(model, parts: dict[str, nn.Module]) -> None:
    sharing = sharing_layers(model)
    for name, part in parts.items():
        for layer in sharing[name].values():
            # shape and dtype are kept; the check would only run everything once more
            parametrize.register_parametrization(layer, "weight", part, unsafe=True)


def _detach(compression: Compression, *, leave_parametrized: bool) -> None:
    sharing = sharing_layers(compression.model)
    for name in compression.layers:
        for layer in sharing[name].values():
            # torch takes the property off the layer's class, which copies of the layer share
            shared = type(layer)
            layer.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
            parametrize.remove_parametrizations(
                layer, "weight", leave_parametrized=leave_parametrized
            )


def _is_compressed(layer) -> bool:
    return parametrize.is_parametrized(layer, "weight") and isinstance(
        layer.parametrizations.weight[0], LSQ | MagnitudeMask
    )


def _named(name, function, *args, **kwargs):
    """Call ``function``, and say in its errors which layer they are about."""
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        raise ValueError(f"layer {name!r}: {error}") from error
