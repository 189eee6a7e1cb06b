"""Convolutions by Winograd's way beside torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from alseg.engine import winograd
from alseg.engine.layers import quickened, ways_of
from alseg.engine.winograd import Winograd, _Convolution, has_groups

MANY = winograd.CHANNELS


@pytest.fixture(params=["oneDNN", "bmm"])
def multiplying(request, monkeypatch):
    """Either way of the 36 products."""
    if request.param == "bmm":
        monkeypatch.setattr("alseg.engine.winograd.has_groups", lambda: False)
    elif not has_groups():
        pytest.skip("oneDNN does not multiply packed matrices here, or torch's bmm is faster")


def both(*sizes: int) -> list[torch.Tensor]:
    """A random tensor in float32, and the same in float64 for torch's own convolution."""
    x = torch.randn(*sizes)
    return [x.requires_grad_(), x.detach().double().requires_grad_()]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 14), st.integers(1, 14), st.integers(0))
def test_it_is_the_convolution_with_its_gradients(batch, inputs, outputs, height, width, seed):
    torch.manual_seed(seed % 2**31)
    x, weight = both(batch, inputs, height, width), both(outputs, inputs, 3, 3)
    found = _Convolution.apply(x[0], weight[0]), F.conv2d(x[1], weight[1], padding=1)
    gradients = [torch.autograd.grad(f.sin().sum(), [x[i], weight[i]]) for i, f in enumerate(found)]
    for ours, theirs in zip((found[0], *gradients[0]), (found[1], *gradients[1]), strict=True):
        assert ours.dtype == torch.float32 and ours.shape == theirs.shape
        torch.testing.assert_close(ours.double(), theirs, rtol=5e-4, atol=5e-4)
    assert found[0].is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("size", [(8, 12), (9, 14), (3, 5)])
def test_bias_and_relu_join_in_and_parts_make_no_difference(multiplying, rectify, size, monkeypatch):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 4, *size), torch.randn(6, 4, 3, 3), torch.randn(6)
    wanted = F.conv2d(x, weight, bias, padding=1)
    for tiles in (1, 100):
        monkeypatch.setattr(winograd, "TILES", tiles)
        found = Winograd(weight, bias, rectify)(x)
        torch.testing.assert_close(found, wanted.relu() if rectify else wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_maps_of_many_sizes_keep_few_copies_of_the_kernels(multiplying):
    weight = torch.randn(3, 2, 3, 3)
    convolve = Winograd(weight)
    for _ in range(2):
        for width in range(4, 80, 5):
            x = torch.randn(1, 2, 4, width)
            torch.testing.assert_close(convolve(x), F.conv2d(x, weight, padding=1), rtol=1e-4, atol=1e-4)
    assert len(convolve._multiply._packed) <= winograd.MOST_PACKED
    x = torch.randn(1, 2, 4, 9)
    assert torch.equal(copy.deepcopy(convolve)(x), convolve(x))


@pytest.mark.parametrize("bias", [False, True])
def test_training_takes_it_where_it_pays(multiplying, bias):
    torch.manual_seed(0)
    layer = nn.Conv2d(MANY, MANY, 3, padding=1, bias=bias).to(memory_format=torch.channels_last)
    x = torch.randn(3, MANY, 32, 30).to(memory_format=torch.channels_last)
    found = []
    for ways in (ways_of(layer), {}):
        given, _ = x.clone().requires_grad_(), layer.zero_grad()
        with quickened(ways):
            out = layer(given)
            out.sin().sum().backward()
        taken = "_Convolution" in str(out.grad_fn.next_functions if bias else out.grad_fn)
        assert taken == bool(ways)
        found.append((out, given.grad, *(parameter.grad.clone() for parameter in layer.parameters())))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.detach().abs().max()))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(MANY - 1, MANY, 3, padding=1),
        nn.Conv2d(MANY, MANY, 3),
        nn.Conv2d(MANY, MANY, 3, 2, padding=1),
        nn.Conv2d(MANY, MANY, 3, padding=1, groups=2),
        nn.Conv2d(MANY, MANY, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(MANY, MANY, 5, padding=2),
        nn.Conv2d(MANY, MANY, 3, padding="same"),
    ],
    ids=str,
)
def test_other_convolutions_are_torch_s(layer):
    assert not winograd.fits(layer)


@pytest.mark.parametrize("case", ["autocast", "float64", "small", "few tiles in each", "a mistake"])
def test_what_does_not_fit_is_torch_s(case):
    torch.manual_seed(0)
    layer = nn.Conv2d(MANY, MANY, 3, padding=1)
    size = {"small": (2, MANY, 28, 28), "few tiles in each": (20, MANY, 16, 16)}.get(case, (3, MANY, 32, 32))
    x = torch.randn(*size)
    if case == "float64":
        layer, x = layer.double(), x.double()
    if case == "a mistake":
        with quickened(ways_of(layer)), pytest.raises(RuntimeError, match=r"expected input.*to have 96 channels"):
            layer(x[:, 1:])
        return
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=case == "autocast"):
        wanted = layer(x)
        with quickened(ways_of(layer)):
            assert torch.equal(layer(x), wanted)


def test_gradients_of_gradients_are_torch_s():
    torch.manual_seed(0)
    found = []
    for convolve in (lambda x, w: _Convolution.apply(x, w), lambda x, w: F.conv2d(x, w, padding=1)):
        generator = torch.Generator().manual_seed(1)
        x, weight = (torch.randn(*size, generator=generator).requires_grad_() for size in ((1, 2, 6, 7), (3, 2, 3, 3)))
        by_x, by_weight = torch.autograd.grad(convolve(x, weight).sin().sum(), [x, weight], create_graph=True)
        found.append(torch.autograd.grad(by_x.square().sum() + by_weight.square().sum(), [x, weight]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_only_what_is_wanted_gets_gradients():
    x, weight = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3)
    for wanted in ((True, False), (False, True)):
        given = [part.clone().requires_grad_(on) for part, on in zip((x, weight), wanted, strict=True)]
        _Convolution.apply(*given).sum().backward()
        assert [part.grad is not None for part in given] == list(wanted)
