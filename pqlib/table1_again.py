"""Runs of Table 1 that were made again: do they come out the same?"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from pqlib._validation import check_integer
from pqlib.experiments.ledger import Ledger
from pqlib.experiments.rate_choice import best_of
from pqlib.experiments.table1 import CONFIG, cell_of
from pqlib.table1_leads import N_DRAWS, paired_interval
from pqlib.training_findings import per_image


def compare(
    folder: Path,
    again: Path,
    *,
    n_draws: int = N_DRAWS,
    seed: int = 0,
    on_row: Callable[[dict[str, Any]], None] | None = None,
) -> pd.DataFrame:
    """Runs that two folders have in common, side by side.

    A run is the same if all of its settings are: network, data, method, bits, rate, seed, and the
    baseline's settings. Where a baseline was trained again, that is in the comparison too.

    Parameters
    ----------
    folder, again : Path
        Each of a sweep of `pqlib run table1`, or a copy of its rows, such as the book's ledger.
    n_draws : int, 2..1e6, default 1000
        Of the bootstrap.
    seed : int >= 0, default 0
        Of the bootstrap.
    on_row : callable, optional
        Given each row as soon as it is there.

    Returns
    -------
    DataFrame
        A row per finished run of both, baselines ("none") first: its settings; ``value`` and
        ``value_again`` on the test images; ``difference``, again less before, in points, with its
        95 % interval ``low`` to ``high`` where both folders hold what each image adds
        (`pqlib.paired_bootstrap.lead_interval`, of one run each); ``fp_value`` and
        ``fp_value_again``, of the uncompressed network on the same images; ``same_bits``, whether
        the trained weights are the same to the last bit; ``chosen`` and ``chosen_again``, whether
        of the rates tried there it is the best by validation; ``hardware`` and ``versions`` of
        both; ``hash`` and ``command``.

    Raises
    ------
    FileNotFoundError
        If a folder holds no sweep.
    ValueError
        If no finished run is in both.

    Notes
    -----
    Other processors and versions may calculate in another order. Then weights differ from the first
    steps on, and a training ends with more than rounding errors between them, as it would with
    another order of images; the interval knows of the test images alone.
    """
    check_integer("n_draws", n_draws, low=2, high=10**6)
    check_integer("seed", seed, low=0, high=2**63 - 1)
    first, second = (_finished(place) for place in (folder, again))
    common = [key for key in first if key in second]
    if not common:
        raise ValueError(
            f"{folder} and {again} have no finished run in common; make one of FOLDER's again, by "
            "the command in its row and with another --folder"
        )
    chosen = [_chosen(records) for records in (first, second)]
    rows = []
    for key in sorted(common, key=lambda k: _order(first[k])):
        before, after = first[key], second[key]
        both = ("", before), ("_again", after)
        low, high = _interval(folder, again, before, n_draws, seed)
        row = {k: before[k] for k in ("model", "method", "n_bits", "learning_rate", "seed")}
        row |= {"metric": before["metric"], "n_test": before["n_test"]}
        row |= {f"value{of}": record["value"] for of, record in both}
        row |= {"difference": after["value"] - before["value"], "low": low, "high": high}
        row |= {f"fp_value{of}": record["fp_value"] for of, record in both}
        row["same_bits"] = before["fingerprint"] == after["fingerprint"]
        row |= {"chosen": key in chosen[0], "chosen_again": key in chosen[1]}
        row |= {f"{k}{of}": record[k] for k in ("hardware", "versions") for of, record in both}
        row |= {"hash": key, "command": before["command"]}
        rows.append(row)
        if on_row is not None:
            on_row(row)
    return pd.DataFrame(rows)


def _finished(folder) -> dict[str, dict]:
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no sweep; name the --folder of `pqlib run table1`")
    records = Ledger(folder, CONFIG).records()
    return {key: record for key, record in records.items() if record["status"] == "done"}


def _chosen(records) -> set[str]:
    """The runs with the best validation of those that differ in nothing but the rate."""
    cells: dict[str, list] = {}
    for record in records.values():
        cells.setdefault(cell_of(record), []).append(record)
    return {best_of(own)["hash"] for own in cells.values()}


def _order(record):
    compressed = record["method"] != "none"
    places = record["method"], record["n_bits"] or 0, record["learning_rate"]
    return record["model"], compressed, *places


def _interval(folder, again, run, n_draws, seed) -> tuple[float | None, float | None]:
    try:
        images = tuple(per_image(place, run["hash"]) for place in (again, folder))
    except FileNotFoundError:
        return None, None
    return paired_interval(run, [images], n_draws=n_draws, seed=seed)
