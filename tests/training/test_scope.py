"""Which layers count, which are refused."""

import pytest

torch = pytest.importorskip("torch", reason="pip install pqlib[torch]")
from torch import nn  # noqa: E402
from torch.nn.utils.prune import l1_unstructured  # noqa: E402

from pqlib.training.scope import compressible_layers, sharing_layers, weight_of  # noqa: E402


class Odd(nn.Conv2d):
    """A subclass, as timm has them."""


def test_kinds_and_order():
    model = nn.Sequential(
        nn.Conv1d(2, 2, 1),
        nn.BatchNorm1d(2),
        nn.Sequential(Odd(2, 2, 3), nn.ConvTranspose2d(2, 2, 3)),
        nn.Embedding(3, 2),
        nn.Linear(2, 2),
        nn.Conv3d(1, 1, 1),
    )
    assert list(compressible_layers(model)) == ["0", "2.0", "2.1", "4", "5"]
    assert list(compressible_layers(model, keep_first_last=True)) == ["2.0", "2.1", "4"]
    assert compressible_layers(nn.Linear(2, 2)).keys() == {""}


def test_shared_weights_count_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    assert list(compressible_layers(model)) == ["0", "1"]
    assert {k: list(v) for k, v in sharing_layers(model).items()} == {"0": ["0", "2"], "1": ["1"]}
    assert weight_of(model[2]) is model[0].weight


@pytest.mark.parametrize(
    ("model", "message"),
    (
        (nn.Sequential(nn.MultiheadAttention(4, 2)), "vit_small_patch16_224"),
        (nn.ReLU(), "nothing to compress"),
        (nn.Sequential(nn.LazyLinear(3)), "run one batch"),
    ),
)
def test_refused(model, message):
    with pytest.raises(ValueError, match=message):
        compressible_layers(model)


def test_nothing_between_first_and_last():
    with pytest.raises(ValueError, match="keep_first_last=False"):
        compressible_layers(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), keep_first_last=True)


def test_weights_that_are_no_parameters():
    model = nn.Sequential(nn.Linear(2, 2))
    l1_unstructured(model[0], "weight", 1)
    with pytest.raises(ValueError, match=r"prune\.remove"):
        compressible_layers(model)
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        compressible_layers("resnet18")


def test_torchvisions_vit_is_refused():
    vit = pytest.importorskip("torchvision").models.VisionTransformer
    with pytest.raises(ValueError, match="self_attention"):
        compressible_layers(vit(32, 16, 1, 2, 8, 8))
