"""Rates of watched runs beside those that were tried elsewhere, on made-up tables."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest
from representation_cases import made
from sweep_cases import sweep_of

from pqlib import representation_rates as rates

MOVES = {
    ("lsq", 2): ((3,) * 4, (1,) * 4),
    ("lsq", 4): ((9,) * 4, (1,) * 4),
    ("prune", 2): ((3,) * 4, (1,) * 4),
    ("prune", 4): ((3,) * 4, (1,) * 4),
    ("uncompressed", None): ((9,) * 4, (-1,) * 4),
}
LAST = "How near a method comes to the original is said at this rate alone"


def watched(rate=0.01):
    """Rows of one network with accuracies from 50 to 53 %, and how its runs were made."""
    table = made(MOVES).assign(model="cifar_resnet20")
    runs = pd.DataFrame([("cifar_resnet20", m, b, rate, 5085) for m, b in MOVES])
    return table, runs.set_axis(rates._COLUMNS, axis=1)


def edition(**columns):
    """Cells in which 0.01 was best for quantization, 0.03 for pruning; 3 bits took it over."""
    return sweep_of(
        {2: (9.0, 9.0), 3: (9.0, 9.0), 4: (3.0, 3.0)},
        tried_pruning="0.0033 0.01 0.03",
        rate_pruning="0.03 0.03",
        **columns,
    )


def test_a_rate_that_suits_one_method_is_named():
    table, runs = watched()
    said = rates.rate_words(table, runs, edition(rate_quantization="0.0100002 0.0100002"))
    assert said == (
        "All runs share the learning rate 0.01. Of those tried in the chapter on fine-tuning, "
        "validation chose it for quantization at 2 and 4 bits; another for pruning at 2 bits "
        "(0.03, with 80.0 % there on average over 2 seeds and 53.0 % here) and pruning at 4 bits "
        f"(0.03, with 80.0 % there on average over 2 seeds and 53.0 % here). {LAST}"
    )


def test_the_accuracy_here_is_that_of_the_cell_after_the_last_epoch():
    table, runs = watched()
    at_four = table["n_bits"].eq(4).fillna(False) & (table["method"] == "prune")
    table["accuracy"] = table["accuracy"].where(~at_four, table["accuracy"] + 20)
    said = rates.rate_words(table, runs, edition(seeds="0"))
    assert "pruning at 2 bits (0.03, with 80.0 % there and 53.0 % here)" in said
    assert "pruning at 4 bits (0.03, with 80.0 % there and 73.0 % here)" in said


def test_a_rate_that_was_chosen_for_all_or_for_none():
    table, runs = watched(0.03)
    best = rates.rate_words(table, runs, edition(rate_quantization="0.03"))
    assert best.endswith(
        f"validation chose it for quantization at 2 and 4 bits and pruning at 2 and 4 bits. {LAST}"
    )
    table, runs = watched(0.5)
    none = rates.rate_words(table, runs, edition())
    assert "chose it" not in none and "validation chose another for" in none
    assert none.count("bits (0.0") == 4


def test_what_was_not_tried_is_not_said():
    table, runs = watched()
    alone = "All runs share the learning rate 0.01. Whether it suits all of them alike was not"
    over = edition(tried_quantization="0.01").assign(tried_pruning="0.03")
    others = (None, edition(model="vit_small"), edition(when="post-training"), over)
    for cells in others:
        assert rates.rate_words(table, runs, cells) == f"{alone} tried"


def test_several_rates_are_no_shared_one():
    table, runs = watched()
    runs.loc[0, "learning_rate"] = 0.03
    assert rates.rate_words(table, runs, edition()) == (
        "The runs do not share one learning rate; they have 0.03 and 0.01"
    )


def test_how_runs_were_made():
    _, runs = watched()
    assert rates.run_words(runs, "cifar_resnet20") == {
        "shown_rate": "0.01", "shown_images": "5,085",
    }  # fmt: skip
    runs.loc[0, ["learning_rate", "n_train"]] = 3e-5, 100
    assert rates.run_words(runs, "cifar_resnet20") == {
        "shown_rate": "0.01 and 3e-05", "shown_images": "5,085 and 100",
    }  # fmt: skip


def test_runs_of_the_committed_table_are_read(tmp_path):
    assert rates.read_runs("") is None and rates.read_runs(str(tmp_path)) is None
    run = {"model": "m", "method": "lsq", "n_bits": 2, "learning_rate": 0.01, "n_train": 7}
    runs = {"runs": [run | {"method": "none", "n_bits": None}, run | {"commit": "abc"}]}
    (tmp_path / "representations.json").write_text(json.dumps(runs))
    found = rates.read_runs(str(tmp_path))
    assert found.to_dict("records") == [run]
    cell = SimpleNamespace(
        model="m", method="lsq", n_bits=2, settings=SimpleNamespace(learning_rate=0.01)
    )
    assert rates.runs_of([cell], 7).to_dict("records") == [run]


@pytest.mark.parametrize("model", ["cifar_resnet20", "vit_small"])
def test_a_control_has_no_cell_elsewhere(model):
    table, runs = watched()
    runs = runs[runs["method"] == "uncompressed"].assign(model=model)
    said = rates.rate_words(table.assign(model=model), runs, edition(model=model))
    assert said.endswith("was not tried")
