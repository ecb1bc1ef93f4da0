import numpy as np
import pandas as pd
import pytest
from redrawn_cases import redrawn

from pqlib import layer_words
from pqlib.bounds.pruning import solve_pruning
from pqlib.experiments.channel_optima import Unit
from pqlib.layer_findings import stability_cases

CASES = stability_cases(redrawn())


def test_stability_cases():
    assert len(CASES) == 4
    assert CASES["draws"].eq(3).all() and CASES["n_images"].eq(4).all()
    assert CASES["winners"].tolist() == [1, 2, 1, 1] == CASES["kinds"].tolist()
    assert CASES["winner"].tolist() == ["quantization wins"] * 4
    assert CASES["lead"].to_numpy() == pytest.approx([5.5, 0.1, 7.0, 0.3])
    assert (CASES["high"] - CASES["low"]).to_numpy() == pytest.approx([1.0, 0.6, 3.0, 0.3])
    assert CASES["all_images"].eq(9).all()  # beside the photographs too
    assert CASES["all_winner"].tolist() == ["quantization wins", "pruning wins"] * 2
    alone = stability_cases(redrawn("photographs"))
    assert alone[["all_lead", "all_winner"]].isna().all(axis=None)


def test_time_in_words():
    table = pd.DataFrame({"layer": ["a", "a", "b", "c"], "seconds": [1.2, 2.2, 10.4, 5.0]})
    assert layer_words.time_words(table) == "3 to 10 s of one core a layer, 19 s for all 3"
    one = layer_words.time_words(table.query("layer == 'b'"))
    assert one == "10 s of one core a layer, 10 s for all 1"


def test_stability_in_words():
    assert layer_words.stability_words(CASES) == {
        "same": (
            "over 3 draws of 4 of the 9 images of photos, 1 of 2 cases have one winner throughout "
            "and 1 one verdict; over 3 draws of 4 crops of the photographs, 2 of 2 cases have one "
            "winner throughout and 2 one verdict"
        ),
        "spread": (
            "0.80 dB in the median and 1.00 dB at most over draws of 4 of the 9 images of photos "
            "and by 1.65 dB in the median and 3.00 dB at most over draws of 4 crops of the "
            "photographs"
        ),
        "close": (
            "where the winner changes with the draw, the median lead of either method is at most "
            "0.10 dB"
        ),
        "against": (
            "the photographs have the winner of all 9 images in 1 of 2 cases (50%) and the verdict "
            "in 1; the leads differ by 1.10 dB in the median and 1.80 dB at most"
        ),
    }
    alone = layer_words.stability_words(stability_cases(redrawn("photographs")))
    assert alone["against"] == "no folder of images was held against the photographs"
    assert alone["close"] == "the winner at the paper's terms changes with the draw in no case"
    folder = redrawn("photos")
    folder = stability_cases(folder[folder["subset"] != "all"])
    assert layer_words.draws_words(folder) == "4 images of photos"


def test_stability_where_nothing_is_lost():
    table = redrawn("photos").assign(quantize_db=np.inf, winner="both lose nothing")
    cases = stability_cases(table.assign(prune_channel_db=np.inf, verdict="both lose nothing"))
    assert cases["lead"].isna().all() and cases["winners"].eq(1).all()
    assert "0.00 dB at most" in layer_words.stability_words(cases)["spread"]
    assert layer_words.stability_table(cases)["one winner"] == [2]


def test_the_stability_table():
    columns = layer_words.stability_table(CASES)
    assert columns["images"] == ["photos", "photographs"] and columns["bits"] == [4, 4]
    assert columns["cases"] == [2, 2] and columns["one winner"] == [1, 2]
    assert columns["lead moves (dB)"] == pytest.approx([0.8, 1.65])
    assert columns["at most (dB)"] == pytest.approx([1.0, 3.0])


def unit(weights):
    weights = np.asarray(weights, float)
    gram, channels = np.eye(weights.shape[1])[None], tuple(range(len(weights)))
    return Unit("a/0", "a", "linear", 0, channels, gram, weights, {})


def test_the_example_has_most_energy():
    units = [unit([[1, 1], [3, 0]]), unit([[2, 1]])]
    problem, own, channel = layer_words.example_of(units)
    assert problem.energy == 9 and own is units[0] and channel == 1
    with pytest.raises(ValueError, match="draw others by seed"):
        layer_words.example_of([unit([[0, 0]])])


def test_methods_in_decibels():
    problem = unit([[1.0, 0.1]]).problems()[0]
    results = {m: [solve_pruning(problem, 1, m)] for m in ("magnitude", "exact")}
    snr = layer_words.snr_of(problem.energy, results)
    assert snr["exact"] == pytest.approx(10 * np.log10(1.01 / 0.01))
    table = layer_words.methods_table(snr, ["one", "two"])
    assert table["below the optimum (dB)"] == pytest.approx([0.0, 0.0])
    assert layer_words.gain_words(1.0, 1.5) == "−0.50 dB"
    assert layer_words.gain_words(1.0, 1.001) == "0.00 dB"
    assert layer_words.gain_words(np.inf, np.inf) == "no finite number of decibels"


def test_leads_in_words():
    terms = pd.DataFrame(
        {"layer": "a", "chunk": ["0", "1", "2"], "n_bits": [2, 2, 4], "lead": [1.0, -1.0, 2.0]}
    )
    assert layer_words.ahead_words(terms) == (
        "quantization on 1 of 2 at 2 bits; quantization on 1 of 1 at 4 bits"
    )
    verdicts = terms.assign(verdict="pruning wins at every scale in [0.1, 0.2]")
    said = layer_words.terms_words(terms, verdicts)
    assert said == (
        "Of the 2 cases in which quantization has the smaller error at the paper's terms, it keeps "
        "that lead at both budgets in 0. Of the 1 in which pruning has, it keeps that lead at both "
        "budgets in 1 at every common scale from 0.5 to 2 times the tensor's"
    )
    verdicts["verdict"] = "depends on the budget"
    assert "budgets in 0 at every common scale" in layer_words.terms_words(terms, verdicts)
    ahead, behind = terms[terms["lead"] > 0], terms[terms["lead"] < 0]
    said = layer_words.terms_words(ahead, verdicts.assign(verdict="quantization wins"))
    assert "at both budgets in 2. Pruning has the smaller error at the paper's terms in no" in said
    best = layer_words.terms_words(ahead, verdicts.assign(verdict="quantization wins, best scale"))
    assert "at both budgets in 0 (and in 2 more at the best scale)." in best
    assert layer_words.terms_words(behind, verdicts).startswith("Of the 1 in which pruning has")
    found = pd.DataFrame({"crosses": [True, True, False], "winner": ["pruning", "neither", ""]})
    assert layer_words.crossing_words(found) == (
        "2 of 3 rectangles cross the diagonal, and the exact optima close 1 of these"
    )
    assert "none of 1 rectangles" in layer_words.crossing_words(found[2:])
    shares = pd.DataFrame({"quantize": [4.0, 0.0], "sdp": [2.0, 0.0], "n_bits": [3, 4]})
    assert layer_words.share_words(shares, "sdp") == "0.50 at 3 bits"


@pytest.mark.parametrize(
    ("lower", "words"),
    [
        ((6.0, 1.0), "both limits are proven; for the whole fan-in pruning is proven"),
        ((1.0, 5.0), "both limits are proven; for the whole fan-in quantization is proven"),
        ((1.0, 1.0), "the bounds alone do not say"),
        ((0.0, 1.0), "no limit is proven"),
    ],
)
def test_whole_layers_in_words(lower, words):
    full = pd.DataFrame(
        {
            "method": ["quantization", "pruning"], "chunks": [4.0, 4.0], "assembled": [8.0, 2.0],
            "best": [4.0, 2.0], "lower": lower,
        }
    )  # fmt: skip
    said = layer_words.whole_words(full, 3)
    assert words in said["whole_words"]
    assert said["chunk_words"] == (
        "The 3 chunks together come out 3.01 dB worse than their sum for quantization and 3.01 dB "
        "better than their sum for pruning"
    )
    assert "single chunk" in layer_words.whole_words(full, 1)["chunk_words"]


def test_tables_of_the_chapter():
    verdicts = pd.DataFrame(
        {"layer": "blocks.1.1.conv_pw", "chunk": ["0", "sum"], "n_bits": 4,
         "verdict": "quantization wins"}
    )  # fmt: skip
    own = layer_words.table_3("timm:efficientnet_lite0", [verdicts[:0], verdicts])
    missing = [text for text in own["result"] if text.startswith("not run: `pqlib layers solve ")]
    assert len(own["result"]) == 11 and len(missing) == 10
    assert own["result"][4] == "`blocks.1.1.conv_pw`: quantization wins 1 of 1 chunks at 4 bits"
    others = layer_words.table_3("timm:other", [verdicts])["result"]
    assert others[6] == "not run: `pqlib layers solve torchvision:resnet18 --layers layer1.0.conv2`"
    scaling = pd.DataFrame(
        {"problem": "prune", "n": [9, 9], "condition": [10.0, 1e4], "median_ms": [1.0, 2.0],
         "worst_ms": [3.0, 4.0]}
    )  # fmt: skip
    assert layer_words.scaling_table(scaling) == {
        "problem": ["prune"], "inputs": [9], "10": [1.0], "10000": [2.0],
        "worst": [4.0],
    }  # fmt: skip
    rows = pd.DataFrame(
        {"method": ["prune_exact", "quantize_exact", "prune_magnitude"], "layer": "a",
         "seconds": [1.0, 2.0, 9.0]}
    )  # fmt: skip
    took = layer_words.seconds_table(rows, [unit([[1, 1], [3, 0]]), unit([[2, 1]])])
    assert took["seconds"] == [3.0] and took["channels and chunks"] == [3]
