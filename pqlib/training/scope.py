"""Which weights of a network are compressed: those of its convolutions and linear layers."""

from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import is_parametrized

LAYERS = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def compressible_layers(model: nn.Module, *, keep_first_last: bool = False) -> dict[str, nn.Module]:
    """The convolutions and linear layers of a network by name, in the order of its modules.

    Parameters
    ----------
    model : torch.nn.Module
        Any. Convolutions of all dimensions, transposed ones, ``nn.Linear`` and all their
        subclasses count, as timm's do; embeddings, normalizations and biases do not.
    keep_first_last : bool, default False
        Leave the first and the last of them out. They are the first and the last in the order of
        the modules: of networks with several outputs the last is one output's layer.

    Returns
    -------
    dict of str to torch.nn.Module
        Names as in ``model.named_modules()``. A weight that two layers share is counted once, under
        the first one's name; `sharing_layers` names the others.

    Raises
    ------
    ValueError
        If there is no such layer (left), a weight has no shape yet or is no parameter, or if the
        network holds ``nn.MultiheadAttention``: it never calls the layer of its output as a module
        and keeps q, k and v in one tensor of its own (24.5 % of the weights of torchvision's
        vit_b_16), which would stay uncompressed.

    Examples
    --------
    >>> from torch import nn
    >>> list(compressible_layers(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Linear(8, 2))))
    ['0', '2']
    """
    groups = list(_sharing(model).values())
    if keep_first_last:
        groups = groups[1:-1]
    if not groups:
        rest = " besides the first and the last" if keep_first_last else ""
        raise ValueError(
            f"model {type(model).__name__} has no convolution and no linear layer{rest}: there is "
            "nothing to compress" + ("; set keep_first_last=False" if keep_first_last else "")
        )
    return {group[0][0]: group[0][1] for group in groups}


def sharing_layers(model: nn.Module) -> dict[str, dict[str, nn.Module]]:
    """For each name in `compressible_layers`, all layers that hold its weight, by name."""
    return {group[0][0]: dict(group) for group in _sharing(model).values()}


def weight_of(layer: nn.Module) -> nn.Parameter:
    """The parameter behind ``layer.weight``, the trained one where it is parametrized."""
    if is_parametrized(layer, "weight"):
        return layer.parametrizations.weight.original
    return layer.weight


def _sharing(model) -> dict[int, list[tuple[str, nn.Module]]]:
    """Layers by the identity of their weight."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    groups: dict[int, list] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            raise ValueError(
                f"model holds nn.MultiheadAttention at {name!r}, whose q, k and v are no layers "
                "and would stay uncompressed; use a network whose projections are modules, such "
                "as timm's vit_small_patch16_224"
            )
        if not isinstance(module, LAYERS):
            continue
        if is_parametrized(module, "weight"):
            chain = module.parametrizations.weight
            if not isinstance(getattr(chain, "original", None), nn.Parameter):
                raise ValueError(
                    f"the weight of layer {name!r} is parametrized already, by "
                    f"{type(chain[0]).__name__}, and made of several tensors; undo it first with "
                    "torch.nn.utils.parametrize.remove_parametrizations"
                )
        elif not isinstance(module._parameters.get("weight"), nn.Parameter):
            raise ValueError(
                f"the weight of layer {name!r} is no parameter of its own (an earlier "
                "torch.nn.utils.prune or weight_norm?); make it one first, with prune.remove or "
                "remove_weight_norm"
            )
        weight = weight_of(module)
        if isinstance(weight, UninitializedParameter):
            raise ValueError(f"layer {name!r} has no shape yet; run one batch through the model")
        groups.setdefault(id(weight), []).append((name, module))
    return groups
