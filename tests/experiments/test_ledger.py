"""What is done stays done, whatever ends the run."""

import errno
import json
import multiprocessing
import os
import signal

import pytest

from pqlib.experiments.ledger import Ledger, config_hash


def test_records_come_back_as_they_were(tmp_path):
    record = {"a": [0.1, 1e-300, float("inf")], "b": None, "c": "ü", "d": True}
    with Ledger(tmp_path / "run", {"n": 1}) as ledger:
        assert ledger.get("x/0") is None
        ledger.add("x/0", record)
        ledger.add("x/0", record)
    with Ledger(tmp_path / "run", {"n": 1}) as again:
        assert again.get("x/0") == record and again.get("x/1") is None
    assert len([*(tmp_path / "run").glob("*.json")]) == 2


def test_another_config_is_refused(tmp_path):
    Ledger(tmp_path, {"layers": ("a",), "n": 1})
    Ledger(tmp_path, {"n": 1, "layers": ["a"]})
    for other in ({"n": 1}, {"layers": ["a"], "n": 2}):
        with pytest.raises(ValueError, match=r"other options.*delete the folder"):
            Ledger(tmp_path, other)
    (tmp_path / "config.json").write_text('{"n"')
    with pytest.raises(ValueError, match="other options"):
        Ledger(tmp_path, {"n": 1})


def test_hash_is_of_values_not_of_order():
    assert config_hash({"a": 1, "b": [2]}) == config_hash({"b": [2], "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2}) and len(config_hash({})) == 10


@pytest.mark.parametrize(
    "damage", [b"", b'{"key": "x", "rec', b"\xff\xfe", b"[1]", b'{"key": "y"}']
)
def test_a_damaged_unit_is_not_done(tmp_path, damage):
    with Ledger(tmp_path, {}) as ledger:
        ledger.add("x", {"a": 1})
        [path] = [p for p in tmp_path.glob("*.json") if p.name != "config.json"]
        path.write_bytes(damage)
        assert ledger.get("x") is None
        ledger.add("x", {"a": 1})
        assert ledger.get("x") == {"a": 1}


def test_torn_files_are_cleared_away(tmp_path):
    with Ledger(tmp_path, {}):
        (tmp_path / "abc.json.123.tmp").write_text('{"key"')
    with Ledger(tmp_path, {}):
        assert not [*tmp_path.glob("*.tmp")]


def hold(folder, ready):
    with Ledger(folder, {}):
        ready.set()
        signal.pause()


def test_a_second_process_is_refused_and_a_killed_one_forgotten(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    ledger = Ledger(tmp_path, {})
    with pytest.raises(ValueError, match="another process is at work"), ledger:
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with ledger:
        ledger.add("x", {})
    with ledger, pytest.raises(ValueError, match="another process"), Ledger(tmp_path, {}):
        pass


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path, monkeypatch):
    with Ledger(tmp_path, {}) as ledger:
        ledger.add("x", {"a": 1})

        def full(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            for key in ("x", "y"):
                with pytest.raises(OSError, match=r"No space left.*same command goes on"):
                    ledger.add(key, {"a": 2})
        assert ledger.get("x") == {"a": 1} and ledger.get("y") is None
    with Ledger(tmp_path, {}) as ledger:
        assert not [*tmp_path.glob("*.tmp")]
        ledger.add("y", {"a": 2})
        assert json.loads((tmp_path / "config.json").read_text()) == {}
