"""A table of `pqlib.experiments.layer_stability.run` made by hand."""

import pandas as pd

from pqlib.experiments.layer_stability import COLUMNS

# leads of quantization by source and chunk: on three draws, and on all images at once
LEADS = {
    ("photos", "0"): ((5.0, 5.5, 6.0), 5.2),
    ("photos", "1"): ((-0.2, 0.1, 0.4), -0.1),
    ("photographs", "0"): ((5.0, 7.0, 8.0), None),
    ("photographs", "1"): ((0.3, 0.2, 0.5), None),
}


def redrawn(*sources, n_bits=4):
    """Two chunks; the winner of one changes between draws, and with the photographs."""
    rows = []
    for (images, chunk), (leads, whole) in LEADS.items():
        if sources and images not in sources:
            continue
        draws = [*zip("012", leads, strict=True), *([("all", whole)] if whole is not None else [])]
        for subset, lead in draws:
            winner = "quantization wins" if lead > 0 else "pruning wins"
            between = "" if lead > 0 else " at the scales tried; between them it is not proven"
            values = {"images": images, "subset": subset, "n_images": 9 if subset == "all" else 4}
            values |= {"layer": "a", "chunk": chunk, "n_bits": n_bits, "quantize_db": 20.0 + lead}
            values |= {"prune_channel_db": 20.0, "prune_layer_db": 20.5}
            rows.append(values | {"winner": winner, "verdict": winner + between})
    return pd.DataFrame(rows, columns=list(COLUMNS))
