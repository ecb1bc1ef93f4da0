"""Our edition of Table 1 as columns, on cells made up so that the answer is known."""

import pandas as pd
import pytest
from sweep_cases import PAPER_LEADS, edition_of, paper_of, sweep_of

from pqlib import edition_tables, training_findings
from pqlib.experiments.presets import MODELS
from pqlib.training_findings import SPARED


@pytest.fixture
def edition():
    return edition_of()


def test_how_the_networks_were_trained(edition):
    shown = edition_tables.trained(edition)
    assert shown == {
        "network": ["ResNet-18", "MobileNet-V2", "DeepLab-V3"],
        "pixels": ["32", "32", "96x128"],
        "epochs": [15, 15, 20],
        "images": ["45,000", "45,000", "367"],
        "uncompressed": ["92.0 % accuracy"] * 2 + ["92.0 % mIoU"],
        "epochs of each cell": [4, 4, 40],
        "its images": ["5,000", "5,000", "367"],
        "test images": ["10,000", "10,000", "233"],
    }


def test_our_edition_in_the_form_of_table_1(edition):
    shown = edition_tables.values(edition)
    assert [*shown] == ["network", "original", "method", "8 bits", "4 bits", "2 bits"]
    assert shown["method"] == [
        *("quantization", "pruning", "quantization, no training", "pruning, no training"),
        *("quantization", "pruning") * 2,
    ]
    assert shown["network"][3:6] == ["ResNet-18", "MobileNet-V2", "MobileNet-V2"]
    assert shown["2 bits"] == [89.0, 80.0, 120.0, 80.0, 93.0, 80.0, 85.0, 80.0]
    assert shown["8 bits"][2:] == [None, None, 80.2, 80.0, None, None]
    assert set(shown["original"]) == {92.0}


def test_median_leads_beside_the_papers(edition):
    assert edition_tables.leads(edition, paper_of(PAPER_LEADS)) == {  # without the ViT
        "bits": [8, 4, 2],
        "here": [pytest.approx(0.15), 0.0, 9.0],
        "in the paper, same 3 networks": [0.25, 2.0, 1.0],
        "here, no training": [None, None, 40.0],
    }
    one = sweep_of({2: (5.0,)}, model="resnet18")
    assert edition_tables.leads(one, paper_of(PAPER_LEADS))["in the paper, same network"] == [1.0]
    whole = pd.concat([sweep_of({2: (1.0,)}, model=model) for model in MODELS])
    leads = edition_tables.leads(whole, paper_of(PAPER_LEADS))
    assert leads["here, no training"] == [None] and leads["here"] == [1.0]


def test_networks_in_the_order_of_their_leads(edition):
    cells = pd.concat([edition, sweep_of({2: (1.0,)}, model="efficientdet")])
    assert edition_tables.networks(cells, paper_of(PAPER_LEADS, fp_value=50.0)) == {
        "network": ["ResNet-18", "EfficientDet", "DeepLab-V3", "MobileNet-V2"],
        "here (points)": [pytest.approx(0.1), 1.0, 2.5, 3.0],
        "in the paper (points)": [0.5, None, 0.5, 2.0],
        "here, as a share (%)": [pytest.approx(100 * v / 92) for v in (0.1, 1.0, 2.5, 3.0)],
        "in the paper, as a share (%)": [1.0, None, 1.0, 4.0],
    }


def test_what_training_adds_and_how_many_it_lowers():
    fine = [sweep_of({2: (9.0,), 8: (1.0,)}, model=m) for m in ("resnet18", "vit_small")]
    before = [
        sweep_of({2: (1.0,), 8: (2.0,)}, "post-training", "resnet18", pruning=50.0),
        sweep_of({2: (5.0,), 8: (0.96,)}, "post-training", "vit_small", pruning=60.0),
        sweep_of({4: (99.0,)}, "post-training", "vit_small"),  # nothing to compare it with
        sweep_of({2: (99.0,)}, "post-training", "resnet18", comparison=[*SPARED][1]),
    ]
    assert edition_tables.gains(pd.concat([*fine, *before])) == {
        "bits": [8, 2],
        "added to quantization": [pytest.approx(-0.48), 6.0],
        "networks that lose, quantization": ["1 of 2", "0 of 2"],
        "added to pruning": [25.0, 25.0],
        "networks that lose, pruning": ["0 of 2", "0 of 2"],
    }
    with pytest.raises(ValueError, match="no cell both fine-tuned and without training"):
        edition_tables.gains(fine[0])


def test_the_committed_table_is_whole():
    table = training_findings.read_table(training_findings.OURS, "book/results")
    gains, trained = edition_tables.gains(table), edition_tables.trained(table)
    assert gains["bits"] == [8, 7, 6, 5, 4, 3, 2]
    assert all(text.endswith("of 8") for text in gains["networks that lose, pruning"])
    assert len(trained["network"]) == 8


def remade_of(*rows):
    """Rows of `pqlib.table1_again.compare`."""
    whole = {"method": "prune", "n_bits": 4, "chosen": True, "chosen_again": True}
    whole |= {"value": 80.0, "value_again": 79.0, "difference": -1.0, "low": -2.0, "high": 0.5}
    whole |= {"fp_value": 90.0, "fp_value_again": 90.5, "same_bits": False}
    return pd.DataFrame([whole | row for row in rows])


def test_cells_made_again():
    table = remade_of(
        {"model": "vit_small"},
        {"model": "vit_small", "chosen": False},  # another rate of the same cell
        {"model": "resnet18", "method": "none", "n_bits": None},
        {"model": "resnet18", "method": "lsq", "n_bits": 5, "difference": 0.0, "same_bits": True},
    )
    assert edition_tables.remade(table) == {
        "network": ["ResNet-18", "ViT-small"],
        "cell": ["quantization, 5 bits", "pruning, 4 bits"],
        "value": [80.0] * 2,
        "again": [79.0] * 2,
        "difference (95 % interval)": ["+0.0 (−2.0 to 0.5)", "−1.0 (−2.0 to 0.5)"],
        "original": [90.0] * 2,
        "original, again": [90.5] * 2,
        "weights": ["same bits", "others"],
    }
    with pytest.raises(ValueError, match="no cell that was made again; run `pqlib run compare`"):
        edition_tables.remade(table.iloc[1:3])


def test_the_cells_made_again_are_cells_of_the_table():
    again, table = (
        training_findings.read_table(name, "book/results")
        for name in (training_findings.AGAIN, training_findings.OURS)
    )
    cells = edition_tables.remade_cells(again)
    assert len(cells) == 3
    for _, run in cells.iterrows():
        side = training_findings.METHODS_OF_RUNS[run["method"]][0]
        found = table[table[f"hash_{side}"] == run["hash"]]
        assert len(found) == 1 and found[side].iloc[0] == pytest.approx(run["value"])
        assert found[f"command_{side}"].iloc[0] == run["command"]
