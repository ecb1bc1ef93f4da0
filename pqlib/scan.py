"""Every weight tensor of every checkpoint, measured and collected in one table.

A scan streams: one tensor is in memory at a time. What is done is written to a ledger, so that an
interrupted scan goes on where it stopped.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from numbers import Integral
from pathlib import Path

import pandas as pd

from pqlib import zoo
from pqlib._validation import check_choice, check_integer
from pqlib.checkpoints import StoredTensor
from pqlib.claims import claim
from pqlib.grids import IntegerGrid
from pqlib.tensor_scan import TensorRecord, kind_of, scan_tensor_bits

BITS = tuple(range(2, 9))
_RECORD = [field.name for field in dataclasses.fields(TensorRecord)]
_OWN = ["model", "task", "layer", "position", "shape", "kind", "dtype", "shared_with"]
COLUMNS = [*_OWN, *_RECORD, "skipped"]
_WORDS = [*(name for name in _OWN if name != "position"), "granularity", "winner", "skipped"]
_FORMATS = (".csv", ".parquet")


def scan(
    source: str | Iterable[str],
    n_bits: int | Sequence[int] = BITS,
    *,
    granularity: str = "tensor",
    n_jobs: int = 1,
) -> pd.DataFrame:
    """Quantize and prune every weight tensor of a network at every bit-width.

    Parameters
    ----------
    source : str or several
        As in `pqlib.zoo.open_source`: a packaged or downloadable model, a path, or a group.
    n_bits : int or sequence of int, default 2..8
        Bit-widths, each 2..16.
    granularity : {"tensor", "channel"}
        One scale per tensor, or one per output channel.
    n_jobs : int, default 1
        Bit-widths measured at a time; the memory needed stays that of one tensor.

    Returns
    -------
    pandas.DataFrame
        A row per tensor and bit-width. Columns: ``model``, ``task``, ``layer``, ``position`` (among
        the weights of its checkpoint), ``shape`` such as "64x3x7x7", ``kind`` (see
        `pqlib.tensor_scan.kind_of`), ``dtype`` as stored, ``shared_with`` (an earlier layer of the
        same weights, or ""), the fields of `TensorRecord`, and ``skipped``: why a tensor, or a
        whole checkpoint, could not be measured, else "".

    Raises
    ------
    ValueError, TypeError
        If the source is unknown or an argument out of range. What goes wrong within a checkpoint
        is a row, not an exception.

    Notes
    -----
    Weights are the tensors with two or more axes. A row whose ``skipped`` is not empty has NaN for
    numbers and "" for words.
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    sources = [os.fspath(source) for source in sources]
    bits = [n_bits] if isinstance(n_bits, Integral) else list(n_bits)
    checkpoints = open_all(sources, bits, granularity)
    rows = [
        row
        for checkpoint in checkpoints
        for group in scan_checkpoint(checkpoint, bits, granularity, n_jobs)
        for row in group
    ]
    return as_table(rows)


def open_all(
    sources: Sequence[str],
    bits: Sequence[int],
    granularity: str,
    progress: zoo.Progress | None = None,
) -> list[zoo.Checkpoint]:
    """All checkpoints of the sources, arguments checked, nothing read yet.

    ``progress`` is called during downloads with the file's name, bytes there and bytes in all.
    """
    if not sources:
        raise ValueError("source must name at least one checkpoint, got none")
    if not bits:
        raise ValueError("n_bits must name at least one bit-width, got none")
    for b in bits:
        IntegerGrid(b, 1.0)
    check_choice("granularity", granularity, ("tensor", "channel"))
    return [
        checkpoint
        for source in sources
        for checkpoint in zoo.open_source(source, progress=progress)
    ]


def scan_checkpoint(
    checkpoint: zoo.Checkpoint,
    bits: Sequence[int],
    granularity: str = "tensor",
    n_jobs: int = 1,
    n_done: int = 0,
) -> Iterator[list[dict[str, object]]]:
    """Measure one checkpoint; yields the rows of a tensor as soon as they are known.

    The first ``n_done`` tensors with two or more axes are passed over.
    """
    check_integer("n_jobs", n_jobs, low=1, high=1024)
    position = 0
    try:
        for tensor in checkpoint.tensors():
            if len(tensor.shape) < 2 and tensor.dtype != "unknown":  # that is damage
                continue
            if position >= n_done:
                own = {
                    "model": checkpoint.model,
                    "task": checkpoint.task,
                    "layer": _printable(tensor.name),
                    "position": position,
                    "shape": "x".join(map(str, tensor.shape)),
                    "dtype": tensor.dtype,
                    "shared_with": _printable(tensor.shared_with or ""),
                }
                yield [own | row for row in _rows(tensor, bits, granularity, n_jobs)]
            position += 1
    except (ValueError, OSError, ModuleNotFoundError) as error:
        own = {"model": checkpoint.model, "task": checkpoint.task, "position": position}
        yield [own | {"skipped": _one_line(error), "granularity": granularity}]


def as_table(rows: Iterable[dict[str, object]]) -> pd.DataFrame:
    """Rows as a DataFrame with the columns of `scan`, also where there are none."""
    table = pd.DataFrame(list(rows), columns=COLUMNS)
    table[_WORDS] = table[_WORDS].astype(object).where(table[_WORDS].notna(), "")
    numbers = [c for c in COLUMNS if c not in _WORDS]
    table[numbers] = table[numbers].apply(pd.to_numeric)
    whole = ["position", "n_weights", "n_bits"]
    table[whole] = table[whole].astype("Int64")
    return table


def write_table(table: pd.DataFrame, path: str | os.PathLike) -> Path:
    """Write a scan as ``.csv`` or ``.parquet``, whole or not at all."""
    path = check_format(path)
    partial = path.with_name(path.name + ".tmp")
    if path.suffix == ".csv":
        table.to_csv(partial, index=False, na_rep="nan", lineterminator="\n")
    else:
        table.to_parquet(partial, index=False)
    return partial.replace(path)


def read_table(path: str | os.PathLike) -> pd.DataFrame:
    """Read what `write_table` wrote."""
    path = check_format(path)
    if path.suffix == ".csv":
        words = {c: str for c in _WORDS}  # also a model called 001, a layer called nan
        empty = {c: ["nan", ""] for c in COLUMNS if c not in _WORDS}
        table = pd.read_csv(path, na_values=empty, keep_default_na=False, dtype=words)
    else:
        table = pd.read_parquet(path)
    missing = [c for c in COLUMNS if c not in table]
    if missing:
        raise ValueError(f"{path} is not a table of `pqlib scan`: it lacks {', '.join(missing)}")
    return as_table(table[COLUMNS].to_dict("records"))


def check_format(path: str | os.PathLike) -> Path:
    """The path, if its ending is one that tables are written in."""
    path = Path(path)
    if path.suffix not in _FORMATS:
        raise ValueError(f"out must end in {' or '.join(_FORMATS)}, got {str(path)!r}")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ModuleNotFoundError(
            f"{path.name} needs pyarrow; pip install 'pqlib[parquet]', or choose .csv"
        )
    return path


class Ledger:
    """Rows of a scan under way, appended tensor by tensor; a torn last line is dropped.

    Parameters
    ----------
    path : path-like
        A file of JSON lines: the first states what is scanned, each later one a tensor's rows.
    config : dict
        What is scanned: a ledger of something else is refused.
    """

    def __init__(self, path: str | os.PathLike, config: dict[str, object]):
        self.path, self.config = Path(path), config
        self.groups: list[dict] = []
        if not self.path.exists():
            return
        lines, texts = [], self.path.read_text("utf-8").splitlines()
        for number, line in enumerate(texts, 1):
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                if number < len(texts):
                    raise ValueError(
                        f"{self.path} is damaged in line {number} of {len(texts)}; take that line "
                        "out, and all that follow it, or delete the file"
                    ) from None
        if lines and lines[0] != config:
            raise ValueError(
                f"{self.path} belongs to a scan with other sources or options: {lines[0]}; "
                "finish that one, or delete the file"
            )
        self.groups = lines[1:]

    def __enter__(self) -> "Ledger":
        """Rewrite what is whole, ready for more; a ValueError if another process does."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".tmp")
        with self.path.open("a") as before:
            try:
                claim(before)
            except OSError:
                raise ValueError(
                    f"another process scans into {self.path}; wait for it, or end it"
                ) from None
            self._file = partial.open("w", encoding="utf-8")
            claim(self._file)
            for entry in (self.config, *self.groups):
                self._write(entry)
            partial.replace(self.path)  # what is claimed is now in its place
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _write(self, entry):
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def add(self, source: str, rows: list[dict[str, object]]) -> None:
        """Record the rows of one tensor."""
        self.groups.append({"source": source, "rows": rows})
        self._write(self.groups[-1])

    def finish(self, source: str) -> None:
        """Record that a checkpoint is complete."""
        self.groups.append({"source": source, "complete": True})
        self._write(self.groups[-1])

    def n_done(self, source: str) -> int:
        """Tensors of a checkpoint that are measured."""
        return sum(g["source"] == source and "rows" in g for g in self.groups)

    def is_complete(self, source: str) -> bool:
        """Whether nothing of a checkpoint is left to do."""
        return any(g["source"] == source and g.get("complete", False) for g in self.groups)

    def rows(self) -> list[dict[str, object]]:
        """All rows recorded."""
        return [row for group in self.groups for row in group.get("rows", [])]


def _rows(tensor: StoredTensor, bits, granularity, n_jobs):
    """The rows of one tensor, without what it is called."""
    own = {"kind": kind_of(tensor.name, tensor.shape) if len(tensor.shape) >= 2 else ""}
    reason = _printable(tensor.skipped or "")
    if not reason:
        try:
            records = scan_tensor_bits(tensor.read(), bits, granularity=granularity, n_jobs=n_jobs)
            return [own | dataclasses.asdict(record) | {"skipped": ""} for record in records]
        except (ValueError, OSError, MemoryError) as error:
            reason = _one_line(error)
    return [own | {"n_bits": b, "granularity": granularity, "skipped": reason} for b in bits]


def _printable(text):
    """Lone surrogates, which no file can hold, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _one_line(error):
    return _printable(" ".join(str(error).split())) or type(error).__name__
