"""Whole networks: budgets to the unit, baking, state, copies, pickles, refusals."""

import copy
import pickle

import pytest

torch = pytest.importorskip("torch", reason="pip install pqlib[torch]")
from torch import nn  # noqa: E402
from torch.nn.utils import parametrize  # noqa: E402

from pqlib import matched_sparsity, n_zeros, optimal_scale  # noqa: E402
from pqlib.training.compression import compress, post_training  # noqa: E402
from pqlib.training.lsq import LSQ  # noqa: E402
from pqlib.training.magnitude import MagnitudeMask  # noqa: E402
from pqlib.training.schedule import cubic_sparsity  # noqa: E402

METHODS = ("lsq", "prune")


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.ConvTranspose2d(5, 4, 3),
        nn.Flatten(),
        nn.Linear(4 * 64, 7),
    )


IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
SIZES = {"0": 135, "3": 180, "5": 1792}


def train(compression, n_steps=8, start=0):
    model = compression.model.train()
    optimizers = [torch.optim.SGD(compression.weights(), lr=0.1, momentum=0.9)]
    if compression.scales():
        optimizers.append(torch.optim.Adam(compression.scales(), lr=1e-3))
    for step in range(start, n_steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        model(IMAGES).square().mean().backward()
        compression.step(step, n_steps)
        for optimizer in optimizers:
            optimizer.step()
        yield step
    model.eval()


def finish(compression, n_steps=8, start=0):
    for _ in train(compression, n_steps, start):
        pass
    return compression


@pytest.mark.parametrize("n_bits", (2, 3, 4, 5, 8))
def test_sparsity_at_every_step(n_bits):
    compression = compress(net(), "prune", n_bits)
    final = matched_sparsity(n_bits)
    masks = []
    for step in train(compression, 16):
        rows = compression.table()
        for row in rows:
            sparsity = cubic_sparsity(step, 0, 12, 0.0, final)
            assert row["sparsity"] == n_zeros(row["n_weights"], sparsity) / row["n_weights"]
        masks.append([layer.parametrizations.weight[0].mask for layer in layers(compression)])
    assert all(
        torch.equal(a, b) for late in masks[12:] for a, b in zip(late, masks[-1], strict=True)
    )
    kept = sum(n - n_zeros(n, final) for n in SIZES.values())
    assert compression.bits_per_weight() == pytest.approx(16 * kept / sum(SIZES.values()))
    assert compression.bits_per_weight() == pytest.approx(n_bits, abs=0.03)  # of 135 weights' floor
    for layer in layers(compression):
        assert int((layer.weight == 0).sum()) == n_zeros(layer.weight.numel(), final)


def layers(compression):
    return [compression.model.get_submodule(name) for name in compression.layers]


@pytest.mark.parametrize("n_steps", range(1, 10))
def test_short_runs_reach_the_budget(n_steps):
    compression = finish(compress(net(), "prune", 4), n_steps)
    assert [row["sparsity"] for row in compression.table()] == pytest.approx([0.75] * 3, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_training_moves_what_it_should(method):
    compression = compress(net(), method, 4)
    model = compression.model
    assert len(compression.scales()) == (3 if method == "lsq" else 0)
    every = [id(p) for p in (*compression.scales(), *compression.weights())]
    assert sorted(every) == sorted(id(p) for p in model.parameters())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    finish(compression)
    still = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert still in ([], ["0.bias"])  # batch norm takes that away
    for layer, row in zip(layers(compression), compression.table(), strict=True):
        if method == "lsq":
            levels = layer.weight / row["scale"]
            assert (levels - levels.round()).abs().max() < 1e-4
            assert levels.round().min() >= -8
            assert levels.round().max() <= 7
            assert row["sparsity"] == int((layer.weight == 0).sum()) / row["n_weights"]


@pytest.mark.parametrize("method", METHODS)
def test_bake(method):
    compression = finish(compress(net(), method, 3))
    model, rows = compression.model, compression.table()
    bits, parameters = compression.bits_per_weight(), {id(p) for p in compression.weights()}
    outputs = model(IMAGES)
    compression.bake()
    assert (model(IMAGES) - outputs).abs().max() <= 1e-6
    assert model.state_dict().keys() == net().state_dict().keys()
    assert {id(p) for p in model.parameters()} == parameters
    assert compression.table() == rows
    assert compression.bits_per_weight() == bits
    compression.bake()  # once more is no harm
    with pytest.raises(ValueError, match="baked"):
        compression.step(0, 1)
    assert pickle.loads(pickle.dumps(compression)).table() == rows
    compress(model, method, 8)  # and on from there


@pytest.mark.parametrize("method", METHODS)
def test_post_training(method):
    model = net()
    weights = {name: model.get_submodule(name).weight.detach().clone() for name in SIZES}
    compression = post_training(model, method, 4)
    for row, layer in zip(compression.table(), layers(compression), strict=True):
        w, n = weights[row["layer"]], row["n_weights"]
        if method == "lsq":
            assert row["scale"] == pytest.approx(optimal_scale(w, 4), rel=1e-6)
            assert row["n_bits"] == 4
        else:
            assert row["scale"] is None
            assert int((layer.weight == 0).sum()) == n_zeros(n, 0.75)
    assert compression.bits_per_weight() == pytest.approx(4, abs=0.02)


@pytest.mark.parametrize("n_bits", (2, 4, 8, 12))
def test_first_and_last_at_eight_bits(n_bits):
    """Both methods alike; the rest at n_bits."""
    expected = {"0": max(8, n_bits), "3": n_bits, "5": max(8, n_bits)}
    reached = []
    for method in METHODS:
        compression = post_training(net(), method, n_bits, keep_first_last=True)
        rows = compression.table()
        assert {row["layer"]: row["n_bits"] for row in rows} == expected
        reached.append(compression.bits_per_weight())
    assert reached[0] == sum(SIZES[k] * b for k, b in expected.items()) / sum(SIZES.values())
    assert reached[1] == pytest.approx(reached[0], abs=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_state_goes_on_bit_for_bit(method):
    """Another network of the same kind, loaded between two steps, in the ramp and beyond it."""
    for stop in (3, 7):
        whole = compress(net(), method, 3)
        half = None
        for step in train(whole, 9):
            if step == stop - 1:
                half = compress(net(seed=5), method, 3)
                half.model.load_state_dict(whole.model.state_dict())
                masks = [row["sparsity"] for row in whole.table()]
                assert [row["sparsity"] for row in half.table()] == masks
        half.step(stop, 9)
        again = compress(net(seed=6), method, 3)
        again.model.load_state_dict(half.model.state_dict())
        half.model.eval(), again.model.eval()
        assert torch.equal(half.model(IMAGES), again.model(IMAGES))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ("deepcopy", "pickle"))
def test_copies_are_whole_and_apart(method, how):
    compression = finish(compress(net(), method, 3))
    twin = (
        copy.deepcopy(compression) if how == "deepcopy" else pickle.loads(pickle.dumps(compression))
    )
    assert twin.table() == compression.table()
    assert torch.equal(twin.model(IMAGES), compression.model(IMAGES))
    state = compression.model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in twin.model.state_dict().items())
    expected = [p.clone() for p in compression.model.parameters()]
    finish(twin)
    assert all(
        torch.equal(a, b) for a, b in zip(expected, compression.model.parameters(), strict=True)
    )
    finish(compression)
    assert torch.equal(twin.model(IMAGES), compression.model(IMAGES))


@pytest.mark.parametrize("method", METHODS)
def test_baking_one_of_two_copies(method):
    """torch's copies of a parametrized layer share a class, and removing changes that class."""
    compression = post_training(net(), method, 3)
    model, outputs = copy.deepcopy(compression.model).eval(), compression.model.eval()(IMAGES)
    twin = copy.deepcopy(compression)
    compression.bake()
    assert torch.equal(twin.model(IMAGES), outputs)
    assert torch.equal(model(IMAGES), outputs)
    twin.bake()
    assert torch.equal(twin.model(IMAGES), outputs)
    assert torch.equal(model(IMAGES), outputs)


def test_monotone_masks_only_grow():
    compression = compress(net(), "prune", 2, monotone=True)
    before = None
    for _ in train(compression, 12):
        masks = [layer.parametrizations.weight[0].mask for layer in layers(compression)]
        if before is not None:
            assert not any((a & ~b).any() for a, b in zip(masks, before, strict=True))
        before = masks


@pytest.mark.parametrize("method", METHODS)
def test_shared_weights_share_their_compression(method):
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    compression = post_training(model, method, 4)
    assert compression.layers == ("0", "1")
    assert torch.equal(model[0].weight, model[2].weight)
    assert sum(row["n_weights"] for row in compression.table()) == 72
    twin = pickle.loads(pickle.dumps(compression)).model
    assert twin[0].parametrizations.weight[0] is twin[2].parametrizations.weight[0]
    output = model(torch.ones(1, 6))
    compression.bake()
    assert model[2].weight is model[0].weight
    assert torch.equal(model(torch.ones(1, 6)), output)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("spoil", "message"),
    (
        (lambda w: w.zero_(), "'3' is all zero"),
        (lambda w: w.view(-1)[0].fill_(torch.nan), "'3' is not finite"),
    ),
)
def test_weights_refused(method, spoil, message):
    model = net()
    with torch.no_grad():
        spoil(model[3].weight)
    with pytest.raises(ValueError, match=message):
        compress(model, method, 4)
    assert not any(parametrize.is_parametrized(module) for module in model)


def test_refused():
    for n_bits in (1, 17, 4.5):
        with pytest.raises(ValueError, match="n_bits"):
            compress(net(), "lsq", n_bits)
    with pytest.raises(ValueError, match="method must be one of lsq, prune"):
        compress(net(), "qat", 4)
    with pytest.raises(ValueError, match="float32"):
        compress(net().half(), "prune", 4)
    model = net()
    compress(model, "lsq", 4)
    for method in METHODS:
        with pytest.raises(ValueError, match="parametrized already, by LSQ"):
            compress(model, method, 4)
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="parametrized already, by _WeightNorm"):
        compress(model, "lsq", 4)
    compression = compress(net(), "prune", 4)
    for step, n_steps in ((-1, 4), (0, 0)):
        with pytest.raises(ValueError, match="step"):
            compression.step(step, n_steps)
    parametrize.remove_parametrizations(compression.model[0], "weight")
    with pytest.raises(ValueError, match="'0' is not compressed any more"):
        compression.step(0, 4)


def test_parts():
    assert isinstance(compress(net(), "lsq", 4).model[0].parametrizations.weight[0], LSQ)
    assert isinstance(
        compress(net(), "prune", 4).model[0].parametrizations.weight[0], MagnitudeMask
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_network_as_people_have_it(method):
    model = pytest.importorskip("torchvision").models.mobilenet_v2(num_classes=10).eval()
    compression = post_training(model, method, 4)
    assert len(compression.layers) == 53
    assert compression.bits_per_weight() == pytest.approx(4, abs=1e-4)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        outputs = model(images)
        compression.bake()
        assert (model(images) - outputs).abs().max() <= 1e-6


def test_pruning_at_once_has_its_final_masks_from_the_first_step_on():
    model = net()
    compression = compress(model, "prune", 4, at_once=True)
    after = copy.deepcopy(post_training(net(), "prune", 4).model.state_dict())
    masks = None
    for step in train(compression):
        found = [part.mask.clone() for _, _, part in compression._parts()]
        if step == 0:
            for name, mask in zip(SIZES, found, strict=True):
                assert torch.equal(mask, after[f"{name}.parametrizations.weight.0.multiplier"] != 0)
            masks = found
        assert all(map(torch.equal, masks, found))
    zeros = {row["layer"]: row["sparsity"] * row["n_weights"] for row in compression.table()}
    assert zeros == {k: pytest.approx(n_zeros(n, 0.75)) for k, n in SIZES.items()}
