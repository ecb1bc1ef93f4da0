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
