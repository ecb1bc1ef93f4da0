"""Batch norm again: averages by hand, torch's own, flags, errors."""

import pytest

torch = pytest.importorskip("torch", reason="pip install pqlib[torch]")
from torch import nn  # noqa: E402
from torch.optim.swa_utils import update_bn  # noqa: E402

from pqlib.training.batch_norm import reestimate  # noqa: E402


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)
    )


def batches(n=4):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(6, 3, 8, 8, generator=generator) + i for i in range(n)]


def buffers(model):
    return {k: v.clone() for k, v in model.named_buffers()}


def test_averages_by_hand():
    norm = nn.BatchNorm1d(2)
    data = [torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[5.0, 0.0], [9.0, 0.0]])]
    reestimate(norm, data)
    assert norm.running_mean.tolist() == [4.5, 1.0]  # of 2, 7 and 2, 0
    assert norm.running_var.tolist() == [5.0, 4.0]  # of 2, 8 and 8, 0, unbiased
    assert norm.num_batches_tracked == 2


def test_as_torchs_own():
    model, other = net(), net()
    reestimate(model, batches())
    update_bn(batches(), other)
    for name, value in buffers(other).items():
        torch.testing.assert_close(buffers(model)[name], value)


def test_flags_and_momenta_stay():
    model = net().eval()
    model[4].train()
    model[1].momentum = 0.3
    weights = [p.clone() for p in model.parameters()]
    reestimate(model, batches())
    assert [m.training for m in model] == [False, False, False, False, True]
    assert (model[1].momentum, model[4].momentum) == (0.3, 0.1)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_forward_and_dropout():
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(2)).train()
    pairs = [{"x": torch.ones(4, 2), "y": 0}]
    reestimate(model, pairs, forward=lambda m, batch: m(batch["x"]))
    assert model[1].running_mean.tolist() == [1.0, 1.0]  # nothing was dropped
    assert model[0].training


@pytest.mark.parametrize(
    "model", (nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)), ids=("none", "plain")
)
def test_without_running_statistics_nothing_is_read(model):
    unread = iter([torch.ones(4, 2)])
    reestimate(model, unread)
    assert len(list(unread)) == 1


@pytest.mark.parametrize("fails", ("empty", "raises"))
def test_errors_leave_everything(fails):
    model = net()
    model(batches()[0])
    before, momentum = buffers(model), model[1].momentum

    def stream():
        if fails == "raises":
            yield batches()[0]
            raise OSError("disk")

    with pytest.raises(ValueError if fails == "empty" else OSError):
        reestimate(model, stream())
    assert all(torch.equal(buffers(model)[k], v) for k, v in before.items())
    assert model[1].momentum == momentum
    assert model.training


def test_norms_that_no_batch_reaches_keep_theirs():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
            self.unused.running_mean.fill_(7.0)

        def forward(self, x):
            return self.used(x)

    model = Unused()
    reestimate(model, [torch.tensor([[1.0], [3.0]])])
    assert model.unused.running_mean.item() == 7.0
    assert model.used.running_mean.item() == 2.0
