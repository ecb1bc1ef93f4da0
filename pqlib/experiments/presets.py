"""The whole of Table 1 at four sizes: from seconds on digits to the paper's own setting."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pqlib._validation import check_choice
from pqlib.experiments.finetune_config import METHODS, POST_TRAINING, TRAINED, FineTune
from pqlib.training.settings import Settings

PRESETS = ("smoke", "laptop", "gpu", "paper")
STEP = 0.33  # between two learning rates (appendix G)
RATES_AT = {"laptop": (2, 4, 8)}  # budgets at which `pqlib run` tries the rates of a preset
CHANGES = (  # of a `Sweep`, those that `pqlib run` has an option for
    *("size", "stem", "variant", "limit", "baseline_limit", "weights", "validation", "epochs"),
    *("baseline_epochs", "batch_size", "max_steps", "precision", "channels_last"),
    *("n_threads", "baseline_threads", "n_workers", "device", "keep_first_last"),
)
_OF_BASELINES = {"baseline_epochs", "baseline_limit", "baseline_threads"}
_UNUSED_RATE = 0.05  # of baselines that are not trained, lest a preset's new rate rename their runs


@dataclass(frozen=True)
class Recipe:
    """A row of Table 4: how the paper fine-tunes one network."""

    batch_size: int
    weight_decay: float
    optimizer: str
    epochs: int
    learning_rate: float


# Table 4, with "5.0-5" read as 5.0e-5
TABLE4 = {
    "resnet18": Recipe(256, 1e-4, "sgd", 20, 1e-3),
    "resnet50": Recipe(128, 1e-4, "sgd", 20, 1e-5),
    "mobilenet_v2": Recipe(128, 5e-5, "sgd", 20, 1e-5),
    "mobilenet_v3_small": Recipe(128, 1e-4, "sgd", 20, 1e-3),
    "efficientnet_lite0": Recipe(128, 5e-5, "sgd", 20, 1e-5),
    "vit_small": Recipe(128, 1e-4, "adam", 20, 1e-4),
    "deeplab_v3_mobilenet_v2": Recipe(16, 0.0, "sgd", 200, 1e-6),
    "efficientdet": Recipe(16, 5e-5, "adam", 20, 1e-5),
}
MODELS = tuple(TABLE4)
_TASKS = ("classification", "segmentation", "detection")
_TASK_OF = {"deeplab_v3_mobilenet_v2": "segmentation", "efficientdet": "detection"}


@dataclass(frozen=True)
class Plan:
    """What a preset does with one network.

    Attributes
    ----------
    base : FineTune
        Of method "none": the network, the data, and the settings of the baseline's training.
    fine : Settings
        Of the fine-tuning, at the learning rate in the middle of the grid.
    powers : tuple of int
        The grid: the learning rate times 0.33 to these powers.
    """

    base: FineTune
    fine: Settings
    powers: tuple[int, ...]


def plan(preset: str, model: str) -> Plan:
    """How a preset trains and fine-tunes a network; ``python:...`` ones as a ResNet."""
    check_choice("preset", preset, PRESETS)
    if model not in TABLE4 and not model.startswith(("python:", "cifar_resnet")):
        raise ValueError(
            f"model {model!r} is unknown; take one of {', '.join(MODELS)}, cifar_resnet20, "
            "cifar_resnet32 or python:package.module:factory"
        )
    return {"smoke": _smoke, "laptop": _laptop, "gpu": _gpu, "paper": _paper}[preset](model)


def _smoke(model):
    """A few steps on tiny images: that everything works, not what comes out."""
    transformer, detects = model == "vit_small", model == "efficientdet"
    scenes = detects or model == "deeplab_v3_mobilenet_v2"
    rate = 1e-3 if transformer or detects else 0.05
    optimizer = "adam" if transformer or detects else "sgd"
    few = scenes or model in ("resnet50", "efficientnet_lite0", "vit_small")
    base = FineTune(
        model,
        "scenes:80" if scenes else "digits",
        Settings(3, 8 if scenes else 16, rate, optimizer, max_steps=8 if scenes else None),
        size=128 if detects else 64 if scenes else 32,
        limit=32 if scenes else 96 if few else 320,
        augment=False,
        patch=16 if transformer else None,
        bn_batches=4,
    )
    fine = dataclasses.replace(base.settings, epochs=2, learning_rate=rate / 5)
    return Plan(base, fine, (0,))


_LAPTOP = {  # epochs and rate of the baseline's training, then epochs and rate of the fine-tuning
    "vit_small": (15, 1e-4, 4, 3e-5),
    "efficientnet_lite0": (15, 0.005, 4, 0.01),
    "deeplab_v3_mobilenet_v2": (20, 0.02, 4, 0.01),
    "efficientdet": (15, 1e-3, 4, 3e-4),
}


def _laptop(model):
    """Two cores, the eight networks overnight; small images are what makes it so."""
    transformer, detects = model == "vit_small", model == "efficientdet"
    segments = model == "deeplab_v3_mobilenet_v2"
    epochs, rate, fine_epochs, fine_rate = _LAPTOP.get(model, (15, 0.02, 4, 0.01))
    optimizer = "adam" if transformer or detects else "sgd"
    base = FineTune(
        model,
        "scenes:800" if detects else "scenes:2500" if segments else "scenes:5600",
        Settings(
            epochs,
            16 if transformer or segments or detects else 64,
            rate,
            optimizer,
            weight_decay=1e-4 if model not in TABLE4 else TABLE4[model].weight_decay,
        ),
        size=128 if detects else 32,
        weights="pip:efficientnet-lite0" if detects or model == "efficientnet_lite0" else None,
        patch=8 if transformer else None,
    )
    fine = dataclasses.replace(base.settings, epochs=fine_epochs, learning_rate=fine_rate)
    return Plan(base, fine, (-1, 0, 1))


def _gpu(model):
    """One GPU, a day: larger images, Table 4's epochs."""
    laptop = _laptop(model)
    wide = {"vit_small": 8, "deeplab_v3_mobilenet_v2": 4, "efficientdet": 4}.get(model, 4)
    size = {"deeplab_v3_mobilenet_v2": 256, "efficientdet": 320}.get(model, 64)
    deterministic = model not in ("deeplab_v3_mobilenet_v2", "efficientdet")  # CUDA has no such
    options: dict[str, Any] = {"n_workers": 8, "deterministic": deterministic}
    batch = min(wide * laptop.base.settings.batch_size, 256)
    settings = dataclasses.replace(
        laptop.base.settings, batch_size=batch, epochs=60, precision="bf16", **options
    )
    base = dataclasses.replace(
        laptop.base, settings=settings, size=size, data="scenes:20000", device="cuda"
    )
    fine = dataclasses.replace(settings, epochs=20, learning_rate=laptop.fine.learning_rate)
    return Plan(base, fine, (-2, -1, 0, 1, 2))


def _paper(model):
    """Table 4 and appendix G: ImageNet, Pascal VOC and COCO; the network as it was published."""
    recipe = TABLE4.get(model, TABLE4["resnet18"])
    deterministic = model not in ("deeplab_v3_mobilenet_v2", "efficientdet")
    data = {"deeplab_v3_mobilenet_v2": "voc:data/voc", "efficientdet": "coco:data/coco"}
    size = {"deeplab_v3_mobilenet_v2": 512, "efficientdet": 640}
    fine = Settings(
        recipe.epochs,
        recipe.batch_size,
        recipe.learning_rate,
        recipe.optimizer,
        weight_decay=recipe.weight_decay,
        deterministic=deterministic,
        n_workers=8,
    )
    settings = dataclasses.replace(fine, epochs=0)
    if model == "deeplab_v3_mobilenet_v2":  # only its backbone has published weights here
        settings = dataclasses.replace(fine, epochs=50, learning_rate=0.01, weight_decay=1e-4)
    base = FineTune(
        model,
        data.get(model, "folder:data/imagenet"),
        settings,
        size=size.get(model, 224),
        weights="pretrained" if model in TABLE4 else None,
        variant="tf_efficientdet_d1" if model == "efficientdet" else None,
        device="cuda",
    )
    return Plan(base, fine, (-2, -1, 0, 1, 2))


@dataclass(frozen=True)
class Sweep:
    """A choice of cells; all that `pqlib run table1` takes and that its numbers depend on.

    Attributes
    ----------
    preset : str
    models, bits, methods, seeds : tuple
    powers : tuple of int, optional
        The grid of learning rates, by default the preset's.
    rates_at : tuple of int, optional
        Try the grid at these of the bits only, with the first seed; the others take over the rate
        that is best at the nearest of these (`rate_choice.followers`). By default each cell has
        its own grid.
    data : tuple of str, optional
        For all networks, or TASK=SOURCE for those of a task (classification, segmentation,
        detection), which goes first; the preset's by default. Networks ``python:...``, whose task
        their factory alone knows, take what is named for all.
    changes : mapping, optional
        Fields of `FineTune` or of its `Settings` that are other than the preset's, such as
        ``{"size": 64, "epochs": 10}``. For the baseline alone ``"baseline_epochs"``;
        ``"baseline_limit"``, its images, 0 for all, by default the ``"limit"`` of all runs; and
        ``"baseline_threads"``, by default the ``"n_threads"`` of all runs.
    """

    preset: str = "smoke"
    models: tuple[str, ...] = MODELS
    bits: tuple[int, ...] = tuple(range(2, 9))
    methods: tuple[str, ...] = TRAINED
    seeds: tuple[int, ...] = (0,)
    powers: tuple[int, ...] | None = None
    rates_at: tuple[int, ...] | None = None
    data: tuple[str, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        check_choice("preset", self.preset, PRESETS)
        for name in ("models", "bits", "methods", "seeds", "powers", "rates_at", "data"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise TypeError(f"{name} must be a sequence, got {value!r}")
            if value is None:
                continue
            value = tuple(value)
            if len(set(value)) < len(value) or (not value and name != "data"):
                raise ValueError(f"{name} must be one or several, all different; got {value}")
            object.__setattr__(self, name, value)
        for method in self.methods:
            check_choice("methods", method, METHODS)
        missing = sorted(set(self.rates_at or ()) - set(self.bits))
        if missing:
            raise ValueError(
                f"rates_at must be among the bits {self.bits}; add {missing} or leave it out"
            )
        sources = self._sources()
        own_nets = [model for model in self.models if model.startswith("python:")]
        if own_nets and sources and "" not in sources:
            raise ValueError(
                f"data {self.data} has nothing for {own_nets[0]}, whose task its factory alone "
                "knows; give a source without TASK="
            )
        known = {f.name for kind in (FineTune, Settings) for f in dataclasses.fields(kind)}
        own = {"model", "data", "settings", "method", "n_bits", "baseline", "seed"}
        unknown = [k for k in self.changes if k not in (known - own) | _OF_BASELINES]
        if unknown:
            raise ValueError(f"changes may not name {', '.join(unknown)}")

    def cells(self) -> list[FineTune]:
        """All runs that can be named beforehand, baselines first."""
        baselines = [self._plan(model, seed)[0] for model in self.models for seed in self.seeds]
        return baselines + [config for config, _ in self.grid()]

    def grid(self) -> list[tuple[FineTune, int]]:
        """The compressed ones of `cells`, each with the power of its learning rate."""
        found = []
        for base, fine, powers, method, n_bits in self._compressed():
            if not self._follows(base, method, n_bits):
                found += self._tried(base, fine, powers, method, n_bits)
        return found

    def followers(self) -> list[FineTune]:
        """Those that take over a learning rate, here with that of power 0."""
        found = []
        for base, fine, _, method, n_bits in self._compressed():
            if self._follows(base, method, n_bits):
                found += [config for config, _ in self._tried(base, fine, (0,), method, n_bits)]
        return found

    def _compressed(self) -> Iterator[tuple]:
        for model in self.models:
            for seed in self.seeds:
                base, fine, powers = self._plan(model, seed)
                for method in self.methods:
                    for n_bits in self.bits if method != "none" else ():
                        yield base, fine, powers, method, n_bits

    def _follows(self, base, method, n_bits) -> bool:
        if self.rates_at is None or method not in TRAINED:
            return False
        return n_bits not in self.rates_at or base.seed != self.seeds[0]

    def _plan(self, model, seed):
        found = plan(self.preset, model)
        changes = {k: v for k, v in self.changes.items() if v is not None}
        training = {f.name for f in dataclasses.fields(Settings)} & changes.keys()
        shared = {k: changes[k] for k in training if k not in ("epochs", "learning_rate")}
        own = {k: changes[k] for k in training if k in ("epochs", "learning_rate")}
        renamed = {"epochs": "baseline_epochs", "n_threads": "baseline_threads"}
        first = {k: changes[name] for k, name in renamed.items() if name in changes}
        rest = {k: v for k, v in changes.items() if k not in training | _OF_BASELINES}
        settings = dataclasses.replace(found.base.settings, **(shared | first), seed=seed)
        if settings.epochs == 0:
            settings = dataclasses.replace(settings, learning_rate=_UNUSED_RATE)
        compressing = ("keep_first_last", "scaled_gradient", "monotone")
        base = dataclasses.replace(
            found.base, **{k: v for k, v in rest.items() if k not in compressing}
        )
        base = dataclasses.replace(base, settings=settings, data=self._source(base))
        fine = dataclasses.replace(
            base,
            settings=dataclasses.replace(found.fine, **shared, **own, seed=seed),
            **{k: v for k, v in rest.items() if k in compressing},
        )
        if "baseline_limit" in changes:
            base = dataclasses.replace(base, limit=changes["baseline_limit"] or None)
        return base, fine, self.powers if self.powers is not None else found.powers

    def _sources(self) -> dict[str, str]:
        """Data by task, "" for all that have none of their own."""
        found = {}
        for text in self.data:
            task, equals, source = text.partition("=")
            if not equals or ":" in task:  # an equals sign of a path
                task, source = "", text
            else:
                check_choice("data", task, _TASKS)
            if not source:
                raise ValueError(f"data {text!r} names no source; give TASK=SOURCE")
            if task in found:
                raise ValueError(
                    f"data has {found[task]!r} and {source!r} for {task or 'all tasks'}; leave one"
                )
            found[task] = source
        return found

    def _source(self, base):
        task = _TASK_OF.get(base.model, "" if base.model.startswith("python:") else _TASKS[0])
        sources = self._sources()
        return sources.get(task) or sources.get("") or base.data

    def _tried(self, base, fine, powers, method, n_bits) -> Iterator[tuple[FineTune, int]]:
        settings = fine.settings
        if method in POST_TRAINING:
            settings = dataclasses.replace(settings, epochs=0, max_steps=None)
            powers = (0,)
        for power in powers:
            rate = settings.learning_rate * STEP**power
            config = dataclasses.replace(
                fine,
                method=method,
                n_bits=n_bits,
                baseline=base.hash,
                weights=None,
                settings=dataclasses.replace(settings, learning_rate=rate),
            )
            yield config, power
