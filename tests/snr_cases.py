"""Rows of layers compressed one at a time, made up so that the answer is known."""

import numpy as np
import pandas as pd

from pqlib.snr_findings import prepared


def rows(bits=(2, 3, 4, 8), n_layers=5, dearer=1.0, loss=1.0):
    """Layers that lose in proportion to their noise, ``dearer`` times as much when pruned."""
    rng, table = np.random.default_rng(0), []
    for i in range(n_layers):
        for b in bits:
            for method, db in (("quantize", 6.0 * b - 3), ("prune", 1.5 * b + 1)):
                noise = 10 ** (-db / 10) * (1 + 0.1 * rng.random())
                cost = (1 + i) * noise * loss * (dearer if method == "prune" else 1.0)
                table.append(
                    {"layer": f"layer{i}", "n_bits": b, "method": method, "snr": 1 / noise,
                     "snr_db": -10 * np.log10(noise), "logit_snr_db": -10 * np.log10(noise) + i,
                     "drop": 20 * cost, "increase": cost, "agreement": 100 - 25 * cost,
                     "n_images": 1000}
                )  # fmt: skip
    return prepared(pd.DataFrame(table))
