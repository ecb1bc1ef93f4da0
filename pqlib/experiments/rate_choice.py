"""Which learning rate a cell of Table 1 takes, where it is not tried anew for each."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pqlib.experiments.finetune_config import FineTune
from pqlib.experiments.presets import STEP, Sweep


def best_of(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of a cell's finished runs the one with the best validation; of equal ones, the smallest rate.

    The test images have no part in it.
    """
    return min(records, key=lambda r: (-(r.get("validation_value") or 0), r["learning_rate"]))


def nearest(n_bits: int, tried: Sequence[int]) -> int:
    """The nearest of the budgets at which rates are tried, the larger of two as near."""
    return min(tried, key=lambda bits: (abs(bits - n_bits), -bits))


@dataclass(frozen=True)
class Follower:
    """A run that takes over the learning rate of others.

    Attributes
    ----------
    config : FineTune
        With the rate of power 0 until one is chosen.
    choosing : tuple of FineTune
        The runs, at the nearest budget, of which the best has the rate.
    power : int, optional
        The rate is that of power 0 times 0.33 to this. None, and nothing to run, until all of
        ``choosing`` have ended, and for good where all of them have failed.
    """

    config: FineTune
    choosing: tuple[FineTune, ...]
    power: int | None = None


def followers(
    swept: Sweep, records: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Follower]:
    """The runs of a sweep with ``rates_at`` that take over a rate.

    Parameters
    ----------
    swept : Sweep
    records : mapping, optional
        Finished and failed runs by hash, of ``swept.cells()`` and of others.
    """
    tried: dict[tuple, dict[FineTune, int]] = {}
    for config, power in swept.grid():
        key = config.model, config.method, config.n_bits
        tried.setdefault(key, {})[config] = power
    found = []
    for config in swept.followers():
        key = config.model, config.method, nearest(config.n_bits, swept.rates_at or ())
        power = _chosen(tried[key], records or {})
        if power is not None:
            rate = config.settings.learning_rate * STEP**power
            settings = dataclasses.replace(config.settings, learning_rate=rate)
            config = dataclasses.replace(config, settings=settings)
        found.append(Follower(config, tuple(tried[key]), power))
    return found


def _chosen(powers, records) -> int | None:
    by_hash = {config.hash: power for config, power in powers.items()}
    ended = [records[key] for key in by_hash if key in records]
    done = [record for record in ended if record["status"] == "done"]
    if len(ended) < len(by_hash) or not done:
        return None
    return by_hash[best_of(done)["hash"]]
