"""What sorting once saves: every tensor at 2-8 bits, against the usual search over 100 thresholds.

    python benchmarks/scan.py [--repeats 3] [--only efficientnet normal large]

efficientnet
    The weight tensors of EfficientNet-Lite0, 4.6 million weights.
normal
    25 million normal weights in one tensor.
large
    A sharded safetensors checkpoint of 8 GB, scanned while its memory is watched. Not run unless
    asked for; it needs 9 GB of disk, which it checks and gives back.

The other side is torch: 100 thresholds, and for each `fake_quantize_per_tensor_affine` and the mean
squared error, in float32, on all cores; its best threshold is never better than our scale. Where
brevitas is installed, its MSE statistic (which searches one bit-width the same way) runs too. Ours
adds pruning, its credited version, the min-max scale and kurtosis, and proves its optimum.

Both sides run in one process, one after the other; medians over the repeats; compilation excluded.
"""

import argparse
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numba
import numpy as np
import torch

import pqlib
from pqlib import read_weights, scan, scan_tensor_bits

BITS = range(2, 9)
_GIGABYTE = 2**30


def clock(function: Callable, repeats: int) -> tuple[float, object]:
    """Median seconds of ``function()`` and its last result."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def best_of_100_thresholds(x: torch.Tensor, n_bits: int) -> float:
    """Least mean squared error over thresholds max / 100, 2 max / 100, ..., max."""
    low, high = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    largest = float(x.abs().max())
    return min(
        float(
            torch.nn.functional.mse_loss(
                torch.fake_quantize_per_tensor_affine(x, largest * i / 100 / high, 0, low, high), x
            )
        )
        for i in range(1, 101)
    )


def brevitas_statistic() -> Callable[[torch.Tensor, int], object] | None:
    """Brevitas' MSE search of a weight's scale at one bit-width, or None where it is absent."""
    try:
        from brevitas.nn import QuantLinear
        from brevitas.quant.scaled_int import Int8WeightPerTensorFloatMSE
    except ImportError:
        return None

    def search(x: torch.Tensor, n_bits: int) -> object:
        flat = x.reshape(1, -1)
        layer = QuantLinear(
            flat.shape[1],
            1,
            bias=False,
            weight_quant=Int8WeightPerTensorFloatMSE,
            weight_bit_width=n_bits,
        )
        layer.weight.data = flat
        return layer.quant_weight().scale

    return search


def compare(name: str, tensors: Iterable[np.ndarray], repeats: int) -> None:
    arrays = list(tensors)
    as_torch = [torch.from_numpy(a) for a in arrays]
    scan_tensor_bits(arrays[0], BITS)  # compile
    n_jobs = os.cpu_count() or 1
    ours, records = clock(
        lambda: [scan_tensor_bits(a, BITS, n_jobs=n_jobs) for a in arrays], repeats
    )
    single, _ = clock(lambda: [scan_tensor_bits(a, BITS) for a in arrays], repeats)
    with torch.no_grad():
        theirs, errors = clock(
            lambda: [[best_of_100_thresholds(t, b) for b in BITS] for t in as_torch],
            min(repeats, 2),
        )
    sorting, _ = clock(lambda: [np.sort(a, axis=None) for a in arrays], repeats)
    excess = [
        e / r.quant_mse - 1
        for es, rs in zip(errors, records, strict=True)
        for e, r in zip(es, rs, strict=True)
    ]
    size = sum(a.size for a in arrays)
    print(f"{name}: {len(arrays)} tensors, {size:,} weights, {BITS[0]}-{BITS[-1]} bits")
    print(f"  pqlib, {n_jobs} threads  {ours:9.3f} s   {theirs / ours:6.1f}x")
    print(f"  pqlib, 1 thread   {single:9.3f} s   {theirs / single:6.1f}x")
    print(f"  100 thresholds    {theirs:9.3f} s   torch, {torch.get_num_threads()} threads")
    print(f"  sorting alone     {sorting:9.3f} s")
    print(
        f"  their MSE above ours: median {100 * statistics.median(excess):.2f} %, "
        f"least {100 * min(excess):.4f} %, most {100 * max(excess):.1f} %",
        flush=True,
    )
    if (statistic := brevitas_statistic()) is not None:
        with torch.no_grad():
            other, _ = clock(lambda: [[statistic(t, b) for b in BITS] for t in as_torch], 1)
        print(f"  brevitas' MSE     {other:9.3f} s   {other / ours:6.1f}x", flush=True)


def large(repeats: int) -> None:
    """Write 8 GB of normal weights in shards, scan them, remove them."""
    from safetensors.numpy import save_file

    folder = Path(tempfile.mkdtemp(prefix="pqlib-scan-"))
    try:
        free = shutil.disk_usage(folder).free
        if free < 9 * _GIGABYTE:
            sys.exit(f"{folder} has {free / _GIGABYTE:.1f} GB free; 9 GB are needed: set TMPDIR")
        rng = np.random.default_rng(0)
        block = rng.standard_normal((4096, 4096), dtype=np.float32)  # 64 MB
        for shard in range(8):
            tensors = {f"layer{shard}.{i}.weight": block * (i + 1 + shard) for i in range(16)}
            save_file(tensors, folder / f"model-{shard + 1:05}-of-00008.safetensors")
            del tensors
        scan_tensor_bits(block[:64], BITS)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of writing
        before = _peak()
        start = time.perf_counter()
        table = scan(str(folder), BITS)
        seconds = time.perf_counter() - start
        grown = (_peak() - before) / 2**20
        print(f"8 GB in 8 shards: {len(table) // len(BITS)} tensors, {seconds:.0f} s, ", end="")
        print(f"peak memory grew by {grown:.0f} MB; the largest tensor is 128 MB in float64")
    finally:
        shutil.rmtree(folder)


def _peak() -> int:
    status = Path("/proc/self/status").read_text()  # Linux
    return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status)[1])


SECTIONS: dict[str, Callable[[int], None]] = {
    "efficientnet": lambda repeats: compare(
        "EfficientNet-Lite0", read_weights("pip:efficientnet-lite0").values(), repeats
    ),
    "normal": lambda repeats: compare(
        "normal", [np.random.default_rng(0).standard_normal(25_000_000, dtype=np.float32)], repeats
    ),
    "large": large,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (default 3)")
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=["efficientnet", "normal"], metavar="SECTION"
    )
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    print(f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}")
    versions = f"numpy {np.__version__}, numba {numba.__version__}, torch {torch.__version__}"
    print(f"Python {platform.python_version()}, {versions}, pqlib {pqlib.__version__}\n")
    for name in options.only:
        SECTIONS[name](options.repeats)


if __name__ == "__main__":
    main()
