"""ReLU6 in place that keeps its result, beside torch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from alseg.engine.activations import uncopied


def passed(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x = x.clone().requires_grad_()
    out = model(x)
    (gradient,) = torch.autograd.grad(out.float().square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    return out, gradient, second


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", [nn.ReLU6, lambda inplace: nn.Hardtanh(-1.0, 2.0, inplace=inplace)])
def test_results_and_gradients_are_torch_s(kind, dtype):
    """On the edges and for what is no number, too, and those of a gradient."""
    torch.manual_seed(0)
    x = torch.cat([4 * torch.randn(200), torch.tensor([0.0, 6.0, -1.0, 2.0, float("nan"), float("inf")])]).to(dtype)
    model = nn.Sequential(nn.Softplus(), kind(inplace=True), nn.Tanh()).to(dtype)
    with uncopied(model):
        assert "forward" in vars(model[1])
        found = passed(model, x)
    assert "forward" not in vars(model[1])
    for ours, theirs in zip(found, passed(copy.deepcopy(model), x), strict=True):
        assert torch.equal(ours.nan_to_num(77.0), theirs.nan_to_num(77.0))


def test_nothing_is_copied():
    model = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU6(inplace=True))
    copies = []
    for context in (uncopied(model), uncopied(nn.Sequential())):
        x = torch.randn(2, 4, 8, 8, requires_grad=True)
        with context, profile(activities=[ProfilerActivity.CPU]) as profiler:
            model(x).sum().backward()
        copies.append(sum(event.name == "aten::clone" for event in profiler.events()))
    assert copies == [0, 1]


def test_what_torch_alone_can_do_is_torch_s():
    plain, placed = nn.ReLU6(), nn.ReLU6(inplace=True)
    own = type("Own", (nn.ReLU6,), {})(inplace=True)
    model = nn.Sequential(plain, placed, own)
    with uncopied(model):
        assert [("forward" in vars(module)) for module in model] == [False, True, False]
        x = torch.randn(3, 4)
        assert placed(x) is x
        y = (x.clone().requires_grad_() * 9).split(2, 1)[0]  # a view
        with pytest.raises(RuntimeError, match=r"in-?place"):
            placed(y)
        with pytest.raises(RuntimeError, match="leaf"):
            placed(torch.randn(3, requires_grad=True))
