"""At which learning rate layers were watched, and what it means for either method, in words.

Which rates suit a network is known from the chapter on fine-tuning, which tried several.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pqlib.rate_findings import numbers
from pqlib.representation_findings import TABLE
from pqlib.results import results_file
from pqlib.training_findings import FINE_TUNED, METHODS_OF_RUNS
from pqlib.verdicts import bits_phrase, listed

if TYPE_CHECKING:
    from pqlib.experiments.finetune_config import FineTune

_COLUMNS = ["model", "method", "n_bits", "learning_rate", "n_train"]


def read_runs(folder: str) -> pd.DataFrame | None:
    """How the runs of the committed table were made; None if it is not there.

    Parameters
    ----------
    folder : str
        Looked for in it and above it; "" for none.

    Returns
    -------
    DataFrame, optional
        ``model``, ``method``, ``n_bits``, ``learning_rate`` and ``n_train`` of each run that was
        fine-tuned.
    """
    path = results_file(f"{TABLE}.json", folder)
    if path is None:
        return None
    runs = pd.DataFrame(json.loads(path.read_text("utf-8"))["runs"])
    return runs.loc[runs["method"] != "none", _COLUMNS].reset_index(drop=True)


def runs_of(cells: "Iterable[FineTune]", n_train: int) -> pd.DataFrame:
    """As `read_runs`, of runs that were just made on ``n_train`` images."""
    rows = [(c.model, c.method, c.n_bits, c.settings.learning_rate, n_train) for c in cells]
    return pd.DataFrame(rows, columns=_COLUMNS)


def run_words(runs: pd.DataFrame, model: str) -> dict[str, str]:
    """``shown_rate``, the learning rate of a model's runs, and ``shown_images`` of their training.

    Several are listed, the largest first.
    """
    own = runs[runs["model"] == model]
    rates = sorted(own["learning_rate"].unique(), reverse=True)
    images = sorted(own["n_train"].unique(), reverse=True)
    return {
        "shown_rate": listed(f"{rate:.2g}" for rate in rates),
        "shown_images": listed(f"{int(n):,}" for n in images),
    }


def rate_words(table: pd.DataFrame, runs: pd.DataFrame, edition: pd.DataFrame | None) -> str:
    """For which method and budget the rate is the one chosen of those tried, and for which not.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib run representations`, of one network.
    runs : DataFrame
        Of `read_runs` or `runs_of`.
    edition : DataFrame, optional
        Of `pqlib.training_findings.alike_cells`. Budgets at which a single rate was tried took it
        over from another and are left out.

    Returns
    -------
    str
        A sentence or two, without the last full stop.
    """
    model = table["model"].iloc[0]
    rates = run_words(runs, model)["shown_rate"]
    text = f"All runs share the learning rate {rates}"
    if " and " in rates:
        return f"The runs do not share one learning rate; they have {rates}"
    best: dict[str, list[int]] = {}
    other = []
    for run, row, method in _cells(table, runs, edition):
        chosen, n_bits = numbers(row[f"rate_{method}"]), int(run["n_bits"])
        if np.isclose(chosen, run["learning_rate"], rtol=1e-3).any():
            best.setdefault(method, []).append(n_bits)
            continue
        seeds = len(str(row["seeds"]).split())
        mean = f" on average over {seeds} seeds" if seeds > 1 else ""
        others = " or ".join(f"{rate:.2g}" for rate in sorted(set(chosen), reverse=True))
        other.append(
            f"{method} at {bits_phrase([n_bits])} ({others}, with {row[method]:.1f} % there{mean} "
            f"and {_end(table, run):.1f} % here)"
        )
    if not best and not other:
        return f"{text}. Whether it suits all of them alike was not tried"
    cells = [f"{method} at {bits_phrase(bits)}" for method, bits in best.items()]
    said = [f"validation chose it for {listed(cells)}"] if best else []
    said += [f"{'' if best else 'validation chose '}another for {listed(other)}"] if other else []
    text = f"{text}. Of those tried in the chapter on fine-tuning, {'; '.join(said)}"
    return f"{text}. How near a method comes to the original is said at this rate alone"


def _cells(table, runs, edition):
    """Runs with what the chapter on fine-tuning has for the same network, method and budget."""
    if edition is None:
        return
    own = runs[(runs["model"] == table["model"].iloc[0]) & runs["method"].isin(METHODS_OF_RUNS)]
    cells = edition[(edition["model"] == table["model"].iloc[0]) & (edition["when"] == FINE_TUNED)]
    for _, run in own.sort_values(["method", "n_bits"], kind="stable").iterrows():
        method, _ = METHODS_OF_RUNS[run["method"]]
        for _, row in cells[cells["n_bits"] == run["n_bits"]].iterrows():
            if len(numbers(row[f"tried_{method}"])) > 1:
                yield run, row, method


def _end(table, run) -> float:
    """Accuracy after the last epoch."""
    rows = table[(table["method"] == run["method"]) & (table["n_bits"] == run["n_bits"])]
    return float(rows.loc[rows["epoch"] == rows["epoch"].max(), "accuracy"].mean())
