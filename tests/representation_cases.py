"""Tables of layers and epochs, made up so that the answer is known."""

import numpy as np
import pandas as pd

LAYERS = ("conv1", "conv10", "conv2", "linear")  # the order is the network's, not the alphabet's


def made(moves, epochs=3, seeds=(0,)):
    """A table in which layer k of a run goes from its start by its move, in equal steps.

    ``moves``: by (method, n_bits), starts and moves of the SNR; CKA is SNR / 100.
    """
    rows = []
    for (method, n_bits), (starts, steps) in moves.items():
        for seed in seeds:
            for epoch in range(epochs + 1):
                for layer, start, step in zip(LAYERS, starts, steps, strict=True):
                    snr = start + step * epoch / epochs
                    sparsity = {"prune": min(epoch, 2) / 2 if epoch else 1.0}.get(method, 0.0)
                    rows.append(
                        {"model": "m", "data": "d", "method": method, "n_bits": n_bits}
                        | {"seed": seed, "epoch": epoch, "layer": layer, "sqnr_db": snr}
                        | {"cka": snr / 100, "cka_unpaired": 0.1, "accuracy": 50.0 + epoch}
                        | {"fp_value": 90.0, "sparsity": sparsity, "loss": 1.0}
                    )
    table = pd.DataFrame(rows)
    return table.assign(n_bits=table["n_bits"].astype("Int64"))


PAPER = {  # as the paper has it, and at 4 bits a draw for quantization
    ("lsq", 2): ((20, 18, 16, 14), (-4, -5, -6, -3)),
    ("prune", 2): ((2, 2, 2, 1), (5, 6, 7, 3)),
    ("prune_at_once", 2): ((2, 2, 2, 1), (-1, -1, -2, -1)),
    ("lsq", 4): ((30, 30, 30, 30), (-4, 4, -5, 5)),
    ("prune", 4): ((8, 9, 7, 9), (1, 2, 1, 2)),
    ("prune_at_once", 4): ((8, 9, 7, 9), (1, 2, 1, 2)),
    ("uncompressed", None): ((np.inf,) * 4, (0.0,) * 4),
}
