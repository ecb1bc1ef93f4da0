"""The cells of the chapter on fine-tuning, for chapters that set their own runs beside them."""

import pandas as pd

from pqlib.training_findings import ALIKE, OURS, PUBLISHED, read_table


def alike_cells(folder: str) -> pd.DataFrame | None:
    """Cells of our edition of Table 1 and of the published networks, with all layers alike.

    Parameters
    ----------
    folder : str
        Where the committed tables are, see `pqlib.training_findings.read_table`; "" for none.

    Returns
    -------
    DataFrame, optional
        Rows of `pqlib.table1_leads.leads`, of networks fine-tuned and not; None without a table.
    """
    tables = [read_table(name, folder) for name in (OURS, PUBLISHED)]
    found = [table[table["comparison"] == ALIKE] for table in tables if table is not None]
    return pd.concat(found, ignore_index=True) if found else None
