"""What is said of layers, on tables made up so that the answer is known."""

import subprocess
import sys

import numpy as np
import pytest
from representation_cases import LAYERS, PAPER, made

from pqlib import representation_findings as findings
from pqlib.representation_findings import (
    by_start,
    change_words,
    changes,
    check_table,
    claim_words,
    count_words,
    difference_words,
    differences,
    final_epoch,
    last_layer,
    last_layer_words,
    plain,
    signed,
    start_ranks,
    start_words,
    trends,
    verdict_words,
)


@pytest.fixture(scope="module")
def table():
    return made(PAPER)


@pytest.fixture(scope="module")
def found(table):
    return trends(table, n_draws=500)


def test_changes_of_every_layer(table):
    moved = changes(table)
    assert len(moved) == 6 * 4 and "uncompressed" not in set(moved["method"])
    rows = moved[(moved["method"] == "lsq") & (moved["n_bits"] == 2)]
    assert rows["layer"].tolist() == [*LAYERS] and rows["place"].tolist() == [0, 1, 2, 3]
    assert rows["sqnr_db_change"].tolist() == pytest.approx([-4, -5, -6, -3])
    assert rows["cka_after"].tolist() == pytest.approx([0.16, 0.13, 0.10, 0.11])


def test_trends_of_known_tables(found):
    assert len(found) == 6 * 2
    rows = found[found["measure"] == "sqnr_db"].set_index(["method", "n_bits"])
    lsq = rows.loc[("lsq", 2)]
    assert lsq["verdict"] == "farther" and lsq["change"] == pytest.approx(-4.5)
    assert -6 <= lsq["low"] < -4.5 < lsq["high"] <= -3
    assert (lsq["n_closer"], lsq["n_layers"]) == (0, 4)
    assert lsq["last_before"] == 16 and lsq["last_after"] == 10 and lsq["last_change"] == -6
    assert rows.loc[("prune", 2), "verdict"] == "closer"
    assert rows.loc[("prune_at_once", 2), "verdict"] == "farther"
    draw = rows.loc[("lsq", 4)]
    assert draw["verdict"] == "no verdict" and draw["low"] < 0 < draw["high"]
    assert draw["n_closer"] == 2


def test_words_follow_the_table(found, table):
    assert verdict_words(found, "lsq", "cka") == "farther from it at 2 bits, no verdict at 4 bits"
    assert verdict_words(found, "prune", "sqnr_db") == "closer to the original at 2 and 4 bits"
    assert verdict_words(found, "prune_at_once", "sqnr_db").startswith("farther from it at 2 bits")
    assert (
        count_words(found, "lsq", "sqnr_db") == "0 of 4 layers at 2 bits, 2 of 4 layers at 4 bits"
    )
    assert last_layer_words(found, "prune", "sqnr_db").startswith("from 2.0 to 9.0 dB at 2 bits")
    assert change_words(found, "lsq", "sqnr_db").startswith("−4.5 dB (−")
    assert change_words(found, "prune", "cka").startswith("+0.052 (")
    moves = [findings.last_layer_moves(found, m, "cka") for m in ("lsq", "prune")]
    assert moves == ["goes farther at 2 and 4 bits", "comes closer at 2 and 4 bits"]
    assert last_layer(table) == "conv2"


def test_the_methods_themselves_layer_by_layer(table):
    found = differences(table, n_draws=500)
    rows = found[found["measure"] == "sqnr_db"].set_index("n_bits")
    assert rows.loc[2, "difference"] == pytest.approx(np.mean([-9, -11, -13, -6]))
    assert -13 <= rows.loc[2, "low"] < -9.75 < rows.loc[2, "high"] <= -6
    assert rows.loc[4, "difference"] == pytest.approx(np.mean([-5, 2, -6, 3]))
    assert rows.loc[4, "low"] < 0 < rows.loc[4, "high"]
    said = difference_words(found, "sqnr_db")
    assert said.startswith("−9.8 dB (−") and said.endswith(" at 4 bits")
    assert len(differences(made(PAPER, seeds=(0, 1)), "prune_at_once", n_draws=9)) == 4
    alone = differences(table[table["method"] == "lsq"])
    assert alone.empty and difference_words(alone, "cka") == "not run"


def test_a_layer_is_paired_with_itself():
    apart = {("lsq", 2): ((5, 5, 5, 5), (1, 3, 5, 7)), ("prune", 2): ((5, 5, 5, 5), (0, 2, 4, 6))}
    found = differences(made(apart), n_draws=200)
    assert found["difference"].tolist() == pytest.approx([1.0, 0.01])
    assert (found["high"] - found["low"]).max() < 1e-9  # although changes differ by six


def test_the_claim(found):
    assert claim_words(found) == (
        "as the paper has it by both measures at 2 bits; "
        "pruning comes closer and quantization has no verdict by both measures at 4 bits"
    )
    assert claim_words(found, "prune_at_once").startswith("both go farther by both measures at 2")
    assert claim_words(found[found["method"] == "lsq"]) == "not run at 2 and 4 bits"
    split = found.copy()
    place = (split["method"] == "lsq") & (split["measure"] == "cka") & (split["n_bits"] == 2)
    split.loc[place, "verdict"] = "closer"
    assert claim_words(split).startswith("as the paper has it by SNR, both come closer by CKA at 2")


def test_a_mirrored_table_has_the_mirrored_verdict(table):
    mirrored = made({k: (s, [-m for m in ms]) for k, (s, ms) in PAPER.items()})
    turned = {"closer": "farther", "farther": "closer", "no verdict": "no verdict"}
    one, other = (trends(t, n_draws=200)["verdict"].tolist() for t in (table, mirrored))
    assert other == [turned[v] for v in one]


def test_those_that_begin_far_come_closer(table):
    moved = changes(table)
    got = by_start(moved, "sqnr_db")
    start = np.concatenate([s for (m, _), (s, _) in PAPER.items() if m != "uncompressed"])
    move = np.concatenate([d for (m, _), (_, d) in PAPER.items() if m != "uncompressed"])
    assert got["median"] == np.median(start)
    assert got["far"] == np.mean(move[start <= got["median"]] > 0)
    assert got["near"] == np.mean(move[start > got["median"]] > 0)
    assert f"{got['far']:.0%} come closer" in start_words(moved, "sqnr_db")
    same = made({("lsq", 2): ((5,) * 4, (1,) * 4)})
    assert start_words(changes(same), "sqnr_db").endswith("100% come closer")  # no other half


def test_start_and_change_within_a_run():
    """Over the runs together those that begin far come closer; within each it is the other way."""
    moved = changes(made({
        ("lsq", 2): ((1, 2, 3, 4), (5, 6, 7, 8)), ("lsq", 4): ((11, 12, 13, 14), (1, 2, 4, 3)),
        ("prune", 2): ((1, 2, 3, 4), (8, 7, 6, 5)), ("prune", 4): ((9, 9, 9, 9), (1, 2, 3, 4)),
    }))  # fmt: skip
    assert start_ranks(moved, "sqnr_db") == (
        "quantization 1.00 at 2 bits, 0.80 at 4 bits; pruning −1.00 at 2 bits"  # equal starts: none
    )
    assert by_start(moved, "sqnr_db")["far"] == 1
    assert start_ranks(moved[moved["layer"] == "conv1"], "sqnr_db") == "not defined"


def test_several_seeds_count_all_their_layers():
    rows = trends(made(PAPER, seeds=(0, 1)), n_draws=100)
    assert (rows["n_layers"] == 8).all()


def test_when_the_zeros_are_final(table):
    assert final_epoch(table) == 2


def test_numbers_in_words():
    assert signed(-0.04, "sqnr_db") == "+0.0 dB" and signed(-1.26, "sqnr_db") == "−1.3 dB"
    assert signed(0.0123, "cka") == "+0.012" and signed(-0.0004, "cka") == "+0.000"
    assert plain(-0.04, "sqnr_db") == "0.0" and plain(-0.0004, "cka") == "0.000"
    assert plain(np.inf, "sqnr_db") == "∞" and plain(-2.0, "sqnr_db") == "−2.0"


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda t: t.drop(columns=["cka"]), "table lacks cka; make it by `pqlib run"),
        (lambda t: t.iloc[:0], "table has no row"),
        (lambda t: t.assign(method="qat"), "method 'qat' is unknown"),
        (lambda t: t[t["epoch"] != 1], r"epochs \[0, 2, 3\]; it must have 0, 1"),
        (lambda t: t[t["epoch"] == 0], r"epochs \[0\]; it must have 0, 1"),
    ],
)
def test_tables_that_cannot_be_read(table, spoil, text):
    with pytest.raises(ValueError, match=text):
        check_table(spoil(table))


def test_no_torch():
    code = "import sys, pqlib.representation_plots; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False" and findings.TABLE == "representations"
