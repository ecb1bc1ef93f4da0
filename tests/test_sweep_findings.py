"""What is said of a sweep, on cells made up so that the answer is known."""

import pandas as pd
import pytest
from scipy import stats
from sweep_cases import PAPER_LEADS, edition_of, paper_of, sweep_of

from pqlib import edition_tables, sweep_findings
from pqlib.experiments.presets import MODELS
from pqlib.training_findings import alike_cells


def test_a_sweep_in_words():
    other = {"model": "resnet18", "rate_quantization": "0.03 0.01", "n_test": 1017, "epochs": 4}
    table = pd.concat(
        [
            sweep_of({4: (0.2,), 2: (-9.0, -6.0)}),
            sweep_of({2: (20.0,), 4: (9.0,)}, when="post-training"),
            sweep_of({2: (3.0,)}, **other),
            sweep_of({2: (30.0,)}, when="post-training", model="cifar_resnet32"),
        ]
    )
    said = sweep_findings.words(table)
    assert said["sweep_after"] == (
        "for ResNet-20 pruning is ahead at 2 bits, a tie at 4 bits; "
        "for ResNet-18 quantization is ahead at 2 bits"
    )
    assert said["sweep_before"] == (  # also of the network that was not fine-tuned
        "for ResNet-20 quantization is ahead at 2 and 4 bits; "
        "for ResNet-32 quantization is ahead at 2 bits"
    )
    assert said["sweep_fp"] == "92.0 % accuracy (ResNet-20) and 92.0 % accuracy (ResNet-18)"
    assert said["sweep_rates"] == (
        "quantization 0.03 or 0.01 at 2 bits, 0.01 at 4 bits; pruning 0.03 at 2 and 4 bits"
    )
    assert (said["sweep_tried"], said["sweep_smallest"]) == ("3", "neither method")
    assert said["sweep_largest"] == "quantization (ResNet-18 at 2 bits)"
    assert said["sweep_spread"] == "3.0 points, the largest lead being −7.5"
    assert said["sweep_closes"] == "from 20.0 to −7.5 points (ResNet-20 at 2 bits)"
    assert (said["sweep_seeds"], said["sweep_epochs"]) == ("1 to 2 seeds", "4 to 20")
    assert (said["sweep_tested"], said["sweep_trained"]) == ("509 to 1,017", "5,085")

    assert len(sweep_findings.fine_tuned(table)) == 3
    shown = sweep_findings.columns(table)
    assert shown["network"] == ["ResNet-20", "ResNet-20", "ResNet-18"]
    assert shown["bits"] == [2, 4, 2] and shown["ahead"] == ["pruning", "tie", "quantization"]
    assert shown["lead (95 % interval)"][0] == "−7.5 (−8.0 to −7.0)"


def test_a_sweep_with_one_seed_and_nothing_without_training():
    said = sweep_findings.words(sweep_of({2: (1.0,)}))
    assert said["sweep_seeds"] == "one seed"
    assert (said["sweep_before"], said["sweep_closes"]) == ("not run", "unmeasured")


def test_a_network_that_is_not_fine_tuned_is_named():
    table = pd.concat([
        sweep_of({2: (1.0,)}), sweep_of({2: (1.0,)}, "post-training", "cifar_resnet32")
    ])  # fmt: skip
    assert sweep_findings.words(table)["sweep_missing"] == "Not fine-tuned yet: ResNet-32."
    assert sweep_findings.words(sweep_of({2: (1.0,)}))["sweep_missing"] == ""


def test_a_sweep_without_training_is_refused():
    spared = sweep_of({2: (1.0,)}, comparison="fair, two layers spared in both")
    for table in (sweep_of({2: (1.0,)}, when="post-training"), spared):
        with pytest.raises(ValueError, match="no fine-tuned cell with all layers treated alike"):
            sweep_findings.words(table)


def test_a_network_of_which_only_cells_with_layers_spared_were_run_is_left_out():
    spared = sweep_of({2: (1.0,)}, model="resnet18", comparison="the authors' default")
    table = pd.concat([sweep_of({2: (1.0,)}), spared])
    said = sweep_findings.words(table)
    assert said["sweep_after"] == "for ResNet-20 quantization is ahead at 2 bits"


def test_two_settings_of_one_cell_are_refused():
    table = pd.concat([sweep_of({2: (1.0,), 4: (1.0,)}), sweep_of({4: (2.0,)}, epochs=4)])
    with pytest.raises(ValueError, match="fine-tuned ResNet-20 at 4 bits several times"):
        edition_tables.values(table)


@pytest.fixture
def edition():
    return edition_of()


def test_our_edition_of_table_1_in_words(edition):
    said = sweep_findings.edition_words(edition, paper_of(PAPER_LEADS))
    assert said["edition_networks"] == "3 of the 8 networks"
    assert said["edition_missing"] == (
        "Still to be run: ResNet-50, MobileNet-V3-small, EfficientNet-Lite0, ViT-small and "
        "EfficientDet."
    )
    assert said["edition_fp"] == (
        "ResNet-18 92.0 % accuracy, MobileNet-V2 92.0 % accuracy and DeepLab-V3 92.0 % mIoU"
    )
    assert said["edition_counts"] == (
        "quantization is ahead in 4 of 8 cells, pruning in 1, 3 are ties"
    )
    assert said["edition_exceptions"].startswith("pruning is ahead for ResNet-18 at 4 bits;")
    assert said["edition_by_bits"] == (
        "+9.0 points at 2 bits, +0.0 points at 4 bits, +0.2 points at 8 bits"
    )
    assert said["edition_beside"] == (
        "in 3 of 8 cells the same method is ahead as in the paper, in 3 our test images cannot "
        "tell, in 2 the paper has the other method ahead (ResNet-18 at 4 bits and DeepLab-V3 at 2 "
        "bits)"
    )
    ours, theirs = (9, -2, 0.1, 13, 3, 0.2, 5, 0), (1, 0.5, 0, 30, 2, 0.5, -3, 4)
    rank = f"{stats.spearmanr(ours, theirs).statistic:.2f}"
    assert said["edition_sizes"] == (
        "quantization leads by more than in the paper in 4 of 8 cells, most for ResNet-18 at 2 "
        "bits, 9.0 points against 1.0; by less in 4, most for MobileNet-V2 at 2 bits, 13.0 points "
        f"against 30.0; cell by cell the rank correlation of both leads is {rank}, and {rank} of "
        "leads as shares of what a network has uncompressed"
    )
    assert said["edition_before"] == (
        "quantization is ahead in 1 of 1 cells (not run for MobileNet-V2 and DeepLab-V3)"
    )
    assert said["edition_seeds"] == "one seed"
    assert said["edition_over"] == "1 of 8 cells of quantization and 0 of pruning"


def test_a_tie_in_the_paper_is_not_the_other_method(edition):
    leads = PAPER_LEADS | {("resnet18", 2): 0.0}
    said = sweep_findings.edition_words(edition, paper_of(leads))["edition_beside"]
    assert said.startswith("in 2 of 8 cells the same") and "in 1 the paper prints the same" in said
    assert said.endswith("in 2 the paper has the other method ahead (ResNet-18 at 4 bits and "
                         "DeepLab-V3 at 2 bits)")  # fmt: skip


def test_sizes_of_leads_that_differ_one_way_or_not(edition):
    def sizes(leads):
        return sweep_findings.edition_words(edition, paper_of(leads))["edition_sizes"]

    less = sizes({("resnet18", 2): 9.5, ("resnet18", 4): -2.0})
    assert less == (
        "quantization leads by more than in the paper in 0 of 2 cells; by less in 1, most for "
        "ResNet-18 at 2 bits, 9.0 points against 9.5"
    )
    assert sizes({("resnet18", 2): 9.0}).endswith("in 0 of 1 cells")
    assert sizes({("vit_small", 2): 9.0}) == "no cell of the paper's"


def test_a_whole_edition_misses_no_network(edition):
    whole = pd.concat([sweep_of({2: (1.0,)}, model=m, fp_epochs=1, fp_n_train=9) for m in MODELS])
    said = sweep_findings.edition_words(whole, paper_of(PAPER_LEADS))
    assert (said["edition_networks"], said["edition_missing"]) == ("all 8 networks", "")
    assert said["edition_before"] == "not run"


def test_cells_with_all_layers_alike_of_both_tables(tmp_path):
    folder = str(tmp_path)
    assert alike_cells("") is None and alike_cells(folder) is None
    small = sweep_of({2: (9.0,), 4: (3.0,)}, model="resnet18")
    spared = small.assign(comparison="the authors' default")
    pd.concat([small, spared]).to_csv(tmp_path / "table1_small_data.csv", index=False)
    assert alike_cells(folder)["model"].tolist() == ["resnet18"] * 2
    sweep_of({2: (9.0,)}).to_csv(tmp_path / "cifar_resnets.csv", index=False)
    assert alike_cells(folder)["model"].tolist() == ["resnet18"] * 2 + ["cifar_resnet20"]
    assert (alike_cells(folder)["comparison"] == "fair, all layers alike").all()
