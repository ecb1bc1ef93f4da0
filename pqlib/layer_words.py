"""Sentences and small tables of the per-layer chapter, made of its tables so that both agree."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from pqlib.bounds.result import Result
from pqlib.experiments.channel_optima import Unit
from pqlib.experiments.layer_stability import PHOTOGRAPHS
from pqlib.experiments.layer_verdicts import SCALE_INTERVAL
from pqlib.layer_findings import (
    AT_BEST,
    PRUNING,
    QUANTIZATION,
    chunks_alone,
    decibels,
    kind_of,
    verdict_words,
)
from pqlib.layers.problem import LayerProblem
from pqlib.verdicts import by_bits

_EXACT = ("prune_exact", "quantize_exact")
_MOBILE, _RESIDUAL = "torchvision:mobilenet_v2", "torchvision:resnet18"
TABLE_3 = (  # the paper's layers, and the most inputs of a chunk there
    *((_MOBILE, f"features.{i}.conv.{j}.0", 9 if j else 32) for i in (8, 11) for j in (0, 1)),
    ("timm:efficientnet_lite0", "blocks.1.1.conv_pw", 32),
    ("timm:tf_efficientnet_b0", "blocks.6.0.se.conv_expand", 32),
    (_RESIDUAL, "layer1.0.conv2", 36),
    (_RESIDUAL, "layer1.1.conv1", 36),
    (_RESIDUAL, "layer3.0.downsample.0", 32),
    (_RESIDUAL, "layer2.0.downsample.0", 32),
    ("timm:vit_base_patch16_224", "blocks.2.attn.proj", 36),
)


def example_of(units: Iterable[Unit]) -> tuple[LayerProblem, Unit, int]:
    """Of all channels of these units the one with most output energy: problem, unit, channel."""
    cases = [
        (problem, unit, channel)
        for unit in units
        for channel, problem in zip(unit.channels, unit.problems(), strict=True)
    ]
    best = max(cases, key=lambda case: case[0].energy)
    if best[0].energy == 0:
        raise ValueError(
            f"the channels drawn of {best[1].layer} put out zeros alone; draw others by seed"
        )
    return best


def snr_of(energy: float, results: Mapping[str, Sequence[Result]]) -> dict[str, float]:
    """SNR of each method, from the errors of its results together."""
    return {m: float(decibels(energy, sum(r.upper for r in v))) for m, v in results.items()}


def methods_table(snr: Mapping[str, float], names: Sequence[str]) -> dict[str, list]:
    """Columns: each method's SNR, and how far it is below that of "exact"."""
    below = [0.0 if v == snr["exact"] else snr["exact"] - v for v in snr.values()]
    return {"method": [*names], "SNR (dB)": [*snr.values()], "below the optimum (dB)": below}


def time_words(table: pd.DataFrame) -> str:
    """What each layer of a table of `pqlib.experiments.layer_table` took, and all together."""
    seconds = table.groupby("layer")["seconds"].sum()
    ends = " to ".join(dict.fromkeys(f"{s:.0f}" for s in (seconds.min(), seconds.max())))
    return f"{ends} s of one core a layer, {seconds.sum():.0f} s for all {len(seconds)}"


def gain_words(better: float, plain: float) -> str:
    """What the one SNR is above the other: "1.20 dB"."""
    if not np.isfinite(better):
        return "no finite number of decibels"
    return f"{better - plain:z.2f} dB".replace("-", "−")


def share_words(rows: pd.DataFrame, bound: str) -> str:
    """The median share of the optimum that a bound reaches: "0.51 at 2 bits, ..."."""
    rows = rows[rows["quantize"] > 0]
    share = (rows[bound] / rows["quantize"]).groupby(rows["n_bits"]).median()
    return by_bits({int(b): f"{v:.2f}" for b, v in share.items()})


def crossing_words(found: pd.DataFrame) -> str:
    """How many of `pqlib.layer_findings.rectangles` the paper leaves open, and how many close."""
    crossing = found[found["crosses"]]
    if crossing.empty:
        return f"none of {len(found)} rectangles crosses the diagonal"
    closed = (crossing["winner"] != "neither").sum()
    return (
        f"{len(crossing)} of {len(found)} rectangles cross the diagonal, and the exact optima "
        f"close {closed} of these"
    )


def terms_words(terms: pd.DataFrame, verdicts: pd.DataFrame) -> str:
    """What becomes of either method's lead at the paper's terms when scale and budget are free."""
    keys = ["layer", "chunk", "n_bits"]
    known = chunks_alone(verdicts)[[*keys, "verdict"]].astype({"chunk": str})
    cases = terms.merge(known, on=keys)
    kinds = cases["verdict"].map(kind_of)
    quantization, pruning = kinds[cases["lead"] > 0], kinds[cases["lead"] < 0]
    low, high = SCALE_INTERVAL
    said = []
    if len(quantization):
        n = quantization.value_counts()
        more = n.get(AT_BEST, 0)
        said.append(
            f"Of the {len(quantization)} cases in which quantization has the smaller error at the "
            f"paper's terms, it keeps that lead at both budgets in {n.get(QUANTIZATION, 0)}"
            + (f" (and in {more} more at the best scale)" if more else "")
        )
    if len(pruning):
        said.append(
            f"Of the {len(pruning)} in which pruning has, it keeps that lead at both budgets in "
            f"{pruning.eq(PRUNING).sum()} at every common scale from {low:g} to {high:g} times "
            "the tensor's"
        )
    else:
        said.append(
            "Pruning has the smaller error at the paper's terms in no case, so that no other scale "
            "was needed"
        )
    return ". ".join(said)


def ahead_words(terms: pd.DataFrame) -> str:
    """On how many chunks quantization has the smaller error at the paper's terms."""
    by_width = terms.groupby("n_bits")["lead"]
    texts = {int(b): f"quantization on {(v > 0).sum()} of {len(v)}" for b, v in by_width}
    return by_bits(texts, "; ")


def whole_words(full: pd.DataFrame, n_chunks: int) -> dict[str, str]:
    """What `pqlib.layer_findings.whole_layer` shows: ``chunk_words`` and ``whole_words``."""
    rows = full.set_index("method")
    apart = []
    for method, row in rows.iterrows():
        known = row["assembled"] > 0 and row["chunks"] > 0
        better = float(decibels(row["chunks"], row["assembled"])) if known else 0.0
        side = "better" if better > 0 else "worse"
        apart.append(f"{abs(better):.2f} dB {side} than their sum for {method}")
    quantize, prune = rows.loc["quantization"], rows.loc["pruning"]
    order = "the bounds alone do not say which method is ahead"
    if quantize["best"] < prune["lower"]:
        order = "quantization is proven to be ahead"
    elif prune["best"] < quantize["lower"]:
        order = "pruning is proven to be ahead"
    limit = "The Gram matrix is singular, so no limit is proven"
    if quantize["lower"] > 0:
        limit = "The Gram matrix has full rank, so both limits are proven"
    hidden = f"The {n_chunks} chunks together come out {' and '.join(apart)}"
    if n_chunks == 1:
        hidden = "This layer has a single chunk, so that nothing is hidden"
    return {"chunk_words": hidden, "whole_words": f"{limit}; for the whole fan-in {order}"}


def scaling_table(scaling: pd.DataFrame) -> dict[str, list]:
    """Columns of ``solvers_scaling``: median milliseconds by size and condition, and the worst."""
    by_size = scaling.groupby(["problem", "n"])
    medians = scaling.pivot_table("median_ms", ["problem", "n"], "condition", "median")
    columns = {"problem": [p for p, _ in by_size.groups], "inputs": [n for _, n in by_size.groups]}
    columns |= {f"{c:g}": medians[c].tolist() for c in medians}
    return columns | {"worst": by_size["worst_ms"].max().tolist()}


def seconds_table(table: pd.DataFrame, units: Sequence[Unit]) -> dict[str, list]:
    """Columns: what the exact searches of `units` took, by layer."""
    took = table[table["method"].isin(_EXACT)].groupby("layer")["seconds"].sum()
    counts = [sum(len(u.channels) for u in units if u.layer == name) for name in took.index]
    return {
        "live, exact searches": took.index.tolist(),
        "channels and chunks": counts,
        "seconds": took.tolist(),
    }


def table_3(model: str, known: Iterable[pd.DataFrame]) -> dict[str, list]:
    """Columns of the paper's Table 3: its layers, and the verdicts on those that ``model`` has.

    ``known`` are tables of verdicts, of which the first with a layer speaks for it.
    """
    known = [chunks_alone(verdicts) for verdicts in known]
    says = []
    for name, layer, _ in TABLE_3:
        rows = [v[v["layer"] == layer] for v in known if name == model]
        here = next((v for v in rows if len(v)), None)
        command = f"not run: `pqlib layers solve {name} --layers {layer}`"
        says.append(command if here is None else f"`{layer}`: {verdict_words(here)}")
    models, _, inputs = zip(*TABLE_3, strict=True)
    return {
        "network": [name.partition(":")[2] for name in models],
        "most inputs of a chunk, in the paper": [*inputs],
        "result": says,
    }


def draws_words(cases: pd.DataFrame) -> str:
    """Of what images the draws of one source are: "48 of the 125 images of photos"."""
    first = cases.iloc[0]
    if first["images"] == PHOTOGRAPHS:
        return f"{first['n_images']} crops of the photographs"
    if pd.isna(first["all_images"]):
        return f"{first['n_images']} images of {first['images']}"
    return f"{first['n_images']} of the {first['all_images']:.0f} images of {first['images']}"


def stability_table(cases: pd.DataFrame) -> dict[str, list]:
    """Columns, by source of images and bit-width: cases, those that keep winner and verdict, and
    the median and the largest range of the lead over the draws.
    """
    columns: dict[str, list] = {}
    for (images, n_bits), own in cases.groupby(["images", "n_bits"], sort=False):
        moved = own["high"] - own["low"]
        row = {
            "images": images,
            "bits": int(n_bits),
            "cases": len(own),
            "one winner": int((own["winners"] == 1).sum()),
            "one verdict": int((own["kinds"] == 1).sum()),
            "lead moves (dB)": float(moved.median()),
            "at most (dB)": float(moved.max()),
        }
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return columns


def stability_words(cases: pd.DataFrame) -> dict[str, str]:
    """What `pqlib.layer_findings.stability_cases` say, as clauses.

    ``same``: in how many cases all draws have one winner and one kind of verdict; ``close``: how
    small the lead is where they have not; ``spread``: how far the lead moves; ``against``: the
    photographs beside all images of the folder at once.
    """
    same, spread = [], []
    for _, own in cases.groupby("images", sort=False):
        of = draws_words(own)
        same.append(
            f"over {own['draws'].iloc[0]} draws of {of}, {(own['winners'] == 1).sum()} of "
            f"{len(own)} cases have one winner throughout and {(own['kinds'] == 1).sum()} one "
            "verdict"
        )
        spread.append(f"{_decibel_words(own['high'] - own['low'])} over draws of {of}")
    changed = cases.loc[cases["winners"] > 1, "lead"].abs()
    close = "the winner at the paper's terms changes with the draw in no case"
    if len(changed):
        close = (
            "where the winner changes with the draw, the median lead of either method is at most "
            f"{changed.max():.2f} dB"
        )
    both = cases[(cases["images"] == PHOTOGRAPHS) & cases["all_winner"].notna()]
    against = "no folder of images was held against the photographs"
    if len(both):
        winners, kinds = ((both[c] == both[f"all_{c}"]).sum() for c in ("winner", "kind"))
        apart = _decibel_words((both["lead"] - both["all_lead"]).abs())
        against = (
            f"the photographs have the winner of all {both['all_images'].iloc[0]:.0f} images in "
            f"{winners} of {len(both)} cases ({winners / len(both):.0%}) and the verdict in "
            f"{kinds}; the leads differ by {apart}"
        )
    words = {"same": "; ".join(same), "spread": " and by ".join(spread)}
    return words | {"close": close, "against": against}


def _decibel_words(sizes):
    sizes = sizes.dropna()
    middle, most = (sizes.median(), sizes.max()) if len(sizes) else (0.0, 0.0)
    return f"{middle:.2f} dB in the median and {most:.2f} dB at most"
