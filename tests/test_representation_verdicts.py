"""What may be concluded from layers and epochs, and what not, on made-up tables."""

import pandas as pd
from representation_cases import made

from pqlib import representation_rates, representation_words
from pqlib import representation_verdicts as verdicts

CONTROL = {("uncompressed", None): ((30,) * 4, (-10,) * 4)}
ENDS = {("lsq", 2): ((3,) * 4, (3,) * 4), ("prune", 2): ((2.4,) * 4, (1,) * 4)}


def test_what_is_said_of_every_network():
    table = made(CONTROL | ENDS)
    run = {"model": table["model"].iloc[0], "method": "lsq", "n_bits": 2}
    runs = pd.DataFrame([run | {"learning_rate": 0.02, "n_train": 70}])
    said = verdicts.network_words(table, runs, None, seed=3)
    beside = representation_words.beside_words(table, seed=3)
    assert beside and {name: said[name] for name in beside} == beside
    assert (said["shown_rate"], said["shown_images"]) == ("0.02", "70")
    assert said["rate_words"] == representation_rates.rate_words(table, runs, None)
    assert said["repaired"] == verdicts.repaired_words(table)
    assert said["starts_ends"] == "quantization from 3.0 to 6.0 dB, pruning from 2.4 to 3.4 dB"
    assert said["shown_fp"] == "90.0 %"


def test_the_control_speaks_only_if_it_was_run():
    said = verdicts.control_sentences(made(CONTROL | ENDS))
    assert said.startswith("Hold the figure against the control")
    assert "ends at 20.0 dB and a CKA of 0.200" in said and "moves even an intact network" in said
    without = verdicts.control_sentences(made(ENDS))
    assert "was not run here" in without and "moves even an intact network" not in without


def test_methods_are_compared_only_if_they_begin_alike():
    ends = "quantization from 3.0 to 6.0 dB, pruning from 2.4 to 3.4 dB"
    said = verdicts.starts_compared(made(ENDS | {("lsq", 4): ((9,) * 4, (1,) * 4)}))
    assert said["starts_compared"].startswith("Compare methods that begin alike. At 2 bits")
    assert (
        f"within 0.6 dB, on average over layers, and they go: {ends}. The SNR"
        in (said["starts_compared"])
    )
    assert "by CKA they lie at 0.030 (quantization) and 0.024 (pruning)" in said["starts_compared"]
    assert said["starts_lesson"] == f"But see where starts of one mean SNR end: {ends}"

    apart = ENDS | {("prune", 2): ((1.5,) * 4, (1,) * 4)}
    ends = "quantization from 3.0 to 6.0 dB, pruning from 1.5 to 2.5 dB"
    said = verdicts.starts_compared(made(apart))
    assert "alike would tell. At 2 bits the starts lie 1.5 dB apart" in said["starts_compared"]
    assert ends in said["starts_compared"] and "by CKA" not in said["starts_compared"]
    assert said["starts_lesson"].endswith(f"the starts lie 1.5 dB apart: {ends}")

    alone = verdicts.starts_compared(made({("lsq", 2): ENDS["lsq", 2]}))
    assert "The table has a single method" in alone["starts_compared"]
    assert "one mean SNR" not in alone["starts_lesson"]


def test_whether_the_old_network_was_repaired():
    text = (
        "by SNR and accuracy, fine-tuning at 2 bits ends under quantization at 6.0 dB with 53.0 % "
        "and pruning at 3.4 dB with 53.0 %"
    )
    table = made(ENDS | CONTROL | {("lsq", 4): ((30,) * 4, (9,) * 4)})
    assert verdicts.repaired_words(table) == (
        f"{text}, where training alone leaves the original at 20.0 dB with 53.0 %: the numbers "
        "inside are others. By CKA, which asks which images are alike, they end at 0.060 and "
        "0.034, training alone at 0.200"
    )
    pruned = table["method"] == "prune"
    other = table.assign(accuracy=table["accuracy"].where(~pruned, 12.34))
    assert "6.0 dB with 53.0 % and pruning at 3.4 dB with 12.3 %, where" in (
        verdicts.repaired_words(other)
    )
    assert verdicts.repaired_words(made(ENDS)) == (
        f"{text}; how far training alone would go was not run"
    )
    near = ENDS | {("uncompressed", None): ((9,) * 4, (-1,) * 4)}  # 2 and 4.6 dB above them
    assert "8.0 dB with 53.0 %: the numbers inside are others under pruning alone. By CKA" in (
        verdicts.repaired_words(made(near))
    )
    nearer = ENDS | {("uncompressed", None): ((7,) * 4, (-1,) * 4)}
    assert ": the numbers inside are about as near. By" in verdicts.repaired_words(made(nearer))
    assert verdicts.repaired_words(made(CONTROL | {("prune_at_once", 2): ENDS["prune", 2]})) == (
        "neither quantization nor pruning by the schedule was run"
    )
