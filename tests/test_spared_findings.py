"""What sparing the first and the last layer does, on cells made up so that the answer is known."""

import pandas as pd
from sweep_cases import sweep_of

from pqlib.spared_findings import columns, effects, gains
from pqlib.sweep_findings import swept
from pqlib.training_findings import SPARED


def gained(quantization, pruning):
    found = {}
    for method, gain in (("quantization", quantization), ("pruning", pruning)):
        found[f"gain_{method}"] = gain
        found |= {f"gain_low_{method}": gain - 0.5, f"gain_high_{method}": gain + 0.5}
    return found


def test_what_sparing_two_layers_does():
    fair, authors, both = SPARED
    table = pd.concat(
        [
            sweep_of({2: (4.0,), 3: (1.0,), 4: (0.0,)}),
            sweep_of({2: (6.0,), 3: (9.0,), 4: (2.0,)}, comparison=authors, bits_quantization=3.0),
            sweep_of({2: (5.0,)}, comparison=both, pruning=79.0, **gained(1.0, -1.0)),
            sweep_of({4: (-1.0,)}, comparison=both, pruning=79.0, **gained(-1.0, -1.0)),
        ]
    )
    other = pd.concat(  # never spared, and spared for one of two seeds
        [sweep_of({2: (1.0,)}, model="mobilenet_v2"), sweep_of({2: (1.0, 3.0)}, model="resnet18")]
        + [sweep_of({2: (1.0,)}, model="resnet18", comparison=name) for name in (authors, both)]
    )
    said = effects(table, other)
    assert gains(table, other) == {
        "network": ["ResNet-20"] * 2,
        "bits": [2, 4],
        "quantization": ["+1.0 (0.5 to 1.5)", "−1.0 (−1.5 to −0.5)"],
        "pruning": ["−1.0 (−1.5 to −0.5)"] * 2,
    }
    assert said["effect_networks"] == "ResNet-20 (92.0 %)"
    assert said["effect_alike"] == "1 of 2"  # at 4 bits a tie becomes a lead
    assert said["effect_both"] == "1 of 2"  # which both methods spared would give to pruning
    shown = columns(table, other)
    assert shown["bits"] == [2] * 3 + [4] * 3 and set(shown["network"]) == {"ResNet-20"}
    assert shown["comparison"] == [*SPARED] * 2 and shown["seeds"] == [1] * 6
    assert said["effect_bits"] == "1.00" and "bits, quantization" not in shown  # 3.0 beside 2
    assert shown["pruning"] == [80.0, 80.0, 79.0] * 2
    whole = [
        sweep_of({2: (1.0,)}, model="mobilenet_v2", fp_value=80.0, comparison=name)
        for name in SPARED
    ]
    said = effects(table, pd.concat(whole))
    assert said["effect_networks"] == "ResNet-20 (92.0 %) and MobileNet-V2 (80.0 %)"
    assert said["effect_rates"] == "none"
    assert gains(table, pd.concat(whole))["pruning"][-1] == "from other weights, unknown"
    whole[2] = whole[2].assign(rate_pruning=0.01)
    said = effects(table, pd.concat(whole))
    assert said["effect_rates"] == "none"  # one rate, taken over
    assert said["effect_taken"] == "pruning of MobileNet-V2 at 2 bits"
    whole = [cells.assign(tried_pruning="0.01 0.03") for cells in whole]
    said = effects(table, pd.concat(whole))
    assert said["effect_rates"] == "pruning of MobileNet-V2 at 2 bits"
    assert said["effect_taken"] == "none"
    assert effects(other)["effect_networks"] == ""
    assert len(swept(table)) == 3 and fair in set(table["comparison"])
