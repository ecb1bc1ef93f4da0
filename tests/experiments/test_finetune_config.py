"""Configs name runs; presets are the paper's table."""

import dataclasses
import itertools
from pathlib import Path

import pandas as pd
import pytest

from pqlib.experiments import presets
from pqlib.experiments.finetune_config import POST_TRAINING, FineTune
from pqlib.experiments.finetune_cost import hours, rate_of
from pqlib.experiments.ledger import Ledger
from pqlib.experiments.presets import (
    MODELS,
    PRESETS,
    TABLE4,
    Recipe,
    Sweep,
    plan,
)
from pqlib.experiments.rate_choice import followers
from pqlib.experiments.table1 import CONFIG as TABLE1
from pqlib.training.settings import Settings
from pqlib.training_findings import ALIKE, METHODS_OF_RUNS

CONFIG = FineTune("resnet18", "digits", Settings(1, 8, 0.1), "lsq", 4, "abc")


def test_the_hash_is_of_all_that_numbers_depend_on():
    changes = (
        {"model": "resnet50"}, {"data": "scenes"}, {"method": "prune"}, {"n_bits": 3},
        {"baseline": "abd"}, {"size": 64}, {"stem": "small"}, {"patch": 4}, {"weights": "x.pth"},
        {"variant": "y"}, {"limit": 9}, {"augment": False}, {"validation": "test"},
        {"keep_first_last": True}, {"scaled_gradient": False}, {"monotone": True},
        {"bn_batches": 3}, {"device": "cuda"},
    )  # fmt: skip
    assert {k for c in changes for k in c} | {"settings"} == {
        f.name for f in dataclasses.fields(FineTune)
    }
    hashes = {CONFIG.hash} | {dataclasses.replace(CONFIG, **c).hash for c in changes}
    values = {"precision": "bf16", "optimizer": "adam", "deterministic": False, "max_steps": 3}
    values["channels_last"] = True
    for field in dataclasses.fields(Settings):
        if field.name == "n_workers":
            continue
        value = values.get(field.name, getattr(CONFIG.settings, field.name, 0))
        value = value / 2 if isinstance(value, float) and value else value
        value = value + 1 if field.name in ("epochs", "batch_size", "n_threads", "seed") else value
        value = 0.5 if field.name == "weight_decay" else value
        settings = dataclasses.replace(CONFIG.settings, **{field.name: value})
        hashes.add(dataclasses.replace(CONFIG, settings=settings).hash)
    assert len(hashes) == 1 + len(changes) + len(dataclasses.fields(Settings)) - 1
    more = dataclasses.replace(CONFIG.settings, n_workers=4)
    assert dataclasses.replace(CONFIG, settings=more).hash == CONFIG.hash
    assert dataclasses.replace(CONFIG, size=[32, 64]).size == (32, 64)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"method": "lsqq"}, ValueError, "method must be one of none, post_training"),
        ({"n_bits": None}, TypeError, "n_bits must be"),
        ({"n_bits": 1}, ValueError, "n_bits must be"),
        ({"method": "none"}, ValueError, "n_bits and baseline must be None"),
        ({"model": ""}, TypeError, "model must be a text"),
        ({"method": "uncompressed", "n_bits": 4}, ValueError, "n_bits must be None if uncomp"),
        ({"method": "prune_at_once", "n_bits": None}, TypeError, "n_bits must be"),
        ({"settings": None}, TypeError, "settings must be Settings"),
        ({"limit": 0}, ValueError, "limit must be"),
        ({"augment": 1}, TypeError, "augment must be True or False"),
        ({"device": "gpu"}, ValueError, "device must be such as cpu"),
    ],
)
def test_configs_are_checked(change, error, text):
    with pytest.raises(error, match=text):
        dataclasses.replace(CONFIG, **change)


def test_table_4():
    """As printed in the paper, row by row."""
    assert TABLE4["resnet18"] == Recipe(256, 1e-4, "sgd", 20, 1e-3)
    assert TABLE4["deeplab_v3_mobilenet_v2"] == Recipe(16, 0.0, "sgd", 200, 1e-6)
    assert TABLE4["efficientdet"] == Recipe(16, 5e-5, "adam", 20, 1e-5)
    assert len(MODELS) == 8
    for model, recipe in TABLE4.items():
        settings = plan("paper", model).fine
        assert recipe == Recipe(*(getattr(settings, f.name) for f in dataclasses.fields(Recipe)))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_all_cells(preset):
    found = Sweep(preset, bits=(2, 8), seeds=(0, 1)).cells()
    n_powers = {"smoke": 1, "laptop": 3, "gpu": 5, "paper": 5}[preset]
    assert len(found) == 2 * 8 * (1 + 2 * 2 * n_powers)
    assert [c.method for c in found[:16]] == ["none"] * 16
    assert len({c.hash for c in found}) == len(found)
    baselines = {c.hash: c for c in found[:16]}
    for config in found[16:]:
        base = baselines[config.baseline]
        assert (base.model, base.data, base.size, base.seed) == (
            *(config.model, config.data, config.size, config.seed),
        )
        assert config.settings.max_steps is None or config.settings.max_steps >= 1


def test_both_methods_are_treated_alike():
    found = [c for c in Sweep("laptop", ("mobilenet_v2",), (4,)).cells() if c.method != "none"]
    by_method = {
        method: [dataclasses.replace(c, method="lsq") for c in runs]
        for method, runs in itertools.groupby(found, key=lambda c: c.method)
    }
    assert by_method["lsq"] == by_method["prune"]
    rates = [c.settings.learning_rate for c in by_method["lsq"]]
    assert rates == pytest.approx([0.01 / 0.33, 0.01, 0.0033])


def test_options_of_a_sweep():
    changes = {"epochs": 7, "baseline_epochs": 2, "n_threads": 2, "size": 64, "limit": None}
    swept = Sweep(
        "laptop",
        ("resnet18", "efficientdet"),
        (4,),
        ("lsq", "post_training_prune"),
        powers=(0, 2),
        data=("cifar10:x", "detection=boxes:y"),
        changes=changes | {"keep_first_last": True},
    )
    runs = swept.cells()
    assert [c.data for c in runs[:2]] == ["cifar10:x", "boxes:y"]
    assert [c.settings.epochs for c in runs] == [2, 2, 7, 7, 0, 7, 7, 0]
    assert {c.settings.n_threads for c in runs} == {2} and {c.size for c in runs} == {64}
    assert [c.keep_first_last for c in runs] == [False] * 2 + [True] * 6
    settings = [dataclasses.replace(c.settings, learning_rate=1) for c in runs]
    apart = {dataclasses.replace(c, settings=s) for c, s in zip(runs, settings, strict=True)}
    assert len(apart) == 6  # and the rates of each
    none = Sweep("smoke", ("vit_small",), methods=("none",)).cells()
    assert [c.method for c in none] == ["none"]


def test_every_network_has_the_data_of_its_task():
    own = "python:own_nets:net"

    def sources(*data, models=("resnet18", "deeplab_v3_mobilenet_v2", own)):
        swept = Sweep("smoke", models, methods=("none",), data=data)
        return [config.data for config in swept.cells()]

    assert sources() == ["digits", "scenes:80", "digits"]
    assert sources("cifar10:a=b") == ["cifar10:a=b"] * 3
    assert sources("cifar10:a", "segmentation=camvid:b") == ["cifar10:a", "camvid:b", "cifar10:a"]
    assert sources("digits", "classification=cifar10:a")[::2] == ["cifar10:a", "digits"]
    for data, text in (
        (("segmentation=camvid:b",), f"has nothing for {own}, .* give a source without TASK="),
        (("classification=", "digits"), "'classification=' names no source; give TASK=SOURCE"),
        (("",), "'' names no source"),
        (("cifar10:a", "digits"), "'cifar10:a' and 'digits' for all tasks; leave one"),
        (("detection=a:b", "detection=a:c"), "'a:b' and 'a:c' for detection; leave one"),
    ):
        with pytest.raises(ValueError, match=text):
            sources(*data)
    assert sources("detection=boxes:b", models=("resnet18",)) == ["digits"]


def test_a_baseline_can_have_more_images_than_its_cells():
    def limits(preset, **changes):
        swept = Sweep(preset, ("resnet18",), (4,), ("lsq",), powers=(0,), changes=changes)
        base, cell = swept.cells()
        assert cell.baseline == base.hash
        return base.limit, cell.limit

    assert limits("laptop", limit=500) == (500, 500)
    assert limits("laptop", limit=500, baseline_limit=None) == (500, 500)
    assert limits("laptop", limit=500, baseline_limit=0) == (None, 500)
    assert limits("laptop", limit=500, baseline_limit=900) == (900, 500)
    assert limits("smoke", baseline_limit=0) == (None, 320)


def test_a_baseline_can_have_more_threads_than_its_cells():
    def threads(**changes):
        swept = Sweep("smoke", ("resnet18",), (4,), ("lsq",), powers=(0,), changes=changes)
        return tuple(config.settings.n_threads for config in swept.cells())

    assert threads() == (1, 1) and threads(n_threads=3) == (3, 3)
    assert threads(baseline_threads=2) == (2, 1)
    assert threads(n_threads=3, baseline_threads=2) == (2, 3)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"preset": "tiny"}, "preset must be one of smoke"),
        ({"methods": ("qat",)}, "methods must be one of"),
        ({"bits": ()}, "bits must be one or several"),
        ({"seeds": (0, 0)}, "seeds must be one or several, all different"),
        ({"rates_at": (2, 9)}, r"rates_at must be among the bits .*; add \[9\] or leave it out"),
        ({"rates_at": ()}, "rates_at must be one or several"),
        ({"rates_at": (2, 2)}, "rates_at must be one or several, all different"),
        ({"data": ("audio=x",)}, "data must be one of classification"),
        ({"changes": {"learning": 3}}, "changes may not name learning"),
        ({"changes": {"n_bits": 3}}, "changes may not name n_bits"),
    ],
)
def test_sweeps_are_checked(options, text):
    with pytest.raises(ValueError, match=text):
        Sweep(**options)


def test_an_unknown_model_is_named():
    with pytest.raises(ValueError, match=r"'resnet19' is unknown; take one of resnet18"):
        Sweep(models=("resnet19",)).cells()


def test_hours():
    config = plan("laptop", "resnet18").base  # 15 epochs of 5,040 images, one thread
    rate = rate_of(config)
    two = dataclasses.replace(config.settings, n_threads=2)
    assert rate_of(dataclasses.replace(config, settings=two)) == 2 * rate > 0
    found = hours(config, (5040, 2000), rate_of(config))
    assert 15 * 5000 / rate < 3600 * found < 1.3 * 15 * 5040 / rate
    assert rate_of(dataclasses.replace(config, size=64)) == rate / 4
    assert rate_of(dataclasses.replace(config, device="cuda")) is None
    assert hours(config, (5040, 2000), None) is None
    vit = dataclasses.replace(plan("laptop", "vit_small").base, patch=4)
    settings = dataclasses.replace(vit.settings, n_threads=2)
    assert rate_of(dataclasses.replace(vit, settings=settings)) == pytest.approx(14, rel=0.1)
    for model in MODELS:
        assert rate_of(plan("smoke", model).base) > 0
    after = dataclasses.replace(CONFIG, method="post_training_prune")
    assert hours(after, (1000, 1000), 100.0) < hours(CONFIG, (1000, 1000), 100.0)


def test_a_baseline_that_is_not_trained_keeps_its_name_when_a_preset_changes(monkeypatch):
    def hashes(epochs):
        changes = {"baseline_epochs": epochs, "epochs": 3}
        return [c.hash for c in Sweep("laptop", ("resnet50",), bits=(4,), changes=changes).cells()]

    untrained, trained = hashes(0), hashes(1)
    monkeypatch.setitem(presets._LAPTOP, "resnet50", (15, 0.3, 4, 0.01))
    assert hashes(0) == untrained
    assert not set(hashes(1)) & set(trained)


LEDGER = Path(__file__).parents[2] / "book" / "results" / "ledger"
CIFAR = {
    "models": ("cifar_resnet20",),
    "seeds": (0, 1, 2),
    "data": ("cifar10-npz:$PQLIB_DATA/cifar10/cifar10-lossless-subset.npz",),
    "changes": {"weights": "pretrained", "baseline_epochs": 0, "epochs": 20},
}
SMALL = {
    "data": (
        "classification=folder:$PQLIB_DATA/cifar10/cifar10-jpeg.zip",
        "segmentation=camvid:$PQLIB_DATA/segmentation/camvid",
        "detection=boxes:$PQLIB_DATA/detection/bccd",
    ),
    "changes": {"limit": 5000, "baseline_limit": 0},
}
SMALL_NETWORKS = {  # changes and powers of each
    "efficientdet": ({"baseline_epochs": 200, "epochs": 12}, (-5, -4, -3, -2, -1, 0, 1)),
    "deeplab_v3_mobilenet_v2": (
        {"size": (96, 128), "variant": "small", "baseline_epochs": 100, "epochs": 7},
        (-3, -2, -1, 0),
    ),
    "resnet18": ({"size": 48}, None),
    "resnet50": (
        {"size": 48, "batch_size": 128, "precision": "bf16", "channels_last": True}
        | {"baseline_epochs": 12, "baseline_threads": 2},
        None,
    ),
    "mobilenet_v2": ({"stem": "small", "baseline_epochs": 25}, (-3, -2, -1, 0, 1, 2)),
    "mobilenet_v3_small": ({"stem": "small", "baseline_epochs": 40}, (-3, -2, -1, 0, 1, 2)),
    "efficientnet_lite0": (
        {"size": 36, "stem": "small", "baseline_epochs": 3},
        (-2, -1, 0, 1),
    ),
    "vit_small": (
        {"batch_size": 64, "precision": "bf16", "baseline_threads": 2},
        (-3, -2, -1, 0),
    ),
}
COMMITTED = {
    "cifar_resnets": [
        CIFAR,
        CIFAR
        | {
            "models": ("cifar_resnet32",),
            "changes": CIFAR["changes"] | {"precision": "bf16", "channels_last": True},
        },
    ],
    "small_data": [
        SMALL | {"models": (model,), "changes": SMALL["changes"] | changes, "powers": powers}
        for model, (changes, powers) in SMALL_NETWORKS.items()
    ],
    "mobilenet_v2_spared": [
        {
            "models": ("mobilenet_v2",),
            "bits": (2, 3, 4),
            "rates_at": (2, 4),
            "powers": (-2, -1, 0, 2),
            "data": SMALL["data"][:1],
            "changes": SMALL["changes"]
            | {"stem": "small", "baseline_epochs": 12, "baseline_threads": 2},
        }
    ],
}
TRAINED_ALONE = {"mobilenet_v2_spared": ("mobilenet_v2",)}  # no rows without training
SPARED = {  # network and seeds
    "cifar_resnets": ("cifar_resnet20", (0, 1, 2)),
    "mobilenet_v2_spared": ("mobilenet_v2", (0,)),
}


def spared_sweep(name):
    """The sweep of the ledger that leaves the first and the last layer at 8 bits; if there."""
    if name not in SPARED:
        return None
    model, seeds = SPARED[name]
    options = next(options for options in COMMITTED[name] if model in options["models"])
    changes = options["changes"] | {"keep_first_last": True}
    own = {"models": (model,), "seeds": seeds, "changes": changes}
    return Sweep("laptop", **options | own | {"bits": (2, 3, 4), "rates_at": (2, 4)})


@pytest.mark.parametrize("name", COMMITTED)
def test_rows_of_the_committed_ledger_belong_to_its_commands(name):
    records = Ledger(LEDGER / name, TABLE1).records()
    known, not_trained = set(), set()
    for options in COMMITTED[name]:
        sweep = Sweep("laptop", **{"rates_at": (2, 4, 8)} | options)
        known |= {config.hash for config in sweep.cells()}
        known |= {follower.config.hash for follower in followers(sweep, records)}
        if not {*options["models"]} & {*TRAINED_ALONE.get(name, ())}:
            plain = Sweep("laptop", methods=POST_TRAINING, **options)
            not_trained |= {config.hash for config in plain.cells()}
    spared = spared_sweep(name)
    sparing = {config.hash for config in spared.cells()} if spared else set()
    if spared:
        sparing |= {follower.config.hash for follower in followers(spared, records)}
    assert sparing <= set(records) <= known | not_trained | sparing
    assert known | not_trained <= set(records)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("cifar_resnets", "cifar_resnets"),
        ("small_data", "table1_small_data"),
        ("mobilenet_v2_spared", "mobilenet_v2_spared"),
    ],
)
def test_committed_tables_hold_each_cell_of_the_ledger_once(name, table):
    records = Ledger(LEDGER / name, TABLE1).records()
    rows = pd.read_csv(LEDGER.parent / f"{table}.csv")
    cells = rows[["comparison", "when", "model", "n_bits"]]
    assert not cells.duplicated().any()
    run = {
        (r["model"], r["n_bits"], *METHODS_OF_RUNS[r["method"]])
        for r in records.values()
        if r["method"] in METHODS_OF_RUNS
    }
    alike = rows[rows["comparison"] == ALIKE]
    for method in ("quantization", "pruning"):
        keys = alike[["model", "n_bits", "when"]].itertuples(index=False, name=None)
        assert {(m, n, method, w) for m, n, w in keys} == {key for key in run if key[2] == method}
        for _, row in rows.iterrows():
            found = [records[h] for h in row[f"hash_{method}"].split()]
            assert {(r["model"], r["n_bits"]) for r in found} == {(row["model"], row["n_bits"])}
            assert {METHODS_OF_RUNS[r["method"]] for r in found} == {(method, row["when"])}
            value = sum(r["value"] for r in found) / len(found)
            assert row[method] == pytest.approx(value, abs=1e-6)


def test_chapter_6_names_the_baseline_that_its_second_network_starts_from():
    options = next(o for o in COMMITTED["small_data"] if o["models"] == ("resnet18",))
    baseline = Sweep("laptop", methods=("none",), **options).cells()[0]
    chapter = LEDGER.parents[2] / "notebooks" / "layer_snr.ipynb"
    assert f"runs/table1-laptop/{baseline.hash}/weights.pt" in chapter.read_text("utf-8")
