"""A training run's state on disk: written whole or not at all, and known to be sound when read."""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_FORMAT = "pqlib checkpoint 1"
_START = b'{"format": "pqlib checkpoint'


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says why."""


def save(path: str | os.PathLike, state: Mapping[str, Any], *, config: str) -> None:
    """Replace the checkpoint at ``path``; the one before stays beside it, as ``*.before``.

    Parameters
    ----------
    path : path-like
        Its folder is made where it is missing.
    state : mapping
        Tensors, numbers, texts, and lists and dictionaries of them.
    config : str
        Names the run; `load` refuses the checkpoint of another.

    Raises
    ------
    OSError
        If it cannot be written, on a full disk for instance. What was there before is kept.

    Notes
    -----
    One line of JSON (format, config, length and SHA-256 of the rest), then what torch.save writes.
    The file is synced to disk under another name and then takes the place of the old one, so that
    at every moment at least one whole checkpoint is there.
    """
    path = Path(path)
    stream = io.BytesIO()
    torch.save(dict(state), stream)
    content = stream.getbuffer()
    head = {
        "format": _FORMAT,
        "config": config,
        "n_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(json.dumps(head).encode() + b"\n")
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            path.replace(_before(path))
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(
            error.errno,
            f"{error.strerror}: {path.name} cannot be written in {path.parent}; what was there "
            "before is kept",
        ) from None


def is_checkpoint(path: str | os.PathLike) -> bool:
    """Whether a file begins as those of `save` do."""
    with Path(path).open("rb") as file:
        return file.read(len(_START)) == _START


def load(
    path: str | os.PathLike, *, config: str | None = None, device: Any = "cpu"
) -> dict[str, Any]:
    """What `save` wrote, for the run that ``config`` names; of any run without it.

    Raises
    ------
    FileNotFoundError
        If there is none.
    CheckpointError
        If it is damaged, or of a run with another config.

    Notes
    -----
    torch.load reads tensors and plain containers alone (``weights_only``): nothing in the file is
    executed.
    """
    path = Path(path)
    with path.open("rb") as file:
        first, content = file.readline(4096), file.read()
    try:
        head = json.loads(first)
        sound = (
            head["format"] == _FORMAT
            and len(content) == head["n_bytes"]
            and hashlib.sha256(content).hexdigest() == head["sha256"]
        )
        stated = head["config"]
    except (ValueError, KeyError, TypeError):
        sound, stated = False, None
    if not sound:
        raise CheckpointError(f"{path.name} is damaged: its checksum does not hold")
    if config is not None and stated != config:
        raise CheckpointError(f"{path.name} is of another run ({stated}, not {config})")
    return torch.load(io.BytesIO(content), map_location=device, weights_only=True)


def latest(
    path: str | os.PathLike, *, config: str, device: Any = "cpu"
) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest sound checkpoint, or None; and what was wrong with those that are newer."""
    wrong = []
    for candidate in (Path(path), _before(Path(path))):
        try:
            return load(candidate, config=config, device=device), wrong
        except FileNotFoundError:
            continue
        except CheckpointError as error:
            wrong.append(str(error))
    return None, wrong


def remove(path: str | os.PathLike) -> None:
    """Delete the checkpoint, the one before it, and what a killed process left half-written."""
    path = Path(path)
    for leftover in (path, _before(path), *path.parent.glob(f"{path.name}.*.tmp")):
        leftover.unlink(missing_ok=True)


def _before(path):
    return path.with_name(f"{path.name}.before")
