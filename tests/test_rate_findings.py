"""What is said of learning rates and of scales, on made-up cells and runs."""

import json

import pandas as pd
import pytest
from sweep_cases import sweep_of

from pqlib.rate_findings import (
    beyond_words,
    chosen_words,
    ends_words,
    scale_moves,
    scale_words,
)


def test_rates_chosen_by_budget():
    cells = sweep_of({2: (9.0,), 4: (3.0,), 8: (1.0,)})
    cells["rate_pruning"] = ["0.03 0.01", "0.01", 0.01]
    assert chosen_words(cells, "quantization") == "0.01 at 2, 4 and 8 bits"
    assert chosen_words(cells, "pruning") == "0.03 or 0.01 at 2 bits, 0.01 at 4 and 8 bits"
    cells["tried_pruning"] = ["0.01 0.03", "0.01", "0.0033 0.01"]  # taken over at 4 bits
    assert chosen_words(cells, "pruning") == "0.03 or 0.01 at 2 bits, 0.01 at 8 bits"


def test_a_rate_at_the_end_of_those_tried_is_named():
    tried, five = "0.0033 0.01 0.03", "0.0011 0.0033 0.01 0.03 0.09"
    cells = pd.concat([
        sweep_of({2: (9.0,), 4: (3.0,), 8: (1.0,)}, model="resnet18", tried_pruning=tried,
                 rate_pruning="0.03", rate_quantization="0.01"),
        sweep_of({2: (9.0,), 3: (9.0,), 4: (3.0,)}, model="efficientdet", tried_pruning=five,
                 rate_pruning="0.09 0.01", rate_quantization="0.0033"),
    ], ignore_index=True)  # fmt: skip
    cells.loc[2, "rate_pruning"] = "0.0033"
    cells.loc[4, ["tried_pruning", "tried_quantization"]] = ["0.09", "0.0033"]  # taken over
    assert ends_words(cells) == {
        "rates_tried": "3 to 5",
        "rates_largest": "pruning (ResNet-18 at 2 and 4 bits; EfficientDet at 2 and 4 bits)",
        "rates_smallest": (
            "quantization (EfficientDet at 2 and 4 bits) and pruning (ResNet-18 at 8 bits)"
        ),
    }


def test_rates_inside_are_at_no_end():
    cells = sweep_of({2: (9.0,)})
    assert ends_words(cells) == {
        "rates_tried": "3", "rates_largest": "neither method", "rates_smallest": "neither method"
    }  # fmt: skip
    single = ends_words(cells.assign(tried_quantization=0.01))
    assert (single["rates_tried"], single["rates_largest"]) == ("1", "neither method")


def test_cells_at_the_largest_rate_count_those_that_took_it_over():
    tried, single = "0.0033 0.01 0.03", "0.03"
    cells = pd.concat([
        sweep_of({2: (9.0,), 3: (9.0,), 4: (3.0,)}, model="resnet18", rate_pruning="0.03 0.01",
                 rate_quantization="0.01", tried_quantization=tried),
        sweep_of({2: (9.0,)}, model="efficientdet", rate_pruning="0.03",
                 tried_pruning="0.03 0.09", rate_quantization="0.03", tried_quantization=tried),
    ], ignore_index=True)  # fmt: skip
    cells.loc[:2, "tried_pruning"] = [tried, single, tried]
    cells.loc[1, "tried_quantization"] = "0.01"
    assert beyond_words(cells) == {
        "rates_at": "2 and 4 bits",
        "rates_beyond": "of pruning in 3 of 4 cells and of quantization in 1",
        "rates_below": "of pruning in 1 of 4 cells and of quantization in 0",
    }
    cells.loc[2, "rate_pruning"] = "0.01"
    assert beyond_words(cells)["rates_beyond"].startswith("of pruning in 2 of 4 cells")


def test_a_rate_at_the_end_counts_in_any_seed():
    cells = sweep_of({2: (1.0, 2.0)}, rate_pruning="0.01 0.03", tried_pruning="0.0033 0.01 0.03")
    assert ends_words(cells)["rates_largest"] == "pruning (ResNet-20 at 2 bits)"
    assert beyond_words(cells)["rates_beyond"].startswith("of pruning in 1 of 1 cells")


def test_a_single_rate_is_not_the_end_of_a_range():
    cells = sweep_of({2: (9.0,), 3: (9.0,)}, tried_quantization=0.01)
    assert beyond_words(cells) == {
        "rates_at": "no bit-width",
        "rates_beyond": "of pruning in 0 of 2 cells and of quantization in 0",
        "rates_below": "of pruning in 0 of 2 cells and of quantization in 0",
    }


def runs_of(folder, scales):
    """Records of runs, and what each says of its layers: scales by (method, bits)."""
    records = [{"method": "none", "n_bits": None, "hash": "0"}]
    for number, ((method, n_bits), found) in enumerate(scales.items(), 1):
        (folder / str(number)).mkdir()
        rows = [{"layer": layer, "scale": scale} for layer, scale in found.items()]
        (folder / str(number) / "layers.json").write_text(json.dumps(rows))
        records.append({"method": method, "n_bits": n_bits, "hash": str(number)})
    return records


START, TRAINED = "post_training_quantize", "lsq"


def test_how_far_scales_moved(tmp_path):
    records = runs_of(tmp_path, {
        (TRAINED, 2): {"a": 0.198, "b": 0.5}, (START, 2): {"a": 0.2, "b": 0.5},
        ("prune", 2): {"a": None, "b": None}, (TRAINED, 4): {"a": 1.0},
    })  # fmt: skip
    moves = scale_moves(records, tmp_path)
    assert moves["n_bits"].tolist() == [2, 2] and moves["layer"].tolist() == ["a", "b"]
    assert moves["percent"].tolist() == [pytest.approx(1.0), 0.0]
    assert (moves["start"].tolist(), moves["end"].tolist()) == ([0.2, 0.5], [0.198, 0.5])
    with pytest.raises(ValueError, match="no budget with a fine-tuned and a post-training run"):
        scale_moves([r for r in records if r["method"] != START], tmp_path)


def test_scales_in_words():
    rows = [(2, 0.1), (2, 0.2), (2, 60.0), (8, 7.0), (8, 5.0)]
    moves = pd.DataFrame(rows, columns=["n_bits", "percent"])
    said = scale_words(moves)
    assert said["scale_moved"] == (
        "0.20 % (at most 60.0 %) at 2 bits, 6.0 % (at most 7.0 %) at 8 bits"
    )
    little, much = said["scale_meaning"].split(". ")
    assert little.startswith("At 2 bits that is little") and much.startswith("At 8 bits the grid")
    assert scale_words(moves[moves["n_bits"] == 2])["scale_meaning"].endswith("hardly the scale.")
    assert scale_words(moves[moves["n_bits"] == 8])["scale_meaning"].startswith("At 8 bits the")
