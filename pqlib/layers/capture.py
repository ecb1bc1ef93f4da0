"""Run real inputs through any torch module and keep X'X of what its layers read."""

import difflib
import logging
import math
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pqlib._validation import check_integer
from pqlib.layers.captured import (
    PAPER_CHUNK,
    PAPER_POINTWISE_CHUNK,
    CapturedLayer,
    Chunk,
    chunk_bounds,
)
from pqlib.layers.problem import ENERGIES

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SLICE_VALUES = 2**21  # of X held at once, 16 MB
_N_PROBES = 256  # outputs by which a layer is checked
_log = logging.getLogger(__name__)


def capture_layers(
    model: nn.Module,
    batches: Iterable[torch.Tensor | tuple[torch.Tensor, ...]],
    layers: Sequence[str] | None = None,
    *,
    chunk: int | None = None,
    full: bool = False,
    n_positions: int | None = None,
    rng: np.random.Generator | None = None,
) -> list[CapturedLayer]:
    """P = X'X of the inputs X that layers of a network read, with their weights.

    Parameters
    ----------
    model : torch.nn.Module
        Any, in any mode, on any device. It is run in eval mode and left as it was found.
    batches : iterable of Tensor, or of tuple of Tensor
        Inputs with one leading axis of examples; a tuple holds the positional arguments of
        ``model``. Of a DataLoader with labels: ``(x for x, _ in loader)``.
    layers : sequence of str, optional
        Names in ``model.named_modules()`` of Linear and Conv1d, Conv2d, Conv3d modules. All of
        them by default, without those that the model does not call (a warning is logged).
    chunk : int >= 1, optional
        Most inputs in a chunk. By default the paper's: 32 for point-wise convolutions, else 36.
    full : bool, default False
        Keep P of the whole fan-in too, n^2 values per group.
    n_positions : int >= 1, optional
        Outputs kept of each example and call of a layer, drawn without replacement; all by default.
    rng : numpy.random.Generator
        For ``n_positions`` only, which needs it. One number is drawn.

    Returns
    -------
    list of CapturedLayer
        In the order of ``layers``, or of the model.

    Raises
    ------
    ValueError, TypeError
        On unknown layers (the nearest name is given), layers of other kinds or never called,
        activations that are not finite, and layers whose output is not X w + bias, which each
        one's first call is checked for.

    Notes
    -----
    A convolution is unfolded: a row of X is what one output reads, with its padding, in the order
    of the weights. Biases and what follows a layer do not enter: with w_hat in place of w its
    output changes by X (w_hat - w), so that the squared change is (w_hat - w)' P (w_hat - w).

    Examples go through the model one by one, rows are gathered by slices, and the sums are in
    float64 on the CPU. Positions depend on ``rng``, the layer's name and the place of the example
    alone. So the result is the same to the last bit however the examples are batched, and whatever
    other layers are captured; memory is that of one example.

    Convolutions of timm with TensorFlow's padding are known. nn.MultiheadAttention is refused: it
    multiplies by its weights without calling a module.

    Examples
    --------
    >>> import torch
    >>> from pqlib.layers.capture import capture_layers
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(8, 2, 3), torch.nn.ReLU())
    >>> [layer] = capture_layers(model, [torch.randn(5, 8, 6, 6)])
    >>> layer.name, layer.n_samples, [c.gram.shape for c in layer.chunks]
    ('0', 80, [(36, 36), (36, 36)])
    >>> problems = [c.problem(i) for c in layer.chunks for i in c.channels]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {model!r}")
    if isinstance(batches, torch.Tensor):
        raise TypeError("batches must be an iterable of batches, got one Tensor; give [batch]")
    if chunk is not None:
        chunk = check_integer("chunk", chunk, low=1, high=2**31)
    key = 0
    if n_positions is not None:
        n_positions = check_integer("n_positions", n_positions, low=1, high=2**31)
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng must be a numpy.random.Generator for n_positions, got {rng!r}")
        key = int(rng.integers(2**63))
    sums = [
        _Sums(name, module, chunk, full, n_positions, key)
        for name, module in _find(model, layers).items()
    ]
    device = next((p.device for p in [*model.parameters(), *model.buffers()]), None)
    example = -1
    with _hooked(model, sums), torch.no_grad():
        for example, inputs in enumerate(_examples(batches)):
            for layer in sums:
                layer.example, layer.call = example, 0
            model(*(x.to(device) for x in inputs))
    if example < 0:
        raise ValueError("batches must hold at least one example, got none")
    idle = [layer.name for layer in sums if layer.n_samples == 0]
    if idle and (layers is not None or len(idle) == len(sums)):
        raise ValueError(f"model does not call {', '.join(idle)} on these inputs; leave them out")
    if idle:
        _log.warning("left out, as the model does not call them: %s", ", ".join(idle))
    return [layer.result() for layer in sums if layer.n_samples]


def _find(model, layers) -> dict[str, nn.Module]:
    """The modules to capture by name, each of a kind that can be."""
    if layers is None:
        modules = dict(model.named_modules())
        wanted = [n for n, m in modules.items() if isinstance(m, (*LAYERS, nn.MultiheadAttention))]
        if not wanted:
            raise ValueError(f"model {type(model).__name__} has no Linear or Conv1d-3d module")
    else:
        modules = dict(model.named_modules(remove_duplicate=False))
        if isinstance(layers, str) or not all(isinstance(name, str) for name in layers):
            raise TypeError(f"layers must be a sequence of names of modules, got {layers!r}")
        wanted = list(dict.fromkeys(layers))
        if not wanted:
            raise ValueError("layers must name at least one module, got none")
    for name in wanted:
        if name not in modules:
            able = [n for n, m in modules.items() if isinstance(m, LAYERS)]
            near = difflib.get_close_matches(name, able, n=1, cutoff=0.0)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise ValueError(f"layers has {name!r}, which is no module of the model{hint}")
        parents = [name.rsplit(".", i)[0] for i in range(name.count(".") + 1)]
        for parent in parents:
            if isinstance(modules[parent], nn.MultiheadAttention):
                raise ValueError(
                    f"layer {parent!r} is an nn.MultiheadAttention, which multiplies by its "
                    "weights without calling a module; leave it out of layers, or take a model "
                    "whose attention is made of Linear modules, such as timm's ViT"
                )
        if not isinstance(modules[name], LAYERS):
            raise ValueError(
                f"layer {name!r} is a {type(modules[name]).__name__}; "
                "Linear, Conv1d, Conv2d and Conv3d can be captured"
            )
    return {name: modules[name] for name in wanted}


def _examples(batches) -> Iterator[tuple[torch.Tensor, ...]]:
    for batch in batches:
        parts = batch if isinstance(batch, tuple) else (batch,)
        if not parts or not all(isinstance(x, torch.Tensor) and x.ndim for x in parts):
            raise TypeError(
                "batches must yield a Tensor with a leading axis of examples, or a tuple of them, "
                f"got {type(batch).__name__}; of a DataLoader give (x for x, _ in loader)"
            )
        if len({len(x) for x in parts}) > 1:
            raise ValueError(f"a batch holds tensors of {[len(x) for x in parts]} examples")
        for i in range(len(parts[0])):
            yield tuple(x[i : i + 1].clone() for x in parts)  # rounding may depend on alignment


@contextmanager
def _hooked(model, sums):
    """In eval mode and with hooks, both undone whatever happens."""
    modes = [(module, module.training) for module in model.modules()]
    handles = []
    try:
        model.eval()
        for layer in sums:
            register = layer.module.register_forward_hook
            handles.append(register(layer.hook, prepend=True, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training


class _Sums:
    """The running sums of one layer."""

    def __init__(self, name, module, chunk, full, n_positions, key):
        self.name, self.module = name, module
        self.n_positions, self.key = n_positions, key
        self.example = self.call = 0
        self.n_samples = self.n_outputs = 0
        weight = module.weight.detach().to("cpu", torch.float64)
        if not weight.isfinite().all():
            raise ValueError(f"layer {name!r} has weights that are NaN or infinite")
        self.kernel = tuple(weight.shape[2:])
        self.groups = 1 if isinstance(module, nn.Linear) else module.groups
        self.weight = weight.reshape(len(weight), -1)  # (n_out, fan-in of a group)
        n, n_taps = self.weight.shape[1], math.prod(self.kernel)
        self.kind = "conv"
        if isinstance(module, nn.Linear):
            self.kind = "linear"
        elif self.groups == module.in_channels > 1:
            self.kind = "depthwise"
        elif n_taps == 1:
            self.kind = "pointwise"
        size = chunk or (PAPER_POINTWISE_CHUNK if self.kind == "pointwise" else PAPER_CHUNK)
        self.bounds = chunk_bounds(n, size, n_taps)
        self.summed = [(0, n)] if full else self.bounds
        self.full = full
        self.grams = [
            torch.zeros(self.groups, stop - start, stop - start, dtype=torch.float64)
            for start, stop in self.summed
        ]

    def hook(self, module, args, kwargs, output):
        x = (args[0] if args else kwargs["input"]).detach().cpu()
        view = self._view(x)  # (..., input channels, *kernel)
        positions = view.shape[: view.ndim - 1 - len(self.kernel)]
        n_rows = math.prod(positions)
        index = np.arange(n_rows)
        if self.n_positions is not None and n_rows > self.n_positions:
            seed = [self.key, zlib.crc32(self.name.encode()), self.example, self.call]
            rng = np.random.default_rng(seed)
            index = np.sort(rng.choice(n_rows, self.n_positions, replace=False, shuffle=False))
        if self.n_samples == 0 and n_rows:
            self._check(view, positions, index, x, output.detach().cpu())
        step = max(1, _SLICE_VALUES // (self.groups * self.weight.shape[1]))
        for first in range(0, len(index), step):
            rows = self._rows(view, positions, index[first : first + step])
            for gram, (start, stop) in zip(self.grams, self.summed, strict=True):
                part = rows[:, :, start:stop]
                gram += part.transpose(1, 2) @ part
        if not all(gram.diagonal(dim1=1, dim2=2).isfinite().all() for gram in self.grams):
            raise ValueError(
                f"layer {self.name!r} reads NaN, infinity or too large values in example "
                f"{self.example}; look at the images, the transform and the weights"
            )
        self.n_samples += len(index)
        self.n_outputs += n_rows
        self.call += 1

    def _view(self, x) -> torch.Tensor:
        """All that the outputs read, as a view: (*outputs, channels, *kernel)."""
        module, n_axes = self.module, len(self.kernel)
        if n_axes == 0:
            return x.reshape(-1, x.shape[-1])
        if x.ndim == n_axes + 1:  # without an axis of examples
            x = x[None]
        same = getattr(sys.modules.get("timm.layers"), "Conv2dSame", ())
        if isinstance(module, same):
            x = sys.modules["timm.layers"].pad_same(x, self.kernel, module.stride, module.dilation)
        else:
            mode = module.padding_mode.replace("zeros", "constant")
            x = functional.pad(x, self._pads(), mode=mode)
        x = x.contiguous()
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, module.dilation, strict=True)]
        sizes = [
            (size - r) // s + 1
            for size, r, s in zip(x.shape[2:], reach, module.stride, strict=True)
        ]
        example, channel, *axes = x.stride()
        steps = [a * s for a, s in zip(axes, module.stride, strict=True)]
        taps = [a * d for a, d in zip(axes, module.dilation, strict=True)]
        return x.as_strided(
            (len(x), *sizes, x.shape[1], *self.kernel), (example, *steps, channel, *taps)
        )

    def _pads(self) -> list[int]:
        """(before, after) of each axis, the last axis first."""
        module = self.module
        if module.padding == "valid":
            return [0, 0] * len(self.kernel)
        if module.padding == "same":
            totals = [(k - 1) * d for k, d in zip(self.kernel, module.dilation, strict=True)]
            return [p for t in reversed(totals) for p in (t // 2, t - t // 2)]
        return [p for p in reversed(module.padding) for _ in (0, 1)]

    def _rows(self, view, positions, index) -> torch.Tensor:
        places = tuple(torch.from_numpy(i) for i in np.unravel_index(index, positions))
        rows = view[places].to(torch.float64)  # (rows, channels, *kernel)
        rows = rows.reshape(len(index), self.groups, -1)
        return rows.transpose(0, 1)  # (groups, rows, fan-in of a group)

    def _check(self, view, positions, index, x, output) -> None:
        """The output must be X w + bias, or X is not what the layer's weights multiply."""
        n_out = len(self.weight)
        found = output.movedim(-1 - len(self.kernel), -1).reshape(-1, n_out)
        index = index[np.linspace(0, len(index) - 1, min(len(index), _N_PROBES)).astype(int)]
        rows = self._rows(view, positions, index)
        weight = self.weight.reshape(self.groups, n_out // self.groups, -1).transpose(1, 2)
        bias = torch.zeros(n_out, dtype=torch.float64)
        if self.module.bias is not None:
            bias += self.module.bias.detach().cpu()

        def outputs(rows, weight, bias):
            return (rows @ weight).transpose(0, 1).reshape(len(index), n_out) + bias

        wanted = outputs(rows, weight, bias)
        size = outputs(rows.abs(), weight.abs(), bias.abs())
        tolerance = max(torch.finfo(t.dtype).eps for t in (x, output)) ** 0.5
        good = len(found) == math.prod(positions)
        if good:
            off = torch.linalg.norm(found[torch.from_numpy(index)] - wanted)
            good = bool(off <= tolerance * torch.linalg.norm(size)) or not torch.isfinite(off)
        if not good:
            raise ValueError(
                f"layer {self.name!r}, a {type(self.module).__name__}, does more than multiply its "
                "unfolded input by its weights and add the bias; leave it out of layers"
            )

    def result(self) -> CapturedLayer:
        weight = self.weight.numpy().copy()
        grams = [(g + g.transpose(1, 2)).div_(2).numpy() for g in self.grams]
        for gram in grams:  # inputs too faint for a LayerProblem, and for any float32 output
            faint = gram.diagonal(axis1=1, axis2=2) < ENERGIES[0]
            gram[faint[:, :, None] | faint[:, None, :]] = 0.0
        n_group = len(weight) // self.groups

        def chunk(group, start, stop, gram):
            channels = range(group * n_group, (group + 1) * n_group)
            part = weight[channels.start : channels.stop, start:stop]
            return Chunk(group, start, stop, channels, gram, part)

        whole = ()
        if self.full:
            whole = tuple(chunk(g, 0, weight.shape[1], grams[0][g]) for g in range(self.groups))
        chunks = tuple(
            chunk(g, a, b, grams[0][g, a:b, a:b] if self.full else grams[i][g])
            for g in range(self.groups)
            for i, (a, b) in enumerate(self.bounds)
        )
        return CapturedLayer(
            self.name, self.kind, weight, chunks, whole, self.n_samples, self.n_outputs
        )
