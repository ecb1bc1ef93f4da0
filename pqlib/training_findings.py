"""What fine-tuned networks and the paper's Table 1 say: tables and words, nothing drawn.

The figures are drawn by `pqlib.training_plots`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pqlib.paired_bootstrap import lead_interval
from pqlib.results import results_file
from pqlib.verdicts import bits_phrase, by_bits, points, winner

NAMES = {
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "mobilenet_v2": "MobileNet-V2",
    "mobilenet_v3_small": "MobileNet-V3-small",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "vit_small": "ViT-small",
    "deeplab_v3_mobilenet_v2": "DeepLab-V3",
    "efficientdet": "EfficientDet",
    "cifar_resnet20": "ResNet-20",
    "cifar_resnet32": "ResNet-32",
}
PAPER, OURS, PUBLISHED = "paper_table1", "table1_small_data", "cifar_resnets"
AGAIN = "table1_small_data_again"  # cells of `OURS` made again from scratch
TWO_LAYERS = "mobilenet_v2_spared"  # with and without the first and the last layer spared
FINE_TUNED, POST_TRAINING = "fine-tuned", "post-training"
METHODS_OF_RUNS = {  # by that of a record: the method in words, and when it compresses
    "lsq": ("quantization", FINE_TUNED),
    "prune": ("pruning", FINE_TUNED),
    "post_training_quantize": ("quantization", POST_TRAINING),
    "post_training_prune": ("pruning", POST_TRAINING),
}
ALIKE = "fair, all layers alike"
SPARED = {  # in which method first and last layer are spared
    ALIKE: {"quantization": False, "pruning": False},
    "the authors' default": {"quantization": True, "pruning": False},
    "fair, two layers spared in both": {"quantization": True, "pruning": True},
}
_PUBLISHED = {  # classes, image size, other options of the networks as they are published
    "deeplab_v3_mobilenet_v2": (21, 512, {}),
    "efficientdet": (90, 640, {"variant": "tf_efficientdet_d1"}),
}
_N_IMAGENET = 50_000  # validation images


def read_table(name: str, folder: str) -> pd.DataFrame | None:
    """A committed table, looked for in the folder and above it; None if it is not there.

    Parameters
    ----------
    name : str
        `PAPER`; `OURS`, `PUBLISHED` or `TWO_LAYERS`, as `pqlib.table1_leads.leads` makes them;
        `AGAIN`, of `pqlib.table1_again.compare`; or `pqlib.simple_models.TABLE`.
    folder : str
        "" for none.
    """
    path = results_file(f"{name}.csv", folder)
    return None if path is None else pd.read_csv(path)


def alike_cells(folder: str) -> pd.DataFrame | None:
    """Cells of our edition of Table 1 and of the published networks, with all layers alike.

    Parameters
    ----------
    folder : str
        Where the committed tables are, see `read_table`; "" for none.

    Returns
    -------
    DataFrame, optional
        Rows of `pqlib.table1_leads.leads`, of networks fine-tuned and not; None without a table.
    """
    tables = [read_table(name, folder) for name in (OURS, PUBLISHED)]
    found = [table[table["comparison"] == ALIKE] for table in tables if table is not None]
    return pd.concat(found, ignore_index=True) if found else None


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """Both methods side by side, one row per (model, n_bits).

    Parameters
    ----------
    table : DataFrame
        Columns model, method ("lsq" or "prune"), n_bits, metric, value, fp_value. Where there are
        several seeds, values are averaged; rows without a value are left out.

    Returns
    -------
    DataFrame
        ``model``, ``metric``, ``n_bits``, ``quantization``, ``pruning``, ``fp_value``, ``lead`` of
        quantization in points, and ``winner``: the larger value, "neither" if they are equal.
    """
    table = table[table["method"].isin(["lsq", "prune"]) & table["value"].notna()]
    keys = ["model", "metric", "n_bits"]
    wide = table.pivot_table(index=keys, columns="method", values="value", sort=False)
    wide = wide.join(table.groupby(keys, sort=False)["fp_value"].mean()).dropna().reset_index()
    wide = wide.rename(columns={"lsq": "quantization", "prune": "pruning"})
    wide["lead"] = (wide["quantization"] - wide["pruning"]).round(9)
    sign = np.sign(wide["lead"]).map({1.0: "quantization", 0.0: "neither", -1.0: "pruning"})
    return wide.assign(winner=sign)


def count_words(found: pd.DataFrame) -> str:
    """How the cells divide: "quantization is ahead in 53 of 56 cells, pruning in 2, 1 is a tie"."""
    n = found["winner"].value_counts()
    pruning, ties = (int(n.get(what, 0)) for what in ("pruning", "neither"))
    text = f"quantization is ahead in {n.get('quantization', 0)} of {len(found)} cells"
    text += f", pruning in {pruning}" if pruning else ""
    return text + (f", {ties} {'is a tie' if ties == 1 else 'are ties'}" if ties else "")


def exceptions(found: pd.DataFrame) -> str:
    """The cells in which quantization is not ahead, by network."""
    phrases = []
    for ahead, what in (("pruning", "pruning is ahead for"), ("neither", "they tie for")):
        rows = found[found["winner"] == ahead]
        named = [
            f"{NAMES.get(model, model)} at {bits_phrase(own['n_bits'].astype(int).tolist())}"
            for model, own in rows.groupby("model", sort=False)
        ]
        phrases += [f"{what} {' and '.join(named)}"] if named else []
    return "; ".join(phrases) or "no exception"


def lead_by_bits(found: pd.DataFrame) -> str:
    """Median lead of quantization over networks at each bit-width, in points."""
    medians = found.groupby("n_bits")["lead"].median()
    return by_bits({int(b): points(v) for b, v in medians.items()})


def lead_by_model(found: pd.DataFrame) -> pd.DataFrame:
    """Least, median and largest lead of each network, in points; the smallest median first."""
    leads = found.groupby("model")["lead"].agg(["min", "median", "max"])
    return leads.sort_values("median")


def within_noise(found: pd.DataFrame) -> str:
    """How many of ImageNet's cells differ by less than the sampling of its test images explains.

    Notes
    -----
    Of two networks with accuracies p and q on n images, taken as independent, the difference has a
    standard error of sqrt((p(1-p) + q(1-q)) / n). Both are tested on the same images and tend to
    err on the same ones, so that this is too wide; the paired interval needs each image's result.
    """
    rows = found[found["metric"] == "accuracy"]
    if rows.empty:
        return "none of the cells is an accuracy"
    p, q = rows["quantization"] / 100, rows["pruning"] / 100
    error = 100 * np.sqrt((p * (1 - p) + q * (1 - q)) / _N_IMAGENET)
    inside = int((rows["lead"].abs() < 1.96 * error).sum())
    return f"{inside} of the {len(rows)} cells of ImageNet"


def runs_table(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Records of runs as rows: ``method`` and ``when`` in words, value, bits and what was spent."""
    rows = []
    for record in records:
        if record["method"] in METHODS_OF_RUNS:
            method, when = METHODS_OF_RUNS[record["method"]]
            rows.append(dict(record) | {"method": method, "when": when})
    return pd.DataFrame(rows)


def per_image(folder: Path, run_hash: str) -> np.ndarray:
    """What each test image adds to the metric, of a run in its sweep's folder; images first."""
    path = folder / run_hash / "per_image.npz"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; copy it from where {run_hash} ran, or run it")
    with np.load(path) as stored:
        return stored["test"]


def compare_runs(
    records: Iterable[Mapping[str, Any]], folder: Path, task: Any, *, n_draws: int, seed: int
) -> pd.DataFrame:
    """Both methods at each bit-width on the same test images, fine-tuned and post-training.

    Parameters
    ----------
    records : iterable of dict
        Of `pqlib.experiments.finetune_run.run`.
    folder : Path
        Theirs; it holds what each test image adds to the metric.
    task : pqlib.training.tasks.Task
    n_draws, seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        One row per (when, n_bits): ``quantization``, ``pruning``, ``lead``, its interval ``low`` to
        ``high``, and ``winner``: "neither" where the interval holds zero.
    """
    runs = runs_table(records)
    rows = []
    for (when, n_bits), group in runs.groupby(["when", "n_bits"], sort=False):
        pair = {r["method"]: r for _, r in group.iterrows()}
        images = {m: per_image(folder, r["hash"]) for m, r in pair.items()}
        row = {"when": when, "n_bits": int(n_bits)} | {m: r["value"] for m, r in pair.items()}
        row["lead"] = row["quantization"] - row["pruning"]
        pair = images["quantization"], images["pruning"]
        row["low"], row["high"] = lead_interval(task.scores, [pair], n_draws=n_draws, seed=seed)
        row["winner"] = winner(row["low"], row["high"])
        rows.append(row)
    return pd.DataFrame(rows)


def compare_spared(
    records: Iterable[Mapping[str, Any]],
    folder: Path,
    task: Any,
    n_bits: int,
    *,
    n_draws: int,
    seed: int,
) -> pd.DataFrame:
    """Fine-tuned networks with and without first and last layer at 8 bits, in three comparisons.

    Parameters
    ----------
    records, folder, task, n_draws, seed
        As in `compare_runs`; of each method one run with ``keep_first_last`` and one without.
    n_bits : int
        The bit-width to compare at.

    Returns
    -------
    DataFrame
        A row per comparison of `SPARED`: ``quantization`` and ``pruning``, their ``bits_...`` per
        weight, ``lead`` and its interval ``low`` to ``high``.
    """
    runs = {
        (METHODS_OF_RUNS[r["method"]][0], r["keep_first_last"]): r
        for r in records
        if r["n_bits"] == n_bits and METHODS_OF_RUNS.get(r["method"], ("", ""))[1] == FINE_TUNED
    }
    rows = {}
    for comparison, spared in SPARED.items():
        pair = {method: runs[method, keep] for method, keep in spared.items()}
        row = {m: r["value"] for m, r in pair.items()}
        row |= {f"bits_{m}": r["bits_per_weight"] for m, r in pair.items()}
        row["lead"] = row["quantization"] - row["pruning"]
        images = tuple(per_image(folder, r["hash"]) for r in pair.values())
        row["low"], row["high"] = lead_interval(task.scores, [images], n_draws=n_draws, seed=seed)
        rows[comparison] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def ahead_words(compared: pd.DataFrame, when: str = FINE_TUNED) -> str:
    """Who is ahead at which bit-width: "quantization is ahead at 2 bits, a tie at 4 bits"."""
    rows = compared[compared["when"] == when].sort_values("n_bits")
    said = {"neither": "a tie"}
    return by_bits(
        {
            int(r["n_bits"]): said.get(r["winner"], f"{r['winner']} is ahead")
            for _, r in rows.iterrows()
        }
    )


def gain_words(compared: pd.DataFrame, method: str) -> str:
    """What fine-tuning adds to a method at each bit-width, in points."""
    wide = compared.pivot(index="n_bits", columns="when", values=method).sort_index()
    gains = wide[FINE_TUNED] - wide[POST_TRAINING]
    return by_bits({int(b): points(v) for b, v in gains.items()})


def spared_weights(models: Sequence[str]) -> pd.DataFrame:
    """How many weights the first and the last compressible layer hold, of networks as published.

    Returns
    -------
    DataFrame
        ``model``, ``first`` and ``last`` (names), ``spared`` and ``total`` (weights), ``share``. A
        network whose package is missing has ``missing``, its message, and NaN.

    Notes
    -----
    The networks are built without memory for their weights, on torch's meta device.
    """
    import torch

    from pqlib.training.models import build_model
    from pqlib.training.scope import compressible_layers

    rows = []
    for model in models:
        n_classes, size, options = _PUBLISHED.get(model, (1000, 224, {}))
        try:
            with torch.device("meta"):
                net = build_model(model, n_classes=n_classes, size=size, **options)
        except ModuleNotFoundError as error:
            rows.append({"model": model, "share": math.nan, "missing": str(error)})
            continue
        sizes = {n: m.weight.numel() for n, m in compressible_layers(net).items()}
        first, *_, last = sizes
        spared, total = sizes[first] + sizes[last], sum(sizes.values())
        rows.append(
            {"model": model, "first": first, "last": last, "spared": spared, "total": total}
            | {"share": spared / total, "missing": ""}
        )
    return pd.DataFrame(rows)


def mean_bits(share: float, n_bits: int, kept_bits: int = 8) -> float:
    """Bits per weight if a share of the weights keeps ``kept_bits``, where that is more."""
    return share * max(n_bits, kept_bits) + (1 - share) * n_bits
