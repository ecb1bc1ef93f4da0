import io
import json
import tarfile

import numpy as np
import pandas as pd
import pytest

from pqlib import authors
from pqlib.authors import authors_rows, beside_authors
from pqlib.zoo_statistics import crossing_table, natural_sparsity, split_by_kurtosis

# per bit-width: quantization wins of all rows and of the finite ones, credited wins (percent),
# crossings by joint densities and by logistic regression, mean natural sparsity as printed
ERRATA = {
    2: (73.9, 74.1, 99.3, 13.3, 13.0, 59),
    4: (89.2, 90.1, None, 22.2, 24.5, 35),
    8: (94.3, 98.2, 99.96, 204, 152, 13),
}
ERRATA_JOINT = {2: 13.3, 3: 17.3, 4: 22.2, 5: 35.3, 6: 56.6, 7: 86, 8: 204}
ERRATA_LOGISTIC = {2: 13.0, 3: 18.0, 4: 24.5, 5: 36.2, 6: 49.5, 7: 79.8, 8: 152}
ERRATA_INFINITE = {8: 107, 7: 68, 6: 54, 5: 35, 4: 27, 3: 22, 2: 10}
TABLE_2 = {8: 13, 7: 16, 6: 20, 5: 27, 4: 35, 3: 46, 2: 59}


@pytest.fixture(scope="module")
def released():
    rows = authors_rows()
    if rows is None:
        pytest.skip("the authors' rows are not at hand: set PQLIB_DATA")
    return rows


@pytest.fixture(scope="module")
def reliable(released):
    return released[released["kurtosis_reliable"] & np.isfinite(released["prune_sqnr_db"])]


def test_shape_of_the_release(released):
    assert released["model"].nunique() == 45
    for n_bits, rows in released.groupby("n_bits"):
        assert len(rows) == 2704
        assert (rows["shared_with"] == "").sum() == 2612
        assert (rows["excess_kurtosis"] == -3).sum() == 139
        assert np.isinf(rows["prune_sqnr_db"]).sum() == ERRATA_INFINITE[n_bits]
    assert sorted(released["n_bits"].unique()) == [*range(2, 9)]


@pytest.mark.parametrize("n_bits", ERRATA)
def test_shares_of_wins(released, n_bits):
    rows = released[released["n_bits"] == n_bits]
    finite = rows[np.isfinite(rows["prune_sqnr_db"])]
    shares = [100 * (r["winner"] == "quantization").mean() for r in (rows, finite)]
    assert shares == pytest.approx(ERRATA[n_bits][:2], abs=0.06)
    if ERRATA[n_bits][2]:
        won = rows["quant_sqnr_db"] > rows["credited_sqnr_db"]
        assert 100 * won.mean() == pytest.approx(ERRATA[n_bits][2], abs=0.05)


def test_crossings_by_three_estimators(reliable):
    table = crossing_table([split_by_kurtosis(reliable, b) for b in range(2, 9)])
    table = table.set_index("n_bits")
    for n_bits in range(2, 9):  # within the smoothing of a grid, and the digits printed
        row = table.loc[n_bits]
        assert row["joint"] == pytest.approx(ERRATA_JOINT[n_bits], rel=0.01)
        assert row["logistic"] == pytest.approx(ERRATA_LOGISTIC[n_bits], rel=0.01)
        if n_bits > 2:
            assert 13.5 < row["class_conditional"] < 15.1


def test_table_2_agrees_in_every_entry(released):
    found = natural_sparsity(released).set_index("n_bits")["mean"]
    assert {int(b): round(100 * p) for b, p in found.items()} == TABLE_2


def test_ours_beside_theirs(released):
    theirs = released[released["model"] == "alexnet"]
    ours = theirs.assign(layer=theirs["layer"] + ".weight", model="mine")
    both = beside_authors(ours, released, "alexnet")
    assert len(both) == 8 * 7
    assert (both["quant_sqnr_db_ours"] == both["quant_sqnr_db_theirs"]).all()
    with pytest.raises(ValueError, match=r"model 'alexnet2' is not among .* alexnet, densenet121"):
        beside_authors(ours, released, "alexnet2")


def _archive(path, content):
    with tarfile.open(path, "w:gz") as archive:
        for name, table in content.items():
            text = json.dumps(table).encode()
            info = tarfile.TarInfo(
                f"repository-{authors.COMMIT}/plots_data/weights_sqnr/{name}.json"
            )
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))


def test_archive_holds_what_the_csv_holds(released, tmp_path, monkeypatch):
    """Write the archive from the rows: the pinned hash is of the numbers, and the same."""
    theirs = {ours: key for key, ours in authors._COLUMNS.items()}
    content = {}
    for (model, n_bits), rows in released.groupby(["model", "n_bits"]):
        values = rows.set_index("layer")[list(theirs)].rename(columns=theirs)
        content[f"{model}_{n_bits}_bits_mse"] = values.to_dict("index")
    monkeypatch.delenv("PQLIB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fetched = []

    def fetch(url, path):
        fetched.append(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        _archive(path, content)

    monkeypatch.setattr(authors.downloads, "fetch", fetch)
    assert authors_rows() is None and not fetched  # nothing is downloaded unasked
    rows = authors_rows(fetch=True)
    assert fetched == [authors.ARCHIVE]
    keys = ["model", "n_bits", "layer"]
    pd.testing.assert_frame_equal(
        rows.sort_values(keys).reset_index(drop=True)[sorted(rows.columns)],
        released.sort_values(keys).reset_index(drop=True)[sorted(rows.columns)],
    )
    assert authors_rows() is not None and len(fetched) == 1  # from the cache


def test_changed_or_damaged_archives_are_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("PQLIB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = authors.cache_folder() / "pruning-vs-quantization-4deed98.tar.gz"
    path.parent.mkdir()
    row = dict.fromkeys(authors._COLUMNS, 1.0)
    _archive(path, {"alexnet_2_bits_mse": {"features.0": row}})
    with pytest.raises(ValueError, match="does not hold the numbers released at commit 4deed98"):
        authors_rows()
    _archive(path, {"alexnet_2_bits_mse": {"features.0": {"quant_sqnr": 1.0}}})
    with pytest.raises(ValueError, match="is damaged; delete it"):
        authors_rows()
    path.write_bytes(b"not an archive")
    with pytest.raises(ValueError, match="is damaged; delete it"):
        authors_rows()


def test_folder_without_the_rows_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("PQLIB_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert authors_rows() is None
    (tmp_path / "zoo").mkdir()
    columns = {name: [1.0] for name in authors._COLUMNS.values()} | {"model": ["a"], "layer": ["b"]}
    for table, message in (
        (pd.DataFrame(columns | {"n_bits": [2]}), "must hold 45 models and 2704 tensors"),
        (pd.DataFrame(columns), "lacks the columns n_bits"),
    ):
        table.to_csv(tmp_path / "zoo" / "authors_zoo.csv.gz", index=False)
        with pytest.raises(ValueError, match=message):
            authors_rows()
