"""Layers that are computed another way in training, beside torch's."""

from __future__ import annotations

import pytest
import torch
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import nn
from torch.profiler import ProfilerActivity, profile

from alseg.engine.layers import _Clamped, quickened, ways_of


def block(kind: type[nn.Module] = InvertedResidual, **options) -> nn.Module:
    """One of timm's, its statistics of no special value."""
    torch.manual_seed(0)
    return kind(8, 8, act_layer=nn.ReLU6, **options).train().to(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [InvertedResidual, DepthwiseSeparableConv])
def test_clamped_results_and_gradients_are_torch_s(kind, dtype):
    """Those of a gradient, too."""
    model = block(kind).to(dtype)
    for parameter in model.parameters():
        parameter.data *= 4  # so that some are clamped at 6
    found = []
    for ways in (ways_of(model), {}):
        x = torch.randn(2, 8, 9, 9, dtype=dtype, generator=torch.Generator().manual_seed(1)).requires_grad_()
        given = x.to(memory_format=torch.channels_last)
        with quickened(ways):
            out = model(given)
            assert ("_Clamped" in graph(out)) == bool(ways)
            (gradient,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
            found.append((out, gradient, *torch.autograd.grad(gradient.square().sum(), [x, *model.parameters()])))
    assert len(ways_of(model)) == (3 if kind is InvertedResidual else 2)  # and the depthwise convolution
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


def graph(out: torch.Tensor) -> str:
    """The names of what a tensor was computed by."""
    names, left = set(), [out.grad_fn]
    while left:
        node = left.pop()
        if node is not None and str(node) not in names:
            names.add(str(node))
            left += [inner for inner, _ in node.next_functions]
    return " ".join(names)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_edges_and_what_is_no_number_are_clamped_as_torch_does(dtype):
    x = torch.tensor([-1.0, 0.0, 3.0, 6.0, 7.0, float("nan"), float("inf"), -float("inf")], dtype=dtype)
    found = []
    for clamp in (lambda x: _Clamped.apply(x, 0.0, 6.0), nn.ReLU6(inplace=True)):
        given = x.clone().requires_grad_()
        out = clamp(given * 1)
        found.append((out, *torch.autograd.grad(out.sum(), given)))
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours.nan_to_num(77.0), theirs.nan_to_num(77.0))


def test_nothing_is_copied():
    model, copies = block(), []
    for ways in (ways_of(model), {}):
        x = torch.randn(2, 8, 9, 9, requires_grad=True).to(memory_format=torch.channels_last)
        with quickened(ways), profile(activities=[ProfilerActivity.CPU]) as profiler:
            model(x).sum().backward()
        inside = [e for e in profiler.events() if e.name == "aten::clone"]
        copies.append(sum(e.cpu_parent is not None and e.cpu_parent.name == "aten::hardtanh_" for e in inside))
    assert copies == [0, 2]


def test_what_is_written_into_after_an_activation_stays_torch_s():
    """Its result is needed for the gradient, and torch does not need it."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(inplace=True), nn.Dropout(0.5, inplace=True))
    with quickened(ways_of(model)):
        model(torch.randn(1, 3, 4, 4)).sum().backward()


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
            (by_x,) = torch.autograd.grad(out.float().square().sum(), x, create_graph=True)
            (second,) = torch.autograd.grad(by_x.square().sum(), layer.weight, retain_graph=True)
            out.float().sin().sum().backward()
        found.append((out, by_x, second, *(parameter.grad.clone() for parameter in layer.parameters())))
    assert found[0][0].dtype == torch.bfloat16 and torch.equal(found[0][0], found[1][0])
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2 * float(theirs.detach().abs().max()))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("rate", "size"), [(2, (9, 12)), (2, (8, 7)), (3, (10, 11)), (4, (3, 3))])
def test_a_dilated_depthwise_convolution_is_torch_s(rate, size, autocast):
    """By its sub-grids on a CPU; under autocast in bfloat16."""
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, 3, padding=rate, dilation=rate, groups=6, bias=False)
    layer = layer if autocast else layer.double()
    x, y = (torch.randn(2, 6, *size, dtype=layer.weight.dtype) for _ in range(2))
    found = []
    for ways in (ways_of(layer), {}):
        given = x.clone().requires_grad_()
        layer.zero_grad()
        with quickened(ways), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            out = layer(given)
            assert ("_Interleaved" in out.grad_fn.name()) == bool(ways)
            with torch.no_grad():
                torch.testing.assert_close(layer(x), out, rtol=1e-2, atol=1e-2)
        (out * y).sum().backward()
        found.append((out, given.grad, layer.weight.grad))
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        close = {"rtol": 2e-2, "atol": 2e-2 * float(theirs.detach().abs().max())} if autocast else {}
        torch.testing.assert_close(ours, theirs, **close)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("rate", [2, 6, 12, 18])
@pytest.mark.parametrize("size", [(1, 1), (2, 30), (6, 6), (7, 5), (12, 13), (18, 19), (23, 30), (30, 18)])
def test_a_dilated_convolution_is_torch_s(rate, size, autocast):
    """By the taps that see more than padding; under autocast in bfloat16."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3, padding=rate, dilation=rate, bias=False)
    x, found = torch.rand(2, 3, *size), []
    for ways in (ways_of(layer), {}):
        given = x.clone().requires_grad_()
        layer.zero_grad()
        with quickened(ways), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            out = layer(given)
            with torch.no_grad():
                torch.testing.assert_close(layer(x), out, rtol=1e-2, atol=1e-2)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        found.append((out, given.grad, layer.weight.grad))
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        close = (
            {"rtol": 2e-2, "atol": 2e-2 * float(theirs.detach().abs().max()) + 1e-3}
            if autocast
            else {"rtol": 1e-5, "atol": 1e-5}
        )
        torch.testing.assert_close(ours, theirs, **close)


def test_a_widely_dilated_convolution_goes_by_taps():
    layer, wide = nn.Conv2d(3, 4, 3, padding=18, dilation=18, bias=False), torch.rand(1, 3, 23, 30)
    with quickened(ways_of(layer)):
        assert "_ByTaps" in layer(wide).grad_fn.name()
        assert "Convolution" in layer(torch.rand(1, 3, 90, 90)).grad_fn.name()
        assert layer(wide[0]).shape == (4, 23, 30)
        with pytest.raises(RuntimeError, match="channels"):
            layer(torch.rand(1, 2, 23, 30))
        with pytest.raises(RuntimeError, match="type"):
            layer(wide.double())
    assert "Convolution" in layer(wide).grad_fn.name()
    assert not ways_of(layer.to("meta")), "those elsewhere are left to the casts"


def test_other_convolutions_and_precisions_are_torch_s():
    layers = [
        nn.Conv2d(4, 4, 3, 2, 1),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2, bias=False),
        nn.Conv2d(4, 4, 3, padding=(2, 3), dilation=(2, 3), bias=False),
        nn.Conv2d(4, 4, 3, 2, 1, groups=4, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, 1, "same", groups=4),
        type("Own", (nn.Conv2d,), {})(4, 4, 3, 2, 1, groups=4),
        nn.Conv2d(4, 4, 3, 1, 1, groups=4),
        nn.Conv2d(4, 4, 3, 2, 2, dilation=2, groups=4),
        nn.Conv2d(4, 4, 3, 1, 1, dilation=2, groups=4),
        depthwise := nn.Conv2d(4, 4, 3, 2, 1, groups=4),
    ]
    with quickened(ways_of(nn.Sequential(*layers))):
        assert [("forward" in vars(layer)) for layer in layers] == [False] * 7 + [True] * 4
        x = torch.randn(1, 4, 8, 8)
        for layer in layers:
            assert "Convolution" in layer(x).grad_fn.name()
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
        for p, share in ((0.0, 1.0), (1.0, 0.0)):  # as a schedule may set it
            layer.p = p
            assert torch.equal(layer(x), x * share)
        layer.p = rate
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


def test_other_kinds_of_dropout_are_torch_s():
    layers = nn.Sequential(nn.Dropout(0.5, inplace=True), nn.Dropout2d(0.5))
    assert not ways_of(layers)


def test_within_torch_func_layers_are_torch_s():
    layer = nn.Dropout(0.5)
    with quickened(ways_of(layer)):
        made = torch.func.vmap(layer, randomness="different")(torch.ones(3, 50))
    assert not torch.equal(made[0], made[1])
