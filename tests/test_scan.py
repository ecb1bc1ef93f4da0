"""Scans of whole checkpoints: the table, what goes wrong in it, going on where it stopped."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hostile_files import hostile_file

from pqlib import scan, scan_command, scan_tensor
from pqlib.cli import main
from pqlib.scan import COLUMNS, Ledger, as_table, read_table, write_table


@pytest.fixture
def checkpoint(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "stem.weight": rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "stem.bias": rng.normal(size=8),
        "dw.weight": rng.normal(size=(8, 1, 3, 3)),
        "broken.weight": np.full((2, 2), np.nan),
        "empty.weight": np.zeros((0, 4)),
        "counts": np.ones((3, 3), dtype=np.int64),
        "twin.weight": np.zeros((4, 6)),
        "head.weight": rng.standard_t(3, (10, 8)),
    }
    arrays["tied.weight"] = arrays["head.weight"]
    path = tmp_path / "net.npz"
    np.savez(path, **arrays)
    return str(path), arrays


def test_one_row_per_weight_tensor_and_budget(checkpoint):
    path, arrays = checkpoint
    table = scan(path, [2, 4])
    assert table.columns.tolist() == COLUMNS
    layers = [name for name, a in arrays.items() if a.ndim >= 2]
    assert table["layer"].unique().tolist() == layers
    assert len(table) == 2 * len(layers)
    measured = table[table["skipped"] == ""]
    for row in measured.itertuples():
        record = scan_tensor(arrays[row.layer], row.n_bits)
        assert row.quant_mse == record.quant_mse and row.prune_mse == record.prune_mse
        assert row.shape == "x".join(map(str, arrays[row.layer].shape))
    assert set(table.loc[table["skipped"] != "", "layer"]) == {
        "broken.weight",
        "empty.weight",
        "counts",
    }
    shared = table.set_index("layer")["shared_with"]
    assert set(shared["tied.weight"]) == {"head.weight"} and set(shared["head.weight"]) == {""}
    kinds = table.drop_duplicates("layer").set_index("layer")["kind"]
    assert kinds[["stem.weight", "dw.weight", "head.weight"]].tolist() == [
        "conv2d",
        "depthwise",
        "linear",
    ]
    assert (table["model"] == "net").all()
    zeros = measured[measured["layer"] == "twin.weight"]
    assert zeros["winner"].tolist() == ["neither"] * 2


def test_a_reason_stands_in_the_row(checkpoint):
    table = scan(checkpoint[0], 4).set_index("layer")
    assert "finite" in table.loc["broken.weight", "skipped"]
    assert "int64" in table.loc["counts", "skipped"]
    assert table.loc["broken.weight", ["quant_mse", "prune_mse", "kurtosis"]].isna().all()
    assert table.loc["broken.weight", "winner"] == ""


def test_a_checkpoint_that_cannot_be_read_is_a_row_and_the_rest_goes_on(checkpoint, tmp_path):
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(b"PK\x03\x04 not a zip")
    table = scan([str(damaged), checkpoint[0]], 4)
    first = table.iloc[0]
    assert first["model"] == "damaged" and first["skipped"] and pd.isna(first["n_bits"])
    assert (table["skipped"] == "").sum() == 5


@pytest.mark.parametrize("ending", (".csv", ".parquet"))
def test_tables_survive_the_disk(checkpoint, tmp_path, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    table = scan(checkpoint[0], [2, 8])
    path = write_table(table, tmp_path / f"rows{ending}")
    pd.testing.assert_frame_equal(read_table(path), table, check_exact=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.npz", path.name]


def test_bad_arguments():
    for arguments, message in (
        (("nosuch.npz",), "not a file"),
        (([],), "source must name"),
        (("pip:efficientnet-lite0", []), "n_bits must name"),
        (("pip:efficientnet-lite0", 1), "n_bits must be"),
        (("pip:efficientnet-lite0", [4, 17]), "n_bits must be"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            scan(*arguments)
    with pytest.raises(ValueError, match="granularity must be one of tensor, channel"):
        scan("pip:efficientnet-lite0", 4, granularity="row")
    with pytest.raises(ValueError, match=r"out must end in \.csv or \.parquet"):
        write_table(as_table([]), "rows.xlsx")


def test_parquet_without_pyarrow_is_refused_before_the_scan(monkeypatch, checkpoint):
    monkeypatch.setattr(sys.modules["pqlib.scan"], "find_spec", lambda name: None)
    done = command(checkpoint[0], "--out", "rows.parquet")
    assert done.exit_code == 1 and "pip install 'pqlib[parquet]'" in done.output


def test_read_table_refuses_another_table(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="lacks model"):
        read_table(tmp_path / "other.csv")


class Stop(BaseException):
    """As Ctrl-C, but of no other origin."""


@pytest.mark.parametrize("torn", (False, True))
def test_an_interrupted_scan_goes_on(checkpoint, tmp_path, monkeypatch, torn):
    path, arrays = checkpoint
    out = tmp_path / "rows.csv"
    whole = scan(path, [2, 4])
    measured, rows_of = [], scan_command.scan_checkpoint

    def three_only(*args):
        for group in rows_of(*args):
            if len(measured) == 3:
                raise Stop
            measured.append(group[0]["layer"])
            yield group

    monkeypatch.setattr(scan_command, "scan_checkpoint", three_only)
    with pytest.raises(Stop):
        scan_command.run([path], [2, 4], "tensor", out, False, 1)
    ledger = tmp_path / "rows.csv.ledger.jsonl"
    assert not out.exists() and ledger.exists()
    if torn:
        ledger.write_text(ledger.read_text()[:-20])
    monkeypatch.setattr(scan_command, "scan_checkpoint", rows_of)
    again = []
    rows = sys.modules["pqlib.scan"]._rows  # pqlib.scan is the function
    monkeypatch.setattr(
        sys.modules["pqlib.scan"], "_rows", lambda t, *args: again.append(t.name) or rows(t, *args)
    )
    assert not scan_command.run([path], [2, 4], "tensor", out, False, 1)
    pd.testing.assert_frame_equal(read_table(out), whole)
    names = [name for name, a in arrays.items() if a.ndim >= 2]
    assert again == names[2 if torn else 3 :]
    assert not ledger.exists()


def test_a_ledger_of_another_scan_is_refused(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, {"sources": ["a"]}) as ledger:
        ledger.add("a", [{"layer": "x"}])
    with pytest.raises(ValueError, match=r"other sources or options.*delete the file"):
        Ledger(path, {"sources": ["b"]})
    assert Ledger(path, {"sources": ["a"]}).n_done("a") == 1


def test_rows_keep_infinity_in_the_ledger(tmp_path):
    with Ledger(tmp_path / "l.jsonl", {}) as ledger:
        ledger.add("a", [{"quant_sqnr_db": np.inf, "kurtosis": np.nan}])
    row = Ledger(tmp_path / "l.jsonl", {}).rows()[0]
    assert row["quant_sqnr_db"] == np.inf and np.isnan(row["kurtosis"])


def command(*arguments):
    return CliRunner().invoke(main, ["scan", *map(str, arguments)])


def test_the_command(checkpoint, tmp_path):
    out = tmp_path / "rows.csv"
    done = command(checkpoint[0], "--bits", "2,4-5", "--out", out, "--jobs", 2)
    assert done.exit_code == 0, done.output
    assert sorted(read_table(out)["n_bits"].unique()) == [2, 4, 5]
    assert "skipped net counts: " in " ".join(done.output.split())
    refused = command(checkpoint[0], "--out", out)
    assert refused.exit_code == 1 and "--overwrite" in refused.output
    assert command(checkpoint[0], "--bits", "3", "--out", out, "--overwrite").exit_code == 0
    assert read_table(out)["n_bits"].unique().tolist() == [3]
    assert "quantization wins" in " ".join(command(checkpoint[0], "--bits", 4).output.split())


@pytest.mark.parametrize("bits", ("1-3", "x", "2,2", "", "8-2", "17", "2.5"))
def test_the_command_refuses_bits(checkpoint, bits):
    done = command(checkpoint[0], "--bits", bits)
    assert done.exit_code == 2 and "bit-widths" in done.output


def test_the_command_fails_where_nothing_could_be_measured(tmp_path):
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(b"junk")
    out = tmp_path / "rows.csv"
    done = command(damaged, "--out", out)
    assert done.exit_code == 1 and "skipped damaged: " in " ".join(done.output.split())
    assert len(read_table(out)) == 1
    config = json.loads((tmp_path / "rows.csv.ledger.jsonl").read_text().splitlines()[0])
    assert config["sources"] == [str(damaged)]


_MEASURED = """
import pathlib, re, sys
import numpy as np
from pqlib import scan, scan_tensor_bits

def peak():  # of this process alone; getrusage begins at the peak of the one that started it
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", status)[1])

scan_tensor_bits(np.ones((40, 50), np.float32), [4])  # compile
before = peak()
table = scan(sys.argv[1], [4], n_jobs=2)
assert len(table) == 128 and (table["skipped"] == "").all()
print(peak() - before)
"""


def test_memory_is_that_of_one_tensor(tmp_path):
    """512 MB of shards; a tensor is 8 MB in float64."""
    save_file = pytest.importorskip("safetensors.numpy").save_file
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak memory of a process is read from /proc")
    block = np.random.default_rng(0).standard_normal((1024, 1024), dtype=np.float32)
    for shard in range(8):
        tensors = {f"{shard}.{i}.weight": block * (1 + shard * 16 + i) for i in range(16)}
        save_file(tensors, tmp_path / f"model-{shard}.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert 8 * 2**20 <= int(done.stdout) <= 4 * 8 * 2**20 + 64 * 2**20


@pytest.mark.parametrize(
    "seeds", [range(200), pytest.param(range(200, 2000), marks=pytest.mark.slow)], ids=len
)
@pytest.mark.filterwarnings("ignore")  # of torch, about what it is given to read
def test_hostile_files_are_rows_that_say_why(tmp_path, seeds):
    canary = tmp_path / "canary"
    reasons = 0
    for seed in seeds:
        (tmp_path / str(seed)).mkdir()
        path = hostile_file(tmp_path / str(seed), seed, canary)
        table = scan(str(path), [2, 4])
        assert ((table["skipped"] != "") | table["quant_mse"].notna()).all(), seed
        assert not table["skipped"].str.contains("Traceback").any(), seed
        reasons += bool((table["skipped"] != "").any())
    assert not canary.exists()
    assert reasons > 0.5 * len(seeds)


def test_a_damaged_line_in_the_middle_is_not_passed_over(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, {}) as ledger:
        for layer in "abc":
            ledger.add("x", [{"layer": layer}])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2][:-5], *lines[3:]]))
    with pytest.raises(ValueError, match="damaged in line 3 of 4"):
        Ledger(path, {})


def test_two_scans_into_one_file_are_refused(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, {}) as first:
        first.add("x", [{"layer": "a"}])
        with pytest.raises(ValueError, match="another process scans into"), Ledger(path, {}):
            pass
        first.add("x", [{"layer": "b"}])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with Ledger(path, {}) as again:
        assert [row["layer"] for row in again.rows()] == ["a", "b"]


def test_names_that_look_like_numbers_stay_names(tmp_path):
    rows = [{"model": "001", "layer": "nan", "position": 0, "skipped": "", "n_bits": 4}]
    table = read_table(write_table(as_table(rows), tmp_path / "rows.csv"))
    assert table.loc[0, ["model", "layer"]].tolist() == ["001", "nan"]
    assert table["kurtosis"].isna().all() and table.loc[0, "n_bits"] == 4


def test_a_path_and_an_integer_of_numpy(checkpoint):
    path, _ = checkpoint
    assert scan(Path(path), np.int64(4)).equals(scan(str(path), 4))
