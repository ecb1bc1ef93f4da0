"""What is said of learning rates: which were chosen, which end a range, how far scales went.

The table of a sweep is that of `pqlib.table1_leads.leads`.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pqlib.training_findings import FINE_TUNED, NAMES, POST_TRAINING, runs_table
from pqlib.verdicts import bits_phrase, by_bits

METHODS = "quantization", "pruning"
_LITTLE = 5.0  # % of a scale


def chosen_words(cells: pd.DataFrame, method: str) -> str:
    """The rates chosen for a method, by budget: "0.01 at 2 and 4 bits, 0.003 at 8 bits".

    Budgets at which a single rate was tried took it over from another and are left out, unless
    there are no others.
    """
    chosen = {}
    several = cells[f"tried_{method}"].map(lambda text: len(numbers(text)) > 1)
    for n_bits, rows in (cells[several] if several.any() else cells).groupby("n_bits"):
        rates = {rate for text in rows[f"rate_{method}"] for rate in numbers(text)}
        chosen[int(n_bits)] = " or ".join(f"{rate:.2g}" for rate in sorted(rates, reverse=True))
    return by_bits(chosen)


def ends_words(cells: pd.DataFrame) -> dict[str, str]:
    """Where the best rate is the largest or the smallest of those tried, so that more might help.

    Parameters
    ----------
    cells : DataFrame
        Fine-tuned cells of `pqlib.table1_leads.leads`. Those for which a single rate was tried, as
        it was best at a budget nearby, have no part in it.

    Returns
    -------
    dict
        ``rates_tried``: how many, where several were; ``rates_largest``, ``rates_smallest``: for
        which method, network and budgets.
    """
    counts = set()
    ends: dict[str, dict[tuple[str, str], list[int]]] = {"largest": {}, "smallest": {}}
    for _, row in cells.iterrows():
        for method in METHODS:
            tried, chosen = (numbers(row[f"{kind}_{method}"]) for kind in ("tried", "rate"))
            if len(tried) > 1:
                counts.add(len(tried))
                for end, rate in (("largest", max(tried)), ("smallest", min(tried))):
                    if rate in chosen:  # by any seed
                        ends[end].setdefault((method, row["model"]), []).append(int(row["n_bits"]))
    fewest_and_most = sorted({min(counts, default=1), max(counts, default=1)})
    return {
        "rates_tried": " to ".join(map(str, fewest_and_most)),
        **{f"rates_{end}": _places(found) for end, found in ends.items()},
    }


def beyond_words(cells: pd.DataFrame) -> dict[str, str]:
    """At which budgets rates were tried, and for how many cells the range may have been too short.

    Parameters
    ----------
    cells : DataFrame
        Fine-tuned cells of `pqlib.table1_leads.leads`. A cell that took its rate over counts like
        the one that chose it.

    Returns
    -------
    dict
        ``rates_at``: the budgets at which several rates were tried, "no bit-width" if there are
        none; ``rates_beyond`` and ``rates_below``: in how many cells a method has the largest or
        the smallest of its network's rates, so that one beyond might do better.
    """
    several = [
        cells.loc[cells[f"tried_{m}"].map(lambda text: len(numbers(text)) > 1), "n_bits"]
        for m in METHODS
    ]
    quantization, pruning = METHODS

    def counted(end):
        n = {m: int(at_end(cells, m, end).sum()) for m in METHODS}
        return (
            f"of {pruning} in {n[pruning]} of {len(cells)} cells and of {quantization} in "
            f"{n[quantization]}"
        )

    return {
        "rates_at": bits_phrase(sorted({int(b) for own in several for b in own})),
        "rates_beyond": counted(max),
        "rates_below": counted(min),
    }


def at_end(cells: pd.DataFrame, method: str, end: Callable[[list[float]], float]) -> pd.Series:
    """Whether a method has the largest (`max`) or smallest (`min`) of its network's rates, by cell.

    By any seed; a network for which a single rate was tried has no end.
    """
    tried = cells[f"tried_{method}"].map(numbers)
    own = tried.map(lambda rates: end(rates) if len(rates) > 1 else math.nan)
    ends = own.groupby(cells["model"].to_numpy()).transform(end.__name__)  # passes over NaN
    chosen = cells[f"rate_{method}"].map(numbers)
    found = [at in rates for at, rates in zip(ends, chosen, strict=True)]
    return pd.Series(found, index=cells.index)


def scale_moves(records: Iterable[Mapping[str, Any]], folder: Path) -> pd.DataFrame:
    """How far learned scales are, after fine-tuning, from where they started.

    Parameters
    ----------
    records : iterable of dict
        Of `pqlib.experiments.finetune_run.run`: at each budget one fine-tuned and one post-training
        run of quantization from the same network. The latter has the scales at the start.
    folder : Path
        Theirs; it holds what the runs say of each layer.

    Returns
    -------
    DataFrame
        A row per budget and layer: ``n_bits``, ``layer``, ``start``, ``end`` and ``percent``, the
        distance in percent of the start.
    """
    runs = runs_table(records)
    runs = runs[runs["method"] == "quantization"]
    tables = []
    for n_bits, pair in runs.groupby("n_bits"):
        hashes = pair.set_index("when")["hash"]
        if set(hashes.index) == {FINE_TUNED, POST_TRAINING}:
            start, end = (_scales(folder, hashes[when]) for when in (POST_TRAINING, FINE_TUNED))
            tables.append(pd.DataFrame({"n_bits": int(n_bits), "start": start, "end": end}))
    if not tables:
        raise ValueError("records have no budget with a fine-tuned and a post-training run")
    moves = pd.concat(tables).rename_axis("layer").reset_index()
    return moves.assign(percent=100 * (moves["end"] / moves["start"] - 1).abs())


def scale_words(moves: pd.DataFrame) -> dict[str, str]:
    """How far scales moved, and where that is little.

    Parameters
    ----------
    moves : DataFrame
        Of `scale_moves`.

    Returns
    -------
    dict
        ``scale_moved``: the median over layers at each budget, and the most of all layers there;
        ``scale_meaning``: a sentence on the budgets at which the median is below 5 %, and one on
        the others.
    """
    percent = moves.groupby("n_bits")["percent"]
    median, most = percent.median(), percent.max()
    texts = {int(b): f"{_digits(median[b])} % (at most {_digits(most[b])} %)" for b in median.index}
    little = [int(b) for b in median.index if median[b] < _LITTLE]
    others = [b for b in texts if b not in little]
    near, far = bits_phrase(little), bits_phrase(others)
    said = []
    if little:
        said.append(
            f"At {near} that is little: what trains there is mostly the weights, on a grid that "
            "nearly stays where it was put, and hardly the scale."
        )
    if others:
        said.append(f"At {far} the grid is fine, and the same step is a larger part of its scale.")
    return {"scale_moved": by_bits(texts), "scale_meaning": " ".join(said)}


def _scales(folder, run_hash) -> pd.Series:
    rows = json.loads((folder / run_hash / "layers.json").read_text("utf-8"))
    return pd.Series({row["layer"]: row["scale"] for row in rows}, dtype=float)


def _digits(percent) -> str:
    return f"{percent:.2f}" if percent < 1 else f"{percent:.1f}"


def _places(found) -> str:
    """By method, the networks and their budgets: "pruning (ResNet-18 at 2 bits)"."""
    texts = []
    for method in METHODS:
        networks = [
            f"{NAMES.get(model, model)} at {bits_phrase(sorted(bits))}"
            for (of, model), bits in found.items()
            if of == method
        ]
        texts += [f"{method} ({'; '.join(networks)})"] if networks else []
    return " and ".join(texts) or "neither method"


def numbers(text: object) -> list[float]:
    """Those of a column such as ``tried_pruning``: "0.01 0.03", or a single number."""
    return [float(word) for word in str(text).split()]
