"""The three formats of checkpoints, each as a stream of tensors whose values are still on disk.

Values are exact: half and quarter precision is widened to float32, which holds all of it. Nothing
that a file holds is run. A damaged file is one ValueError; a tensor that cannot be measured is
yielded with the reason, so that the others go on.
"""

import io
import json
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Hashable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

_STATE_KEYS = ("state_dict", "model")  # where training scripts put the state dict
_PROBE_BYTES = 4096  # one page: enough to tell nearly all tensors apart
_MAPPED_BYTES = 16_000_000  # mapped pages count as ours until the map is dropped
_BOMB = 2**30, 200  # bytes and ratio beyond which compressed weights are not believed
# format code of safetensors -> dtype, whose first number is its bits
_SAFETENSORS_DTYPES = {
    **{f"F{n}": f"float{n}" for n in (16, 32, 64)},
    **{f"I{n}": f"int{n}" for n in (8, 16, 32, 64)},
    **{f"U{n}": f"uint{n}" for n in (8, 16, 32, 64)},
    **{f"F8_{kind}": f"float8_{kind.lower()}" for kind in ("E4M3FNUZ", "E5M2FNUZ", "E5M2")},
    **{f"F6_{kind}": f"float6_{kind.lower()}fn" for kind in ("E2M3", "E3M2")},
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F4": "float4_e2m1fn",
    "BF16": "bfloat16",
    "BOOL": "bool",
    "C64": "complex64",
}
# mantissa bits and exponent bias
_FLOAT8 = {
    "float8_e4m3fn": (3, 7),
    "float8_e5m2": (2, 15),
    "float8_e4m3fnuz": (3, 8),
    "float8_e5m2fnuz": (2, 16),
}
_MEASURED = ("float64", "float32", "float16", "bfloat16", *_FLOAT8)


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint, its values still on disk.

    Attributes
    ----------
    name : str
        As in the file; in a directory of several files without an index, ``file stem/name``.
    shape : tuple of int
        () where it cannot be known.
    dtype : str
        Of storage, as torch spells it (``"bfloat16"``); ``"unknown"`` if the tensor is damaged.
    shared_with : str or None
        Name of an earlier tensor of the checkpoint with the same storage or, for two or more
        axes, with equal shape, dtype and values.
    skipped : str or None
        Why the tensor cannot be measured.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    shared_with: str | None = None
    skipped: str | None = None
    _values: Callable[[], np.ndarray] | None = field(default=None, repr=False, compare=False)
    # equal for two tensors of one storage; a cheap value that differs for most unequal tensors
    _storage: Hashable = field(default=None, repr=False, compare=False)
    _probe: Callable[[], Hashable] | None = field(default=None, repr=False, compare=False)

    def read(self) -> np.ndarray:
        """Read the values, exactly, as float32 or float64; a ValueError if that fails."""
        if self.skipped is not None:
            raise ValueError(f"tensor {self.name!r} cannot be measured: {self.skipped}")
        try:
            return self._values()
        except Exception as error:  # a damaged file fails anywhere in the reader below
            raise ValueError(
                f"tensor {self.name!r} cannot be read: {line_of(error)}; get its file again"
            ) from None


def read_safetensors(path: Path) -> Iterator[StoredTensor]:
    """Tensors of a safetensors file in the order of their bytes, each mapped when it is read."""
    try:
        with safe_open(path, framework="numpy") as file:
            slices = [(name, file.get_slice(name)) for name in file.offset_keys()]
            layout = [(name, s.get_dtype(), tuple(s.get_shape())) for name, s in slices]
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length), object_pairs_hook=list)
        n_named = sum(name != "__metadata__" for name, _ in header)
        if n_named != len(layout):
            raise ValueError("its header names a tensor twice")
        unknown = {code for _, code, _ in layout} - {*_SAFETENSORS_DTYPES}
        if unknown:
            raise ValueError(f"its dtype {min(unknown)} is not known here")
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path.name} is damaged, cut off or not in safetensors format: {line_of(error)}; "
            "get it again"
        ) from None
    # safetensors has checked that the tensors lie behind the header without gap or overlap
    offset = 8 + length
    for name, code, shape in layout:
        dtype = _SAFETENSORS_DTYPES[code]
        bits = re.search(r"\d+", dtype)
        n_bytes = math.prod(shape) * (int(bits[0]) if bits else 8) // 8
        raw = partial(_map, path, offset, n_bytes)
        yield StoredTensor(
            name,
            shape,
            dtype,
            skipped=why_not(dtype, shape),
            _values=lambda raw=raw, dtype=dtype, shape=shape: _widen(raw(), dtype).reshape(shape),
            _probe=lambda raw=raw: raw()[:_PROBE_BYTES].tobytes(),
        )
        offset += n_bytes


def _map(path: Path, offset: int, n_bytes: int) -> np.ndarray:
    return np.asarray(np.memmap(path, np.uint8, mode="r", offset=offset, shape=(n_bytes,)))


def _widen(raw: np.ndarray, dtype: str) -> np.ndarray:
    """Little-endian bytes of a floating-point dtype as float32 or float64."""
    if dtype in _FLOAT8:
        return _float8_values(dtype)[raw]
    if dtype == "bfloat16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    values = raw.view(np.dtype(dtype).newbyteorder("<"))
    values = values.astype(np.float64 if dtype == "float64" else np.float32, copy=False)
    return np.require(values, requirements="A")  # a header may be of odd length


@cache
def _float8_values(dtype: str) -> np.ndarray:
    """The 256 values of an 8-bit float."""
    n_mantissa, bias = _FLOAT8[dtype]
    code = np.arange(256)
    mantissa = code & (2**n_mantissa - 1)
    exponent = (code & 127) >> n_mantissa
    significand = mantissa + np.where(exponent > 0, 2**n_mantissa, 0)
    values = np.ldexp(significand.astype(np.float32), np.maximum(exponent, 1) - bias - n_mantissa)
    values[code > 127] *= -1
    if dtype.endswith("fnuz"):
        values[0x80] = np.nan  # in place of -0; there are no infinities
    elif dtype == "float8_e4m3fn":
        values[[0x7F, 0xFF]] = np.nan
    else:
        top = exponent == 31
        values[top] = np.where(mantissa[top] > 0, np.nan, np.copysign(np.inf, values[top]))
    return values


class _Held:
    """Something opened when first asked for, and dropped between uses."""

    def __init__(self, opener: Callable[[], object]):
        self._open = opener
        self._content = None

    def get(self) -> object:
        content = self._content
        if content is None:
            content = self._content = self._open()
        return content

    def close(self) -> None:
        self._content = None


def read_npz(path: Path) -> Iterator[StoredTensor]:
    """Arrays of an archive of numpy, each unpacked when it is read."""
    try:
        archive = _Held(lambda: zipfile.ZipFile(path))
        entries = archive.get().infolist()
    except Exception as error:  # zipfile's own errors and many others
        raise ValueError(
            f"{path.name} is damaged or not an .npz file: {line_of(error)}; get it again, or "
            "write plain arrays with numpy.savez"
        ) from None
    with closing(archive):
        yield from (_describe_array(archive, entry) for entry in entries)


def _describe_array(archive: _Held, entry: zipfile.ZipInfo) -> StoredTensor:
    name = entry.filename.removesuffix(".npy")

    def values() -> np.ndarray:
        with archive.get().open(entry) as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
        return array.astype(np.float64 if array.itemsize == 8 else np.float32, copy=False)

    try:
        with archive.get().open(entry) as stream:
            start = io.BytesIO(stream.read(2**16))  # no header is longer
        version = np.lib.format.read_magic(start)
        if version > (2, 0):  # written for field names only
            return StoredTensor(name, (), "void", skipped="an array of records, not of numbers")
        reader = np.lib.format.read_array_header_1_0
        if version == (2, 0):
            reader = np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(start)
    except Exception as error:  # as for the archive
        return broken(name, f"damaged: {line_of(error)}")
    n_bytes = start.tell() + math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        skipped = "holds Python objects, which are not loaded"
    elif min(shape, default=0) < 0 or n_bytes != entry.file_size:
        return broken(name, f"damaged: its size is not that of shape {shape}")
    elif n_bytes > _BOMB[0] and n_bytes > _BOMB[1] * entry.compress_size:
        return broken(name, f"{entry.compress_size} bytes would unpack to {n_bytes}")
    else:
        skipped = why_not(dtype.name, shape)
    kind = dtype.name
    return StoredTensor(name, shape, kind, None, skipped, values, _probe=lambda: entry.CRC)


def read_torch(path: Path) -> Iterator[StoredTensor]:
    """Tensors of a state dict saved by torch; only weights are unpickled, no code."""
    if find_spec("torch") is None:
        raise ModuleNotFoundError(f"reading {path.name} needs torch; pip install 'pqlib[torch]'")
    state = _TorchState(path)
    with closing(state):
        # at once: addresses tell storages apart only while all are mapped
        yield from [_describe_tensor(state, *item) for item in state.get().items()]


class _TorchState(_Held):
    """The tensors of a file, mapped, and mapped anew when much of it has been touched."""

    def __init__(self, path: Path):
        super().__init__(self._load)
        self._path = path
        with path.open("rb") as stream:
            self._is_zip = stream.read(4) == b"PK\x03\x04"
        self._touched = 0

    def _load(self) -> dict:
        import torch

        name = self._path.name
        try:
            if self._is_zip:
                self._refuse_compressed()
            state = torch.load(self._path, "cpu", weights_only=True, mmap=self._is_zip)
        except Exception as error:  # a damaged pickle fails anywhere
            reason = line_of(error)
            if isinstance(error, pickle.UnpicklingError):  # whose text advises to run the code
                asked = re.search(r"GLOBAL (\S+)", str(error))
                reason = f"it asks for {asked[1]}" if asked else "it is no pickle of tensors"
            raise ValueError(
                f"{name} is damaged or holds more than tensors, which is not run (weights_only): "
                f"{reason}; get it again, or save its state dict alone"
            ) from None
        if not isinstance(state, dict):
            raise ValueError(f"{name} holds a {type(state).__name__}, not a state dict")
        inner = (state[key] for key in _STATE_KEYS if isinstance(state.get(key), dict))
        state = next(inner, state)
        return {str(k): t for k, t in state.items() if isinstance(t, torch.Tensor)}

    def _refuse_compressed(self) -> None:
        with zipfile.ZipFile(self._path) as archive:
            if any(e.compress_type != zipfile.ZIP_STORED for e in archive.infolist()):
                raise ValueError("it is compressed, which torch never does")

    def read(self, name: str) -> np.ndarray:
        import torch

        tensor = self.get()[name].detach()
        kind = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        values = tensor.to(kind, memory_format=torch.contiguous_format, copy=True).numpy()
        self.touch(tensor.nbytes)
        return values

    def probe(self, name: str) -> bytes:
        head = self.get()[name].detach().flatten()[: _PROBE_BYTES // 8].double().numpy().tobytes()
        self.touch(2**16)  # what the kernel maps around a page
        return head

    def touch(self, n_bytes: int) -> None:
        self._touched += n_bytes
        if self._is_zip and self._touched > _MAPPED_BYTES:
            self._touched = 0
            self.close()


def _describe_tensor(state: _TorchState, name: str, tensor) -> StoredTensor:
    try:
        dtype = str(tensor.dtype).removeprefix("torch.")
        shape = tuple(tensor.shape)
        if tensor.is_quantized:
            skipped = f"quantized already ({dtype}): the integers are not the weights"
        elif str(tensor.layout) != "torch.strided":
            skipped = f"{str(tensor.layout).removeprefix('torch.')} and not dense; save it dense"
        elif tensor.device.type != "cpu":
            skipped = f"saved from device {tensor.device.type} without its values"
        else:
            skipped = why_not(dtype, shape)
        if skipped is not None:
            return StoredTensor(name, shape, dtype, skipped=skipped)
        memory = tensor.untyped_storage()
        storage = (state, memory.data_ptr(), tensor.storage_offset(), tensor.stride(), shape, dtype)
        if tensor.nbytes > memory.nbytes():  # strides of 0 would unfold without bound
            skipped = f"{tensor.nbytes} bytes expanded from {memory.nbytes()}; save it contiguous"
    except (RuntimeError, NotImplementedError) as error:  # tensors without a plain shape
        return broken(name, f"torch cannot describe it: {line_of(error)}")
    return StoredTensor(
        name,
        shape,
        dtype,
        skipped=skipped,
        _values=lambda: state.read(name),
        _storage=storage,
        _probe=lambda: state.probe(name),
    )


def why_not(dtype: str, shape: tuple[int, ...]) -> str | None:
    """Why a tensor of this dtype and shape has no weights to measure."""
    if 0 in shape:
        return "zero-size: it has no values"
    if dtype not in _MEASURED:
        return f"dtype {dtype} is no floating-point type that is read here"
    return None


def broken(name: str, reason: str) -> StoredTensor:
    """What stands in for a tensor that is promised and cannot be had."""
    return StoredTensor(name, (), "unknown", skipped=reason)


def line_of(error: Exception) -> str:
    """What an error says, in one line that is not long."""
    text = str(error)
    if isinstance(error, KeyError):
        return f"it has no {text}"
    return next(iter(text.splitlines()), "")[:200] or type(error).__name__
