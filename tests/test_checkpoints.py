import json
import os
import resource
import struct
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pqlib.checkpoints import stored_tensors

torch = pytest.importorskip("torch")


def everything(path):
    return {t.name: t for t in stored_tensors(path)}


def one_of_each_dtype(rng):
    """All values of 8 bits; of the longer floats, random bits, so that all exponents occur."""
    tensors = {}
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz):
        tensors[str(dtype)] = torch.arange(256, dtype=torch.uint8).reshape(16, 16).view(dtype)
    tensors["fnuz"] = torch.arange(256, dtype=torch.uint8).view(torch.float8_e5m2fnuz)[None]
    for dtype in (torch.float16, torch.bfloat16):
        bits = torch.arange(-(2**15), 2**15).to(torch.int16)
        tensors[str(dtype)] = bits.reshape(256, 256).view(dtype)
    for dtype, kind in ((torch.float32, np.int32), (torch.float64, np.int64)):
        info = np.iinfo(kind)
        bits = rng.integers(info.min, info.max, size=(30, 20), dtype=kind)
        tensors[str(dtype)] = torch.from_numpy(bits).view(dtype)
    return tensors


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".th"])
def test_every_floating_dtype_is_read_exactly(tmp_path, suffix):
    from safetensors.torch import save_file as save_torch

    tensors = one_of_each_dtype(np.random.default_rng(0))
    path = tmp_path / f"all{suffix}"
    if suffix == ".safetensors":
        save_torch(tensors, path)
    else:
        if suffix == ".th":  # torch's own reader of its old format knows no 8-bit floats
            tensors = {name: t for name, t in tensors.items() if t.itemsize > 1}
        torch.save(tensors, path, _use_new_zipfile_serialization=suffix == ".pth")
    stored = everything(path)
    assert {*stored} == {*tensors}
    for name, tensor in tensors.items():
        assert stored[name].dtype == str(tensor.dtype).removeprefix("torch.")
        assert stored[name].shape == tuple(tensor.shape)
        values = stored[name].read()
        assert values.dtype == (np.float64 if tensor.dtype == torch.float64 else np.float32)
        np.testing.assert_array_equal(values, tensor.to(torch.float64).numpy())


def test_npz_is_read_exactly(tmp_path):
    rng = np.random.default_rng(1)
    w = rng.normal(size=(6, 5))
    kinds = {"half": "f2", "single": "f4", "double": "f8", "other_end": ">f4", "other_half": ">f2"}
    arrays = {name: w.astype(kind) for name, kind in kinds.items()}
    arrays |= {"columns": np.asfortranarray(w), "long": w.astype(np.longdouble), "count": w > 0}
    arrays["records"] = np.zeros(3, dtype=[("a", "f4")])
    np.savez_compressed(tmp_path / "a.npz", objects=np.array([{}]), **arrays)
    stored = everything(tmp_path / "a.npz")
    skipped = {name for name, tensor in stored.items() if tensor.skipped}
    assert skipped == {"objects", "long", "count", "records"}
    assert stored["half"].dtype == "float16" and stored["other_end"].dtype == "float32"
    for name in {*stored} - skipped:
        values = stored[name].read()
        assert values.dtype in (np.float32, np.float64) and values.dtype.isnative
        np.testing.assert_array_equal(values, arrays[name])
    with pytest.raises(ValueError, match="'objects' cannot be measured: holds Python objects"):
        stored["objects"].read()


def test_what_is_no_weight_says_why(tmp_path):
    from hostile_files import odd_tensors

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized tensors are on their way out of torch
        odd = odd_tensors(np.random.default_rng(0))
        torch.save(odd, tmp_path / "odd.pt")
        stored = everything(tmp_path / "odd.pt")
    why = {
        "quantized": "quantized already",
        "sparse": "not dense",
        "meta": "without its values",
        "expanded": "4398046511104 bytes expanded from 4",
        "integer": "dtype int64 is no floating-point",
        "complex": "dtype complex64",
        "empty": "zero-size",
    }
    assert {name for name, tensor in stored.items() if tensor.skipped} == {*why}
    for name, reason in why.items():
        assert reason in stored[name].skipped
        with pytest.raises(ValueError, match=f"{name}.*{reason}"):
            stored[name].read()
    assert np.isnan(stored["nan"].read()).all()
    assert "epoch" not in stored


@pytest.mark.parametrize("mapped", [True, False])
def test_tensors_stored_twice_are_marked(tmp_path, mapped):
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "embed": base,
        "head": base,
        "other_view": base.T,
        "copy": base.clone(),
        "bias": torch.zeros(4),
        "bias2": torch.zeros(4),
        "same_start": torch.cat([base.flatten()[:-1], torch.ones(1)]).reshape(4, 6),
        "other_dtype": base.half(),
    }
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=mapped)
    shared = {name: t.shared_with for name, t in everything(tmp_path / "a.pt").items()}
    assert {k: v for k, v in shared.items() if v} == {"head": "embed", "copy": "embed"}
    arrays = {name: np.ascontiguousarray(t.numpy()) for name, t in state.items()}
    save_file(arrays, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", **arrays)
    for name in ("a.safetensors", "a.npz"):
        trio = {"embed", "head", "copy"}
        stored = everything(tmp_path / name)
        first = next(n for n in stored if n in trio)
        marked = {k: t.shared_with for k, t in stored.items() if t.shared_with}
        assert marked == dict.fromkeys(trio - {first}, first)


def test_state_dicts_within(tmp_path):
    w = torch.eye(2)
    for content in (
        {"state_dict": {"module.w": w}, "epoch": 3},
        {"model": {"module.w": w}, "optimizer": {}},
    ):
        torch.save(content, tmp_path / "a.pth")
        assert [*everything(tmp_path / "a.pth")] == ["module.w"]
    for content, message in (([w], "a list, not a state dict"), ({"e": 3}, "holds no tensors")):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=message):
            everything(tmp_path / "a.pth")


def shards(folder, n_shards=3):
    rng = np.random.default_rng(0)
    arrays = {f"layers.{k}.w": rng.normal(size=(4, 4)) for k in range(2 * n_shards)}
    weight_map = {}
    for k in range(n_shards):
        part = dict([*arrays.items()][2 * k : 2 * k + 2])
        name = f"model-{k + 1:05d}-of-{n_shards:05d}.safetensors"
        save_file(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return arrays, index


def test_shards_are_one_checkpoint(tmp_path):
    arrays, index = shards(tmp_path)
    for source in (index, tmp_path, str(index)):
        stored = everything(source)
        assert [*stored] == [*arrays]
        for name, values in arrays.items():
            np.testing.assert_array_equal(stored[name].read(), values)


def test_a_missing_or_damaged_shard_costs_only_its_own_tensors(tmp_path):
    _, index = shards(tmp_path)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    last = tmp_path / "model-00003-of-00003.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    stored = everything(index)
    assert [name for name, t in stored.items() if not t.skipped] == ["layers.0.w", "layers.1.w"]
    assert "is missing beside" in stored["layers.2.w"].skipped
    assert "damaged, cut off" in stored["layers.5.w"].skipped
    assert stored["layers.5.w"].dtype == "unknown"
    content = json.loads(index.read_text())
    content["weight_map"]["promised"] = "model-00001-of-00003.safetensors"
    index.write_text(json.dumps(content))
    assert "does not hold it" in everything(index)["promised"].skipped
    content["weight_map"]["escape"] = "../secret.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="not a plain file name"):
        everything(index)
    (tmp_path / "other.safetensors.index.json").touch()
    with pytest.raises(ValueError, match="several indices; give one: model"):
        everything(tmp_path)


def test_a_directory_of_files(tmp_path):
    w = np.random.default_rng(0).normal(size=(3, 3))
    np.savez(tmp_path / "a.npz", w=w)
    assert [*everything(tmp_path)] == ["w"]
    torch.save({"w": torch.eye(2)}, tmp_path / "b.pth")
    torch.save({"w": torch.eye(2)}, tmp_path / "b.th")
    (tmp_path / "c.npz").write_bytes(b"junk")
    (tmp_path / "README.md").touch()
    stored = everything(tmp_path)
    assert [*stored] == ["a/w", "b.pth/w", "b.th/w", "c.npz"]
    assert stored["b.th/w"].shared_with == "b.pth/w"
    assert "c.npz is damaged" in stored["c.npz"].skipped
    np.testing.assert_array_equal(stored["b.pth/w"].read(), np.eye(2))  # opened again
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="has no file that ends in"):
        everything(tmp_path / "none")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth", ".pt", ".th"])
def test_files_that_are_not_what_they_say(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    with pytest.raises(FileNotFoundError, match="neither a file nor a directory"):
        everything(path)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    path.write_text(pointer)
    with pytest.raises(ValueError, match=rf"w\{suffix} is a Git LFS pointer.*git lfs pull"):
        everything(path)
    for junk in (b"", b"junk", bytes(1000)):
        path.write_bytes(junk)
        with pytest.raises(ValueError, match=rf"w\{suffix} is damaged.*(get it|write|save)"):
            everything(path)
    with pytest.raises(TypeError, match="path must be a str or a Path"):
        everything(3)


def test_headers_of_safetensors_that_lie(tmp_path):
    entry = '{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}'
    headers = {
        f'{{"w":{entry},"w":{entry}}}': "names a tensor twice",
        f'{{"w":{entry},"v":{entry}}}': "invalid offset",
        f'{{"w":{entry}}}'.replace("2,2", "-2,2"): "invalid",
        f'{{"w":{entry}}}'.replace("2,2", "2,3"): "invalid shape",
        f'{{"w":{entry}}}'.replace("2,2", f"{2**40},{2**40}"): "overflow",
        f'{{"w":{entry}}}'.replace("F32", "F33"): "unknown variant",
    }
    for header, message in headers.items():
        content = struct.pack("<Q", len(header)) + header.encode() + bytes(16)
        (tmp_path / "w.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=rf"w\.safetensors is damaged.*{message}"):
            everything(tmp_path / "w.safetensors")
    header = f'{{"w":{entry}}}'.encode()
    for length in (0, 3, len(header) + 1, 10**8 + 1, 2**63):
        content = struct.pack("<Q", length) + header + bytes(16)
        (tmp_path / "w.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=r"w\.safetensors is damaged"):
            everything(tmp_path / "w.safetensors")


def test_a_header_of_odd_length_gives_aligned_values(tmp_path):
    header = b'{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'
    header += b" " * (len(header) % 2 == 0)
    w = np.arange(4, dtype=np.float32).reshape(2, 2)
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + w.tobytes())
    values = everything(path)["w"].read()
    assert values.flags.aligned
    np.testing.assert_array_equal(values, w)


def test_a_file_cut_off_after_it_was_opened(tmp_path):
    save_file({"w": np.eye(100)}, tmp_path / "w.safetensors")
    stored = everything(tmp_path / "w.safetensors")["w"]
    with (tmp_path / "w.safetensors").open("r+b") as stream:
        stream.truncate(1000)
    with pytest.raises(ValueError, match="'w' cannot be read"):
        stored.read()


def test_one_damaged_array_leaves_the_others(tmp_path):
    np.savez(tmp_path / "a.npz", first=np.full((9, 9), 1.5), second=np.full((9, 9), 2.5))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    place = content.index(np.full(3, 1.5).tobytes())
    content[place] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    stored = everything(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"'first' cannot be .*Bad CRC"):
        stored["first"].read()
    assert (stored["second"].read() == 2.5).all()


FUZZ = """
import json, sys, time, warnings
from pathlib import Path
from hostile_files import hostile_file
from pqlib.checkpoints import stored_tensors
warnings.simplefilter("ignore")
folder, canary = Path(sys.argv[1]), Path(sys.argv[2])
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
counts, problems, before = {}, [], peak()
for seed in range(*map(int, sys.argv[3:5])):
    path = hostile_file(folder, seed, canary)
    start, outcome = time.monotonic(), "all read"
    try:
        for tensor in stored_tensors(path):
            try:
                values = tensor.read()
                assert values.shape == tensor.shape, (values.shape, tensor.shape)
                assert values.dtype in ("float32", "float64"), values.dtype
            except ValueError as error:
                outcome = "tensors skipped"
                assert str(error)
    except (ValueError, OSError) as error:
        outcome = "refused"
        if path.is_file() and path.name not in str(error):
            problems.append([seed, f"does not name its file: {error}"])
        if "trust" in str(error) or "False" in str(error):
            problems.append([seed, f"repeats torch's advice to run the code: {error}"])
    except Exception as error:
        problems.append([seed, repr(error)])
    if time.monotonic() - start > 2:
        problems.append([seed, "takes more than two seconds"])
    counts[outcome] = counts.get(outcome, 0) + 1
print(json.dumps({"counts": counts, "problems": problems, "mebibytes": peak() - before}))
"""


@pytest.mark.parametrize(
    ("first", "last"), [(0, 200), pytest.param(200, 2200, marks=pytest.mark.slow)]
)
def test_hostile_files_are_refused_or_skipped_and_run_nothing(tmp_path, first, last):
    canary = tmp_path / "canary"
    done = in_a_process(FUZZ, tmp_path, canary, first, last)
    report = json.loads(done)
    assert report["problems"] == []
    assert not canary.exists()
    assert report["mebibytes"] < 100
    assert sum(report["counts"].values()) == last - first
    assert min(report["counts"].values()) > (last - first) / 50, "the fuzz lost its variety"


def test_the_canary_would_sing(tmp_path):
    """The traps do run where code of a checkpoint is allowed."""
    from hostile_files import Trap

    sprung = []
    for seed in range(20):
        canary = tmp_path / f"{seed}"
        torch.save({"w": Trap(canary, np.random.default_rng(seed))}, tmp_path / "trap.pt")
        torch.load(tmp_path / "trap.pt", weights_only=False)
        sprung.append(canary.exists())
    assert all(sprung)


STREAM = """
import sys
from pathlib import Path
import numpy as np
from pqlib.checkpoints import stored_tensors
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
if sys.argv[1].endswith(".pt"):
    import torch
before = peak()
n, total = 0, 0.0
for tensor in stored_tensors(sys.argv[1]):
    values = tensor.read().astype(np.float64)
    n, total = n + values.size, total + float(values.sum())
print(n, total, peak() - before)
"""


def big_shards(folder, n_shards=8, n_tensors=16, n_values=2**20):
    """Random bytes, no two tensors alike; returns their number and a checksum."""
    rng = np.random.default_rng(0)
    total, weight_map = 0.0, {}
    for shard in range(n_shards):
        names = [f"layers.{shard}.{k}.weight" for k in range(n_tensors)]
        entries = {
            name: {"dtype": "F32", "shape": [1024, n_values // 1024], "data_offsets": [0, 0]}
            for name in names
        }
        for k, entry in enumerate(entries.values()):
            entry["data_offsets"] = [4 * n_values * k, 4 * n_values * (k + 1)]
        header = json.dumps(entries).encode()
        file = f"model-{shard}.safetensors"
        with (folder / file).open("wb") as stream:
            stream.write(struct.pack("<Q", len(header)) + header)
            for _ in names:
                values = rng.random(n_values, dtype=np.float32)
                total += float(values.sum(dtype=np.float64))
                stream.write(values.tobytes())
        weight_map |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return n_shards * n_tensors * n_values, total


def test_half_a_gigabyte_streams_in_little_memory(tmp_path):
    n, total = big_shards(tmp_path)
    values = in_a_process(STREAM, tmp_path).split()
    assert int(values[0]) == n
    assert float(values[1]) == pytest.approx(total, rel=1e-6)
    assert int(values[2]) <= 64 * 2**20 + 4 * 8 * 2**20
    for file in tmp_path.iterdir():
        file.unlink()


def test_torch_files_stream_too(tmp_path):
    state = {f"{k}": torch.rand(1024, 1024) for k in range(64)}  # 256 MB
    torch.save(state, tmp_path / "big.pt")
    values = in_a_process(STREAM, tmp_path / "big.pt").split()
    assert int(values[0]) == 64 * 2**20
    assert int(values[2]) <= 64 * 2**20 + 4 * 8 * 2**20
    (tmp_path / "big.pt").unlink()


def in_a_process(code, *arguments):
    """Standard output of a script that measures its memory.

    VmHWM is its own; getrusage's ru_maxrss would begin with that of the process which started it.
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of memory is read from /proc, which this system lacks")
    limit = 8 * 2**30  # of addresses, so that a mistake does not take the machine down
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]
