"""What the chapter on model-zoo tensors says, on tables made up so that the answer is known."""

import numpy as np
import pandas as pd
import pytest

from pqlib import zoo_words as words
from pqlib.zoo_predictors import Association

NAN = float("nan")
BITS = (2, 4)


def scanned():
    """Five tensors of two networks at two bit-widths; one is shared, one was not measured."""
    rows = [
        ("a", "one", "conv2d", 1000, 2, "quantization", "", "", 0.10),
        ("a", "two", "conv2d", 200, 2, "quantization", "", "", 0.20),
        ("a", "three", "linear", 34, 2, "pruning", "", "", 0.30),
        ("b", "one", "linear", 5, 2, "quantization", "", "", 0.40),
        ("b", "two", "linear", 1000, 2, "quantization", "a one", "", 0.10),
        ("b", "three", "linear", 9, 2, "", "", "constant", 0.0),
    ]
    columns = ["model", "layer", "kind", "n_weights", "n_bits", "winner", "shared_with", "skipped",
               "natural_sparsity"]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    table = table.assign(kurtosis=[2.0, 3.0, 9.0, 4.0, 2.0, NAN])
    later = table.assign(n_bits=4, shared_with="", natural_sparsity=table["natural_sparsity"] / 10)
    return pd.concat([table, later.assign(winner="quantization")], ignore_index=True)


def test_networks():
    assert words.networks_table(scanned().query("n_bits == 2 and skipped == ''")) == {
        "network": ["a", "b"],
        "tensors": ["3", "2"],
        "weights": ["1,234", "1,005"],
        "kinds": ["2 conv2d, 1 linear", "2 linear"],
    }


@pytest.mark.parametrize(
    ("absent", "finished", "n_bits", "text"),
    [
        ((), True, 4, "This is the finished scan of 2 networks."),
        (("c",), True, 4, "This is the finished scan of 2 networks."),
        ((), False, 4, "All networks that were asked for were measured."),
        (
            ("c", "d"),
            False,
            4,
            "Not measured, for the reason shown when the code is unfolded: c, d.",
        ),
        (
            (),
            False,
            2,
            "All networks that were asked for were measured. 1 tensors are the same as an earlier "
            "one and are counted once.",
        ),
    ],
)
def test_where_rows_come_from(absent, finished, n_bits, text):
    assert words.source_words(scanned(), n_bits, absent, finished=finished) == text


def test_absent_networks_may_be_a_column():
    column = pd.Series(["c"], index=[7])
    assert words.source_words(scanned(), 4, column, finished=False).endswith("unfolded: c.")


@pytest.mark.parametrize(
    ("intervals", "text"),
    [
        ({2: (0.1, 0.05, 0.2)}, "orders the tensors better at 2 bits"),
        ({2: (-0.1, -0.2, -0.05)}, "orders them worse at 2 bits"),
        ({2: (0.1, -0.05, 0.2)}, "cannot be told apart from kurtosis at 2 bits"),
        ({2: (NAN, NAN, NAN)}, "cannot be told apart from kurtosis at 2 bits"),
        (
            {2: (-0.1, -0.2, -0.05), 3: (0.0, -0.1, 0.1), 4: (0.1, 0.05, 0.2), 5: (0.1, 0.05, 0.2)},
            "orders the tensors better at 4 and 5 bits and orders them worse at 2 bits and cannot "
            "be told apart from kurtosis at 3 bits",
        ),
    ],
)
def test_which_prediction_orders_better(intervals, text):
    assert words.gain_words({b: {"spearman": v} for b, v in intervals.items()}) == text


def found(rank=0.5, error=1.0):
    return Association(9, 3, (0.9, 0.8, 1.0), (rank, -1.0, 1.0), 0.7, error)


def test_errors_stand_with_their_prediction():
    assert words.error_words(found(error=2.5), found(error=0.25), 3) == (
        "its median error at 3 bits is 0.25 dB, against 2.50 dB through kurtosis"
    )


@pytest.mark.parametrize(
    ("rank", "text"),
    [
        (0.876, "a rank correlation of 0.88"),
        (-0.876, "a rank correlation of −0.88"),
        (-0.001, "a rank correlation of 0.00"),
        (NAN, "no rank correlation, too few tensors having been measured"),
    ],
)
def test_the_rank_correlation(rank, text):
    assert words.rank_words(found(rank=rank)) == text


def test_how_many_weights_were_seen():
    enough = pd.DataFrame({"n_seen": [1000, 1000]})
    assert words.seen_words(enough, 1000) == "1,000 weights"
    assert words.seen_words(enough.assign(n_seen=[1000, 40]), 1000) == (
        "1,000 weights, or half of a tensor that has fewer than twice as many (at least 40)"
    )


def test_ours_beside_theirs():
    names = ("excess_kurtosis", "quant_sqnr_db", "prune_sqnr_db", "natural_sparsity")
    ours = {f"{n}_ours": [10.0 + i, 20.0] for i, n in enumerate(names)}
    theirs = {f"{n}_theirs": [10.0, 21.0] for n in names}
    assert words.beside_table(pd.DataFrame(ours | theirs)) == {
        "ours minus theirs": [
            "excess kurtosis", "quantization (dB)", "pruning (dB)", "natural sparsity",
        ],
        "least": [-1.0] * 4,
        "largest": [0.0, 1.0, 2.0, 3.0],
    }  # fmt: skip


def test_results_by_bits():
    rows = scanned().query("skipped == '' and layer != 'two'")
    said = words.result_words(rows, [2, 4], "x")
    assert said["x_left"] == "66.7% at 2 bits, 100.0% at 4 bits"
    assert said["x_zeros"] == "27% at 2 bits, 3% at 4 bits"
    assert said["x_right"] == (
        "none (quantization wins only 2 of 3 tensors) at 2 bits; none (quantization wins "
        "only 3 of 3 tensors) at 4 bits"
    )
    assert words.result_words(rows, [4], "x")["x_right"].endswith("tensors) at 4 bits")


def test_a_crossing_by_bits():
    rng = np.random.default_rng(0)
    x = np.r_[rng.normal(0.7, 0.2, 300), rng.normal(1.2, 0.2, 300)]
    rows = pd.DataFrame(
        {"n_bits": 2, "kurtosis": 10**x, "natural_sparsity": 0.5,
         "winner": np.where(np.arange(600) < 300, "quantization", "pruning")}
    )  # fmt: skip
    said = words.result_words(rows, [2], "zoo_own")
    assert said["zoo_own_left"] == "50.0% at 2 bits" and said["zoo_own_zeros"] == "50% at 2 bits"
    crossing, _, rest = said["zoo_own_right"].partition(" ")
    assert rest == "at 2 bits" and 8.0 < float(crossing) < 10.0


def test_released_rows_count_as_they_are_and_cross_where_they_are_sound():
    rows = scanned().query("skipped == ''").assign(kurtosis_reliable=True, prune_sqnr_db=9.0)
    rows["prune_sqnr_db"] = np.where(rows["winner"] == "pruning", np.inf, 9.0)
    found = words.released_words(rows, BITS)
    plain = words.result_words(rows, BITS, "zoo_authors")
    assert (
        found["zoo_authors_left"]
        == plain["zoo_authors_left"]
        == "80.0% at 2 bits, 100.0% at 4 bits"
    )
    assert found["zoo_authors_zeros"] == plain["zoo_authors_zeros"]
    sound = rows[rows["winner"] != "pruning"]
    assert found["zoo_authors_right"] == words.result_words(sound, BITS, "x")["x_right"]
    assert found["zoo_authors_right"] != plain["zoo_authors_right"]
    unsure = rows.assign(kurtosis_reliable=rows["winner"] != "pruning", prune_sqnr_db=9.0)
    assert words.released_words(unsure, BITS) == found


def test_released_rows_that_are_not_at_hand():
    absent = words.released_words(None, BITS)
    assert [*absent] == [f"zoo_authors_{what}" for what in ("left", "right", "zeros")]
    assert all("authors_rows` fetches them" in text for text in absent.values())
