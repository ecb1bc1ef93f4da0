"""What the fine-tuning chapter says, on tables made up so that the answer is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pqlib import training_words as words
from pqlib.experiments.presets import TABLE4, Sweep
from pqlib.training.settings import Settings
from pqlib.training_findings import SPARED, runs_table


def compared():
    """By (when, bits): quantization, pruning and the interval of the lead."""
    rows = [
        ("post-training", 4, 80.0, 80.0, -1.0, 1.0),
        ("post-training", 2, 40.0, 20.0, 10.0, 30.0),
        ("fine-tuned", 4, 95.0, 85.0, -0.04, 20.0),
        ("fine-tuned", 2, 70.0, 90.0, -30.0, -10.0),
    ]
    columns = ["when", "n_bits", "quantization", "pruning", "low", "high"]
    table = pd.DataFrame(rows, columns=columns)
    winner = ["quantization" if a > 0 else "pruning" if b < 0 else "neither" for *_, a, b in rows]
    return table.assign(lead=table["quantization"] - table["pruning"], winner=winner)


def test_the_live_run_in_words():
    records = [
        {"method": "none", "n_bits": None, "sparsity": 0.9},
        {"method": "lsq", "n_bits": 2, "sparsity": 0.456},
        {"method": "lsq", "n_bits": 4, "sparsity": 0.121},
        {"method": "post_training_quantize", "n_bits": 2, "sparsity": 0.8},
        {"method": "prune", "n_bits": 2, "sparsity": 0.875},
    ]
    assert words.live_words(compared(), runs_table(records)) == {
        "live_verdict": "pruning is ahead at 2 bits, a tie at 4 bits",
        "live_before": "quantization is ahead at 2 bits, a tie at 4 bits",
        "gain_quant": "+30.0 points at 2 bits, +15.0 points at 4 bits",
        "gain_prune": "+70.0 points at 2 bits, +5.0 points at 4 bits",
        "natural_words": "46% at 2 bits, 12% at 4 bits",
    }


def test_nothing_gained_has_no_sign():
    table = compared()
    later = table["when"] == "fine-tuned"
    table.loc[later, "pruning"] = [79.96, 20.0]
    said = words.live_words(table, runs_table([{"method": "lsq", "n_bits": 2, "sparsity": 0.0}]))
    assert said["gain_prune"] == "+0.0 points at 2 and 4 bits"
    table.loc[later, "pruning"] = [70.0, 20.0]
    said = words.live_words(table, runs_table([{"method": "lsq", "n_bits": 2, "sparsity": 0.0}]))
    assert said["gain_prune"] == "+0.0 points at 2 bits, −10.0 points at 4 bits"


def test_the_table_of_values():
    columns = words.values_table(compared())
    assert columns[""] == ["fine-tuned"] * 2 + ["post-training"] * 2
    assert columns["bits"] == [2, 4, 2, 4]
    assert columns["lead"] == [-20.0, 10.0, 20.0, 0.0]
    assert columns["95 % interval"] == [
        "−30.0 to −10.0", "0.0 to 20.0", "10.0 to 30.0", "−1.0 to 1.0",
    ]  # fmt: skip
    assert columns["ahead"] == ["pruning", "tie", "quantization", "tie"]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"lead": -10.0, "low": -12.34, "high": -7.0}, "−10.0 (−12.3 to −7.0)"),
        ({"lead": 3.0, "low": -1.0, "high": 7.0}, "+3.0 (−1.0 to 7.0)"),
        ({"lead": -0.04, "low": -0.04, "high": 0.0}, "+0.0 (0.0 to 0.0)"),
    ],
)
def test_a_lead_in_words(row, text):
    assert words.lead_words(row) == text


SHARES = pd.DataFrame(
    {
        "model": ["resnet18", "mobilenet_v2", "efficientdet", "vit_small"],
        "last": ["fc", "classifier.1", np.nan, "head"],
        "share": [0.05, 0.37, np.nan, 0.2],
        "missing": ["", "", "pip install it", ""],
    }
)


def test_shares_of_two_layers():
    assert words.shares_words(SHARES, 2) == {
        "spared_top": "MobileNet-V2 with 37.0%",
        "spared_many": "1 of 3",
        "spared_mobilenet": "37.0%",
        "spared_bits": (
            "so that a nominal 2 bits are really 4.22 bits per weight for quantization, while "
            "pruning is held to 2"
        ),
    }
    at_eight = words.shares_words(SHARES, 8)["spared_bits"]
    assert at_eight == "which changes nothing where all layers have 8 bits anyway"
    larger = SHARES.assign(share=[0.5, 0.37, np.nan, 0.2])
    assert words.shares_words(larger, 2)["spared_top"] == "ResNet-18 with 50.0%"
    assert words.shares_words(larger, 2)["spared_mobilenet"] == "37.0%"


def test_the_table_of_shares():
    columns = words.shares_table(SHARES, 4)
    assert columns["network"] == ["MobileNet-V2", "ViT-small", "ResNet-18", "EfficientDet"]
    assert columns["last layer"][:3] == ["`classifier.1`", "`head`", "`fc`"]
    assert columns["share of the weights"] == ["37.0%", "20.0%", "5.0%", "pip install it"]
    assert columns["mean bits at 4"][:3] == pytest.approx([5.48, 4.8, 4.2])


def spared(alike=(60.0, 50.0), both=(80.0, 49.0)):
    """The three comparisons; in the second quantization alone spares two layers."""
    values = [alike, (both[0], alike[1]), both]
    rows = [
        {"quantization": q, "pruning": p, "bits_quantization": 2.0, "bits_pruning": 3.0,
         "lead": q - p, "low": q - p - 5, "high": q - p + 5}
        for q, p in values
    ]  # fmt: skip
    return pd.DataFrame(rows, index=[*SPARED])


def test_what_sparing_adds():
    assert words.spared_words(spared()) == {
        "spared_effect": "+20.0 points for quantization and −1.0 for pruning",
        "authors_lead": "+30.0 (25.0 to 35.0)",
        "fair_lead": "+10.0 (5.0 to 15.0)",
        "both_lead": "+31.0 (26.0 to 36.0)",
    }
    none = words.spared_words(spared(both=(59.96, 50.0)))["spared_effect"]
    assert none == "+0.0 points for quantization and +0.0 for pruning"


def test_the_table_of_spared_layers():
    columns = words.spared_table(spared())
    assert columns["comparison"] == [*SPARED]
    assert columns["quantization"] == [60.0, 80.0, 80.0]
    assert columns["pruning"] == [50.0, 50.0, 49.0]
    assert columns["bits, quantization"] == [2.0] * 3 and columns["bits, pruning"] == [3.0] * 3
    assert columns["lead (95 % interval)"] == [
        "+10.0 (5.0 to 15.0)", "+30.0 (25.0 to 35.0)", "+31.0 (26.0 to 36.0)",
    ]  # fmt: skip


def test_how_much_there_is_to_run():
    def run(data, epochs):
        return SimpleNamespace(data=data, settings=SimpleNamespace(epochs=epochs))

    grid = [(run("folder:imagenet", 1000), -1), (run("coco", 10**6), 0), (run("imagenet", 561), 0)]
    assert words.grid_words(grid) == {
        "grid_words": "−1, 0",
        "grid_n": "2",
        "paper_runs": "3",
        "passes_words": (
            "On ImageNet alone they show 2 billion images to the networks; divide by what your "
            "GPUs do in a second."
        ),
    }


def test_how_far_a_scale_can_get():
    settings = Settings(20, 256, 1e-3)
    assert words.reach_words(settings) == "1 in 100,080 steps"  # 5,004 an epoch
    assert words.reach_words(settings, 1000) == "0.0006 in 60 steps"
    fast = Settings(20, 256, 1e-3, scale_learning_rate=1e-3, max_steps=5)
    assert words.reach_words(fast, 1000) == "0.005 in 5 steps"
    assert [words.power(rate) for rate in (1e-5, 0.01)] == ["1e−5", "0.01"]


def test_table_4():
    plans = {c.model: c for c in Sweep("paper").cells() if c.method == "none"}
    columns = words.recipes_table(TABLE4, plans)
    assert len(columns["network"]) == 8 and columns["network"][0] == "ResNet-18"
    assert columns["rate"][0] == "0.001" and columns["rate"][1] == "1e−5"
    assert columns["decay"][2] == "5e−5" and columns["decay"][6] == "0"
    assert columns["batch"][6] == 16 and columns["optimizer"][5] == "adam"
    assert columns["epochs"][6] == 200
    assert all("/" not in data for data in columns["data"])


def cells_of(leads, fp=75.0):
    """Quantization at 70 and a lead by (model, bits)."""
    rows = [(m, "accuracy", b, 70.0, 70.0 - lead, fp, lead) for (m, b), lead in leads.items()]
    columns = ["model", "metric", "n_bits", "quantization", "pruning", "fp_value", "lead"]
    found = pd.DataFrame(rows, columns=columns)
    sign = np.sign(found["lead"]).map({1.0: "quantization", 0.0: "neither", -1.0: "pruning"})
    return found.assign(winner=sign)


def test_table_1_in_words():
    found = cells_of({
        ("resnet50", 2): -3.0, ("resnet50", 4): -1.0, ("resnet18", 2): 1.0, ("resnet18", 4): 0.5,
        ("mobilenet_v2", 2): 20.0, ("mobilenet_v2", 4): 0.0,
    })  # fmt: skip
    said = words.table1_words(found)
    assert said["table1_counts"] == (
        "quantization is ahead in 3 of 6 cells, pruning in 2, 1 is a tie"
    )
    assert said["table1_exceptions"].startswith("pruning is ahead for ResNet-50 at 2 and 4 bits;")
    assert said["table1_close"] == "ResNet-50 (median −2.0 points)"
    assert said["table1_far"] == "MobileNet-V2 (median 10.0 points)"
    assert said["table1_small"] == "2 of 6"
    assert said["table1_by_bits"] == "+1.0 points at 2 bits, +0.0 points at 4 bits"
    assert said["table1_over"] == "0 of 6 cells of quantization and 0 of pruning"


def test_cells_as_good_as_the_original():
    found = cells_of({("resnet18", 2): 5.0, ("resnet18", 3): -2.0}, fp=70.0)
    said = words.table1_words(found)
    assert said["table1_over"] == "2 of 2 cells of quantization and 1 of pruning"
    level = words.table1_words(cells_of({("resnet18", 2): -0.04}))
    assert level["table1_close"] == level["table1_far"] == "ResNet-18 (median 0.0 points)"
