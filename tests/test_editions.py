"""Cells of the chapter on fine-tuning, read from made-up tables."""

import pandas as pd
from sweep_cases import sweep_of

from pqlib.editions import alike_cells


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
