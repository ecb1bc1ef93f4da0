"""What the tables of the per-layer run say, and two tables of its own: bounds, and whole layers.

The figures are drawn by `pqlib.layer_plots`; nothing is drawn here.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike

from pqlib._validation import as_finite_array
from pqlib.bounds.pruning import solve_pruning
from pqlib.bounds.pruning_search import Channel
from pqlib.bounds.quantization import solve_quantization
from pqlib.experiments.channel_optima import Unit, kept_weights
from pqlib.experiments.layer_stability import ALL
from pqlib.experiments.layer_table import CHANNEL, LAYER, TOTAL
from pqlib.layers.captured import CapturedLayer
from pqlib.layers.problem import LayerProblem
from pqlib.results import results_file
from pqlib.verdicts import by_bits

RESULTS = ("fig4_layers", "fig4_verdicts", "fig4_stability", "solvers_scaling",
           "solvers_side_by_side")  # fmt: skip
QUANTIZATION, AT_BEST = "quantization", "quantization, at the best scale"
PRUNING, AT_SCALES = "pruning, at every scale of an interval", "pruning, at the scales tried"
OPEN = "depends on the budget, or open"
KINDS = (QUANTIZATION, AT_BEST, PRUNING, AT_SCALES, OPEN)
BOUNDS = ("sdp", "sdp_box", "box_qp")
_TEXT = ("chunk", "budget", "scale_choice", "remark", "images", "subset")  # columns
_ROUNDING = 1e-13  # of the energy: an error that counts as none
_WHOLE = 128  # inputs up to which heuristics are run on a whole fan-in


def read_results(folder: str) -> dict[str, pd.DataFrame]:
    """The committed tables of `RESULTS` that are in the folder, looked for above it as well.

    Parameters
    ----------
    folder : str
        "" for none.
    """
    found = {}
    for name in RESULTS:
        path = results_file(f"{name}.csv", folder)
        if path is not None:
            table = pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str))
            own = [c for c in _TEXT if c in table]
            found[name] = table.fillna(dict.fromkeys(own, ""))
    return found


def decibels(energy: ArrayLike, error: ArrayLike) -> Float[np.ndarray, "..."]:
    """10 log10(energy / error); NaN without energy.

    Infinite without error, and for errors below 1e-13 of the energy, which are those of rounding.
    """
    energy, error = np.asarray(energy, float), np.asarray(error, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = energy / np.where(error <= _ROUNDING * energy, 0.0, error)
        return np.asarray(10 * np.log10(ratio))


def kind_of(verdict: str) -> str:
    """Which of `KINDS` a sentence of `layer_verdicts` belongs to; what is not closed is open."""
    if verdict.startswith("quantization wins"):
        return AT_BEST if "best scale" in verdict else QUANTIZATION
    if verdict.startswith("pruning wins at the scales"):
        return AT_SCALES
    return PRUNING if verdict.startswith("pruning wins at every") else OPEN


def chunks_alone(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of single chunks, without the sums over a layer's chunks."""
    return table[table["chunk"].astype(str) != TOTAL]


def scope(table: pd.DataFrame) -> str:
    """What the rows are of: "24 chunks of 10 layers"."""
    chunks, layers = len(table[["layer", "chunk"]].drop_duplicates()), table["layer"].nunique()
    of = f"{layers} layers" if layers > 1 else "one layer"
    return f"{chunks} chunks of {of}" if chunks > 1 else f"one chunk of {of}"


def tally(verdicts: pd.DataFrame) -> pd.DataFrame:
    """How many chunks each of `KINDS` holds at each bit-width (index)."""
    kinds = chunks_alone(verdicts)["verdict"].map(kind_of)
    counts = pd.crosstab(chunks_alone(verdicts)["n_bits"], kinds)
    return counts.reindex(columns=list(KINDS), fill_value=0)


def verdict_words(verdicts: pd.DataFrame) -> str:
    """Who is ahead where, each win with what it holds for."""
    texts = {}
    for n_bits, row in tally(verdicts).iterrows():
        parts = [f"quantization wins {row[QUANTIZATION]} of {row.sum()} chunks"]
        parts += [f"{row[AT_BEST]} more at the best scale only"] if row[AT_BEST] else []
        parts += [
            kind.replace("pruning,", f"pruning wins {row[kind]}", 1)
            for kind in (PRUNING, AT_SCALES)
            if row[kind]
        ]
        parts += [f"{row[OPEN]} depend on the budget or stay open"] if row[OPEN] else []
        texts[int(n_bits)] = ", ".join(parts)
    return by_bits(texts, "; ")


def at_papers_terms(table: pd.DataFrame) -> pd.DataFrame:
    """SNR of both exact optima, one row per (layer, chunk, n_bits), at all the terms compared.

    Columns ``channel_budget`` and ``layer_budget`` for pruning; ``tensor_scale``, ``chunk_scale``
    and ``output_scale`` for quantization; ``lead``, tensor_scale minus channel_budget: the paper's
    terms.
    """
    keys = ["layer", "chunk", "n_bits"]
    exact = chunks_alone(table)
    prune = exact[exact["method"] == "prune_exact"]
    prune = prune[prune["budget"].isin([CHANNEL, LAYER])]
    quant = exact[exact["method"] == "quantize_exact"]
    wide = prune.pivot_table(index=keys, columns="budget", values="sqnr_db", sort=False)
    scales = quant.pivot_table(index=keys, columns="scale_choice", values="sqnr_db", sort=False)
    wide = wide.add_suffix("_budget").join(scales.add_suffix("_scale")).reset_index()
    wide["lead"] = wide["tensor_scale"] - wide["channel_budget"]
    return wide


def lead_words(terms: pd.DataFrame) -> dict[str, str]:
    """What other budgets and scales are worth, in decibels: the median and the most."""
    words = {}
    for name, better, plain in (
        ("layer", "layer_budget", "channel_budget"),
        ("chunk", "chunk_scale", "tensor_scale"),
        ("output", "output_scale", "tensor_scale"),
    ):
        gain = (terms[better] - terms[plain]).replace([np.inf, -np.inf], np.nan).dropna()
        middle, most = (gain.median(), gain.max()) if len(gain) else (0.0, 0.0)
        words[name] = f"{middle:z.2f} dB in the median and {most:z.2f} dB at most".replace("-", "−")
    return words


def ranges(units: Iterable[Unit], bits: Sequence[int], seed: int) -> pd.DataFrame:
    """The paper's rectangles and the optima in them, one row per (layer, chunk, n_bits, channel).

    Quantization at the tensor's scale between the semidefinite bound (``sdp``) and the randomized
    heuristic (``park_boyd``), pruning at the same number of non-zeros in each channel between the
    optimum and magnitude with refit; ``quantize``, ``prune`` the optima, ``quantize_lower`` what is
    proven of the former; ``sdp_box`` and ``box_qp`` the other bounds. All as squared errors.
    """
    rows = []
    for unit in units:
        for channel, problem in zip(unit.channels, unit.problems(), strict=True):
            for b in bits:
                scale = unit.scales["tensor", b]
                kept = kept_weights(problem.n, b)
                exact = solve_quantization(problem, b, scale, max_nodes=10**7)
                rng = np.random.default_rng([seed, channel, b])
                row = {"layer": unit.layer, "chunk": str(unit.chunk), "n_bits": b}
                row |= {"channel": channel, "energy": problem.energy}
                row |= {m: solve_quantization(problem, b, scale, m).lower for m in BOUNDS}
                drawn = solve_quantization(problem, b, scale, "park_boyd", rng=rng)
                row |= {"park_boyd": drawn.upper, "quantize": exact.upper}
                row["quantize_lower"] = exact.lower
                pruned = solve_pruning(problem, kept, max_nodes=10**7)
                row |= {"prune": pruned.upper, "prune_lower": pruned.lower}
                row["refit"] = solve_pruning(problem, kept, "magnitude_refit").upper
                rows.append(row)
    return pd.DataFrame(rows)


def rectangles(rows: pd.DataFrame) -> pd.DataFrame:
    """`ranges` summed over channels, as SNRs, and whether a rectangle crosses the diagonal."""
    summed = rows.groupby(["layer", "chunk", "n_bits"], sort=False).sum(numeric_only=True)
    summed = summed[summed["energy"] > 0].reset_index()
    found = summed[["layer", "chunk", "n_bits"]].copy()
    for column in ("sdp", "park_boyd", "quantize", "prune", "refit"):
        found[column] = decibels(summed["energy"], summed[column])
    found["crosses"] = (summed["sdp"] < summed["refit"]) & (summed["prune"] < summed["park_boyd"])
    ahead = np.where(summed["quantize"] < summed["prune_lower"], "quantization", "neither")
    found["winner"] = np.where(summed["prune"] < summed["quantize_lower"], "pruning", ahead)
    return found


def diagonal_below(gram: ArrayLike) -> Float[np.ndarray, " n"]:
    """D >= 0 with gram - diag(D) positive semidefinite, as Cholesky confirms with a margin.

    D is 0 where the gram is singular. Of two candidates, a share of the gram's own diagonal and
    what `pqlib.bounds.pruning_search` finds by coordinate steps, the one of larger sum is taken.
    """
    gram = as_finite_array("gram", gram)
    n = len(gram)
    live = np.flatnonzero(np.diag(gram))
    if not live.size:
        return np.zeros(n)
    part = gram[np.ix_(live, live)]
    root = np.sqrt(np.diag(part))
    unit = part / np.outer(root, root)
    margin = 4 * live.size**2 * np.finfo(float).eps
    found = np.zeros(n)
    least = float(np.linalg.eigvalsh(unit)[0])
    if least <= 100 * margin:
        return found
    prepared = Channel(LayerProblem(gram, np.ones(n))).prepared
    for d in (np.full(live.size, least), prepared.diagonal * (prepared.unit / root) ** 2):
        d = np.maximum(d * (1 - 1e-9) - 2 * margin, 0.0)
        try:
            np.linalg.cholesky(unit - np.diag(d + margin))
        except np.linalg.LinAlgError:
            continue
        if d.sum() > (found[live] / root**2).sum():
            found[live] = d * root**2
    return found


def whole_layer(
    layer: CapturedLayer, channels: Sequence[int], n_bits: int, scale: float, max_nodes: int
) -> pd.DataFrame:
    """What chunking hides: optima of the chunks, assembled, beside the whole fan-in.

    Parameters
    ----------
    layer : CapturedLayer
        Captured with ``full=True``.
    channels : sequence of int
    n_bits, scale
        Of the grid; pruning keeps as many of each chunk as cost the same.
    max_nodes : int
        Of one exact search.

    Returns
    -------
    pandas.DataFrame
        One row per method: ``energy`` of the channels, ``chunks`` the sum of the chunks' optima,
        ``assembled`` the error of all chunks changed at once, ``best`` the least of that and of
        heuristics on the whole, ``lower`` proven for the whole fan-in, ``unproven`` searches.
    """
    rows = {m: dict.fromkeys(("energy", "chunks", "assembled", "best", "lower", "unproven"), 0.0)
            for m in ("quantization", "pruning")}  # fmt: skip
    below = {}
    for channel in channels:
        whole = next(c for c in layer.whole if channel in c.channels)
        if whole.group not in below:
            below[whole.group] = diagonal_below(whole.gram)
        problem, diagonal = whole.problem(channel), below[whole.group]
        parts = [c for c in layer.chunks if channel in c.channels]
        low, high = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
        nearest = scale * np.clip(np.rint(problem.weight / scale), low, high)
        kept = sum(kept_weights(c.stop - c.start, n_bits) for c in parts)
        moved = np.sort(diagonal * problem.weight**2)
        bounds = {
            "quantization": float(diagonal @ (nearest - problem.weight) ** 2),
            "pruning": float(moved[: problem.n - kept].sum()),
        }
        tried = {"quantization": [nearest], "pruning": []}
        if problem.n <= _WHOLE:
            tried["quantization"].append(
                solve_quantization(problem, n_bits, scale, "feedback").solution
            )
            tried["pruning"].append(solve_pruning(problem, kept, "backward").solution)
        for method, row in rows.items():
            results = [_solve(method, c.problem(channel), n_bits, scale, max_nodes) for c in parts]
            assembled = problem.error(np.concatenate([r.solution for r in results]))
            row["energy"] += problem.energy
            row["chunks"] += sum(r.upper for r in results)
            row["assembled"] += assembled
            row["best"] += min([assembled, *map(problem.error, tried[method])])
            row["lower"] += bounds[method]
            row["unproven"] += sum(not r.proven for r in results)
    return pd.DataFrame([{"method": method} | row for method, row in rows.items()])


def _solve(method, problem, n_bits, scale, max_nodes):
    if method == "quantization":
        return solve_quantization(problem, n_bits, scale, max_nodes=max_nodes)
    return solve_pruning(problem, kept_weights(problem.n, n_bits), max_nodes=max_nodes)


def stability_cases(stability: pd.DataFrame) -> pd.DataFrame:
    """How each chunk fares over draws of images: one row per (images, layer, chunk, n_bits).

    Parameters
    ----------
    stability : pandas.DataFrame
        Of `pqlib.experiments.layer_stability.run`.

    Returns
    -------
    pandas.DataFrame
        ``draws`` of ``n_images``; ``lead``, ``low``, ``high``: quantization's SNR minus pruning's
        at the paper's terms, the median over the draws, the least and the most (NaN where one is
        without error); ``winner`` and ``kind``, the winner and the one of `KINDS` of most draws;
        ``winners`` and ``kinds``, how many different ones there are. ``all_images``, ``all_lead``,
        ``all_winner``, ``all_kind``: of all images of the folder at once, where that was run.
    """
    lead = stability["quantize_db"] - stability["prune_channel_db"]
    lead = lead.replace([np.inf, -np.inf], np.nan)
    rows = stability.assign(lead=lead, kind=stability["verdict"].map(kind_of))
    keys = ["layer", "chunk", "n_bits"]
    at_once = rows["subset"].astype(str) == ALL
    cases = rows[~at_once].groupby(["images", *keys], sort=False)
    cases = cases.agg(
        draws=("subset", "nunique"),
        n_images=("n_images", "first"),
        lead=("lead", "median"),
        low=("lead", "min"),
        high=("lead", "max"),
        winner=("winner", _most),
        winners=("winner", "nunique"),
        kind=("kind", _most),
        kinds=("kind", "nunique"),
    )
    whole = rows[at_once].set_index(keys)[["n_images", "lead", "winner", "kind"]]
    whole.columns = ["all_images", "all_lead", "all_winner", "all_kind"]
    return cases.reset_index().join(whole, on=keys)


def _most(values):
    return values.mode()[0]
