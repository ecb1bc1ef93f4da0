"""Quantization's lead over pruning in each cell of a sweep of Table 1, with its interval."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pqlib._validation import check_integer
from pqlib.experiments.ledger import Ledger
from pqlib.experiments.rate_choice import best_of
from pqlib.experiments.table1 import CONFIG, RESULTS
from pqlib.paired_bootstrap import lead_interval
from pqlib.training_findings import ALIKE, METHODS_OF_RUNS, SPARED, per_image
from pqlib.verdicts import winner

N_DRAWS = 1000
_APART = ("method", "seed", "baseline", "keep_first_last")  # in which runs of one row may differ
_SIDES = "quantization", "pruning"
_AS_STORED = (0.0,) * 3, (1.0,) * 3  # a normalization, which no score looks at


def leads(
    folder: Path,
    *,
    seeds: Collection[int] | None = None,
    n_draws: int = N_DRAWS,
    seed: int = 0,
    on_row: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """Both methods side by side, cell by cell, over all seeds that both have.

    Where runs have their first and last layer spared (``keep_first_last``), they are compared with
    each other, and quantization with them spared to pruning without, as the authors' code has it.

    Parameters
    ----------
    folder : Path
        Of a sweep of `pqlib run table1`, or a copy of its rows with the ``per_image.npz`` of each.
    seeds : collection of int, optional
        Runs of these alone: so that cells, such as those with and without layers spared, are
        compared over the same seeds. By default all.
    n_draws : int, 2..1e6, default 1000
        Of the bootstrap.
    seed : int >= 0, default 0
        Of the bootstrap.
    on_row : callable, optional
        Given each row as soon as it is there.

    Returns
    -------
    table : DataFrame
        A row per model, data and other settings, ``comparison`` (a key of
        `pqlib.training_findings.SPARED`), "fine-tuned" or "post-training", and budget:
        ``quantization`` and ``pruning`` (means over seeds), ``lead`` in points, its interval
        ``low`` to ``high`` (`lead_interval`), ``winner`` ("neither" where that holds zero),
        ``lead_by_seed``; of the uncompressed network ``fp_value`` on the same images, and epochs
        and images of its training (``fp_epochs``, ``fp_n_train``; of the first seed); and for each
        method the bits per weight that are spent (``bits_...``), the learning rates tried (of
        all seeds, ascending), and the chosen runs' learning rates, hashes and commands. Where both
        methods spare two layers and were also run without, over the same seeds and from the same
        weights, ``gain_...`` is what that adds to each, in points, and ``gain_low_...`` to
        ``gain_high_...`` its interval, of the same kind as the lead's.
    left_out : list of str
        Cells that lack a finished run of one of the methods, and seeds of which the runs started
        from different trainings of the baseline, in words.

    Raises
    ------
    FileNotFoundError
        If the folder is missing, or what a run's images add to its metric.
    ValueError
        If the folder has no finished run of either method, of ``seeds``.

    Notes
    -----
    Of a cell's learning rates the one with the best validation is taken, as in ``table1.csv``; the
    test images have no part in it.
    """
    check_integer("n_draws", n_draws, low=2, high=10**6)
    check_integer("seed", seed, low=0, high=2**63 - 1)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no sweep; name the --folder of `pqlib run table1`")
    cells: dict[str, dict[tuple[str, bool], dict[int, list]]] = {}
    records = Ledger(folder, CONFIG).records()
    for record in records.values():
        if record["method"] in METHODS_OF_RUNS and (seeds is None or record["seed"] in seeds):
            method, when = METHODS_OF_RUNS[record["method"]]
            fields = {k: v for k, v in record.items() if k not in (*RESULTS, *_APART)}
            runs = cells.setdefault(json.dumps([when, fields], sort_keys=True), {})
            runs = runs.setdefault((method, record["keep_first_last"]), {})
            found = runs.setdefault(record["seed"], [])
            found += [record] if record["status"] == "done" else []
    if not any(runs for cell in cells.values() for by in cell.values() for runs in by.values()):
        wanted = "" if seeds is None else f", of seeds {', '.join(map(str, seeds))}"
        raise ValueError(
            f"{folder} has no finished run of quantization or pruning{wanted}; go on with it"
        )
    rows, left_out = [], []
    for key, runs in cells.items():
        when, fields = json.loads(key)
        alike = None  # the runs chosen with all layers treated alike
        for comparison, spared in SPARED.items():
            sides = {m: runs.get((m, spared[m]), {}) for m in _SIDES}
            name = f"{fields['model']} {fields['n_bits']} bits, {when}"
            both = sorted(s for s in sides["quantization"] if _both(sides, s))
            usable = [s for s in both if _one_start(sides, s)]
            left_out += [
                f"{name}: runs of seed {s} started from different trainings of the baseline"
                for s in both
                if s not in usable
            ]
            if not usable:
                left_out += [] if both else _lacking(name, sides, spared)
                continue
            tried = {m: [by_seed[s] for s in usable] for m, by_seed in sides.items()}
            chosen = {m: [best_of(records) for records in by_seed] for m, by_seed in tried.items()}
            baseline = records.get(chosen[_SIDES[0]][0]["baseline"], {})
            row = {"comparison": comparison, "when": when}
            row |= _row(folder, usable, tried, chosen, baseline, n_draws, seed)
            if comparison == ALIKE:
                alike = chosen
            elif all(spared.values()) and alike is not None:
                row |= _gains(folder, chosen, alike, n_draws, seed)
            rows.append(row)
            if on_row is not None:
                on_row(row)
    table = pd.DataFrame(rows)
    if rows:
        order = ["model", "data", "comparison", "when", "n_bits"]
        rank = {name: place for place, name in enumerate(SPARED)}
        table = table.sort_values(
            order, key=lambda column: column.replace(rank), kind="stable", ignore_index=True
        )
    return table, sorted(set(left_out))


def _both(sides, seed):
    return all(by_seed.get(seed) for by_seed in sides.values())


def _one_start(sides, seed):
    """Whether all runs of a seed started from the same weights, as far as their rows say."""
    starts = {r.get("baseline_fingerprint") for by_seed in sides.values() for r in by_seed[seed]}
    return len(starts - {None}) < 2


def _lacking(name, sides, spared):
    """What a cell lacks, in words; nothing where no run was meant for it."""
    if len(set(spared.values())) > 1 or not any(sides.values()):
        return []
    name += ", first and last layer spared" if all(spared.values()) else ""
    absent = [m for m, by_seed in sides.items() if not any(by_seed.values())]
    return [f"{name}: " + (f"no {' and '.join(absent)}" if absent else "no seed in common")]


def _interval(folder, firsts, seconds, n_draws, seed) -> tuple[float, float]:
    """`lead_interval` of runs over others, seed by seed."""
    images = ([per_image(folder, r["hash"]) for r in runs] for runs in (firsts, seconds))
    return paired_interval(firsts[0], [*zip(*images, strict=True)], n_draws=n_draws, seed=seed)


def paired_interval(
    run: Mapping[str, Any], pairs: Sequence[tuple[np.ndarray, np.ndarray]], **draws: int
) -> tuple[float, float]:
    """`pqlib.paired_bootstrap.lead_interval` in the metric of a run.

    Parameters
    ----------
    run : mapping
        Its record, of which task and size count.
    pairs : sequence of (ndarray, ndarray)
        What each test image adds to the metric, of `pqlib.training_findings.per_image`.
    **draws : int
        ``n_draws`` and ``seed``.
    """
    from pqlib.training.tasks import task_class

    size = tuple(np.broadcast_to(run["size"], 2).tolist())
    task = task_class(run["task"])(1, size, _AS_STORED)  # for its score alone
    return lead_interval(task.scores, pairs, **draws)


def _gains(folder, spared, alike, n_draws, seed) -> dict[str, float]:
    """What sparing two layers adds to each method, if seeds and starts are the same."""
    found = {}
    for method, runs in spared.items():
        others = alike[method]
        keys = [[(r["seed"], r.get("baseline_fingerprint")) for r in of] for of in (runs, others)]
        if keys[0] == keys[1]:
            pairs = zip(runs, others, strict=True)
            gain = float(np.mean([run["value"] - other["value"] for run, other in pairs]))
            low, high = _interval(folder, runs, others, n_draws, seed)
            found |= {f"gain_{method}": gain}
            found |= {f"gain_low_{method}": low, f"gain_high_{method}": high}
    return found


def _row(folder, seeds, tried, chosen, baseline, n_draws, seed) -> dict[str, Any]:
    first = chosen["quantization"][0]
    low, high = _interval(folder, *(chosen[m] for m in _SIDES), n_draws, seed)
    values = {m: np.array([r["value"] for r in chosen[m]]) for m in _SIDES}
    by_seed = values["quantization"] - values["pruning"]
    row = {
        **{k: first[k] for k in ("model", "data", "epochs")},
        "size": "x".join(map(str, np.atleast_1d(first["size"]))),
        "n_bits": first["n_bits"],
        "metric": first["metric"],
        "fp_value": float(np.mean([r["fp_value"] for r in chosen["quantization"]])),
        "fp_epochs": baseline.get("epochs"),
        "fp_n_train": baseline.get("n_train"),
        **{m: float(v.mean()) for m, v in values.items()},
        "lead": float(by_seed.mean()),
        "low": low,
        "high": high,
        "winner": winner(low, high),
        "seeds": _texts(seeds),
        "lead_by_seed": _texts(f"{lead:.6g}" for lead in by_seed),
        "n_train": first["n_train"],
        "n_test": first["n_test"],
        "n_draws": n_draws,
    }
    for method, runs in chosen.items():
        row[f"bits_{method}"] = float(np.mean([r["bits_per_weight"] for r in runs]))
        row[f"rate_{method}"] = _texts(f"{r['learning_rate']:.6g}" for r in runs)
        rates = {r["learning_rate"] for records in tried[method] for r in records}
        row[f"tried_{method}"] = _texts(f"{rate:.6g}" for rate in sorted(rates))
        row[f"hash_{method}"] = _texts(r["hash"] for r in runs)
        row[f"command_{method}"] = "; ".join(r["command"] for r in runs)
    both = [*chosen["quantization"], *chosen["pruning"]]
    for name in ("hardware", "versions", "commit"):
        row[name] = "; ".join(sorted({r[name] for r in both}))
    return row


def _texts(values) -> str:
    return " ".join(map(str, values))
