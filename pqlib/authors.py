"""The paper authors' released statistics of 45 model-zoo networks, read and never copied."""

import hashlib
import json
import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd

from pqlib import downloads

COMMIT = "4deed982e485ce9c22e53fbb12e2a24c7e7c16ff"
REPOSITORY = "https://github.com/Qualcomm-AI-research/pruning-vs-quantization"
ARCHIVE = REPOSITORY.replace("github.com", "codeload.github.com") + f"/tar.gz/{COMMIT}"
N_MODELS, N_TENSORS, BITS = 45, 2704, range(2, 9)
# Of the parsed numbers, not of the archive: its bytes depend on who compressed it, and when.
CONTENT_SHA256 = "aa4b71b2db4d7c6b94883362fa098517a8f8150f971a394eeca3466e5c9ac923"

_FILE = re.compile(r"plots_data/weights_sqnr/((\w+)_(\d)_bits_mse)\.json$")
_COLUMNS = {  # theirs, and the scan's name for the same
    "sample_kurtosis": "excess_kurtosis",
    "quant_sqnr": "quant_sqnr_db",
    "quant_mse": "quant_mse",
    "quant_sparsity": "natural_sparsity",
    "pruning_sqnr": "prune_sqnr_db",
    "pruning_mse": "prune_mse",
    "pruning_sqnr_corrected": "credited_sqnr_db",
    "pruning_mse_corrected": "credited_mse",
}
_CSV_COLUMNS = {  # of the file under PQLIB_DATA
    "quant_sparsity": "natural_sparsity",
    "prune_credited_sqnr_db": "credited_sqnr_db",
    "prune_credited_mse": "credited_mse",
}
_TINY = 2.0**-24  # the smallest positive number in float16


def authors_rows(*, fetch: bool = False) -> pd.DataFrame | None:
    """The authors' released rows, one for each tensor and bit-width, in the columns of a scan.

    They are read from ``zoo/authors_zoo.csv.gz`` in the folder that the environment variable
    PQLIB_DATA names, else from the archive of the authors' repository in the user's cache.

    Parameters
    ----------
    fetch : bool, default False
        Download the archive when neither is at hand. Without it nothing touches the network.

    Returns
    -------
    DataFrame or None
        None where the rows are not at hand. Columns: model, layer, position, n_bits, sparsity,
        excess_kurtosis, kurtosis, quant_mse, quant_sqnr_db, natural_sparsity, prune_mse,
        prune_sqnr_db, credited_mse, credited_sparsity, credited_sqnr_db, margin_db, winner,
        shared_with (the model and layer of an earlier tensor with the same numbers at every
        bit-width), skipped, and ``kurtosis_reliable``: whether float16, in which all of it was
        computed, could resolve the fourth moment.

    Raises
    ------
    ValueError
        If the rows differ from those released: another content, or another number of models.

    Notes
    -----
    Where the squared error of pruning underflowed to zero, the SNR is +inf, the margin -inf and
    the winner "pruning", as the numbers say; keep finite rows for a cautious count.
    """
    folder = os.environ.get("PQLIB_DATA")
    path = Path(folder) / "zoo" / "authors_zoo.csv.gz" if folder else None
    if path is not None and path.is_file():
        return _in_scan_columns(pd.read_csv(path).rename(columns=_CSV_COLUMNS), str(path))
    path = archive()
    if not path.is_file():
        if not fetch:
            return None
        downloads.fetch(ARCHIVE, path)
    return _in_scan_columns(_read_archive(path), str(path))


def archive() -> Path:
    """Where the released code is kept once it was fetched."""
    return cache_folder() / f"pruning-vs-quantization-{COMMIT[:7]}.tar.gz"


def cache_folder() -> Path:
    """Where downloads are kept: ``pqlib`` in XDG_CACHE_HOME, else in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pqlib"


def beside_authors(table: pd.DataFrame, rows: pd.DataFrame, model: str) -> pd.DataFrame:
    """Our rows and the authors' for the same tensors, side by side.

    Parameters
    ----------
    table : DataFrame
        Of a scan of one network.
    rows : DataFrame
        From `authors_rows`.
    model : str
        Name of that network among theirs, such as ``"squeezenet1_1"``.

    Returns
    -------
    DataFrame
        model, layer, n_bits, and of excess_kurtosis, quant_sqnr_db, prune_sqnr_db,
        credited_sqnr_db and natural_sparsity one column ending in ``_ours`` and one in
        ``_theirs``.
    """
    theirs = rows[rows["model"] == model]
    if theirs.empty:
        known = ", ".join(sorted(rows["model"].unique()))
        raise ValueError(f"model {model!r} is not among the authors' networks; they are: {known}")
    values = ["excess_kurtosis", "quant_sqnr_db", "prune_sqnr_db"]
    values += ["credited_sqnr_db", "natural_sparsity"]
    ours = table[table["skipped"] == ""].assign(
        model=model, layer=table["layer"].str.removesuffix(".weight")
    )
    keys = ["model", "layer", "n_bits"]
    return ours[keys + values].merge(theirs[keys + values], on=keys, suffixes=("_ours", "_theirs"))


def _read_archive(path: Path) -> pd.DataFrame:
    content, rows = {}, []
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if match := _FILE.search(member.name):
                    content[match[1]] = json.load(archive.extractfile(member))
                    for layer, values in content[match[1]].items():
                        rows.append({"model": match[2], "layer": layer, "n_bits": int(match[3])})
                        rows[-1] |= {name: values[key] for key, name in _COLUMNS.items()}
    except (OSError, EOFError, tarfile.TarError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is damaged; delete it and fetch it again") from None
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    if digest != CONTENT_SHA256:
        raise ValueError(
            f"{path} does not hold the numbers released at commit {COMMIT[:7]} (SHA-256 of its "
            f"content {digest}, pinned {CONTENT_SHA256}); delete it and fetch it again"
        )
    return pd.DataFrame(rows)


def _in_scan_columns(rows: pd.DataFrame, source: str) -> pd.DataFrame:
    wanted = {"model", "layer", "n_bits", *_COLUMNS.values()}
    if absent := wanted - set(rows.columns):
        raise ValueError(f"{source} lacks the columns {', '.join(sorted(absent))}; fetch it again")
    found = rows["model"].nunique(), *sorted(set(rows.groupby("n_bits").size()))
    if found != (N_MODELS, N_TENSORS) or set(rows["n_bits"]) != set(BITS):
        raise ValueError(
            f"{source} must hold {N_MODELS} models and {N_TENSORS} tensors at {BITS[0]} to "
            f"{BITS[-1]} bits, found {found} (models, tensors); fetch it again"
        )
    rows = rows.sort_values("model", kind="stable").reset_index(drop=True)
    kept = rows["n_bits"] / 16
    quant, prune = rows["quant_sqnr_db"], rows["prune_sqnr_db"]
    signal = rows["quant_mse"] * 10 ** (quant / 10)  # E[W^2], as they computed it
    fewest = rows["n_bits"] == BITS[0]  # where float16 resolves the error best
    signal = signal.where(fewest).groupby([rows["model"], rows["layer"]]).transform("max")
    kurtosis = rows["excess_kurtosis"] + 3
    order = pd.Series(np.arange(len(rows)), rows.index)
    return rows.assign(
        position=order.groupby([rows["model"], rows["n_bits"]]).rank(method="first").astype(int)
        - 1,
        sparsity=1 - kept,
        kurtosis=kurtosis,
        credited_sparsity=1 - (1 - rows["natural_sparsity"]) * kept,
        margin_db=quant - prune,
        winner=np.where(quant > prune, "quantization", "pruning"),
        shared_with=_shared(rows),
        skipped="",
        kurtosis_reliable=np.isfinite(kurtosis)
        & (rows["excess_kurtosis"] != -3)
        & (kurtosis * signal**2 >= 16 * _TINY),
    )


def _shared(rows: pd.DataFrame) -> pd.Series:
    """For each row, the earlier tensor with the same statistics at every bit-width, or ""."""
    wide = rows.pivot(
        index=["model", "layer"],
        columns="n_bits",
        values=["excess_kurtosis", "quant_sqnr_db", "prune_sqnr_db", "natural_sparsity"],
    )
    wide = wide.loc[pd.MultiIndex.from_frame(rows[["model", "layer"]].drop_duplicates())]
    first: dict[tuple, str] = {}
    names = [f"{model} {layer}" for model, layer in wide.index]
    earlier = [
        first.setdefault(key, n) for key, n in zip(map(tuple, wide.values), names, strict=True)
    ]
    shared = pd.Series(
        ["" if e == n else e for e, n in zip(earlier, names, strict=True)], wide.index
    )
    return pd.Series(
        shared.loc[pd.MultiIndex.from_frame(rows[["model", "layer"]])].values, rows.index
    )
