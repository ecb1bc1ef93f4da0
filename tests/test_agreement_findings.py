"""Words and winners about answers kept, on tables made up for them."""

import pandas as pd
import pytest
from figure_checks import assert_readable

from pqlib import training_plots
from pqlib.agreement_findings import (
    ahead_words,
    compared,
    facts,
    least_bits,
    prepared,
    read_table,
    words,
)


def table_of(quantization, pruning, half_width=3.0):
    rows = []
    for method, shares in (("quantize", quantization), ("prune", pruning)):
        for n_bits, share in shares.items():
            ends = {"agreement_low": share - half_width, "agreement_high": share + half_width}
            rows.append({"method": method, "n_bits": n_bits, "agreement": share, **ends})
    return prepared(pd.DataFrame(rows))


def test_winners_are_those_whose_intervals_are_apart():
    found = compared(table_of({2: 1.0, 4: 50.0, 8: 99.0}, {2: 5.0, 4: 70.0, 8: 20.0}))
    assert found["n_bits"].tolist() == [2, 4, 8]
    assert found["winner"].tolist() == ["neither", "pruning", "quantization"]
    assert found["quantization"].tolist() == [1.0, 50.0, 99.0]
    same = {2: 1.0, 3: 2.0}
    table = table_of({**same, 4: 50.0, 8: 99.0}, {**same, 4: 70.0, 8: 20.0})
    told = "a tie at 2 and 3 bits, pruning ahead at 4 bits, quantization ahead at 8 bits"
    assert ahead_words(table) == told


def test_a_budget_counts_only_if_all_larger_ones_do():
    table = table_of({2: 95.0, 4: 60.0, 6: 91.0, 8: 99.0}, {2: 0.0, 4: 0.0, 6: 1.0, 8: 2.0})
    assert least_bits(table, "quantization", 90) == 6
    assert least_bits(table, "quantization", 50) == 2
    assert least_bits(table, "pruning", 90) is None
    assert words(table) == (
        "quantization keeps 90 % of the answers from 6 bits on, pruning at no budget "
        "(at most 2.0 %, at 8 bits)"
    )


def test_words_hold_where_pruning_is_ahead():
    table = table_of({4: 10.0, 8: 30.0}, {4: 92.0, 8: 99.0})
    assert words(table) == (
        "quantization keeps 90 % of the answers at no budget (at most 30.0 %, at 8 bits), pruning "
        "from 4 bits on"
    )


def test_the_committed_table_is_whole():
    table = read_table("book/results")
    assert table is not None
    for (_, images), rows in table.groupby(["model", "images"]):
        assert sorted(rows["n_bits"].unique()) == [*range(2, 9)] and len(rows) == 14, images
        assert (rows["agreement_low"] <= rows["agreement"]).all()
        assert (rows["agreement"] <= rows["agreement_high"]).all()
        assert (rows["snr_low"] <= rows["logit_snr_db"]).all()
        assert (rows["logit_snr_db"] <= rows["snr_high"]).all()
        assert rows["bits_per_weight"].to_numpy() == pytest.approx(rows["n_bits"], abs=0.01)
        assert rows["command"].str.startswith("pqlib run agreement").all()
    assert not table["command"].str.contains("/home|/work|/tmp").any()


def test_no_folder_has_no_table(tmp_path):
    assert read_table("") is None and read_table(str(tmp_path)) is None


def test_the_figure_is_readable_and_says_what_it_shows():
    table = table_of({2: 0.0, 4: 60.0, 8: 99.0}, {2: 0.0, 4: 0.0, 8: 2.0})
    table = table.assign(n_images=125, logit_snr_db=table["agreement"] / 10)
    found = training_plots.answers_kept(table, "A network", "fig-answers")
    assert_readable(found)
    assert words(table) in found.alt and words(table) in found.caption
    assert "125 images" in found.caption
    drawn = [line.get_ydata().tolist() for line in found.figure.axes[0].get_lines()]
    assert [0.0, 60.0, 99.0] in drawn and [0.0, 0.0, 2.0] in drawn


def test_facts_are_of_the_largest_budget():
    table = table_of({2: 0.0, 8: 99.0}, {2: 1.0, 8: 2.0})
    table = table.assign(n_images=125, logit_snr_db=table["agreement"] - 50)
    found = facts(table)
    assert found["images"] == "125" and found["bits"] == "8"
    assert found["top"] == "99.0 % of the answers against 2.0 %"
    assert found["snr"] == "49.0 dB and −48.0 dB"
    assert found["words"] == words(table) and found["ahead"] == ahead_words(table)
