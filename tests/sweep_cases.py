"""Cells of `pqlib.table1_leads.leads`, made up."""

import pandas as pd

from pqlib.training_findings import ALIKE


def sweep_of(leads, when="fine-tuned", model="cifar_resnet20", **columns):
    """Cells of `pqlib.table1_leads.leads`, by budget: leads of the seeds, intervals one wide."""
    rows = []
    for n_bits, by_seed in leads.items():
        lead = sum(by_seed) / len(by_seed)
        row = {"model": model, "when": when, "n_bits": n_bits, "metric": "accuracy"}
        row |= {"size": "32", "seeds": " ".join(map(str, range(len(by_seed))))}
        row |= {"comparison": ALIKE, "bits_quantization": n_bits, "bits_pruning": n_bits}
        row |= {"quantization": 80 + lead, "pruning": 80.0, "fp_value": 92.0, "lead": lead}
        row |= {"low": lead - 0.5, "high": lead + 0.5, "lead_by_seed": " ".join(map(str, by_seed))}
        row["winner"] = "quantization" if lead > 0.5 else "pruning" if lead < -0.5 else "neither"
        row |= {"rate_quantization": "0.01 0.01", "rate_pruning": 0.03, "epochs": 20}
        row |= {"tried_quantization": "0.0033 0.01 0.03", "tried_pruning": 0.03}
        rows.append(row | {"n_test": 509, "n_train": 5085} | columns)
    return pd.DataFrame(rows)


def paper_of(leads, fp_value=80.0):
    """Cells of the paper's table, of `pqlib.training_findings.cells`, by network and budget."""
    sign = {1: "quantization", 0: "neither", -1: "pruning"}
    rows = [
        {"model": model, "n_bits": n_bits, "lead": lead, "winner": sign[(lead > 0) - (lead < 0)]}
        for (model, n_bits), lead in leads.items()
    ]
    return pd.DataFrame(rows).assign(fp_value=fp_value)


def edition_of():
    """Two networks for images and one for scenes, one of them also without training."""
    cifar = {"fp_epochs": 15, "fp_n_train": 45000, "epochs": 4, "n_train": 5000, "n_test": 10000}
    scenes = {
        "fp_epochs": 20,
        "fp_n_train": 367,
        "epochs": 40,
        "n_train": 367,
        "n_test": 233,
        "size": "96x128",
    }
    return pd.concat(
        [
            sweep_of({2: (9.0,), 4: (-2.0,), 8: (0.1,)}, model="resnet18", **cifar),
            sweep_of({2: (40.0,)}, when="post-training", model="resnet18", **cifar),
            sweep_of({2: (13.0,), 4: (3.0,), 8: (0.2,)}, model="mobilenet_v2", **cifar),
            sweep_of({2: (5.0,), 4: (0.0,)}, model="deeplab_v3_mobilenet_v2", metric="mIoU",
                     **scenes),
        ]
    )  # fmt: skip


PAPER_LEADS = {("resnet18", 2): 1.0, ("resnet18", 4): 0.5, ("resnet18", 8): 0.0,
               ("mobilenet_v2", 2): 30.0, ("mobilenet_v2", 4): 2.0, ("mobilenet_v2", 8): 0.5,
               ("deeplab_v3_mobilenet_v2", 2): -3.0, ("deeplab_v3_mobilenet_v2", 4): 4.0,
               ("vit_small", 2): 99.0}  # fmt: skip
