import logging

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from pqlib import LayerProblem  # noqa: E402
from pqlib.layers.capture import capture_layers  # noqa: E402
from pqlib.layers.captured import chunk_bounds  # noqa: E402

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def random_convolution(seed):
    """A module of any kind in float64, and the size of its inputs."""
    rng = np.random.default_rng(seed)
    n_axes = int(rng.choice([1, 2, 2, 2, 3]))
    axes = range(n_axes)
    groups = int(rng.choice([1, 1, 2, 3]))
    channels = groups * int(rng.integers(1, 5))
    if rng.random() < 0.25:  # depthwise
        groups = channels
    kernel = tuple(int(rng.integers(1, 4)) for _ in axes)
    dilation = tuple(int(rng.integers(1, 3)) for _ in axes)
    stride = tuple(int(rng.integers(1, 4)) for _ in axes)
    padding = tuple(int(rng.integers(0, 3)) for _ in axes)
    choice = rng.random()
    if choice < 0.3:
        padding, stride = "same", 1
    elif choice < 0.4:
        padding = "valid"
    module = CONVS[n_axes](
        channels,
        groups * int(rng.integers(1, 4)),
        kernel,
        stride,
        padding,
        dilation,
        groups,
        bias=bool(rng.integers(2)),
        padding_mode=str(rng.choice(["zeros", "zeros", "reflect", "replicate", "circular"])),
    )
    return module.double(), (channels, *(int(rng.integers(7, 10)) for _ in axes))


def with_weight(module, weight):
    """Another weight in place, as numpy of shape (n_out, n)."""
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weight).reshape(module.weight.shape))


def change_of_output(module, batches, weight, channels=slice(None)):
    """|module(x; w) - module(x; weight)|^2 of some channels, through the module itself."""
    axis = 1 if hasattr(module, "kernel_size") else -1
    original = module.weight.detach().clone()
    total = 0.0
    with torch.no_grad():
        before = [module(x) for x in batches]
        with_weight(module, weight)
        for x, y in zip(batches, before, strict=True):
            change = (module(x) - y).movedim(axis, 0).reshape(len(weight), -1)
            total += float((change[channels] ** 2).sum())
        module.weight.copy_(original)
    return total


def assert_errors_agree(module, batches, rng, **options):
    [layer] = capture_layers(nn.Sequential(module), batches, full=True, **options)
    np.testing.assert_array_equal(layer.weight, module.weight.detach().double().flatten(1).numpy())
    w_hat = layer.weight + rng.normal(size=layer.weight.shape)
    truth = change_of_output(module, batches, w_hat)
    problems = [(i, c, c.problem(i)) for c in layer.whole for i in c.channels]
    assert [i for i, _, _ in problems] == [*range(len(w_hat))]
    assert all(isinstance(p, LayerProblem) for _, _, p in problems)
    assert sum(p.error(w_hat[i]) for i, _, p in problems) == pytest.approx(truth, rel=1e-10)
    assert layer.error(w_hat) == pytest.approx(truth, rel=1e-10)
    energy = change_of_output(module, batches, 0 * w_hat)
    assert sum(p.energy for _, _, p in problems) == pytest.approx(energy, rel=1e-10)

    [apart] = capture_layers(nn.Sequential(module), batches, **options)
    assert not apart.whole
    for chunk, same in zip(apart.chunks, layer.chunks, strict=True):
        np.testing.assert_allclose(chunk.gram, same.gram, rtol=1e-12, atol=1e-12)
        changed = layer.weight.copy()
        channels = slice(chunk.channels.start, chunk.channels.stop)
        changed[channels, chunk.start : chunk.stop] = w_hat[channels, chunk.start : chunk.stop]
        truth = change_of_output(module, batches, changed)
        found = sum(
            chunk.problem(i).error(w_hat[i, chunk.start : chunk.stop]) for i in chunk.channels
        )
        assert found == pytest.approx(truth, rel=1e-10)
    return layer


@pytest.mark.filterwarnings("ignore:Using padding='same' with even")
@pytest.mark.parametrize("seed", range(30))
def test_the_error_is_that_of_the_module_itself(seed):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    module, size = random_convolution(seed)
    batches = [torch.randn(n, *size, dtype=torch.float64) for n in (2, 1)]
    layer = assert_errors_agree(module, batches, rng, chunk=int(rng.integers(1, 20)))
    assert layer.n_samples == layer.n_outputs > 0


@pytest.mark.parametrize("leading", [(), (5,), (3, 4)])
def test_linear_of_any_leading_axes(leading):
    torch.manual_seed(0)
    module = nn.Linear(41, 7).double()
    batches = [torch.randn(n, *leading, 41, dtype=torch.float64) for n in (2, 3)]
    layer = assert_errors_agree(module, batches, np.random.default_rng(0))
    assert (layer.kind, layer.n_samples) == ("linear", 5 * int(np.prod(leading)))
    assert [(c.start, c.stop) for c in layer.chunks] == [(0, 20), (20, 41)]


def test_single_precision_errors_agree_to_its_rounding():
    torch.manual_seed(0)
    module = nn.Conv2d(6, 4, 3, padding=1)
    x = torch.randn(4, 6, 9, 9)
    [layer] = capture_layers(module, [x], full=True)
    assert layer.name == ""
    w_hat = layer.weight + np.random.default_rng(0).normal(size=layer.weight.shape)
    truth = change_of_output(module.double(), [x.double()], w_hat)
    assert layer.error(w_hat) == pytest.approx(truth, rel=1e-10)


def test_inputs_without_an_axis_of_examples():
    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(2, 3, 2), nn.Linear(3, 2)

        def forward(self, x, scale):
            return self.head(input=(self.conv(x[0]) * scale).mean((1, 2)))

    x, scale = torch.randn(3, 2, 4, 4), torch.ones(3, 1, 1)
    conv, head = capture_layers(Apart(), [(x, scale)])
    assert (conv.n_samples, head.n_samples) == (27, 3)


def small_network():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Dropout(0.5),
        nn.Conv2d(8, 40, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(40, 5),
    )


def test_kinds_and_the_chunks_of_the_paper():
    layers = capture_layers(small_network(), [torch.randn(2, 3, 8, 8)])
    assert [(v.name, v.kind) for v in layers] == [
        ("0", "conv"),
        ("3", "depthwise"),
        ("5", "pointwise"),
        ("8", "linear"),
    ]
    assert [v.weight.shape for v in layers] == [(8, 27), (8, 9), (40, 8), (5, 40)]
    assert [len(v.chunks) for v in layers] == [1, 8, 1, 2]
    assert [c.channels for c in layers[1].chunks] == [range(i, i + 1) for i in range(8)]
    assert [v.n_samples for v in layers] == [32, 32, 32, 2]
    for layer in layers:
        for chunk in layer.chunks:
            assert chunk.gram.dtype == np.float64
            np.testing.assert_array_equal(chunk.gram, chunk.gram.T)
    wide = nn.Conv2d(64, 2, 1)
    [layer] = capture_layers(wide, [torch.randn(1, 64, 3, 3)])
    assert [c.stop - c.start for c in layer.chunks] == [32, 32]


def test_bounds_are_nearly_equal_and_keep_channels_whole():
    assert chunk_bounds(27, 36, 9) == [(0, 27)]
    assert {b - a for a, b in chunk_bounds(64 * 9, 36, 9)} == {36}
    assert len(chunk_bounds(64 * 9, 36, 9)) == 16
    assert {b - a for a, b in chunk_bounds(10 * 9, 36, 9)} == {27, 36}
    assert {b - a for a, b in chunk_bounds(3 * 49, 36, 49)} == {29, 30}
    for n in range(1, 80):
        for size in range(1, 40):
            bounds = chunk_bounds(n, size)
            sizes = [b - a for a, b in bounds]
            assert (bounds[0][0], bounds[-1][1]) == (0, n)
            assert [b for _, b in bounds[:-1]] == [a for a, _ in bounds[1:]]
            assert len(sizes) == -(-n // size)
            assert max(sizes) - min(sizes) <= 1 and max(sizes) <= size
    with pytest.raises(ValueError, match="n_taps must divide n = 10, got 3"):
        chunk_bounds(10, 4, 3)


def grams_of(layers):
    return [c.gram for layer in layers for c in layer.chunks]


@pytest.mark.parametrize("n_positions", [None, 5])
def test_the_split_into_batches_changes_no_bit(n_positions):
    model, x = small_network(), torch.randn(7, 3, 9, 9)

    def run(*sizes, layers=None):
        rng = np.random.default_rng(3) if n_positions else None
        return capture_layers(model, x.split(sizes), layers, n_positions=n_positions, rng=rng)

    whole = run(7)
    for sizes in [(1,) * 7, (3, 4), (2, 2, 3)]:
        for a, b in zip(grams_of(whole), grams_of(run(*sizes)), strict=True):
            np.testing.assert_array_equal(a, b)
    [alone] = run(4, 3, layers=["5"])
    np.testing.assert_array_equal(alone.chunks[0].gram, whole[2].chunks[0].gram)


def test_sampled_positions_are_some_of_all_and_follow_the_seed():
    module = nn.Conv2d(1, 1, 1).double()
    x = torch.arange(1.0, 37.0, dtype=torch.float64).reshape(1, 1, 6, 6)

    def run(seed, n):
        rng = np.random.default_rng(seed)
        [layer] = capture_layers(module, [x, x + 36], n_positions=n, rng=rng)
        return layer

    layer = run(0, 4)
    assert (layer.n_samples, layer.n_outputs) == (8, 72)
    totals = [run(seed, 4).chunks[0].gram.item() for seed in range(200)]
    assert totals[0] == layer.chunks[0].gram.item() and len(set(totals)) > 150
    squares = np.arange(1.0, 73.0) ** 2
    expected = 4 * (squares[:36].mean() + squares[36:].mean())  # unbiased
    assert np.mean(totals) == pytest.approx(expected, rel=0.05)
    full = run(0, 1000)
    assert full.n_samples == 72 and full.chunks[0].gram.item() == squares.sum()


def test_long_inputs_are_gathered_by_slices(monkeypatch):
    from pqlib.layers import capture

    model, x = small_network(), torch.randn(2, 3, 20, 20)
    whole = grams_of(capture_layers(model, [x]))
    monkeypatch.setattr(capture, "_SLICE_VALUES", 100)
    for a, b in zip(whole, grams_of(capture_layers(model, [x])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_a_layer_called_several_times_counts_each_call():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.same = nn.Linear(4, 4)
            self.alias = self.same

        def forward(self, x):
            return self.alias(self.same(x).relu())

    model, x = Twice().double(), torch.randn(6, 4, dtype=torch.float64)
    [layer] = capture_layers(model, [x])
    hidden = model.same(x).relu().detach()
    assert (layer.name, layer.n_samples) == ("same", 12)
    np.testing.assert_allclose(layer.chunks[0].gram, (x.T @ x + hidden.T @ hidden).numpy())
    [other] = capture_layers(model, [x], ["alias"])
    np.testing.assert_array_equal(layer.chunks[0].gram, other.chunks[0].gram)


def test_the_model_is_left_as_it_was_found():
    model, x = small_network(), torch.randn(2, 3, 8, 8)
    model.train()
    model[1].eval()
    modes = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    inputs = x.clone()

    def assert_unchanged():
        assert [m.training for m in model.modules()] == modes
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
        assert torch.equal(x, inputs) and torch.is_grad_enabled()
        assert all(p.grad is None and p.requires_grad for p in model.parameters())

    trained = grams_of(capture_layers(model, [x]))
    assert_unchanged()
    with pytest.raises(RuntimeError, match="expected input"):
        capture_layers(model, [x, x[:, :2]])
    assert_unchanged()
    with pytest.raises(ValueError, match=r"layer '0' reads NaN.* in example 1"):
        capture_layers(model, [torch.stack([x[0], x[1] * np.nan])])
    assert_unchanged()
    for a, b in zip(trained, grams_of(capture_layers(model.eval(), [x])), strict=True):
        np.testing.assert_array_equal(a, b)  # batch norm and dropout as in eval mode


def test_hooks_of_others_stay_and_may_change_outputs():
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double(), torch.eye(4).double()
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    _, second = capture_layers(model, [x])
    assert len(model[0]._forward_hooks) == 1 and not model[1]._forward_hooks
    hidden = model[0](x).detach().numpy()  # doubled by the hook
    np.testing.assert_allclose(second.chunks[0].gram, hidden.T @ hidden)


def test_attention_without_modules_is_refused():
    model = nn.Sequential(nn.Linear(8, 8), nn.TransformerEncoderLayer(8, 2, 16))
    x = [torch.randn(1, 5, 8)]
    for layers in (None, ["1.self_attn"], ["0", "1.self_attn.out_proj"]):
        with pytest.raises(ValueError, match=r"'1\.self_attn' is an nn\.MultiheadAttention.*timm"):
            capture_layers(model, x, layers)
    [layer] = capture_layers(model, x, ["0"])
    assert layer.n_samples == 5


def test_a_module_that_does_something_else_is_refused():
    class Standardized(nn.Conv2d):
        def forward(self, x):
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return self._conv_forward(x, weight, self.bias)

    class Same(nn.Conv2d):  # pads by itself
        def forward(self, x):
            return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))

    for module in (Standardized(2, 3, 3), Same(2, 3, 3)):
        with pytest.raises(ValueError, match="does more than multiply"):
            capture_layers(module, [torch.randn(1, 2, 5, 5)])


def test_weights_that_are_computed_are_those_in_use():
    module = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3, padding=1).double())
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    [layer] = capture_layers(module, [x], full=True)
    with torch.no_grad():
        module.bias.zero_()
        assert layer.error(0 * layer.weight) == pytest.approx(float((module(x) ** 2).sum()))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_floats_are_widened(dtype):
    dtype = getattr(torch, dtype)
    module, x = nn.Linear(40, 3).to(dtype), torch.randn(6, 40).to(dtype)
    [layer] = capture_layers(module, [x], full=True)
    np.testing.assert_allclose(layer.whole[0].gram, (x.double().T @ x.double()).numpy())


def test_tensorflow_padding_of_timm():
    layers = pytest.importorskip("timm.layers")
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    for kernel, stride, dilation, groups, size in [
        (3, 2, 1, 1, 8),
        (3, 2, 1, 4, 9),
        (5, 2, 1, 4, 7),
        (3, 1, 2, 1, 6),
    ]:
        module = layers.Conv2dSame(4, 4, kernel, stride, dilation=dilation, groups=groups)
        x = torch.randn(2, 4, size, size, dtype=torch.float64)
        assert_errors_agree(module.double(), [x], rng)


def test_timm_vit_is_made_of_modules():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32).double()
    layers = capture_layers(model, [torch.randn(2, 3, 32, 32, dtype=torch.float64)])
    names = [v.name for v in layers]
    assert names[:3] == ["patch_embed.proj", "blocks.0.attn.qkv", "blocks.0.attn.proj"]
    assert layers[2].n_samples == 2 * 5 and layers[-1].name == "head"


def test_uncalled_layers(caplog):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    x = [torch.randn(3, 2)]
    with caplog.at_level(logging.WARNING):
        assert [v.name for v in capture_layers(Idle(), x)] == ["used"]
    assert "does not call them: idle" in caplog.text
    with pytest.raises(ValueError, match="model does not call idle on these inputs"):
        capture_layers(Idle(), x, ["used", "idle"])


def test_wrong_arguments_say_what_to_do():
    model, x = small_network(), torch.randn(2, 3, 8, 8)
    named = nn.ModuleDict({"features": model, "classifier": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match=r"has 'clasifier'.*the nearest is 'classifier'"):
        capture_layers(named, [x], ["clasifier"])
    with pytest.raises(ValueError, match=r"layer '1' is a BatchNorm2d; Linear, Conv1d"):
        capture_layers(model, [x], ["1"])
    with pytest.raises(ValueError, match="has no Linear or Conv1d-3d module"):
        capture_layers(nn.ReLU(), [x])
    with pytest.raises(ValueError, match="layers must name at least one"):
        capture_layers(model, [x], [])
    with pytest.raises(TypeError, match="layers must be a sequence of names"):
        capture_layers(model, [x], "0")
    with pytest.raises(TypeError, match=r"give \[batch\]"):
        capture_layers(model, x)
    with pytest.raises(TypeError, match=r"got list; of a DataLoader give \(x for x, _ in loader\)"):
        capture_layers(model, [[x, torch.zeros(2)]])
    with pytest.raises(ValueError, match=r"tensors of \[2, 3\] examples"):
        capture_layers(model, [(x, torch.zeros(3))])
    with pytest.raises(ValueError, match="at least one example"):
        capture_layers(model, [])
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
        capture_layers(lambda x: x, [x])
    with pytest.raises(TypeError, match=r"rng must be a numpy\.random\.Generator"):
        capture_layers(model, [x], n_positions=3)
    for bad in ({"chunk": 0}, {"n_positions": 0, "rng": np.random.default_rng(0)}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} must be a whole number"):
            capture_layers(model, [x], **bad)
    with torch.no_grad():
        model[8].weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match="layer '8' has weights that are NaN or infinite"):
        capture_layers(model, [x])


def test_a_problem_is_asked_of_its_own_channels():
    [layer] = capture_layers(nn.Conv1d(4, 6, 2, groups=2), [torch.randn(1, 4, 5)])
    first, second = layer.chunks
    assert (first.channels, second.channels) == (range(3), range(3, 6))
    with pytest.raises(ValueError, match=r"channel must be a whole number in 3\.\.5, got 2"):
        second.problem(2)
    with pytest.raises(ValueError, match="capture it with full=True"):
        layer.error(layer.weight)
    [layer] = capture_layers(nn.Linear(3, 2), [torch.randn(1, 3)], full=True)
    with pytest.raises(ValueError, match=r"weight must have shape \(2, 3\), got \(3, 2\)"):
        layer.error(layer.weight.T)


@pytest.mark.parametrize("full", (False, True))
def test_inputs_too_faint_for_any_output_count_as_dead(full):
    module = nn.Linear(6, 2, bias=False)
    batch = torch.randn(20, 6) * torch.tensor([1.0, 1e-30, 1.0, 1.0, 1e-38, 1e-20])
    [layer] = capture_layers(module, [batch], full=full, chunk=3)
    diagonal = np.concatenate([chunk.gram.diagonal() for chunk in layer.chunks])
    assert np.array_equal(diagonal > 0, [True, False, True, True, False, True])
    for chunk in layer.chunks:
        assert chunk.problem(0).n == 3
        assert not chunk.gram[chunk.gram.diagonal() == 0].any()
