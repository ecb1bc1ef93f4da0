"""Damaged and hostile checkpoints, seeded: each maker writes one and returns its path."""

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save as to_safetensors

FLOATS = np.array([0.5, np.nan, np.inf, -np.inf, 0.0, 1e-45], dtype=np.float32)


class Trap:
    """Unpickled by anything that runs code, it makes the file ``canary``."""

    def __init__(self, canary, rng):
        code = f"open({str(canary)!r}, 'w').close()"
        path = Path(canary)
        ways = [(exec, (code,)), (eval, (code,)), (path.touch, ()), (open, (str(path), "w"))]
        ways.append((torch.serialization.os.system, (f"touch '{path}'",)))
        self.way = ways[rng.integers(len(ways))]

    def __reduce__(self):
        return self.way


def some_arrays(rng):
    shapes = [(4, 3), (2, 3, 3, 3), (5,), (0, 3), (), (7, 1)]
    types = [np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_, np.complex64]
    arrays = {}
    for k in range(rng.integers(1, 6)):
        kind = types[0] if rng.random() < 0.5 else types[rng.integers(len(types))]
        shape = shapes[rng.integers(len(shapes))]
        values = rng.choice(FLOATS, shape) if rng.random() < 0.3 else rng.normal(size=shape)
        with np.errstate(all="ignore"):
            arrays[f"layer{k}.weight"] = np.array(values, dtype=np.float64).astype(kind)
    return arrays


def damaged(data, rng):
    """Cut off, with bytes changed, put in, overwritten, or as they are, which is odd enough."""
    data = bytearray(data)
    way = rng.integers(8)
    if way == 0:
        del data[rng.integers(len(data)) :]
    elif way in (1, 2):  # the beginning holds most of what can be misread
        for _ in range(rng.integers(1, 9)):
            end = len(data) if way == 1 else min(len(data), 200)
            data[rng.integers(end)] = rng.integers(256)
    elif way == 3:
        start = rng.integers(len(data))
        data[start:start] = data[: rng.integers(64)]
    elif way == 4:
        start, n = rng.integers(len(data)), rng.integers(1, 40)
        data[start : start + n] = rng.bytes(n)
    return bytes(data)


def random_bytes(folder, rng, canary):
    suffix = rng.choice([".safetensors", ".npz", ".pth", ".pt", ".th"])
    starts = [b"", b"PK\x03\x04", b"\x80\x02", b"\x93NUMPY", struct.pack("<Q", 16) + b"{"]
    starts.append(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n")
    path = folder / f"random{suffix}"
    path.write_bytes(starts[rng.integers(len(starts))] + rng.bytes(rng.integers(300)))
    return path


def safetensors_damaged(folder, rng, canary):
    path = folder / "damaged.safetensors"
    path.write_bytes(damaged(to_safetensors(some_arrays(rng)), rng))
    return path


def safetensors_header(folder, rng, canary):
    """A header written by hand that lies in one place."""
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    entries = [("a", entry), ("b", entry | {"data_offsets": [16, 32]})]
    lie = rng.integers(9)
    if lie == 0:
        entries.append(("a", entry))  # a duplicate key
    elif lie == 1:
        entries[0] = ("a", entry | {"shape": [2**40, 2**40]})
    elif lie == 2:
        entries[0] = ("a", entry | {"shape": [-2, 2]})
    elif lie == 3:
        entries[1] = ("b", entry)  # on top of each other
    elif lie == 4:
        entries[0] = ("a", entry | {"dtype": str(rng.choice(["F9", "BOOL", "", "F4"]))})
    elif lie == 5:
        entries[0] = ("a", entry | {"data_offsets": [2**63, 2**64 - 1]})
    elif lie == 6:
        entries[0] = ("a", [entry])
    header = "{" + ",".join(f'"{k}":{json.dumps(v)}' for k, v in entries) + "}"
    header = header.encode()
    if lie == 7:
        header = header.replace(b'"a"', b'"\xff\xfe"')  # not UTF-8
    length = len(header)
    if lie == 8:
        length = int(rng.choice([0, 1, length - 1, length + 1, 2**20, 2**40, 2**63 - 1]))
    path = folder / "header.safetensors"
    path.write_bytes(struct.pack("<Q", length) + header + rng.bytes(32))
    return path


def odd_tensors(rng):
    weight = torch.from_numpy(rng.normal(size=(4, 4)).astype(np.float32))
    return {
        "whole": weight,
        "tied": weight,
        "transposed": weight.T,
        "quantized": torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
        "sparse": weight.to_sparse(),
        "meta": torch.empty(2**20, 2**20, device="meta"),
        "expanded": torch.ones(1).expand(2**20, 2**20),
        "integer": torch.arange(6).reshape(2, 3),
        "complex": torch.ones(2, 2, dtype=torch.complex64),
        "empty": torch.empty(0, 3),
        "nan": weight * torch.nan,
        "half": weight.half(),
        "brain": weight.bfloat16(),
        "quarter": weight.to(torch.float8_e5m2),
        "parameter": torch.nn.Parameter(weight),
        "\ud800 not UTF-8": weight,
        "epoch": 3,
    }


def torch_damaged(folder, rng, canary):
    odd = odd_tensors(rng)
    names = rng.permutation([*odd])[: rng.integers(1, 8)]
    state = OrderedDict((str(n), odd[str(n)]) for n in names)
    if rng.random() < 0.3:
        state = {str(rng.choice(["state_dict", "model", "other"])): state}
    buffer = io.BytesIO()
    as_zip = bool(rng.random() < 0.6)
    try:
        torch.save(state, buffer, _use_new_zipfile_serialization=as_zip)
    except Exception:  # a name or layout that this format refuses
        torch.save(odd["half"], buffer)
    path = folder / f"damaged{rng.choice(['.pth', '.pt', '.th'])}"
    path.write_bytes(damaged(buffer.getvalue(), rng))
    return path


def torch_trap(folder, rng, canary):
    trap = Trap(canary, rng)
    content = [trap, {"w": trap}, {"w": torch.eye(2), "state_dict": {"v": trap}}][rng.integers(3)]
    path = folder / f"trap{rng.choice(['.pth', '.pt', '.th'])}"
    if rng.random() < 0.4:
        path.write_bytes(pickle.dumps(content, protocol=int(rng.integers(6))))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=bool(rng.random() < 0.5))
    return path


def torch_compressed(folder, rng, canary):
    """A zip file of torch's, compressed by another hand, of a size that unpacks a thousandfold."""
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(1000, 1000)}, buffer)
    path = folder / "compressed.pt"
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    return path


def npz_damaged(folder, rng, canary):
    buffer = io.BytesIO()
    save = np.savez_compressed if rng.random() < 0.5 else np.savez
    arrays = some_arrays(rng)
    arrays["records"] = np.zeros(3, dtype=[("a", "f4"), ("b", "i4")])
    arrays["words"] = np.array(["a", "b"])
    arrays["big_endian"] = np.ones((2, 2), dtype=">f4")
    arrays["long"] = np.ones((2, 2), dtype=np.longdouble)
    arrays["columns"] = np.asfortranarray(rng.normal(size=(3, 4)))
    save(buffer, **arrays)
    path = folder / "damaged.npz"
    path.write_bytes(damaged(buffer.getvalue(), rng))
    return path


def npz_header(folder, rng, canary):
    """One array whose header claims what it likes, or whose name comes twice, or a trap."""
    lie = rng.integers(5)
    shape = [(2, 2), (2**40, 2**40), (-2, -2), (2, 2), (2, 2)][lie]
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    length = struct.pack("<H", len(header))
    if lie == 3:
        length = struct.pack("<H", int(rng.integers(2**16)))
        header = rng.choice([header, b"(" * 5000, b"__import__('os')"])
    path = folder / "header.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", b"\x93NUMPY\x01\x00" + length + header + rng.bytes(16))
        if lie == 4:
            buffer = io.BytesIO()
            np.save(buffer, np.array([Trap(canary, rng)], dtype=object))
            archive.writestr("trap.npy", buffer.getvalue())
    return path


def index(folder, rng, canary):
    (folder / "good.safetensors").write_bytes(to_safetensors({"a": np.eye(2), "b": np.eye(3)}))
    (folder / "bad.safetensors").write_bytes(damaged(to_safetensors(some_arrays(rng)), rng))
    shards = ["good.safetensors", "bad.safetensors", "missing.safetensors", "../good.safetensors"]
    shards += ["/etc/passwd", 3, None, "good.npz", ""]
    chosen = [shards[rng.integers(4 if rng.random() < 0.8 else len(shards))] for _ in range(3)]
    content = {"weight_map": dict(zip("abc", chosen, strict=True))}
    contents = [content, [content], {"weight_map": [1]}, {"weight_map": {"a": ["b"]}}, {}]
    text = json.dumps(contents[0 if rng.random() < 0.7 else rng.integers(5)]).encode()
    path = folder / "model.safetensors.index.json"
    path.write_bytes(damaged(text, rng) if rng.random() < 0.3 else text)
    return path if rng.random() < 0.5 else folder


MAKERS = (
    *(random_bytes, safetensors_damaged, safetensors_header),
    *(torch_damaged, torch_damaged, torch_trap, torch_compressed),
    *(npz_damaged, npz_header, index),
)


def hostile_file(folder: Path, seed: int, canary: Path) -> Path:
    """The checkpoint of this seed, in a folder of its own."""
    rng = np.random.default_rng(seed)
    place = folder / f"{seed}"
    place.mkdir()
    return MAKERS[seed % len(MAKERS)](place, rng, canary)
