"""What the layers of two networks put out on the same images, and how much alike it is."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from pqlib.metrics import centered_gram, gram_alignment, sqnr_db
from pqlib.training.scope import compressible_layers
from pqlib.training.tasks import evaluating

Forward = Callable[[nn.Module, Any], Any]
_MAX_BYTES = 2**28  # of activations of one network held at once


class Original:
    """A network with its activations on fixed images, to which others are compared (appendix H).

    Parameters
    ----------
    model : torch.nn.Module
        It must stay as it is. Run in eval mode, and left in the mode that it was in.
    batches : sequence
        The images, as the model or ``forward`` takes them.
    forward : callable, optional
        As in `layer_outputs`.
    layers : sequence of str, optional
        Names of modules; by default all convolutions and linear layers.

    Raises
    ------
    ValueError
        If there are fewer than two images or no layers.

    Notes
    -----
    An image is one sample, and all that a layer puts out for it, channels and positions side by
    side, are its features. Of the original's layers only the Gram matrices over images are kept;
    activations are computed again for each comparison, as many layers at a time as fit into
    256 MB, so that memory does not grow with the depth of the network.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Any],
        forward: Forward | None = None,
        layers: Sequence[str] | None = None,
    ):
        self._model, self._batches, self._forward = model, list(batches), forward
        self.layers = tuple(compressible_layers(model) if layers is None else layers)
        if not self.layers:
            raise ValueError("layers must name one or more modules, got none")
        if not self._batches:
            raise ValueError("batches must hold at least two images, got none")
        first = layer_outputs(model, self._batches[:1], self.layers, forward)
        n_first = len(next(iter(first.values())))
        size = {k: v.nbytes * len(self._batches) for k, v in first.items()}
        self._groups, held = [[]], 0
        for name in self.layers:
            if self._groups[-1] and held + size[name] > _MAX_BYTES:
                self._groups, held = [*self._groups, []], 0
            self._groups[-1].append(name)
            held += size[name]
        if len(self._batches) == n_first == 1:
            raise ValueError("batches must hold at least two images, got one")
        self._grams: dict[str, np.ndarray] = {}

    def compare(self, model: nn.Module) -> list[dict[str, Any]]:
        """How far the layers of another network are from the original's.

        Parameters
        ----------
        model : torch.nn.Module
            With layers of the same names; their weights may be parametrized.

        Returns
        -------
        list of dict
            Of each layer ``layer``, ``sqnr_db`` (signal: the original's output), ``cka`` and
            ``cka_unpaired``: what is left of it if each image is compared with the next one,
            which is the level that chance and the number of images reach by themselves. Both are
            0 where the network puts out the same for all images.

        Raises
        ------
        ValueError
            If a layer of the original puts out the same for all images.
        """
        rows = []
        for names in self._groups:
            ours = layer_outputs(self._model, self._batches, names, self._forward)
            theirs = layer_outputs(model, self._batches, names, self._forward)
            for name in names:
                x, y = ours.pop(name), theirs.pop(name)
                if name not in self._grams:
                    try:
                        self._grams[name] = centered_gram(x)
                    except ValueError as error:
                        raise ValueError(f"layer {name!r} of the original: {error}") from None
                row = {"layer": name, "sqnr_db": sqnr_db(x, y), "cka": 0.0, "cka_unpaired": 0.0}
                if np.ptp(y, axis=0).any():
                    gram = centered_gram(y)
                    row["cka"] = gram_alignment(self._grams[name], gram)
                    row["cka_unpaired"] = gram_alignment(
                        self._grams[name], np.roll(gram, 1, axis=(0, 1))
                    )
                rows.append(row)
        return rows


def layer_outputs(
    model: nn.Module,
    batches: Iterable[Any],
    layers: Sequence[str],
    forward: Forward | None = None,
) -> dict[str, np.ndarray]:
    """What layers put out, one row per image.

    Parameters
    ----------
    model : torch.nn.Module
        Run in eval mode, and left in the mode that it was in.
    batches : iterable
    layers : sequence of str
        Names of modules.
    forward : callable, optional
        ``forward(model, batch)`` runs the model, for inputs that need more than one argument.

    Returns
    -------
    dict of str to ndarray, float32, (n_images, n_features)
        By layer. Of a layer that is called several times in a pass, all calls side by side.

    Raises
    ------
    ValueError
        If there is no such layer, or the pass does not call it.
    """
    known = dict(model.named_modules())
    missing = [name for name in layers if name not in known]
    if missing:
        raise ValueError(f"the network has no layer {missing[0]!r}; see model.named_modules()")
    found: dict[str, list[np.ndarray]] = {name: [] for name in layers}
    calls: dict[str, list[np.ndarray]] = {}

    def keep(name):
        def hook(module, given, out):
            calls.setdefault(name, []).append(out.detach().flatten(1).float().cpu().numpy())

        return hook

    hooks = [known[name].register_forward_hook(keep(name)) for name in layers]
    try:
        with evaluating(model), torch.no_grad():
            for batch in batches:
                calls.clear()
                model(batch) if forward is None else forward(model, batch)
                for name in layers:
                    if name not in calls:
                        raise ValueError(f"layer {name!r} is not called; leave it out of layers")
                    found[name].append(np.concatenate(calls[name], axis=1))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: np.concatenate(parts) for name, parts in found.items()}
