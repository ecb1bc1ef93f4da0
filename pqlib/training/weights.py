"""Trained weights into a network, its classifier replaced where the classes are others."""

import logging
import os
import re
from pathlib import Path

import torch
from torch import nn

from pqlib.downloads import fetch
from pqlib.training import checkpoint
from pqlib.zoo import open_source

_N_NAMED = 5  # keys named in a message
_log = logging.getLogger(__name__)


def read_state(source: str) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint by name, without a prefix ``module.`` that all of them have.

    Parameters
    ----------
    source : str
        What `pqlib.zoo.open_source` knows; ``weights.pt`` of a baseline of `pqlib run table1`; or
        the address of a file, ``https://...``. Its SHA-256, or the first digits of it, stand behind
        ``#sha256=`` or, as torch.hub has it, in the name of the file between ``-`` and ``.``. Files
        go where torch.hub keeps them.

    Raises
    ------
    ValueError
        If the file is damaged or another, or an address has no hash.
    OSError, ModuleNotFoundError
        If a file, a package or the network is absent; the message says what to do.
    """
    if not isinstance(source, str):
        raise TypeError(f"weights must be a str or None, got {source!r}")
    if source.startswith(("http://", "https://")):
        source = str(_downloaded(source))
    elif ":" not in source and not Path(source).expanduser().exists():
        raise FileNotFoundError(
            f"weights {source!r} are no file, and neither 'pretrained' nor 'random'"
        )
    path = Path(source).expanduser()
    if path.is_file() and checkpoint.is_checkpoint(path):
        state = checkpoint.load(path).get("model")
        if state is None:
            raise ValueError(f"weights {source!r} hold no network; give the weights.pt of a run")
        return {name: v for name, v in state.items() if v.is_floating_point()}
    checkpoints = open_source(source)
    if len(checkpoints) != 1:
        raise ValueError(f"weights {source!r} name {len(checkpoints)} networks; give one of them")
    state = {}
    for tensor in checkpoints[0].tensors():
        if tensor.dtype == "unknown":
            raise ValueError(f"weights {source!r}: {tensor.name!r}: {tensor.skipped}")
        if tensor.skipped is None:  # counts and indices stay as the network made them
            state[tensor.name] = torch.from_numpy(tensor.read())
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def load(
    module: nn.Module, state: dict[str, torch.Tensor], what: str, replaceable: tuple[str, ...] = ()
) -> None:
    """Put all of ``state`` into ``module``, in place.

    Parameters
    ----------
    module : torch.nn.Module
    state : dict of str to Tensor
        In the names of the module; entries that are no floating-point numbers may be absent.
    what : str
        Names the weights in messages.
    replaceable : tuple of str, default ()
        Layers, such as the classifier, that stay as they were made (said through `logging`) where
        their shapes are others.

    Raises
    ------
    ValueError
        Keys missing, unexpected or of another shape are named.
    """
    own = {k: v for k, v in module.state_dict().items() if v.is_floating_point()}
    for layer in replaceable:
        keys = [k for k in own if k.startswith(f"{layer}.")]
        if any(k in state and state[k].shape != own[k].shape for k in keys):
            _log.info("%s: layer %s has another shape and starts anew", what, layer)
            state = {k: v for k, v in state.items() if k not in keys}
            own = {k: v for k, v in own.items() if k not in keys}
    lacking, beyond = [k for k in own if k not in state], [k for k in state if k not in own]
    if lacking or beyond:
        parts = [f"it lacks {_some(lacking)}"] if lacking else []
        parts += [f"it has {_some(beyond)} which the model does not have"] if beyond else []
        raise ValueError(f"{what} does not fit: {'; '.join(parts)}")
    for key, tensor in state.items():
        if tensor.shape != own[key].shape:
            raise ValueError(
                f"{what} does not fit: {key!r} has shape {tuple(tensor.shape)}, not "
                f"{tuple(own[key].shape)}"
            )
    module.load_state_dict(state, strict=False)


def _downloaded(address: str) -> Path:
    url, _, fragment = address.partition("#")
    file = url.rsplit("/", 1)[-1]
    stated = re.fullmatch(r"sha256=([0-9a-f]{8,64})", fragment)
    stated = stated or re.search(r"-([0-9a-f]{8,64})\.", file)
    if stated is None:
        raise ValueError(
            f"weights {address!r} need their SHA-256, 8 digits at least: append #sha256=..."
        )
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or Path(cache, "torch")
    path = Path(home, "hub", "checkpoints", file)
    return fetch(url, path, sha256=stated[1], folder_variable="TORCH_HOME")


def _some(keys: list[str]) -> str:
    named = ", ".join(keys[:_N_NAMED])
    return named if len(keys) <= _N_NAMED else f"{named} and {len(keys) - _N_NAMED} more"
