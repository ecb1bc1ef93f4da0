"""What the chapter on layer SNR says, on rows and estimates of which the answer is known."""

import math

import pandas as pd
import pytest
from snr_cases import rows

from pqlib import snr_words as words
from pqlib.snr_findings import KINDS, METHODS, OUTCOMES, PREDICTORS, at_equal_snr, correlations
from pqlib.snr_statistics import Estimate

DOWN, TIE, UP = (
    Estimate(-0.9, -1, -0.8, 9, 3),
    Estimate(-0.2, -1, 1, 9, 3),
    Estimate(0.9, 0.8, 1, 9, 3),
)
MILD = Estimate(-0.3, -0.5, -0.1, 9, 3)
NONE = Estimate(math.nan, math.nan, math.nan, 0, 0)


def found(numbers=lambda method, predictor, outcome, kind: DOWN):
    """A table of correlations with made-up estimates."""
    cells = [
        (m, p, o, k, numbers(m, p, o, k))
        for m in (*METHODS, "both") for p in PREDICTORS for o in OUTCOMES for k in KINDS
    ]  # fmt: skip
    return pd.DataFrame(cells, columns=["method", "predictor", "outcome", "kind", "found"])


def numbered():
    """Every cell of a table of correlations another, so that each can be told in a text."""
    places = {}

    def number(*cell):
        value = places.setdefault(cell, len(places) / 100)
        return Estimate(value, 0.0, 1.0, 9, 3)

    return found(number), {cell: f"{v:.2f} (0.00 to 1.00)" for cell, v in places.items()}


def test_every_scale_has_its_own_correlation():
    table, text = numbered()
    assert words.scale_words(table, "live") == {
        "live_linear": text["both", "snr", "increase", "pearson"],
        "live_db": text["both", "snr_db", "increase", "pearson"],
        "live_noise": text["both", "noise", "increase", "pearson"],
    }
    assert (
        words.scale_words(table, "x", "drop")["x_noise"] == text["both", "noise", "drop", "pearson"]
    )
    columns = words.scales_table(table)
    assert [*columns] == ["with the cross-entropy gained", "Pearson", "Spearman"]
    assert columns["with the cross-entropy gained"] == [
        "SNR, linear", "SNR in dB", "noise over signal",
    ]  # fmt: skip
    for name in ("Pearson", "Spearman"):
        scales = ("snr", "snr_db", "noise")
        assert columns[name] == [text["both", s, "increase", name.lower()] for s in scales]


def test_ranks_stand_where_they_belong():
    table, text = numbered()
    said = words.rank_words(table)
    for method, short in zip(METHODS, ("quant", "prune"), strict=True):
        assert said[f"rank_{short}"] == text[method, "snr_db", "increase", "spearman"]
        drop = text[method, "snr_db", "drop", "spearman"]
        assert said[f"drop_{short}"] == drop
    assert text["both", "snr_db", "increase", "spearman"] in said["order_both"]
    assert text["both", "snr_db", "drop", "spearman"] in said["order_drop"]
    linear, inverse = (text["both", s, "drop", "pearson"] for s in ("snr", "noise"))
    assert said["fig6_scales"] == f"{linear} and {inverse}"
    columns = words.ranks_table(table)
    assert columns[""] == ["quantization", "pruning", "both"]
    for name, outcome in (
        ("rank correlation of SNR and accuracy lost", "drop"),
        ("of SNR and cross-entropy gained", "increase"),
    ):
        assert columns[name] == [text[m, "snr_db", outcome, "spearman"] for m in columns[""]]


def test_words_of_real_rows():
    table = correlations(rows(), n_draws=60)
    said = words.rank_words(table) | words.scale_words(table, "pearson")
    assert said["order_both"].startswith("SNR orders the losses")
    assert said["pearson_db"].startswith("−") and not said["pearson_noise"].startswith("−")


@pytest.mark.parametrize(
    ("gain", "start"),
    [
        (UP, "The SNR of the logits orders the losses better: the sizes of the"),
        (DOWN, "The SNR of the layer orders the losses better: the sizes of the"),
        (TIE, "Between the SNR of the layer and that of the logits it is a tie: the sizes"),
        (NONE, "Between the SNR of the layer and that of the logits it is a tie: the sizes"),
    ],
)
def test_layer_or_logits(gain, start):
    said = words.logit_words(gain)
    assert said.startswith(start) and said.endswith(f"differ by {gain}")


def test_within_and_between():
    said = words.apart_words(DOWN, {"2 bits": MILD, "4 bits": TIE, "8 bits": NONE}, {"2 bits": UP})
    assert said["between_words"] == f"{MILD} at 2 bits, {TIE} at 4 bits"
    assert said["apart_claim"] == (
        f"Within a layer SNR orders the losses strongly (rank correlation {DOWN}). Between layers "
        f"of one budget: at 2 bits, SNR orders the losses weakly (rank correlation {MILD}); at 4 "
        f"bits, SNR does not order the losses beyond chance (rank correlation {TIE}). Between the "
        "two methods on one layer at one budget: at 2 bits, SNR orders the losses strongly, but "
        f"the wrong way round (rank correlation {UP})"
    )
    nothing = words.apart_words(NONE, {"2 bits": NONE}, {})["apart_claim"]
    assert "Between layers of one budget: nothing to put into an order. Between" in nothing
    assert nothing.endswith("at one budget: nothing to put into an order")


def test_where_the_table_comes_from():
    table = rows().assign(
        commit="0123456789abc", hardware="a box", seconds=3.0, fp_accuracy=91.637, drop=-1.0
    )
    table.loc[3, "drop"] = 12.34
    said = words.table_words(table, finished=True)
    assert said["table_made"] == "The table was made at commit 0123456 on a box in 2 minutes"
    assert said["table_rows"] == "40" and said["table_layers"] == "5"
    assert said["table_images"] == "1,000" and said["table_fp"] == "91.64 %"
    assert said["table_worst"] == "12.3 points"
    plain = table.drop(columns=["commit", "hardware"])
    assert words.table_words(plain, finished=False)["table_made"].startswith("It is not at hand")
    sure = table.assign(agreement=100.0, drop=[0.0] * 15 + [1.0] * 25)
    assert words.table_words(sure, finished=True)["table_quiet"] == "15 of 40"
    nothing = table.assign(drop=-0.01)
    assert words.table_words(nothing, finished=True)["table_worst"] == "0.0 points"


@pytest.mark.parametrize(
    ("quantization", "pruning", "start", "fits"),
    [
        (UP, UP, "Whichever method is interpolated, pruning is the dearer one", False),
        (DOWN, DOWN, "Whichever method is interpolated, quantization is the dearer one", True),
        (TIE, TIE, "Either way it is a tie", False),
        (UP, TIE, "The two ways do not agree", False),
        (DOWN, UP, "The two ways do not agree", False),
        (NONE, NONE, "No layer has both methods at one SNR", False),
        (DOWN, NONE, "No layer has both methods at one SNR", False),
    ],
)
def test_whether_a_decibel_is_worth_the_same(quantization, pruning, start, fits):
    said = words.fair_words({"pruning": pruning, "quantization": quantization})
    assert said["fair"].startswith(start)
    assert said["fits"].startswith("and that is what we see" if fits else "which is not")
    if start.startswith("Whichever"):
        dearer = start.split(", ")[1].split(" is")[0]
        assert said["fair"].endswith(f"A comparison by SNR flatters {dearer} here")
        assert said["gap_prune"].startswith(f"{dearer} costs more, by 0.9 nats")


def test_the_two_gaps_are_not_exchanged():
    said = words.fair_words({"quantization": UP, "pruning": DOWN})
    assert said["gap_quant"].startswith("pruning costs more")
    assert said["gap_prune"].startswith("quantization costs more")


def test_where_both_methods_reach_one_snr():
    table = rows(bits=(2, 4, 8))  # quantization near 9, 21 and 45 dB, pruning near 4, 7 and 13
    pairs = {at: at_equal_snr(table, "increase", at) for at in METHODS}
    assert words.reach_words(table, pairs) == (
        "5 of 15 points of quantization and 5 of 15 points of pruning, none above 13 dB"
    )
    alone = rows(bits=(8,))
    pairs = {at: at_equal_snr(alone, "increase", at) for at in METHODS}
    assert words.reach_words(alone, pairs) == (
        "0 of 5 points of quantization and 0 of 5 points of pruning"
    )


def test_gaps_layer_by_layer():
    pairs = pd.DataFrame(
        {"layer": ["a", "a", "b", "c"], "difference": [0.3, -0.1, -0.2, -0.0002]}
    )  # of a, b and c the means 0.1, -0.2 and nearly 0
    assert words.layer_gap_words(pairs) == {"gap_layers": "1 of 3", "gap_median": "+0.000 nats"}
    less = pairs.assign(difference=-0.0126)
    assert words.layer_gap_words(less) == {"gap_layers": "0 of 3", "gap_median": "−0.013 nats"}
    one = at_equal_snr(rows(bits=(8,)), "increase")
    assert words.layer_gap_words(one) == {"gap_layers": "0 of 0", "gap_median": "not defined"}


def test_no_zero_has_a_sign():
    assert str(Estimate(-0.001, -0.004, 0.004, 9, 3)) == "0.00 (0.00 to 0.00)"
