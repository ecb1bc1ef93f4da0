"""What the chapter says of layers and epochs, on tables made up so that the answer is known."""

import numpy as np
import pandas as pd
import pytest
from representation_cases import PAPER, made

from pqlib import representation_words as words
from pqlib.representation_findings import signed, trends


def of(*methods, **changed):
    """The rows of these methods alone, with other columns."""
    table = made({k: v for k, v in PAPER.items() if k[0] in methods})
    return table.assign(**changed)


@pytest.fixture(scope="module")
def table():
    return made(PAPER)


@pytest.fixture(scope="module")
def found(table):
    return trends(table, n_draws=500)


def test_where_the_runs_end(table):
    at_four = table["n_bits"].eq(4).fillna(False)
    shown = table.assign(accuracy=table["accuracy"].where(~at_four, 70.0))
    assert words.ends_words(shown, 2) == (
        "53.0 % under quantization, 53.0 % under pruning, 53.0 % under pruning at once"
    )
    assert words.ends_words(shown, 4).startswith("70.0 % under quantization, 70.0 % under pruning")
    assert words.ends_words(of("prune_at_once"), 2) == "53.0 % under pruning at once"


def test_accuracy_goes_from_the_first_epoch_to_the_last_at_the_fewest_bits(table):
    at_four = table["n_bits"].eq(4).fillna(False)
    shown = table.assign(accuracy=table["accuracy"].where(~at_four, 70.0))
    said = words.accuracy_words(shown).split("; ")
    assert said == [
        f"{name} from 50.0 to 53.0 %"
        for name in ("quantization", "pruning", "pruning at once", "no compression")
    ]
    assert words.accuracy_words(shown[at_four]).startswith("quantization from 70.0 to 70.0 %;")
    read = shown.assign(n_bits=shown["n_bits"].astype(float))  # as a file of comma separated values
    assert words.accuracy_words(read).split("; ") == said


def test_where_runs_end_beside_training_alone():
    table = made({
        ("lsq", 2): ((3, 3, 4, 4), (2, 2, 2, 2)), ("lsq", 4): ((30,) * 4, (-10,) * 4),
        ("prune", 2): ((3, 3, 3, 3), (-1, -1, -1, -1)),
        ("uncompressed", None): ((30,) * 4, (-9,) * 4),
    })  # fmt: skip
    ends = "quantization ends at 0.055 at 2 bits, 0.200 at 4 bits; pruning ends at 0.020 at 2 bits"
    assert words.ends_beside_control(table) == (
        f"{ends}; training without compression ends at 0.210"
    )
    without = table[table["method"] != "uncompressed"]
    assert words.ends_beside_control(without) == (
        f"{ends}; training without compression was not run"
    )


def test_where_methods_begin():
    table = made({
        ("lsq", 2): ((3, 3, 4, 4), (2, 2, 2, 2)),
        ("prune", 2): ((3, 3, 3, 3), (-1, -1, -1, -2)),
        ("lsq", 4): ((15, 15, 15, 15), (1, 1, 1, 1)),
        ("uncompressed", None): ((30, 30, 30, 30), (-9, -9, -9, -9)),
    })  # fmt: skip
    assert words.starts_words(table) == {
        "starts_ends": "quantization from 3.5 to 5.5 dB, pruning from 3.0 to 1.8 dB",
        "start_nearest": "15.0 dB (quantization at 4 bits)",
    }


def test_layers_of_more_noise_than_signal_are_counted():
    table = made({
        ("lsq", 4): ((3, 0, 4, 1), (-1, -2, 2, -1)),
        ("lsq", 2): ((-3, -1, 4, -2), (2, 2, -5, 3)),
        ("prune", 2): ((3, 3, 3, 3), (-4, -1, -1, -4)),
        ("prune", 4): ((3, 3, 3, 3), (-1, -4, -4, -1)),
        ("uncompressed", None): ((9, 9, 9, 9), (-10, -10, -10, -10)),
    })  # fmt: skip
    assert words.negative_words(table) == (
        "quantization 3 and then 2 of 4 at 2 bits, 0 and then 1 of 4 at 4 bits; "
        "pruning 0 and then 2 of 4 at 2 and 4 bits"
    )


def test_the_control(table):
    assert words.control_words(table) == (
        "ends at ∞ dB and a CKA of ∞, on average over layers"  # nothing was trained
    )
    louder = made({("uncompressed", None): ((10, 10, 12, 12), (-12, -12, -14, -14))})
    assert words.control_words(louder) == (
        "ends at −2.0 dB and a CKA of −0.020, on average over layers"
    )
    assert words.control_words(of("lsq")) == "was not run"


def test_batch_norm_measured_again_moves_the_beginning(table):
    again = words.remeasured_words
    assert again(table) == (
        "(No compression begins with 50.0 %, since batch norm was measured again.)"
    )
    assert words.table_words(table)["remeasured"] == again(table)
    assert again(table.assign(fp_value=50.04)) == ""
    assert again(of("lsq")) == ""


def test_what_a_table_holds(table):
    said = words.table_words(table)
    assert (said["shown_layers"], said["shown_epochs"], said["shown_bits"]) == ("4", "3", "2")
    assert said["shown_fp"] == "90.0 %" and said["shown_final"] == "2"
    assert said["chance_range"] == "0.10 and 0.10"
    rising = table.assign(cka_unpaired=np.linspace(0.2, 0.4, len(table)))
    assert words.table_words(rising)["chance_range"] == "0.20 and 0.40"
    last = table["layer"] == "conv2"
    other = table.assign(cka_unpaired=table["cka_unpaired"].where(~last, 0.3))
    other.loc[last.idxmax(), "cka_unpaired"] = 0.25
    assert words.table_words(other)["chance_last"] == "0.25 and 0.30"
    assert words.table_words(other)["chance_range"] == "0.10 and 0.30"
    assert words.table_words(of("lsq", "prune_at_once"))["shown_final"] == "–"
    assert all(isinstance(text, str) for text in said.values())


def test_verdicts_of_every_method(found):
    said = words.trend_words(found)
    assert said["quant_snr"] == "farther from it at 2 bits, no verdict at 4 bits"
    assert said["claim_words"].startswith("as the paper has it by both measures at 2 bits")
    assert said["claim_once"].startswith("both go farther by both measures at 2 bits")


def test_changes_of_every_method(found):
    said = words.trend_words(found)
    quantization, pruning, once = said["last_moves"].split("; ")
    assert quantization == "quantization goes farther at 2 and 4 bits"
    assert pruning == "pruning comes closer at 2 and 4 bits"
    assert once == "pruning at once goes farther at 2 bits, comes closer at 4 bits"
    assert said["fig7_quantization"].startswith("−4.5 dB (−")
    assert said["fig7_pruning"].startswith("+5.2 dB (")
    assert said["fig8_snr"].startswith("quantization from 16.0 to 10.0 dB at 2 bits, from 30.0")
    assert "pruning from 0.020 to 0.090 at 2 bits" in said["fig8_cka"]


def test_methods_that_were_not_run_are_left_out():
    said = words.trend_words(trends(of("prune"), n_draws=50))
    assert said["quant_snr"] == said["fig7_quantization"] == ""
    assert said["claim_words"] == "not run at 2 and 4 bits"
    for name in ("fig8_snr", "fig8_cka", "last_moves"):
        assert said[name].startswith("pruning ") and "quantization" not in said[name]
        assert "pruning at once" not in said[name]


def test_the_table_of_trends(found):
    columns = words.trends_table(found)
    assert columns["method"] == ["quantization", "pruning", "pruning at once"] * 2
    assert columns["bits"] == [2, 2, 2, 4, 4, 4]
    assert columns["layers closer"][:2] == ["0 of 4", "4 of 4"]
    assert columns["by SNR"][:4] == ["farther", "closer", "farther", "no verdict"]
    assert columns["by CKA"] == ["farther", "closer", "farther", "no verdict", "closer", "closer"]
    texts = columns["change of SNR (dB)"]
    assert texts[0].startswith("−4.5 (−") and texts[1].startswith("+5.2 (")
    assert columns["change of CKA"][0].startswith("−0.045 (−0.0")
    assert "dB" not in "".join(texts) and "-" not in "".join(texts + columns["change of CKA"])


def test_no_zero_has_a_sign():
    zero = pd.DataFrame(
        {"method": "lsq", "n_bits": 2, "measure": "sqnr_db", "change": -0.01, "low": -0.02,
         "high": 0.01, "n_closer": 2, "n_layers": 4, "verdict": "no verdict"}, index=[0]
    )  # fmt: skip
    both = pd.concat([zero, zero.assign(measure="cka", change=-0.0001)])
    columns = words.trends_table(both)
    assert columns["change of SNR (dB)"] == ["+0.0 (0.0 to 0.0)"]
    assert columns["change of CKA"][0].startswith("+0.000 (")
    assert signed(-0.01, "sqnr_db") == "+0.0 dB"


def test_where_quantization_begins_and_ends(table, found):
    columns = words.starts_table(table, found)
    assert columns["quantization at bits"] == [2, 4]
    assert columns["SNR at epoch 0 (dB)"] == pytest.approx([17.0, 30.0])
    assert columns["at the end"] == pytest.approx([12.5, 30.0])
    assert columns["layers that come closer"] == ["0 of 4", "2 of 4"]
    assert columns["verdict"] == ["farther", "no verdict"]


@pytest.mark.parametrize(
    ("steps", "prediction", "ends"),
    [
        ((-4, -5, -6, -3), "it departs, as predicted", "12.5"),
        ((4, 5, 6, 3), "it does not depart, and the prediction fails", "21.5"),
        ((-9, 9, -9, 9), "there is no verdict, and the prediction is not confirmed", "17.0"),
        ((-20, -20, -20, -20), "it departs, as predicted", "−3.0"),
    ],
)
def test_the_prediction(steps, prediction, ends):
    table = made({("lsq", 2): PAPER["lsq", 4], ("lsq", 8): ((20, 18, 16, 14), steps)})
    said = words.prediction_words(table, trends(table, n_draws=500), 8)
    begun = "17.0 dB on average over layers and ends at"
    assert said == {"prediction": prediction, "mild_ends": f"{begun} {ends} dB"}
