"""One unit of the per-layer run: some channels on some inputs, both problems, all budgets."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from pqlib.bounds.pruning import pruning_curve, solve_pruning
from pqlib.bounds.quantization import solve_quantization
from pqlib.bounds.result import Result
from pqlib.bounds.verification import DUAL, FEASIBLE, REFUTED, REPROVED, verify
from pqlib.budget import matched_sparsity, n_zeros
from pqlib.layers.problem import LayerProblem

PRUNING_HEURISTICS = ("magnitude", "magnitude_refit")
QUANTIZATION_HEURISTICS = ("nearest", "feedback")
OUTPUT_GRID = tuple(2.0 ** (k / 8) for k in range(-8, 9))  # times the tensor's scale
EXHAUSTIVE = "exhaustive search"
RESTRICTED = "exhaustive search, changes up to 100 times the weights"
ENDED = "search ended early"
CERTIFICATES = (DUAL, REPROVED, EXHAUSTIVE, RESTRICTED, ENDED, FEASIBLE)  # from strong to weak

_QUICK_NODES = 20_000  # some milliseconds
_REPROOF_NODES = 1_000_000


@dataclass(frozen=True, eq=False)
class Unit:
    """Channels of one layer with the inputs of one chunk.

    Attributes
    ----------
    key : str
        Names the unit in the ledger.
    layer, kind : str
        As of `pqlib.layers.captured.CapturedLayer`.
    chunk : int
        Which chunk of the fan-in, in order.
    channels : tuple of int
        Output channels of the layer, one per row of ``weights``.
    grams : ndarray of shape (1, n, n) or (n_channels, n, n)
        One for all channels, or in grouped layers one per channel.
    weights : ndarray of shape (n_channels, n)
    scales : dict of {(choice, n_bits): scale}
        For choices "tensor" and "chunk", in weight units.
    """

    key: str
    layer: str
    kind: str
    chunk: int
    channels: tuple[int, ...]
    grams: Float[np.ndarray, "g n n"] = field(repr=False)
    weights: Float[np.ndarray, "c n"] = field(repr=False)
    scales: dict[tuple[str, int], float] = field(repr=False)

    def problems(self) -> list[LayerProblem]:
        """One per channel."""
        grams = np.broadcast_to(self.grams, (len(self.weights), *self.grams.shape[1:]))
        return [LayerProblem(gram, w) for gram, w in zip(grams, self.weights, strict=True)]

    @property
    def singular(self) -> bool:
        """Whether some gram is singular for want of outputs; dead inputs and equal ones apart."""
        for gram in self.grams:
            different = np.unique(gram[gram.any(axis=1)], axis=0)
            if np.linalg.matrix_rank(gram, hermitian=True) < len(different):
                return True
        return False


def kept_weights(n: int, n_bits: int) -> int:
    """Non-zeros among n weights that cost as much as n weights at ``n_bits``."""
    return n - n_zeros(n, matched_sparsity(n_bits))


def solve_unit(
    unit: Unit, bits: Sequence[int], max_nodes: int, reproved_share: float, seed: int
) -> dict:
    """Everything that the tables need of one unit, as JSON's types.

    Parameters
    ----------
    unit : Unit
    bits : sequence of int, 2..16
    max_nodes : int >= 1
        Of one exact search. Nodes and not seconds, so that the record does not depend on how busy
        the machine was.
    reproved_share : float in [0, 1]
        Of the exact results; these are drawn by ``seed`` and proven again by `verify`.
    seed : int >= 0

    Returns
    -------
    dict
        ``n``; ``energy``, w'Pw of each channel; ``curve_lower``, ``curve_upper`` and
        ``curve_certificate`` of best subsets, by channel and number of non-zeros 0..n; and
        ``results``, each with ``method, n_bits, scale_choice, scale, seconds`` and, by channel,
        ``lower, upper, certificate``.

    Raises
    ------
    AssertionError
        If a proof is refuted.

    Notes
    -----
    Scale choice "output" is the best of `OUTPUT_GRID` times the tensor's scale for all channels
    together. Each scale gets a short search first; those that its bounds do not rule out are then
    solved to the end.
    """
    problems = unit.problems()
    n = problems[0].n
    draw = np.random.default_rng([seed, *unit.key.encode()])

    def certified(results):
        return [
            _certificate(result, problem, draw.random() < reproved_share, unit.key)
            for result, problem in zip(results, problems, strict=True)
        ]

    start = time.process_time()
    curves = [pruning_curve(p, max_nodes=max_nodes) for p in problems]
    seconds = (time.process_time() - start) / len(bits)
    record = {
        "n": n,
        "energy": [p.energy for p in problems],
        "curve_lower": [[r.lower for r in curve] for curve in curves],
        "curve_upper": [[r.upper for r in curve] for curve in curves],
        "curve_certificate": [[_searched(r) for r in curve] for curve in curves],
        "results": [],
    }

    def keep(method, n_bits, choice, scale, results, certificates, seconds):
        record["results"].append(
            {
                "method": method,
                "n_bits": n_bits,
                "scale_choice": choice,
                "scale": scale,
                "lower": [r.lower for r in results],
                "upper": [r.upper for r in results],
                "certificate": certificates,
                "seconds": seconds,
            }
        )

    unknown = [FEASIBLE] * len(problems)
    for b in bits:
        s = kept_weights(n, b)
        kept = [curve[s] for curve in curves]
        keep("prune_exact", b, "", None, kept, certified(kept), seconds)
        for method in PRUNING_HEURISTICS:
            results, took = _timed(lambda p, m=method: solve_pruning(p, s, m), problems)  # noqa: B023
            keep(f"prune_{method}", b, "", None, results, unknown, took)
        scales = _Scales(problems, b, max_nodes)
        for choice in ("tensor", "chunk"):
            scale = unit.scales[choice, b]
            results, took = scales.exact(scale)
            keep("quantize_exact", b, choice, scale, results, certified(results), took)
            for method in QUANTIZATION_HEURISTICS:
                solve = _at(b, scale, method, None)
                keep(f"quantize_{method}", b, choice, scale, *_with(unknown, solve, problems))
        best, lower, took = scales.best([f * unit.scales["tensor", b] for f in OUTPUT_GRID])
        results, _ = scales.exact(best)
        certificates = certified(results)
        own = [r.lower for r in results]
        if lower < sum(own):  # another scale was not ruled out
            own = [x * lower / sum(own) for x in own]
            certificates = [ENDED] * len(problems)
        keep("quantize_exact", b, "output", best, results, certificates, took)
        record["results"][-1]["lower"] = own
    return record


class _Scales:
    """Exact quantization of all channels at one bit-width; each scale is solved once."""

    def __init__(self, problems, n_bits, max_nodes):
        self.problems, self.n_bits, self.max_nodes = problems, n_bits, max_nodes
        self.solved = {}

    def exact(self, scale):
        """(results, seconds)."""
        if scale not in self.solved:
            solve = _at(self.n_bits, scale, "exact", self.max_nodes)
            self.solved[scale] = _timed(solve, self.problems)
        return self.solved[scale]

    def best(self, scales):
        """(best scale, proven lower bound of the error at all scales, seconds)."""
        quick_nodes = min(_QUICK_NODES, self.max_nodes)
        quick = {
            scale: self.solved.get(scale)
            or _timed(_at(self.n_bits, scale, "exact", quick_nodes), self.problems)
            for scale in scales
        }
        lower = {scale: sum(r.lower for r in results) for scale, (results, _) in quick.items()}
        upper = {scale: sum(r.upper for r in results) for scale, (results, _) in quick.items()}
        seconds = sum(took for _, took in quick.values())
        for scale in sorted(scales, key=upper.get):
            if lower[scale] >= min(upper.values()):
                continue
            if all(r.proven for r in quick[scale][0]):
                self.solved[scale] = quick[scale]
                continue
            results, took = self.exact(scale)
            seconds += took
            lower[scale] = sum(r.lower for r in results)
            upper[scale] = sum(r.upper for r in results)
            if not all(r.proven for r in results):
                break  # others would most likely end early too
        best = min(scales, key=upper.get)
        return best, min(lower.values()), seconds


def _at(n_bits, scale, method, max_nodes) -> Callable[[LayerProblem], Result]:
    return lambda p: solve_quantization(p, n_bits, scale, method, max_nodes=max_nodes)


def _timed(solve, problems):
    start = time.process_time()
    results = [solve(problem) for problem in problems]
    return results, time.process_time() - start


def _with(certificates, solve, problems):
    results, took = _timed(solve, problems)
    return results, certificates, took


def _searched(result):
    """What a search alone has shown."""
    if not result.proven:
        return ENDED
    return RESTRICTED if "singular" in result.status else EXHAUSTIVE


def _certificate(result, problem, again, key):
    """The kind of certificate; ``again``: prove a finished search a second time."""
    kind = _searched(result)
    if kind == ENDED or not again:
        return kind
    certificate = verify(result, problem, max_nodes=_REPROOF_NODES)
    if certificate.kind == REFUTED:
        raise AssertionError(f"{key}: {certificate.status} {result}")
    if certificate.kind == DUAL or (certificate.kind == REPROVED and kind == EXHAUSTIVE):
        return certificate.kind
    return kind
