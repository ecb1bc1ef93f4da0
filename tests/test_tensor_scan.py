"""One tensor under every budget: against the plain computation, and against the authors' rows."""

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from pqlib import (
    IntegerGrid,
    compare_bits,
    fake_quantize,
    kurtosis,
    magnitude_mask,
    mse,
    optimal_scale,
    scan_tensor,
    scan_tensor_bits,
    sqnr_db,
)
from pqlib.tensor_scan import kind_of
from pqlib.zoo import read_weights

BITS = range(2, 9)
DATA = Path(os.environ.get("PQLIB_DATA", "nowhere")) / "zoo"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="PQLIB_DATA is not set or has no zoo/")

TENSORS = {
    "normal": lambda rng: rng.normal(size=(16, 8, 3, 3)),
    "single": lambda rng: rng.standard_t(3, (40, 25)).astype(np.float32),
    "half": lambda rng: rng.laplace(size=(64, 9)).astype(np.float16),
    "positive": lambda rng: rng.gamma(1.0, size=(5, 7)),
    "small": lambda rng: rng.normal(size=(3, 3)) * 1e-30,
}


@pytest.mark.parametrize("name", TENSORS)
def test_each_number_is_the_plain_computation(name):
    x = TENSORS[name](np.random.default_rng(0))
    w = x.astype(np.float64)
    for record in scan_tensor_bits(x, BITS):
        b = record.n_bits
        rounded = fake_quantize(w, IntegerGrid(b, record.scale))
        assert record.scale == pytest.approx(optimal_scale(w, b), rel=1e-12)
        assert record.n_weights == w.size
        assert record.quant_mse == pytest.approx(mse(w, rounded), rel=1e-11)
        assert record.quant_sqnr_db == pytest.approx(sqnr_db(w, rounded), rel=1e-11)
        assert record.natural_sparsity == pytest.approx((rounded == 0).mean(), abs=1.5 / w.size)
        widest = max(w.max() / (2 ** (b - 1) - 1), -w.min() / 2 ** (b - 1))
        minmax = fake_quantize(w, IntegerGrid(b, widest))
        assert record.minmax_sqnr_db == pytest.approx(sqnr_db(w, minmax), abs=1e-6)
        assert record.minmax_sqnr_db <= record.quant_sqnr_db + 1e-9
        pruned = w * magnitude_mask(w, 1 - b / 16)
        assert record.sparsity == (pruned == 0).mean()
        assert record.prune_mse == pytest.approx(mse(w, pruned), rel=1e-11)
        kept = (1 - record.natural_sparsity) * b / 16
        credited = w * magnitude_mask(w, 1 - kept)
        assert record.credited_sparsity == (credited == 0).mean()
        assert record.credited_sqnr_db == pytest.approx(sqnr_db(w, credited), rel=1e-9)
        assert record.kurtosis == pytest.approx(kurtosis(w), rel=1e-11)
        assert record.excess_kurtosis == record.kurtosis - 3
        assert record.margin_db == record.quant_sqnr_db - record.prune_sqnr_db
        assert record.winner == ("quantization" if record.margin_db > 0 else "pruning")


def test_it_agrees_with_the_comparison_of_the_empirical_distribution():
    w = np.random.default_rng(1).standard_t(4, 3000)
    for ours, theirs in zip(scan_tensor_bits(w, BITS), compare_bits(w, BITS), strict=True):
        assert ours.scale == theirs.scale
        assert ours.quant_mse == pytest.approx(theirs.quant_mse, rel=1e-11)
        assert ours.prune_mse == pytest.approx(theirs.prune_mse, rel=1e-11)
        assert ours.winner == theirs.winner


def test_per_channel_sums_over_channels():
    x = np.random.default_rng(2).normal(size=(6, 5, 3)) * np.geomspace(0.01, 10, 6)[:, None, None]
    x[3] = 0.0
    whole, per_channel = (scan_tensor(x, 4, granularity=g) for g in ("tensor", "channel"))
    parts = [scan_tensor(channel, 4) for channel in x]
    assert per_channel.quant_mse == pytest.approx(np.mean([p.quant_mse for p in parts]), rel=1e-12)
    assert per_channel.natural_sparsity == pytest.approx(
        np.mean([p.natural_sparsity for p in parts]), rel=1e-12
    )
    assert per_channel.quant_sqnr_db > whole.quant_sqnr_db
    assert per_channel.prune_mse == whole.prune_mse
    assert np.isnan(per_channel.scale)
    swapped = scan_tensor(np.moveaxis(x, 0, 2), 4, granularity="channel", axis=2)
    assert swapped.quant_mse == pytest.approx(per_channel.quant_mse, rel=1e-12)


def test_threads_change_nothing():
    x = np.random.default_rng(3).normal(size=(50, 60)).astype(np.float32)
    assert scan_tensor_bits(x, BITS) == scan_tensor_bits(x, BITS, n_jobs=4)


def test_what_is_defined_is_answered():
    constant = scan_tensor(np.full((4, 4), 0.3), 4)
    assert constant.quant_sqnr_db == np.inf
    assert constant.minmax_sqnr_db > 300  # 7 (0.3 / 7) may be off by a last digit
    assert constant.winner == "quantization" and constant.margin_db == np.inf
    assert np.isnan(constant.kurtosis)
    sparse = np.zeros(64)
    sparse[:3] = [2.0, -1.0, 1.0]
    both = scan_tensor(sparse, 4)
    assert (both.winner, both.margin_db) == ("neither", 0.0)
    assert both.quant_sqnr_db == both.prune_sqnr_db == np.inf
    zeros = scan_tensor(np.zeros((3, 3)), 4)
    assert (zeros.quant_mse, zeros.prune_mse, zeros.winner) == (0.0, 0.0, "neither")
    assert np.isnan(zeros.quant_sqnr_db) and zeros.natural_sparsity == 1.0


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("features.0.weight", (64, 3, 7, 7), "conv2d"),
        ("features.3.weight", (32, 1, 3, 3), "depthwise"),
        ("stem.0.weight", (64, 3, 3, 7, 7), "conv3d"),
        ("conv.weight", (8, 4, 3), "conv1d"),
        ("classifier.weight", (1000, 1280), "linear"),
        ("embeddings.word_embeddings.weight", (30522, 384), "embedding"),
        ("class_token", (1, 1, 768), "embedding"),
        ("encoder.pos_embedding", (1, 197, 768), "embedding"),
        ("attn.relative_position_bias_table", (169, 3), "embedding"),
        ("transformer.wte.weight", (50257, 768), "embedding"),
    ],
)
def test_kinds(name, shape, kind):
    assert kind_of(name, shape) == kind


# Some of the rows that the paper's authors released (github.com/Qualcomm-AI-research/
# pruning-vs-quantization, commit 4deed98): model, layer, bits, quantization and pruning SNR in dB.
AUTHORS_ROWS = [
    ("squeezenet1_1", "features.0", 2, 8.1836, 3.3741),
    ("squeezenet1_1", "features.0", 4, 18.9667, 6.2434),
    ("squeezenet1_1", "features.0", 8, 41.8873, 12.5617),
    ("squeezenet1_1", "features.3.squeeze", 4, 15.9794, 8.5719),
    ("squeezenet1_1", "features.6.expand3x3", 3, 10.1399, 6.0088),
    ("squeezenet1_1", "classifier.1", 2, 7.0089, 3.3675),
    ("resnet18", "conv1", 2, 6.2676, 6.8783),
    ("resnet18", "layer4.0.downsample.0", 5, 17.6713, 8.5849),
    ("resnet18", "fc", 8, 34.3124, 12.7764),
    ("vgg11_bn", "features.0", 2, 6.2871, 8.7902),
    ("vgg11_bn", "features.4", 5, 16.0084, 17.5391),
    ("vgg11_bn", "features.8", 8, 26.8788, 15.6756),
]
FILES = {
    "squeezenet1_1": "squeezenet1_1-fp16.pt",
    "resnet18": "resnet18-3of21.npz",
    "vgg11_bn": "vgg11_bn-4of11.npz",
}


@needs_data
@pytest.mark.parametrize(("model", "layer", "n_bits", "quant_db", "prune_db"), AUTHORS_ROWS)
def test_frozen_rows_of_the_authors(model, layer, n_bits, quant_db, prune_db):
    x = read_weights(str(DATA / FILES[model]))[f"{layer}.weight"].astype(np.float16)
    record = scan_tensor(x, n_bits)
    assert record.prune_sqnr_db == pytest.approx(prune_db, abs=0.03 if "vgg" in model else 0.005)
    assert quant_db - 0.0045 <= record.quant_sqnr_db <= quant_db + 0.12


@needs_data
@pytest.mark.parametrize(
    ("model", "limit"),
    [("squeezenet1_1", 0.005), ("resnet18", 0.005), ("vgg11_bn", 0.03)],
)
def test_the_authors_rows(model, limit):
    """Their weights are fp16, their thresholds (max + 1/2) i / 100, their statistics fp16 too."""
    with gzip.open(DATA / "authors_zoo.csv.gz", "rt") as stream:
        theirs = {
            (row["layer"], int(row["n_bits"])): row
            for row in csv.DictReader(stream)
            if row["model"] == model
        }
    compared = 0
    for name, tensor in read_weights(str(DATA / FILES[model])).items():
        layer = name.removesuffix(".weight")
        if (layer, 2) not in theirs:
            continue
        x = tensor.astype(np.float16)
        w = x.astype(np.float64)
        thresholds = (abs(w).max() + 0.5) * np.arange(1, 101) / 100
        for record in scan_tensor_bits(x, BITS):
            row = theirs[layer, record.n_bits]
            quant_db, prune_db = float(row["quant_sqnr_db"]), float(row["prune_sqnr_db"])
            if np.isfinite(prune_db):
                assert record.prune_sqnr_db == pytest.approx(prune_db, abs=limit)
            if record.n_bits in (2, 5, 8):  # slow: their search
                grids = [
                    IntegerGrid(record.n_bits, t / (2 ** (record.n_bits - 1) - 1))
                    for t in thresholds
                ]
                on_their_grid = max(sqnr_db(w, fake_quantize(w, g)) for g in grids)
                assert on_their_grid == pytest.approx(quant_db, abs=0.02)
                assert record.quant_sqnr_db >= on_their_grid - 1e-9
            # theirs: the power of the signal in fp16, which flatters by up to 0.004 dB
            assert record.quant_sqnr_db >= quant_db - 0.0045
            assert record.quant_mse <= float(row["quant_mse"]) * (1 + 1e-6)
            compared += 1
    assert compared == 7 * {"squeezenet1_1": 26, "resnet18": 3, "vgg11_bn": 4}[model]


@pytest.mark.parametrize("unit", [1e-90, 1e-82, 1e-81, 1.0, 1e75, 1e77])
def test_kurtosis_in_any_unit(unit):
    x = np.random.default_rng(0).laplace(size=500)
    x[:50] = 0.0
    for w in (x, abs(x), -abs(x), x[50:] + 9):
        assert scan_tensor(w * unit, 4).kurtosis == pytest.approx(kurtosis(w), rel=1e-12)
