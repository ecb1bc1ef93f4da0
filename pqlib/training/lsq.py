"""Learned step size quantization: weights rounded to a grid whose scale is trained with them."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pqlib._validation import check_integer, check_number
from pqlib.grids import MAX_BITS
from pqlib.ranges import optimal_scale
from pqlib.training.memory_order import vectors

_LEAST_SCALE = 2.0**-10  # of the initial one
_BLOCK = 2**18  # weights worked on at once: all passes but the first find them in the cache


def lsq(weight: Tensor, scale: Tensor, n_bits: int, grad_scale: float = 1.0) -> Tensor:
    """Round weights to a grid, with LSQ's gradients for the weights and for the scale.

    w_hat = s round(clamp(w / s, q_min, q_max)),   q_min = -2^(b-1), q_max = 2^(b-1) - 1

    Parameters
    ----------
    weight : Tensor, any shape
        The weights w, float32 or float64.
    scale : Tensor, 0-dim, > 0
        The scale s in weight units, of the weights' dtype and device. Its sign is not looked at
        on accelerators, which would have to be waited for.
    n_bits : int, 2..16
        Bits per weight b.
    grad_scale : float > 0, default 1.0
        What the gradient of the scale is multiplied by; 1 / sqrt(n q_max) in `LSQ`.

    Returns
    -------
    Tensor
        The rounded weights, of weight's shape. Half-way cases go to the even level.

    Raises
    ------
    ValueError, TypeError
        On a scale of another shape, dtype or device, or not above zero; on n_bits or grad_scale
        out of range.

    Notes
    -----
    Rounding has slope zero almost everywhere, so it is passed straight through: with
    u = w / s, the residue r = round(u) - u is held constant where q_min < u < q_max, and

        w_hat = s (u + r) = w + s r:   d w_hat / d w = 1,   d w_hat / d s = r = round(u) - u,

    while beyond the grid w_hat = s q with the nearest end q, which does not depend on w:

        d w_hat / d w = 0,   d w_hat / d s = q.

    These are the derivatives of s (clamp(w / s) + r), of which finite differences confirm them. A
    weight on an end of the grid counts as beyond, and is compared with s q as rounded, so that
    weights which are on the grid are treated alike whatever the scale.

    Backward, with g the gradient for w_hat, is g where inside for the weights, and
    sum(g (w_hat - w [inside])) / s for the scale: w_hat is what the convolution keeps anyway, so
    nothing else is stored. On the CPU both passes go block by block, in place.
    torch's private ``_fake_quantize_learnable_per_tensor_affine`` is another function: it calls
    inside what rounds to a level, half a step beyond both ends, and took several times as long.

    References
    ----------
    Esser et al., "Learned step size quantization", ICLR 2020, arXiv 1902.08153, equations 1-5.

    Examples
    --------
    >>> import torch
    >>> lsq(torch.tensor([0.26, -0.9, 0.0]), torch.tensor(0.25), n_bits=2)
    tensor([ 0.2500, -0.5000,  0.0000])
    """
    n_bits = check_integer("n_bits", n_bits, low=2, high=MAX_BITS)
    grad_scale = check_number("grad_scale", grad_scale, low=0.0, open_low=True)
    same = scale.dtype == weight.dtype and scale.device == weight.device
    if scale.dim() != 0 or not same or not weight.is_floating_point():
        raise ValueError(
            f"scale must be a 0-dim tensor of weight's dtype and device, {weight.dtype} on "
            f"{weight.device}; got shape {tuple(scale.shape)}, {scale.dtype} on {scale.device}"
        )
    if scale.device.type == "cpu" and not 0 < float(scale.detach()) < math.inf:
        raise ValueError(f"scale must be finite and above zero, got {float(scale.detach())}")
    return _Lsq.apply(weight, scale, n_bits, grad_scale)


class LSQ(nn.Module):
    """Parametrization of a weight by its rounded value, the scale learned with it (section 5).

    Attach it by ``torch.nn.utils.parametrize.register_parametrization(layer, "weight", LSQ(...))``,
    or all over a network by `pqlib.training.compression.compress`.

    Parameters
    ----------
    weight : Tensor
        The weights that it starts from; it does not keep them.
    n_bits : int, 2..16
        Bits per weight b.
    scaled_gradient : bool, default True
        Multiply the scale's gradient by 1 / sqrt(n q_max), n the number of weights: it sums over
        all weights and grows with the grid, and the factor brings it to the size that the
        gradients of weights have (Esser et al., section 2.2). Adam, which divides by that size,
        sees little of it.

    Attributes
    ----------
    scale : Parameter, 0-dim
        Starts at the MSE-optimal scale (`pqlib.ranges.optimal_scale`). What rounds is
        max(scale, least_scale).
    least_scale : Tensor, 0-dim
        2^-10 of the initial scale. Adam's steps have nearly the learning rate's size whatever the
        scale's, so that at 8 bits and more some hundred of them can lead below zero. `project`
        moves the scale back; between two calls the maximum keeps it positive.

    Raises
    ------
    ValueError, TypeError
        On weights that are all zero, empty or not finite, of another dtype than float32 and
        float64, and on n_bits out of range.
    """

    def __init__(self, weight: Tensor, n_bits: int, *, scaled_gradient: bool = True):
        super().__init__()
        self.n_bits = check_integer("n_bits", n_bits, low=2, high=MAX_BITS)
        self.scaled_gradient = bool(scaled_gradient)
        if not bool(weight.detach().any()):
            raise ValueError(
                "weight is all zero, which leaves no scale to learn; load trained ones"
            )
        start = weight.detach().new_tensor(optimal_scale(weight, self.n_bits))
        self.scale = nn.Parameter(start)
        self.register_buffer("least_scale", start * _LEAST_SCALE)

    def forward(self, weight: Tensor) -> Tensor:
        qmax = 2 ** (self.n_bits - 1) - 1
        grad_scale = 1 / math.sqrt(weight.numel() * qmax) if self.scaled_gradient else 1.0
        return lsq(weight, _AtLeast.apply(self.scale, self.least_scale), self.n_bits, grad_scale)

    @torch.no_grad()
    def project(self) -> None:
        """Move the scale to its least value if an optimizer's step went below."""
        self.scale.clamp_(min=self.least_scale)

    def extra_repr(self) -> str:
        return f"n_bits={self.n_bits}, scaled_gradient={self.scaled_gradient}"


class _AtLeast(torch.autograd.Function):
    """The maximum of both, whose gradient passes below the least value too, so as to come back."""

    @staticmethod
    def forward(ctx, scale, least):
        return torch.maximum(scale, least)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class _Lsq(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, scale, n_bits, grad_scale):
        qmin, qmax = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
        rounded = torch.empty_like(weight)
        for w, out in _blocks(weight, rounded):
            torch.div(w, scale, out=out).clamp_(qmin, qmax).round_().mul_(scale)
        ctx.save_for_backward(weight, scale, rounded)
        ctx.limits, ctx.grad_scale = (qmin, qmax), grad_scale
        return rounded

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        weight, scale, rounded = ctx.saved_tensors
        grad_weight = torch.empty_like(weight)
        backward = _backward_on_cpu if weight.device.type == "cpu" else _backward
        total = backward(ctx.limits, scale, grad, weight, rounded, grad_weight)
        return grad_weight, total / scale * ctx.grad_scale, None, None


def _backward(limits, scale, grad, weight, rounded, grad_weight) -> Tensor:
    """Fill ``grad_weight``; return sum(g (w_hat - w [inside]))."""
    inside = (weight > limits[0] * scale) & (weight < limits[1] * scale)
    torch.mul(grad, inside, out=grad_weight)
    return torch.addcmul(rounded, weight, inside, value=-1).mul_(grad).sum()


def _backward_on_cpu(limits, scale, grad, weight, rounded, grad_weight) -> Tensor:
    """The same in few passes: hardtanh's backward is its first argument where the second is inside.

    The two numbers are products of a float and a small integer, exact in Python's floats.
    """
    low, high = (q * float(scale) for q in limits)
    keep_inside = torch.ops.aten.hardtanh_backward.grad_input
    scratch, total = None, 0.0
    for g, w, w_hat, out in _blocks(grad, weight, rounded, grad_weight):
        if scratch is None or scratch.shape != w.shape:
            scratch = torch.empty_like(w)
        keep_inside(g, w, low, high, grad_input=out)
        keep_inside(w, w, low, high, grad_input=scratch)
        total += float(torch.sub(w_hat, scratch, out=scratch).mul_(g).sum())
    return scale.new_tensor(total)


def _blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors of one shape alike: flat blocks in the CPU's memory, else all in one."""
    whole = tensors[0].numel() <= _BLOCK or tensors[0].device.type != "cpu"
    flat = None if whole else vectors(*tensors)
    if flat is None:
        yield tensors
    else:
        yield from zip(*(vector.split(_BLOCK) for vector in flat), strict=True)
