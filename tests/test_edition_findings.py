"""What our edition of Table 1 says, on cells made up so that the answer is known."""

import pandas as pd
import pytest
from sweep_cases import paper_of, sweep_of

from pqlib import edition_findings, training_findings
from pqlib.simple_models import TABLE
from pqlib.training_findings import SPARED

FLOOR = pd.DataFrame(
    [{"models": "resnet18 mobilenet_v2", "value": 27.0}, {"models": "vit_small", "value": 90.0}]
)


def test_who_is_ahead_in_one_clause():
    cells = sweep_of({2: (9.0,), 4: (3.0,)}, model="resnet18")
    assert edition_findings.ahead(cells) == "quantization is ahead in all 2 cells"
    cells = sweep_of({2: (9.0,), 4: (-3.0,)}, model="resnet18")
    assert edition_findings.ahead(cells) == (
        "quantization is ahead in 1 of 2 cells, pruning in 1 (pruning is ahead for ResNet-18 at 4 "
        "bits)"
    )
    cells = sweep_of({2: (-9.0,)}, model="resnet18")
    assert edition_findings.ahead(cells).startswith("quantization is ahead in 0 of 1 cells")


def test_the_range_of_leads():
    cells = pd.concat([
        sweep_of({2: (9.0,), 4: (3.0,)}, model="resnet18"),
        sweep_of({8: (-0.84,), 2: (29.0,)}, model="vit_small"),
    ])  # fmt: skip
    assert edition_findings.lead_range(cells) == (
        "from −0.8 points (ViT-small at 8 bits) to +29.0 points (ViT-small at 2 bits)"
    )


def test_the_order_of_the_networks_beside_the_papers():
    cells = pd.concat([
        sweep_of({2: (9.0,), 4: (3.0,), 8: (1.0,)}, model="resnet18"),
        sweep_of({2: (1.0,)}, model="vit_small"),
        sweep_of({2: (5.0,)}, model="efficientdet"),
    ])  # fmt: skip
    paper = {("resnet18", 2): 1.0, ("vit_small", 2): 0.5, ("efficientdet", 2): 7.0}
    paper |= {("resnet50", 2): 0.0}  # not among ours
    assert edition_findings.order_words(cells) == (
        "ViT-small (+1.0 points), ResNet-18 (+3.0 points) and EfficientDet (+5.0 points)"
    )
    assert edition_findings.ranks_words(cells, paper_of(paper)) == (
        "the rank correlation with the paper's medians is 1.00, and of all orders of 3 networks "
        "17 % would be as like the paper's, or more; of leads as shares of what a network has "
        "uncompressed it is 1.00"
    )
    small = cells.assign(fp_value=cells["model"].map({"efficientdet": 99.0}).fillna(9.0))
    said = edition_findings.ranks_words(small, paper_of(paper))
    assert "medians is 1.00" in said and said.endswith("uncompressed it is −0.50")
    paper |= {("vit_small", 2): 9.0}
    assert "is −0.50, and of all orders of 3 networks 83 %" in (
        edition_findings.ranks_words(cells, paper_of(paper))
    )
    one = cells[cells["model"] == "resnet18"]
    assert edition_findings.order_words(one) == "ResNet-18 (+3.0 points)"
    assert edition_findings.ranks_words(one, paper_of(paper)) == "a single network has no order"


def test_agreement_that_could_not_have_failed_is_told():
    cells = sweep_of({2: (9.0,), 4: (3.0,)}, model="resnet18")
    paper = {("resnet18", 2): 1.0, ("resnet18", 4): 1.0}
    others = {("resnet50", 2): -1.0, ("resnet50", 4): 2.0, ("resnet50", 8): 0.0}
    said = edition_findings.untested(cells, paper_of(paper | others))
    assert said.startswith(
        "But the 2 cells in which the paper does not have quantization ahead, ResNet-50's, are not"
    )
    single = edition_findings.untested(cells, paper_of(paper | {("vit_small", 2): -1.0}))
    assert single.startswith("But the one cell in which") and "ViT-small's, is not" in single
    assert edition_findings.untested(cells, paper_of(paper)) == ""  # no exception
    whole = pd.concat([cells, sweep_of({2: (9.0,), 4: (9.0,)}, model="resnet50")])
    assert edition_findings.untested(whole, paper_of(paper | others)) == ""  # one of them is run
    part = pd.concat([cells, sweep_of({4: (9.0,)}, model="resnet50")])
    assert edition_findings.untested(part, paper_of(paper | others)) == said


def test_untrained_cells_below_a_model_without_a_network():
    fine = sweep_of({2: (9.0,)}, model="resnet18")
    low = sweep_of({2: (-2.0,), 3: (0.0,)}, "post-training", "resnet18", pruning=20.0)
    low["quantization"] = [18.0, 40.0]
    table = pd.concat([fine, low])
    assert edition_findings.below_floor(table, FLOOR).startswith(
        "Of the 2 in which it is not, 1 (ResNet-18 at 2 bits) says little: both methods have less"
    )
    table = pd.concat([fine, low.iloc[:1]])
    said = edition_findings.below_floor(table, FLOOR)
    assert said.startswith("The one in which it is not, ResNet-18 at 2 bits, says little")
    assert edition_findings.below_floor(fine, FLOOR) == ""
    ahead = sweep_of({2: (5.0,)}, "post-training", "resnet18", pruning=10.0, quantization=15.0)
    assert edition_findings.below_floor(pd.concat([fine, ahead]), FLOOR) == ""
    unknown = [frame.assign(model="efficientdet") for frame in (fine, low)]  # has no floor
    assert edition_findings.below_floor(pd.concat(unknown), FLOOR) == ""
    same = low.assign(quantization=10.0)
    assert edition_findings.below_floor(pd.concat([fine, same]), FLOOR).startswith(
        "The 2 in which it is not, ResNet-18 at 2 and 3 bits, say little"
    )


def test_what_training_adds_and_takes():
    fine = [sweep_of({2: (9.0,), 8: (1.0,)}, model=m) for m in ("resnet18", "vit_small")]
    before = [
        sweep_of({2: (1.0,), 8: (2.0,)}, "post-training", "resnet18", pruning=50.0),
        sweep_of({2: (5.0,), 8: (0.96,)}, "post-training", "vit_small", pruning=60.0),
        sweep_of({4: (99.0,)}, "post-training", "vit_small"),  # nothing to compare it with
        sweep_of({2: (99.0,)}, "post-training", "resnet18", comparison=[*SPARED][1]),
    ]
    assert edition_findings.gain_words(pd.concat([*fine, *before])) == {
        "edition_lowered": "quantization in 1 of 4 cells and pruning in 0 of 4 cells",
        "edition_smallest": "0 of 1",
    }
    slow = pd.concat([*fine, *before]).assign(rate_quantization="0.01 0.0033")
    assert edition_findings.gain_words(slow)["edition_smallest"] == "all 1"
    assert set(edition_findings.gain_words(fine[0]).values()) == {"not run"}


def test_a_network_without_training():
    table = sweep_of({8: (2.0,)}, "post-training", "resnet18", metric="mIoU")
    assert edition_findings.untrained_words(table, "resnet18", 8) == (
        "at 8 bits quantization has 82.0 % mIoU and pruning 80.0 %, the original 92.0 %"
    )
    assert edition_findings.untrained_words(table, "resnet18", 4) == "not run"
    assert edition_findings.untrained_words(table.assign(when="fine-tuned"), "resnet18", 8) == (
        "not run"
    )


def test_all_of_it_of_the_committed_tables():
    tables = [
        training_findings.read_table(name, "book/results")
        for name in (training_findings.OURS, training_findings.PAPER, TABLE)
    ]
    assert all(table is not None for table in tables)
    ours, paper, floor = tables
    said = edition_findings.words(ours, training_findings.cells(paper), floor)
    assert not {"nan", "None"} & set(" ".join(said.values()).replace(";", " ").split())
    fine = (ours["when"] == "fine-tuned") & (ours["comparison"] == training_findings.ALIKE)
    leads = ours.loc[fine, "lead"]
    low, high = (f"{lead:+.1f} points".replace("-", "−") for lead in (leads.min(), leads.max()))
    assert said["edition_range"].startswith(f"from {low} (")
    assert f" to {high} (" in said["edition_range"]
    has_exceptions = "resnet50" in set(ours.loc[fine, "model"])
    assert bool(said["edition_untested"]) != has_exceptions
    assert edition_findings.words(ours, training_findings.cells(paper))["edition_below"] == ""


@pytest.mark.parametrize("leads", [{2: (9.0,)}, {2: (-9.0,), 3: (0.0,)}])
def test_all_of_it_of_few_cells(leads):
    said = edition_findings.words(sweep_of(leads, model="resnet18"), paper_of({("x", 2): 1.0}))
    assert said["edition_untested"] == said["edition_below"] == ""
    assert said["edition_lowered"] == "not run"
    assert said["rates_at"] == "2 bits" if len(leads) == 1 else "2 and 3 bits"


def test_what_came_of_cells_made_again():
    cell = {"method": "prune", "n_bits": 4, "chosen": True}
    table = pd.DataFrame([
        cell | {"model": "vit_small", "chosen_again": False, "difference": -0.34,
                "same_bits": False, "hardware": "a", "hardware_again": "b"},
        cell | {"model": "resnet18", "chosen_again": True, "difference": 0.0,
                "same_bits": True, "hardware": "a", "hardware_again": "a"},
        cell | {"model": "resnet18", "chosen": False, "chosen_again": False, "difference": 9.0,
                "same_bits": False, "hardware": "a", "hardware_again": "b"},
    ])  # fmt: skip
    assert edition_findings.again_words(table) == {
        "again_bits": "1 of 2",
        "again_rate": "1 of 2",
        "again_most": "0.3 points",
        "again_machines": "1 of 2",
    }
