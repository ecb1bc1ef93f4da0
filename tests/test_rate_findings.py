"""What a sweep says of its learning rates, on made-up cells."""

import pandas as pd
from sweep_cases import sweep_of

from pqlib.rate_findings import chosen_words, ends_words


def test_rates_chosen_by_budget():
    cells = sweep_of({2: (9.0,), 4: (3.0,), 8: (1.0,)})
    cells["rate_pruning"] = ["0.03 0.01", "0.01", 0.01]
    assert chosen_words(cells, "quantization") == "0.01 at 2, 4 and 8 bits"
    assert chosen_words(cells, "pruning") == "0.03 or 0.01 at 2 bits, 0.01 at 4 and 8 bits"
    cells["tried_pruning"] = ["0.01 0.03", "0.01", "0.0033 0.01"]  # taken over at 4 bits
    assert chosen_words(cells, "pruning") == "0.03 or 0.01 at 2 bits, 0.01 at 8 bits"


def test_a_rate_at_the_end_of_those_tried_is_named():
    tried, five = "0.0033 0.01 0.03", "0.0011 0.0033 0.01 0.03 0.09"
    cells = pd.concat([
        sweep_of({2: (9.0,), 4: (3.0,), 8: (1.0,)}, model="resnet18", tried_pruning=tried,
                 rate_pruning="0.03", rate_quantization="0.01"),
        sweep_of({2: (9.0,), 3: (9.0,), 4: (3.0,)}, model="efficientdet", tried_pruning=five,
                 rate_pruning="0.09 0.01", rate_quantization="0.0033"),
    ], ignore_index=True)  # fmt: skip
    cells.loc[2, "rate_pruning"] = "0.0033"
    cells.loc[4, ["tried_pruning", "tried_quantization"]] = ["0.09", "0.0033"]  # taken over
    assert ends_words(cells) == {
        "rates_tried": "3 to 5",
        "rates_largest": "pruning (ResNet-18 at 2 and 4 bits; EfficientDet at 2 and 4 bits)",
        "rates_smallest": (
            "quantization (EfficientDet at 2 and 4 bits) and pruning (ResNet-18 at 8 bits)"
        ),
    }


def test_rates_inside_are_at_no_end():
    cells = sweep_of({2: (9.0,)})
    assert ends_words(cells) == {
        "rates_tried": "3", "rates_largest": "neither method", "rates_smallest": "neither method"
    }  # fmt: skip
    single = ends_words(cells.assign(tried_quantization=0.01))
    assert (single["rates_tried"], single["rates_largest"]) == ("1", "neither method")
