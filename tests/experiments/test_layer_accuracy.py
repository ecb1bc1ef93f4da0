"""One layer compressed at a time, against networks small enough to be worked out by hand."""

import copy
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from finetune_cases import opened, seeded  # noqa: E402
from torch import nn  # noqa: E402

from pqlib import IntegerGrid, fake_quantize, magnitude_mask, optimal_scale, sqnr_db  # noqa: E402
from pqlib.experiments.layer_accuracy import (  # noqa: E402
    Original,
    answers,
    cases,
    decibels,
    measure,
)
from pqlib.training.compression import compress  # noqa: E402


def small_weight(w, n_bits, method):
    if method == "prune":
        return w * magnitude_mask(w, 1 - n_bits / 16)
    return fake_quantize(w, IntegerGrid(n_bits, optimal_scale(w, n_bits)))


def softmax_loss(logits, labels):
    shifted = logits - logits.max(1, keepdims=True)
    return float(np.mean(np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]))


@pytest.fixture
def linear():
    """Two linear layers with nothing between them, and 60 inputs in three batches."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(5, 8)), rng.normal(size=(4, 5))
    net = nn.Sequential(nn.Linear(8, 5, bias=False), nn.Linear(5, 4, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.from_numpy(first))
        net[1].weight.copy_(torch.from_numpy(second))
    x, labels = rng.normal(size=(60, 8)), rng.integers(0, 4, 60)
    batches = [(torch.from_numpy(x[i : i + 25]), torch.from_numpy(labels[i : i + 25]))
               for i in range(0, 60, 25)]  # fmt: skip
    return net, batches, (first, second, x, labels)


@pytest.mark.parametrize("method", ["quantize", "prune"])
@pytest.mark.parametrize("n_bits", [2, 4, 8])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_linear_network_worked_out_by_hand(linear, layer, n_bits, method):
    net, batches, (first, second, x, labels) = linear
    original = answers(net, batches)
    row = measure(net, batches, original, str(layer), n_bits, method)

    weights = [first, second]
    weights[layer] = small_weight(weights[layer], n_bits, method)
    inputs = x if layer == 0 else x @ first.T
    wanted, got = inputs @ (first, second)[layer].T, inputs @ weights[layer].T
    before, after = x @ first.T @ second.T, x @ weights[0].T @ weights[1].T
    assert row["snr"] == pytest.approx(np.sum(wanted**2) / np.sum((got - wanted) ** 2))
    assert row["snr_db"] == pytest.approx(sqnr_db(wanted, got))
    assert row["logit_snr_db"] == pytest.approx(sqnr_db(before, after))
    assert row["logit_snr"] == pytest.approx(10 ** (row["logit_snr_db"] / 10))
    right = [100 * np.mean(logits.argmax(1) == labels) for logits in (before, after)]
    assert row["fp_accuracy"] == pytest.approx(right[0])
    assert row["accuracy"] == pytest.approx(right[1])
    assert row["drop"] == pytest.approx(right[0] - right[1])
    losses = [softmax_loss(logits, labels) for logits in (before, after)]
    assert row["fp_cross_entropy"] == pytest.approx(losses[0])
    assert row["increase"] == pytest.approx(losses[1] - losses[0])
    assert row["agreement"] == pytest.approx(100 * np.mean(before.argmax(1) == after.argmax(1)))
    assert row["sparsity"] == np.mean(weights[layer] == 0)
    assert (row["scale"] is None) == (method == "prune")
    assert (row["n_images"], row["n_weights"]) == (60, (first, second)[layer].size)


def test_with_every_input_once_it_is_the_error_of_the_weights(linear):
    net, _, (first, *_) = linear
    batches = [(torch.eye(8, dtype=torch.float64), torch.zeros(8, dtype=torch.int64))]
    row = measure(net, batches, answers(net, batches), "0", 3, "quantize")
    assert row["snr_db"] == pytest.approx(sqnr_db(first, small_weight(first, 3, "quantize")))


def test_a_layer_on_its_grid_loses_nothing(linear):
    net, batches, _ = linear
    with torch.no_grad():
        net[1].weight.copy_(torch.arange(-10, 10).clamp(-8, 7).reshape(4, 5) / 4)
    row = measure(net, batches, answers(net, batches), "1", 4, "quantize")
    assert (row["snr"], row["snr_db"], row["logit_snr_db"]) == (math.inf,) * 3
    assert (row["drop"], row["increase"], row["agreement"]) == (0, 0, 100)


def test_convolutions_batch_norm_and_flags_stay_as_they_were():
    net = seeded().train()
    net[1].running_mean.normal_()
    net[3].eval()
    before, flags = copy.deepcopy(net.state_dict()), [m.training for m in net.modules()]
    data, task = opened()
    example = task.collate([data.test[i] for i in range(40)])
    batches = [(task.inputs(example), example["labels"])]
    row = measure(net, batches, answers(net, batches), "0", 2, "prune")
    twin = copy.deepcopy(net).eval()
    with torch.no_grad():
        wanted = twin[0](batches[0][0]).double()
        twin[0].weight.copy_(small_weight(twin[0].weight.detach(), 2, "prune"))
        got = twin[0](batches[0][0]).double()
    assert row["snr_db"] == pytest.approx(sqnr_db(wanted.numpy(), got.numpy()), abs=1e-5)
    assert row["kind"] == "Conv2d" and 0 < row["snr_db"] < 30
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert [m.training for m in net.modules()] == flags


class Twice(nn.Module):
    """A layer that is called twice, with a shared weight behind it, and one never called."""

    def __init__(self):
        super().__init__()
        self.again, self.shares = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.shares.weight, self.idle = self.again.weight, nn.Linear(2, 2)

    def forward(self, x):
        return self.shares(self.again(input=self.again(x)))


def test_every_call_of_a_shared_weight_counts():
    net, x = Twice().double(), torch.randn(9, 4, dtype=torch.float64)
    batches = [(x, torch.zeros(9, dtype=torch.int64))]
    row = measure(net, batches, answers(net, batches), "again", 2, "quantize")
    w = net.again.weight.detach()
    w_hat, signal, error, own = small_weight(w, 2, "quantize"), 0.0, 0.0, x
    for _ in range(3):
        signal += float(((own @ w.T) ** 2).sum())
        error += float(((own @ (w_hat - w).T) ** 2).sum())
        own = own @ w_hat.T
    assert row["snr"] == pytest.approx(signal / error)
    with pytest.raises(ValueError, match="layer 'idle' is never called in a forward pass; leave"):
        measure(net, batches, answers(net, batches), "idle", 2, "quantize")


def test_all_cases_in_the_order_of_the_network(linear):
    net, *_ = linear
    assert cases(net, (2, 4)) == [
        ("0", 2, "quantize"), ("0", 2, "prune"), ("0", 4, "quantize"), ("0", 4, "prune"),
        ("1", 2, "quantize"), ("1", 2, "prune"), ("1", 4, "quantize"), ("1", 4, "prune"),
    ]  # fmt: skip
    assert cases(net, (8,), ["1"]) == [("1", 8, "quantize"), ("1", 8, "prune")]
    with pytest.raises(ValueError, match=r"layer 'head' is no convolution.*take of 0, 1"):
        cases(net, (8,), ["head"])


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("0", 4, "round"), ValueError, "method must be one of quantize, prune, got 'round'"),
        (("0", 1, "prune"), ValueError, r"n_bits must be a whole number in 2\.\.16, got 1"),
        (("0", 4.5, "prune"), ValueError, "n_bits must be a whole number"),
        (("2", 4, "prune"), ValueError, "layer '2' is no convolution or linear layer"),
    ],
)
def test_bad_arguments(linear, arguments, error, text):
    net, batches, _ = linear
    with pytest.raises(error, match=text):
        measure(net, batches, answers(net, batches), *arguments)


def test_bad_batches_and_networks(linear):
    net, batches, _ = linear
    original = answers(net, batches)
    with pytest.raises(TypeError, match=r"used up after one pass: take list\(batches\)"):
        answers(net, iter(batches))
    with pytest.raises(ValueError, match="at least one image"):
        answers(net, [])
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.3.*got 0\.\.4"):
        answers(net, [(batches[0][0], torch.arange(25) % 5)])
    with pytest.raises(ValueError, match="one row per label"):
        answers(net, [(batches[0][0], torch.zeros(3, dtype=torch.int64))])
    with pytest.raises(ValueError, match="logits of shape"):
        answers(nn.Identity(), [(torch.zeros(3), torch.zeros(3, dtype=torch.int64))])
    before = net[0].weight.detach().clone()
    with pytest.raises(ValueError, match=r"same order .shuffle=False"):
        measure(net, batches[::-1], original, "0", 2, "prune")
    assert torch.equal(net[0].weight, before)  # also after an error
    with torch.no_grad():
        net[0].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="weight of layer '0' is not finite; load trained"):
        measure(net, batches, original, "0", 2, "prune")
    with pytest.raises(ValueError, match="logits that are not finite"):
        answers(net, batches)
    with torch.no_grad():
        net[0].weight.copy_(before)
    compress(net, "prune", 4)
    with pytest.raises(ValueError, match="weight of layer '1' is parametrized; start from a plain"):
        measure(net, batches, original, "1", 2, "prune")


def test_decibels_of_nothing():
    assert decibels(0.0) == -math.inf and decibels(math.inf) == math.inf
    assert decibels(100.0) == 20


def test_errors_of_random_direction_cost_half_the_trace():
    """The chapter's theorem, on logits, whose Hessian has the trace 1 - |p|^2."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(20_000, 10)), torch.from_numpy(rng.integers(0, 10, 20_000))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    trace, sigma = np.mean(1 - (p**2).sum(1)), 0.02
    e = sigma * rng.normal(size=logits.shape)
    before, *after = (
        Original(torch.from_numpy(logits + sign * e), labels).cross_entropy for sign in (0, 1, -1)
    )
    assert np.mean(after) - before == pytest.approx(sigma**2 * trace / 2, rel=0.02)
