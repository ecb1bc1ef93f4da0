"""Learning rates tried at some budgets and taken over at the others."""

import dataclasses

import pytest

from pqlib.experiments.presets import STEP, Sweep
from pqlib.experiments.rate_choice import best_of, followers, nearest

MODELS = ("resnet18", "mobilenet_v2")
SWEPT = Sweep("laptop", MODELS, (2, 3, 4), seeds=(5, 6), powers=(-1, 0, 1), rates_at=(2, 4))
RATE = 0.01  # of power 0, in this preset


def record(config, validation, status="done"):
    rate = config.settings.learning_rate
    found = {"hash": config.hash, "status": status, "learning_rate": rate, "seed": config.seed}
    return found | ({"validation_value": validation} if status == "done" else {"reason": "x"})


def records_of(swept, scores):
    """All of the grid; ``scores`` gives power and validation of the best runs, by their cells."""
    found = {}
    for config, power in swept.grid():
        best, validation = scores[config.model, config.method, config.n_bits]
        found[config.hash] = record(config, validation if power == best else 1.0)
    return found


SCORES = {
    ("resnet18", "lsq", 2): (1, 50.0),
    ("resnet18", "lsq", 4): (-1, 9.0),
    ("resnet18", "prune", 2): (0, 40.0),
    ("resnet18", "prune", 4): (1, 60.0),
    ("mobilenet_v2", "lsq", 2): (-1, 40.0),
    ("mobilenet_v2", "lsq", 4): (1, 80.0),
    ("mobilenet_v2", "prune", 2): (1, 40.0),
    ("mobilenet_v2", "prune", 4): (0, 40.0),
}


def test_nearest():
    assert [nearest(n_bits, (2, 4, 8)) for n_bits in range(2, 9)] == [2, 4, 4, 4, 8, 8, 8]
    assert [nearest(n_bits, (8, 2, 4)) for n_bits in range(2, 9)] == [2, 4, 4, 4, 8, 8, 8]
    assert nearest(16, (3,)) == 3


def test_the_best_by_validation_and_then_the_smallest_rate():
    def run(rate, validation, value):
        return {"learning_rate": rate, "validation_value": validation, "value": value}

    runs = [run(0.3, 50.0, 99.0), run(0.1, 80.0, 70.0), run(0.03, 80.0, 71.0), run(0.01, 79.0, 9.0)]
    assert best_of(runs) is best_of(runs[::-1]) is runs[2]
    none = {"learning_rate": 0.001, "validation_value": None}
    assert best_of([none, {"learning_rate": 0.0001}, runs[0]]) is runs[0]


def test_the_grid_is_tried_at_some_budgets_with_the_first_seed():
    tried = SWEPT.grid()
    cells = {(c.model, c.method, c.n_bits, c.seed) for c, _ in tried}
    assert cells == {(*key, 5) for key in SCORES} and len(tried) == 3 * len(cells)
    for config, power in tried:
        assert config.settings.learning_rate == pytest.approx(RATE * STEP**power)
    assert SWEPT.cells()[4:] == [config for config, _ in tried]
    assert {c.method for c in SWEPT.cells()[:4]} == {"none"}
    found = [f.config for f in followers(SWEPT)]
    others = {(c.model, c.method, c.n_bits, c.seed) for c in found}
    assert others | cells == {
        (model, method, n_bits, seed)
        for model in MODELS
        for method in ("lsq", "prune")
        for n_bits in (2, 3, 4)
        for seed in (5, 6)
    }
    assert len(found) == len(others) and not others & cells


def test_without_rates_at_all_cells_are_there_and_nothing_follows():
    plain = dataclasses.replace(SWEPT, rates_at=None)
    assert followers(plain) == [] and len(plain.cells()) == 4 + 2 * 2 * 2 * 3 * 3
    everywhere = dataclasses.replace(plain, rates_at=(4, 3, 2), seeds=(5,))
    assert everywhere.cells() == dataclasses.replace(plain, seeds=(5,)).cells()
    assert followers(everywhere) == []


def test_methods_that_train_nothing_are_as_before():
    methods = ("none", "post_training_prune", "post_training_quantize", "lsq")
    swept = dataclasses.replace(SWEPT, methods=methods)
    plain = dataclasses.replace(swept, rates_at=None)
    kept = [c for c in swept.cells() if c.method != "lsq"]
    assert kept == [c for c in plain.cells() if c.method != "lsq"]
    assert {f.config.method for f in followers(swept)} == {"lsq"}


def test_rates_are_those_of_the_nearest_budget_for_the_same_model_and_method():
    found = followers(SWEPT, records_of(SWEPT, SCORES))
    assert len(found) == 2 * 2 * (1 + 3)
    for follower in found:
        config = follower.config
        power, _ = SCORES[config.model, config.method, 2 if config.n_bits == 2 else 4]
        assert follower.power == power
        # the very rate that the grid of this cell would have, and so the very hash
        own = dataclasses.replace(
            SWEPT, models=(config.model,), bits=(config.n_bits,), rates_at=None, powers=(power,)
        )
        assert config in own.cells()


def test_rates_are_open_until_all_that_choose_have_ended():
    records = records_of(SWEPT, SCORES)
    choosing = [
        c for c, _ in SWEPT.grid() if (c.model, c.method, c.n_bits) == (*MODELS[:1], "lsq", 4)
    ]
    best = choosing[0]  # of power -1

    def power(records):
        by_bits = {
            f.config.n_bits: f
            for f in followers(SWEPT, records)
            if (f.config.model, f.config.method, f.config.seed) == ("resnet18", "lsq", 5)
        }
        assert list(by_bits[3].choosing) == choosing
        if by_bits[3].power is None:
            assert by_bits[3].config.settings.learning_rate == RATE
        return by_bits[3].power

    assert power(records) == -1
    assert power(None) is None and power({}) is None
    assert power({k: v for k, v in records.items() if k != choosing[2].hash}) is None
    failed = {best.hash: record(best, 0, "failed")}
    assert power(records | failed) == 1  # of the two as good the smaller rate
    failed |= {choosing[2].hash: record(choosing[2], 0, "failed")}
    assert power(records | failed) == 0
    failed |= {choosing[1].hash: record(choosing[1], 0, "failed")}
    assert power(records | failed) is None


def test_test_images_and_other_seeds_have_no_part_in_the_choice():
    records = records_of(SWEPT, SCORES)
    expected = followers(SWEPT, records)
    for key in records:
        records[key] = records[key] | {"value": records[key]["learning_rate"] * 1e4}
    other = dataclasses.replace(SWEPT, seeds=(6,), rates_at=None)
    records |= {c.hash: record(c, 100.0) for c, power in other.grid() if power == 0}
    assert followers(SWEPT, records) == expected
