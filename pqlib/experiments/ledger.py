"""What a long run has done so far: one file per unit, so that it can go on after any end."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from pqlib.claims import claim

_LOCK = "running"


class Ledger:
    """The finished units of one run, in a folder.

    Each unit is a file of its own, written whole or not at all, named by its key. Writing a unit
    again changes nothing. The folder belongs to one config: another one is refused.

    Parameters
    ----------
    folder : path-like
        Made where it is missing.
    config : mapping
        What the run computes, of JSON's types.

    Raises
    ------
    ValueError
        If the folder holds a run of another config, or (``with ledger:``) another process is at
        work on it.
    OSError
        If the folder cannot be made or written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Ledger(folder, {"n": 3}) as ledger:
    ...     ledger.add("first", {"error": 0.5})
    ...     ledger.get("first"), ledger.get("second")
    ({'error': 0.5}, None)
    """

    def __init__(self, folder: str | os.PathLike, config: Mapping[str, object]):
        self.folder = Path(folder)
        config = json.loads(json.dumps(config))
        self.folder.mkdir(parents=True, exist_ok=True)
        stated = self.folder / "config.json"
        if not stated.exists():
            self.write("config.json", json.dumps(config, indent=1) + "\n")
        elif _read(stated) != config:
            raise ValueError(
                f"{self.folder} holds a run with other options (see {stated.name} there); repeat "
                "them, delete the folder, or name another"
            )

    def __enter__(self) -> "Ledger":
        """Claim the folder; the claim ends with the process, however that ends."""
        self._claim = (self.folder / _LOCK).open("a")
        try:
            claim(self._claim)
        except OSError:
            self._claim.close()
            raise ValueError(
                f"another process is at work on {self.folder}; wait for it, or end it"
            ) from None
        for torn in self.folder.glob("*.tmp"):
            torn.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._claim.close()

    def add(self, key: str, record: Mapping[str, object]) -> None:
        """Keep the record of a unit, on disk before this returns."""
        self.write(_file(key), json.dumps({"key": key, "record": record}))

    def get(self, key: str) -> dict | None:
        """The record of a unit, None if it is not done (or its file is damaged)."""
        entry = _read(self.folder / _file(key))
        return entry["record"] if isinstance(entry, dict) and entry.get("key") == key else None

    def records(self) -> dict[str, dict]:
        """All records by their keys, in the order of the keys."""
        found = {}
        for path in self.folder.glob("*.json"):
            entry = _read(path)
            if isinstance(entry, dict) and entry.keys() == {"key", "record"}:
                found[entry["key"]] = entry["record"]
        return dict(sorted(found.items()))

    def write(self, name: str, text: str) -> None:
        """Replace a file of the folder, as a whole."""
        partial = self.folder / f"{name}.{os.getpid()}.tmp"
        try:
            with partial.open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.folder / name)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}: {name} cannot be written in {self.folder}. All that was there "
                "before is kept; once it can be, the same command goes on",
            ) from None


def config_hash(config: Mapping[str, object]) -> str:
    """Ten hexadecimal digits that name a config, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:10]


def _file(key):
    return f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _read(path):
    """What a JSON file holds, None if there is none or it is damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
