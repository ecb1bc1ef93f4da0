"""Sums, budgets and verdicts on records made by hand, then on small layers solved for real."""

import numpy as np
import pandas as pd
import pytest

from pqlib.bounds.scale_interval import ScaleInterval
from pqlib.experiments.channel_optima import (
    ENDED,
    EXHAUSTIVE,
    OUTPUT_GRID,
    RESTRICTED,
    Unit,
    kept_weights,
    solve_unit,
)
from pqlib.experiments.layer_table import (
    CHANNEL,
    CHANNEL_UP,
    COLUMNS,
    LAYER,
    TOTAL,
    layer_table,
)
from pqlib.experiments.layer_verdicts import (
    BUDGET,
    LOSSLESS,
    OPEN,
    PRUNING,
    QUANTIZATION,
    judge,
    layer_verdicts,
    open_to_scale,
)

EXACT = 1 - 1e-11  # lower of a proven optimum, of its upper


def unit(chunk=0, layer="conv", n=4, channels=2):
    return Unit(
        key=f"{layer}/{chunk}",
        layer=layer,
        kind="conv",
        chunk=chunk,
        channels=tuple(range(channels)),
        grams=np.eye(n)[None],
        weights=np.ones((channels, n)),
        scales={},
    )


def result(method, uppers, choice="", scale=None, lowers=None, certificate=EXHAUSTIVE):
    return {
        "method": method,
        "n_bits": 8,
        "scale_choice": choice,
        "scale": scale,
        "lower": lowers or [EXACT * u for u in uppers],
        "upper": uppers,
        "certificate": [certificate] * len(uppers),
        "seconds": 0.5,
    }


# errors at 0..4 non-zeros; 8 bits keep 2 of 4, or 4 of both channels together
CURVES = [[100.0, 60.0, 10.0, 9.0, 0.0], [50.0, 1.0, 0.5, 0.2, 0.0]]


def record(quantized, curves=CURVES, n=4, certificates=None):
    """``quantized``: errors by channel at the tensor's, the chunk's and the output scale."""
    certificates = certificates or [[EXHAUSTIVE] * (n + 1)] * len(curves)
    keeps = kept_weights(n, 8)
    tensor, chunk, output = quantized
    return {
        "n": n,
        "energy": [curve[0] for curve in curves],
        "curve_upper": curves,
        "curve_lower": [
            [0.0 if kind == ENDED else EXACT * e for e, kind in zip(curve, kinds, strict=True)]
            for curve, kinds in zip(curves, certificates, strict=True)
        ],
        "curve_certificate": certificates,
        "results": [
            result("prune_exact", [curve[keeps] for curve in curves])
            | {"certificate": [kinds[keeps] for kinds in certificates]}
            | {
                "lower": [
                    0.0 if k[keeps] == ENDED else EXACT * c[keeps]
                    for c, k in zip(curves, certificates, strict=True)
                ]
            },
            result("prune_magnitude", [70.0, 30.0], lowers=[0.0, 0.0], certificate="feasible only"),
            result("quantize_exact", tensor, "tensor", 0.5),
            result("quantize_exact", chunk, "chunk", 0.4),
            result("quantize_exact", output, "output", 0.3),
        ],
    }


def cell(table, column, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    [value] = table[column]
    return value


def test_sums_over_channels_and_chunks():
    one = record(([3.0, 4.0], [2.0, 2.0], [1.0, 2.0]))
    two = record(([1.0, 1.0], [1.0, 1.0], [0.5, 0.5]))
    two["results"][4] |= {"scale": 0.6, "certificate": ["re-proved", EXHAUSTIVE]}
    table = layer_table("toy", [(unit(0), one), (unit(3), two)])
    assert table.columns.tolist() == list(COLUMNS)
    assert table["chunk"].unique().tolist() == ["0", "3", TOTAL]
    assert len(table) == 3 * 7 and not table["certificate"].isna().any()
    tensor = {"method": "quantize_exact", "scale_choice": "tensor"}
    assert [cell(table, "upper", chunk=c, **tensor) for c in ("0", "3", TOTAL)] == [7.0, 2.0, 9.0]
    assert cell(table, "lower", chunk=TOTAL, **tensor) == pytest.approx(9 * EXACT, rel=1e-15)
    assert cell(table, "energy", chunk=TOTAL, **tensor) == 300.0
    assert cell(table, "channels", chunk=TOTAL, **tensor) == 4
    assert cell(table, "scale", chunk=TOTAL, **tensor) == 0.5
    assert cell(table, "seconds", chunk=TOTAL, **tensor) == 1.0
    assert cell(table, "sqnr_db", chunk="0", **tensor) == pytest.approx(10 * np.log10(150 / 7))
    output = {"method": "quantize_exact", "scale_choice": "output"}
    assert np.isnan(cell(table, "scale", chunk=TOTAL, **output))
    assert cell(table, "upper", chunk=TOTAL, **output) == 4.0
    assert cell(table, "reproved", chunk=TOTAL, **output) == 1
    assert cell(table, "certificate", chunk=TOTAL, **output) == EXHAUSTIVE
    magnitude = {"method": "prune_magnitude", "chunk": "0"}
    assert cell(table, "upper", **magnitude) == 100.0
    assert cell(table, "certificate", **magnitude) == "feasible only"
    assert cell(table, "unproven", **magnitude) is pd.NA


def test_budgets():
    """By hand: 2 non-zeros each cost 10.5; of 4 in all the best split is 3 + 1 (10.0) or 2 + 2."""
    table = layer_table("toy", [(unit(), record(([3.0, 4.0],) * 3))])
    prune = {"method": "prune_exact"}
    assert cell(table, "upper", budget=CHANNEL, **prune) == 10.5
    assert cell(table, "upper", budget=LAYER, **prune) == 10.0
    assert [cell(table, "n_nonzero", budget=b, **prune) for b in (CHANNEL, CHANNEL_UP, LAYER)] == [
        4
    ] * 3
    assert cell(table, "upper", budget=CHANNEL_UP, **prune) == 10.5  # 2 of 4: no rounding
    assert cell(table, "lower", budget=LAYER, **prune) == pytest.approx(10.0, rel=1e-10)
    assert set(table["unproven"].dropna()) == {0}


def test_both_roundings():
    """9 weights at 3 bits: 1.6875 are worth as many bits, so 2 or 1; of 18 weights 4."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 9))
    small = Unit(
        "dw/0", "dw", "depthwise", 0, (0, 5), np.stack([x.T @ x, 2 * x.T @ x]),
        rng.normal(size=(2, 9)), {("tensor", 3): 0.4, ("chunk", 3): 0.4},
    )  # fmt: skip
    solved = [(small, solve_unit(small, (3,), 10**8, 0.0, 0))]
    table = layer_table("toy", solved)
    prune = {"method": "prune_exact"}
    kept = {b: cell(table, "n_nonzero", budget=b, **prune) for b in (CHANNEL, CHANNEL_UP, LAYER)}
    assert kept == {CHANNEL: 4, CHANNEL_UP: 2, LAYER: 4}
    errors = {b: cell(table, "upper", budget=b, **prune) for b in kept}
    assert errors[LAYER] <= errors[CHANNEL] < errors[CHANNEL_UP]


def test_an_open_search_makes_the_layer_open_only_where_it_matters():
    kinds = [[EXHAUSTIVE, EXHAUSTIVE, ENDED, EXHAUSTIVE, EXHAUSTIVE], [EXHAUSTIVE] * 5]
    table = layer_table("toy", [(unit(), record(([3.0, 4.0],) * 3, certificates=kinds))])
    prune = {"method": "prune_exact"}
    for budget in (CHANNEL, LAYER):
        assert cell(table, "unproven", budget=budget, **prune) == 1
        assert cell(table, "certificate", budget=budget, **prune) == ENDED
    assert cell(table, "lower", budget=LAYER, **prune) == pytest.approx(0.5)  # 0 + 0.5 at 2 + 2
    kinds = [[EXHAUSTIVE] * 5, [EXHAUSTIVE, EXHAUSTIVE, EXHAUSTIVE, ENDED, EXHAUSTIVE]]
    table = layer_table("toy", [(unit(), record(([3.0, 4.0],) * 3, certificates=kinds))])
    assert cell(table, "unproven", budget=LAYER, **prune) == 0  # 1 + 3 costs 60 at least
    assert cell(table, "certificate", budget=LAYER, **prune) == EXHAUSTIVE


JUDGED = [
    # quantization (lower, upper), pruning per channel, pruning per layer
    ((1, 1), (2, 2), (3, 3), QUANTIZATION),
    ((0, 1), (1.5, 2), (1.1, 3), QUANTIZATION),
    ((5, 5), (2, 2), (3, 3), PRUNING),
    ((5, 9), (0, 2), (0, 4), PRUNING),
    ((5, 5), (2, 2), (6, 6), BUDGET),
    ((5, 5), (8, 8), (4, 4), BUDGET),
    ((5, 5), (2, 2), (4, 6), OPEN),
    ((1, 3), (2, 2), (4, 4), OPEN),
    ((0, 5), (2, 2), (2, 2), OPEN),
    ((2, 2), (2, 2), (2, 2), OPEN),
    ((0, 0), (0, 0), (0, 0), LOSSLESS),
    ((0, 1e-13), (0, 0), (0, 1e-13), LOSSLESS),
    ((1, 1), (0, 0), (0, 0), PRUNING),
    ((0, 0), (1, 1), (1, 1), QUANTIZATION),
]


@pytest.mark.parametrize(("quantize", "channel", "layer", "expected"), JUDGED)
def test_judge(quantize, channel, layer, expected):
    assert judge(quantize, {CHANNEL: channel, LAYER: layer}, energy=10.0) == expected


def interval(exceeds):
    return lambda *case: ScaleInterval(exceeds, 0.25, 1.0, 11.0, 0.333, 10.6, 9)


VERDICTS = [
    # errors at the tensor's, chunk's, output scale; pruning costs 10.5 (channel) and 10 (layer)
    ((4.0, 4.0, 3.0), None, QUANTIZATION, QUANTIZATION, "quantization wins"),
    ((20.0, 20.0, 9.0), None, PRUNING, QUANTIZATION,
     "quantization wins at the best scale; at the tensor's, pruning wins"),
    ((20.0, 10.2, 15.0), None, PRUNING, BUDGET,
     "depends on the budget at the best scale; at the tensor's, pruning wins"),
    ((10.2, 10.2, 9.0), None, BUDGET, QUANTIZATION,
     "quantization wins at the best scale; at the tensor's, depends on the budget"),
    ((10.2, 10.2, 10.1), None, BUDGET, BUDGET, "depends on the budget"),
    ((20.0, 19.0, 12.0), None, PRUNING, PRUNING,
     "pruning wins at the scales tried; between them it is not proven"),
    ((20.0, 19.0, 12.0), interval(None), PRUNING, PRUNING,
     "pruning wins at the scales tried; between them it is not proven"),
    ((20.0, 19.0, 12.0), interval(False), PRUNING, PRUNING,
     "pruning wins at the scales tried, but not at 0.333"),
    ((20.0, 19.0, 12.0), interval(True), PRUNING, PRUNING,
     "pruning wins at every scale in [0.25, 1]"),
]  # fmt: skip


@pytest.mark.parametrize(("errors", "found", "tensor", "best", "sentence"), VERDICTS)
def test_verdicts(errors, found, tensor, best, sentence):
    solved = [(unit(), record([[e / 2, e / 2] for e in errors]))]
    table = layer_table("toy", solved)
    [row] = layer_verdicts(table, found).to_dict("records")
    assert row["at_tensor_scale"] == tensor and row["at_best_scale"] == best
    assert row["verdict"] == sentence and row["certificate"] == EXHAUSTIVE
    assert row["quantize_db"] == pytest.approx(10 * np.log10(150 / errors[0]))
    assert row["quantize_best_db"] == pytest.approx(10 * np.log10(150 / min(errors)))
    assert row["prune_layer_db"] == pytest.approx(10 * np.log10(15))
    everywhere = "every" in sentence
    assert (row["scale_low"] == 0.25) == (row["scale_high"] == 1.0) == everywhere
    assert (row["beaten_at"] == 0.333) == ("but not" in sentence)
    asked = open_to_scale(table)
    assert asked == ({("conv", "0", 8): (10.5, 0.25, 1.0)} if best == PRUNING else {})


def test_open_and_restricted_searches_are_not_hidden():
    kinds = [[EXHAUSTIVE, ENDED, ENDED, ENDED, EXHAUSTIVE], [EXHAUSTIVE] * 5]
    table = layer_table("toy", [(unit(), record(([4.0, 4.0],) * 3, certificates=kinds))])
    [row] = layer_verdicts(table).to_dict("records")
    assert row["verdict"] == OPEN and row["certificate"] == ENDED
    table = layer_table("toy", [(unit(), record(([9.0, 9.0],) * 3, certificates=kinds))])
    [row] = layer_verdicts(table).to_dict("records")
    assert row["at_best_scale"] == PRUNING and row["certificate"] == ENDED  # upper bounds suffice
    kinds = [[RESTRICTED] * 5] * 2
    table = layer_table("toy", [(unit(), record(([1.0, 1.0],) * 3, certificates=kinds))])
    [row] = layer_verdicts(table).to_dict("records")
    assert (
        row["verdict"] == "quantization wins (pruned weights restricted, as the gram is singular)"
    )
    assert row["certificate"] == RESTRICTED


def test_a_sum_of_chunks_says_common():
    hard = record(([9.0, 9.0],) * 3)
    table = layer_table("toy", [(unit(0), hard), (unit(1), hard)])
    rows = layer_verdicts(table, interval(True)).set_index("chunk")["verdict"]
    assert rows["0"] == "pruning wins at every scale in [0.25, 1]"
    assert rows[TOTAL] == "pruning wins at every common scale in [0.25, 1]"


@pytest.mark.parametrize("kind", ["dead inputs", "dead weights"])
def test_nothing_to_lose(kind):
    grams, weights = np.eye(3)[None], np.ones((2, 3))
    dead = Unit(
        "dw/0", "dw", "depthwise", 0, (0, 1),
        0 * grams if kind == "dead inputs" else grams,
        0 * weights if kind == "dead weights" else weights,
        {("tensor", 4): 0.2, ("chunk", 4): 0.2},
    )  # fmt: skip
    record = solve_unit(dead, (4,), 10**6, 1.0, 0)
    table = layer_table("toy", [(dead, record)])
    assert (table[["energy", "lower", "upper"]] == 0).all(axis=None)
    assert table["sqnr_db"].isna().all()
    exact = table[table["method"].str.endswith("exact")]
    assert (exact["unproven"] == 0).all() and ENDED not in set(exact["certificate"])
    [row] = layer_verdicts(table).to_dict("records")
    assert row["verdict"] == "no output to lose" and row["at_tensor_scale"] == LOSSLESS


def test_one_dead_channel_among_others():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 5))
    mixed = Unit(
        "dw/0", "dw", "depthwise", 0, (0, 1), np.stack([x.T @ x, np.zeros((5, 5))]),
        rng.normal(size=(2, 5)), {("tensor", 4): 0.2, ("chunk", 4): 0.2},
    )  # fmt: skip
    table = layer_table("toy", [(mixed, solve_unit(mixed, (4,), 10**6, 1.0, 0))])
    exact = table[table["method"].str.endswith("exact")]
    assert np.isfinite(table["sqnr_db"]).all() and (exact["unproven"] == 0).all()
    # the live channel takes the dead one's non-zeros
    budgets = exact[exact["method"] == "prune_exact"].set_index("budget")["upper"]
    assert budgets[LAYER] < budgets[CHANNEL]
    assert layer_verdicts(table)["verdict"].notna().all()


def test_fewer_rows_than_inputs():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4, 8))
    singular = Unit(
        "fc/0", "fc", "linear", 0, (0, 1), (x.T @ x)[None], rng.normal(size=(2, 8)),
        {("tensor", b): 0.4 for b in (4, 8)} | {("chunk", b): 0.4 for b in (4, 8)},
    )  # fmt: skip
    assert singular.singular
    table = layer_table("toy", [(singular, solve_unit(singular, (4, 8), 10**7, 1.0, 0))])
    exact = table[table["method"].str.endswith("exact")]
    assert (exact["lower"] <= exact["upper"]).all() and not table["upper"].isna().any()
    channel = exact[(exact["budget"] == CHANNEL)].set_index("n_bits")
    assert channel.loc[8, "upper"] <= 1e-13 * channel.loc[8, "energy"]  # 4 kept span the rows
    assert channel.loc[4, "certificate"] == RESTRICTED  # 2 kept do not
    verdicts = layer_verdicts(table).set_index("n_bits")
    assert verdicts.loc[8, "at_tensor_scale"] == PRUNING
    if verdicts.loc[4, "at_tensor_scale"] == QUANTIZATION:
        assert "restricted" in verdicts.loc[4, "verdict"]


def test_not_singular():
    x = np.random.default_rng(3).normal(size=(30, 4))
    x[:, 3] = 0.0
    x[:, 2] = x[:, 1]
    assert not unit().singular
    dead_and_equal = Unit("a/0", "a", "conv", 0, (0,), (x.T @ x)[None], np.ones((1, 4)), {})
    assert not dead_and_equal.singular


def test_output_scale_is_the_best_of_the_grid():
    """Against every scale solved to the end."""
    from pqlib.bounds.quantization import solve_quantization

    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 10)) @ rng.normal(size=(10, 10))
    own = Unit(
        "c/0", "c", "conv", 0, (0, 1, 2), (x.T @ x)[None], rng.normal(size=(3, 10)),
        {("tensor", b): 1.6 / 2**b for b in (2, 4)} | {("chunk", b): 1.5 / 2**b for b in (2, 4)},
    )  # fmt: skip
    record = solve_unit(own, (2, 4), 10**8, 0.3, 0)
    for b in (2, 4):
        errors = {
            f * 1.6 / 2**b: sum(
                solve_quantization(p, b, f * 1.6 / 2**b).upper for p in own.problems()
            )
            for f in OUTPUT_GRID
        }
        [found] = [
            r for r in record["results"] if r["scale_choice"] == "output" and r["n_bits"] == b
        ]
        assert errors[found["scale"]] == min(errors.values())
        assert sum(found["upper"]) == pytest.approx(min(errors.values()), rel=1e-12)
        assert sum(found["lower"]) == pytest.approx(min(errors.values()), rel=1e-9)
        assert set(found["certificate"]) <= {EXHAUSTIVE, "re-proved"}


def test_few_nodes_end_early_and_say_so():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(60, 24)) * np.geomspace(1, 30, 24)
    x += x[:, :1]
    hard = Unit(
        "c/0", "c", "conv", 0, (0, 1), (x.T @ x)[None], rng.normal(size=(2, 24)),
        {("tensor", 2): 0.3, ("chunk", 2): 0.3},
    )  # fmt: skip
    cut = layer_table("toy", [(hard, solve_unit(hard, (2,), 1, 1.0, 0))])
    full = layer_table("toy", [(hard, solve_unit(hard, (2,), 10**8, 1.0, 0))])
    for name in ("tensor", "chunk", "output"):
        few, all_ = (
            t[(t["method"] == "quantize_exact") & (t["scale_choice"] == name)].iloc[0]
            for t in (cut, full)
        )
        assert few["lower"] <= all_["upper"] and few["upper"] >= all_["lower"]
        assert all_["unproven"] == 0
    assert set(cut.loc[cut["scale_choice"] == "output", "certificate"]) == {ENDED}
    verdicts = layer_verdicts(cut)
    assert verdicts["certificate"].tolist() == [ENDED]
