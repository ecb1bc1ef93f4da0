"""Checkpoints on disk, a file or a directory of them, as one stream of tensors."""

import json
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from pqlib.tensor_formats import (
    StoredTensor,
    broken,
    line_of,
    read_npz,
    read_safetensors,
    read_torch,
)

_READERS = {
    ".safetensors": read_safetensors,
    ".npz": read_npz,
    **dict.fromkeys((".pth", ".pt", ".th"), read_torch),
}
SUFFIXES = (*_READERS,)
_INDEX_SUFFIX = ".safetensors.index.json"
_MAX_INDEX_BYTES = 100_000_000  # safetensors' own limit for a header
_LFS_MARK = b"version https://git-lfs.github.com/"


def stored_tensors(path: str | Path) -> Iterator[StoredTensor]:
    """All tensors of a checkpoint in the order stored, biases too, one at a time.

    Parameters
    ----------
    path : str or Path
        A ``.safetensors``, ``.npz``, or ``.pth``, ``.pt``, ``.th`` file (a state dict, also under
        the key ``state_dict`` or ``model``), a ``.safetensors.index.json``, or a directory of
        these. Of a directory with an index, the files that the index lists.

    Yields
    ------
    StoredTensor
        Marked as shared or skipped where it is. In a directory, a damaged file is one such tensor
        without shape, and a tensor that the index promises in vain another.

    Raises
    ------
    FileNotFoundError, ModuleNotFoundError
        If there is no such file, or torch is needed and absent.
    ValueError
        If the file is damaged, of an unknown kind, or holds no tensors.

    Notes
    -----
    safetensors are memory-mapped one tensor at a time, torch's zip files as a whole but with at
    most 16 MB touched, and arrays of ``.npz`` read one by one. torch's format before version 1.6
    has to be loaded whole.
    """
    if not isinstance(path, str | Path):
        raise TypeError(f"path must be a str or a Path, got {path!r}")
    path = Path(path).expanduser()
    if path.is_dir():
        tensors = _read_directory(path)
    elif not path.is_file():
        raise FileNotFoundError(f"{path} is neither a file nor a directory")
    elif path.name.endswith(_INDEX_SUFFIX):
        tensors = _read_index(path)
    else:
        tensors = _read_file(path)
    yield from _mark_twins(tensors)


def _read_file(path: Path) -> Iterator[StoredTensor]:
    if path.suffix not in _READERS:
        raise ValueError(
            f"{path.name!r} ends in {path.suffix!r}; known are {', '.join(_READERS)} and "
            f"{_INDEX_SUFFIX}"
        )
    with path.open("rb") as stream:
        start = stream.read(len(_LFS_MARK))
    if start == _LFS_MARK:
        raise ValueError(
            f"{path.name} is a Git LFS pointer, not the weights; run `git lfs pull` where it is"
        )
    empty = True
    for tensor in _READERS[path.suffix](path):
        empty = False
        yield tensor
    if empty:
        raise ValueError(
            f"{path.name} holds no tensors; give a file of arrays, or of a state dict, which may "
            "stand under the key state_dict or model"
        )


def _read_directory(folder: Path) -> Iterator[StoredTensor]:
    indices = sorted(folder.glob(f"*{_INDEX_SUFFIX}"))
    if len(indices) > 1:
        raise ValueError(
            f"{folder.name} has several indices; give one: {', '.join(i.name for i in indices)}"
        )
    if indices:
        yield from _read_index(indices[0])
        return
    files = sorted(f for f in folder.iterdir() if f.suffix in _READERS and f.is_file())
    if not files:
        raise ValueError(f"directory {folder.name} has no file that ends in {', '.join(_READERS)}")
    if len(files) == 1:
        yield from _read_file(files[0])
        return
    stems = [f.stem for f in files]
    for file in files:
        prefix = file.stem if stems.count(file.stem) == 1 else file.name
        try:
            for tensor in _read_file(file):
                yield replace(tensor, name=f"{prefix}/{tensor.name}")
        except (ValueError, OSError) as error:
            yield broken(file.name, str(error))


def _read_index(index: Path) -> Iterator[StoredTensor]:
    if index.stat().st_size > _MAX_INDEX_BYTES:
        raise ValueError(f"{index.name} is too large for an index; get it again")
    try:
        shard_of = json.loads(index.read_bytes())["weight_map"]
        shards: dict[str, list[str]] = {}
        for name, shard in shard_of.items():
            if (
                not shard or Path(shard).name != shard
            ):  # an index must not lead out of its directory
                raise ValueError(f"{shard!r} is not a plain file name")
            shards.setdefault(shard, []).append(name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{index.name} is damaged or no index of safetensors: {line_of(error)}; get it again"
        ) from None
    for shard, names in sorted(shards.items()):
        missing = dict.fromkeys(names)
        reason = f"{shard} does not hold it, though {index.name} says so"
        try:
            for tensor in _read_file(index.with_name(shard)):
                missing.pop(tensor.name, None)
                yield tensor
        except FileNotFoundError:
            reason = f"{shard} is missing beside {index.name}; download it too"
        except (ValueError, OSError) as error:
            reason = str(error)
        yield from (broken(name, reason) for name in missing)


def _mark_twins(tensors: Iterable[StoredTensor]) -> Iterator[StoredTensor]:
    """Mark what is stored twice, and skip a second tensor of the same name."""
    names: set[str] = set()
    storages: dict[Hashable, str] = {}
    groups: dict[Hashable, dict] = {}
    for tensor in tensors:
        if tensor.name in names:
            why = "a second tensor of this name; rename one of them"
            tensor = replace(tensor, dtype="unknown", skipped=why)
        names.add(tensor.name)
        twin = None
        if tensor.skipped is None:
            if tensor._storage is not None:
                twin = storages.setdefault(tensor._storage, tensor.name)
            if twin in (None, tensor.name) and len(tensor.shape) >= 2:
                twin = _equal_one(tensor, groups)
        yield tensor if twin in (None, tensor.name) else replace(tensor, shared_with=twin)


def _equal_one(tensor: StoredTensor, groups: dict[Hashable, dict]) -> str | None:
    try:
        group = groups.setdefault((tensor.dtype, tensor.shape, tensor._probe()), {})
        if not group:  # alone so far: hashing its values can wait for a second
            group[None] = tensor
            return None
        if None in group:
            first = group.pop(None)
            group[_digest(first)] = first.name
        return group.setdefault(_digest(tensor), tensor.name)
    except Exception:  # a damaged tensor says so when it is read
        return None


def _digest(tensor: StoredTensor) -> bytes:
    return blake2b(np.ascontiguousarray(tensor.read())).digest()
