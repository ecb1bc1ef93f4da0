"""What several networks say to the claims of the chapter on layer SNR, on rows made up."""

import math

import numpy as np
import pandas as pd
import pytest
from snr_cases import rows

from pqlib import snr_networks as networks
from pqlib.snr_findings import METHODS
from pqlib.snr_statistics import Estimate, correlation

DOWN, TIE, UP = (
    Estimate(-0.9, -1, -0.8, 9, 3),
    Estimate(-0.2, -1, 1, 9, 3),
    Estimate(0.9, 0.8, 1, 9, 3),
)
MILD = Estimate(-0.3, -0.5, -0.1, 9, 3)
SHARED = "at SNRs of both, "
LESS = "We see less: SNR and the accuracy lost go together"
NONE = Estimate(math.nan, math.nan, math.nan, 0, 0)


def test_what_no_network_can_tell_is_not_alike():
    said = networks.claims_words({"a": {"x": TIE, "y": DOWN}, "b": {"x": TIE, "y": TIE}})
    assert said == {"alike": "0 of 2", "untold": "1", "unlike": "y"}


def test_claims_of_several_networks_stand_side_by_side():
    tables = {"one": whole(dearer=3.0), "other": whole(dearer=0.2)}
    claims = {n: networks.claims(t, n_draws=100, seed=0) for n, t in tables.items()}
    quantization = tables["one"].query("method == 'quantization'")
    rank = correlation(quantization, "snr_db", "increase", "spearman", n_draws=100, seed=0)
    assert claims["one"]["SNR and cross-entropy gained, quantization"] == rank

    said = networks.claims_words(claims)
    assert said["unlike"] == (
        "SNR and cross-entropy gained, between methods, lower budgets; "
        "pruning's excess (nats) at the SNRs of pruning; "
        "pruning's excess (nats) at the SNRs of quantization"
    )
    assert said["alike"] == "6 of 15"
    # between layers, and where each method has one budget: five layers are too few
    assert said["untold"] == "6"
    alone = networks.claims_words({"one": claims["one"]})
    assert alone == {"alike": "9 of 15", "untold": "6", "unlike": "none"}

    drops = [str(claims["other"][f"SNR and accuracy lost, {m}"]) for m in METHODS]
    assert networks.drop_words(claims).endswith(f"; other {drops[0]} and {drops[1]}")

    columns = networks.claims_table(tables, claims)
    assert [*columns] == ["claim", "one", "other"]
    assert columns["claim"][:2] == ["layers", "images"] and columns["one"][:2] == ["5", "1,000"]
    assert columns["one"][4] == str(rank) and len(columns["other"]) == 19


def test_correlations_over_the_snrs_of_both_methods():
    """Above what pruning reaches quantization loses nothing but by chance."""
    table, rng = rows(bits=range(2, 9), n_layers=12), np.random.default_rng(0)
    slope = table["method"].map({"quantization": 3.0, "pruning": 2.0})
    table["snr_db"] = slope * (table["n_bits"] - 1) + 0.1 * rng.random(len(table))
    beyond = table["snr_db"] > 14.2  # what pruning does not reach
    table["drop"] = -table["snr_db"]
    table.loc[beyond, "drop"] = rng.normal(-10, 5, beyond.sum())
    own = networks.claims(table, n_draws=100, seed=0)
    ends = [own[f"SNR and accuracy lost, {where}quantization"] for where in ("", SHARED)]
    assert ends[0].value > -0.8 and ends[1].value == -1 and ends[1].n_points == 4 * 12
    assert networks.fig6_words(own)["fig6_quantization"] == (
        f"{ends[0]}; over the SNRs that both methods have, {ends[1]}"
    )
    shared = [own[f"SNR and accuracy lost, {SHARED}{m}"] for m in METHODS]
    assert networks.drop_words({"a": own}, shared=True) == f"a {shared[0]} and {shared[1]}"
    assert np.isnan(networks.claims(table[beyond], n_draws=20, seed=0)[
        f"SNR and accuracy lost, {SHARED}pruning"].value)  # fmt: skip


def test_how_often_the_higher_snr_is_the_smaller_loss():
    table = rows(bits=(2, 8), n_layers=4)  # quantization has the higher SNR at both budgets
    table.loc[(table["n_bits"] == 8) & (table["method"] == "pruning"), "increase"] = -1.0
    own = networks.claims(table, n_draws=20, seed=0)
    assert networks.right_words({"a": own, "b": own}) == (
        "100 % (100 % to 100 %) at the lower budgets and 0 % (0 % to 0 %) at the higher budgets "
        "of a; 100 % (100 % to 100 %) at the lower budgets and 0 % (0 % to 0 %) at the higher "
        "budgets of b"
    )
    alone = networks.claims(table[table["n_bits"] == 2], n_draws=20, seed=0)
    assert networks.right_words({"a": alone}) == "100 % (100 % to 100 %) at the lower budgets of a"


def whole(**options):
    """Rows with the accuracy and the seconds that a committed table has."""
    return rows(**options).assign(fp_accuracy=90.0, seconds=1.0)


def claimed(quantization=DOWN, pruning=DOWN, within=DOWN, at_quantization=TIE, at_pruning=TIE):
    """A network's claims, as far as they are put into words."""
    return {
        "SNR and accuracy lost, quantization": quantization,
        "SNR and accuracy lost, pruning": pruning,
        "SNR and cross-entropy gained, within a layer": within,
        "pruning's excess (nats) at the SNRs of quantization": at_quantization,
        "pruning's excess (nats) at the SNRs of pruning": at_pruning,
    }


def test_made_up_claims_have_the_names_of_real_ones():
    assert claimed().keys() <= networks.claims(rows(), n_draws=20, seed=0).keys()


@pytest.mark.parametrize(
    ("quantization", "pruning", "said"),
    [
        (DOWN, DOWN, "We see it, for both methods, in one"),
        (MILD, MILD, f"{LESS} weakly under both methods in one"),
        (MILD, DOWN, f"{LESS} weakly under quantization and strongly under pruning in one"),
        (
            DOWN,
            TIE,
            f"{LESS} strongly under quantization and not beyond chance under pruning in one",
        ),
        (TIE, NONE, f"{LESS} not beyond chance under both methods in one"),
        (UP, UP, f"{LESS} not beyond chance under both methods in one"),
    ],
)
def test_whether_we_see_a_strong_correlation_with_accuracy(quantization, pruning, said):
    assert networks.agree_words({"one": claimed(quantization, pruning)}) == said


def test_every_network_speaks_for_itself():
    strong, weak, none = claimed(), claimed(MILD, MILD), claimed(TIE, DOWN)
    assert networks.agree_words({"a": strong, "b": strong}) == (
        "We see it, for both methods, in all 2 networks (a and b)"
    )
    assert networks.agree_words({"a": weak, "b": none, "c": weak}) == (
        f"{LESS} weakly under both methods in a and c; "
        "not beyond chance under quantization and strongly under pruning in b"
    )
    assert networks.agree_words({"a": strong, "b": weak}) == (
        "We see it, for both methods, in a. Elsewhere we see less: weakly under both methods in b"
    )


def test_in_how_many_networks_a_decibel_costs_more():
    found = {
        "a": claimed(at_pruning=DOWN, at_quantization=DOWN),
        "b": claimed(at_pruning=DOWN, at_quantization=TIE),
        "c": claimed(at_pruning=DOWN, at_quantization=UP),
    }
    assert networks.cost_words(found) == (
        "At the SNRs of pruning, quantization costs more in 3 of 3 networks; at the SNRs of "
        "quantization, quantization costs more in 1 of 3 networks, pruning costs more in 1 of 3 "
        "networks and the other ties"
    )
    found["c"] = claimed(at_pruning=TIE, at_quantization=TIE)
    assert networks.cost_words(found) == (
        "At the SNRs of pruning, quantization costs more in 2 of 3 networks and the other ties; "
        "at the SNRs of quantization, quantization costs more in 1 of 3 networks and the others tie"
    )
    found = {"a": claimed(at_pruning=NONE, at_quantization=TIE)}
    assert networks.cost_words(found) == (
        "At the SNRs of pruning, there is nothing to compare; at the SNRs of quantization, "
        "it is a tie in 1 of 1 network"
    )


def test_one_network_is_compared_with_nothing():
    alone = networks.compared_words({"a": claimed()})
    assert "one network has to do" in alone["networks_intro"]
    assert alone["networks_said"] == "There is no other network to compare it with"
    two = networks.compared_words({"a": claimed(), "b": claimed(pruning=MILD, within=TIE)})
    assert two["networks_intro"] == "Here is what 2 networks say to the claims so far"
    assert two["networks_said"] == (
        "Alike in both are 2 of 5 claims; claims on which none of them can tell: 2; not alike: "
        "SNR and cross-entropy gained, within a layer"
    )
    three = networks.compared_words(dict.fromkeys("abc", claimed()))
    assert three["networks_said"].startswith("Alike in all 3 are 3 of 5 claims;")


def test_other_images_have_another_accuracy():
    tables = {"resnet18": whole(), "cifar_resnet32": whole(), "other": whole()}
    edition = pd.DataFrame(
        {"model": ["resnet18", "resnet18", "cifar_resnet32"], "n_test": [5000, 5000, 509],
         "fp_value": [81.82, 81.82, 92.1]}
    )  # fmt: skip
    said = networks.elsewhere_words(tables, edition)
    assert said.endswith(
        ": ResNet-18 81.8 % of 5,000 there and 90.0 % of 1,000 here; "
        "ResNet-32 92.1 % of 509 there and 90.0 % of 1,000 here."
    )
    assert networks.elsewhere_words(tables, None) == ""
    assert networks.elsewhere_words({"other": whole()}, edition) == ""
