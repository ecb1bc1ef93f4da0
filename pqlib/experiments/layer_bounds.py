"""Both problems solved exactly on the layers of a network: the experiment behind chapter 4."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import joblib
import numpy as np

from pqlib.bounds.scale_interval import ScaleInterval, exceeds_at_every_scale
from pqlib.experiments.channel_optima import Unit, solve_unit
from pqlib.experiments.layer_config import LayerBounds
from pqlib.experiments.layer_table import Solved, groups_of
from pqlib.experiments.ledger import Ledger
from pqlib.layers.captured import CapturedLayer
from pqlib.ranges import optimal_scales

OnDone = Callable[[str], None]
_ROUND = 2  # units per worker between two writings, where results come only together


def capture(config: LayerBounds) -> list[CapturedLayer]:
    """Open the model and the images and capture the layers (torch is needed from here on)."""
    from pqlib.layers.capture import capture_layers
    from pqlib.layers.images import open_images
    from pqlib.layers.models import open_model

    opened = open_model(config.model, config.weights, seed=config.seed)
    images = open_images(
        config.images,
        config.transform,
        n_images=config.n_images,
        seed=config.seed if config.image_seed is None else config.image_seed,
        preprocessing=opened.preprocessing,
    )
    return capture_layers(
        opened.module,
        images,
        config.layers or None,
        chunk=config.chunk,
        n_positions=config.n_positions,
        rng=np.random.default_rng(config.seed),
    )


def units_of(layer: CapturedLayer, config: LayerBounds) -> Iterator[Unit]:
    """The units of a layer: its drawn channels with each drawn chunk of the fan-in."""
    draw = np.random.default_rng([config.seed, *layer.name.encode()])
    channels = _drawn(draw, len(layer.weight), config.n_channels)
    bounds = sorted({(chunk.start, chunk.stop) for chunk in layer.chunks})
    chunk_of = {(c.start, channel): c for c in layer.chunks for channel in c.channels}
    tensor = optimal_scales(layer.weight, config.bits)
    for place in _drawn(draw, len(bounds), config.n_chunks):
        start, stop = bounds[place]
        own = optimal_scales(layer.weight[:, start:stop], config.bits)
        chunks = [chunk_of[start, channel] for channel in channels]
        if len({chunk.group for chunk in chunks}) == 1:
            chunks = chunks[:1]
        yield Unit(
            key=f"{layer.name}/{place}",
            layer=layer.name,
            kind=layer.kind,
            chunk=place,
            channels=tuple(channels),
            grams=np.stack([chunk.gram for chunk in chunks]),
            weights=layer.weight[channels, start:stop],
            scales={("tensor", b): float(s) for b, s in zip(config.bits, tensor, strict=True)}
            | {("chunk", b): float(s) for b, s in zip(config.bits, own, strict=True)},
        )


def _drawn(draw, count, most):
    """Ascending places among ``count``, all if ``most`` is 0."""
    if most == 0 or most >= count:
        return list(range(count))
    return sorted(draw.choice(count, most, replace=False).tolist())


def solve_units(
    config: LayerBounds,
    ledger: Ledger,
    units: Sequence[Unit],
    *,
    n_jobs: int | None = None,
    on_done: OnDone | None = None,
) -> list[Solved]:
    """Solve the units that the ledger lacks; each is on disk before the next is counted.

    Parameters
    ----------
    config, ledger, units
        The ledger must be entered (``with ledger:``).
    n_jobs : int, optional
        As in `pqlib.bounds.parallel.solve_channels`; joblib's backends, Ray among them, apply.
    on_done : callable, optional
        Called with the key of each unit, also of those that were done before.

    Returns
    -------
    list of (Unit, dict)
        In the order of ``units``, records as of `solve_unit`.

    Raises
    ------
    ValueError
        If the ledger's records are of other weights or inputs.
    """
    for unit in units:
        record = ledger.get(unit.key)
        energy = [problem.energy for problem in unit.problems()]
        if record and not np.allclose(record["energy"], energy, rtol=1e-6, atol=0):
            raise ValueError(
                f"the weights, the network or the images have changed since {ledger.folder} was "
                f"begun ({unit.key} has other energies); delete that folder, or name another"
            )
    options = config.bits, config.max_nodes, config.reproved_share, config.seed
    jobs = {unit.key: (solve_unit, unit, *options) for unit in units}
    records = _run(ledger, jobs, n_jobs, on_done)
    return [(unit, records[unit.key]) for unit in units]


def prove_intervals(
    config: LayerBounds,
    ledger: Ledger,
    cases: Mapping[tuple[str, str, int], tuple[float, float, float]],
    solved: Sequence[Solved],
    *,
    n_jobs: int | None = None,
    on_done: OnDone | None = None,
) -> dict[tuple[str, str, int], ScaleInterval]:
    """Where pruning wins at all scales tried (`open_to_scale`), look at all between.

    Arguments as in `solve_units`; ``cases`` gives an error and an interval for each (layer, chunk,
    bit-width).
    """
    groups, jobs = groups_of(solved), {}
    for (layer, chunk, n_bits), (error, low, high) in cases.items():
        units = [unit for unit, _ in groups[layer, chunk]]
        key = f"scales of {layer}/{chunk} at {n_bits} bits"
        jobs[key] = (_prove_interval, units, n_bits, error, low, high, config.max_nodes)
    records = _run(ledger, jobs, n_jobs, on_done)
    return {case: ScaleInterval(**records[key]) for case, key in zip(cases, jobs, strict=True)}


def _prove_interval(units, n_bits, error, low, high, max_nodes):
    problems = [problem for unit in units for problem in unit.problems()]
    found = exceeds_at_every_scale(problems, n_bits, error, low, high, max_nodes=max_nodes)
    return dataclasses.asdict(found)


def _run(ledger: Ledger, jobs: Mapping[str, tuple], n_jobs, on_done) -> dict[str, dict]:
    """Records of all jobs, those that the ledger lacks computed: key -> (function, arguments)."""
    records = {key: ledger.get(key) for key in jobs}
    missing = [key for key in jobs if records[key] is None]
    for key in jobs:
        if on_done and records[key] is not None:
            on_done(key)
    streams = joblib.parallel.get_active_backend()[0].supports_return_generator  # Ray's does not
    return_as = "generator_unordered" if streams else "list"
    with joblib.Parallel(n_jobs=n_jobs, batch_size=1, return_as=return_as) as parallel:
        size = len(missing) if streams else _ROUND * parallel.n_jobs
        for first in range(0, len(missing), max(size, 1)):
            keys = missing[first : first + size]
            for key, record in parallel(joblib.delayed(_keyed)(key, *jobs[key]) for key in keys):
                ledger.add(key, record)
                records[key] = ledger.get(key)  # as it will be read
                if on_done:
                    on_done(key)
    return records


def _keyed(key, function, *arguments):
    return key, function(*arguments)
