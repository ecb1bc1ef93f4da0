"""What is said of a sweep, on cells made up so that the answer is known."""

import pandas as pd
import pytest
from sweep_cases import sweep_of

from pqlib import sweep_findings


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
    assert said["sweep_before"] == "for ResNet-20 quantization is ahead at 2 and 4 bits"
    assert said["sweep_fp"] == "92.0 % accuracy (ResNet-20) and 92.0 % accuracy (ResNet-18)"
    assert said["sweep_rates"] == (
        "quantization 0.03 or 0.01 at 2 bits, 0.01 at 4 bits; pruning 0.03 at 2 and 4 bits"
    )
    assert said["sweep_spread"] == "3.0 points, the largest lead being −7.5"
    assert said["sweep_closes"] == "from 20.0 to −7.5 points (ResNet-20 at 2 bits)"
    assert (said["sweep_seeds"], said["sweep_epochs"]) == ("1 to 2 seeds", "4 to 20")
    assert (said["sweep_tested"], said["sweep_trained"]) == ("509 to 1,017", "5,085")

    shown = sweep_findings.columns(table)
    assert shown["network"] == ["ResNet-20", "ResNet-20", "ResNet-18"]
    assert shown["bits"] == [2, 4, 2] and shown["ahead"] == ["pruning", "tie", "quantization"]
    assert shown["lead (95 % interval)"][0] == "−7.5 (−8.0 to −7.0)"


def test_a_sweep_with_one_seed_and_nothing_without_training():
    said = sweep_findings.words(sweep_of({2: (1.0,)}))
    assert said["sweep_seeds"] == "one seed"
    assert (said["sweep_before"], said["sweep_closes"]) == ("not run", "unmeasured")


def test_a_sweep_without_training_is_refused():
    with pytest.raises(ValueError, match="no fine-tuned cell; run `pqlib run table1`"):
        sweep_findings.words(sweep_of({2: (1.0,)}, when="post-training"))
