"""Answers of a compressed network beside the original's, against a linear one done by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from pqlib import IntegerGrid, fake_quantize, magnitude_mask, optimal_scale  # noqa: E402
from pqlib.cli import main  # noqa: E402
from pqlib.experiments.agreement import agreement  # noqa: E402
from pqlib.layers.images import open_images  # noqa: E402
from pqlib.layers.models import open_model  # noqa: E402


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return torch.nn.Linear(12, 5, bias=False)


@pytest.fixture
def images():
    torch.manual_seed(1)
    return [torch.randn(30, 12), torch.randn(10, 12)]


@pytest.mark.parametrize("n_bits", (2, 4))
def test_a_linear_network_by_hand(linear, images, n_bits):
    weight = linear.weight.detach().numpy().astype(float)
    x = torch.cat(images).numpy().astype(float)
    by_hand = {
        "quantize": fake_quantize(weight, IntegerGrid(n_bits, optimal_scale(weight, n_bits))),
        "prune": weight * magnitude_mask(weight, 1 - n_bits / 16),
    }
    table = agreement(linear, images, (n_bits,)).set_index("method")
    assert list(table.index) == ["quantize", "prune"]
    for method, small in by_hand.items():
        y, found = x @ weight.T, x @ small.T
        row = table.loc[method]
        same = np.mean(y.argmax(1) == found.argmax(1))
        assert row["agreement"] == pytest.approx(100 * same)
        wanted = 10 * math.log10((y**2).sum() / ((found - y) ** 2).sum())
        assert row["logit_snr_db"] == pytest.approx(wanted, abs=1e-3)
        assert row["n_images"] == 40 and row["bits_per_weight"] == pytest.approx(n_bits, abs=8 / 60)
    assert np.array_equal(linear.weight.detach().numpy(), weight.astype(np.float32))


def test_batch_norm_measured_again_by_hand(linear, images):
    network = torch.nn.Sequential(linear, torch.nn.BatchNorm1d(5, affine=False)).eval()
    network[1].running_mean += 3.0  # what the network was trained on was different
    x = images[0].numpy().astype(float)
    weight = linear.weight.detach().numpy().astype(float)
    kept = x @ (weight * magnitude_mask(weight, 3 / 4)).T
    own = (kept - kept.mean(axis=0)) / np.sqrt(kept.var(axis=0, ddof=1) + 1e-5)
    original = (x @ weight.T - 3.0) / math.sqrt(1 + 1e-5)
    row = agreement(network, images[:1], (4,), measure_batch_norm=True).iloc[1]
    wanted = 10 * math.log10((original**2).sum() / ((own - original) ** 2).sum())
    assert row["logit_snr_db"] == pytest.approx(wanted, abs=1e-3)
    assert row["agreement"] == pytest.approx(100 * np.mean(own.argmax(1) == original.argmax(1)))
    assert (network[1].running_mean == 3.0).all()


def test_intervals_are_wilsons_and_the_bootstraps(linear, images):
    row = agreement(linear, images, (3,)).iloc[0]
    n, p, z = 40, row["agreement"] / 100, 1.959963984540054
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert row["agreement_low"] == pytest.approx(100 * (middle - half))
    assert row["agreement_high"] == pytest.approx(100 * (middle + half))
    assert row["snr_low"] < row["logit_snr_db"] < row["snr_high"]
    more = agreement(linear, [batch.repeat(25, 1) for batch in images], (3,)).iloc[0]
    narrower = (more["snr_high"] - more["snr_low"]) / (row["snr_high"] - row["snr_low"])
    assert narrower == pytest.approx(1 / 5, rel=0.15)  # 25 times the images


def test_a_network_that_needs_no_rounding_agrees_without_error(images):
    model = torch.nn.Linear(12, 5, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.randint(-7, 8, (5, 12)).float())
        model.weight[0, 0] = -8.0
    row = agreement(model, images, (4,)).iloc[0]
    assert row["agreement"] == 100 and row["logit_snr_db"] == np.inf == row["snr_low"]


def test_rows_are_told_as_they_come(linear, images):
    seen = []
    table = agreement(linear, images, (2, 8), on_row=seen.append)
    assert [(row["method"], row["n_bits"]) for row in seen] == [
        *(("quantize", 2), ("quantize", 8), ("prune", 2), ("prune", 8)),
    ]
    assert len(table) == 4


def test_bad_input_is_named(linear, images):
    with pytest.raises(ValueError, match="images must hold at least one"):
        agreement(linear, [], (4,))
    with pytest.raises(ValueError, match="bits must be a whole number in 2"):
        agreement(linear, images, (1,))
    with pytest.raises(TypeError, match=r"images must be iterable anew.*got list_iterator"):
        agreement(linear, iter(images), (4,))

    class Fewer(list):
        def __iter__(self):
            yield self.pop()

    with pytest.raises(ValueError, match="images must be the same each time: 10 at first, now 30"):
        agreement(linear, Fewer(images), (4,))
    flat = torch.nn.Sequential(torch.nn.Linear(12, 5), torch.nn.Flatten(0))
    with pytest.raises(ValueError, match=r"logits of shape \(batch, n_classes\), got .*150"):
        agreement(flat, images, (4,))
    with pytest.raises(ValueError, match="not finite"):
        agreement(linear, [torch.full((2, 12), torch.nan)], (4,))


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A network of one's own, by name."""
    (tmp_path / "tiny_net.py").write_text(
        "import torch\n"
        "def tiny():\n"
        "    torch.manual_seed(0)\n"
        "    pool = torch.nn.AdaptiveAvgPool2d(4)\n"
        "    return torch.nn.Sequential(pool, torch.nn.Flatten(), torch.nn.Linear(48, 10))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return "python:tiny_net:tiny"


def test_the_command_writes_what_the_function_gives(tiny, tmp_path):
    done = CliRunner().invoke(main, ["run", "agreement", tiny, "--n-images", "6", "--bits", "2,8"])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "agreement.csv")
    opened = open_model(tiny)
    images = open_images(n_images=6, preprocessing=opened.preprocessing)
    wanted = agreement(opened.module, images, (2, 8))
    pd.testing.assert_frame_equal(table[list(wanted.columns)], wanted, rtol=1e-12)
    made = {"model", "images", "batch_norm", "hardware", "versions", "commit", "command"}
    assert made <= {*table.columns} and (table["images"] == "photographs").all()
    assert table["command"][0] == f"pqlib run agreement {tiny} --n-images 6 --bits 2,8"
    again = ["--n-images", "6", "--bits", "2,8", "--measure-batch-norm", "--out", "again.csv"]
    done = CliRunner().invoke(main, ["run", "agreement", tiny, *again])
    assert done.exit_code == 0, done.output
    other = pd.read_csv(tmp_path / "again.csv")
    assert (*table["batch_norm"][:1], *other["batch_norm"][:1]) == ("original", "measured again")
    assert other["command"][0].endswith("--bits 2,8 --measure-batch-norm")
    pd.testing.assert_frame_equal(other[[*wanted.columns]], wanted)  # it has no batch norm


def test_an_interrupted_command_keeps_its_rows(tiny, tmp_path, monkeypatch):
    import pqlib.experiments.agreement as module

    plain, calls = module._logits, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(module, "_logits", interrupted)
    words = ["run", "agreement", tiny, "--n-images", "2", "--out", "a/b.csv"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1 and "interrupted; a/b.csv has the rows" in done.output
    assert len(pd.read_csv(tmp_path / "a/b.csv")) == 2


def test_the_command_names_what_is_wrong(tiny):
    missing = CliRunner().invoke(main, ["run", "agreement", tiny, "--images", "nowhere"])
    assert missing.exit_code == 1 and "nowhere" in missing.output
    assert "Traceback" not in missing.output
    assert "2-8" in CliRunner().invoke(main, ["run", "agreement", "--help"]).output
