"""Each of the eight networks from its baseline to a row, by both methods: tiny, a few steps."""

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="pip install pqlib[training]")
for package in ("effdet", "segmentation_models_pytorch", "torchmetrics", "pycocotools"):
    pytest.importorskip(package, reason="pip install pqlib[training]")

from pqlib import n_zeros  # noqa: E402
from pqlib.experiments.finetune_run import run  # noqa: E402
from pqlib.experiments.presets import MODELS, plan  # noqa: E402

N_BITS = 4


def tiny(model):
    """The preset smoke, cut down to two steps on a few images."""
    smoke = plan("smoke", model)
    small = {"batch_size": 4, "max_steps": 2, "epochs": 1, "learning_rate": 1e-3}
    base = dataclasses.replace(
        smoke.base,
        settings=dataclasses.replace(smoke.base.settings, **small),
        limit=8,
        bn_batches=2,
    )
    return base, dataclasses.replace(smoke.fine, **small)


@pytest.mark.parametrize("model", MODELS)
def test_smoke(model, tmp_path):
    base, fine = tiny(model)
    baseline = run(base, tmp_path)
    assert baseline["status"] == "done"
    for method in ("lsq", "prune"):
        config = dataclasses.replace(
            base, settings=fine, method=method, n_bits=N_BITS, baseline=base.hash
        )
        row = run(config, tmp_path, baseline=baseline)
        assert row["status"] == "done" and row["n_steps"] == 2
        assert row["metric"] == baseline["metric"] and 0 <= row["value"] <= 100
        assert row["fp_value"] == baseline["value"]
        assert row["fingerprint"] != baseline["fingerprint"]
        if method == "lsq":
            assert row["bits_per_weight"] == N_BITS
        else:  # whole weights are removed from each layer
            assert N_BITS <= row["bits_per_weight"] < N_BITS * 1.001
            assert row["sparsity"] == pytest.approx(1 - N_BITS / 16, abs=1e-3)


def test_the_budget_is_exact_in_every_layer(tmp_path):
    import json

    base, fine = tiny("mobilenet_v3_small")
    baseline = run(base, tmp_path)
    config = dataclasses.replace(base, settings=fine, method="prune", n_bits=3, baseline=base.hash)
    run(config, tmp_path, baseline=baseline)
    layers = json.loads((tmp_path / config.hash / "layers.json").read_text("utf-8"))
    assert len(layers) > 50
    for row in layers:
        assert round(row["sparsity"] * row["n_weights"]) == n_zeros(row["n_weights"], 1 - 3 / 16)
