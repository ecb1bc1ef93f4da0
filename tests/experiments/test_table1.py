"""A sweep: every run has its row, nothing runs twice, and any end is taken up again."""

import dataclasses
import json
import os
import random
import shlex
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("torchmetrics", reason="the extra `training` is not installed")

import killing  # noqa: E402
from finetune_cases import CONFIG  # noqa: E402
from killing import ROOT, finish, kill, wait_for  # noqa: E402

from pqlib.cli import main  # noqa: E402
from pqlib.experiments import table1  # noqa: E402
from pqlib.experiments.engines import processes_of  # noqa: E402
from pqlib.experiments.ledger import Ledger  # noqa: E402
from pqlib.experiments.presets import Sweep  # noqa: E402
from pqlib.experiments.table1_run import cost, run_one  # noqa: E402
from pqlib.experiments.table1_run import run as run_sweep  # noqa: E402

TESTS = ROOT / "tests"
MEASURED = ["seconds", "command", "commit"]


def compressed(method, n_bits, base=CONFIG, **changes):
    return dataclasses.replace(base, method=method, n_bits=n_bits, baseline=base.hash, **changes)


SWEEP = Sweep(
    models=(CONFIG.model,), bits=(2, 4), changes={"size": 8, "baseline_epochs": 6, "epochs": 6}
)


def start(folder, *more):
    arguments = (
        *("run", "table1", "--models", CONFIG.model, "--folder", folder),
        *("--bits", "2,4", "--size", "8", "--baseline-epochs", "6", "--epochs", "6"),
        *("--checkpoint-seconds", "0", "--jobs", "2", *more),
    )
    return killing.start(arguments, folder.parent / f"{folder.name}.log", TESTS)


def numbers(folder):
    """All rows but what is a measurement or names this very run."""
    rows = pd.read_csv(folder / "runs.csv", dtype=str, keep_default_na=False)
    assert {*MEASURED} <= {*rows.columns}
    table = pd.read_csv(folder / "table1.csv", dtype=str, keep_default_na=False)
    keep = [name for name in table.columns if name not in MEASURED]
    return rows.drop(columns=[*MEASURED, "notes"]).to_csv(), table[keep].to_csv()


def workers_of(folder):
    """Processes at work on runs."""
    found = []
    for path in folder.glob("*/running"):
        pid = path.read_text()
        if pid and Path(f"/proc/{pid}").exists():
            found.append(int(pid))
    return found


@pytest.fixture(scope="module", autouse=True)
def found_by_workers():
    """Processes that this one starts find the toy network; one server of them for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(TESTS)]))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a sweep from beginning to end."""
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    assert run_sweep(SWEEP, folder, n_jobs=2) == (folder, 0)
    return folder


@pytest.fixture
def here(tmp_path):
    return tmp_path / "run"


def test_the_tables(whole):
    runs = pd.read_csv(whole / "runs.csv")
    assert len(runs) == 5 and (runs["status"] == "done").all()
    table = pd.read_csv(whole / "table1.csv")
    assert table["method"].tolist() == ["lsq", "lsq", "none", "prune", "prune"]
    assert table["n_bits"].tolist()[:2] == [2, 4] and table["fp_value"].nunique() == 1
    assert table["value"].max() > 40
    assert not [*whole.glob("*/checkpoint*")] and not [*whole.glob("**/*.tmp")]
    assert table["command"][0] == (
        "pqlib run table1 --preset smoke --models python:finetune_cases:tiny --methods lsq "
        "--bits 2 --size 8 --baseline-epochs 6 --epochs 6"
    )


def test_what_is_done_is_not_run_again(whole):
    before = {p: p.stat().st_mtime_ns for p in whole.glob("*.json")}
    expected = numbers(whole)
    shown = cost(SWEEP, whole)
    assert "5 runs, 5 of them in" in shown and "0.00 hours for the rest" in shown
    run_sweep(SWEEP, whole)
    assert before == {p: p.stat().st_mtime_ns for p in whole.glob("*.json")}
    assert numbers(whole) == expected


def kill_when(folder, process, condition, worker):
    """SIGKILL to the driver, or to a worker and soon after to the driver; all are gone then."""
    wait_for(condition, process)
    if worker:
        for pid in workers_of(folder)[:1]:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
    alive = kill(process)
    end = time.monotonic() + 30
    while workers_of(folder):  # they end with their driver
        assert time.monotonic() < end
        time.sleep(0.05)
    return alive


def test_killed_twice(whole, here):
    """The driver in the midst of the baseline; a worker and the driver in the midst of the rest."""
    process = start(here)
    assert kill_when(here, process, lambda: [*here.glob("*/checkpoint.pt")], worker=False)
    process = start(here)
    assert kill_when(here, process, lambda: [*here.glob("*/checkpoint.pt.before")], worker=True)
    run_sweep(SWEEP, here, n_jobs=2)
    assert numbers(here) == numbers(whole)


@pytest.mark.slow
def test_killed_twenty_times(whole, here):
    begun = time.monotonic()
    finish(start(here.parent / "timed"))
    seconds, rng, hits = time.monotonic() - begun, random.Random(1), 0
    for n in range(20):
        process = start(here)
        time.sleep(rng.uniform(0.3, 0.9) * seconds)
        hits += kill_when(here, process, lambda: True, worker=n % 2 == 1)
        if (here / "runs.csv").exists():  # it came to its end: begin again
            shutil.rmtree(here)
    finish(start(here))
    assert hits >= 12
    assert numbers(here) == numbers(whole)


def test_a_killed_worker_is_replaced_while_the_driver_lives(whole, here):
    lost, killed = [], []

    def on_event(config, kind, value):
        if kind == "at" and not killed:
            killed.append(int((here / config.hash / "running").read_text()))
            os.kill(killed[0], signal.SIGKILL)
        if kind == "lost":
            lost.append(value)

    table1.sweep(SWEEP.cells(), here, n_jobs=1, checkpoint_seconds=0, on_event=on_event)
    table1.export(here, SWEEP.cells(), {})
    assert lost == ["its process was ended by SIGKILL; perhaps for want of memory"]
    assert numbers(here) == numbers(whole)


def test_an_interruption_keeps_the_last_step(whole, here):
    def on_event(config, kind, value):
        if kind == "at" and config.method != "none":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table1.sweep(SWEEP.cells(), here, n_jobs=1, on_event=on_event)
    assert not workers_of(here)
    assert len(Ledger(here, table1.CONFIG).records()) == 1
    run_sweep(SWEEP, here, n_jobs=2)
    assert numbers(here) == numbers(whole)


@pytest.mark.slow
def test_a_real_ctrl_c(whole, here):
    process = start(here)
    wait_for(lambda: workers_of(here), process)
    process.send_signal(signal.SIGINT)
    assert "interrupted; the same command goes on from here" in finish(process, code=1)
    assert not workers_of(here)
    finish(start(here))
    assert numbers(here) == numbers(whole)


def test_every_mishap_has_its_row_and_the_rest_goes_on(here):
    mishaps = {
        "without_memory": "out of memory",
        "diverging": "the loss is nan",
        "killed": "ended by SIGKILL; perhaps for want of memory, 3 times in a row",
    }
    bad = {
        name: dataclasses.replace(CONFIG, model=f"python:finetune_cases:{name}") for name in mishaps
    }
    missing = dataclasses.replace(CONFIG, data="folder:/nowhere/at/all")
    after = compressed("lsq", 4, missing)
    good = compressed("lsq", 4)
    events = []
    configs = [*bad.values(), missing, CONFIG, after, good]
    records = table1.sweep(
        configs, here, n_jobs=1, on_event=lambda config, *event: events.append((config, *event))
    )
    for name, text in mishaps.items():
        record = records[bad[name].hash]
        assert record["status"] == "failed" and text in record["reason"], record["reason"]
    assert "nowhere" in records[missing.hash]["reason"]
    assert f"its baseline {missing.hash} failed" in records[after.hash]["reason"]
    assert records[good.hash]["status"] == records[CONFIG.hash]["status"] == "done"
    assert Ledger(here, table1.CONFIG).records() == records
    starts = [config.hash for config, kind, _ in events if kind == "started"]
    assert starts.count(bad["killed"].hash) == table1.ATTEMPTS
    assert starts.count(good.hash) == 1 and after.hash not in starts

    events.clear()  # what has failed is not tried again unless that is asked for
    kept = table1.sweep(configs, here, on_event=lambda *event: events.append(event[1]))
    assert kept == records and events == ["kept"] * 7
    some = [bad["diverging"], good]
    table1.sweep(
        some, here, retry_failed=True, on_event=lambda c, *e: events.append((c.model, e[0]))
    )
    assert ("python:finetune_cases:diverging", "started") in events
    assert ("python:finetune_cases:tiny", "started") not in events

    events.clear()
    some = {
        bad["diverging"].hash: bad["diverging"],
        bad["without_memory"].hash: bad["without_memory"],
    }
    table1.sweep(
        [*some.values()],
        here,
        n_jobs=1,
        retry_failed=[bad["diverging"].hash],
        on_event=lambda c, *e: events.append((c.model, e[0])),
    )
    assert ("python:finetune_cases:diverging", "started") in events
    assert ("python:finetune_cases:without_memory", "kept") in events


def test_a_damaged_baseline_is_trained_again(here):
    cells = [CONFIG, compressed("lsq", 4)]
    first = table1.sweep(cells, here, n_jobs=1)
    path = here / CONFIG.hash / "weights.pt"
    path.write_bytes(path.read_bytes()[:-7])
    more = compressed("prune", 4)
    events = []
    records = table1.sweep(
        [*cells, more], here, n_jobs=1, on_event=lambda c, *e: events.append((c.method, e[0]))
    )
    assert ("none", "started") in events and ("lsq", "started") not in events
    assert records[more.hash]["status"] == "done"
    assert records[CONFIG.hash]["fingerprint"] == first[CONFIG.hash]["fingerprint"]


def test_a_worker_that_is_lost_while_it_trains_a_damaged_baseline_again(here):
    """The row of the first training is there, and its network is not."""
    first = table1.sweep([CONFIG], here, n_jobs=1)
    (here / CONFIG.hash / "weights.pt").unlink()
    kinds, killed = [], []

    def on_event(config, kind, value):
        kinds.append((config.method, kind))
        if kind == "at" and not killed:
            killed.append(int((here / config.hash / "running").read_text()))
            os.kill(killed[0], signal.SIGKILL)

    more = compressed("lsq", 4)
    records = table1.sweep([CONFIG, more], here, n_jobs=1, checkpoint_seconds=0, on_event=on_event)
    assert kinds.count(("none", "lost")) == 1 and kinds.count(("none", "started")) == 2
    assert records[more.hash]["status"] == "done"
    assert records[CONFIG.hash]["fingerprint"] == first[CONFIG.hash]["fingerprint"]


def test_only_the_first_of_several_processes_has_a_row(here, monkeypatch):
    """The others say nothing, even where the row of an earlier attempt says that it failed."""
    from pqlib.experiments import finetune_run

    baseline = SWEEP.cells()[0]
    Ledger(here, table1.CONFIG).add(baseline.hash, {"status": "failed", "reason": "before"})
    monkeypatch.setattr(finetune_run, "run", lambda *_, **__: {})
    assert table1.work(baseline, here, 60.0, "") is None
    assert run_one(SWEEP, baseline.hash, here) == ""


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n_jobs": 0}, "n_jobs must be a whole number in 1"),
        ({"engine": "locl"}, "engine must be one of local, ray, got 'locl'"),
    ],
)
def test_where_to_run_is_checked(here, options, text):
    with pytest.raises(ValueError, match=text):
        table1.sweep([CONFIG], here, **options)


def patiently(report):
    while not report(None):
        time.sleep(0.01)


def test_a_gpu_takes_one_run_at_a_time_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    for n_jobs, more in ((None, False), (3, True)):
        with processes_of("local", n_jobs) as workers:
            assert workers.has_room(1, True)
            workers.start("a", patiently, n_threads=1, gpu=True)
            assert workers.has_room(1, True) is more and workers.has_room(1, False)
    swept = Sweep("gpu", ("resnet18",), bits=(4,))
    assert "with 1 at a time" in cost(swept, None) and "with 3 at a time" in cost(swept, None, 3)


def test_a_row_and_no_deletion_yet(here):
    """Killed after its row was written and before its checkpoint was deleted."""
    table1.sweep([CONFIG], here, n_jobs=1)
    leftover = here / CONFIG.hash / "checkpoint.pt"
    leftover.write_bytes(b"x")
    table1.sweep([CONFIG], here, n_jobs=1)
    assert not leftover.exists()


def test_runs_at_a_time_are_as_many_as_the_cores_have_threads_for(here, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)

    def baseline(seed, n_threads):
        settings = dataclasses.replace(CONFIG.settings, seed=seed, n_threads=n_threads)
        return dataclasses.replace(CONFIG, settings=settings)

    wide, other = baseline(0, 2), baseline(1, 2)
    narrow = [compressed("post_training_prune", bits) for bits in (2, 4)]
    narrow = [dataclasses.replace(config, baseline=wide.hash) for config in narrow]
    running, seen = set(), []

    def on_event(config, kind, value):
        if kind == "started":
            running.add(config)
            seen.append(set(running))
        elif kind in ("done", "failed"):
            running.discard(config)

    records = table1.sweep([wide, other, *narrow], here, on_event=on_event)
    assert {record["status"] for record in records.values()} == {"done"}
    assert seen == [{wide}, {other}, {narrow[0]}, set(narrow)]


def test_a_second_sweep_on_a_folder_is_refused(here):
    with (
        Ledger(here, table1.CONFIG),
        pytest.raises(ValueError, match="another process is at work"),
    ):
        table1.sweep([CONFIG], here)


def test_a_baseline_that_is_not_there_is_named(here):
    with pytest.raises(ValueError, match=f"the baseline {CONFIG.hash} of a run is not among"):
        table1.sweep([compressed("lsq", 4)], here)


def record_of(config, validation, value, status="done"):
    row = json.loads(json.dumps(table1._fields(config)))
    found = (
        {"validation_value": validation, "value": value} if status == "done" else {"reason": "x"}
    )
    return row | {"status": status} | found


def test_learning_rates_are_chosen_on_validation_images():
    def at(rate, **changes):
        settings = dataclasses.replace(CONFIG.settings, learning_rate=rate)
        return compressed("lsq", 4, settings=settings, **changes)

    records = [
        record_of(at(0.3), 50.0, 99.0),
        record_of(at(0.1), 80.0, 70.0),
        record_of(at(0.03), 80.0, 71.0),
        record_of(at(0.9), 0, 0, "failed"),
        record_of(compressed("lsq", 2), 0, 0, "failed"),
    ]
    todo = compressed("prune", 2)
    table = table1.table_of(records, [todo], {todo.hash: "pqlib run x"}).set_index(
        ["method", "n_bits"]
    )
    four = table.loc[("lsq", 4)]
    assert (four["value"], four["learning_rate"], four["at_edge"]) == (71.0, 0.03, True)
    assert (four["n_runs"], four["n_failed"]) == (3, 1)
    two = table.loc[("lsq", 2)]
    assert two["status"] == "failed" and two["reason"] == "x" and pd.isna(two["value"])
    assert table.loc[("prune", 2), "status"] == "not run: pqlib run x"
    assert len(table) == 3


def test_where_the_validation_images_come_from_belongs_to_the_cell():
    fixed, drawn = (compressed("lsq", 4, validation=kind) for kind in ("test", "train"))
    table = table1.table_of([record_of(fixed, 60.0, 50.0)], [fixed, drawn], {})
    assert table["status"].tolist() == ["done", "not run"] and len(table) == 2


def shared(**changes):
    """A sweep that tries rates at 4 bits and seed 0, none of them that of power 0."""
    return Sweep(
        models=(CONFIG.model,),
        bits=(2, 4),
        methods=("lsq",),
        seeds=(0, 1),
        powers=(5, 1),
        rates_at=(4,),
        changes={"size": 8, "baseline_epochs": 2, "epochs": 2},
        **changes,
    )


def test_a_rate_is_chosen_once_and_taken_over(here, tmp_path, capfd):
    swept = shared()
    assert run_sweep(swept, here, n_jobs=2) == (here, 0)
    assert "7/7" in capfd.readouterr().err
    runs = pd.read_csv(here / "runs.csv")
    assert len(runs) == 2 + 2 + 3 and (runs["status"] == "done").all()
    tried = runs[(runs["n_bits"] == 4) & (runs["seed"] == 0)]
    best = tried["validation_value"] == tried["validation_value"].max()
    assert tried["learning_rate"].nunique() == 2
    rate = tried[best]["learning_rate"].min()
    table = pd.read_csv(here / "table1.csv").dropna(subset="n_bits")
    assert len(table) == 4 and set(table["learning_rate"]) == {rate}
    taken = table[(table["n_bits"] == 2) | (table["seed"] == 1)]
    assert len(taken) == 3 and not taken["at_edge"].any() and (taken["n_runs"] == 1).all()
    for row in taken.itertuples():
        assert "--rates-at" not in row.command
        done = CliRunner().invoke(
            main, [*shlex.split(row.command)[1:], "--folder", str(here), "--dry-run"]
        )
        assert done.exit_code == 0 and "2 runs, 2 of them in" in done.output
        assert row.hash in done.output
        assert run_one(swept, row.hash, here).startswith(f"{row.hash} {CONFIG.model} lsq")

    before = {p: p.stat().st_mtime_ns for p in here.glob("*.json")}
    expected = numbers(here)
    assert "7 runs, 7 of them in" in cost(swept, here)
    assert run_sweep(swept, here, retry_failed=True) == (here, 0)
    assert before == {p: p.stat().st_mtime_ns for p in here.glob("*.json")}
    assert numbers(here) == expected

    alone = taken.iloc[-1]  # with its baseline, in a folder of its own
    words = shlex.split(alone["command"])[1:]
    done = CliRunner().invoke(main, [*words, "--folder", str(tmp_path / "alone"), "--jobs", "1"])
    assert done.exit_code == 0, done.output
    again = pd.read_csv(tmp_path / "alone" / "runs.csv").set_index("hash")
    assert len(again) == 2 and alone["hash"] in again.index
    assert again.loc[alone["hash"], "value"] == alone["value"]


def test_without_a_run_to_choose_from_nothing_is_taken_over(here, capfd):
    swept = dataclasses.replace(shared(), models=("python:finetune_cases:without_memory",))
    assert run_sweep(swept, here, n_jobs=1) == (here, 2 + 2 + 3)
    said = " ".join(capfd.readouterr().err.split())
    assert "lsq 2 bits, seed 1: not run, since none of the runs that were to choose its" in said
    assert "(4 bits, seed 0) is done" in said and said.count(": not run, since") == 3
    table = pd.read_csv(here / "table1.csv").dropna(subset="n_bits").set_index(["n_bits", "seed"])
    assert table.loc[(4, 0), "status"] == "failed"
    for cell in ((2, 0), (2, 1), (4, 1)):
        assert table.loc[cell, "status"].startswith("not run: pqlib run table1")
        assert "--rates-at" not in table.loc[cell, "status"]
    shown = cost(swept, here)
    assert shown.count("not run") == 3 and "7 runs, 4 of them in" in shown


def test_failed_runs_are_tried_again_once_and_what_follows_then(here, monkeypatch):
    """The two sweeps behind a sweep with ``rates_at``, with rows made up."""
    swept, calls = shared(), []
    monkeypatch.setattr(table1, "export", lambda *_: None)

    def sweep(configs, folder, *, retry_failed, **_):
        calls.append((configs, retry_failed))
        return {c.hash: record_of(c, 10.0 * c.settings.learning_rate, 0) for c in configs}

    monkeypatch.setattr(table1, "sweep", sweep)
    assert run_sweep(swept, here, retry_failed=True) == (here, 0)
    (first, all_again), (second, some) = calls
    assert first == swept.cells() and all_again is True
    assert second[:4] == first and {c.hash for c in second[4:]} == set(some)
    rates = {c.settings.learning_rate for c, power in swept.grid() if power == 1}
    assert {c.settings.learning_rate for c in second[4:]} == rates and len(second) == 7

    calls.clear()
    assert run_sweep(dataclasses.replace(swept, rates_at=None), here) == (here, 0)
    assert len(calls) == 1 and calls[0][1] is False


@pytest.mark.slow
def test_ray(whole, tmp_path):
    pytest.importorskip("ray")
    finish(start(tmp_path / "run", "--engine", "ray"))
    assert numbers(tmp_path / "run") == numbers(whole)
