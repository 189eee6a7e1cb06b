"""Layers that are computed another way in training, beside torch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from alseg.engine.layers import quickened, ways_of


def passed(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x = x.clone().requires_grad_()
    out = model(x)
    (gradient,) = torch.autograd.grad(out.float().square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    return out, gradient, second


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", [nn.ReLU6, lambda inplace: nn.Hardtanh(-1.0, 2.0, inplace=inplace)])
def test_clamped_results_and_gradients_are_torch_s(kind, dtype):
    """On the edges and for what is no number, too, and those of a gradient."""
    torch.manual_seed(0)
    x = torch.cat([4 * torch.randn(200), torch.tensor([0.0, 6.0, -1.0, 2.0, float("nan"), float("inf")])]).to(dtype)
    model = nn.Sequential(nn.Softplus(), kind(inplace=True), nn.Tanh()).to(dtype)
    with quickened(ways_of(model)):
        assert "forward" in vars(model[1])
        found = passed(model, x)
    assert "forward" not in vars(model[1])
    for ours, theirs in zip(found, passed(copy.deepcopy(model), x), strict=True):
        assert torch.equal(ours.nan_to_num(77.0), theirs.nan_to_num(77.0))


def test_nothing_is_copied():
    model = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU6(inplace=True))
    copies = []
    for context in (quickened(ways_of(model)), quickened(ways_of(nn.Sequential()))):
        x = torch.randn(2, 4, 8, 8, requires_grad=True)
        with context, profile(activities=[ProfilerActivity.CPU]) as profiler:
            model(x).sum().backward()
        copies.append(sum(event.name == "aten::clone" for event in profiler.events()))
    assert copies == [0, 1]


def test_what_torch_alone_can_do_is_torch_s():
    plain, placed = nn.ReLU6(), nn.ReLU6(inplace=True)
    own = type("Own", (nn.ReLU6,), {})(inplace=True)
    model = nn.Sequential(plain, placed, own)
    with quickened(ways_of(model)):
        assert [("forward" in vars(module)) for module in model] == [False, True, False]
        x = torch.randn(3, 4)
        assert placed(x) is x
        y = (x.clone().requires_grad_() * 9).split(2, 1)[0]  # a view
        with pytest.raises(RuntimeError, match=r"in-?place"):
            placed(y)
        with pytest.raises(RuntimeError, match="leaf"):
            placed(torch.randn(3, requires_grad=True))


@pytest.mark.parametrize("how", [(3, 2, 1, 1), (5, 2, 2, 1), (3, (2, 1), (0, 2), 1), (3, 3, 1, 2), (7, 4, 3, 1)])
@pytest.mark.parametrize("size", [(16, 12), (13, 9), (7, 7)])
def test_a_strided_depthwise_convolution_is_torch_s(how, size):
    """In bfloat16, under autocast and without; `how` is the kernel, stride, padding and maps for each given one."""
    torch.manual_seed(0)
    kernel, stride, padding, times = how
    layer = nn.Conv2d(16, 16 * times, kernel, stride, padding, groups=16, bias=times > 1)
    x = torch.randn(2, 16, *size).to(memory_format=torch.channels_last).requires_grad_()
    found = []
    for model in (layer, nn.Sequential()):
        layer.zero_grad()
        with quickened(ways_of(model)):
            assert ("forward" in vars(layer)) == (model is layer)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = layer(x)
            assert ("_Strided" in out.grad_fn.name()) == (model is layer)
            (by_x,) = torch.autograd.grad(out.float().square().sum(), x, retain_graph=True)
            out.float().sin().sum().backward()
        found.append((out, by_x, *(parameter.grad.clone() for parameter in layer.parameters())))
    assert found[0][0].dtype == torch.bfloat16 and torch.equal(found[0][0], found[1][0])
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2 * float(theirs.detach().abs().max()))


def test_other_convolutions_and_precisions_are_torch_s():
    layers = [
        nn.Conv2d(4, 4, 3, 2, 1),
        nn.Conv2d(4, 4, 3, 1, 1, groups=4),
        nn.Conv2d(4, 4, 3, 2, 2, dilation=2, groups=4),
        nn.Conv2d(4, 4, 3, 2, 1, groups=4, padding_mode="reflect"),
        depthwise := nn.Conv2d(4, 4, 3, 2, 1, groups=4),
    ]
    with quickened(ways_of(nn.Sequential(*layers))):
        assert [("forward" in vars(layer)) for layer in layers] == [False, False, False, False, True]
        x = torch.randn(1, 4, 8, 8)
        assert "_Strided" not in depthwise(x).grad_fn.name()
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert depthwise(x).dtype == torch.bfloat16


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropout_leaves_out_its_share(rate):
    torch.manual_seed(0)
    layer = nn.Dropout(rate)
    x = torch.ones(2, 8, 100, 100).to(memory_format=torch.channels_last).requires_grad_()
    with quickened(ways_of(layer)):
        out = layer(x)
        (gradient,) = torch.autograd.grad(out.sum(), x)
        torch.manual_seed(1)
        first = layer(x)
        torch.manual_seed(1)
        assert torch.equal(layer(x), first) and not torch.equal(first, out)
        assert layer(x.bfloat16()).dtype == torch.bfloat16
        assert torch.equal(layer.eval()(x), x)
    dropped = out == 0
    assert dropped.float().mean() == pytest.approx(rate, abs=0.01)
    assert out.detach().mean() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(out[~dropped], torch.full_like(out[~dropped], 1 / (1 - rate)), rtol=1e-4, atol=0)
    assert torch.equal(gradient, out)
    # no place or channel is left out more than another
    assert dropped.float().mean((0, 2, 3)).sub(rate).abs().max() < 0.02
    # and nothing hangs together with its neighbour
    for moved in (dropped.roll(1, 1), dropped.roll(1, 2), dropped.roll(1, 3)):
        assert (dropped & moved).float().mean() == pytest.approx(rate**2, abs=0.01)


@pytest.mark.parametrize("shape", [(3,), (5, 1, 7), (0, 4)])
def test_maps_of_any_size_and_order_are_dropped_from(shape):
    layer = nn.Dropout(0.5)
    with quickened(ways_of(layer)):
        for x in (torch.ones(shape), torch.ones(shape).expand(2, *shape), torch.ones(*shape, 3)[..., 1]):
            out = layer(x)
            assert out.shape == x.shape and bool(((out == 0) | (out == 2)).all())


def test_only_dropout_that_leaves_something_out_is_another_way():
    layers = nn.Sequential(
        nn.Dropout(0.0), nn.Dropout(1.0), nn.Dropout(1e-6), nn.Dropout(0.5, inplace=True), nn.Dropout2d(0.5)
    )
    with quickened(ways_of(layers)):
        assert not any("forward" in vars(layer) for layer in layers)
